//! The disk: a store that lies outside every host, so that a crash leaves it as it is, with delays, failures and
//! lost answers on the way to it. It keeps a log of everything that landed, in order, for the checkers.

mod open;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use dacapo::{Journal, Position, StoreError, ViewId};
use dacapo_model::Wish;
use dacapo_store::memory::{MemoryJournal, MemoryMembers, MemoryViews};
use dacapo_store::{Commit, ViewCopy, WhichLetters};
use tokio::sync::watch;

use crate::world::{SimClock, World, locked};

pub use open::open;

/// How the way to the disk is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    /// Every call takes up to this long on its way there, and again on its way back.
    pub delay_max: Duration,
    /// Of a hundred calls so many fail before they get there.
    pub failing: u8,
    /// Of a hundred calls so many get there, and their answers are lost.
    pub losing: u8,
    /// Of a hundred calls so many take very long.
    pub stalling: u8,
}

/// Something that has landed.
#[derive(Debug)]
pub enum Landed {
    /// Events were written through this position.
    Appended {
        through: u64,
    },
    /// Readers were moved, by this run of a node: what the tokens were at that moment.
    Flipped {
        at: u64,
        run: u64,
        tokens: BTreeMap<ViewId, Vec<u64>>,
    },
    Claimed {
        view: ViewId,
        /// The segments that were claimed.
        segments: Vec<usize>,
        /// The epochs of all of them then.
        epochs: Vec<u64>,
        /// Whether they were taken from everybody, for good.
        revoked: bool,
    },
    Committed {
        view: ViewId,
        commit: Commit,
        /// Whether rows were written in the transaction: an event that is applied writes some.
        wrote: bool,
    },
    /// Something was wished for dead letters.
    Wished {
        view: ViewId,
        which: WhichLetters,
        wish: Option<Wish>,
    },
    /// A view was copied, as it was at that moment.
    Copied {
        view: ViewId,
        copy: usize,
    },
    /// A writer has begun to fill a view from this copy.
    Attached {
        view: ViewId,
        copy: usize,
    },
    /// By a node that clients talk to, or by one that lingers after another took over.
    Made {
        view: ViewId,
        lingering: bool,
    },
    Dropped {
        view: ViewId,
    },
}

pub struct Disk {
    pub journal: Arc<MemoryJournal>,
    pub views: Arc<MemoryViews>,
    pub members: Arc<MemoryMembers>,
    world: Weak<World>,
    inside: Mutex<Inside>,
}

struct Inside {
    chance: fastrand::Rng,
    weather: Weather,
    landed: Vec<(Duration, Arc<Landed>)>,
    /// The heads of the journals that nodes have open.
    heads: Vec<Weak<Mutex<Option<watch::Sender<Position>>>>>,
    /// Every copy of a view that was made, by its number.
    copies: Vec<ViewCopy>,
}

enum Fate {
    Meets,
    Fails,
    LosesAnswer,
}

impl Disk {
    pub fn new(seed: u64, world: Weak<World>) -> Self {
        let chance = fastrand::Rng::with_seed(seed ^ 0xD15C);
        let inside = Inside { chance, weather: Weather::default(), landed: vec![], heads: vec![], copies: vec![] };
        Self {
            journal: Arc::new(MemoryJournal::new(Arc::new(SimClock))),
            views: Arc::new(MemoryViews::new()),
            members: Arc::new(MemoryMembers::new(Arc::new(SimClock))),
            world,
            inside: Mutex::new(inside),
        }
    }

    pub fn set_weather(&self, weather: Weather) {
        locked(&self.inside).weather = weather;
    }

    /// The last position of the journal.
    pub fn head(&self) -> u64 {
        self.journal.head().borrow().get()
    }

    /// Everything that landed so far, in order.
    pub fn landed(&self) -> Vec<Arc<Landed>> {
        locked(&self.inside).landed.iter().map(|(_, landed)| Arc::clone(landed)).collect()
    }

    /// The same, each with the time at which it landed.
    pub fn landed_at(&self) -> Vec<(Duration, Arc<Landed>)> {
        locked(&self.inside).landed.clone()
    }

    /// The events that each version of a projection has ever set aside.
    pub fn set_aside(&self, projection: &str) -> BTreeMap<String, BTreeSet<u64>> {
        let mut aside: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
        for (_, landed) in &locked(&self.inside).landed {
            if let Landed::Committed { view, commit, .. } = &**landed
                && view.projection.as_str() == projection
                && !commit.letters.is_empty()
            {
                let positions = commit.letters.iter().map(|letter| letter.position.get());
                aside.entry(view.version.to_string()).or_default().extend(positions);
            }
        }
        aside
    }

    fn world(&self) -> Arc<World> {
        self.world.upgrade().expect("the world lasts until the end")
    }

    fn land(&self, landed: Landed) {
        let world = self.world();
        world.note(format!("disk {landed:?}"));
        locked(&self.inside).landed.push((world.now(), Arc::new(landed)));
    }

    /// Keeps a copy of a view in mind.
    fn copied(&self, view: &ViewId, copy: &ViewCopy) {
        let number = {
            let copies = &mut locked(&self.inside).copies;
            copies.push(copy.clone());
            copies.len() - 1
        };
        self.land(Landed::Copied { view: view.clone(), copy: number });
    }

    /// Which of the copies this is.
    fn number_of(&self, copy: &ViewCopy) -> usize {
        let same = |known: &ViewCopy| match (known, copy) {
            (ViewCopy::Bytes(known), ViewCopy::Bytes(copy)) => Arc::ptr_eq(known, copy),
            _ => false,
        };
        let number = locked(&self.inside).copies.iter().position(same);
        number.expect("a copy that is attached was made of a view on this disk")
    }

    /// The head has moved: every open journal tells its watchers.
    fn tell_head(&self) {
        let head = *self.journal.head().borrow();
        locked(&self.inside).heads.retain(|open| {
            let Some(open) = open.upgrade() else { return false };
            if let Some(sender) = &*locked(&open) {
                sender.send_replace(head);
            }
            true
        });
    }

    fn fate(&self) -> (Duration, Fate, Duration) {
        let mut inside = locked(&self.inside);
        let Weather { delay_max, failing, losing, stalling } = inside.weather;
        let delay_ms = u64::try_from(delay_max.as_millis()).unwrap_or(u64::MAX);
        let chance = &mut inside.chance;
        let mut delay = || Duration::from_millis(if delay_ms == 0 { 0 } else { chance.u64(0..=delay_ms) });
        let (mut before, after) = (delay(), delay());
        if chance.u8(..100) < stalling {
            before += Duration::from_millis(chance.u64(100..900));
        }
        let fate = match chance.u8(..100) {
            number if number < failing => Fate::Fails,
            number if number < failing + losing => Fate::LosesAnswer,
            _ => Fate::Meets,
        };
        (before, fate, after)
    }

    async fn meet<T, E: From<StoreError> + Debug>(
        &self,
        what: &str,
        act: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let (before, fate, after) = self.fate();
        pass(before).await;
        let error = |found: &str| E::from(StoreError::unavailable(what, found));
        match fate {
            Fate::Fails => Err(error("the disk does not answer (simulated)")),
            Fate::Meets => {
                let done = act.await;
                pass(after).await;
                done
            }
            Fate::LosesAnswer => {
                let done = act.await;
                pass(after).await;
                done.and_then(|_| Err(error("the answer was lost (simulated)")))
            }
        }
    }
}

async fn pass(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}

//! The disk: a store that lies outside every host, so that a crash leaves it as it is, with delays, failures and
//! lost answers on the way to it. It keeps a log of everything that landed, in order, for the checkers.

mod open;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use dacapo::store::{Journal, StoreError};
use dacapo::{Position, ViewId};
use dacapo_model::{Mark, Member, MemberId, Wish};
use dacapo_store::memory::{MemoryJournal, MemoryMembers, MemoryViews};
use dacapo_store::{Commit, CommitError, NewMark, ViewCopy, Views as _, WhichLetters};
use futures::FutureExt;
use tokio::sync::watch;

use crate::world::{HOSTS, SimClock, World, locked};

pub use open::open;

/// The state of the connection to the disk.
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

impl Weather {
    fn is_fine(&self) -> bool {
        self.failing == 0 && self.losing == 0 && self.stalling == 0
    }
}

/// The subject of a call of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Its lease.
    Lease,
    /// The journal, and with it the catalog.
    Journal,
    /// The views.
    Views,
}

/// The state of one node's own connection to the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Link {
    #[default]
    Good,
    /// Calls of this kind, or all, wait until it is good again, on their way there or back.
    Hangs(Option<Kind>),
    /// Calls of this kind, or all, fail.
    Fails(Option<Kind>),
}

impl Link {
    /// Returns true if calls of this kind get through.
    pub fn lets(self, kind: Kind) -> bool {
        match self {
            Self::Good => true,
            Self::Hangs(only) | Self::Fails(only) => only.is_some_and(|only| only != kind),
        }
    }
}

/// What a node does because of what it has seen, so that it matters what others do in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    /// It claims what it has seen to be nobody's.
    Claim,
    /// It reads events, and then commits their result, under the claims that it had when it read.
    Read,
}

/// Something that has landed, or that changes what can.
#[derive(Debug)]
pub enum Landed {
    /// Events were written through this position.
    Appended {
        through: u64,
    },
    /// Readers were moved: what the tokens were at that moment.
    Flipped {
        at: u64,
        tokens: BTreeMap<ViewId, Vec<u64>>,
    },
    /// A member of the node in this slot has a lease from now on.
    Renewed {
        slot: usize,
        run: u64,
        member: Member,
        lease: Duration,
    },
    Left {
        member: MemberId,
    },
    Claimed {
        view: ViewId,
        /// The segments that were claimed, and the epoch that was seen of each.
        segments: BTreeMap<usize, u64>,
        /// The epochs of all of them then.
        epochs: Vec<u64>,
        /// By which run of a node.
        run: u64,
        claim: Claim,
    },
    /// The way to the disk of the node in this slot, or of all, is good from now on, or is not.
    Way {
        slot: Option<usize>,
        good: bool,
    },
    Committed {
        /// By the node in this slot.
        slot: usize,
        view: ViewId,
        commit: Commit,
        /// True if rows were written in the transaction: an event that is applied writes some.
        wrote: bool,
    },
    /// Something was wished for dead letters.
    Wished {
        view: ViewId,
        which: WhichLetters,
        wish: Option<Wish>,
    },
    /// Somebody has given these effects up: the positions of their events, and which of each.
    EffectsDropped {
        view: ViewId,
        effects: Vec<(u64, u32)>,
    },
    /// These effects are set aside, after tries without success.
    EffectsAside {
        view: ViewId,
        effects: Vec<(u64, u32)>,
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
    /// By this run of a node.
    Made {
        view: ViewId,
        run: u64,
    },
    Dropped {
        view: ViewId,
    },
    /// A view is of another history from here on.
    Parted {
        view: ViewId,
    },
}

/// Whom segments go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    By(MemberId),
    /// Nobody: the last owner has let go.
    Released,
    /// Nobody: they were taken from everybody.
    Revoked,
}

pub struct Disk {
    pub journal: Arc<MemoryJournal>,
    pub views: Arc<MemoryViews>,
    pub members: Arc<MemoryMembers>,
    links: [watch::Sender<Link>; HOSTS.len()],
    /// For each slot before what its node is to be paused, if it is.
    pauses: Mutex<[Option<Before>; HOSTS.len()]>,
    /// For each slot when its calls last began to be answered again, after they had waited.
    heard: Mutex<[Duration; HOSTS.len()]>,
    world: Weak<World>,
    inside: Mutex<Inside>,
}

/// The head of a journal that a node has open; none once it has closed it.
type Head = Mutex<Option<watch::Sender<Position>>>;

struct Inside {
    chance: fastrand::Rng,
    weather: Weather,
    landed: Vec<(Duration, Arc<Landed>)>,
    /// The heads of the journals that the nodes in these slots have open.
    heads: Vec<(usize, Weak<Head>)>,
    /// Every copy of a view that was made, by its number.
    copies: Vec<ViewCopy>,
    /// The slots whose nodes were paused as they were about to do something.
    paused: Vec<usize>,
    /// The views that are of another history, and since when.
    parted: BTreeMap<ViewId, Duration>,
}

enum Fate {
    Meets,
    Fails,
    LosesAnswer,
}

impl Disk {
    pub fn new(seed: u64, world: Weak<World>) -> Self {
        let chance = fastrand::Rng::with_seed(seed ^ 0xD15C);
        let (weather, landed, heads, copies, paused, parted) = Default::default();
        let inside = Inside { chance, weather, landed, heads, copies, paused, parted };
        Self {
            journal: Arc::new(MemoryJournal::new(Arc::new(SimClock::DISK))),
            views: Arc::new(MemoryViews::new()),
            members: Arc::new(MemoryMembers::new(Arc::new(SimClock::DISK))),
            links: Default::default(),
            pauses: Mutex::default(),
            heard: Mutex::default(),
            world,
            inside: Mutex::new(inside),
        }
    }

    pub fn set_weather(&self, weather: Weather) {
        locked(&self.inside).weather = weather;
        self.land(Landed::Way { slot: None, good: weather.is_fine() });
    }

    /// How the way of the node in `slot` is from now on.
    pub fn set_link(&self, slot: usize, link: Link) {
        if matches!(self.links[slot].send_replace(link), Link::Hangs(_)) {
            locked(&self.heard)[slot] = self.world().now();
        }
        self.land(Landed::Way { slot: Some(slot), good: link == Link::Good });
        self.tell_head();
    }

    pub fn link(&self, slot: usize) -> Link {
        *self.links[slot].borrow()
    }

    /// The next call of this kind of the node in `slot` stands still on its way, and with it the node.
    pub fn pause_before(&self, slot: usize, call: Option<Before>) {
        locked(&self.pauses)[slot] = call;
    }

    /// The node in `slot` has looked and is about to do something that follows from it: between the two it may be paused,
    /// and others continue.
    fn about_to(&self, slot: usize, call: Before) {
        if locked(&self.pauses)[slot].take_if(|before| *before == call).is_some() && self.link(slot) == Link::Good {
            self.world().note(format!("{} is about to {call:?}", HOSTS[slot]));
            self.set_link(slot, Link::Hangs(None));
            locked(&self.inside).paused.push(slot);
        }
    }

    /// Returns the slots whose nodes were paused as they were about to do something, once each.
    pub fn take_paused(&self) -> Vec<usize> {
        std::mem::take(&mut locked(&self.inside).paused)
    }

    /// Since when the node in `slot` hears from the disk; `None` while it waits for whatever it asks.
    pub fn heard_since(&self, slot: usize) -> Option<Duration> {
        (!matches!(self.link(slot), Link::Hangs(_))).then(|| locked(&self.heard)[slot])
    }

    /// Everything that landed so far, in order.
    pub fn landed(&self) -> Vec<Arc<Landed>> {
        locked(&self.inside).landed.iter().map(|(_, landed)| Arc::clone(landed)).collect()
    }

    /// The same, each with the time at which it landed.
    pub fn landed_at(&self) -> Vec<(Duration, Arc<Landed>)> {
        locked(&self.inside).landed.clone()
    }

    /// Puts rows of another history into a view, as a backup does that is put back beside a journal that went on. Whether
    /// that could be done.
    pub fn part(&self, id: &ViewId) -> bool {
        let done = self.put_other_rows(id).now_or_never().is_some_and(|put| put.is_ok_and(|put| put));
        if done {
            self.land(Landed::Parted { view: id.clone() });
            let now = self.world().now();
            locked(&self.inside).parted.insert(id.clone(), now);
        }
        done
    }

    async fn put_other_rows(&self, id: &ViewId) -> Result<bool, CommitError> {
        let Some(view) = self.views.find(id).await? else { return Ok(false) };
        let tokens = view.tokens().await?;
        let furthest = tokens.iter().map(|token| token.position).max().unwrap_or_default();
        if furthest == Position::START || tokens.iter().any(|token| token.held_for.is_some()) {
            return Ok(false);
        }
        // Nobody commits to it meanwhile.
        let mut writer = view.writer().await?;
        writer.execute("UPDATE totals SET sum = sum + 1, digest = digest + 1", &[]).await?;
        let mark = self.journal.mark(furthest).await?;
        let mark = Mark { digest: mark.digest ^ 1, ..mark };
        let kept = view.history().await?.map(|history| history.marks).unwrap_or_default();
        let forget = kept.iter().map(|mark| mark.position).collect();
        let history = Some(NewMark { journal: self.journal.id(), mark, forget });
        let moves: Vec<_> = tokens.iter().map(|token| token.step(token.position, 0)).collect();
        writer.commit(&Commit { history, ..Commit::of(moves) }).await?;
        drop(writer);
        // Anyone who had claimed it has the rows of before in mind.
        view.revoke().await?;
        let tokens = view.tokens().await?;
        let segments = tokens.iter().map(|token| (usize::from(token.segment.get()), token.epoch.get() - 1)).collect();
        let epochs = tokens.iter().map(|token| token.epoch.get()).collect();
        self.land(Landed::Claimed { view: id.clone(), segments, epochs, run: 0, claim: Claim::Revoked });
        Ok(true)
    }

    /// Returns the views that are of another history, and since when.
    pub fn parted(&self) -> BTreeMap<ViewId, Duration> {
        locked(&self.inside).parted.clone()
    }

    /// The same, of one version.
    pub fn parted_at(&self, projection: &str, version: &str) -> Option<Duration> {
        let parted = &locked(&self.inside).parted;
        let is = |view: &ViewId| view.projection.as_str() == projection && view.version.to_string() == version;
        parted.iter().find_map(|(view, at)| is(view).then_some(*at))
    }

    /// Returns the events that each version of a projection has ever set aside.
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
        locked(&self.inside).heads.retain(|(slot, open)| {
            let Some(open) = open.upgrade() else { return false };
            if let Some(sender) = locked(&open).as_ref().filter(|_| self.link(*slot).lets(Kind::Journal)) {
                sender.send_if_modified(|known| std::mem::replace(known, head) != head);
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

    /// Waits for a while, now and then: between what a flip or a claim has looked at and the flip or the claim, everything
    /// else continues.
    async fn linger(&self) {
        let time = {
            let chance = &mut locked(&self.inside).chance;
            Duration::from_millis(if chance.u8(..3) == 0 { chance.u64(10..500) } else { 0 })
        };
        tokio::time::sleep(time).await;
    }

    /// Goes the way of the node in `slot`, once.
    async fn pass(&self, (slot, kind): (usize, Kind), time: Duration) -> Result<(), &'static str> {
        if !time.is_zero() {
            tokio::time::sleep(time).await;
        }
        let mut link = self.links[slot].subscribe();
        // The sender lasts as long as the world.
        let link = link.wait_for(|link| link.lets(kind) || matches!(link, Link::Fails(_))).await;
        if link.is_ok_and(|link| link.lets(kind)) { Ok(()) } else { Err("the node is cut off (simulated)") }
    }

    /// Returns the way there, and how it will be back.
    async fn there(&self, way: (usize, Kind), what: &'static str) -> Result<Back, StoreError> {
        let (before, fate, time) = self.fate();
        let error = |found: &str| StoreError::unavailable(what, found);
        self.pass(way, before).await.map_err(error)?;
        match fate {
            Fate::Fails => Err(error("the disk does not answer (simulated)")),
            Fate::Meets => Ok(Back { what, time, loses: false }),
            Fate::LosesAnswer => Ok(Back { what, time, loses: true }),
        }
    }

    /// The way back with what was done.
    async fn back<T, E: From<StoreError>>(&self, way: (usize, Kind), back: Back, done: Result<T, E>) -> Result<T, E> {
        let passed = self.pass(way, back.time).await;
        let passed = if back.loses { Err("the answer was lost (simulated)") } else { passed };
        // What was refused is told either way: it changed nothing.
        done.and_then(|done| match passed {
            Ok(()) => Ok(done),
            Err(found) => Err(E::from(StoreError::unavailable(back.what, found))),
        })
    }

    async fn meet<T, E: From<StoreError>>(
        &self,
        way: (usize, Kind),
        what: &'static str,
        act: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let back = self.there(way, what).await?;
        let done = act.await;
        self.back(way, back, done).await
    }
}

/// The result of a call.
struct Back {
    what: &'static str,
    time: Duration,
    /// True if the answer is lost.
    loses: bool,
}

//! What is explored: which steps are open in a world, where each leads, and what holds in all of them.

use std::sync::Arc;

use dacapo_model::verify::{Report, Verdict};
use dacapo_model::{Applied, CatalogCommand, Epoch, FlipPolicy, Position, ProjectionName, Reads, SegmentCount, Token};
use stateright::{Checker, HasDiscoveries, Model, Property};

use super::state::*;

/// Which rule is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// A commit lands whatever its epoch and its start are.
    Unfenced,
    /// A controller confirms under the hold that it finds, not under the one its evidence was taken under.
    ConfirmsUnderAnyHold,
    /// The old version is not held.
    NoHold,
    /// A controller that could not confirm in time lifts its hold without saying so in the journal first.
    LiftsInSilence,
    /// A query does not look again which version serves after it opened a state.
    ShowsUnchecked,
    /// One segment that covers what is needed is enough.
    AnySegment,
}

/// What is explored.
#[derive(Clone, Debug)]
pub(super) struct Flips {
    pub(super) segments: u16,
    pub(super) appends: usize,
    pub(super) nodes: usize,
    /// The versions of the writers, 0 for `a` and 1 for `b`.
    pub(super) writers: Vec<usize>,
    /// Claims of one version.
    pub(super) claims: u64,
    /// Flips that are asked for: to `b`, then back to `a`.
    pub(super) requests: usize,
    pub(super) postponed: usize,
    pub(super) reader: bool,
    pub(super) broken: Option<Broken>,
}

impl Model for Flips {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let count = SegmentCount::new(self.segments).unwrap();
        let token = |segment| {
            Stored(Token {
                segment,
                epoch: Epoch::UNCLAIMED,
                position: Position::START,
                claimed_by: None,
                held_for: None,
                cap: None,
                applied: Applied::default(),
                replay: None,
            })
        };
        let stored = StoredView { tokens: count.segments().map(token).collect(), applied: vec![] };
        let mut world = World {
            journal: vec![],
            catalog: Folded(Arc::default()),
            views: [stored.clone(), stored],
            writers: self
                .writers
                .iter()
                .map(|version| Writer { version: *version, claimed: None, batch: None })
                .collect(),
            nodes: vec![],
            reader: Reader::default(),
            broken: None,
            refused: false,
        };
        for (version, code) in [1, 2].into_iter().enumerate() {
            let projection = ProjectionName::new("totals").unwrap();
            let (flip, fingerprint) = (FlipPolicy::OnCommand, String::new());
            let schedule = CatalogCommand::Schedule {
                projection,
                code,
                segments: count,
                flip,
                fingerprint,
                reads: Reads::default(),
                seeded: false,
                if_new: false,
            };
            assert!(world.change(&schedule) && world.change(&CatalogCommand::Begin(view(VERSIONS[version]))));
            let report = Report { at: Position::START, against: None, required: vec![], parts: vec![] };
            let (answers, verdict, report) = (None, Verdict::Pass, Arc::new(report));
            assert!(world.change(&CatalogCommand::Verify { view: view(VERSIONS[version]), answers, verdict, report }));
            let everyone = |world: &mut World| {
                let head = world.head();
                world.views[version].tokens.iter_mut().for_each(|stored| stored.0.position = head);
            };
            if version == 0 {
                // The first version covers its request and begins to serve.
                assert!(world.change(&CatalogCommand::RequestFlip(view(VERSIONS[0]))));
                everyone(&mut world);
                let requested = world.head();
                let confirm =
                    CatalogCommand::ConfirmFlip { view: view(VERSIONS[0]), hold: requested, covers: requested };
                assert!(world.change(&confirm));
            }
            everyone(&mut world);
        }
        assert_eq!((world.catalog.serving(), world.broken), (Some(0), None));
        let node = Node { catalog: world.catalog.clone(), pending: None, next: Next::Look };
        world.nodes = vec![node; self.nodes];
        // Anyone who writes has claimed: of two writers of one version the first is a zombie from the start.
        for writer in 0..world.writers.len() {
            world.writers[writer].claimed = Some(world.claim(self.writers[writer]));
        }
        vec![world]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        if world.broken.is_some() {
            return;
        }
        if world.count(|entry| matches!(entry, Entry::User(_))) < self.appends {
            actions.extend((0..usize::from(self.segments)).map(Action::Append));
        }
        let flips = world.count(|entry| matches!(entry, Entry::Catalog { flipped: Some(_), .. })) - 1;
        if flips < self.requests && world.catalog.pending().is_none() {
            actions.push(Action::RequestFlip);
        }
        for (number, writer) in world.writers.iter().enumerate() {
            match writer {
                Writer { claimed: None, version, .. } => {
                    if world.views[*version].tokens[0].0.epoch.get() < self.claims {
                        actions.push(Action::Claim(number));
                    }
                }
                Writer { batch: Some(_), .. } => actions.push(Action::Commit(number)),
                Writer { claimed: Some(claimed), .. } => {
                    let behind = claimed.iter().enumerate().filter(|(_, token)| token.0.position < world.head());
                    actions.extend(behind.map(|(segment, _)| Action::Prepare(number, segment)));
                }
            }
        }
        let postponed = world.catalog.pending().is_some_and(|flip| flip.hold != flip.requested);
        for (number, node) in world.nodes.iter().enumerate() {
            actions.push(Action::Step(number));
            if matches!(node.next, Next::ReadFrom(_)) && (self.postponed > 1 || self.postponed == 1 && !postponed) {
                actions.push(Action::OutOfBudget(number));
            }
            if node.next == Next::Look {
                let strays = (0..2).filter(|version| world.stray(number, *version).is_some());
                actions.extend(strays.map(|version| Action::LiftStray(number, version)));
            } else if self.nodes == 1 {
                // Of two nodes one may sleep permanently, which is as much.
                actions.push(Action::Restart(number));
            }
        }
        if self.reader {
            match &world.reader.open {
                Some(_) => actions.push(Action::Answer),
                // What it opens served when it looked, maybe some time ago.
                None => actions.extend((0..2).filter(|version| world.has_served(*version)).map(Action::Open)),
            }
        }
    }

    fn next_state(&self, before: &World, action: Action) -> Option<World> {
        let mut world = before.clone();
        match action {
            Action::Append(segment) => world.journal.push(Entry::User(segment)),
            Action::RequestFlip => {
                let other = 1 - world.catalog.serving().expect("a version serves");
                world.change(&CatalogCommand::RequestFlip(view(VERSIONS[other])));
            }
            Action::Claim(writer) => {
                let tokens = world.claim(world.writers[writer].version);
                world.writers[writer].claimed = Some(tokens);
            }
            Action::Prepare(writer, segment) => world.writers[writer].batch = Some((segment, world.head())),
            Action::Commit(writer) => world.commit(writer, self.broken),
            Action::Step(node) => world.step(node, true, self.broken),
            Action::OutOfBudget(node) => world.step(node, false, self.broken),
            Action::LiftStray(node, version) => {
                world.nodes[node].next = Next::Lift(version, world.stray(node, version)?);
            }
            Action::Restart(node) => {
                world.nodes[node] = Node { catalog: world.catalog.clone(), pending: None, next: Next::Look };
            }
            Action::Open(version) => world.reader.open = Some((version, positions(&world.views[version].tokens))),
            Action::Answer => world.answer(self.broken),
        }
        (world != *before).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("I-3", |_, world: &World| world.is_complete()),
            Property::always("I-4", |_, world: &World| world.broken != Some("I-4")),
            Property::always("I-5", |_, world: &World| world.broken != Some("I-5")),
            Property::always("I-6", |_, world: &World| world.broken != Some("I-6")),
            Property::always("I-7", |_, world: &World| world.broken != Some("I-7")),
            Property::sometimes("every flip that was asked for happens", |model: &Self, world: &World| {
                let flips = world.count(|entry| matches!(entry, Entry::Catalog { flipped: Some(_), .. })) - 1;
                flips == model.requests
            }),
            Property::sometimes("a reader follows the last flip", |model: &Self, world: &World| {
                !model.reader || world.reader.seen.as_ref().is_some_and(|(version, _)| *version == model.requests % 2)
            }),
            Property::sometimes("a zombie is refused", |model: &Self, world: &World| {
                model.writers.len() < 3 || world.refused
            }),
        ]
    }
}

/// Explores all of it, and returns the invariants that do not hold.
pub(super) fn explore(model: Flips) -> Vec<&'static str> {
    let until = match model.broken {
        Some(_) => HasDiscoveries::AnyFailures,
        None => HasDiscoveries::All,
    };
    let broken = model.broken;
    let checker = model.checker().threads(2).finish_when(until).spawn_bfs().join();
    let failed: Vec<_> = ["I-3", "I-4", "I-5", "I-6", "I-7"]
        .into_iter()
        .filter(|invariant| checker.discovery(invariant).is_some())
        .collect();
    if broken.is_none() {
        checker.assert_properties();
    }
    failed
}

pub(super) const NONE: [&str; 0] = [];

pub(super) fn small() -> Flips {
    Flips {
        segments: 1,
        appends: 1,
        nodes: 1,
        writers: vec![0, 1],
        claims: 2,
        requests: 1,
        postponed: 1,
        reader: false,
        broken: None,
    }
}

//! Every interleaving of flips and claims in the small, over the functions that run: `Catalog::decide` and `evolve`,
//! `flip::gate`, `Token::moved`.
//!
//! Two versions of one projection, `a` which serves and `b` which is ready; two writers of one version, of which one
//! is a zombie as soon as the other claims; two nodes that drive the same flip, each of which may sleep between any
//! two of its steps or lose all it knows; a reader that keeps books. What is not a function of the model is done here as the
//! drivers do it, in the same steps: tokens are read one version after the other, the gate is asked on what was read,
//! and whatever it says is carried out later, when things may have changed.
//!
//! The last tests break one rule each and see that the checks notice.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use dacapo_model::flip::{FlipFacts, From, Gate, gate};
use dacapo_model::verify::{Report, Verdict};
use dacapo_model::{
    Applied, Catalog, CatalogCommand, CatalogEvent, Epoch, FlipPolicy, PendingFlip, Position, ProjectionName, Reads,
    SegmentCount, Timestamp, Token, TokenRefused, VersionId, ViewId,
};
use stateright::{Checker, HasDiscoveries, Model, Property};

/// Which rule is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Broken {
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
struct Flips {
    segments: u16,
    appends: usize,
    nodes: usize,
    /// The versions of the writers, 0 for `a` and 1 for `b`.
    writers: Vec<usize>,
    /// Claims of one version.
    claims: u64,
    /// Flips that are asked for: to `b`, then back to `a`.
    requests: usize,
    postponed: usize,
    reader: bool,
    broken: Option<Broken>,
}

const VERSIONS: [VersionId; 2] = [VersionId { code: 1, build: 1 }, VersionId { code: 2, build: 1 }];

fn view(version: VersionId) -> ViewId {
    ViewId { projection: ProjectionName::new("totals").unwrap(), version }
}

fn number(version: VersionId) -> usize {
    VERSIONS.iter().position(|known| *known == version).unwrap()
}

/// A catalog, told apart from others of the same journal by its revision alone.
#[derive(Clone)]
struct Folded(Arc<Catalog>);

impl PartialEq for Folded {
    fn eq(&self, other: &Self) -> bool {
        self.0.revision == other.0.revision
    }
}

impl Eq for Folded {}

impl Hash for Folded {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.revision.hash(state);
    }
}

impl fmt::Debug for Folded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "catalog at {}", self.0.revision)
    }
}

impl Folded {
    fn pending(&self) -> Option<PendingFlip> {
        self.0.projections.values().next()?.flip
    }

    fn serving(&self) -> Option<usize> {
        self.0.projections.values().next()?.serving.map(number)
    }
}

/// A token with a hash.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stored(Token);

impl Hash for Stored {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Token { segment, epoch, position, owner: _, held_for, cap: _, applied, replay } = self.0;
        (segment, epoch, position, held_for, applied.events, replay.map(|mark| mark.request)).hash(state);
    }
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.0.position, self.0.epoch)?;
        self.0.held_for.map_or(Ok(()), |mark| write!(f, " held for {mark}"))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Entry {
    /// An event of a user, with its segment.
    User(usize),
    /// An event of the catalog: its digest, and for a flip from where it goes.
    Catalog { digest: u64, flipped: Option<(Option<usize>, usize)> },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct StoredView {
    tokens: Vec<Stored>,
    /// How often the event at each position was applied.
    applied: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Writer {
    version: usize,
    /// The tokens as it knows them, once it has claimed.
    claimed: Option<Vec<Stored>>,
    /// A segment that it is about to commit, and how far.
    batch: Option<(usize, Position)>,
}

/// What a node is about to do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Next {
    Look,
    /// It has read the tokens of the version to serve.
    ReadFrom(Vec<Stored>),
    Hold,
    Confirm(Position),
    Postpone,
    /// Lift this mark from that version.
    Lift(usize, Position),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Node {
    catalog: Folded,
    pending: Option<PendingFlip>,
    next: Next,
}

impl Hash for Node {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.catalog, self.pending.map(|pending| pending.hold), &self.next).hash(state);
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Reader {
    /// A state that is open: of which version, and where each segment is.
    open: Option<(usize, Vec<Position>)>,
    /// What it was answered last.
    seen: Option<(usize, Vec<Position>)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    journal: Vec<Entry>,
    catalog: Folded,
    views: [StoredView; 2],
    writers: Vec<Writer>,
    nodes: Vec<Node>,
    reader: Reader,
    /// The invariant that was seen to break.
    broken: Option<&'static str>,
    refused: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Action {
    Append(usize),
    RequestFlip,
    Claim(usize),
    Prepare(usize, usize),
    Commit(usize),
    Step(usize),
    OutOfBudget(usize),
    LiftStray(usize, usize),
    Restart(usize),
    Open(usize),
    Answer,
}

impl World {
    fn head(&self) -> Position {
        Position::new(self.journal.len() as u64)
    }

    fn has_served(&self, version: usize) -> bool {
        let flipped = |entry: &Entry| matches!(entry, Entry::Catalog { flipped: Some((_, to)), .. } if *to == version);
        self.journal.iter().any(flipped)
    }

    fn count(&self, wanted: impl Fn(&Entry) -> bool) -> usize {
        self.journal.iter().filter(|entry| wanted(entry)).count()
    }

    /// What `CatalogLog::change` comes to: decided on the truth, since anything else is refused by its revision.
    fn change(&mut self, command: &CatalogCommand) -> bool {
        let Ok(events) = self.catalog.0.decide(command) else { return false };
        for event in events {
            let mut digest = DefaultHasher::new();
            format!("{event:?}").hash(&mut digest);
            let mut flipped = None;
            if let CatalogEvent::Flipped { view, from, .. } = &event {
                flipped = Some((from.map(number), number(view.version)));
                self.check_flip(from.map(number), number(view.version));
            }
            self.journal.push(Entry::Catalog { digest: digest.finish(), flipped });
            let mut catalog = Catalog::clone(&self.catalog.0);
            catalog.evolve(&event, self.head(), Timestamp::from_micros(0)).unwrap();
            self.catalog = Folded(Arc::new(catalog));
        }
        true
    }

    /// Looks at a flip at the moment of its append, with its own eyes.
    fn check_flip(&mut self, from: Option<usize>, to: usize) {
        let served = self.journal.iter().rev().find_map(|entry| match entry {
            Entry::Catalog { flipped, .. } => flipped.map(|(_, to)| to),
            Entry::User(_) => None,
        });
        if served != from || from == Some(to) {
            self.broken = Some("I-5");
        }
        let requested = self.catalog.pending().map(|pending| pending.requested).unwrap_or_default();
        let shown = from.map(|from| positions(&self.views[from].tokens)).into_iter().flatten().max();
        let needed = requested.max(shown.unwrap_or_default());
        if positions(&self.views[to].tokens).iter().any(|position| *position < needed) {
            self.broken = Some("I-6");
        }
    }

    fn claim(&mut self, version: usize) -> Vec<Stored> {
        for Stored(token) in &mut self.views[version].tokens {
            token.epoch = token.epoch.next();
        }
        self.views[version].tokens.clone()
    }

    fn commit(&mut self, writer: usize, broken: Option<Broken>) {
        let Writer { version, claimed: Some(claimed), batch: Some((segment, to)) } = self.writers[writer].clone()
        else {
            return;
        };
        let (own, Stored(stored)) = (claimed[segment].0, self.views[version].tokens[segment]);
        let is_own = |position: &u64| self.journal[*position as usize] == Entry::User(segment);
        let events = (own.position.get()..to.get()).filter(is_own).count() as u64;
        let asked = own.step(to, events);
        let moved = match stored.moved(asked) {
            Err(TokenRefused::Fenced { .. }) if broken == Some(Broken::Unfenced) => {
                Ok(Token { position: to, ..stored })
            }
            moved => moved,
        };
        match moved {
            Ok(moved) => {
                if (asked.epoch, asked.from) != (stored.epoch, stored.position) || stored.held_for.is_some() {
                    self.broken = Some("I-4");
                }
                self.views[version].tokens[segment] = Stored(moved);
                for position in asked.from.get()..to.get() {
                    if self.journal[position as usize] == Entry::User(segment) {
                        let applied = &mut self.views[version].applied;
                        applied.resize(applied.len().max(position as usize + 1), 0);
                        applied[position as usize] += 1;
                    }
                }
                let writer = &mut self.writers[writer];
                writer.batch = None;
                writer.claimed.as_mut().unwrap()[segment].0 = Token { held_for: None, ..moved };
            }
            // It is tried again until the hold is lifted.
            Err(TokenRefused::Held { .. }) => {}
            Err(TokenRefused::Capped { .. }) => unreachable!("nothing is verified here"),
            Err(TokenRefused::Fenced { .. }) => {
                self.refused = true;
                self.writers[writer] = Writer { version, claimed: None, batch: None };
            }
        }
    }

    /// The next step of the driver of a flip; `patient` while the hold is within its budget.
    fn step(&mut self, node: usize, patient: bool, broken: Option<Broken>) {
        let Node { pending, next, .. } = self.nodes[node].clone();
        let from = pending.and_then(|pending| pending.from).map(number);
        let next = match next {
            Next::Look => {
                self.nodes[node].catalog = self.catalog.clone();
                let present = self.catalog.pending();
                match (pending, present) {
                    // Its flip was settled or goes on under another hold.
                    (Some(pending), present) if present != Some(pending) => {
                        self.nodes[node].pending = None;
                        from.map_or(Next::Look, |from| Next::Lift(from, pending.hold))
                    }
                    (_, Some(present)) => {
                        self.nodes[node].pending = Some(present);
                        Next::ReadFrom(self.views[number(present.to)].tokens.clone())
                    }
                    (_, None) => Next::Look,
                }
            }
            Next::ReadFrom(to_tokens) => {
                let pending = pending.expect("a flip is driven");
                let read = |tokens: &[Stored]| tokens.iter().map(|stored| stored.0).collect::<Vec<_>>();
                let mut from_tokens = from.map(|from| read(&self.views[from].tokens)).unwrap_or_default();
                let mut to_tokens = read(&to_tokens);
                match broken {
                    Some(Broken::NoHold) => {
                        from_tokens.iter_mut().for_each(|token| token.held_for = Some(pending.hold))
                    }
                    Some(Broken::AnySegment) => {
                        let highest = to_tokens.iter().map(|token| token.position).max().unwrap();
                        to_tokens.iter_mut().for_each(|token| token.position = highest);
                    }
                    _ => {}
                }
                let facts = FlipFacts {
                    requested: pending.requested,
                    hold: pending.hold,
                    from: from.map(|_| From::Open(&from_tokens)),
                    to: pending.to,
                    to_tokens: Ok(&to_tokens),
                    to_verified: Ok(()),
                };
                match gate(&facts) {
                    Gate::Hold => Next::Hold,
                    Gate::Flip { covers } => Next::Confirm(covers),
                    Gate::Held(_) if !patient => Next::Postpone,
                    Gate::Wait(_) | Gate::Held(_) => Next::Look,
                }
            }
            Next::Hold => {
                let mark = pending.expect("a flip is driven").hold;
                for Stored(token) in &mut self.views[from.expect("it is held")].tokens {
                    token.held_for = Some(token.held_for.map_or(mark, |held| held.max(mark)));
                }
                Next::Look
            }
            Next::Confirm(covers) => {
                let PendingFlip { to, hold, .. } = pending.expect("a flip is driven");
                let present = self.catalog.pending().map(|pending| pending.hold);
                let hold = if broken == Some(Broken::ConfirmsUnderAnyHold) { present.unwrap_or(hold) } else { hold };
                self.change(&CatalogCommand::ConfirmFlip { view: view(to), hold, covers });
                self.nodes[node].catalog = self.catalog.clone();
                from.map_or(Next::Look, |from| Next::Lift(from, pending.expect("a flip is driven").hold))
            }
            Next::Postpone => {
                let PendingFlip { to, hold, .. } = pending.expect("a flip is driven");
                if broken != Some(Broken::LiftsInSilence) {
                    self.change(&CatalogCommand::PostponeFlip { view: view(to), hold });
                }
                self.nodes[node].catalog = self.catalog.clone();
                Next::Lift(from.expect("it is held"), hold)
            }
            Next::Lift(version, mark) => {
                for Stored(token) in &mut self.views[version].tokens {
                    token.held_for = token.held_for.filter(|held| *held > mark);
                }
                Next::Look
            }
        };
        self.nodes[node].next = next;
        if self.nodes[node].next == Next::Look && self.catalog.pending() != self.nodes[node].pending {
            self.nodes[node].pending = None;
        }
    }

    /// The mark on a version that the conductor of `node` would lift, on the catalog that it knows.
    fn stray(&self, node: usize, version: usize) -> Option<Position> {
        let catalog = &self.nodes[node].catalog;
        let flip = catalog.pending().filter(|flip| flip.from == Some(VERSIONS[version]));
        let marks = self.views[version].tokens.iter().filter_map(|stored| stored.0.held_for);
        marks.filter(|mark| flip.map(|flip| flip.hold) != Some(*mark) && *mark <= catalog.0.position).max()
    }

    fn answer(&mut self, broken: Option<Broken>) {
        let Some((version, now)) = self.reader.open.take() else { return };
        // The query looks again which version serves, after the state was opened.
        if self.catalog.serving() != Some(version) && broken != Some(Broken::ShowsUnchecked) {
            return;
        }
        if let Some((before, seen)) = &self.reader.seen {
            let goes_back = match *before == version {
                true => now.iter().zip(seen).any(|(now, seen)| now < seen),
                false => now.iter().min() < seen.iter().max(),
            };
            if goes_back {
                self.broken = Some("I-7");
            }
        }
        self.reader.seen = Some((version, now));
    }

    /// I-3, from the rows and tokens alone.
    fn is_complete(&self) -> bool {
        self.views.iter().all(|view| {
            let counted = |stored: &Stored| {
                let events = self.journal.iter().take(stored.0.position.get() as usize);
                let own = Entry::User(usize::from(stored.0.segment.get()));
                events.filter(|entry| **entry == own).count() as u64 == stored.0.applied.events
            };
            view.tokens.iter().all(counted)
                && self.journal.iter().enumerate().all(|(at, entry)| {
                    let applied = view.applied.get(at).copied().unwrap_or_default();
                    match entry {
                        Entry::User(segment) => applied == u8::from(view.tokens[*segment].0.position.get() > at as u64),
                        Entry::Catalog { .. } => applied == 0,
                    }
                })
        })
    }
}

fn positions(tokens: &[Stored]) -> Vec<Position> {
    tokens.iter().map(|stored| stored.0.position).collect()
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
                owner: None,
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
        // Whoever writes has claimed: of two writers of one version the first is a zombie from the start.
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
                // Of two nodes one may sleep for good, which is as much.
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
fn explore(model: Flips) -> Vec<&'static str> {
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

const NONE: [&str; 0] = [];

fn small() -> Flips {
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

#[test]
fn a_reader_never_goes_back() {
    assert_eq!(explore(Flips { reader: true, ..small() }), NONE);
}

#[test]
fn one_node_flips_and_rolls_back() {
    assert_eq!(explore(Flips { requests: 2, ..small() }), NONE);
}

#[test]
fn two_nodes_drive_one_flip() {
    assert_eq!(explore(Flips { nodes: 2, ..small() }), NONE);
}

#[test]
fn a_zombie_of_the_old_version_writes_during_the_flip() {
    assert_eq!(explore(Flips { writers: vec![0, 0, 1], claims: 3, ..small() }), NONE);
}

#[test]
fn a_zombie_of_the_new_version_writes_during_the_flip() {
    assert_eq!(explore(Flips { writers: vec![0, 1, 1], claims: 3, ..small() }), NONE);
}

#[test]
fn segments_at_different_places() {
    assert_eq!(explore(Flips { segments: 2, postponed: 0, ..small() }), NONE);
}

#[test]
fn an_unfenced_commit_is_noticed() {
    let failed = explore(Flips { writers: vec![0, 1, 1], claims: 3, broken: Some(Broken::Unfenced), ..small() });
    assert!(failed.contains(&"I-4") || failed.contains(&"I-3"), "{failed:?}");
}

#[test]
fn a_flip_without_a_hold_is_noticed() {
    let failed = explore(Flips { broken: Some(Broken::NoHold), ..small() });
    assert_eq!(failed, ["I-6"]);
}

#[test]
fn a_reader_behind_a_flip_without_a_hold_is_noticed() {
    let failed = explore(Flips { reader: true, broken: Some(Broken::ShowsUnchecked), ..small() });
    assert_eq!(failed, ["I-7"]);
}

#[test]
fn a_confirmation_under_another_hold_is_noticed() {
    let failed = explore(Flips { nodes: 2, broken: Some(Broken::ConfirmsUnderAnyHold), ..small() });
    assert_eq!(failed, ["I-6"]);
}

#[test]
fn a_hold_that_is_lifted_in_silence_is_noticed() {
    let failed = explore(Flips { nodes: 2, broken: Some(Broken::LiftsInSilence), ..small() });
    assert_eq!(failed, ["I-6"]);
}

#[test]
fn a_flip_on_one_segment_alone_is_noticed() {
    let failed = explore(Flips { segments: 2, postponed: 0, broken: Some(Broken::AnySegment), ..small() });
    assert_eq!(failed, ["I-6"]);
}

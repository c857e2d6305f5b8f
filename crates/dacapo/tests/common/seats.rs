//! Seats that go from hand to hand: a view in which a value may be had by one row, on whatever store.

// Each test binary uses its own part of this.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::time::Duration;

use dacapo::catalog::Phase;
use dacapo::options::{OnFailure, Policy, Retry};
use dacapo::store::Store;
use dacapo::verify::Verify;
use dacapo::{
    Event, ExpectedRevision, HandlerError, Node, Options, Position, Projection, ProjectionName, Recorded, Row, Table,
    VersionCode, View, ViewId,
};

const WAIT_MAX: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, PartialEq, Eq, Event)]
pub enum SeatEvent {
    Taken { user: String, seat: i64 },
    Released { user: String },
    Moved { from: String, to: String },
    Swapped { a: String, b: String },
    Noted { user: String, note: String },
}

#[derive(Clone, Debug, PartialEq, Eq, Row)]
#[row(table = "holders")]
pub struct Holder {
    #[row(key)]
    pub user: String,
    #[row(unique)]
    pub seat: Option<i64>,
    #[row(index)]
    pub note: String,
}

pub struct Seats {
    pub options: Options,
}

impl Projection for Seats {
    const NAME: &'static str = "seats";
    const VERSION: u32 = 1;
    const TABLES: &'static [Table] = &[Holder::TABLE];
    type Event = SeatEvent;

    fn options(&self) -> Options {
        self.options.clone()
    }

    async fn apply(&self, event: &Recorded<'_, SeatEvent>, view: &mut View) -> Result<(), HandlerError> {
        let none = |user: &String| Holder { user: user.clone(), seat: None, note: String::new() };
        match &event.data {
            SeatEvent::Taken { user, seat } => view.upsert(user, || none(user), |row| row.seat = Some(*seat)).await?,
            SeatEvent::Released { user } => drop(view.update::<Holder>(user, |row| row.seat = None).await?),
            SeatEvent::Moved { from, to } => {
                let seat = view.get::<Holder>(from).await?.and_then(|row| row.seat);
                view.update::<Holder>(from, |row| row.seat = None).await?;
                view.upsert(to, || none(to), |row| row.seat = seat).await?;
            }
            SeatEvent::Swapped { a, b } => {
                let first = view.get::<Holder>(a).await?.and_then(|row| row.seat);
                let second = view.get::<Holder>(b).await?.and_then(|row| row.seat);
                view.update::<Holder>(a, |row| row.seat = second).await?;
                view.update::<Holder>(b, |row| row.seat = first).await?;
            }
            SeatEvent::Noted { user, note } => view.upsert(user, || none(user), |row| row.note = note.clone()).await?,
        }
        Ok(())
    }
}

/// Options of a version that sets aside what is refused, and goes on.
pub fn skipping(batch_events_max: usize, row_cache_bytes: usize) -> Options {
    Options {
        batch_events_max,
        row_cache_bytes,
        retry: Retry { attempts: 1, ..Retry::default() },
        on_failure: OnFailure { serving: Policy::Skip, initializing: Policy::Skip },
        order_matters: false,
        verify: Verify { letters_allowed: true, ..Verify::default() },
        ..Options::default()
    }
}

/// Who has which seat and which note.
pub type Rows = BTreeMap<String, (Option<i64>, String)>;

/// What a view comes to: its rows, and what was refused and why.
#[derive(Debug, PartialEq)]
pub struct Outcome {
    pub rows: Rows,
    pub refused: BTreeMap<u64, String>,
}

/// Who has which seat after which events, one at a time; and which are refused.
pub fn expected(events: &[(SeatEvent, Position)]) -> (Rows, Vec<u64>) {
    let (mut rows, mut refused) = (Rows::new(), vec![]);
    for (event, position) in events {
        let mut next = rows.clone();
        let seat = |user: &String| rows.get(user).and_then(|row| row.0);
        let mut sit = |user: &String, seat| next.entry(user.clone()).or_default().0 = seat;
        match event {
            SeatEvent::Taken { user, seat } => sit(user, Some(*seat)),
            SeatEvent::Released { user } if rows.contains_key(user) => sit(user, None),
            SeatEvent::Released { .. } => {}
            SeatEvent::Moved { from, to } => {
                if rows.contains_key(from) {
                    sit(from, None);
                }
                sit(to, seat(from));
            }
            SeatEvent::Swapped { a, b } => {
                let (first, second) = (seat(a), seat(b));
                for (user, seat) in [(a, second), (b, first)].into_iter().filter(|(user, _)| rows.contains_key(*user)) {
                    sit(user, seat);
                }
            }
            SeatEvent::Noted { user, note } => next.entry(user.clone()).or_default().1 = note.clone(),
        }
        let mut seats: Vec<i64> = next.values().filter_map(|row| row.0).collect();
        seats.sort_unstable();
        let twice = seats.windows(2).any(|two| two[0] == two[1]);
        if twice || next.values().any(|row| row.1.len() > dacapo::limits::INDEX_BYTES_MAX) {
            refused.push(position.get());
        } else {
            rows = next;
        }
    }
    (rows, refused)
}

/// Numbers that follow from a seed.
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }
}

/// Events of which some are refused.
pub fn random(seed: u64, count: usize) -> Vec<SeatEvent> {
    let mut dice = Dice(seed);
    let mut event = || {
        let user = |dice: &mut Dice| format!("u{}", dice.below(12));
        match dice.below(10) {
            0..4 => SeatEvent::Taken { user: user(&mut dice), seat: dice.below(16) as i64 },
            4..6 => SeatEvent::Released { user: user(&mut dice) },
            6..8 => SeatEvent::Moved { from: user(&mut dice), to: user(&mut dice) },
            8 => SeatEvent::Swapped { a: user(&mut dice), b: user(&mut dice) },
            _ => {
                let long = [3, dacapo::limits::INDEX_BYTES_MAX, dacapo::limits::INDEX_BYTES_MAX + 1];
                // Not what compresses well.
                let letters = |dice: &mut Dice| char::from(b'a' + dice.below(26) as u8);
                let note = (0..long[dice.below(3) as usize]).map(|_| letters(&mut dice)).collect();
                SeatEvent::Noted { user: user(&mut dice), note }
            }
        }
    };
    (0..count).map(|_| event()).collect()
}

pub fn view() -> ViewId {
    ViewId { projection: ProjectionName::new("seats").unwrap(), version: "v1.1".parse().unwrap() }
}

pub async fn append(node: &Node, events: impl IntoIterator<Item = SeatEvent>) -> Position {
    node.append("hall-1", ExpectedRevision::Any, events).await.unwrap().position
}

pub async fn serving(node: &Node) {
    let mut catalog = node.catalog();
    let reached =
        catalog.wait_for(|catalog| catalog.version(&view()).is_some_and(|state| state.phase == Phase::Serving));
    tokio::time::timeout(WAIT_MAX, reached).await.expect("it serves in time").unwrap();
}

/// What the version has made of everything through `after`.
pub async fn outcome(node: &Node, after: Position) -> Outcome {
    let mut reading = node.read("seats", after).await.unwrap();
    let rows: Vec<Holder> = reading.view.rows::<Holder>().load().await.unwrap();
    let letters = node.version(view()).letters().limit(10_000).await.unwrap();
    Outcome {
        rows: rows.into_iter().map(|row| (row.user, (row.seat, row.note))).collect(),
        refused: letters.into_iter().map(|found| (found.letter.position.get(), found.letter.error)).collect(),
    }
}

/// What a node on this store makes of these events: those of the beginning as a rebuild, the others as they come, one by one.
pub async fn run(store: Store, events: &[SeatEvent], past: usize, options: Options) -> (Outcome, Vec<u64>) {
    let node = Node::builder().store(store).start().await.unwrap();
    let (past, live) = events.split_at(past);
    let mut placed = vec![];
    for event in past {
        placed.push((event.clone(), append(&node, [event.clone()]).await));
    }
    node.add_projection(VersionCode::new(Seats { options })).unwrap();
    serving(&node).await;
    for event in live {
        placed.push((event.clone(), append(&node, [event.clone()]).await));
    }
    let found = outcome(&node, node.head()).await;
    node.shutdown().await;
    let (rows, refused) = expected(&placed);
    assert_eq!(found.rows, rows);
    assert_eq!(found.refused.keys().copied().collect::<Vec<_>>(), refused);
    // Positions are where the catalog's own events let them be: what is compared is which of the events it was.
    let number =
        |position: &u64| placed.iter().position(|(_, at)| at.get() == *position).expect("it is one of them") as u64;
    let errors = found.refused.iter().map(|(position, error)| (number(position), error.clone())).collect();
    (Outcome { refused: errors, ..found }, refused)
}

/// Random events come to the same whatever the batches, the memory and how much of them is the past.
pub async fn same_wherever_batches_end(seeds: std::ops::Range<u64>, mut store: impl AsyncFnMut() -> Store) {
    for seed in seeds {
        let events = random(seed, 60);
        let mut first: Option<Outcome> = None;
        for (past, batch_events_max, bytes) in
            [(0, 1, 0), (60, 1_000, 0), (60, 1_000, 64 << 20), (60, 7, 600), (30, 3, 0)]
        {
            let (found, _) = run(store().await, &events, past, skipping(batch_events_max, bytes)).await;
            let first =
                first.get_or_insert_with(|| Outcome { rows: found.rows.clone(), refused: found.refused.clone() });
            assert_eq!(&found, first, "seed {seed}, {past} of the past, batches of {batch_events_max}");
        }
        assert!(!first.expect("it ran").refused.is_empty(), "seed {seed} has something to refuse");
    }
}

//! What counts is the state after each event, wherever batches end: random events in random batches come to the same as one
//! event at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dacapo_model::{Position, ProjectionName, SegmentCount, Token, VersionId, ViewId, limits};
use dacapo_store::memory::MemoryViews;
use dacapo_store::{Commit, Table, Views};
use proptest::prelude::*;

use super::{NotCommitted, ReadView, View, ViewError};
use crate::Row;

/// Who sits where; a seat has one holder, and so has a place in a row of a hall.
#[derive(Clone, Debug, PartialEq, Row)]
struct Holder {
    #[row(key)]
    user: u8,
    #[row(unique)]
    seat: Option<i64>,
    #[row(unique = "place")]
    hall: String,
    #[row(unique = "place")]
    row: Option<f64>,
    #[row(index)]
    note: String,
}

static TABLES: &[Table] = &[Holder::TABLE];

const HELD_FOR: Position = Position::new(99_999);

type Rows = BTreeMap<u8, Holder>;

/// What a handler does with one row.
#[derive(Clone, Debug)]
enum Act {
    Put(u8, Option<i64>, Option<i8>),
    Seat(u8, Option<i64>),
    Place(u8, Option<i8>),
    Upsert(u8, i64),
    Note(u8, usize),
    Swap(u8, u8),
    Get(u8),
    Delete(u8),
    Sql,
}

fn place() -> impl Strategy<Value = Option<i8>> {
    proptest::option::weighted(0.8, -1..3_i8)
}

fn act() -> impl Strategy<Value = Act> {
    let (user, seat) = (0..7_u8, || proptest::option::weighted(0.8, 0..5_i64));
    let long = prop_oneof![4 => Just(3), 1 => Just(limits::INDEX_BYTES_MAX), 1 => Just(limits::INDEX_BYTES_MAX + 1)];
    prop_oneof![
        4 => (user.clone(), seat(), place()).prop_map(|(user, seat, place)| Act::Put(user, seat, place)),
        5 => (user.clone(), seat()).prop_map(|(user, seat)| Act::Seat(user, seat)),
        2 => (user.clone(), place()).prop_map(|(user, place)| Act::Place(user, place)),
        3 => (user.clone(), 0..5_i64).prop_map(|(user, seat)| Act::Upsert(user, seat)),
        1 => (user.clone(), long).prop_map(|(user, long)| Act::Note(user, long)),
        3 => (user.clone(), user.clone()).prop_map(|(a, b)| Act::Swap(a, b)),
        1 => user.clone().prop_map(Act::Get),
        3 => user.prop_map(Act::Delete),
        1 => Just(Act::Sql),
    ]
}

/// The two zeros are the same place.
fn number(place: i8) -> f64 {
    if place < 0 { -0.0 } else { place.into() }
}

fn holder(user: u8, seat: Option<i64>, place: Option<i8>) -> Holder {
    Holder { user, seat, hall: "main".into(), row: place.map(number), note: String::new() }
}

fn holds(rows: &Rows) -> bool {
    let others = |row: &Holder| rows.values().filter(|other| other.user != row.user).cloned().collect::<Vec<_>>();
    rows.values().all(|row| {
        let twice = others(row)
            .iter()
            .any(|other| row.seat.is_some() && row.seat == other.seat || row.row.is_some() && row.row == other.row);
        !twice && row.note.len() <= limits::INDEX_BYTES_MAX
    })
}

/// One event on all rows, as it should be: what it makes of them, unless it is refused.
fn expected(rows: &Rows, event: &[Act]) -> Option<Rows> {
    let mut rows = rows.clone();
    for act in event {
        match *act {
            Act::Put(user, seat, place) => drop(rows.insert(user, holder(user, seat, place))),
            Act::Seat(user, seat) => rows.entry(user).and_modify(|row| row.seat = seat).into_none(),
            Act::Place(user, place) => rows.entry(user).and_modify(|row| row.row = place.map(number)).into_none(),
            Act::Upsert(user, seat) => {
                rows.entry(user).or_insert_with(|| holder(user, None, None)).seat = Some(seat);
            }
            Act::Note(user, long) => rows.entry(user).and_modify(|row| row.note = "n".repeat(long)).into_none(),
            Act::Swap(a, b) => {
                let seats = (rows.get(&a).and_then(|row| row.seat), rows.get(&b).and_then(|row| row.seat));
                rows.entry(a).and_modify(|row| row.seat = seats.1).into_none();
                rows.entry(b).and_modify(|row| row.seat = seats.0).into_none();
            }
            Act::Get(_) => {}
            Act::Delete(user) => drop(rows.remove(&user)),
            Act::Sql if !holds(&rows) => return None,
            Act::Sql => {}
        }
    }
    holds(&rows).then_some(rows)
}

trait IntoNone: Sized {
    fn into_none(self) {}
}

impl IntoNone for std::collections::btree_map::Entry<'_, u8, Holder> {}

/// The same as a handler.
async fn handle(view: &mut View, event: &[Act]) -> Result<(), ViewError> {
    for act in event {
        match *act {
            Act::Put(user, seat, place) => view.put(holder(user, seat, place))?,
            Act::Seat(user, seat) => drop(view.update::<Holder>(user, |row| row.seat = seat).await?),
            Act::Place(user, place) => drop(view.update::<Holder>(user, |row| row.row = place.map(number)).await?),
            Act::Upsert(user, seat) => {
                view.upsert(user, || holder(user, None, None), |row| row.seat = Some(seat)).await?;
            }
            Act::Note(user, long) => drop(view.update::<Holder>(user, |row| row.note = "n".repeat(long)).await?),
            Act::Swap(a, b) => {
                let first = view.get::<Holder>(a).await?.and_then(|row| row.seat);
                let second = view.get::<Holder>(b).await?.and_then(|row| row.seat);
                view.update::<Holder>(a, |row| row.seat = second).await?;
                view.update::<Holder>(b, |row| row.seat = first).await?;
            }
            Act::Get(user) => drop(view.get::<Holder>(user).await?),
            Act::Delete(user) => drop(view.delete::<Holder>(user).await?),
            Act::Sql => drop(view.query("SELECT 1", &[]).await?),
        }
    }
    view.end_event()
}

/// How a run goes.
#[derive(Clone, Debug)]
struct Cut {
    /// How many events the batches have, in turns.
    batches: Vec<usize>,
    bytes_max: usize,
    unasked_max: usize,
    /// Which batches meet a hold.
    held: Vec<bool>,
}

fn cut() -> impl Strategy<Value = Cut> {
    let bytes_max = prop_oneof![Just(0_usize), Just(900), Just(usize::MAX)];
    let batches = proptest::collection::vec(1..9_usize, 1..6);
    let held = proptest::collection::vec(proptest::bool::weighted(0.2), 1..6);
    (batches, bytes_max, prop_oneof![Just(1_usize), Just(3), Just(1_000)], held)
        .prop_map(|(batches, bytes_max, unasked_max, held)| Cut { batches, bytes_max, unasked_max, held })
}

struct World {
    stored: Arc<dyn dacapo_store::View>,
    view: View,
    token: Token,
    refused: BTreeSet<u64>,
}

impl World {
    async fn new(cut: &Cut) -> Self {
        let id = ViewId { projection: ProjectionName::new("seats").unwrap(), version: VersionId { code: 1, build: 1 } };
        let stored = MemoryViews::new().open(&id, TABLES, SegmentCount::ONE).await.unwrap();
        let token = stored.claim(None, &stored.tokens().await.unwrap()).await.unwrap()[0];
        let mut view = View::new(stored.writer().await.unwrap(), TABLES).with_bytes_max(cut.bytes_max);
        view.unasked_max = cut.unasked_max;
        Self { stored, view, token, refused: BTreeSet::new() }
    }

    /// Applies the events behind the token through this position, and returns how far it came, or which was refused.
    async fn apply(&mut self, events: &[Vec<Act>], through: u64) -> Result<u64, u64> {
        for at in self.token.position.get() + 1..=through {
            if self.refused.contains(&at) {
                continue;
            }
            self.view.write_for(self.token.segment, Position::new(at));
            let done = handle(&mut self.view, &events[at as usize - 1]).await;
            if done.is_err() {
                let blamed = self.view.blamed().await.unwrap().and_then(|error| error.at());
                return Err(blamed.map_or(at, |blamed| blamed.get().min(at)));
            }
            if self.view.should_ask() {
                return Ok(at);
            }
        }
        Ok(through)
    }

    /// One batch, as a processor does it that sets aside what is refused.
    async fn batch(&mut self, events: &[Vec<Act>], mut through: u64, held: bool) {
        if held {
            // A hold waits for a transaction that writes, so it is there before the batch that will meet it.
            self.stored.hold(HELD_FOR).await.unwrap();
        }
        loop {
            let refused = match self.apply(events, through).await {
                Ok(at) => {
                    through = at;
                    match self.commit(through).await {
                        Ok(()) => return,
                        Err(error) => error.at().expect("it names the event").get(),
                    }
                }
                Err(refused) => refused,
            };
            self.view.rollback().await.unwrap();
            assert!(self.refused.insert(refused), "an event is refused once");
            through = refused;
        }
    }

    async fn commit(&mut self, through: u64) -> Result<(), ViewError> {
        let step = self.token.step(Position::new(through), 1);
        loop {
            match self.view.commit(&Commit::of([step])).await {
                Ok(()) => break,
                Err(NotCommitted::Held { must_reapply: false, .. }) => self.stored.lift(HELD_FOR).await.unwrap(),
                Err(NotCommitted::Failed(error)) => return Err(error),
                Err(other) => panic!("{other:?}"),
            }
        }
        self.token = self.token.moved(step).expect("the store has carried out this move");
        Ok(())
    }

    async fn committed(&self) -> Rows {
        let mut view = ReadView::new(self.stored.reader().await.unwrap());
        view.rows::<Holder>().load().await.unwrap().into_iter().map(|row| (row.user, row)).collect()
    }
}

async fn run(events: &[Vec<Act>], cut: &Cut) {
    let mut world = World::new(cut).await;
    let (mut rows, mut refused, mut states) = (Rows::new(), BTreeSet::new(), vec![Rows::new()]);
    for (event, at) in events.iter().zip(1..) {
        match expected(&rows, event) {
            Some(next) => rows = next,
            None => drop(refused.insert(at)),
        }
        states.push(rows.clone());
    }
    let mut turns = cut.batches.iter().cycle().zip(cut.held.iter().cycle());
    while world.token.position.get() < events.len() as u64 {
        let (size, held) = turns.next().expect("it has no end");
        let through = (world.token.position.get() + *size as u64).min(events.len() as u64);
        world.batch(events, through, *held).await;
        let at = world.token.position.get();
        assert_eq!(world.committed().await, states[at as usize], "through event {at}");
    }
    assert_eq!(world.refused, refused);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    // I-3
    #[test]
    fn rows_and_refusals_are_the_same_wherever_batches_end(
        events in proptest::collection::vec(proptest::collection::vec(act(), 1..4), 1..40), cut in cut(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(run(&events, &cut));
    }
}

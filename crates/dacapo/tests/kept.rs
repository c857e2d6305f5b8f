//! What a handler finds in a row is what a store keeps of it, wherever batches end and whatever is in memory.

#[path = "common/kept.rs"]
mod kept;
#[path = "common/seats.rs"]
mod seats;

use std::sync::Arc;

use dacapo::catalog::Phase;
use dacapo::journal::EventError;
use dacapo::rows::{Field, FieldError, Value};
use dacapo::store::Store;
use dacapo::world::SystemClock;
use dacapo::{
    Event, ExpectedRevision, HandlerError, Node, Options, Projection, ProjectionName, Recorded, Row, Table,
    VersionCode, View, ViewId,
};
use seats::{Dice, skipping};

fn memory() -> Store {
    Store::memory(Arc::new(SystemClock))
}

#[tokio::test(flavor = "multi_thread")]
async fn random_events_come_to_the_same_wherever_batches_end_in_memory() {
    kept::same_wherever_batches_end(0..4, false, async |_| memory()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn random_events_come_to_the_same_wherever_batches_end_on_disk() {
    let directory = tempfile::tempdir().unwrap();
    kept::same_wherever_batches_end(4..6, true, async |number| {
        let place = directory.path().join(number.to_string());
        Store::embedded(&place, Arc::new(SystemClock)).unwrap()
    })
    .await;
}

#[derive(Clone, Debug, PartialEq, Event)]
enum Counted {
    Added { x: f64 },
    Other,
}

#[test]
fn a_number_of_an_event_is_read_as_the_number_that_was_appended() {
    let mut dice = Dice(1);
    for _ in 0..10_000 {
        let mantissa = dice.below(1 << 31) << 21 | dice.below(1 << 21);
        let x = f64::from_bits((1_000 + dice.below(60)) << 52 | mantissa);
        let event = Counted::Added { x };
        assert_eq!(Counted::decode("added", &event.encode().unwrap()).unwrap(), Some(event));
    }
}

/// A row of a type of its own in the column, which keeps whole cents and cuts off the rest.
#[derive(Clone, Debug, PartialEq)]
struct Euros(f64);

impl Field for Euros {
    const KIND: dacapo::rows::ColumnKind = i64::KIND;

    fn to_value(&self) -> Result<Value, FieldError> {
        Ok(Value::Integer((self.0 * 100.0) as i64))
    }

    fn from_value(value: Value) -> Result<Self, FieldError> {
        i64::from_value(value).map(|cents| Self(cents as f64 / 100.0))
    }
}

#[derive(Clone, Debug, Row)]
#[row(table = "totals")]
struct Total {
    #[row(key)]
    id: String,
    euros: Euros,
    count: i64,
}

/// The same table, and another type of row.
#[derive(Clone, Debug, Row)]
#[row(table = "totals")]
struct Narrow {
    #[row(key)]
    id: String,
    count: i64,
}

/// What it does with an event is the test's.
struct Totals {
    options: Options,
    narrow: bool,
}

impl Projection for Totals {
    const NAME: &'static str = "totals";
    const VERSION: u32 = 1;
    const TABLES: &'static [Table] = &[Total::TABLE];
    type Event = Counted;

    fn options(&self) -> Options {
        self.options.clone()
    }

    async fn apply(&self, event: &Recorded<'_, Counted>, view: &mut View) -> Result<(), HandlerError> {
        let new = || Total { id: "all".into(), euros: Euros(0.0), count: 0 };
        match event.data {
            Counted::Added { x } => {
                let change = |row: &mut Total| {
                    row.euros = Euros(x);
                    row.count += 1;
                };
                view.upsert("all", new, change).await?;
            }
            Counted::Other if self.narrow => {
                view.upsert("all", || Narrow { id: "all".into(), count: 0 }, |row: &mut Narrow| row.count += 100)
                    .await?;
            }
            Counted::Other => {}
        }
        Ok(())
    }
}

fn view_of(name: &str) -> ViewId {
    ViewId { projection: ProjectionName::new(name).unwrap(), version: "v1.1".parse().unwrap() }
}

async fn serving(node: &Node, name: &str) {
    let mut catalog = node.catalog();
    let view = view_of(name);
    catalog.wait_for(|catalog| catalog.version(&view).is_some_and(|it| it.phase == Phase::Serving)).await.unwrap();
}

async fn letters(node: &Node, name: &str) -> Vec<(u64, String)> {
    let letters = node.version(view_of(name)).letters().limit(100).await.unwrap();
    letters.into_iter().map(|found| (found.letter.position.get(), found.letter.error)).collect()
}

async fn add<E: Event>(node: &Node, event: E) -> u64 {
    node.append("hall-1", ExpectedRevision::Any, [event]).await.unwrap().position.get()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_comes_back_as_another_one_each_time_is_refused_at_that_event() {
    let node = Node::builder().store(memory()).start().await.unwrap();
    for x in [0.5, 0.58, 0.25] {
        add(&node, Counted::Added { x }).await;
    }
    node.add_projection(VersionCode::new(Totals { options: skipping(1_000, 64 << 20), narrow: false })).unwrap();
    serving(&node, "totals").await;
    let mut reading = node.read("totals", node.head()).await.unwrap();
    let row = reading.view.get::<Total>("all").await.unwrap().unwrap();
    assert_eq!((row.euros, row.count), (Euros(0.25), 2));
    let [(_, why)] = &letters(&node, "totals").await[..] else { panic!("one is refused") };
    // 0.58 is 57 cents when it is cut off, and 0.57 is 56.
    assert!(why.contains("column totals.euros") && why.contains("Integer(57)") && why.contains("Integer(56)"), "{why}");
    drop(reading);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_of_a_table_that_was_not_declared_so_is_refused_after_a_restart_as_before() {
    let directory = tempfile::tempdir().unwrap();
    let start = async || {
        let carried = VersionCode::new(Totals { options: skipping(1_000, 64 << 20), narrow: true });
        Node::builder().data(directory.path()).projection(carried).start().await.unwrap()
    };
    let mut node = start().await;
    serving(&node, "totals").await;
    let mut refused = vec![];
    for turn in 0..4 {
        let event = if turn % 2 == 0 { Counted::Added { x: 0.5 } } else { Counted::Other };
        let is_refused = event == Counted::Other;
        let at = add(&node, event).await;
        refused.extend(is_refused.then_some(at));
        node.read("totals", node.head()).await.unwrap();
        node.shutdown().await;
        node = start().await;
    }
    node.read("totals", node.head()).await.unwrap();
    let letters = letters(&node, "totals").await;
    assert_eq!(letters.iter().map(|(at, _)| *at).collect::<Vec<_>>(), refused);
    assert!(letters.iter().all(|(_, why)| why.contains("totals") && why.contains("Narrow")), "{letters:?}");
    node.shutdown().await;
}

/// Written by hand: it names a type that it does not read.
#[derive(Debug)]
struct Half;

impl Event for Half {
    const TYPES: &'static [&'static str] = &["added", "half"];

    fn event_type(&self) -> &'static str {
        "half"
    }

    fn encode(&self) -> Result<Vec<u8>, EventError> {
        Ok(b"{}".to_vec())
    }

    fn decode(event_type: &str, _: &[u8]) -> Result<Option<Self>, EventError> {
        Ok((event_type == "half").then_some(Self))
    }
}

struct Halves;

impl Projection for Halves {
    const NAME: &'static str = "halves";
    const VERSION: u32 = 1;
    const TABLES: &'static [Table] = &[Total::TABLE];
    type Event = Half;

    fn options(&self) -> Options {
        skipping(10, 64 << 20)
    }

    async fn apply(&self, _: &Recorded<'_, Half>, view: &mut View) -> Result<(), HandlerError> {
        let new = || Total { id: "all".into(), euros: Euros(0.0), count: 0 };
        view.upsert("all", new, |row: &mut Total| row.count += 1).await?;
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_of_a_type_that_is_named_and_not_read_is_refused() {
    let node = Node::builder().store(memory()).start().await.unwrap();
    let mut refused = vec![];
    for _ in 0..3 {
        refused.push(add(&node, Counted::Added { x: 1.0 }).await);
        add(&node, Half).await;
    }
    node.add_projection(VersionCode::new(Halves)).unwrap();
    serving(&node, "halves").await;
    refused.push(add(&node, Counted::Added { x: 1.0 }).await);
    let mut reading = node.read("halves", node.head()).await.unwrap();
    assert_eq!(reading.view.get::<Total>("all").await.unwrap().unwrap().count, 3);
    let letters = letters(&node, "halves").await;
    assert_eq!(letters.iter().map(|(at, _)| *at).collect::<Vec<_>>(), refused);
    assert!(letters.iter().all(|(_, why)| why.contains("added") && why.contains("TYPES")), "{letters:?}");
    drop(reading);
    node.shutdown().await;
}

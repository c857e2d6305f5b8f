//! Rows whose fields a store does not keep to the last bit, on whatever store: what a handler finds is what was kept.

// Each test binary uses its own part of this.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::time::Duration;

use dacapo::catalog::Phase;
use dacapo::store::Store;
use dacapo::{
    Event, ExpectedRevision, HandlerError, Node, Options, Position, Projection, ProjectionName, Recorded, Row, Table,
    VersionCode, View, ViewId,
};
use serde::{Deserialize, Serialize};

use super::seats::{Dice, skipping};

const WAIT_MAX: Duration = Duration::from_secs(60);

/// Times are nanoseconds since 1970, finer than a column.
#[derive(Clone, Debug, Event)]
pub enum MeterEvent {
    Added { meter: i64, x: f64 },
    Scaled { meter: i64, by: f64 },
    Seen { meter: i64, at: i64 },
    Divided { meter: i64, by: f64 },
    Nested { meter: i64, deep: usize },
    Replaced { meter: i64, x: f64 },
    Removed { meter: i64 },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sum {
    total: f64,
}

#[derive(Clone, Debug, Row)]
#[row(table = "meters")]
pub struct Meter {
    #[row(key)]
    since: jiff::Timestamp,
    at: jiff::Timestamp,
    again: i64,
    #[row(json)]
    sum: Sum,
    value: serde_json::Value,
    plain: f64,
    small: Option<f32>,
    below: i64,
}

pub struct Meters {
    pub options: Options,
}

fn time(nanos: i64) -> jiff::Timestamp {
    jiff::Timestamp::from_nanosecond(nanos.into()).unwrap()
}

fn meter(nanos: i64) -> Meter {
    Meter {
        since: time(nanos),
        at: jiff::Timestamp::UNIX_EPOCH,
        again: 0,
        sum: Sum { total: 1.1 },
        value: serde_json::json!(0.3),
        plain: 1.0,
        small: None,
        below: 0,
    }
}

impl Projection for Meters {
    const NAME: &'static str = "meters";
    const VERSION: u32 = 1;
    const TABLES: &'static [Table] = &[Meter::TABLE];
    type Event = MeterEvent;

    fn options(&self) -> Options {
        self.options.clone()
    }

    async fn apply(&self, event: &Recorded<'_, MeterEvent>, view: &mut View) -> Result<(), HandlerError> {
        let (MeterEvent::Added { meter: nanos, .. }
        | MeterEvent::Scaled { meter: nanos, .. }
        | MeterEvent::Seen { meter: nanos, .. }
        | MeterEvent::Divided { meter: nanos, .. }
        | MeterEvent::Nested { meter: nanos, .. }
        | MeterEvent::Replaced { meter: nanos, .. }
        | MeterEvent::Removed { meter: nanos }) = event.data;
        let change = |row: &mut Meter| match &event.data {
            MeterEvent::Added { x, .. } => {
                row.sum.total += x;
                row.value = serde_json::json!(row.value.as_f64().unwrap_or(0.7) + x);
            }
            MeterEvent::Scaled { by, .. } => {
                row.below += i64::from(row.plain.is_sign_negative());
                row.below += 1_000 * i64::from(row.small.is_some_and(f32::is_sign_negative));
                row.plain *= by;
                row.small = Some(row.small.unwrap_or(1.0) * *by as f32);
            }
            // The last by its own time stands; one of the same time is counted.
            MeterEvent::Seen { at, .. } if time(*at) == row.at => row.again += 1,
            MeterEvent::Seen { at, .. } => row.at = row.at.max(time(*at)),
            // JSON has nothing for what comes of a division by zero.
            MeterEvent::Divided { by, .. } => row.sum.total /= by,
            MeterEvent::Nested { deep, .. } => {
                for _ in 0..*deep {
                    row.value = serde_json::json!([row.value]);
                }
            }
            MeterEvent::Replaced { .. } | MeterEvent::Removed { .. } => {}
        };
        match event.data {
            MeterEvent::Removed { .. } => drop(view.delete::<Meter>(time(nanos)).await?),
            MeterEvent::Replaced { x, .. } => view.put(Meter { sum: Sum { total: x }, ..meter(nanos) })?,
            _ => view.upsert(time(nanos), || meter(nanos), change).await?,
        }
        Ok(())
    }
}

/// Events of which some are refused.
fn random(seed: u64, count: usize) -> Vec<MeterEvent> {
    let mut dice = Dice(seed);
    let mut event = || {
        // Some are one key to a store.
        let meter = 1_700_000_000_000_000_000 + dice.below(3_000) as i64;
        let x = (dice.below(1 << 30) as f64).sqrt() * 1e5 / 3.0 * 1.1;
        match dice.below(12) {
            0..4 => MeterEvent::Added { meter, x },
            4..6 => MeterEvent::Scaled { meter, by: [-1.0, 0.0, 0.1, 3.0][dice.below(4) as usize] },
            6..8 => MeterEvent::Seen { meter, at: 1_800_000_000_000_000_000 + dice.below(2_500) as i64 },
            8 => MeterEvent::Divided { meter, by: dice.below(2) as f64 },
            9 => MeterEvent::Nested { meter, deep: 50 },
            10 => MeterEvent::Replaced { meter, x },
            _ => MeterEvent::Removed { meter },
        }
    };
    (0..count).map(|_| event()).collect()
}

/// The rows, to the last bit, and of the events the numbers of those that were refused, and why.
#[derive(Debug, PartialEq)]
struct Outcome {
    rows: Vec<String>,
    refused: BTreeMap<usize, String>,
}

fn view() -> ViewId {
    ViewId { projection: ProjectionName::new("meters").unwrap(), version: "v1.1".parse().unwrap() }
}

async fn serving(node: &Node) {
    let mut catalog = node.catalog();
    let reached =
        catalog.wait_for(|catalog| catalog.version(&view()).is_some_and(|state| state.phase == Phase::Serving));
    tokio::time::timeout(WAIT_MAX, reached).await.expect("it serves in time").unwrap();
}

async fn append(node: &Node, event: &MeterEvent) -> Position {
    node.append("hall-1", ExpectedRevision::Any, [event.clone()]).await.unwrap().position
}

/// How a node comes to apply the events.
struct Way {
    /// How many are there before the version is.
    past: usize,
    batch_events_max: usize,
    row_cache_bytes: usize,
    /// After how many of the others it is stopped and started anew.
    restart: Option<usize>,
}

async fn run(way: &Way, events: &[MeterEvent], mut store: impl AsyncFnMut() -> Store) -> Outcome {
    let carried = || VersionCode::new(Meters { options: skipping(way.batch_events_max, way.row_cache_bytes) });
    let mut node = Node::builder().store(store().await).start().await.unwrap();
    let (past, live) = events.split_at(way.past);
    let mut placed = vec![];
    for event in past {
        placed.push(append(&node, event).await);
    }
    node.add_projection(carried()).unwrap();
    serving(&node).await;
    for (number, event) in live.iter().enumerate() {
        placed.push(append(&node, event).await);
        if way.restart.is_some_and(|each| number % each == each - 1) {
            node.read("meters", node.head()).await.unwrap();
            node.shutdown().await;
            node = Node::builder().store(store().await).projection(carried()).start().await.unwrap();
        }
    }
    let mut reading = node.read("meters", node.head()).await.unwrap();
    let rows = reading.view.rows::<Meter>().load().await.unwrap();
    let letters = node.version(view()).letters().limit(10_000).await.unwrap();
    drop(reading);
    node.shutdown().await;
    let number = |at: Position| placed.iter().position(|placed| *placed == at).expect("it is one of them");
    Outcome {
        rows: rows.iter().map(|row| format!("{row:?}")).collect(),
        refused: letters.into_iter().map(|found| (number(found.letter.position), found.letter.error)).collect(),
    }
}

/// Random events come to the same whatever the batches, the memory, the restarts and how much of them is the past.
/// `store` opens the store of this number, anew if it was open.
pub async fn same_wherever_batches_end(
    seeds: std::ops::Range<u64>,
    restarts: bool,
    mut store: impl AsyncFnMut(usize) -> Store,
) {
    let mut number = 0;
    for seed in seeds {
        let events = random(seed, 60);
        let mut first: Option<Outcome> = None;
        for (past, batch_events_max, row_cache_bytes, restart) in [
            (0, 1, 0, None),
            (0, 1_000, 64 << 20, None),
            (60, 1_000, 0, None),
            (60, 1_000, 64 << 20, None),
            (30, 7, 600, None),
            (20, 1_000, 64 << 20, Some(3)),
        ] {
            if restart.is_some() && !restarts {
                continue;
            }
            number += 1;
            let way = Way { past, batch_events_max, row_cache_bytes, restart };
            let found = run(&way, &events, async || store(number).await).await;
            let Some(first) = &first else {
                assert!(!found.refused.is_empty(), "seed {seed} has something to refuse");
                assert!(found.rows.len() > 1, "seed {seed} has rows");
                first = Some(found);
                continue;
            };
            assert_eq!(&found, first, "seed {seed}, {past} of the past, batches of {batch_events_max}, {restart:?}");
        }
    }
}

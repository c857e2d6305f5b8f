//! Things that streams of several segments write: whose a row is, on whatever store.

// Each test binary uses its own part of this.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::time::Duration;

use dacapo::options::{OnFailure, Policy, Retry, Seed, SegmentCount};
use dacapo::rows::Value;
use dacapo::store::Store;
use dacapo::verify::Verify;
use dacapo::{
    Event, ExpectedRevision, HandlerError, Node, Options, Position, Projection, ProjectionName, Recorded, Row, Table,
    VersionCode, View, ViewId,
};

const WAIT_MAX: Duration = Duration::from_secs(60);
const SEGMENTS: u16 = 3;

#[derive(Clone, Debug, PartialEq, Eq, Event)]
pub enum RoomEvent {
    /// Writes a row whole, unread.
    Put {
        thing: String,
        value: i64,
    },
    /// Adds to a row, or makes it.
    Added {
        thing: String,
        value: i64,
    },
    /// Adds to a row that is there.
    Changed {
        thing: String,
        value: i64,
    },
    Removed {
        thing: String,
    },
    /// Moves what one row has to another that is written unread.
    Moved {
        from: String,
        to: String,
    },
    /// Adds to a row by SQL, or makes it.
    Marked {
        thing: String,
        value: i64,
    },
    /// Writes what a query counts.
    Counted {
        thing: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Row)]
#[row(table = "things")]
pub struct Thing {
    #[row(key)]
    pub name: String,
    #[row(index)]
    pub value: i64,
}

pub struct Rooms {
    pub options: Options,
}

impl Projection for Rooms {
    const NAME: &'static str = "rooms";
    const VERSION: u32 = 1;
    const TABLES: &'static [Table] = &[Thing::TABLE];
    type Event = RoomEvent;

    fn options(&self) -> Options {
        self.options.clone()
    }

    async fn apply(&self, event: &Recorded<'_, RoomEvent>, view: &mut View) -> Result<(), HandlerError> {
        let of = |name: &String, value| Thing { name: name.clone(), value };
        match &event.data {
            RoomEvent::Put { thing, value } => view.put(of(thing, *value))?,
            RoomEvent::Added { thing, value } => {
                view.upsert(thing, || of(thing, 0), |row: &mut Thing| row.value += value).await?;
            }
            RoomEvent::Changed { thing, value } => {
                view.update::<Thing>(thing, |row| row.value += value).await?;
            }
            RoomEvent::Removed { thing } => drop(view.delete::<Thing>(thing).await?),
            RoomEvent::Moved { from, to } => {
                let value = view.get::<Thing>(from).await?.map_or(0, |row| row.value);
                view.delete::<Thing>(from).await?;
                view.put(of(to, value))?;
            }
            RoomEvent::Marked { thing, value } => {
                let sql = "INSERT INTO things (name, value) VALUES ($1, $2) ON CONFLICT (name)
                           DO UPDATE SET value = things.value + excluded.value";
                view.execute(sql, &[Value::from(thing), Value::from(*value)]).await?;
            }
            RoomEvent::Counted { thing } => {
                let counted = view.query("SELECT count(*) FROM things", &[]).await?;
                let [row] = &counted[..] else { return Err("a count has one row".into()) };
                let [Value::Integer(count)] = row[..] else { return Err("a count is a number".into()) };
                view.put(of(thing, count))?;
            }
        }
        Ok(())
    }
}

/// Options of a version that sets aside what is refused, and goes on.
pub fn skipping(batch_events_max: usize, row_cache_bytes: usize) -> Options {
    Options {
        segments: SegmentCount::new(SEGMENTS).unwrap(),
        batch_events_max,
        row_cache_bytes,
        retry: Retry { attempts: 1, ..Retry::default() },
        on_failure: OnFailure { serving: Policy::Skip, initializing: Policy::Skip },
        order_matters: false,
        verify: Verify { letters_allowed: true, ..Verify::default() },
        ..Options::default()
    }
}

/// An event and the stream that it is of.
pub type Placed = (String, RoomEvent);

/// What a view comes to: its rows, and what was refused and why, by the numbers of the events.
#[derive(Debug, Default, PartialEq)]
pub struct Outcome {
    pub rows: BTreeMap<String, i64>,
    pub refused: BTreeMap<usize, String>,
}

/// What comes of the events, one at a time.
pub fn expected(events: &[Placed]) -> Outcome {
    let count = SegmentCount::new(SEGMENTS).unwrap();
    let mut rows: BTreeMap<String, (Option<u16>, i64)> = BTreeMap::new();
    let mut refused = BTreeMap::new();
    for (number, (stream, event)) in events.iter().enumerate() {
        let segment = count.segment_of(stream).get();
        let mut next = rows.clone();
        let counted = i64::try_from(rows.len()).unwrap();
        let mut wrong = None;
        let mut writes = |thing: &String, next: &mut BTreeMap<String, (Option<u16>, i64)>, value: Option<i64>| {
            let of = next.get(thing).and_then(|row| row.0);
            if let Some(first) = of.filter(|first| *first != segment) {
                wrong.get_or_insert(format!(
                    "row {thing:?} of table things is written by events of segments {first} and {segment}: say so in \
                     `Options::rows`, or give it rows whose keys belong to one stream"
                ));
            }
            match value {
                Some(value) => drop(next.insert(thing.clone(), (Some(segment), value))),
                None => drop(next.remove(thing)),
            }
        };
        let value_of = |thing: &String| rows.get(thing).map(|row| row.1);
        match event {
            RoomEvent::Put { thing, value } => writes(thing, &mut next, Some(*value)),
            RoomEvent::Added { thing, value } => {
                writes(thing, &mut next, Some(value_of(thing).unwrap_or_default() + value))
            }
            RoomEvent::Changed { thing, value } => {
                if let Some(before) = value_of(thing) {
                    writes(thing, &mut next, Some(before + value));
                }
            }
            RoomEvent::Removed { thing } => {
                if rows.contains_key(thing) {
                    writes(thing, &mut next, None);
                }
            }
            RoomEvent::Moved { from, to } => {
                if rows.contains_key(from) {
                    writes(from, &mut next, None);
                }
                writes(to, &mut next, Some(value_of(from).unwrap_or_default()));
            }
            RoomEvent::Marked { thing, value } => next.entry(thing.clone()).or_default().1 += value,
            RoomEvent::Counted { thing } => writes(thing, &mut next, Some(counted)),
        }
        match wrong {
            Some(error) => drop(refused.insert(number, error)),
            None => rows = next,
        }
    }
    Outcome { rows: rows.into_iter().map(|(thing, (_, value))| (thing, value)).collect(), refused }
}

/// Numbers that follow from a seed.
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }
}

/// Events of which some write what is another segment's.
pub fn random(dice: &mut Dice, count: usize) -> Vec<Placed> {
    let mut event = || {
        let stream = dice.below(6);
        // Most have things of their own.
        let mut thing = || match dice.below(4) {
            0 => format!("thing-{}", dice.below(18)),
            own => format!("thing-{}", stream * 3 + own - 1),
        };
        let (thing, other) = (thing(), thing());
        let value = dice.below(100) as i64;
        let event = match dice.below(20) {
            0..5 => RoomEvent::Put { thing, value },
            5..9 => RoomEvent::Added { thing, value },
            9..12 => RoomEvent::Changed { thing, value },
            12..16 => RoomEvent::Removed { thing },
            16..18 => RoomEvent::Moved { from: thing, to: other },
            18 => RoomEvent::Marked { thing, value },
            _ => RoomEvent::Counted { thing },
        };
        (format!("room-{stream}"), event)
    };
    (0..count).map(|_| event()).collect()
}

pub fn view() -> ViewId {
    ViewId { projection: ProjectionName::new("rooms").unwrap(), version: "v1.1".parse().unwrap() }
}

async fn append(node: &Node, events: &[Placed]) -> Vec<Position> {
    let mut positions = vec![];
    for (stream, event) in events {
        let appended = node.append(stream, ExpectedRevision::Any, [event.clone()]).await.unwrap();
        positions.push(appended.position);
    }
    positions
}

/// What the version has made of everything so far, with the positions of the events.
async fn outcome(node: &Node, positions: &[Position]) -> Outcome {
    let mut reading = node.read("rooms", node.head()).await.unwrap();
    let rows: Vec<Thing> = reading.view.rows::<Thing>().load().await.unwrap();
    let letters = node.version(view()).letters().limit(10_000).await.unwrap();
    let number = |position: Position| positions.iter().position(|at| *at == position).expect("it is one of them");
    Outcome {
        rows: rows.into_iter().map(|row| (row.name, row.value)).collect(),
        refused: letters.into_iter().map(|found| (number(found.letter.position), found.letter.error)).collect(),
    }
}

/// Begins the version, or goes on with it, and waits until it serves and covers all there is.
async fn carry(node: &Node, options: Options) {
    node.add_projection(VersionCode::new(Rooms { options })).unwrap();
    let mut catalog = node.catalog();
    let rooms = ProjectionName::new("rooms").unwrap();
    let reached = catalog.wait_for(|catalog| catalog.serving(&rooms).is_some());
    tokio::time::timeout(WAIT_MAX, reached).await.expect("it serves in time").unwrap();
}

/// What comes of the events where a node is started for each part of them, which it finds in the journal.
pub async fn run(store: &mut impl AsyncFnMut() -> Store, parts: &[&[Placed]], options: &Options) -> Outcome {
    let mut positions = vec![];
    let mut found = Outcome::default();
    for part in parts {
        let node = Node::builder().store(store().await).start().await.unwrap();
        positions.append(&mut append(&node, part).await);
        carry(&node, options.clone()).await;
        found = outcome(&node, &positions).await;
        node.shutdown().await;
    }
    found
}

/// Cuts the events somewhere.
fn cut<'a>(events: &'a [Placed], dice: &mut Dice, longest: u64) -> Vec<&'a [Placed]> {
    let (mut parts, mut rest) = (vec![], events);
    while !rest.is_empty() {
        let (part, behind) = rest.split_at((1 + dice.below(longest) as usize).min(rest.len()));
        parts.push(part);
        rest = behind;
    }
    parts
}

/// Random events come to the same as one at a time, whatever the batches, the memory and the restarts. `home` gives what
/// opens one new store again and again.
pub async fn same_wherever_batches_end<S: AsyncFnMut() -> Store>(
    seeds: std::ops::Range<u64>,
    count: usize,
    mut home: impl AsyncFnMut() -> S,
) {
    for seed in seeds {
        let mut dice = Dice(seed);
        let events = random(&mut dice, count);
        let wanted = expected(&events);
        assert!(!wanted.refused.is_empty(), "seed {seed} has something to refuse");
        let all = count as u64;
        for (longest, batch_events_max, bytes) in
            [(all, 1_000, 64 << 20), (all, 7, 0), (all / 3, 1_000, 300), (9, 4, 64 << 20)]
        {
            let parts = cut(&events, &mut dice, longest);
            let found = run(&mut home().await, &parts, &skipping(batch_events_max, bytes)).await;
            let how = format!("seed {seed}, {} parts, batches of {batch_events_max}, {bytes} bytes", parts.len());
            assert_eq!(found.refused, wanted.refused, "{how}");
            assert_eq!(found.rows, wanted.rows, "{how}");
        }
    }
}

/// A copy knows whose its rows are, so that the same event is refused in it.
pub async fn a_copy_refuses_what_its_source_refuses(store: Store) {
    let node = Node::builder().store(store).start().await.unwrap();
    let of = |stream: &str, event| (stream.to_owned(), event);
    let put = |value| RoomEvent::Put { thing: "table".into(), value };
    let count = SegmentCount::new(SEGMENTS).unwrap();
    let is_other = |room: &String| count.segment_of(room) != count.segment_of("room-0");
    let other = (1..).map(|room| format!("room-{room}")).find(is_other).unwrap();
    append(&node, &[of("room-0", put(1))]).await;
    let verify = Verify { letters_allowed: true, ..Verify::default() };
    carry(&node, Options { seed: Seed::Columns, verify, ..skipping(1_000, 64 << 20) }).await;
    let rooms = ProjectionName::new("rooms").unwrap();
    node.projection(&rooms).unwrap().rebuild().from_copy().by("test").await.unwrap();
    let copy = ViewId { version: "v1.2".parse().unwrap(), ..view() };
    let mut catalog = node.catalog();
    let serves = catalog.wait_for(|catalog| catalog.serving(&rooms) == Some(copy.version));
    tokio::time::timeout(WAIT_MAX, serves).await.expect("it serves in time").unwrap();

    append(&node, &[of(&other, put(2)), of("room-0", put(3))]).await;
    let mut reading = node.read("rooms", node.head()).await.unwrap();
    assert_eq!(reading.view.rows::<Thing>().load().await.unwrap(), [Thing { name: "table".into(), value: 3 }]);
    let letters = node.version(copy.clone()).letters().limit(10).await.unwrap();
    assert_eq!(letters.len(), 1);
    assert!(letters[0].letter.error.contains("row \"table\" of table things"), "{}", letters[0].letter.error);
    node.shutdown().await;
}

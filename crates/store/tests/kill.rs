//! Kills a process that appends, at random moments, and looks at what it leaves. // I-1, I-2
//!
//! The test starts its own binary again as the child, which reports each acknowledgement on its standard
//! output once it has it. Whatever was reported must be there.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use dacapo_model::{EventId, EventType, ExpectedRevision, Metadata, NewEvent, Position, Revision, StreamName};
use dacapo_store::contract::Chance;
use dacapo_store::contract::journal::everything;
use dacapo_store::embedded::{DataDir, EmbeddedJournal, JournalOptions};
use dacapo_store::{Append, Journal, Limit};

const KILLS: u64 = 250;
const TASKS: u64 = 6;
const CHILD: &str = "DACAPO_KILL_CHILD";

fn open(dir: &Path) -> EmbeddedJournal {
    let options = JournalOptions { chunk_bytes: 20_000, index_cache_bytes: 10_000, ..JournalOptions::default() };
    EmbeddedJournal::open(&DataDir::open(dir).unwrap(), options).unwrap()
}

/// An append of 1 to 8 events, all that it is following from these three numbers.
fn append(life: u64, task: u64, round: u64, revision: Revision) -> Append {
    let mut chance = Chance::new(life << 32 | task << 24 | round);
    let count = if chance.below(3) == 0 { 1 + chance.below(8) } else { 1 };
    let events = (0..count).map(|number| {
        let number_in_all = (life << 40 | task << 32 | round << 8 | number, count);
        let mut payload = format!("{number_in_all:?}").into_bytes();
        payload.resize(payload.len() + chance.below(600) as usize, b'x');
        NewEvent {
            id: EventId::from_bytes(u128::from(number_in_all.0).to_be_bytes()),
            event_type: EventType::new("happened").unwrap(),
            payload,
            metadata: Metadata::default(),
            tags: vec![],
        }
    });
    let stream = StreamName::new(format!("task-{task}")).unwrap();
    Append::to_stream(stream, ExpectedRevision::Exact(revision), events.collect())
}

/// Not a test: what the child does, if this process is one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Ok(child) = std::env::var(CHILD) else { return };
    let (life, dir) = child.split_once(':').unwrap();
    let life: u64 = life.parse().unwrap();
    let journal = Arc::new(open(Path::new(dir)));
    let tasks = (0..TASKS).map(|task| {
        let journal = Arc::clone(&journal);
        tokio::spawn(async move {
            let stream = StreamName::new(format!("task-{task}")).unwrap();
            let mut revision = journal.stream_revision(&stream).await.unwrap();
            for round in 0.. {
                let appended = journal.append(append(life, task, round, revision)).await.unwrap();
                revision = appended.revision;
                let mut out = std::io::stdout().lock();
                writeln!(out, "\nack {task} {round} {} {}", appended.position, appended.revision).unwrap();
            }
        })
    });
    futures::future::join_all(tasks).await.into_iter().for_each(|task| task.unwrap());
}

#[derive(Clone, Copy, Debug)]
struct Acknowledged {
    task: u64,
    round: u64,
    position: u64,
    revision: u64,
}

/// Runs a child, kills it after so many acknowledgements and a moment more, and returns all it reported.
fn run_and_kill(dir: &Path, life: u64, chance: &mut Chance) -> Vec<Acknowledged> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env(CHILD, format!("{life}:{}", dir.display()))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let parse = |line: String| {
        let numbers: Vec<u64> =
            line.strip_prefix("ack ")?.split(' ').map(|number| number.parse().ok()).collect::<Option<_>>()?;
        let [task, round, position, revision] = numbers[..] else { return None };
        Some(Acknowledged { task, round, position, revision })
    };
    let enough = chance.below(40) as usize;
    let mut acknowledged = Vec::new();
    while acknowledged.len() < enough {
        let line = lines.next().expect("the child goes on until it is killed").unwrap();
        acknowledged.extend(parse(line));
    }
    // A moment more, in work rather than in time, so that the kill meets any stage of a write.
    let spins = chance.below(200_000);
    (0..spins).for_each(|spin| {
        std::hint::black_box(spin);
    });
    child.kill().unwrap();
    child.wait().unwrap();
    // The last line may be torn; a torn number is a prefix of one, so only whole lines count.
    let mut rest: Vec<_> = lines.map_while(Result::ok).collect();
    rest.pop();
    acknowledged.extend(rest.into_iter().filter_map(parse));
    acknowledged
}

async fn check(journal: &EmbeddedJournal, life: u64, before: u64, acknowledged: &[Acknowledged]) {
    let all = everything(journal).await;
    assert!(all.len() as u64 >= before, "what an earlier check saw is gone");
    let mut revisions = BTreeMap::new();
    for event in &all {
        let revision = revisions.entry(event.stream.clone()).or_insert(0);
        *revision += 1;
        assert_eq!(event.revision, *revision, "revisions of {} are dense", event.stream);
    }
    for one in acknowledged {
        let append = append(life, one.task, one.round, Revision::START);
        let first = one.position as usize - append.events.len();
        assert_eq!(all[one.position as usize - 1].revision, one.revision);
        for (found, written) in all[first..].iter().zip(&append.events) {
            assert_eq!((&found.event, found.stream.as_str()), (&written.event, written.stream.as_str()), "{one:?}");
        }
    }
    // Appends are whole: each event says of how many it is one.
    let mut in_append = 0;
    for event in &all {
        in_append += 1;
        if event.last_of_append {
            let text = String::from_utf8_lossy(&event.event.payload);
            let count: u64 = text.split([' ', ')']).nth(1).unwrap().parse().unwrap();
            assert_eq!(in_append, count, "the append that ends at {} is whole", event.position);
            in_append = 0;
        }
    }
    assert_eq!(in_append, 0, "the last append is whole");
    for (stream, revision) in revisions {
        let stream = StreamName::new(stream).unwrap();
        assert_eq!(journal.stream_revision(&stream).await.unwrap().get(), revision);
        let tail = Revision::new(revision.saturating_sub(20));
        let read = journal.read_stream(&stream, tail, Limit::events(100)).await.unwrap();
        assert_eq!(read.len() as u64, revision - tail.get());
    }
}

#[tokio::test]
async fn what_was_acknowledged_survives_kill_9() {
    let seed: u64 =
        std::env::var("DACAPO_SEED").map_or_else(|_| std::process::id().into(), |seed| seed.parse().unwrap());
    let mut chance = Chance::new(seed);
    let mut dir = tempfile::tempdir().unwrap();
    let (mut before, mut acknowledged_in_all) = (0, 0);
    for life in 1..=KILLS {
        if life % 50 == 0 {
            // A new directory now and then, so that a check does not read ever more.
            (dir, before) = (tempfile::tempdir().unwrap(), 0);
        }
        let acknowledged = run_and_kill(dir.path(), life, &mut chance);
        acknowledged_in_all += acknowledged.len();
        let journal = open(dir.path());
        let context = format!("DACAPO_SEED={seed}, life {life}");
        let checked = tokio::spawn(async move {
            check(&journal, life, before, &acknowledged).await;
            journal.head().borrow().get()
        });
        before = checked.await.unwrap_or_else(|error| panic!("{context}: {error}"));
    }
    assert!(acknowledged_in_all > 1000 && Position::new(before) > Position::START);
}

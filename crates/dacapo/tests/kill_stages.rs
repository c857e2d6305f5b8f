//! A process that is killed while a version is in each phase and each stage, and the next one, which brings it to its
//! end. // I-2, I-3, I-7, I-8
//!
//! The test starts its own binary again as the child, which ends itself as kill -9 would as soon as its status shows
//! what it waits for. The steps of flips, of verifications and of clean-ups are killed one by one in `flip_crash.rs`,
//! those of bulk mode and of the stage Indexing in `bulk.rs`, those of replays in place in `replay/kill.rs`.

mod common;

use std::path::Path;
use std::process::{Command, Stdio};

use common::*;
use dacapo::catalog::{Catalog, Phase};
use dacapo::journal::{Append, OnKnown, StreamEvent};
use dacapo::status::Status;
use dacapo::{Node, limits};

/// What the child is told: the phase or stage to die in, and the directory.
const CHILD: &str = "DACAPO_STAGE_CHILD";
/// What the child exits with when it went through everything and saw nothing of what it was to die in.
const MISSED: i32 = 17;
/// How often a child may miss a stage that is short.
const TRIES: usize = 10;

/// The phases and stages of version 2, and of version 1 once it is left.
const WHERE: [(&str, &str); 10] = [
    ("v2.1", "Scheduled"),
    ("v2.1", "Replaying"),
    ("v2.1", "CatchingUp"),
    ("v2.1", "Verifying"),
    ("v2.1", "Ready"),
    ("v2.1", "Failed"),
    ("v2.1", "Serving"),
    ("v1.1", "StandingBy"),
    ("v1.1", "CleaningUp"),
    ("v1.1", "Obsolete"),
];

/// Whether the version is there.
fn is_in(status: &Status, of: &str, place: &str) -> bool {
    let mut versions = status.projections.iter().flat_map(|projection| &projection.versions);
    let found = versions.find(|found| found.version == version(of));
    found.is_some_and(|found| match found.stage {
        Some(stage) => stage.as_str() == place,
        None => found.phase.as_str() == place,
    })
}

/// So many events, a few ledgers in turn, in one append.
async fn fill(node: &Node, events: usize) {
    let event = |number: usize| StreamEvent {
        stream: dacapo::journal::StreamName::new(format!("ledger-{}", number % 3)).unwrap(),
        event: node.new_event(&added(1), dacapo::Metadata::default()).unwrap(),
    };
    let events = (0..events).map(event).collect();
    node.append_batch(Append { events, expected: vec![], on_known: OnKnown::Recognise }).await.unwrap();
}

/// Whether the version is in this phase, by the catalog alone.
fn is_in_phase(catalog: &Catalog, of: &str, place: &str) -> bool {
    catalog.version(&view(of)).is_some_and(|state| state.phase.as_str() == place)
}

/// Ends the process as soon as the version is there.
fn die_in(node: &Node, of: &str, place: &str) {
    let (of, place) = (of.to_owned(), place.to_owned());
    tokio::spawn({
        // Some phases are over before a status is made.
        let (mut catalog, of, place) = (node.catalog(), of.clone(), place.clone());
        async move {
            catalog.wait_for(|catalog| is_in_phase(catalog, &of, &place)).await.unwrap();
            std::process::abort();
        }
    });
    let node = node.clone();
    tokio::spawn(async move {
        while !is_in(&node.status().await.unwrap(), &of, &place) {
            tokio::task::yield_now().await;
        }
        std::process::abort();
    });
}

/// Not a test: what the child does, if this process is one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Ok(told) = std::env::var(CHILD) else { return };
    let [of, place, directory] = <[&str; 3]>::try_from(told.splitn(3, ':').collect::<Vec<_>>()).unwrap();
    let node = Node::builder().data(directory).projection(carry_v1(v1())).start().await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    fill(&node, 3_000).await;
    die_in(&node, of, place);
    if place == "Failed" {
        // What is there is no view, so that no try of building it can succeed.
        std::fs::write(Path::new(directory).join("views/totals/v2.1.db"), [7; 4_096]).unwrap();
    }
    let version_2 = v2();
    version_2.behaviour.gate.send_replace(false);
    node.add_projection(carry_v2(version_2.clone())).unwrap();
    phase(&node, "v2.1", Phase::Initializing).await;
    // More comes while it replays than it may lag.
    fill(&node, 8_000).await;
    fill(&node, 8_000).await;
    version_2.behaviour.gate.send_replace(true);
    ready(&node, "v2.1").await;
    flip(&node).await;
    node.version(view("v1.1")).clean_up().by("child").await.unwrap();
    phase(&node, "v1.1", Phase::Obsolete).await;
    // The last phases last.
    if is_in_phase(&node.catalog().borrow(), of, place) {
        std::process::abort();
    }
    std::process::exit(MISSED);
}

/// Lets a child die there, if it can be seen there at all.
fn killed_in(of: &str, place: &str, directory: &Path) -> bool {
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["child", "--exact", "--nocapture"])
        .env(CHILD, format!("{of}:{place}:{}", directory.display()))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(!status.success(), "{of} {place}: the child was to die");
    status.code() != Some(MISSED)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_may_be_killed_in_every_phase_and_stage() {
    const { assert!(limits::READY_LAG_MAX < 16_000, "what the child appends is more than a version may lag") };
    for (of, place) in WHERE {
        let (directory, mut dead) = (tempfile::tempdir().unwrap(), false);
        for _ in 0..TRIES {
            std::fs::remove_dir_all(directory.path()).unwrap();
            dead = killed_in(of, place, directory.path());
            if dead {
                break;
            }
        }
        assert!(dead, "{of} was never seen {place}");

        let builder = Node::builder().data(directory.path()).projection(carry_v1(v1())).projection(carry_v2(v2()));
        let node = builder.start().await.unwrap();
        // I-2: what was acknowledged is there, all of a batch or nothing.
        let appended = fold(&node, node.head()).await.values().map(|(_, events)| *events).sum::<i64>();
        assert!([3_000, 11_000, 19_000].contains(&appended), "{of} {place}: {appended} events");
        // I-3, I-7: whichever version answers first.
        check_serving(&node).await;
        if place == "Failed" {
            // It stays so until somebody has it built again; then it goes.
            let state = node.catalog().borrow().version(&view("v2.1")).cloned().unwrap();
            assert_eq!((state.phase, state.reason.is_some()), (Phase::Failed, true));
            node.projection(totals()).unwrap().rebuild().code(2).by("test").await.unwrap();
            phase(&node, "v2.1", Phase::Obsolete).await;
            ready(&node, "v2.2").await;
            flip(&node).await;
        } else if node.catalog().borrow().serving(&totals()) == Some(version("v1.1")) {
            // The flip may have been asked for already.
            ready_and_flip(&node, "v2.1").await;
        }
        check_serving(&node).await;
        let position = add(&node, "ledger-0", 5).await;
        let standing_by = node.catalog().borrow().version(&view("v1.1")).map(|state| state.phase);
        if standing_by == Some(Phase::StandingBy) {
            // I-8: the way back is open, and leads to all that there is.
            roll_back(&node).await;
            let (serving, covers, _) = rows(&node, position).await.unwrap();
            assert_eq!(serving, version("v1.1"));
            assert!(covers >= position);
        } else {
            phase(&node, "v1.1", Phase::Obsolete).await;
        }
        check_serving(&node).await;
        node.shutdown().await;
    }
}

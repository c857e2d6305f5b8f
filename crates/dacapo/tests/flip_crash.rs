//! A process that dies at each numbered step of a flip and of a clean-up, or anywhere at all, and what the
//! next one makes of what it left. // I-3, I-5, I-6, I-7, I-12
//!
//! The test starts its own binary again as the child. The child appends and reads all the while and reports
//! on its standard output what was acknowledged and what readers were shown; none of that may be taken back.

mod common;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::*;
use dacapo::catalog::{CatalogEvent, Phase, RequestedBy};
use dacapo::journal::Revision;
use dacapo::world::{Probe, Step};
use dacapo::{ExpectedRevision, Node, Position, VersionId};
use tokio::sync::watch;

/// What the child is told: the step to die at, or `loop`, and the directory.
const CHILD: &str = "DACAPO_FLIP_CHILD";
const WRITERS: usize = 3;
/// How often a process is killed anywhere.
const KILLS: u64 = 25;

/// Ends the process at a step, once it is armed, as kill -9 would: nothing is flushed, dropped or finished.
#[derive(Default)]
struct DieAt {
    step: Option<Step>,
    armed: AtomicBool,
    /// How many flips are over.
    over: watch::Sender<usize>,
}

impl Probe for DieAt {
    fn completed(&self, step: Step) {
        if self.step == Some(step) && self.armed.load(Ordering::SeqCst) {
            std::process::abort();
        }
        if step == Step::FlipLifted {
            self.over.send_modify(|over| *over += 1);
        }
    }
}

fn report(line: &str) {
    let mut out = std::io::stdout().lock();
    // The test harness leaves its own line unfinished.
    writeln!(out, "\n{line}").unwrap();
    out.flush().unwrap();
}

/// Appends to its own ledger and reads what it appended and what others did.
async fn write_and_read(node: Node, number: usize) {
    let ledger = format!("ledger-{number}");
    let stream = dacapo::journal::StreamName::new(&ledger).unwrap();
    let mut revision = node.journal().stream_revision(&stream).await.unwrap();
    loop {
        let appended = node.append(&ledger, ExpectedRevision::Exact(revision), [added(1)]).await.unwrap();
        revision = appended.revision;
        report(&format!("acknowledged {ledger} {revision}"));
        let answered = node.ask(TotalOf(ledger.clone())).after(appended.position).await.unwrap();
        assert_eq!(answered.value.1 as u64, revision.get(), "its own events are in the answer");
        report(&format!("shown {} {} {ledger} {}", answered.version, answered.covers, answered.value.1));
    }
}

/// Not a test: what the child does, if this process is one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Ok(told) = std::env::var(CHILD) else { return };
    let (step, directory) = told.split_once(':').unwrap();
    let die_at = Step::FLIP.into_iter().find(|known| format!("{known:?}") == step);
    let probe = Arc::new(DieAt { step: die_at, ..DieAt::default() });
    let builder = Node::builder().data(directory).probe(Arc::clone(&probe) as Arc<dyn Probe>);
    let node = builder.projection(carry_v1(v1())).start().await.unwrap();
    let serving = node.catalog().borrow().serving(&totals());
    if serving.is_none() {
        // The flip to the first version is not what is tested.
        probe.over.subscribe().wait_for(|over| *over > 0).await.unwrap();
    }
    probe.armed.store(true, Ordering::SeqCst);
    node.add_projection(carry_v2(v2())).unwrap();
    for number in 0..WRITERS {
        tokio::spawn(write_and_read(node.clone(), number));
    }
    ready_or_past(&node, "v2.1").await;
    // Something was shown before anything moves.
    let busy = node.head().plus(40);
    node.journal().head().wait_for(|head| *head > busy).await.unwrap();
    loop {
        let serving = node.catalog().borrow().serving(&totals()).unwrap();
        let asked = RequestedBy::by("child");
        let requested = match serving == version("v1.1") {
            true => node.version(view("v2.1")).flip().requested_by(asked).await.unwrap(),
            false => node.version(view("v1.1")).rollback().requested_by(asked).await.unwrap(),
        };
        requested.done().within(WAIT_MAX).await.unwrap();
        if die_at.is_some() {
            node.version(view("v1.1")).clean_up().by("child").await.unwrap();
            std::future::pending::<()>().await;
        }
    }
}

/// Everything that a dead process has told anyone.
#[derive(Debug, Default)]
struct Told {
    /// The last acknowledged revision of each ledger.
    acknowledged: BTreeMap<String, u64>,
    /// The most events of each ledger that a reader saw.
    shown: BTreeMap<String, u64>,
    /// The highest position that an answer of each version covered.
    covers: BTreeMap<VersionId, Position>,
    lines: usize,
}

impl Told {
    fn listen(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |text: &str| text.parse::<u64>().unwrap();
        match words[..] {
            ["acknowledged", ledger, revision] => {
                self.acknowledged.insert(ledger.to_owned(), number(revision));
            }
            ["shown", by, covers, ledger, events] => {
                let most = self.shown.entry(ledger.to_owned()).or_default();
                *most = number(events).max(*most);
                let covers = Position::new(number(covers));
                let highest = self.covers.entry(version(by)).or_default();
                *highest = covers.max(*highest);
            }
            // The harness of the child's test binary talks, too.
            _ => return,
        }
        self.lines += 1;
    }
}

fn start(directory: &Path, step: &str) -> (Child, impl Iterator<Item = String> + use<>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["child", "--exact", "--nocapture"])
        .env(CHILD, format!("{step}:{}", directory.display()))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // A line that the dying process cut off is no report.
    (child, lines.map_while(Result::ok))
}

/// The node that takes over.
async fn take_over(directory: &Path) -> Node {
    Node::builder().data(directory).projection(carry_v1(v1())).projection(carry_v2(v2())).start().await.unwrap()
}

/// What was told holds, on the first answer of the node that took over (I-2, I-3, I-7).
async fn check_told(node: &Node, told: &Told) {
    let (serving, covers, shown) = rows(node, Position::START).await.unwrap();
    let highest = told.covers.values().max().copied().unwrap_or_default();
    assert!(covers >= highest, "I-7: {serving} covers {covers}, a reader was shown {highest}");
    for (ledger, events) in &told.shown {
        assert!(shown[ledger].1 as u64 >= *events, "I-7: {ledger} was shown with {events} events");
    }
    for (ledger, revision) in &told.acknowledged {
        let stream = dacapo::journal::StreamName::new(ledger).unwrap();
        let there = node.journal().stream_revision(&stream).await.unwrap();
        assert!(there >= Revision::new(*revision), "I-2: {ledger} was acknowledged at {revision}");
    }
    assert_eq!(shown, fold(node, covers).await, "I-3: {serving} at {covers}");
}

/// One version serves at a time, and each flip covers its request (I-5, I-6). Returns the evidence of the first
/// flip to `to`.
async fn check_history(node: &Node, to: &str) -> Option<Position> {
    let (mut serving, mut requested, mut evidence) = (None, Position::START, None);
    for entry in node.history().await.unwrap() {
        match entry.event {
            CatalogEvent::FlipRequested { .. } => requested = entry.position,
            CatalogEvent::Flipped { view, from, covers, .. } => {
                assert_eq!(from, serving, "I-5");
                assert!(covers >= requested, "I-6");
                serving = Some(view.version);
                if view.version == version(to) && evidence.is_none() {
                    evidence = Some(covers);
                }
            }
            _ => {}
        }
    }
    evidence
}

/// How many verdicts there are on a version.
async fn verdicts(node: &Node, text: &str) -> usize {
    let of = |entry: &&dacapo::catalog::CatalogEntry| matches!(&entry.event, CatalogEvent::Verified { view, .. } if view.version == version(text));
    node.history().await.unwrap().iter().filter(of).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_may_die_at_every_step() {
    for step in Step::FLIP {
        let directory = tempfile::tempdir().unwrap();
        let mut told = Told::default();
        let (mut child, lines) = start(directory.path(), &format!("{step:?}"));
        lines.for_each(|line| told.listen(&line));
        assert!(!child.wait().unwrap().success(), "{step:?}: it was to die");
        let verifies = matches!(step, Step::VersionsMet | Step::VersionExamined | Step::VersionVerified);
        assert!(verifies || told.lines > 0, "{step:?}: it was to serve before it died");

        let node = take_over(directory.path()).await;
        check_told(&node, &told).await;
        if verifies {
            // Whatever the dead process had looked at, there is one verdict.
            ready_and_flip(&node, "v2.1").await;
            assert_eq!(verdicts(&node, "v2.1").await, 1, "{step:?}");
        }
        phase(&node, "v2.1", Phase::Serving).await;
        check_serving(&node).await;
        let evidence = check_history(&node, "v2.1").await.expect("it has flipped");
        let shown_before = told.covers.get(&version("v1.1")).copied().unwrap_or_default();
        assert!(evidence >= shown_before, "{step:?}, I-6: version 1 had shown {shown_before}, evidence is {evidence}");

        if matches!(step, Step::CleaningUp | Step::Dropped) {
            phase(&node, "v1.1", Phase::Obsolete).await;
            assert!(!directory.path().join("views/totals/v1.1.db").exists(), "{step:?}: I-12");
        } else {
            // No hold is left behind: version 1 follows, and the way back is open (I-8).
            let position = add(&node, "ledger-0", 1).await;
            until(&node, "version 1 follows", |status| {
                let found = status.projections[0].versions.iter().find(|found| found.version == version("v1.1"));
                found.is_none_or(|found| found.phase != Phase::StandingBy || found.covers >= position)
            })
            .await;
            roll_back(&node).await;
            check_serving(&node).await;
        }
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_may_be_killed_anywhere() {
    let directory = tempfile::tempdir().unwrap();
    let seed: u64 = std::env::var("DACAPO_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(17);
    let mut told = Told::default();
    let mut chance = seed;
    for kill in 0..KILLS {
        // Of full period for every modulus that is a power of two.
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let lines_left = usize::try_from((chance >> 33) % 400).unwrap();
        let before = told.lines;
        let (mut child, lines) = start(directory.path(), "loop");
        for line in lines {
            told.listen(&line);
            if told.lines - before > lines_left {
                break;
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(told.lines > before, "kill {kill}, seed {seed}: it was to serve");
        let node = take_over(directory.path()).await;
        check_told(&node, &told).await;
        check_history(&node, "v2.1").await;
        node.shutdown().await;
    }
}

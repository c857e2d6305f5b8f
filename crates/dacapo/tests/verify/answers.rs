//! Answers that are compared: of declared queries, and of a share of the live ones.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dacapo::catalog::Phase;
use dacapo::verify::{FindingKind, Outcome, Part, Report, Verdict, Verify};
use dacapo::{Answers, HandlerError, Node, Options, Position, Projection, ReadView, Recorded, Table, View};

use crate::common::*;
use crate::setup::*;

#[tokio::test(flavor = "multi_thread")]
async fn answers_to_declared_queries_are_compared() {
    let node = serving(400).await;
    let second = Second::wrong_in("ledger-7").verify(Verify::default().without(Part::Rows));
    let carried = second.code().sample(TotalOf("ledger-6".into())).sample(TotalOf("ledger-7".into()));
    node.add_projection(carried).unwrap();
    let verified = verified(&node, "v2.1").await.verified.unwrap();
    assert_eq!(verified.verdict, Verdict::Fail);
    let answers = part(&verified.report, Part::Answers);
    assert_eq!((&answers.wrong[..], answers.looked_at), (&[(FindingKind::Answer, 1)][..], 2));
    let finding = &answers.findings[0];
    assert_eq!(finding.place, "TotalOf(\"ledger-7\")");
    let sum: i64 = (0..400).filter(|number| number % 40 == 7).sum();
    assert_eq!(
        (finding.old.as_deref(), finding.new.as_deref()),
        (Some(&*format!("({sum}, 10)")), Some(&*format!("({}, 10)", 2 * sum)))
    );
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_share_of_the_live_queries_is_put_to_the_version_as_well() {
    let node = serving(400).await;
    let verify = Verify { shadow_share: 0.5, answers_min: 20, ..Verify::default() };
    let second = Second::wrong_in("ledger-7").verify(verify.require([Part::Answers]).without(Part::Rows));
    node.add_projection(second.shadowing::<TotalOf>()).unwrap();
    phase(&node, "v2.1", Phase::Initializing).await;
    let asking = async {
        loop {
            // Every second one is put to both; writers go on meanwhile.
            for ledger in [7, 7, 8, 8] {
                let position = add(&node, "ledger-8", 1).await;
                let (sum, _) = ask(&node, &format!("ledger-{ledger}"), position).await;
                assert!(sum > 0);
            }
        }
    };
    let second = view("v2.1");
    let verified = tokio::select! {
        () = asking => unreachable!("it asks without end"),
        verified = node.version(second.clone()).verified().within(WAIT_MAX) => verified.unwrap().verified.unwrap(),
    };
    assert_eq!(verified.verdict, Verdict::Fail);
    let answers = part(&verified.report, Part::Answers);
    assert!(answers.looked_at >= 20, "{answers:?}");
    let [(FindingKind::Answer, wrong)] = answers.wrong[..] else { panic!("{answers:?}") };
    assert!(wrong > 0 && wrong < answers.looked_at, "only those of ledger 7: {answers:?}");
    assert!(answers.findings.iter().all(|finding| finding.place == "TotalOf(\"ledger-7\")"), "{answers:?}");
    let live = node.projection(totals()).unwrap().verification().unwrap().live.expect("it goes on");
    assert!(live.looked_at >= answers.looked_at);
    node.shutdown().await;
}

/// Asks version 1, for what other versions are asked as well, until version 2 is verified.
async fn verified_by_answers(node: &Node) -> Arc<Report> {
    let asking = async {
        loop {
            ask(node, "ledger-7", Position::START).await;
            // No answer has to be waited for, so nothing else would get its turn.
            tokio::task::yield_now().await;
        }
    };
    let verified = tokio::select! {
        () = asking => unreachable!("it asks without end"),
        verified = verified(node, "v2.1") => verified.verified.unwrap(),
    };
    verified.report
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_live_queries_found_before_another_verification_was_asked_for_does_not_count_for_it() {
    let node = serving(400).await;
    let verify = Verify { shadow_share: 1.0, answers_min: 5, ..Verify::default() }.require([Part::Answers]);
    let wrong = Second { answers_more: 1, ..Second::default() }.verify(verify.clone());
    let shadowing = |second: Second| second.shadowing::<TotalOf>();
    node.add_projection(shadowing(wrong)).unwrap();
    phase(&node, "v2.1", Phase::Initializing).await;
    let report = verified_by_answers(&node).await;
    let answers = part(&report, Part::Answers);
    assert_eq!(
        (report.verdict(), &answers.wrong[..]),
        (Verdict::Fail, &[(FindingKind::Answer, answers.looked_at)][..])
    );

    node.add_projection(shadowing(Second::default().verify(verify))).unwrap();
    node.projection(totals()).unwrap().verify_again().requested_by(asked("the answer is mended")).await.unwrap();
    let report = verified_by_answers(&node).await;
    let answers = part(&report, Part::Answers);
    assert_eq!((report.verdict(), &answers.outcome), (Verdict::Pass, &Outcome::Passed), "{answers:?}");
    assert!(answers.looked_at >= 5, "{answers:?}");
    node.shutdown().await;
}

/// A first version that takes its time over each event once it is told to.
#[derive(Clone)]
struct Slow(Arc<AtomicBool>);

impl Projection for Slow {
    const NAME: &'static str = "totals";
    const VERSION: u32 = 1;
    const TABLES: &'static [Table] = TotalsV1::TABLES;
    type Event = LedgerEvent;

    fn options(&self) -> Options {
        Options { batch_events_max: 1, ..options() }
    }

    async fn apply(&self, event: &Recorded<'_, LedgerEvent>, view: &mut View) -> Result<(), HandlerError> {
        if self.0.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        v1().apply(event, view).await
    }
}

impl Answers<TotalOf> for Slow {
    async fn answer(&self, query: &TotalOf, view: &mut ReadView) -> Result<(i64, i64), HandlerError> {
        v1().answer(query, view).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_flip_does_not_wait_for_live_queries_that_wait_for_a_slow_old_version() {
    let slow = Arc::new(AtomicBool::new(false));
    let node = Node::builder().projection(Slow(Arc::clone(&slow)).answering::<TotalOf>()).start();
    let node = node.await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    let second = Second::default().verify(Verify { shadow_share: 1.0, ..Verify::default() });
    node.add_projection(second.shadowing::<TotalOf>()).unwrap();
    ready(&node, "v2.1").await;
    slow.store(true, Ordering::SeqCst);
    fill(&node, 400).await;
    // A live query is put to both, so version 2 rests until version 1 has come to where it is, in forty seconds.
    loop {
        ask(&node, "ledger-7", Position::START).await;
        let position = add(&node, "ledger-7", 1).await;
        let follows = until(&node, "version 2 follows", |status| status.projections[0].versions[1].covers >= position);
        if tokio::time::timeout(Duration::from_millis(400), follows).await.is_err() {
            break;
        }
    }
    let requested = node.projection(totals()).unwrap().flip().by("test").await.unwrap();
    let flipped = requested.done().within(Duration::from_secs(30)).await;
    slow.store(false, Ordering::SeqCst);
    flipped.unwrap();
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn live_queries_that_come_before_it_has_caught_up_are_not_said_to_be_too_many() {
    let node = serving(20_000).await;
    let gated = TotalsV2 {
        options: Options { verify: Verify { shadow_share: 1.0, ..Verify::default() }, ..options() },
        ..v2()
    };
    gated.behaviour.gate.send_replace(false);
    node.add_projection(gated.clone().shadowing::<TotalOf>()).unwrap();
    phase(&node, "v2.1", Phase::Initializing).await;
    let live = || node.projection(totals()).unwrap().verification().unwrap().live;
    until(&node, "live queries are taken note of", |_| live().is_some()).await;
    for _ in 0..3 {
        ask(&node, "ledger-7", Position::START).await;
    }
    until(&node, "they are told of", |_| live().is_some_and(|live| !live.notes.is_empty())).await;
    let notes = live().unwrap().notes;
    assert!(notes.iter().all(|note| note.contains("it has not caught up")), "{notes:?}");
    gated.behaviour.gate.send_replace(true);
    node.shutdown().await;
}

/// A query whose answers cannot be compared without a panic.
#[derive(Clone, Debug)]
struct Brittle;

#[derive(Debug)]
struct BrittleAnswer;

impl PartialEq for BrittleAnswer {
    fn eq(&self, _: &Self) -> bool {
        panic!("as apples and pears")
    }
}

impl dacapo::Query for Brittle {
    const PROJECTION: &'static str = "totals";
    type Answer = BrittleAnswer;
}

impl Answers<Brittle> for TotalsV1 {
    async fn answer(&self, _: &Brittle, _: &mut ReadView) -> Result<BrittleAnswer, HandlerError> {
        Ok(BrittleAnswer)
    }
}

impl Answers<Brittle> for Second {
    async fn answer(&self, _: &Brittle, _: &mut ReadView) -> Result<BrittleAnswer, HandlerError> {
        Ok(BrittleAnswer)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_comparison_of_answers_that_panics_is_found_and_not_tried_for_ever() {
    let node = Node::builder().projection(v1().answering::<Brittle>()).start().await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    node.add_projection(Second::default().code().sample(Brittle)).unwrap();
    phase(&node, "v2.1", Phase::Initializing).await;
    let verified = node.version(view("v2.1")).verified().within(WAIT_MAX).await.unwrap().verified.unwrap();
    let answers = part(&verified.report, Part::Answers);
    assert_eq!((verified.verdict, &answers.wrong[..]), (Verdict::Fail, &[(FindingKind::Answer, 1)][..]));
    let finding = &answers.findings[0];
    assert_eq!(finding.new.as_deref(), Some("it panicked: as apples and pears"));
    node.shutdown().await;
}

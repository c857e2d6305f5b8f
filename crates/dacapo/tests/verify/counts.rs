//! Events that are counted again in the journal, and those that were set aside.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use dacapo::catalog::Phase;
use dacapo::journal::{EventBatch, Filter, Limit, StreamName};
use dacapo::options::{OnFailure, Policy, Retry, SegmentCount};
use dacapo::store::{Journal, Store, StoreError};
use dacapo::verify::{Comparison, FindingKind, Part, TableComparison, Verdict, Verify};
use dacapo::world::SystemClock;
use dacapo::{Node, Options, Position};
use dacapo_model::{Letter, LetterKind, Timestamp};
use dacapo_store::{Commit, WhichLetters};

use crate::common::*;
use crate::setup::*;

/// A journal that keeps an event from whoever reads only some types: from processors.
struct Hiding {
    inner: Arc<dyn Journal>,
    hidden: Arc<Mutex<Option<Position>>>,
}

impl Hiding {
    async fn read_others(&self, after: Position, filter: &Filter, limit: Limit) -> Result<EventBatch, StoreError> {
        let batch = self.inner.read(after, filter, limit).await?;
        let hidden = *self.hidden.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(hidden) = hidden.filter(|_| filter.types.is_some()) else { return Ok(batch) };
        let before = batch.iter().position(|event| event.position == hidden);
        match before {
            None => Ok(batch),
            Some(0) => self.inner.read(hidden, filter, limit).await,
            Some(before) => self.inner.read(after, filter, Limit { events: before, ..limit }).await,
        }
    }
}

dacapo_store::delegate! {
    impl Journal for Hiding {
        id;
        mark;
        append;
        read => read_others;
        read_stream;
        stream_revision;
        streams;
        head;
        close;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_version_that_reads_nothing_of_the_journal_says_so() {
    let node = Node::builder().store(Store::memory(Arc::new(SystemClock))).start().await.unwrap();
    add(&node, "ledger-1", 1).await;
    add(&node, "ledger-2", 1).await;
    let mut elsewhere = Second::default();
    elsewhere.options.categories = Some(vec!["ledgers".to_owned()]);
    let (_, report) = report_of(&node, &elsewhere).await;
    let notes = &part(&report, Part::Counts).notes;
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(
        notes[0].starts_with("it reads none of the 2 events in the journal: its code reads the types "),
        "{notes:?}"
    );
    assert!(notes[0].ends_with(" of the categories ledgers, and the journal has added"), "{notes:?}");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_fell_out_on_the_way_shows_at_lag_0() {
    let (store, hidden) = (Store::memory(Arc::new(SystemClock)), Arc::<Mutex<Option<Position>>>::default());
    let journal = Arc::new(Hiding { inner: Arc::clone(&store.journal), hidden: Arc::clone(&hidden) });
    let node = Node::builder().store(Store { journal, ..store }).projection(carry_v1(v1())).start().await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    fill(&node, 2_000).await;
    let position = add(&node, "ledger-7", 0).await;
    ask(&node, "ledger-7", position).await;
    *hidden.lock().unwrap() = Some(position);
    // What fell out would not even have changed a sum that anybody compares.
    let only_sums = Comparison::new().table(TableComparison::of("totals").except(["events"]));
    let (verdict, report) = report_of(&node, &Second { comparison: only_sums, ..Second::default() }).await;
    assert_eq!(verdict, Verdict::Fail);
    let counts = part(&report, Part::Counts);
    assert_eq!((&counts.wrong[..], counts.looked_at), (&[(FindingKind::Count, 1)][..], 2_001), "{counts:?}");
    let segment = SegmentCount::new(5).unwrap().segment_of("ledger-7");
    assert_eq!(counts.findings[0].place, format!("segment {segment}"));
    // The verdict itself is a position that it has to cover.
    let status = until(&node, "the tokens say that all is well", |status| {
        status.projections[0].versions.iter().all(|found| found.lag == 0)
    })
    .await;
    let found = status.projections[0].versions.iter().find(|found| found.version == version("v2.1")).unwrap();
    let token = &found.tokens[usize::from(segment.get())];
    assert!(counts.findings[0].new.as_deref().unwrap().starts_with(&format!("{} ", token.applied.events)));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_were_set_aside_fail_unless_the_policy_allows_them() {
    let store = Store::memory(Arc::new(SystemClock));
    let node = Node::builder().store(store.clone()).projection(carry_v1(v1())).start().await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    fill(&node, 40).await;
    let (verdict, _) = report_of(&node, &Second::default()).await;
    assert_eq!(verdict, Verdict::Pass);
    // Nothing moves any more, so that what is committed beside the processor does not come in its way.
    until(&node, "it covers its verdict", |status| status.projections[0].versions[1].covers == status.head).await;

    let stored = store.views.find(&view("v2.1")).await.unwrap().unwrap();
    let letter = |position: u64, kind| Letter {
        position: Position::new(position),
        segment: SegmentCount::ONE.segment(0).unwrap(),
        stream: StreamName::new("ledger-7").unwrap(),
        event_type: dacapo::journal::EventType::new("added").unwrap(),
        kind,
        error: "no such ledger".into(),
        attempts: 3,
        recorded: Timestamp::from_micros(0),
        wish: None,
    };
    let first = Position::new(6);
    let letters =
        vec![letter(6, LetterKind::Refused), letter(8, LetterKind::Blocked { first }), letter(9, LetterKind::Skipped)];
    let moves = stored.tokens().await.unwrap().iter().map(|token| token.step(token.position, 0)).collect::<Vec<_>>();
    let commit = Commit { letters, ..Commit::of(moves) };
    stored.writer().await.unwrap().commit(&commit).await.unwrap();
    node.projection(totals()).unwrap().verify_again().requested_by(asked("some were set aside")).await.unwrap();
    let verified_again = verified(&node, "v2.1").await.verified.unwrap();
    assert_eq!(verified_again.verdict, Verdict::Fail);
    let counts = part(&verified_again.report, Part::Counts);
    assert_eq!(counts.wrong, [(FindingKind::Letter, 2)]);
    let (old, new) = rows_of(counts, "event 6 of ledger-7");
    assert_eq!((old, new), (Some("added"), Some("set aside after 3 tries: no such ledger")));
    assert_eq!(counts.notes, ["1 event skipped, as the policy is"]);

    let allowed = Second::default().verify(Verify { letters_allowed: true, ..Verify::default() });
    node.add_projection(carry(&allowed)).unwrap();
    node.projection(totals()).unwrap().verify_again().requested_by(asked("that is fine")).await.unwrap();
    let verified = verified(&node, "v2.1").await.verified.unwrap();
    assert_eq!(verified.verdict, Verdict::Pass);
    assert!(
        part(&verified.report, Part::Counts).notes.contains(&"2 events set aside, which the policy allows".to_owned())
    );
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_are_those_of_the_state_whose_rows_are_compared() {
    let node = serving(40).await;
    doubt(&node, "ledger-7", 1).await;
    let on_failure = OnFailure { initializing: Policy::DeadLetter, ..OnFailure::default() };
    let retry = Retry { attempts: 1, ..Retry::default() };
    let second = Second::default();
    let second = Second { options: Options { on_failure, retry, ..second.options }, ..second };
    second.refuse.store(true, Ordering::SeqCst);
    second.gate.send_replace(false);
    node.add_projection(carry(&second)).unwrap();
    until(&node, "it checks", |_| second.checks.load(Ordering::SeqCst) == 1).await;
    // By now the rows have been compared.
    second.refuse.store(false, Ordering::SeqCst);
    assert_eq!(
        node.version(view("v2.1"))
            .retry_letters(WhichLetters::All)
            .requested_by(asked("it is no doubt"))
            .await
            .unwrap()
            .letters,
        Some(1)
    );
    until(&node, "the event is applied", |status| {
        status.projections[0].versions.iter().all(|found| found.letters == 0)
    })
    .await;
    second.gate.send_replace(true);
    let report = verified(&node, "v2.1").await.verified.unwrap().report;
    assert_eq!(part(&report, Part::Rows).wrong, [(FindingKind::Differs, 1)], "{report:?}");
    assert_eq!(part(&report, Part::Counts).wrong, [(FindingKind::Letter, 1)], "which is why: {report:?}");
    node.projection(totals()).unwrap().verify_again().requested_by(asked("it is applied")).await.unwrap();
    assert_eq!(verified(&node, "v2.1").await.verified.unwrap().verdict, Verdict::Pass);
    node.shutdown().await;
}

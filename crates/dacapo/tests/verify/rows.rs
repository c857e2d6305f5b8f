//! Rows that are compared with those of the serving version, and differences that are declared.

use dacapo::catalog::Stage;
use dacapo::options::FlipPolicy;
use dacapo::status::WaitingOn;
use dacapo::verify::{Comparison, FindingKind, Outcome, Part, TableComparison, Verdict, Verify};
use dacapo::{HandlerError, Options, Projection, Recorded, Table, View};

use crate::common::*;
use crate::setup::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_drops_every_1000th_event_is_found_and_the_keys_are_named() {
    let node = serving(5_000).await;
    let second =
        Second { options: Options { flip: FlipPolicy::WhenReady, ..Second::default().options }, ..Second::forgetful() };
    let (verdict, report) = report_of(&node, &second).await;
    assert_eq!(verdict, Verdict::Fail);
    // It was handed every event, so nothing but the rows can tell.
    assert_eq!(part(&report, Part::Counts).outcome, Outcome::Passed);
    let rows = part(&report, Part::Rows);
    assert_eq!(rows.outcome, Outcome::Failed);
    let [(FindingKind::Differs, wrong)] = rows.wrong[..] else { panic!("{rows:?}") };
    assert!((1..=5).contains(&wrong), "{rows:?}");
    assert_eq!(rows.findings.len() as u64, wrong);
    for finding in &rows.findings {
        let key = finding.key.as_deref().unwrap();
        assert!(key.starts_with("ledger-"), "{finding:?}");
        let (old, new) = rows_of(rows, key);
        assert!(old.unwrap().ends_with("events 125") && !new.unwrap().ends_with("events 125"), "{finding:?}");
    }
    let status = until(&node, "it says why it is not flipped to", |status| {
        let found = status.projections[0].versions.iter().find(|found| found.version == version("v2.1"));
        found.is_some_and(|found| matches!(&found.waiting_on[..], [WaitingOn::Verdict { .. }]))
    })
    .await;
    assert_eq!(status.projections[0].versions[1].stage, Some(Stage::Verifying), "until somebody does something");
    assert_eq!(status.projections[0].serving, Some(version("v1.1")));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn differences_that_are_declared_pass() {
    let node = serving(400).await;
    let by = TableComparison::of("totals").by(
        |old: Total| (old.ledger == "ledger-7", old.sum),
        |new: TotalWithLast| (new.ledger == "ledger-7", if new.ledger == "ledger-7" { new.sum / 2 } else { new.sum }),
    );
    let second = Second { comparison: Comparison::new().table(by), ..Second::wrong_in("ledger-7") };
    let (verdict, report) = report_of(&node, &second).await;
    assert_eq!((verdict, part(&report, Part::Rows).looked_at), (Verdict::Pass, 40), "{report:?}");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_mapped_must_be_what_the_old_one_makes() {
    let node = serving(400).await;
    let mapped = |factor: i64| {
        TableComparison::of("totals").mapped(move |old: Total| TotalWithLast {
            sum: factor * old.sum,
            ledger: old.ledger,
            events: old.events,
            last: 0,
        })
    };
    let twice = || Second::adding(|_, amount| Some(2 * amount));
    let second = Second { comparison: Comparison::new().table(mapped(3)), ..twice() };
    let (verdict, report) = report_of(&node, &second).await;
    // 0 times 3 is 0 times 2: no ledger has that sum.
    assert_eq!((verdict, &part(&report, Part::Rows).wrong[..]), (Verdict::Fail, &[(FindingKind::Differs, 40)][..]));
    assert!(rows_of(part(&report, Part::Rows), "ledger-0").0.unwrap().starts_with("TotalWithLast {"));

    let second = Second { comparison: Comparison::new().table(mapped(2)), ..twice() };
    node.add_projection(carry(&second)).unwrap();
    node.projection(totals()).unwrap().verify_again().requested_by(asked("the declaration was wrong")).await.unwrap();
    let again = verified(&node, "v2.1").await;
    assert_eq!(again.verified.unwrap().verdict, Verdict::Pass);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_of_other_rows_altogether_leaves_them_out() {
    let node = serving(40).await;
    let second = Second::adding(|_, _| Some(0)).verify(Verify::default().without(Part::Rows));
    let (verdict, report) = report_of(&node, &second).await;
    assert_eq!(verdict, Verdict::Pass);
    assert!(matches!(part(&report, Part::Rows).outcome, Outcome::NotDone { .. }));
    node.shutdown().await;
}

#[derive(Clone, Debug, PartialEq, dacapo::Row)]
#[row(table = "totals")]
struct TotalInFull {
    #[row(key)]
    ledger: String,
    sum: f64,
    events: i64,
}

/// A second version that has its sums as floats, and wrong.
struct InFull(Options);

impl Projection for InFull {
    const NAME: &'static str = "totals";
    const VERSION: u32 = 2;
    const TABLES: &'static [Table] = &[<TotalInFull as dacapo::Row>::TABLE];
    type Event = LedgerEvent;

    fn options(&self) -> Options {
        self.0.clone()
    }

    async fn apply(&self, event: &Recorded<'_, LedgerEvent>, view: &mut View) -> Result<(), HandlerError> {
        let none = || TotalInFull { ledger: event.stream.to_owned(), sum: 0.5, events: 0 };
        Ok(view.upsert(event.stream, none, |row: &mut TotalInFull| row.events += 1).await?)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_required_comparison_has_not_passed_where_a_column_could_not_be_compared() {
    let node = serving(40).await;
    let verify = Verify::default().require([Part::Rows]);
    node.add_projection(InFull(Options { verify, ..options() }).code()).unwrap();
    let verified = verified(&node, "v2.1").await.verified.unwrap();
    assert_eq!(verified.verdict, Verdict::Fail);
    let rows = part(&verified.report, Part::Rows);
    let Outcome::NotDone { why } = &rows.outcome else { panic!("{rows:?}") };
    assert_eq!(why, "column totals.sum cannot be compared: it was Integer and is Float");
    assert_eq!(rows.looked_at, 40, "the other columns were");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declaration_that_panics_is_found_and_not_tried_for_ever() {
    let node = serving(40).await;
    let (verdict, report) = report_of(&node, &Second { declares_nonsense: true, ..Second::default() }).await;
    let rows = part(&report, Part::Rows);
    assert_eq!((verdict, &rows.wrong[..]), (Verdict::Fail, &[(FindingKind::Check, 1)][..]));
    assert_eq!(rows.findings[0].place, "the comparison of the code");
    assert_eq!(rows.findings[0].new.as_deref(), Some("it panicked: apples and pears"));
    node.shutdown().await;
}

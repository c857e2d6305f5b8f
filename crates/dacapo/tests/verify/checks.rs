//! Checks and assertions of the version itself.

use std::sync::Arc;

use dacapo::verify::{Checks, FindingKind, Part, Verdict, Verify};

use crate::common::*;
use crate::setup::*;

#[tokio::test(flavor = "multi_thread")]
async fn what_the_version_checks_of_itself_counts() {
    let node = serving(400).await;
    let second = Second::adding(|event, amount| Some(if event.stream == "ledger-3" { -amount } else { amount }));
    let checks = |checks: &mut Checks| {
        checks.holds("the books are closed", false);
        checks.equal("as many books as shelves", 3, 3);
        checks.equal_at("the price of a book", "book-9", 12, 15);
        Err("the shelf is locked".into())
    };
    let second = Second { check: Arc::new(checks), ..second }.verify(Verify::default().without(Part::Rows));
    let (verdict, report) = report_of(&node, &second).await;
    let found = part(&report, Part::Checks);
    assert_eq!((verdict, found.looked_at), (Verdict::Fail, 4), "{found:?}");
    assert_eq!(found.wrong, [(FindingKind::Check, 4)]);
    let told = |place: &str| found.findings.iter().find(|finding| finding.place == place).unwrap();
    assert!(told("no sum is below zero").new.as_deref().unwrap().starts_with("ledger ledger-3, sum -"));
    assert!(told("the books are closed").new.is_none());
    let price = told("the price of a book");
    assert_eq!(
        (price.key.as_deref(), price.old.as_deref(), price.new.as_deref()),
        (Some("book-9"), Some("15"), Some("12"))
    );
    assert_eq!(told("the check of the code").new.as_deref(), Some("the shelf is locked"));

    let panics = Second { check: Arc::new(|_| panic!("what shelf?")), ..second };
    node.add_projection(carry(&panics)).unwrap();
    node.version(view("v2.1")).verify_again().requested_by(asked("the check is mended")).await.unwrap();
    let report = verified(&node, "v2.1").await.verified.unwrap().report;
    let told = part(&report, Part::Checks).findings.iter().find(|finding| finding.place == "the check of the code");
    assert_eq!(told.unwrap().new.as_deref(), Some("it panicked: what shelf?"));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn however_many_rows_an_assertion_gives_all_are_counted_and_some_are_told() {
    let node = serving(400).await;
    let second = Second::adding(|_, amount| Some(-amount)).verify(Verify::default().without(Part::Rows));
    let (_, report) = report_of(&node, &second).await;
    let checks = part(&report, Part::Checks);
    assert_eq!((&checks.wrong[..], checks.findings.len()), (&[(FindingKind::Check, 40)][..], 10), "{checks:?}");
    node.shutdown().await;
}

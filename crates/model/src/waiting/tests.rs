use super::*;
use crate::segment::SegmentCount;

#[test]
fn a_refusal_needs_somebody_once_it_was_tried_as_often_as_the_policy_says() {
    let refused = |attempts| WaitingOn::Handler {
        segment: SegmentCount::ONE.segment(0).unwrap(),
        position: Position::new(7),
        attempts,
        error: "no".into(),
        due: Timestamp::from_micros(0),
    };
    let retry = Retry { attempts: 3, ..Retry::default() };
    assert_eq!([1, 2, 3, 4].map(|attempts| refused(attempts).needs_somebody(&retry)), [false, false, true, true]);
    assert!(WaitingOn::Paused.needs_somebody(&retry));
    assert!(!WaitingOn::Store { error: "full".into() }.needs_somebody(&retry));
}

#[test]
fn every_reason_is_in_the_reference() {
    let row = |name: &str, meaning: &str| format!("| {name} | {} |", meaning.trim().replace('|', "\\|"));
    let kind = |kind: &Kind| {
        let fields = kind.fields.iter().map(|(name, meaning)| format!("`{name}`: {}", meaning.trim()));
        format!("{} {} |\n", row(&format!("`{}`", kind.name), kind.meaning), fields.collect::<Vec<_>>().join("<br>"))
    };
    let table: String = WaitingOn::KINDS.iter().map(kind).collect();
    let reference = include_str!("../../../../docs/waiting-on.md");
    assert!(reference.contains(&table), "docs/waiting-on.md should have these rows:\n{table}");
}

#[test]
fn the_fields_of_a_reason_are_those_of_its_row() {
    let reason = WaitingOn::Batch { after: Position::new(4), since: Duration::from_secs(9) };
    assert_eq!(reason.kind(), "batch");
    let facts = [("after", Fact::Number(4)), ("since_ms", Fact::Span(Duration::from_secs(9)))];
    assert_eq!(reason.facts(), facts);
}

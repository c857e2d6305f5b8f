//! The findings of a verification, and the verdict that follows from them.

use std::fmt;

use crate::catalog::VersionState;
use crate::phase::Phase;
use crate::position::Position;
use crate::version::VersionId;

/// A part of a verification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// Counts: the events that each segment applied or set aside, against the journal's own count.
    Counts,
    /// Checks: the version's own checks.
    Checks,
    /// Rows: its rows against those of the serving version, at one identical position.
    Rows,
    /// Answers: its answers to live queries against those of the serving version.
    Answers,
    /// Fold, for a version that began as a copy: its rows, or some of them, against a fold of past events by its own
    /// code.
    Fold,
}

impl Part {
    /// Every part.
    pub const ALL: [Self; 5] = [Self::Counts, Self::Checks, Self::Rows, Self::Answers, Self::Fold];

    /// Returns the name in messages and on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counts => "counts",
            Self::Checks => "checks",
            Self::Rows => "rows",
            Self::Answers => "answers",
            Self::Fold => "fold",
        }
    }

    /// Returns true if it can be done. `compares`: a version serves to compare with. `is_copy`: the version began as a
    /// copy.
    pub const fn is_possible(self, compares: bool, is_copy: bool) -> bool {
        match self {
            Self::Counts | Self::Checks => true,
            Self::Rows | Self::Answers => compares,
            Self::Fold => is_copy,
        }
    }

    /// Returns the name of the things that it looks at.
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Counts => "events",
            Self::Checks => "checks",
            Self::Rows | Self::Fold => "rows",
            Self::Answers => "answers",
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The kind of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FindingKind {
    /// A segment did not process as many events as the journal has for it.
    Count,
    /// An event was set aside.
    Letter,
    /// One of the version's own checks failed.
    Check,
    /// A row of the old version is not in the new one.
    Missing,
    /// A row of the new version is not in the old one.
    Extra,
    /// A row differs.
    Differs,
    /// An answer differs.
    Answer,
}

impl FindingKind {
    /// Every kind.
    pub const ALL: [Self; 7] =
        [Self::Count, Self::Letter, Self::Check, Self::Missing, Self::Extra, Self::Differs, Self::Answer];

    /// Returns the name in messages and on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Letter => "letter",
            Self::Check => "check",
            Self::Missing => "missing",
            Self::Extra => "extra",
            Self::Differs => "differs",
            Self::Answer => "answer",
        }
    }

    /// Returns a number of findings of this kind in words: `3 rows differ`.
    pub fn counted(self, count: u64) -> String {
        let one = count == 1;
        let (noun, verb) = match self {
            Self::Count => (if one { "segment" } else { "segments" }, if one { "miscounts" } else { "miscount" }),
            Self::Letter => (if one { "event" } else { "events" }, "set aside"),
            Self::Check => (if one { "check" } else { "checks" }, "failed"),
            Self::Missing => (if one { "row" } else { "rows" }, "missing"),
            Self::Extra => (if one { "row" } else { "rows" }, "too many"),
            Self::Differs => (if one { "row" } else { "rows" }, if one { "differs" } else { "differ" }),
            Self::Answer => (if one { "answer" } else { "answers" }, if one { "differs" } else { "differ" }),
        };
        format!("{count} {noun} {verb}")
    }
}

/// One finding: something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The kind.
    pub kind: FindingKind,
    /// The place: a table, a check, a segment or a query.
    pub place: String,
    /// The key of the row, where there is one.
    pub key: Option<String>,
    /// The value in the old version, or the expected value.
    pub old: Option<String>,
    /// The value in the new version, or the value that was found.
    pub new: Option<String>,
}

/// The outcome of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing wrong was found.
    Passed,
    /// Something wrong was found.
    Failed,
    /// It was not done.
    NotDone {
        /// The reason.
        why: String,
    },
}

/// The findings of one part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartReport {
    /// The part.
    pub part: Part,
    /// Its outcome.
    pub outcome: Outcome,
    /// The number of events, checks, rows or answers that were looked at.
    pub looked_at: u64,
    /// The number of findings of each kind, including those for which `findings` has no room.
    pub wrong: Vec<(FindingKind, u64)>,
    /// The first few findings of each kind.
    pub findings: Vec<Finding>,
    /// Other facts that a reader needs to judge the part, such as what was left out and why.
    pub notes: Vec<String>,
}

impl PartReport {
    /// Returns the report of a part that was not done.
    pub fn not_done(part: Part, why: impl Into<String>) -> Self {
        let outcome = Outcome::NotDone { why: why.into() };
        Self { part, outcome, looked_at: 0, wrong: vec![], findings: vec![], notes: vec![] }
    }
}

/// The findings of a verification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The position at which it looked.
    pub at: Position,
    /// The version that served then, with which it compared.
    pub against: Option<VersionId>,
    /// The parts that must have passed.
    pub required: Vec<Part>,
    /// Its parts.
    pub parts: Vec<PartReport>,
}

/// The verdict of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Every part that is required has passed, and none has failed.
    Pass,
    /// The version may not serve, except if an operator waives the verdict.
    Fail,
}

impl Verdict {
    /// Returns the name in messages and on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "Pass",
            Self::Fail => "Fail",
        }
    }
}

impl Report {
    /// Returns the verdict. A part that is not required may be left undone, but its findings count.
    pub fn verdict(&self) -> Verdict {
        let failed = self.parts.iter().any(|part| part.outcome == Outcome::Failed);
        let passed = |part: &Part| self.parts.iter().any(|done| done.part == *part && done.outcome == Outcome::Passed);
        if !failed && self.required.iter().all(passed) { Verdict::Pass } else { Verdict::Fail }
    }

    /// Returns the reason why the verdict is not a pass, in a few words.
    pub fn summary(&self) -> String {
        let done = |part: &Part| self.parts.iter().find(|done| done.part == *part);
        let wrong = |report: &PartReport| {
            let wrong: Vec<String> = report.wrong.iter().map(|(kind, count)| kind.counted(*count)).collect();
            format!("{}: {}", report.part, if wrong.is_empty() { "failed".to_owned() } else { wrong.join(", ") })
        };
        let failed = self.parts.iter().filter(|part| part.outcome == Outcome::Failed).map(wrong);
        let undone = self.required.iter().filter_map(|part| match done(part).map(|report| &report.outcome) {
            Some(Outcome::Passed | Outcome::Failed) => None,
            Some(Outcome::NotDone { why }) => Some(format!("{part}: not done, {why}")),
            None => Some(format!("{part}: not done")),
        });
        failed.chain(undone).collect::<Vec<_>>().join("; ")
    }
}

/// Returns the parts that a verification requires of those that the version's options name. A first version cannot be
/// compared with anything, even if later ones must be.
pub fn required(named: &[Part], compares: bool, is_copy: bool) -> Vec<Part> {
    Part::ALL.into_iter().filter(|part| named.contains(part) && part.is_possible(compares, is_copy)).collect()
}

/// Returns true if the verdict of a version says too much once an event is set aside in it: it has passed with no such
/// event. A waived verdict stays valid: the person who waived it is responsible. `counts_letters`: an event that is set
/// aside makes it fail, according to its options.
pub fn rests_on_no_letters(state: &VersionState, counts_letters: bool) -> bool {
    let passed = state.verified.as_ref().is_some_and(|it| it.verdict == Verdict::Pass && it.waived.is_none());
    state.phase == Phase::Initializing && counts_letters && passed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::CatalogEvent;
    use crate::testing::{catalog, scheduled, view};
    use std::sync::Arc;

    #[test]
    fn what_cannot_be_done_is_not_required() {
        let all = [Part::Fold, Part::Rows, Part::Checks];
        assert_eq!(required(&all, true, true), [Part::Checks, Part::Rows, Part::Fold]);
        assert_eq!(required(&all, false, true), [Part::Checks, Part::Fold], "a first version");
        assert_eq!(required(&all, true, false), [Part::Checks, Part::Rows], "no copy");
        assert_eq!(required(&[], true, true), []);
    }

    #[test]
    fn a_verdict_rests_on_letters_while_it_is_a_pass_that_nobody_waived() {
        let verified = |verdict| CatalogEvent::Verified { view: view(1), verdict, report: Arc::new(report([])) };
        let rests = |events: Vec<CatalogEvent>, counts_letters| {
            let begins = [scheduled(view(1), None), CatalogEvent::Initializing { view: view(1) }];
            let catalog = catalog(begins.into_iter().chain(events));
            rests_on_no_letters(catalog.version(&view(1)).unwrap(), counts_letters)
        };
        let (passed, failed) = (verified(Verdict::Pass), verified(Verdict::Fail));
        let waived = CatalogEvent::Waived { view: view(1), by: "ana".into(), why: "known".into() };
        assert!(rests(vec![passed.clone()], true));
        assert!(!rests(vec![passed.clone()], false), "letters are allowed");
        assert!(!rests(vec![], true) && !rests(vec![failed.clone()], true), "no pass");
        assert!(!rests(vec![failed, waived], true), "somebody is responsible");
        let given_up = CatalogEvent::Failed { view: view(1), reason: "no".into() };
        assert!(!rests(vec![passed, given_up], true), "nobody moves to it");
    }

    fn report(outcomes: impl IntoIterator<Item = (Part, Outcome)>) -> Report {
        let part = |(part, outcome)| PartReport { outcome, looked_at: 1, ..PartReport::not_done(part, "") };
        let parts = outcomes.into_iter().map(part).collect();
        Report { at: Position::new(5), against: None, required: vec![], parts }
    }

    fn verdict(report: &Report, required: &[Part]) -> Verdict {
        Report { required: required.to_vec(), ..report.clone() }.verdict()
    }

    #[test]
    fn what_is_required_must_have_passed_and_nothing_may_have_failed() {
        let undone = || Outcome::NotDone { why: "no version serves".into() };
        let both = report([(Part::Counts, Outcome::Passed), (Part::Rows, undone())]);
        assert_eq!(verdict(&both, &[Part::Counts]), Verdict::Pass);
        assert_eq!(verdict(&both, &[Part::Counts, Part::Rows]), Verdict::Fail);
        assert_eq!(verdict(&both, &[Part::Checks]), Verdict::Fail, "a part that is not there has not passed");
        let failed = report([(Part::Counts, Outcome::Passed), (Part::Rows, Outcome::Failed)]);
        assert_eq!(verdict(&failed, &[Part::Counts]), Verdict::Fail);
    }

    #[test]
    fn the_summary_names_what_is_wrong_and_what_is_missing() {
        let mut report =
            report([(Part::Rows, Outcome::Failed), (Part::Answers, Outcome::NotDone { why: "no".into() })]);
        report.parts[0].wrong = vec![(FindingKind::Missing, 1), (FindingKind::Differs, 12)];
        report.required = vec![Part::Counts, Part::Answers];
        let expected = "rows: 1 row missing, 12 rows differ; counts: not done; answers: not done, no";
        assert_eq!(report.summary(), expected);
    }
}

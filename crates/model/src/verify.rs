//! What verification found of a version, and the verdict that follows from it.

use crate::position::Position;
use crate::version::VersionId;

/// A part of a verification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// The events that each segment applied or set aside, against the journal's own count.
    Counts,
    /// What the version checks of itself.
    Checks,
    /// Its rows against those of the serving version, at one identical position.
    Rows,
    /// Answers to live queries against those of the serving version.
    Answers,
}

impl Part {
    /// Every part.
    pub const ALL: [Self; 4] = [Self::Counts, Self::Checks, Self::Rows, Self::Answers];

    /// The name in messages and on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counts => "counts",
            Self::Checks => "checks",
            Self::Rows => "rows",
            Self::Answers => "answers",
        }
    }
}

/// What one thing that was found wrong is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FindingKind {
    /// A segment did not take up as many events as the journal has for it.
    Count,
    /// An event was set aside.
    Letter,
    /// A check of the version's own failed.
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

    /// The name in messages and on the wire.
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
}

/// One thing that was found wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is.
    pub kind: FindingKind,
    /// Where: a table, a check, a segment or a query.
    pub place: String,
    /// Which row, where there is one.
    pub key: Option<String>,
    /// What the old version has, or what was expected.
    pub old: Option<String>,
    /// What the new version has, or what was found.
    pub new: Option<String>,
}

/// How a part came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing wrong was found.
    Passed,
    /// Something was.
    Failed,
    /// It was not done.
    NotDone {
        /// Why not.
        why: String,
    },
}

/// What one part found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartReport {
    /// The part.
    pub part: Part,
    /// How it came out.
    pub outcome: Outcome,
    /// How many events, checks, rows or answers were looked at.
    pub looked_at: u64,
    /// How many of each kind were wrong, those that `findings` has no room for included.
    pub wrong: Vec<(FindingKind, u64)>,
    /// The first few of each kind.
    pub findings: Vec<Finding>,
}

/// What a verification found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The position at which it looked.
    pub at: Position,
    /// The version that served then, against which it compared.
    pub against: Option<VersionId>,
    /// Its parts.
    pub parts: Vec<PartReport>,
}

/// What a report comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Every part that must pass has passed, and none has failed.
    Pass,
    /// It may not serve, unless somebody answers for it.
    Fail,
}

impl Verdict {
    /// The name in messages and on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "Pass",
            Self::Fail => "Fail",
        }
    }
}

impl Report {
    /// The verdict, where the parts `required` must have passed. A part that is not required may be left undone,
    /// but what it found counts.
    pub fn verdict(&self, required: &[Part]) -> Verdict {
        let failed = self.parts.iter().any(|part| part.outcome == Outcome::Failed);
        let passed = |part: &Part| self.parts.iter().any(|done| done.part == *part && done.outcome == Outcome::Passed);
        if !failed && required.iter().all(passed) { Verdict::Pass } else { Verdict::Fail }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(outcomes: impl IntoIterator<Item = (Part, Outcome)>) -> Report {
        let part = |(part, outcome)| PartReport { part, outcome, looked_at: 1, wrong: vec![], findings: vec![] };
        Report { at: Position::new(5), against: None, parts: outcomes.into_iter().map(part).collect() }
    }

    #[test]
    fn what_is_required_must_have_passed_and_nothing_may_have_failed() {
        let undone = || Outcome::NotDone { why: "no version serves".into() };
        let both = report([(Part::Counts, Outcome::Passed), (Part::Rows, undone())]);
        assert_eq!(both.verdict(&[Part::Counts]), Verdict::Pass);
        assert_eq!(both.verdict(&[Part::Counts, Part::Rows]), Verdict::Fail);
        assert_eq!(both.verdict(&[Part::Checks]), Verdict::Fail, "a part that is not there has not passed");
        let failed = report([(Part::Counts, Outcome::Passed), (Part::Rows, Outcome::Failed)]);
        assert_eq!(failed.verdict(&[Part::Counts]), Verdict::Fail);
    }
}

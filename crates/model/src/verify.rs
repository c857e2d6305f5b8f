//! What verification found of a version, and the verdict that follows from it.

use std::fmt;

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
    /// Of a version that began as a copy: its rows, or some of them, against a fold of past events by its own code.
    Fold,
}

impl Part {
    /// Every part.
    pub const ALL: [Self; 5] = [Self::Counts, Self::Checks, Self::Rows, Self::Answers, Self::Fold];

    /// The name in messages and on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counts => "counts",
            Self::Checks => "checks",
            Self::Rows => "rows",
            Self::Answers => "answers",
            Self::Fold => "fold",
        }
    }

    /// What it looks at, in words.
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

    /// So many of it, in words: `3 rows differ`.
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
    /// What else a reader must know to judge it, such as what was left out and why.
    pub notes: Vec<String>,
}

impl PartReport {
    /// A part that was not done.
    pub fn not_done(part: Part, why: impl Into<String>) -> Self {
        let outcome = Outcome::NotDone { why: why.into() };
        Self { part, outcome, looked_at: 0, wrong: vec![], findings: vec![], notes: vec![] }
    }
}

/// What a verification found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The position at which it looked.
    pub at: Position,
    /// The version that served then, against which it compared.
    pub against: Option<VersionId>,
    /// The parts that must have passed.
    pub required: Vec<Part>,
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
    /// The verdict. A part that is not required may be left undone, but what it found counts.
    pub fn verdict(&self) -> Verdict {
        let failed = self.parts.iter().any(|part| part.outcome == Outcome::Failed);
        let passed = |part: &Part| self.parts.iter().any(|done| done.part == *part && done.outcome == Outcome::Passed);
        if !failed && self.required.iter().all(passed) { Verdict::Pass } else { Verdict::Fail }
    }

    /// Why the verdict is not a pass, in a few words.
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

#[cfg(test)]
mod tests {
    use super::*;

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

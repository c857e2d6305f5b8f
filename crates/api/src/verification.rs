//! Forms of verifications: what was found of a version before readers move to it.

use std::collections::BTreeMap;

use dacapo_model::verify as model;
use serde::{Deserialize, Serialize};

use crate::form::format_time;
use crate::operate::{Asked, asks};
use crate::status::WaitingOn;

/// Which version's verification.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct VerificationRequest {
    /// The version; when absent, the newest that is being built, or else the newest that was verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Wait at most so long until it is verified; 0 and absent answer at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
}

asks! {
    VerifyRequest { version: Option<String> }
}

/// A version is to be verified again, or somebody answers for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema), schemars(default, deny_unknown_fields))]
pub struct VerifyRequest {
    /// The version; when absent, the newest that is being built.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Who asks and why. Whoever waives a verdict says why.
    #[serde(flatten)]
    pub asked: Asked,
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct VerifyResponse {
    /// Of which projection.
    pub projection: String,
    /// Which version.
    pub version: String,
    /// The position at which the catalog has the request; absent when things were as asked already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested: Option<u64>,
}

/// How the verification of a version stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Verification {
    /// Of which projection.
    pub projection: String,
    /// Which version.
    pub version: String,
    /// Its phase.
    pub phase: String,
    /// `Pass`, `Fail` or `Waived`; absent before the first verification is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<String>,
    /// Where the catalog has the verdict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<u64>,
    /// Who answers for it although it was not found right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waived: Option<Waiver>,
    /// Whether another verification was asked for that is not done yet; until then the verdict does not count.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub again: bool,
    /// What was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<Report>,
    /// What came of the live queries that the answering node has put to it until now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live: Option<PartReport>,
    /// What it waits on before its verification lets it serve; while it cannot be verified at all, what that waits on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_on: Option<WaitingOn>,
    /// Whether it comes to no verdict before somebody does something about what it waits on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub halts: bool,
}

/// Who answers for a version, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Waiver {
    /// Who.
    pub by: String,
    /// Why.
    pub why: String,
}

/// What a verification found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Report {
    /// The position at which it looked.
    pub at: u64,
    /// The version that served then, against which it compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub against: Option<String>,
    /// The parts that must have passed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub required: Vec<String>,
    /// Why the verdict is not a pass, in a few words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub summary: String,
    /// Its parts.
    pub parts: Vec<PartReport>,
}

/// What one part found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct PartReport {
    /// The part: `counts`, `checks`, `rows`, `answers` or `fold`.
    pub part: String,
    /// `passed`, `failed` or `not_done`.
    pub outcome: String,
    /// Why it was not done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// How many events, checks, rows or answers were looked at.
    pub looked_at: u64,
    /// How many of each kind were wrong.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub wrong: BTreeMap<String, u64>,
    /// The same in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wrong_text: Vec<String>,
    /// The first few of each kind.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
    /// What else a reader must know to judge it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// One thing that was found wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Finding {
    /// What it is: `count`, `letter`, `check`, `missing`, `extra`, `differs` or `answer`.
    pub kind: String,
    /// Where: a table, a check, a segment or a query.
    pub place: String,
    /// Which row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// What the old version has, or what was expected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old: Option<String>,
    /// What the new version has, or what was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new: Option<String>,
}

/// What a look at the rows of a version that serves found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Scrubbed {
    /// When it ended, in RFC 3339.
    pub at: String,
    /// The position that the rows cover which it looked at.
    pub position: u64,
    /// What it found; what the events make is `old`, what the view has is `new`.
    pub report: PartReport,
}

impl Scrubbed {
    /// The form of a look.
    pub fn new(scrubbed: &dacapo_model::scrub::Scrubbed) -> Self {
        let dacapo_model::scrub::Scrubbed { at, position, report } = scrubbed;
        Self { at: format_time(*at), position: position.get(), report: report.into() }
    }
}

impl From<&model::Report> for Report {
    fn from(report: &model::Report) -> Self {
        Self {
            at: report.at.get(),
            against: report.against.map(|against| against.to_string()),
            required: report.required.iter().map(ToString::to_string).collect(),
            summary: report.summary(),
            parts: report.parts.iter().map(Into::into).collect(),
        }
    }
}

impl From<&model::PartReport> for PartReport {
    fn from(part: &model::PartReport) -> Self {
        let (outcome, why) = match &part.outcome {
            model::Outcome::Passed => ("passed", None),
            model::Outcome::Failed => ("failed", None),
            model::Outcome::NotDone { why } => ("not_done", Some(why.clone())),
        };
        Self {
            part: part.part.to_string(),
            outcome: outcome.to_owned(),
            why,
            looked_at: part.looked_at,
            wrong: part.wrong.iter().map(|(kind, count)| (kind.as_str().to_owned(), *count)).collect(),
            wrong_text: part.wrong.iter().map(|(kind, count)| kind.counted(*count)).collect(),
            findings: part.findings.iter().map(Into::into).collect(),
            notes: part.notes.clone(),
        }
    }
}

impl From<&model::Finding> for Finding {
    fn from(finding: &model::Finding) -> Self {
        let model::Finding { kind, place, key, old, new } = finding.clone();
        Self { kind: kind.as_str().to_owned(), place, key, old, new }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dacapo_model::Position;

    #[test]
    fn a_report_says_what_was_looked_at_and_what_was_found() {
        let finding = model::Finding {
            kind: model::FindingKind::Differs,
            place: "accounts".into(),
            key: Some("a-1".into()),
            old: Some("balance 5".into()),
            new: Some("balance 6".into()),
        };
        let rows = model::PartReport {
            part: model::Part::Rows,
            outcome: model::Outcome::Failed,
            looked_at: 40,
            wrong: vec![(model::FindingKind::Differs, 1)],
            findings: vec![finding],
            notes: vec!["column accounts.owner is new".into()],
        };
        let parts = vec![rows, model::PartReport::not_done(model::Part::Answers, "nobody asked")];
        let required = vec![model::Part::Counts];
        let report = model::Report { at: Position::new(9), against: None, required, parts };
        let json = serde_json::to_value(Report::from(&report)).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "at": 9, "required": ["counts"], "summary": "rows: 1 row differs; counts: not done",
                "parts": [
                    {"part": "rows", "outcome": "failed", "looked_at": 40, "wrong": {"differs": 1},
                     "wrong_text": ["1 row differs"], "notes": ["column accounts.owner is new"],
                     "findings": [{"kind": "differs", "place": "accounts", "key": "a-1", "old": "balance 5",
                                   "new": "balance 6"}]},
                    {"part": "answers", "outcome": "not_done", "why": "nobody asked", "looked_at": 0}
                ]
            })
        );
    }
}

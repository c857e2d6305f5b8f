//! Verifications, with the findings about a version before readers move to it: rows and forms.

use std::collections::BTreeMap;

use dacapo_model::verify as model;
use serde::{Deserialize, Serialize};

use crate::form::format_time;
use crate::operate::{Asked, asks};
use crate::operations::requests;
use crate::status::WaitingOn;

/// The rows of verifications.
#[doc(hidden)]
#[macro_export]
macro_rules! verification_rows {
    ($with:ident [$($later:ident)*] $($rows:tt)*) => {
        $crate::operations! { $with [$($later)*] $($rows)*
            /// Returns the findings of the verification of a version, and its verdict: `Pass`, `Fail` or `Waived`. With
            /// `wait_ms` it answers when the version is verified or the time is over. `halts` is true if the
            /// verification is blocked and needs an operator; `waiting_on` says why.
            ///
            /// # Errors
            /// [`ApiError::NotFound`] if there is no such projection; [`ApiError::Refused`] if there is no such version.
            verification: GET "/v1/projections/{projection}/verification" (projection)
                VerificationRequest => Verification, Read, Safe;

            /// Verifies again a version that is being built. Until that is done, its earlier verdict does not count.
            ///
            /// # Errors
            /// As [`verification`](Self::verification); [`ApiError::Refused`] if the version is not being built.
            verify: POST "/v1/projections/{projection}/verification" (projection) VerifyRequest => VerifyResponse,
                Operate, ByKey;

            /// Lets a version serve although its verification failed. A `reason` is required; the catalog keeps it with
            /// the requester.
            ///
            /// # Errors
            /// As [`verify`](Self::verify); [`ApiError::Refused`] if there is no failed verdict, and
            /// [`ApiError::Invalid`] without a reason.
            waive: POST "/v1/projections/{projection}/verification/waive" (projection) VerifyRequest => VerifyResponse,
                Operate, ByKey;
        }
    };
}

requests! {
    VerificationRequest { wait_ms }
    VerifyRequest { asked }
}

/// A request for the verification of a version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct VerificationRequest {
    /// The version. Default: the newest that is being built, or else the newest that was verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Longest time to wait until it is verified, in milliseconds. Default: 0, which answers at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
}

asks! {
    VerifyRequest { version: Option<String> }
}

/// A request to verify a version again, or to waive its verdict.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema), schemars(default, deny_unknown_fields))]
pub struct VerifyRequest {
    /// The version. Default: the newest that is being built.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The caller, the reason and the idempotency key. To waive a verdict, a reason is required.
    #[serde(flatten)]
    pub asked: Asked,
}

/// The request as it was recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct VerifyResponse {
    /// The projection.
    pub projection: String,
    /// The version.
    pub version: String,
    /// The position of the request in the catalog; absent if the requested state existed already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested: Option<u64>,
}

/// The state of the verification of a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Verification {
    /// The projection.
    pub projection: String,
    /// The version.
    pub version: String,
    /// Its phase.
    pub phase: String,
    /// `Pass`, `Fail` or `Waived`; absent before the first verification is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<String>,
    /// The position of the verdict in the catalog.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<u64>,
    /// The operator who waived the verdict, and the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waived: Option<Waiver>,
    /// True if another verification was requested that is not done yet. Until then the verdict does not count.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub again: bool,
    /// The report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<Report>,
    /// The result of the live queries that the answering node has put to it until now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live: Option<PartReport>,
    /// The reason that it waits on before its verification lets it serve. If it cannot be verified at all, the reason
    /// for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_on: Option<WaitingOn>,
    /// True if verification is blocked and needs an operator. `waiting_on` says why.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub halts: bool,
}

/// The operator who waived a verdict, and the reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Waiver {
    /// The operator.
    pub by: String,
    /// The reason.
    pub why: String,
}

/// The findings of a verification.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Report {
    /// The position at which it looked.
    pub at: u64,
    /// The version that served then, with which it compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub against: Option<String>,
    /// The parts that are required to pass.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub required: Vec<String>,
    /// The reason why the verdict is not a pass, in a few words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub summary: String,
    /// Its parts.
    pub parts: Vec<PartReport>,
}

/// The findings of one part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct PartReport {
    /// The part: `counts`, `checks`, `rows`, `answers` or `fold`.
    pub part: String,
    /// `passed`, `failed` or `not_done`.
    pub outcome: String,
    /// The reason why it was not done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The number of events, checks, rows or answers that were looked at.
    pub looked_at: u64,
    /// The number of findings of each kind.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub wrong: BTreeMap<String, u64>,
    /// The same in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wrong_text: Vec<String>,
    /// The first few findings of each kind.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
    /// Other facts that a reader needs to judge it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Finding {
    /// The kind: `count`, `letter`, `check`, `missing`, `extra`, `differs` or `answer`.
    pub kind: String,
    /// The place: a table, a check, a segment or a query.
    pub place: String,
    /// The key of the row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The value in the old version, or the expected value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old: Option<String>,
    /// The value in the new version, or the value that was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new: Option<String>,
}

/// The result of a check of the rows of a version that serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct ScrubResult {
    /// The time at which it ended, in RFC 3339.
    pub at: String,
    /// The position that the checked rows cover.
    pub position: u64,
    /// Its findings. In them, `old` is what the events make, and `new` is what the view has.
    pub report: PartReport,
}

impl ScrubResult {
    /// Returns the form of a check.
    pub fn new(scrubbed: &dacapo_model::scrub::ScrubResult) -> Self {
        let dacapo_model::scrub::ScrubResult { at, position, report } = scrubbed;
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

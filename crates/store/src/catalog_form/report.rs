//! The stored form of a verification's report, inside the catalog event that has it.

use std::collections::BTreeMap;

use dacapo_model::Position;
use dacapo_model::verify::{Finding, FindingKind, Outcome, Part, PartReport, Report};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
pub(super) struct Form {
    at: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    against: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    required: Vec<String>,
    parts: Vec<PartForm>,
}

#[derive(Serialize, Deserialize)]
struct PartForm {
    part: String,
    outcome: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    looked_at: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    wrong: BTreeMap<String, u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    findings: Vec<FindingForm>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct FindingForm {
    kind: String,
    place: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    old: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    new: Option<String>,
}

pub(super) fn form(report: &Report) -> Form {
    let finding = |Finding { kind, place, key, old, new }: &Finding| FindingForm {
        kind: kind.as_str().to_owned(),
        place: place.clone(),
        key: key.clone(),
        old: old.clone(),
        new: new.clone(),
    };
    let part = |part: &PartReport| {
        let (outcome, why) = match &part.outcome {
            Outcome::Passed => ("passed", None),
            Outcome::Failed => ("failed", None),
            Outcome::NotDone { why } => ("not-done", Some(why.clone())),
        };
        PartForm {
            part: part.part.as_str().to_owned(),
            outcome: outcome.to_owned(),
            why,
            looked_at: part.looked_at,
            wrong: part.wrong.iter().map(|(kind, count)| (kind.as_str().to_owned(), *count)).collect(),
            findings: part.findings.iter().map(finding).collect(),
            notes: part.notes.clone(),
        }
    };
    Form {
        at: report.at.get(),
        against: report.against.map(|against| against.to_string()),
        required: report.required.iter().map(|part| part.as_str().to_owned()).collect(),
        parts: report.parts.iter().map(part).collect(),
    }
}

pub(super) fn report(form: Form) -> Result<Report, String> {
    let against = form.against.as_deref().map(str::parse).transpose();
    let against = against.map_err(|error: dacapo_model::InvalidVersion| error.to_string())?;
    let required = form.required.iter().map(|name| part_of(name)).collect::<Result<_, _>>()?;
    let parts = form.parts.into_iter().map(part).collect::<Result<_, _>>()?;
    Ok(Report { at: Position::new(form.at), against, required, parts })
}

fn part(form: PartForm) -> Result<PartReport, String> {
    let part = part_of(&form.part)?;
    let outcome = match form.outcome.as_str() {
        "passed" => Outcome::Passed,
        "failed" => Outcome::Failed,
        "not-done" => Outcome::NotDone { why: form.why.unwrap_or_default() },
        other => return Err(format!("unknown outcome {other:?}")),
    };
    let wrong = form.wrong.iter().map(|(kind, count)| Ok((kind_of(kind)?, *count)));
    let mut wrong = wrong.collect::<Result<Vec<_>, String>>()?;
    wrong.sort();
    let findings = form.findings.into_iter().map(finding).collect::<Result<_, _>>()?;
    Ok(PartReport { part, outcome, looked_at: form.looked_at, wrong, findings, notes: form.notes })
}

fn finding(form: FindingForm) -> Result<Finding, String> {
    let FindingForm { kind, place, key, old, new } = form;
    Ok(Finding { kind: kind_of(&kind)?, place, key, old, new })
}

fn part_of(name: &str) -> Result<Part, String> {
    let part = Part::ALL.into_iter().find(|part| part.as_str() == name);
    part.ok_or_else(|| format!("unknown part of a verification {name:?}"))
}

fn kind_of(name: &str) -> Result<FindingKind, String> {
    let kind = FindingKind::ALL.into_iter().find(|kind| kind.as_str() == name);
    kind.ok_or_else(|| format!("unknown kind of finding {name:?}"))
}

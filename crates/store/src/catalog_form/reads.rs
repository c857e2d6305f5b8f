//! The stored form of the event types that the code of a version reads.

use dacapo_model::Reads;
use dacapo_model::assign::RowScope;
use serde::{Deserialize, Serialize};

/// A missing list stands for everything.
#[derive(Serialize, Deserialize)]
pub(super) struct Form {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    types: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    categories: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rows: Option<String>,
}

const ACROSS: &str = "across-segments";

pub(super) fn form(reads: &Reads) -> Form {
    Form {
        types: reads.types.as_ref().map(|types| types.iter().cloned().collect()),
        categories: reads.categories.as_ref().map(|categories| categories.iter().cloned().collect()),
        rows: (reads.rows == RowScope::AcrossSegments).then(|| ACROSS.to_owned()),
    }
}

pub(super) fn reads(form: Form) -> Result<Reads, String> {
    let rows = match form.rows.as_deref() {
        None => RowScope::OfOneSegment,
        Some(ACROSS) => RowScope::AcrossSegments,
        Some(other) => return Err(format!("unknown mode of rows {other:?}")),
    };
    let set = |names: Vec<String>| names.into_iter().collect();
    Ok(Reads { types: form.types.map(set), categories: form.categories.map(set), rows })
}

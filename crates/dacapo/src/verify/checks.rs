//! What a version checks of itself: SQL that must give no rows, and code.

use std::panic::AssertUnwindSafe;

use dacapo_model::limits;
use dacapo_model::verify::FindingKind;
use dacapo_store::{StoreError, Value};
use futures::FutureExt;

use crate::projection::{Handlers, chain, panic_text};
use crate::verify::compare::show;
use crate::verify::tally::{Tally, Words};
use crate::view::{ReadView, ViewError};

/// A query that must give no rows; those that it gives are what is wrong.
///
/// ```
/// use dacapo::verify::Assertion;
///
/// const NO_DEBT: Assertion =
///     Assertion { name: "no balance is below zero", sql: "SELECT id, balance FROM accounts WHERE balance < 0" };
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assertion {
    /// What is so when it gives none.
    pub name: &'static str,
    /// The query.
    pub sql: &'static str,
}

/// What the code of a version finds of itself. See [`Projection::check`](crate::Projection::check).
#[derive(Debug, Default)]
pub struct Checks {
    tally: Tally,
}

impl Checks {
    /// A check was made: `name` says what is so if `holds`.
    pub fn holds(&mut self, name: &str, holds: bool) {
        self.compares(name, holds, || (String::new(), String::new()));
    }

    /// A check was made: `found` must be `expected`.
    pub fn equal<T: PartialEq + std::fmt::Debug>(&mut self, name: &str, found: T, expected: T) {
        self.compares(name, found == expected, || (format!("{expected:?}"), format!("{found:?}")));
    }

    /// A check of one row or one thing was made: `key` says which.
    pub fn equal_at<T: PartialEq + std::fmt::Debug>(&mut self, name: &str, key: &str, found: T, expected: T) {
        self.tally.looked_at += 1;
        if found != expected {
            self.tally.wrong(FindingKind::Check, || Words {
                place: name.to_owned(),
                key: Some(key.to_owned()),
                old: Some(format!("{expected:?}")),
                new: Some(format!("{found:?}")),
            });
        }
    }

    fn compares(&mut self, name: &str, holds: bool, words: impl FnOnce() -> (String, String)) {
        self.tally.looked_at += 1;
        if !holds {
            let text = |text: String| Some(text).filter(|text| !text.is_empty());
            self.tally.wrong(FindingKind::Check, || {
                let (expected, found) = words();
                Words { place: name.to_owned(), key: None, old: text(expected), new: text(found) }
            });
        }
    }
}

/// Makes every check of a version on one state of its view.
pub(super) async fn check(
    handlers: &dyn Handlers,
    view: &mut ReadView,
    tally: &mut Tally,
    mut progress: impl FnMut(u64),
) -> Result<(), StoreError> {
    for assertion in handlers.assertions() {
        assert_none(assertion, view, tally).await?;
        progress(tally.looked_at);
    }
    let mut checks = Checks::default();
    let checked = AssertUnwindSafe(handlers.check(view, &mut checks)).catch_unwind().await;
    tally.add(checks.tally);
    let failed = match checked {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) => match error.downcast::<ViewError>() {
            Ok(error) if error.is_passing() => return Err(StoreError::unavailable("check a version", error)),
            Ok(error) => error.to_string(),
            Err(error) => chain(&*error),
        },
        Err(panic) => format!("it panicked: {}", panic_text(&*panic)),
    };
    let place = "the check of the code".to_owned();
    tally.wrong(FindingKind::Check, || Words { place, new: Some(failed), ..Words::default() });
    Ok(())
}

/// One query that must give no rows.
async fn assert_none(assertion: &Assertion, view: &mut ReadView, tally: &mut Tally) -> Result<(), StoreError> {
    tally.looked_at += 1;
    let Assertion { name, sql } = assertion;
    let sql = sql.trim().trim_end_matches(';');
    // However many rows it gives, only a few of them are taken into memory.
    let few = limits::FINDINGS_MAX;
    let first = view.query(&format!("SELECT * FROM ({sql}) AS found LIMIT {few}"), &[]).await;
    let (columns, rows) = match first {
        Ok(found) => found,
        Err(error) if error.is_passing() => return Err(StoreError::unavailable("check a version", error)),
        Err(error) => {
            let new = Some(error.to_string());
            tally.wrong(FindingKind::Check, || Words { place: (*name).to_owned(), new, ..Words::default() });
            return Ok(());
        }
    };
    for row in &rows {
        let shown = columns.iter().zip(row).map(|(column, value)| format!("{column} {}", show(value)));
        let new = Some(shown.collect::<Vec<_>>().join(", "));
        let old = Some("no row".to_owned());
        tally.wrong(FindingKind::Check, || Words { place: (*name).to_owned(), key: None, old, new });
    }
    if rows.len() == few {
        let counted = view.query(&format!("SELECT count(*) FROM ({sql}) AS found"), &[]).await;
        let (_, counted) = counted.map_err(|error| StoreError::unavailable("check a version", error))?;
        if let Some([Value::Integer(all)]) = counted.first().map(Vec::as_slice) {
            tally.wrong_more(FindingKind::Check, u64::try_from(*all).unwrap_or_default().saturating_sub(few as u64));
        }
    }
    Ok(())
}

//! The checks that a version makes of itself: SQL that must return no rows, and code.

use std::panic::AssertUnwindSafe;

use dacapo_model::limits;
use dacapo_model::verify::FindingKind;
use dacapo_store::{FirstRows, StoreError};
use futures::FutureExt;

use crate::code::{Assertion, Checks, Handlers, Tally, Words};
use crate::panics::{chain, panic_text};
use crate::view::{ReadView, ViewError};

/// Runs every check of a version on one state of its view.
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

/// Runs one query that must return no rows. If it returns many, only a few of them are read into memory.
async fn assert_none(assertion: &Assertion, view: &mut ReadView, tally: &mut Tally) -> Result<(), StoreError> {
    tally.looked_at += 1;
    let Assertion { name, sql } = assertion;
    let FirstRows { columns, rows, all } = match view.reader().first_rows(sql, limits::FINDINGS_MAX).await {
        Ok(found) => found,
        Err(StoreError::Invalid(error)) => {
            let new = Some(error);
            tally.wrong(FindingKind::Check, || Words { place: (*name).to_owned(), new, ..Words::default() });
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    for row in &rows {
        let shown = columns.iter().zip(row).map(|(column, value)| format!("{column} {value}"));
        let new = Some(shown.collect::<Vec<_>>().join(", "));
        let old = Some("no row".to_owned());
        tally.wrong(FindingKind::Check, || Words { place: (*name).to_owned(), key: None, old, new });
    }
    tally.wrong_more(FindingKind::Check, all - rows.len() as u64);
    Ok(())
}

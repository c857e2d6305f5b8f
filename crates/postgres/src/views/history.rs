//! The history of the journal that a view is made of: marks, so that another journal, or another history, is noticed.

use dacapo_model::{JournalId, Mark};
use dacapo_store::view_form::{digest, digest_number, number, position};
use dacapo_store::{NewMark, StoreError, ViewHistory};
use sqlx::Row;
use sqlx::postgres::PgArguments;
use uuid::Uuid;

use super::rows::Sent;
use super::session::Session;
use super::value::added;

/// What is kept of it in the view in a schema.
pub(super) async fn read(session: &mut Session, schema: &str) -> Sent<Option<ViewHistory>> {
    let sql = format!("SELECT position, digest, journal FROM {schema}._dacapo_history ORDER BY position");
    let rows = session.fetch(&sql, PgArguments::default()).await?;
    let mut kept = Vec::with_capacity(rows.len());
    for row in &rows {
        let negative = || StoreError::corrupt(format!("{schema}._dacapo_history"), "a position is negative");
        let position = position(row.try_get(0)?).ok_or_else(negative)?;
        let journal: Uuid = row.try_get(2)?;
        kept.push((JournalId::from_bytes(journal.into_bytes()), Mark { position, digest: digest(row.try_get(1)?) }));
    }
    Ok(ViewHistory::of(kept))
}

/// Keeps a mark in the open transaction. Nodes that have other segments may keep the same one at the same time.
pub(super) async fn keep(session: &mut Session, schema: &str, new: &NewMark) -> Sent<()> {
    let mut arguments = PgArguments::default();
    added(&mut arguments, number(new.mark.position))?;
    added(&mut arguments, digest_number(new.mark.digest))?;
    added(&mut arguments, Uuid::from_bytes(new.journal.bytes()))?;
    added(&mut arguments, new.forget.iter().map(|position| number(*position)).collect::<Vec<_>>())?;
    let sql = format!(
        "WITH forgotten AS (
             DELETE FROM {schema}._dacapo_history WHERE position IN (
                 SELECT position FROM {schema}._dacapo_history WHERE position = ANY ($4) ORDER BY position
                 FOR UPDATE SKIP LOCKED)
         )
         INSERT INTO {schema}._dacapo_history VALUES ($1, $2, $3) ON CONFLICT DO NOTHING"
    );
    session.fetch(&sql, arguments).await?;
    Ok(())
}

//! The outbox of a view: effects that its handler emitted and that are still to be made.
//!
//! `number` gives the order in which they were emitted, which within a stream is the order of its events. Only the
//! first of each stream has a time at which it is due; the next one gets it when that one goes. Whoever emits and
//! whoever settles take turns, until their commit: otherwise one would leave an effect without a time behind another
//! that the other is taking away, and it would never be due.

use std::time::Duration;

use dacapo_model::{NewEffect, PendingEffect, Position, Settled, StreamName, Timestamp};
use dacapo_store::view_form::{EffectForm, at, number};
use dacapo_store::{Outbox, StoreError};
use sqlx::Row;
use sqlx::postgres::{PgArguments, PgRow};

use super::rows::Sent;
use super::session::Session;
use super::tokens::storable;
use super::value::added;

/// The table and what finds things in it.
pub(super) const CREATE: &str = "
    CREATE TABLE _dacapo_outbox (number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, position bigint NOT NULL,
                                 ordinal bigint NOT NULL, segment bigint NOT NULL, stream text COLLATE \"C\" NOT NULL,
                                 name text NOT NULL, payload bytea NOT NULL, attempts bigint NOT NULL, due bigint,
                                 error text, UNIQUE (position, ordinal));
    CREATE INDEX _dacapo_outbox_stream ON _dacapo_outbox (stream, number);
    CREATE INDEX _dacapo_outbox_due ON _dacapo_outbox (due) WHERE due IS NOT NULL;
    CREATE TABLE _dacapo_unspoken (position bigint PRIMARY KEY, segment bigint NOT NULL);";

const COLUMNS: &str = "number, position, ordinal, segment, stream, name, payload, attempts, due, error";

/// Keeps others from emitting and settling until the transaction ends. A row, since a lock of the table would keep the
/// server from cleaning it.
fn lock(schema: &str) -> String {
    format!("SELECT FROM {schema}._dacapo_view FOR UPDATE")
}

/// Puts effects into the outbox, in the open transaction. One that is there already stays as it is.
pub(super) async fn emit(session: &mut Session, schema: &str, effects: &[NewEffect]) -> Sent<()> {
    session.batch(lock(schema)).await?;
    let sql = format!(
        "INSERT INTO {schema}._dacapo_outbox (position, ordinal, segment, stream, name, payload, attempts, due)
         SELECT position, ordinal, segment, stream, name, payload, 0,
                CASE WHEN row_number() OVER (PARTITION BY stream ORDER BY at) > 1
                       OR EXISTS (SELECT FROM {schema}._dacapo_outbox AS kept WHERE kept.stream = emitted.stream)
                     THEN NULL ELSE 0 END
         FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::bytea[]) WITH ORDINALITY
              AS emitted (position, ordinal, segment, stream, name, payload, at)
         ORDER BY at
         ON CONFLICT (position, ordinal) DO NOTHING"
    );
    let mut arguments = PgArguments::default();
    added(&mut arguments, effects.iter().map(|it| number(it.position)).collect::<Vec<_>>())?;
    added(&mut arguments, effects.iter().map(|it| i64::from(it.ordinal)).collect::<Vec<_>>())?;
    added(&mut arguments, effects.iter().map(|it| i64::from(it.segment.get())).collect::<Vec<_>>())?;
    added(&mut arguments, effects.iter().map(|it| it.stream.as_str()).collect::<Vec<_>>())?;
    added(&mut arguments, effects.iter().map(|it| it.name.as_str()).collect::<Vec<_>>())?;
    added(&mut arguments, effects.iter().map(|it| it.payload.as_slice()).collect::<Vec<_>>())?;
    session.run(&sql, arguments).await?;
    Ok(())
}

/// The effects that are due, the longest due first.
pub(super) async fn due(
    session: &mut Session,
    schema: &str,
    (now, longest): (Timestamp, Duration),
    most: usize,
) -> Sent<Vec<PendingEffect>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM {schema}._dacapo_outbox WHERE due IS NOT NULL AND (due <= $1 OR due > $2) ORDER BY due, number LIMIT $3"
    );
    let mut arguments = PgArguments::default();
    added(&mut arguments, now.micros())?;
    added(&mut arguments, now.plus(longest).micros())?;
    added(&mut arguments, i64::try_from(most).unwrap_or(i64::MAX))?;
    pending(session.fetch(&sql, arguments).await?, schema)
}

/// The position of the first effect of a stream.
pub(super) async fn first(session: &mut Session, schema: &str, stream: &StreamName) -> Sent<Option<Position>> {
    let sql = format!("SELECT position FROM {schema}._dacapo_outbox WHERE stream = $1 ORDER BY number LIMIT 1");
    let mut arguments = PgArguments::default();
    added(&mut arguments, stream.as_str())?;
    let rows = session.fetch(&sql, arguments).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    Ok(Some(at(row.try_get(0)?).map_err(|found| damaged(schema, found))?))
}

/// What is in the outbox as a whole.
pub(super) async fn whole(session: &mut Session, schema: &str, most: usize) -> Sent<Outbox> {
    let sql = format!("SELECT count(*), min(due) FROM {schema}._dacapo_outbox");
    let rows = session.fetch(&sql, PgArguments::default()).await?;
    let (count, next_due): (i64, Option<i64>) = (rows[0].try_get(0)?, rows[0].try_get(1)?);
    let sql = format!(
        "SELECT {COLUMNS} FROM {schema}._dacapo_outbox WHERE due IS NOT NULL AND attempts > 0 ORDER BY position LIMIT $1"
    );
    let mut arguments = PgArguments::default();
    added(&mut arguments, i64::try_from(most).unwrap_or(i64::MAX))?;
    let failing = pending(session.fetch(&sql, arguments).await?, schema)?;
    Ok(Outbox { pending: count.unsigned_abs(), next_due: next_due.map(Timestamp::from_micros), failing })
}

/// Records what tries came to, in the open transaction.
pub(super) async fn settle(session: &mut Session, schema: &str, settled: &[(u64, Settled)]) -> Sent<()> {
    session.batch(lock(schema)).await?;
    for (place, settled) in settled {
        let mut arguments = PgArguments::default();
        added(&mut arguments, i64::try_from(*place).unwrap_or(i64::MAX))?;
        match settled {
            Settled::Failed { error, due } => {
                let sql = format!(
                    "UPDATE {schema}._dacapo_outbox SET attempts = attempts + 1, error = $2, due = $3
                     WHERE number = $1 AND due IS NOT NULL"
                );
                added(&mut arguments, storable(error))?;
                added(&mut arguments, due.micros())?;
                session.run(&sql, arguments).await?;
            }
            Settled::Done => {
                let sql = format!("DELETE FROM {schema}._dacapo_outbox WHERE number = $1 RETURNING stream");
                let rows = session.fetch(&sql, arguments).await?;
                // Told twice, it is gone already.
                let Some(row) = rows.first() else { continue };
                let sql = format!(
                    "UPDATE {schema}._dacapo_outbox SET due = 0 WHERE due IS NULL
                     AND number = (SELECT min(number) FROM {schema}._dacapo_outbox WHERE stream = $1)"
                );
                let mut arguments = PgArguments::default();
                added(&mut arguments, row.try_get::<String, _>(0)?)?;
                session.run(&sql, arguments).await?;
            }
        }
    }
    Ok(())
}

fn pending(rows: Vec<PgRow>, schema: &str) -> Sent<Vec<PendingEffect>> {
    let form = |row: PgRow| -> Sent<PendingEffect> {
        let form = EffectForm {
            number: row.try_get(0)?,
            position: row.try_get(1)?,
            ordinal: row.try_get(2)?,
            segment: row.try_get(3)?,
            stream: row.try_get(4)?,
            name: row.try_get(5)?,
            payload: row.try_get(6)?,
            attempts: row.try_get(7)?,
            due: row.try_get(8)?,
            error: row.try_get(9)?,
        };
        Ok(form.pending().map_err(|found| damaged(schema, found))?)
    };
    rows.into_iter().map(form).collect()
}

fn damaged(schema: &str, found: String) -> StoreError {
    StoreError::corrupt(format!("{schema}._dacapo_outbox"), found)
}

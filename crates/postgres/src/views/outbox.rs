//! The outbox of a view: effects that its handler emitted and that are still to be made.
//!
//! `number` gives the order in which they were emitted, which within a stream is the order of its events. Only the
//! first of each stream has a time at which it is due; the next one gets it when that one goes or is set aside. Anyone who emits and
//! anyone who settles take turns, until their commit: otherwise one would leave an effect without a time after another
//! that the other is taking away, and it would never be due.

use std::time::Duration;

use dacapo_model::{
    EffectLetter, EffectOutcome, EffectsClaim, NewEffect, PendingEffect, Position, StreamName, Timestamp, Wish,
};
use dacapo_store::view_form::{EffectForm, at, number};
use dacapo_store::{Outbox, StoreError, WhichEffects, WhichLetters};
use sqlx::Row;
use sqlx::postgres::{PgArguments, PgRow};

use super::begun;
use super::rows::Sent;
use super::session::Session;
use super::tokens::storable;
use super::value::added;

/// The table and what finds things in it.
pub(super) const CREATE: &str = "
    CREATE TABLE _dacapo_outbox (number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, position bigint NOT NULL,
                                 ordinal bigint NOT NULL, segment bigint NOT NULL, stream text COLLATE \"C\" NOT NULL,
                                 name text NOT NULL, payload bytea NOT NULL, attempts bigint NOT NULL, due bigint,
                                 error text, aside bigint, UNIQUE (position, ordinal));
    CREATE INDEX _dacapo_outbox_stream ON _dacapo_outbox (stream, number);
    CREATE INDEX _dacapo_outbox_due ON _dacapo_outbox (due) WHERE due IS NOT NULL;
    CREATE TABLE _dacapo_unspoken (position bigint PRIMARY KEY, segment bigint NOT NULL);";

const COLUMNS: &str = "number, position, ordinal, segment, stream, name, payload, attempts, due, error, aside";

/// Keeps others from emitting, beginning and settling until the transaction ends. A row, since a lock of the table would keep the
/// server from cleaning it.
pub(super) fn lock(schema: &str) -> String {
    format!("SELECT FROM {schema}._dacapo_view FOR UPDATE")
}

/// Puts effects into the outbox, in the open transaction. One that is there already stays as it is.
pub(super) async fn emit(session: &mut Session, schema: &str, effects: &[NewEffect]) -> Sent<()> {
    session.batch(lock(schema)).await?;
    let sql = format!(
        "INSERT INTO {schema}._dacapo_outbox (position, ordinal, segment, stream, name, payload, attempts, due)
         SELECT position, ordinal, segment, stream, name, payload, 0,
                CASE WHEN row_number() OVER (PARTITION BY stream ORDER BY at) > 1
                       OR EXISTS (SELECT FROM {schema}._dacapo_outbox AS kept
                                  WHERE kept.stream = emitted.stream AND kept.aside IS NULL)
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

/// Returns the effects that are due, the longest due first.
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

/// Returns the position of the first effect of a stream after `after`.
pub(super) async fn first(
    session: &mut Session,
    schema: &str,
    stream: &StreamName,
    after: Position,
) -> Sent<Option<Position>> {
    let sql = format!(
        "SELECT position FROM {schema}._dacapo_outbox WHERE stream = $1 AND aside IS NULL AND position > $2 \
         ORDER BY number LIMIT 1"
    );
    let mut arguments = PgArguments::default();
    added(&mut arguments, stream.as_str())?;
    added(&mut arguments, i64::try_from(after.get()).unwrap_or(i64::MAX))?;
    let rows = session.fetch(&sql, arguments).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    Ok(Some(at(row.try_get(0)?).map_err(|found| damaged(schema, found))?))
}

/// Returns the state of the outbox as a whole.
pub(super) async fn whole(session: &mut Session, schema: &str, most: usize) -> Sent<Outbox> {
    let sql =
        format!("SELECT count(*) FILTER (WHERE aside IS NULL), count(aside), min(due) FROM {schema}._dacapo_outbox");
    let rows = session.fetch(&sql, PgArguments::default()).await?;
    let (count, aside, next_due): (i64, i64, Option<i64>) =
        (rows[0].try_get(0)?, rows[0].try_get(1)?, rows[0].try_get(2)?);
    let sql = format!(
        "SELECT {COLUMNS} FROM {schema}._dacapo_outbox WHERE due IS NOT NULL AND attempts > 0 ORDER BY position LIMIT $1"
    );
    let mut arguments = PgArguments::default();
    added(&mut arguments, i64::try_from(most).unwrap_or(i64::MAX))?;
    let failing = pending(session.fetch(&sql, arguments).await?, schema)?;
    let (pending, aside) = (count.unsigned_abs(), aside.unsigned_abs());
    Ok(Outbox { pending, aside, next_due: next_due.map(Timestamp::from_micros), failing })
}

/// Records the results of tries, in the open transaction, of those effects that the claim may settle.
pub(super) async fn settle(
    session: &mut Session,
    schema: &str,
    claim: EffectsClaim,
    settled: &[(u64, EffectOutcome)],
) -> Sent<()> {
    session.batch(lock(schema)).await?;
    let numbers = begun::ends(session, schema, claim, settled).await?;
    for (place, settled) in settled.iter().filter(|(place, _)| numbers.contains(place)) {
        let mut arguments = PgArguments::default();
        added(&mut arguments, i64::try_from(*place).unwrap_or(i64::MAX))?;
        match settled {
            EffectOutcome::Failed { error, due } => {
                let sql = format!(
                    "UPDATE {schema}._dacapo_outbox SET attempts = attempts + 1, error = $2, due = $3
                     WHERE number = $1 AND due IS NOT NULL"
                );
                added(&mut arguments, storable(error))?;
                added(&mut arguments, due.micros())?;
                session.run(&sql, arguments).await?;
            }
            EffectOutcome::SetAside { error, at } => {
                let sql = format!(
                    "UPDATE {schema}._dacapo_outbox SET attempts = attempts + 1, error = $2, due = NULL, aside = $3
                     WHERE number = $1 AND due IS NOT NULL RETURNING stream"
                );
                added(&mut arguments, storable(error))?;
                added(&mut arguments, at.micros())?;
                let rows = session.fetch(&sql, arguments).await?;
                next(session, schema, rows.first()).await?;
            }
            EffectOutcome::Done => {
                let sql = format!("DELETE FROM {schema}._dacapo_outbox WHERE number = $1 RETURNING stream");
                let rows = session.fetch(&sql, arguments).await?;
                next(session, schema, rows.first()).await?;
            }
        }
    }
    Ok(())
}

/// The next effect of a stream is due. Told twice, the one before it is gone already.
async fn next(session: &mut Session, schema: &str, stream: Option<&PgRow>) -> Sent<()> {
    let Some(stream) = stream else { return Ok(()) };
    let sql = format!(
        "UPDATE {schema}._dacapo_outbox SET due = 0 WHERE due IS NULL AND number =
         (SELECT min(number) FROM {schema}._dacapo_outbox WHERE stream = $1 AND aside IS NULL)"
    );
    let mut arguments = PgArguments::default();
    added(&mut arguments, stream.try_get::<String, _>(0)?)?;
    session.run(&sql, arguments).await?;
    Ok(())
}

/// Returns the effects with a number above `after`, in order: those tried without success, or all.
pub(super) async fn letters(
    session: &mut Session,
    schema: &str,
    after: u64,
    most: usize,
    untried: bool,
) -> Sent<Vec<EffectLetter>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM {schema}._dacapo_outbox WHERE number > $1 AND (attempts > 0 OR $2) ORDER BY number LIMIT $3"
    );
    let mut arguments = PgArguments::default();
    added(&mut arguments, i64::try_from(after).unwrap_or(i64::MAX))?;
    added(&mut arguments, untried)?;
    added(&mut arguments, i64::try_from(most).unwrap_or(i64::MAX))?;
    let rows = session.fetch(&sql, arguments).await?;
    let letter = |row: PgRow| -> Sent<EffectLetter> {
        let form = form(&row)?;
        Ok(form.letter().map_err(|found| damaged(schema, found))?)
    };
    rows.into_iter().map(letter).collect()
}

/// Lets effects be tried at once, or takes them away, and puts the turns of their streams right, in the open transaction.
pub(super) async fn decide(session: &mut Session, schema: &str, which: &WhichEffects, wish: Wish) -> Sent<u64> {
    session.batch(lock(schema)).await?;
    let WhichEffects { which, through, untried } = which;
    let mut arguments = PgArguments::default();
    added(&mut arguments, number(*through))?;
    added(&mut arguments, *untried)?;
    let of = match which {
        WhichLetters::All => "",
        WhichLetters::One(position) => {
            added(&mut arguments, number(*position))?;
            "AND position = $3"
        }
        WhichLetters::Stream(stream) => {
            added(&mut arguments, stream.as_str())?;
            "AND stream = $3"
        }
    };
    let outbox = format!("{schema}._dacapo_outbox");
    let act = match wish {
        Wish::Retry => format!(
            "UPDATE {outbox} SET due = 0, attempts = CASE WHEN aside IS NULL THEN attempts ELSE 0 END, aside = NULL"
        ),
        Wish::Drop => format!("DELETE FROM {outbox}"),
    };
    let sql = format!("{act} WHERE position <= $1 AND (attempts > 0 OR $2) {of}");
    let decided = session.run(&sql, arguments).await?.1;
    let before = format!(
        "EXISTS (SELECT FROM {outbox} AS before WHERE before.stream = it.stream AND before.aside IS NULL
                 AND before.number < it.number)"
    );
    session
        .batch(format!(
            "UPDATE {outbox} AS it SET due = NULL WHERE it.due IS NOT NULL AND {before};
             UPDATE {outbox} AS it SET due = 0 WHERE it.due IS NULL AND it.aside IS NULL AND NOT {before}"
        ))
        .await?;
    Ok(decided)
}

fn pending(rows: Vec<PgRow>, schema: &str) -> Sent<Vec<PendingEffect>> {
    let pending = |row: PgRow| -> Sent<PendingEffect> {
        let form = form(&row)?;
        Ok(form.pending().map_err(|found| damaged(schema, found))?)
    };
    rows.into_iter().map(pending).collect()
}

fn form(row: &PgRow) -> Sent<EffectForm> {
    Ok(EffectForm {
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
        aside: row.try_get(10)?,
    })
}

pub(super) fn damaged(schema: &str, found: String) -> StoreError {
    StoreError::corrupt(format!("{schema}._dacapo_outbox"), found)
}

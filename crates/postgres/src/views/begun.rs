//! Who may make the effects of a view, and which of them are begun: the fence of effects (I-9).
//!
//! A view of an earlier build has none of these tables. The first claim makes them, and a build that does not know them
//! goes on beside them. Whoever claims, begins and settles take turns, by the lock of the outbox.

use std::collections::{HashMap, HashSet};

use dacapo_model::{BegunEffect, EffectsClaim, Epoch, MemberId, Settled};
use dacapo_store::view_form::{self, epoch_number};
use sqlx::Row;
use sqlx::postgres::PgArguments;

use super::outbox::{damaged, lock};
use super::rows::Sent;
use super::session::Session;
use super::value::added;

/// The tables, unless they are there. Numbers of effects are never given again.
pub(super) fn create(schema: &str) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {schema}._dacapo_acting (one boolean PRIMARY KEY DEFAULT true CHECK (one),
                                                             epoch bigint NOT NULL, owner bytea);
         CREATE TABLE IF NOT EXISTS {schema}._dacapo_begun (number bigint PRIMARY KEY, epoch bigint NOT NULL);"
    )
}

/// Who has the right to make the effects.
pub(super) async fn claim(session: &mut Session, schema: &str) -> Sent<EffectsClaim> {
    let mut arguments = PgArguments::default();
    added(&mut arguments, schema.to_owned())?;
    let there = "SELECT FROM pg_class WHERE relname = '_dacapo_acting' AND relnamespace = to_regnamespace($1)";
    if session.fetch(there, arguments).await?.is_empty() {
        return Ok(EffectsClaim::default());
    }
    let sql = format!("SELECT epoch, owner FROM {schema}._dacapo_acting");
    let rows = session.fetch(&sql, PgArguments::default()).await?;
    let stored = rows.first().map(|row| Ok::<_, sqlx::Error>((row.try_get(0)?, row.try_get(1)?))).transpose()?;
    Ok(view_form::effects_claim(stored).map_err(|found| damaged(schema, found))?)
}

/// Gives the right to make the effects to a member or to nobody, if it is as it was seen, in the open transaction.
pub(super) async fn take(
    session: &mut Session,
    schema: &str,
    by: Option<MemberId>,
    seen: Epoch,
) -> Sent<Option<Epoch>> {
    session.batch(format!("{}; {}", lock(schema), create(schema))).await?;
    let sql = format!(
        "INSERT INTO {schema}._dacapo_acting AS stored (epoch, owner)
         SELECT $1, $2 WHERE $3 = 0 OR EXISTS (SELECT FROM {schema}._dacapo_acting)
         ON CONFLICT (one) DO UPDATE SET epoch = excluded.epoch, owner = excluded.owner WHERE stored.epoch = $3"
    );
    let mut arguments = PgArguments::default();
    added(&mut arguments, epoch_number(seen.next()))?;
    added(&mut arguments, by.map(|by| by.bytes().to_vec()))?;
    added(&mut arguments, epoch_number(seen))?;
    let taken = session.run(&sql, arguments).await?.1 > 0;
    let gone = format!(
        "DELETE FROM {schema}._dacapo_begun AS begun
         WHERE NOT EXISTS (SELECT FROM {schema}._dacapo_outbox AS kept WHERE kept.number = begun.number)"
    );
    session.batch(gone).await?;
    Ok(taken.then(|| seen.next()))
}

/// Records that effects are begun, if the right to make them is of this epoch, in the open transaction.
pub(super) async fn begin(
    session: &mut Session,
    schema: &str,
    asked: EffectsClaim,
    numbers: &[u64],
) -> Sent<Option<Vec<BegunEffect>>> {
    session.batch(lock(schema)).await?;
    if asked.owner.is_none() || claim(session, schema).await? != asked {
        return Ok(None);
    }
    let sql = format!(
        "WITH due AS (
             SELECT kept.number, begun.epoch AS before
             FROM {schema}._dacapo_outbox AS kept LEFT JOIN {schema}._dacapo_begun AS begun USING (number)
             WHERE kept.number = ANY ($1) AND kept.due IS NOT NULL
         ), marked AS (
             INSERT INTO {schema}._dacapo_begun (number, epoch) SELECT number, $2 FROM due
             ON CONFLICT (number) DO UPDATE SET epoch = excluded.epoch
         )
         SELECT number, before FROM due"
    );
    let mut arguments = PgArguments::default();
    added(&mut arguments, stored(numbers.iter()))?;
    added(&mut arguments, epoch_number(asked.epoch))?;
    let rows = session.fetch(&sql, arguments).await?;
    let found = rows.iter().map(|row| Ok::<_, sqlx::Error>((row.try_get(0)?, row.try_get(1)?)));
    let found: HashMap<i64, Option<i64>> = found.collect::<Result<_, sqlx::Error>>()?;
    let begun = numbers.iter().zip(stored(numbers.iter()));
    let begun = begun.filter_map(|(number, stored)| Some((*number, *found.get(&stored)?)));
    let begun = begun.map(|(number, before)| view_form::begun(number, before)).collect::<Result<Vec<_>, _>>();
    Ok(Some(begun.map_err(|found| damaged(schema, found))?))
}

/// Which of the effects that were tried under an epoch were begun under a later one. The others are begun no more.
pub(super) async fn later(
    session: &mut Session,
    schema: &str,
    epoch: Epoch,
    settled: &[(u64, Settled)],
) -> Sent<HashSet<u64>> {
    let numbers = stored(settled.iter().map(|(number, _)| number));
    let mut arguments = PgArguments::default();
    added(&mut arguments, numbers)?;
    added(&mut arguments, epoch_number(epoch))?;
    let ended = format!("DELETE FROM {schema}._dacapo_begun WHERE number = ANY ($1) AND epoch <= $2");
    session.run(&ended, arguments.clone()).await?;
    let later = format!("SELECT number FROM {schema}._dacapo_begun WHERE number = ANY ($1) AND epoch > $2");
    let rows = session.fetch(&later, arguments).await?;
    let number = |row: &sqlx::postgres::PgRow| row.try_get::<i64, _>(0).map(i64::unsigned_abs);
    Ok(rows.iter().map(number).collect::<Result<_, _>>()?)
}

/// The numbers of effects as they are stored.
fn stored<'a>(numbers: impl Iterator<Item = &'a u64>) -> Vec<i64> {
    numbers.map(|number| i64::try_from(*number).unwrap_or(i64::MAX)).collect()
}

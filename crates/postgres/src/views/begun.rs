//! Who may make the effects of a view, and which of them are begun: the fence of effects (I-9).
//!
//! A view of an earlier build has none of these tables. The first claim makes them, and a build that does not know them
//! continues beside them. Anyone who claims, begins and settles take turns, by the lock of the outbox.

use std::collections::{HashMap, HashSet};

use dacapo_model::{BegunEffect, EffectOutcome, EffectsClaim};
use dacapo_store::view_form::{self, epoch_number};
use sqlx::Row;
use sqlx::postgres::PgArguments;

use super::outbox::{damaged, lock};
use super::rows::Sent;
use super::session::Session;
use super::value::added;

/// Returns the tables, unless they are there. Numbers of effects are never given again.
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

/// Replaces the claim, if it is the one that was seen, in the open transaction.
pub(super) async fn replace(session: &mut Session, schema: &str, seen: EffectsClaim, next: EffectsClaim) -> Sent<bool> {
    session.batch(format!("{}; {}", lock(schema), create(schema))).await?;
    if claim(session, schema).await? != seen {
        return Ok(false);
    }
    let sql = format!(
        "INSERT INTO {schema}._dacapo_acting (epoch, owner) VALUES ($1, $2)
         ON CONFLICT (one) DO UPDATE SET epoch = excluded.epoch, owner = excluded.owner"
    );
    let mut arguments = PgArguments::default();
    added(&mut arguments, epoch_number(next.epoch))?;
    added(&mut arguments, next.owner.map(|owner| owner.bytes().to_vec()))?;
    session.run(&sql, arguments).await?;
    let gone = format!(
        "DELETE FROM {schema}._dacapo_begun AS begun
         WHERE NOT EXISTS (SELECT FROM {schema}._dacapo_outbox AS kept WHERE kept.number = begun.number)"
    );
    session.batch(gone).await?;
    Ok(true)
}

/// Records that effects are begun, if this is the claim of the view, in the open transaction.
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

/// Ends the tries of effects under a claim, in the open transaction. Returns the numbers of those that it may settle: all,
/// if it is the claim of the view, and otherwise those that were begun under it last.
pub(super) async fn ends(
    session: &mut Session,
    schema: &str,
    asked: EffectsClaim,
    settled: &[(u64, EffectOutcome)],
) -> Sent<HashSet<u64>> {
    let found = claim(session, schema).await?;
    if asked.owner.is_none() || found == EffectsClaim::default() {
        return Ok(HashSet::new());
    }
    let has_right = found == asked;
    let mut arguments = PgArguments::default();
    added(&mut arguments, stored(settled.iter().map(|(number, _)| number)))?;
    added(&mut arguments, epoch_number(asked.epoch))?;
    added(&mut arguments, has_right)?;
    let ended =
        format!("DELETE FROM {schema}._dacapo_begun WHERE number = ANY ($1) AND (epoch = $2 OR $3) RETURNING number");
    let rows = session.fetch(&ended, arguments).await?;
    if has_right {
        return Ok(settled.iter().map(|(number, _)| *number).collect());
    }
    let number = |row: &sqlx::postgres::PgRow| row.try_get::<i64, _>(0).map(i64::unsigned_abs);
    Ok(rows.iter().map(number).collect::<Result<_, _>>()?)
}

/// The numbers of effects as they are stored.
fn stored<'a>(numbers: impl Iterator<Item = &'a u64>) -> Vec<i64> {
    numbers.map(|number| i64::try_from(*number).unwrap_or(i64::MAX)).collect()
}

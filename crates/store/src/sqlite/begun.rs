//! The claim on the effects of a view, and the effects that were begun: the fence of effects (I-9).
//!
//! A view of an earlier build has none of these tables. The first claim creates them. A build that does not know them
//! can still use the view.

use dacapo_model::{BegunEffect, EffectsClaim, Epoch};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior};

use crate::error::StoreError;
use crate::sqlite::Db;
use crate::view_form::{self, epoch_number};

/// Creates the tables if they do not exist. The number of an effect is never used again.
pub(super) const CREATE: &str = "
    CREATE TABLE IF NOT EXISTS _dacapo_acting (one INTEGER PRIMARY KEY CHECK (one = 1), epoch INTEGER NOT NULL,
                                               owner BLOB) STRICT;
    CREATE TABLE IF NOT EXISTS _dacapo_begun (number INTEGER PRIMARY KEY, epoch INTEGER NOT NULL) STRICT;";

impl Db {
    /// Returns the claim on the effects of the view.
    pub(crate) fn effects_claim(&mut self) -> Result<EffectsClaim, StoreError> {
        let stored = self.tried("read who makes the effects", |connection| acting(connection))?;
        view_form::effects_claim(stored).map_err(|found| self.damaged(&found))
    }

    /// Replaces the claim, if it is the one that was seen.
    pub(crate) fn claim_effects(&mut self, seen: EffectsClaim, next: EffectsClaim) -> Result<bool, StoreError> {
        self.tried("claim the effects", |connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            transaction.execute_batch(CREATE)?;
            if acting(&transaction)?.unwrap_or_default() != stored_claim(seen) {
                return Ok(false);
            }
            let claim = "INSERT OR REPLACE INTO _dacapo_acting VALUES (1, ?1, ?2)";
            transaction.execute(claim, stored_claim(next))?;
            let gone = "DELETE FROM _dacapo_begun WHERE number NOT IN (SELECT number FROM _dacapo_outbox)";
            transaction.execute(gone, [])?;
            transaction.commit()?;
            Ok(true)
        })
    }

    /// Records that effects are begun, if this is the claim of the view.
    pub(crate) fn begin_effects(
        &mut self,
        claim: EffectsClaim,
        numbers: &[u64],
    ) -> Result<Option<Vec<BegunEffect>>, StoreError> {
        let begun = self.tried("record which effects are begun", |connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            if !has_right(&transaction, claim)? {
                return Ok(None);
            }
            let mut begun = vec![];
            for number in numbers {
                begun.extend(begin(&transaction, claim.epoch, *number)?);
            }
            transaction.commit()?;
            Ok(Some(begun))
        })?;
        let effect = |(number, before)| view_form::begun(number, before).map_err(|found| self.damaged(&found));
        begun.map(|begun| begun.into_iter().map(effect).collect()).transpose()
    }
}

/// Returns the number of an effect in its stored form.
pub(super) fn stored(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Returns true if the tables exist.
pub(super) fn is_there(connection: &Connection) -> rusqlite::Result<bool> {
    let there = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = '_dacapo_acting'";
    connection.prepare_cached(there)?.exists([])
}

/// Returns true if this is the claim of the view, and a member has it.
pub(super) fn has_right(connection: &Connection, claim: EffectsClaim) -> rusqlite::Result<bool> {
    Ok(claim.owner.is_some() && acting(connection)? == Some(stored_claim(claim)))
}

/// Ends the try of an effect if it was begun under this epoch, or under any epoch if `all` is set. Returns true if it
/// was.
pub(super) fn ends(connection: &Connection, epoch: Epoch, all: bool, number: i64) -> rusqlite::Result<bool> {
    let ended = "DELETE FROM _dacapo_begun WHERE number = ?1 AND (epoch = ?2 OR ?3)";
    Ok(connection.prepare_cached(ended)?.execute((number, epoch_number(epoch), all))? > 0)
}

/// Returns the effect with the epoch under which it was begun before; `None` if it must not be made any more.
fn begin(connection: &Connection, epoch: Epoch, number: u64) -> rusqlite::Result<Option<(u64, Option<i64>)>> {
    let due = "SELECT 1 FROM _dacapo_outbox WHERE number = ?1 AND due IS NOT NULL";
    let due: Option<i64> = connection.prepare_cached(due)?.query_row([stored(number)], |row| row.get(0)).optional()?;
    if due.is_none() {
        return Ok(None);
    }
    let before = begun_before(connection, stored(number))?;
    let begin = "INSERT OR REPLACE INTO _dacapo_begun VALUES (?1, ?2)";
    connection.prepare_cached(begin)?.execute((stored(number), epoch_number(epoch)))?;
    Ok(Some((number, before)))
}

fn begun_before(connection: &Connection, number: i64) -> rusqlite::Result<Option<i64>> {
    let sql = "SELECT epoch FROM _dacapo_begun WHERE number = ?1";
    connection.prepare_cached(sql)?.query_row([number], |row| row.get(0)).optional()
}

/// Returns the stored claim; `None` if no member has claimed yet.
fn acting(connection: &Connection) -> rusqlite::Result<Option<(i64, Option<Vec<u8>>)>> {
    if !is_there(connection)? {
        return Ok(None);
    }
    let sql = "SELECT epoch, owner FROM _dacapo_acting";
    connection.prepare_cached(sql)?.query_row([], |row| Ok((row.get(0)?, row.get(1)?))).optional()
}

/// Returns the stored form of a claim.
fn stored_claim(claim: EffectsClaim) -> (i64, Option<Vec<u8>>) {
    (epoch_number(claim.epoch), claim.owner.map(|owner| owner.bytes().to_vec()))
}

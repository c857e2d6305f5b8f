//! Who may make the effects of a view, and which of them are begun: the fence of effects (I-9).
//!
//! A view of an earlier build has none of these tables. The first claim makes them, and a build that does not know them
//! goes on beside them.

use dacapo_model::{BegunEffect, EffectsClaim, Epoch, MemberId};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior};

use crate::error::StoreError;
use crate::sqlite::Db;
use crate::view_form::{self, epoch_number};

/// The tables, unless they are there. Numbers of effects are never given again.
pub(super) const CREATE: &str = "
    CREATE TABLE IF NOT EXISTS _dacapo_acting (one INTEGER PRIMARY KEY CHECK (one = 1), epoch INTEGER NOT NULL,
                                               owner BLOB) STRICT;
    CREATE TABLE IF NOT EXISTS _dacapo_begun (number INTEGER PRIMARY KEY, epoch INTEGER NOT NULL) STRICT;";

impl Db {
    /// Who has the right to make the effects.
    pub(crate) fn effects_claim(&mut self) -> Result<EffectsClaim, StoreError> {
        let there = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = '_dacapo_acting'";
        let stored = self.tried("read who makes the effects", |connection| {
            let there: Option<i64> = connection.prepare_cached(there)?.query_row([], |row| row.get(0)).optional()?;
            if there.is_none() { Ok(None) } else { acting(connection) }
        })?;
        view_form::effects_claim(stored).map_err(|found| self.damaged(&found))
    }

    /// Gives the right to make the effects to a member or to nobody, if it is as it was seen.
    pub(crate) fn claim_effects(&mut self, by: Option<MemberId>, seen: Epoch) -> Result<Option<Epoch>, StoreError> {
        let (owner, seen_number) = (by.map(|by| by.bytes().to_vec()), epoch_number(seen));
        let claimed = self.tried("claim the effects", |connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            transaction.execute_batch(CREATE)?;
            if acting(&transaction)?.map_or(0, |(epoch, _)| epoch) != seen_number {
                return Ok(false);
            }
            let claim = "INSERT OR REPLACE INTO _dacapo_acting VALUES (1, ?1, ?2)";
            transaction.execute(claim, (epoch_number(seen.next()), owner))?;
            let gone = "DELETE FROM _dacapo_begun WHERE number NOT IN (SELECT number FROM _dacapo_outbox)";
            transaction.execute(gone, [])?;
            transaction.commit()?;
            Ok(true)
        })?;
        Ok(claimed.then(|| seen.next()))
    }

    /// Records that effects are begun, if the right to make them is of this epoch.
    pub(crate) fn begin_effects(
        &mut self,
        claim: EffectsClaim,
        numbers: &[u64],
    ) -> Result<Option<Vec<BegunEffect>>, StoreError> {
        let Some(owner) = claim.owner else { return Ok(None) };
        let (epoch, asked) = (claim.epoch, (epoch_number(claim.epoch), Some(owner.bytes().to_vec())));
        let begun = self.tried("record which effects are begun", |connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            if acting(&transaction)?.as_ref() != Some(&asked) {
                return Ok(None);
            }
            let mut begun = vec![];
            for number in numbers {
                begun.extend(begin(&transaction, epoch, *number)?);
            }
            transaction.commit()?;
            Ok(Some(begun))
        })?;
        let effect = |(number, before)| view_form::begun(number, before).map_err(|found| self.damaged(&found));
        begun.map(|begun| begun.into_iter().map(effect).collect()).transpose()
    }
}

/// The number of an effect as it is stored.
pub(super) fn stored(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Whether a try under this epoch may tell what became of an effect: nobody has begun it later. It is begun no more then.
pub(super) fn ends(connection: &Connection, epoch: Epoch, number: i64) -> rusqlite::Result<bool> {
    let before = begun_before(connection, number)?;
    let ends = before.is_none_or(|before| before <= epoch_number(epoch));
    if ends && before.is_some() {
        connection.prepare_cached("DELETE FROM _dacapo_begun WHERE number = ?1")?.execute([number])?;
    }
    Ok(ends)
}

/// The effect with the epoch under which it was begun before; `None` when it is not to be made any more.
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

fn acting(connection: &Connection) -> rusqlite::Result<Option<(i64, Option<Vec<u8>>)>> {
    let sql = "SELECT epoch, owner FROM _dacapo_acting";
    connection.prepare_cached(sql)?.query_row([], |row| Ok((row.get(0)?, row.get(1)?))).optional()
}

//! The outbox of a view: effects that its handler emitted and that are still to be made.
//!
//! `number` gives the order in which effects were emitted, which within a stream is the order of its events. Only the
//! first effect of each stream has a time at which it is due. The next one gets its time when the first one is gone. So
//! an index finds the effects that are due, even if many wait for one that fails. An effect that is set aside has no
//! such time, and no other effect waits for it.

use std::time::Duration;

use dacapo_model::{
    EffectLetter, EffectOutcome, EffectsClaim, NewEffect, PendingEffect, Position, Segment, StreamName, Timestamp, Wish,
};
use rusqlite::types::Value as SqlValue;
use rusqlite::{Connection, OptionalExtension, Row};

use crate::error::StoreError;
use crate::sqlite::{Db, begun};
use crate::view_form::{EffectForm, at, number};
use crate::views::{Outbox, WhichEffects, WhichLetters};

/// Creates the table and its indexes.
pub(super) const CREATE: &str = "
    CREATE TABLE _dacapo_outbox (number INTEGER PRIMARY KEY AUTOINCREMENT, position INTEGER NOT NULL,
                                 ordinal INTEGER NOT NULL, segment INTEGER NOT NULL, stream TEXT NOT NULL,
                                 name TEXT NOT NULL, payload BLOB NOT NULL, attempts INTEGER NOT NULL, due INTEGER,
                                 error TEXT, aside INTEGER, UNIQUE (position, ordinal)) STRICT;
    CREATE INDEX _dacapo_outbox_stream ON _dacapo_outbox (stream, number);
    CREATE TABLE _dacapo_unspoken (position INTEGER PRIMARY KEY, segment INTEGER NOT NULL) STRICT;
    CREATE INDEX _dacapo_outbox_due ON _dacapo_outbox (due) WHERE due IS NOT NULL;";

const COLUMNS: &str = "number, position, ordinal, segment, stream, name, payload, attempts, due, error, aside";

impl Db {
    /// Puts effects into the outbox, in the open transaction.
    pub(super) fn emit(&mut self, effects: &[NewEffect]) -> Result<(), StoreError> {
        if effects.is_empty() {
            return Ok(());
        }
        self.tried("keep effects", |connection| {
            let mut insert = connection.prepare_cached(
                "INSERT OR IGNORE INTO _dacapo_outbox (position, ordinal, segment, stream, name, payload, attempts, due)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0,
                         CASE WHEN EXISTS (SELECT 1 FROM _dacapo_outbox WHERE stream = ?4 AND aside IS NULL) THEN NULL ELSE 0 END)",
            )?;
            for NewEffect { position, ordinal, segment, stream, name, payload } in effects {
                insert.execute((number(*position), ordinal, segment.get(), stream.as_str(), name, payload))?;
            }
            Ok(())
        })
    }

    /// Records the events whose effects were never kept, in the open transaction, which has moved tokens and written
    /// letters already.
    pub(super) fn note_unspoken(&mut self, unspoken: &[(Segment, Position)]) -> Result<(), StoreError> {
        self.tried("record the events that were not applied", |connection| {
            for (segment, position) in unspoken {
                let insert = "INSERT OR IGNORE INTO _dacapo_unspoken VALUES (?1, ?2)";
                connection.prepare_cached(insert)?.execute((number(*position), segment.get()))?;
            }
            // Nearly always there is none.
            let any = "SELECT EXISTS (SELECT 1 FROM _dacapo_unspoken)";
            if connection.prepare_cached(any)?.query_row([], |row| row.get(0))? {
                let covered = "DELETE FROM _dacapo_unspoken WHERE position <=
                               (SELECT position FROM _dacapo_tokens WHERE segment = _dacapo_unspoken.segment)
                               AND position NOT IN (SELECT position FROM _dacapo_letters)";
                connection.prepare_cached(covered)?.execute([])?;
            }
            Ok(())
        })
    }

    /// Returns the events whose effects were never kept.
    pub(crate) fn unspoken(&mut self) -> Result<Vec<Position>, StoreError> {
        let sql = "SELECT position FROM _dacapo_unspoken ORDER BY position";
        let stored: Vec<i64> = self.tried("read the events that were not applied", |connection| {
            connection.prepare_cached(sql)?.query_map([], |row| row.get(0))?.collect()
        })?;
        let position = |stored| at(stored).map_err(|found| self.damaged(&found));
        stored.into_iter().map(position).collect()
    }

    /// Returns the effects that are due, the longest due first.
    pub(crate) fn effects_due(
        &mut self,
        now: Timestamp,
        longest: Duration,
        most: usize,
    ) -> Result<Vec<PendingEffect>, StoreError> {
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let sql = format!(
            "SELECT {COLUMNS} FROM _dacapo_outbox WHERE due IS NOT NULL AND (due <= ?1 OR due > ?2) ORDER BY due, number LIMIT ?3"
        );
        self.pending("read the effects that are due", &sql, (now.micros(), now.plus(longest).micros(), most))
    }

    /// Returns the position of the first effect of a stream after `after`.
    pub(crate) fn first_effect(
        &mut self,
        stream: &StreamName,
        after: Position,
    ) -> Result<Option<Position>, StoreError> {
        let sql = "SELECT position FROM _dacapo_outbox WHERE stream = ?1 AND aside IS NULL AND position > ?2 \
                   ORDER BY number LIMIT 1";
        let after = i64::try_from(after.get()).unwrap_or(i64::MAX);
        let found: Option<i64> = self.tried("look for an effect", |connection| {
            connection.prepare_cached(sql)?.query_row((stream.as_str(), after), |row| row.get(0)).optional()
        })?;
        found.map(|position| at(position).map_err(|found| self.damaged(&found))).transpose()
    }

    /// Returns the state of the outbox as a whole.
    pub(crate) fn outbox(&mut self, most: usize) -> Result<Outbox, StoreError> {
        let (pending, aside, next_due): (i64, i64, Option<i64>) = self.tried("look at the outbox", |connection| {
            let pending = connection.prepare_cached("SELECT count(*) FROM _dacapo_outbox WHERE aside IS NULL")?;
            let aside = connection.prepare_cached("SELECT count(*) FROM _dacapo_outbox WHERE aside IS NOT NULL")?;
            let next = "SELECT min(due) FROM _dacapo_outbox WHERE due IS NOT NULL";
            Ok((one(pending)?, one(aside)?, one(connection.prepare_cached(next)?)?))
        })?;
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let sql = format!(
            "SELECT {COLUMNS} FROM _dacapo_outbox WHERE due IS NOT NULL AND attempts > 0 ORDER BY position LIMIT ?1"
        );
        let failing = self.pending("read the effects that fail", &sql, [most])?;
        let (pending, aside) = (pending.unsigned_abs(), aside.unsigned_abs());
        Ok(Outbox { pending, aside, next_due: next_due.map(Timestamp::from_micros), failing })
    }

    /// Returns the effects with a number above `after`, in order: the failed ones, or all.
    pub(crate) fn effect_letters(
        &mut self,
        after: u64,
        most: usize,
        untried: bool,
    ) -> Result<Vec<EffectLetter>, StoreError> {
        let bounds = (i64::try_from(after).unwrap_or(i64::MAX), untried, i64::try_from(most).unwrap_or(i64::MAX));
        let sql = format!(
            "SELECT {COLUMNS} FROM _dacapo_outbox WHERE number > ?1 AND (attempts > 0 OR ?2) ORDER BY number LIMIT ?3"
        );
        let stored: Vec<EffectForm> = self.tried("read the failed effects", |connection| {
            connection.prepare_cached(&sql)?.query_map(bounds, form)?.collect()
        })?;
        stored.into_iter().map(|stored| stored.letter().map_err(|found| self.damaged(&found))).collect()
    }

    /// Retries effects at once, or removes them, and sets the first effect of each of their streams.
    pub(crate) fn decide_effects(&mut self, which: &WhichEffects, wish: Wish) -> Result<u64, StoreError> {
        let WhichEffects { which, through, untried } = which;
        let (of, named) = match which {
            WhichLetters::All => ("?3 IS NULL", SqlValue::Null),
            WhichLetters::One(position) => ("position = ?3", SqlValue::Integer(number(*position))),
            WhichLetters::Stream(stream) => ("stream = ?3", SqlValue::Text(stream.as_str().to_owned())),
        };
        let act = match wish {
            Wish::Retry => {
                "UPDATE _dacapo_outbox SET due = 0, attempts = CASE WHEN aside IS NULL THEN attempts ELSE 0 END, aside = NULL"
            }
            Wish::Drop => "DELETE FROM _dacapo_outbox",
        };
        let sql = format!("{act} WHERE position <= ?1 AND (attempts > 0 OR ?2) AND {of}");
        self.tried("decide about effects", |connection| {
            let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            let decided = transaction.execute(&sql, (number(*through), untried, named))?;
            let before = "EXISTS (SELECT 1 FROM _dacapo_outbox AS before WHERE before.stream = _dacapo_outbox.stream
                          AND before.aside IS NULL AND before.number < _dacapo_outbox.number)";
            let waits = format!("UPDATE _dacapo_outbox SET due = NULL WHERE due IS NOT NULL AND {before}");
            let first =
                format!("UPDATE _dacapo_outbox SET due = 0 WHERE due IS NULL AND aside IS NULL AND NOT {before}");
            transaction.execute(&waits, [])?;
            transaction.execute(&first, [])?;
            transaction.commit()?;
            Ok(decided as u64)
        })
    }

    /// Records the results of tries, of those effects that the claim may settle.
    pub(crate) fn settle_effects(
        &mut self,
        claim: EffectsClaim,
        settled: &[(u64, EffectOutcome)],
    ) -> Result<(), StoreError> {
        self.tried("record the results of effects", |connection| {
            let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            let has_right = begun::has_right(&transaction, claim)?;
            if !has_right && !begun::is_there(&transaction)? {
                return Ok(());
            }
            for (place, settled) in settled {
                let place = begun::stored(*place);
                if begun::ends(&transaction, claim.epoch, has_right, place)? || has_right {
                    settle(&transaction, place, settled)?;
                }
            }
            transaction.commit()
        })
    }

    fn pending(
        &mut self,
        tried: &str,
        sql: &str,
        parameters: impl rusqlite::Params,
    ) -> Result<Vec<PendingEffect>, StoreError> {
        let stored: Vec<EffectForm> =
            self.tried(tried, |connection| connection.prepare_cached(sql)?.query_map(parameters, form)?.collect())?;
        stored.into_iter().map(|stored| stored.pending().map_err(|found| self.damaged(&found))).collect()
    }

    pub(super) fn damaged(&self, found: &str) -> StoreError {
        StoreError::corrupt(format!("_dacapo_outbox of {}", self.place()), found)
    }
}

fn one<T: rusqlite::types::FromSql>(mut statement: rusqlite::CachedStatement<'_>) -> rusqlite::Result<T> {
    statement.query_row([], |row| row.get(0))
}

fn settle(connection: &Connection, place: i64, settled: &EffectOutcome) -> rusqlite::Result<()> {
    match settled {
        EffectOutcome::Failed { error, due } => {
            connection
                .prepare_cached(
                    "UPDATE _dacapo_outbox SET attempts = attempts + 1, error = ?2, due = ?3
                     WHERE number = ?1 AND due IS NOT NULL",
                )?
                .execute((place, error, due.micros()))?;
        }
        EffectOutcome::SetAside { error, at } => {
            let stream = connection
                .prepare_cached(
                    "UPDATE _dacapo_outbox SET attempts = attempts + 1, error = ?2, due = NULL, aside = ?3
                     WHERE number = ?1 AND due IS NOT NULL RETURNING stream",
                )?
                .query_row((place, error, at.micros()), |row| row.get(0))
                .optional()?;
            next(connection, stream)?;
        }
        EffectOutcome::Done => {
            let stream = connection
                .prepare_cached("DELETE FROM _dacapo_outbox WHERE number = ?1 RETURNING stream")?
                .query_row([place], |row| row.get(0))
                .optional()?;
            next(connection, stream)?;
        }
    }
    Ok(())
}

/// Makes the next effect of a stream due. If this is called twice for one effect, that effect is gone the second time.
fn next(connection: &Connection, stream: Option<String>) -> rusqlite::Result<()> {
    if let Some(stream) = stream {
        connection
            .prepare_cached(
                "UPDATE _dacapo_outbox SET due = 0 WHERE due IS NULL AND number =
                 (SELECT min(number) FROM _dacapo_outbox WHERE stream = ?1 AND aside IS NULL)",
            )?
            .execute([stream])?;
    }
    Ok(())
}

fn form(row: &Row<'_>) -> rusqlite::Result<EffectForm> {
    Ok(EffectForm {
        number: row.get(0)?,
        position: row.get(1)?,
        ordinal: row.get(2)?,
        segment: row.get(3)?,
        stream: row.get(4)?,
        name: row.get(5)?,
        payload: row.get(6)?,
        attempts: row.get(7)?,
        due: row.get(8)?,
        error: row.get(9)?,
        aside: row.get(10)?,
    })
}

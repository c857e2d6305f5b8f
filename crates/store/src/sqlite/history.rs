//! The history of the journal from which a view is made. Its marks show if another journal, or another history, takes
//! its place.

use dacapo_model::{JournalId, Mark};

use crate::error::StoreError;
use crate::sqlite::Db;
use crate::view_form::{digest, digest_number, number, position};
use crate::views::{NewMark, ViewHistory};

impl Db {
    /// Returns the stored history.
    pub(crate) fn history(&mut self) -> Result<Option<ViewHistory>, StoreError> {
        let rows: Vec<(i64, i64, Vec<u8>)> = self.tried("read the history of the view", |connection| {
            let sql = "SELECT position, digest, journal FROM _dacapo_history ORDER BY position";
            connection.prepare_cached(sql)?.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?.collect()
        })?;
        let wrong = |found: &str| StoreError::corrupt(format!("_dacapo_history of {}", self.place()), found);
        let mut kept = Vec::with_capacity(rows.len());
        for (at, number, journal) in rows {
            let journal =
                journal.as_slice().try_into().map_err(|_| wrong("the identity of the journal has not 16 bytes"))?;
            let position = position(at).ok_or_else(|| wrong("a position is negative"))?;
            kept.push((JournalId::from_bytes(journal), Mark { position, digest: digest(number) }));
        }
        Ok(ViewHistory::of(kept))
    }

    /// Stores a mark in the open transaction.
    pub(super) fn keep_mark(&mut self, new: &NewMark) -> Result<(), StoreError> {
        self.tried("keep a mark of the history", |connection| {
            let mut forget = connection.prepare_cached("DELETE FROM _dacapo_history WHERE position = ?1")?;
            for position in &new.forget {
                forget.execute([number(*position)])?;
            }
            let Mark { position, digest } = new.mark;
            connection.prepare_cached("INSERT OR IGNORE INTO _dacapo_history VALUES (?1, ?2, ?3)")?.execute((
                number(position),
                digest_number(digest),
                &new.journal.bytes()[..],
            ))?;
            Ok(())
        })
    }
}

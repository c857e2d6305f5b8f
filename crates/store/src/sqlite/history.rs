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
        let Some((.., journal)) = rows.last() else { return Ok(None) };
        let wrong = |found: &str| StoreError::corrupt(format!("_dacapo_history of {}", self.place()), found);
        let journal =
            journal.as_slice().try_into().map_err(|_| wrong("the identity of the journal has not 16 bytes"))?;
        let mark = |(at, number, _): &(i64, i64, _)| Some(Mark { position: position(*at)?, digest: digest(*number) });
        let marks = rows.iter().map(mark).collect::<Option<_>>().ok_or_else(|| wrong("a position is negative"))?;
        Ok(Some(ViewHistory { journal: JournalId::from_bytes(journal), marks }))
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

//! A view's records of events that its handler refuses: tries, dead letters and the decisions about them.

use dacapo_model::{Letter, Position, Refusal, Wish};
use rusqlite::Row;

use crate::error::StoreError;
use crate::sqlite::Db;
use crate::view_form::{LetterForm, RefusalForm, kind_form, number, wish_name};
use crate::views::{Commit, WhichLetters};

const REFUSALS: &str = "SELECT segment, position, attempts, error, since, due FROM _dacapo_refusals ORDER BY segment";
const LETTERS: &str = "SELECT position, segment, stream, event_type, kind, first, error, attempts, recorded, wish
                       FROM _dacapo_letters WHERE position > ?1 ORDER BY position LIMIT ?2";

impl Db {
    /// Writes the records of a commit other than rows and tokens, which were written before.
    pub(super) fn keep(&mut self, commit: &Commit) -> Result<(), StoreError> {
        self.emit(&commit.effects)?;
        commit.history.iter().try_for_each(|new| self.keep_mark(new))?;
        self.keep_refused(commit)?;
        self.note_unspoken(&commit.unspoken)
    }

    fn keep_refused(&mut self, commit: &Commit) -> Result<(), StoreError> {
        self.tried("record the refused events", |connection| {
            // Nearly always there is none. Then nothing is compared or written.
            let any = "SELECT EXISTS (SELECT 1 FROM _dacapo_refusals)";
            if connection.prepare_cached(any)?.query_row([], |row| row.get(0))? {
                let covered = "DELETE FROM _dacapo_refusals WHERE position <=
                               (SELECT position FROM _dacapo_tokens WHERE segment = _dacapo_refusals.segment)";
                connection.prepare_cached(covered)?.execute([])?;
            }
            for Refusal { segment, position, attempts, error, since, due } in &commit.refused {
                connection
                    .prepare_cached("INSERT OR REPLACE INTO _dacapo_refusals VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
                    .execute((segment.get(), number(*position), attempts, error, since.micros(), due.micros()))?;
            }
            for letter in &commit.letters {
                let (kind, first) = kind_form(letter.kind);
                connection
                    .prepare_cached(
                        // A processor that retried the event need not know that it was given up meanwhile.
                        "INSERT OR REPLACE INTO _dacapo_letters VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9,
                         CASE (SELECT wish FROM _dacapo_letters WHERE position = ?1) WHEN 'drop' THEN 'drop'
                         ELSE ?10 END)",
                    )?
                    .execute((
                        number(letter.position),
                        letter.segment.get(),
                        letter.stream.as_str(),
                        letter.event_type.as_str(),
                        kind,
                        first.map(number),
                        &letter.error,
                        letter.attempts,
                        letter.recorded.micros(),
                        letter.wish.map(wish_name),
                    ))?;
            }
            for settled in &commit.settled {
                let delete = "DELETE FROM _dacapo_letters WHERE position = ?1";
                connection.prepare_cached(delete)?.execute([number(*settled)])?;
            }
            Ok(())
        })
    }

    /// Returns the refusals, in the order of segments.
    pub(crate) fn refusals(&mut self) -> Result<Vec<Refusal>, StoreError> {
        let stored: Vec<RefusalForm> = self.tried("read the refusals", |connection| {
            connection.prepare_cached(REFUSALS)?.query_map([], refusal_form)?.collect()
        })?;
        let wrong = |found: String| StoreError::corrupt(format!("_dacapo_refusals of {}", self.place()), found);
        stored.into_iter().map(|stored| stored.refusal().map_err(wrong)).collect()
    }

    /// Returns the letters after `after`, in order, at most `most`.
    pub(crate) fn letters(&mut self, after: Position, most: usize) -> Result<Vec<Letter>, StoreError> {
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let stored: Vec<LetterForm> = self.tried("read the dead letters", |connection| {
            connection.prepare_cached(LETTERS)?.query_map((number(after), most), letter_form)?.collect()
        })?;
        let wrong = |found: String| StoreError::corrupt(format!("_dacapo_letters of {}", self.place()), found);
        stored.into_iter().map(|stored| stored.letter().map_err(wrong)).collect()
    }

    /// Records a decision about letters, and returns the number of letters.
    pub(crate) fn wish(&mut self, which: &WhichLetters, wish: Option<Wish>) -> Result<u64, StoreError> {
        let wish = wish.map(wish_name);
        let changed = self.tried("record the decision about dead letters", |connection| match which {
            WhichLetters::All => connection.execute("UPDATE _dacapo_letters SET wish = ?1", [wish]),
            WhichLetters::One(position) => connection
                .execute("UPDATE _dacapo_letters SET wish = ?1 WHERE position = ?2", (wish, number(*position))),
            WhichLetters::Stream(stream) => {
                connection.execute("UPDATE _dacapo_letters SET wish = ?1 WHERE stream = ?2", (wish, stream.as_str()))
            }
        })?;
        Ok(changed as u64)
    }
}

fn refusal_form(row: &Row<'_>) -> rusqlite::Result<RefusalForm> {
    Ok(RefusalForm {
        segment: row.get(0)?,
        position: row.get(1)?,
        attempts: row.get(2)?,
        error: row.get(3)?,
        since: row.get(4)?,
        due: row.get(5)?,
    })
}

fn letter_form(row: &Row<'_>) -> rusqlite::Result<LetterForm> {
    Ok(LetterForm {
        position: row.get(0)?,
        segment: row.get(1)?,
        stream: row.get(2)?,
        event_type: row.get(3)?,
        kind: row.get(4)?,
        first: row.get(5)?,
        error: row.get(6)?,
        attempts: row.get(7)?,
        recorded: row.get(8)?,
        wish: row.get(9)?,
    })
}

//! What a view keeps of events that its handler refuses: tries, dead letters and what shall be done with those.

use dacapo_model::{EventType, Letter, LetterKind, Position, Refusal, StreamName, Timestamp, Wish};
use rusqlite::Row;

use crate::error::StoreError;
use crate::sqlite::Db;
use crate::sqlite::tokens::{number, segment};
use crate::views::{Commit, WhichLetters};

const REFUSALS: &str = "SELECT segment, position, attempts, error, since, due FROM _dacapo_refusals ORDER BY segment";
const LETTERS: &str = "SELECT position, segment, stream, event_type, kind, first, error, attempts, recorded, wish
                       FROM _dacapo_letters WHERE position > ?1 ORDER BY position LIMIT ?2";

impl Db {
    /// Writes what a commit keeps beside rows and tokens, which have moved already.
    pub(super) fn keep(&mut self, commit: &Commit) -> Result<(), StoreError> {
        self.emit(&commit.effects)?;
        self.keep_refused(commit)?;
        self.note_unspoken(&commit.unspoken)
    }

    fn keep_refused(&mut self, commit: &Commit) -> Result<(), StoreError> {
        self.tried("keep what was refused", |connection| {
            // Nearly always there is none; then nothing is compared or written.
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
                        // Whoever tried the event again need not know that it was given up meanwhile.
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

    /// The refusals, in the order of segments.
    pub(crate) fn refusals(&mut self) -> Result<Vec<Refusal>, StoreError> {
        let place = self.place().to_owned();
        let wrong = |found: &str| StoreError::corrupt(format!("_dacapo_refusals of {place}"), found);
        let stored: Vec<(i64, i64, u32, String, i64, i64)> = self.tried("read the refusals", |connection| {
            let columns =
                |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?));
            connection.prepare_cached(REFUSALS)?.query_map([], columns)?.collect()
        })?;
        let refusal = |(number, position, attempts, error, since, due)| {
            Ok(Refusal {
                segment: segment(number).ok_or_else(|| wrong("a segment is out of range"))?,
                position: at(position).ok_or_else(|| wrong("a position is out of range"))?,
                attempts,
                error,
                since: Timestamp::from_micros(since),
                due: Timestamp::from_micros(due),
            })
        };
        stored.into_iter().map(refusal).collect()
    }

    /// The letters behind `after`, in order, at most `most`.
    pub(crate) fn letters(&mut self, after: Position, most: usize) -> Result<Vec<Letter>, StoreError> {
        let place = self.place().to_owned();
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let stored: Vec<Stored> = self.tried("read the dead letters", |connection| {
            connection.prepare_cached(LETTERS)?.query_map((number(after), most), Stored::of)?.collect()
        })?;
        let letter = |stored: Stored| {
            let wrong = |found| StoreError::corrupt(format!("_dacapo_letters of {place}"), found);
            stored.letter().map_err(wrong)
        };
        stored.into_iter().map(letter).collect()
    }

    /// Records a wish for letters, and returns how many there are.
    pub(crate) fn wish(&mut self, which: &WhichLetters, wish: Option<Wish>) -> Result<u64, StoreError> {
        let wish = wish.map(wish_name);
        let changed = self.tried("record what shall be done with dead letters", |connection| match which {
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

/// A row of the table of letters.
struct Stored {
    position: i64,
    segment: i64,
    stream: String,
    event_type: String,
    kind: String,
    first: Option<i64>,
    error: String,
    attempts: u32,
    recorded: i64,
    wish: Option<String>,
}

impl Stored {
    fn of(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
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

    fn letter(self) -> Result<Letter, String> {
        let position = at(self.position).ok_or("a position is out of range")?;
        let kind = match (self.kind.as_str(), self.first) {
            ("refused", _) => LetterKind::Refused,
            ("skipped", _) => LetterKind::Skipped,
            ("behind", Some(first)) => LetterKind::Behind { first: at(first).ok_or("a position is out of range")? },
            (other, _) => return Err(format!("the kind {other:?} of the letter at {position} is not known")),
        };
        let wish = match self.wish.as_deref() {
            None => None,
            Some("retry") => Some(Wish::Retry),
            Some("drop") => Some(Wish::Drop),
            Some(other) => return Err(format!("the wish {other:?} for the letter at {position} is not known")),
        };
        Ok(Letter {
            position,
            segment: segment(self.segment).ok_or("a segment is out of range")?,
            stream: StreamName::new(&self.stream).map_err(|invalid| invalid.to_string())?,
            event_type: EventType::new(&self.event_type).map_err(|invalid| invalid.to_string())?,
            kind,
            error: self.error,
            attempts: self.attempts,
            recorded: Timestamp::from_micros(self.recorded),
            wish,
        })
    }
}

fn at(number: i64) -> Option<Position> {
    u64::try_from(number).ok().map(Position::new)
}

fn kind_form(kind: LetterKind) -> (&'static str, Option<Position>) {
    match kind {
        LetterKind::Refused => ("refused", None),
        LetterKind::Behind { first } => ("behind", Some(first)),
        LetterKind::Skipped => ("skipped", None),
    }
}

fn wish_name(wish: Wish) -> &'static str {
    match wish {
        Wish::Retry => "retry",
        Wish::Drop => "drop",
    }
}

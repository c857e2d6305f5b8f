//! What a statement gave, and the checks that nothing of it is missing.

use dacapo_model::{EventId, Mark, Position, Revision, Timestamp};
use dacapo_store::record::{Content, Place};
use dacapo_store::{EventBatch, EventBatchBuilder, StoreError};
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use crate::journal::copied::{Columns, damaged};

/// The number of columns that an event is read in, its position aside.
pub(super) const COLUMNS: usize = 8;
/// Microseconds from 1970 to 2000, where PostgreSQL's times begin.
const EPOCH_MICROS: i64 = 946_684_800_000_000;

/// What a statement gave.
pub(super) struct Page {
    pub(super) batch: EventBatchBuilder,
    /// The number of bytes that its records have.
    pub(super) bytes: usize,
    /// The position of the last event.
    pub(super) last: Position,
    /// True if there is no more of what was asked for.
    pub(super) whole: bool,
    /// True if rows came, if only an empty one.
    pub(super) answered: bool,
}

impl Default for Page {
    fn default() -> Self {
        Self { batch: EventBatchBuilder::default(), bytes: 0, last: Position::START, whole: true, answered: false }
    }
}

impl Page {
    /// Returns the position of the next event, if all after `after` are here.
    pub(super) fn next(&self, after: Position) -> Position {
        after.plus(self.batch.len() as u64 + 1)
    }

    pub(super) fn push(&mut self, position: Position, columns: &Columns<'_, COLUMNS>) -> Result<(), sqlx::Error> {
        let [recorded, revision, flags, id, stream, event_type, extra, payload] = *columns;
        let Some(payload) = payload else {
            self.whole = false;
            return Ok(());
        };
        let place = Place {
            stream: text(stream)?,
            position,
            revision: Revision::new(number(revision)?.cast_unsigned()),
            recorded: Timestamp::from_micros(number(recorded)?.saturating_add(EPOCH_MICROS)),
            flags: i16::from_be_bytes(fixed(flags)?) as u8,
        };
        let id = EventId::from_bytes(fixed(id)?);
        let content = Content { id, event_type: text(event_type)?, extra: there(extra)?, payload };
        self.bytes += self.batch.push_content(place, content);
        self.last = position;
        Ok(())
    }

    /// Adds what comes after.
    pub(super) fn append(&mut self, rest: &Self) {
        self.batch.append(&rest.batch);
        self.bytes += rest.bytes;
        self.last = self.last.max(rest.last);
        self.whole &= rest.whole;
    }

    /// An event of which nothing else is known.
    pub(super) fn push_place(&mut self, position: Position, stream: &str, event_type: &str) {
        let (revision, recorded) = (Revision::START, Timestamp::from_micros(0));
        let place = Place { stream, position, revision, recorded, flags: 0 };
        let id = EventId::from_bytes([0; 16]);
        self.batch.push_content(place, Content { id, event_type, extra: &[], payload: &[] });
        self.last = position;
    }

    /// Returns the batch, which covers `to` if it has all that there is through there.
    pub(super) fn finish(self, to: Position) -> EventBatch {
        self.batch.finish(if self.whole { to } else { self.last })
    }
}

// I-1
/// Nothing may be missing among all events after `after`, through `to` if there is no more.
pub(super) fn dense(page: &Page, after: Position, to: Position) -> Result<(), StoreError> {
    let last = after.plus(page.batch.len() as u64);
    if page.last == last && (!page.whole || last == to) {
        return Ok(());
    }
    Err(missing(after, to))
}

// I-1
/// Of a choice a page is told apart from one of which positions are not there.
pub(super) fn answered(page: &Page, after: Position, to: Position) -> Result<(), StoreError> {
    if page.answered { Ok(()) } else { Err(missing(after, to)) }
}

/// A mark as the database has it.
pub(crate) fn mark(position: Position, digest: &[u8]) -> Result<Mark, sqlx::Error> {
    match digest {
        [] if position == Position::START => Ok(Mark::START),
        _ => {
            let digest = digest.try_into().map_err(|_| damaged("the digest at the end of a group has not 8 bytes"))?;
            Ok(Mark { position, digest: u64::from_be_bytes(digest) })
        }
    }
}

/// Returns the error about events that are not all there.
pub(crate) fn missing(after: Position, to: Position) -> StoreError {
    let found = format!(
        "events between {after} and {to} are missing though they were there: it was replaced by a server or a backup \
         that lacks them; restore them"
    );
    StoreError::corrupt("the journal in the database", found)
}

pub(super) fn position(row: &PgRow, index: usize) -> Result<Position, sqlx::Error> {
    Ok(Position::new(row.try_get::<i64, _>(index)?.cast_unsigned()))
}

fn there(column: Option<&[u8]>) -> Result<&[u8], sqlx::Error> {
    column.ok_or_else(|| damaged("a column is NULL that never is"))
}

fn fixed<const N: usize>(column: Option<&[u8]>) -> Result<[u8; N], sqlx::Error> {
    there(column)?.try_into().map_err(|_| damaged("a column is not of its type"))
}

pub(super) fn number(column: Option<&[u8]>) -> Result<i64, sqlx::Error> {
    Ok(i64::from_be_bytes(fixed(column)?))
}

pub(super) fn text(column: Option<&[u8]>) -> Result<&str, sqlx::Error> {
    std::str::from_utf8(there(column)?).map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

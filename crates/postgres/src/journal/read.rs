//! Reading.
//!
//! ```text
//!   a page of positions ─┬─ long ─▶ what is wanted of it is copied ─┬─▶ enough was wanted, or the head: done
//!                        │            │ it has too many bytes        └─▶ little was: the index of types tells where
//!                        │            ▼                              ▲   to look
//!                        └─ short ─▶ it is looked through row by row ─┘
//! ```
//!
//! Each answer is bounded in bytes by the server: a row that would exceed them comes without its payload, as the mark
//! that there is more. A copy has all of its rows, or none.

mod copy;
mod lent;
mod page;
mod sql;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dacapo_model::{EventId, JournalId, Mark, Position, Revision, StreamName, category_of};
use dacapo_store::record::HEADER_BYTES;
use dacapo_store::{EventBatch, Filter, Head, Limit, StoreError, StreamInfo};
use futures::TryStreamExt;
use sqlx::postgres::PgRow;
use sqlx::{Row as _, ValueRef as _};
use uuid::Uuid;

use crate::fault::fault;
use crate::history::History;
use crate::limits;
use crate::servers::Pool;
use lent::within;
use page::{COLUMNS, Page, answered, dense, position};
use sql::{COUNT, EVERYTHING, HEAD, LAST_OF_STREAM, MARK, PAGE, SPARSE, STREAM, STREAMS, Sql, int8, range, storable};

pub(super) use page::{mark, missing};

/// Returns the last position that is committed, of a journal that still has what was `seen`.
pub(super) async fn head(pool: &Pool, history: &History, seen: Position) -> Result<Position, StoreError> {
    let known = history.last();
    let sql = sqlx::query(HEAD).bind(int8(known.position.get()));
    let head = within(pool, limits::HEAD_TIME_MAX, "ask for the journal's head", async |connection| {
        let (mut head, mut last, mut same) = (Position::START, Mark::START, known == Mark::START);
        if let Some(row) = sql.fetch_optional(&mut *connection).await? {
            head = position(&row, 0)?;
            let digest: &[u8] = row.try_get(1)?;
            // Somebody took the end of a group away if there is none.
            if !digest.is_empty() {
                last = mark(head, digest)?;
            }
            same |= row.try_get::<Option<&[u8]>, _>(2)? == Some(&known.digest.to_be_bytes());
        }
        if head < seen || !same {
            history.check(connection, seen).await?;
        }
        Ok((head, last))
    });
    let (head, last) = head.await?;
    history.holds()?;
    history.learn(last);
    Ok(head)
}

/// Returns the identity of the journal.
pub(super) async fn id(pool: &Pool) -> Result<JournalId, StoreError> {
    let sql = sqlx::query_scalar("SELECT journal FROM sequencer");
    let id: Option<Uuid> = within(pool, limits::HEAD_TIME_MAX, "ask which journal it is", async |connection| {
        sql.fetch_optional(connection).await
    })
    .await?;
    let lost = || {
        let found = "its one row is gone, without which nobody may append: restore it from a backup of this journal";
        StoreError::corrupt("the table sequencer in the database", found)
    };
    Ok(JournalId::from_bytes(id.ok_or_else(lost)?.into_bytes()))
}

/// How many of the events after `after` and through `to` there are.
pub(super) async fn count(pool: &Pool, after: Position, to: Position) -> Result<u64, StoreError> {
    let sql = sqlx::query_scalar(COUNT).bind(int8(after.get())).bind(int8(to.get()));
    let count: i64 =
        within(pool, limits::SILENCE_TIME_MAX, "count events", async |connection| sql.fetch_one(connection).await)
            .await?;
    Ok(count.cast_unsigned())
}

pub(super) struct Reader {
    pool: Arc<Pool>,
    head: Arc<Head>,
    history: Arc<History>,
    /// The mean size of a record when last seen. The server looks at every row up to the limit of a read, so the limit
    /// is one that the bound in bytes lets through.
    record_bytes: AtomicUsize,
}

impl Reader {
    pub fn new(pool: Arc<Pool>, head: Arc<Head>, history: Arc<History>) -> Self {
        Self { pool, head, history, record_bytes: AtomicUsize::new(HEADER_BYTES) }
    }

    pub async fn close(&self) {
        self.pool.close().await;
    }

    pub async fn read(&self, after: Position, filter: &Filter, limit: Limit) -> Result<EventBatch, StoreError> {
        let head = self.head_for(after).await?;
        if after >= head {
            return Ok(EventBatch::empty(head));
        }
        let filter = &*storable(filter);
        let most = self.most(limit);
        let (page, to) = match self.read_whole(after, head, filter, limit).await? {
            Some(copied) => copied,
            None => self.look_through(after, head, filter, limit).await?,
        };
        let few = ((page.batch.len() * limits::SPARSE_RATIO) as u64) < to.since(after);
        if page.whole && to < head && few && filter.types.is_some() {
            let to = head.min(after.plus(limits::SPARSE_LOOK_EVENTS_MAX));
            let page = self.fetch(range(SPARSE, after, to, filter, most, limit), most).await?;
            answered(&page, after, to)?;
            let batch = page.finish(to);
            // I-1
            let counted = count(&self.pool, after, batch.through).await?;
            return if counted == batch.through.since(after) { Ok(batch) } else { Err(missing(after, batch.through)) };
        }
        Ok(page.finish(to))
    }

    /// Returns the head, as far as it is known, for a caller that has seen `after`. What this node knows of it may lag,
    /// so it asks the database before it refuses the caller.
    async fn head_for(&self, after: Position) -> Result<Position, StoreError> {
        if after > self.head.get() {
            let head = head(&self.pool, &self.history, self.head.get()).await?;
            self.head.advance(head);
            StoreError::check_head(after, head)?;
        }
        Ok(self.head.get())
    }

    /// Returns a page and its end, row by row.
    async fn look_through(
        &self,
        after: Position,
        head: Position,
        filter: &Filter,
        limit: Limit,
    ) -> Result<(Page, Position), StoreError> {
        let most = self.most(limit);
        let everything = *filter == Filter::everything();
        let look = if everything { most } else { most.max(limits::LOOK_EVENTS_MIN) };
        let to = head.min(after.plus(look as u64));
        let sql = if everything { EVERYTHING } else { PAGE };
        let page = self.fetch(range(sql, after, to, filter, most, limit), most).await?;
        match everything {
            true => dense(&page, after, to)?,
            false => answered(&page, after, to)?,
        }
        Ok((page, to))
    }

    pub async fn mark(&self, through: Position) -> Result<Mark, StoreError> {
        let sql = sqlx::query(MARK).bind(int8(through.get()));
        let found = within(&self.pool, limits::SILENCE_TIME_MAX, "look at the history", async |connection| {
            let row = sql.fetch_one(connection).await?;
            Ok((position(&row, 0)?, mark(position(&row, 1)?, row.try_get(2)?)?))
        });
        let (head, mark) = found.await?;
        StoreError::check_head(through, head)?;
        Ok(mark)
    }

    pub async fn read_stream(
        &self,
        stream: &StreamName,
        after: Revision,
        limit: Limit,
    ) -> Result<EventBatch, StoreError> {
        let head = self.head.get();
        let most = self.most(limit);
        let sql = sqlx::query(STREAM)
            .bind(int8(limit.bytes as u64))
            .bind(stream.as_str())
            .bind(int8(after.get()))
            .bind(int8(most as u64));
        let mut page = self.fetch(sql, most).await?;
        if page.batch.is_empty() && after > Revision::START {
            StoreError::check_stream(stream, after, self.stream_revision(stream).await?)?;
        }
        // The batch of a stream covers its last event, not what lies after that.
        page.whole &= page.batch.is_empty();
        // Another node's event may have been seen before the head was told of it.
        self.head.advance(page.last);
        let batch = page.finish(head);
        let mut next = after;
        for event in batch.iter() {
            next = next.next();
            if event.revision != next {
                let found = format!("the next event has the revision {}: restore those between", event.revision);
                return Err(StoreError::corrupt(format!("the event of {stream} with the revision {next}"), found));
            }
        }
        Ok(batch)
    }

    pub async fn stream_revision(&self, stream: &StreamName) -> Result<Revision, StoreError> {
        Ok(self.last_of(stream).await?.map_or(Revision::START, |info| info.revision))
    }

    pub async fn position_of(&self, id: EventId) -> Result<Option<Position>, StoreError> {
        let sql = sqlx::query("SELECT position FROM events WHERE id = $1").bind(Uuid::from_bytes(id.bytes()));
        let found = within(&self.pool, limits::SILENCE_TIME_MAX, "look for an event", async |connection| {
            sql.fetch_optional(connection).await?.map(|row| position(&row, 0)).transpose()
        });
        let found = found.await?;
        self.head.advance(found.unwrap_or(Position::START));
        Ok(found)
    }

    pub async fn streams(
        &self,
        category: Option<&str>,
        after: Option<&StreamName>,
        most: usize,
    ) -> Result<Vec<StreamInfo>, StoreError> {
        let mut found = Vec::new();
        // No category has a hyphen, and no name has what PostgreSQL has no text with.
        if most == 0 || category.is_some_and(|category| category.contains(['-', '\0'])) {
            return Ok(found);
        }
        // No name has a control character, so this is the first that may follow.
        let mut from = after.map(|after| format!("{after}\u{1}")).unwrap_or_default();
        let mut to = None;
        if let Some(category) = category {
            // The stream that is named like its category comes before the others, whose names have a hyphen there.
            let alone = StreamName::new(category).ok().filter(|alone| after.is_none_or(|after| after < alone));
            if let Some(alone) = alone {
                found.extend(self.last_of(&alone).await?.filter(|info| category_of(info.name.as_str()) == category));
            }
            from = from.max(format!("{category}-"));
            // The character that follows the hyphen.
            to = Some(format!("{category}."));
        }
        let sql = sqlx::query(STREAMS).bind(from).bind(to).bind(int8((most - found.len()) as u64));
        let rows = within(&self.pool, limits::SILENCE_TIME_MAX, "list the streams", async |connection| {
            sql.fetch_all(connection).await
        });
        for row in rows.await? {
            found.push(stream_info(&row)?);
        }
        Ok(found)
    }

    async fn last_of(&self, stream: &StreamName) -> Result<Option<StreamInfo>, StoreError> {
        let sql = sqlx::query(LAST_OF_STREAM).bind(stream.as_str());
        let row = within(&self.pool, limits::SILENCE_TIME_MAX, "look for a stream", async |connection| {
            sql.fetch_optional(connection).await
        });
        row.await?.map(|row| stream_info(&row)).transpose()
    }

    async fn fetch(&self, sql: Sql<'_>, most: usize) -> Result<Page, StoreError> {
        let page = within(&self.pool, limits::SILENCE_TIME_MAX, "read events", async |connection| {
            let mut page = Page::default();
            let mut rows = sql.fetch(connection);
            while let Some(row) = rows.try_next().await? {
                page.answered = true;
                if row.try_get_raw(0)?.is_null() {
                    continue;
                }
                let mut columns = [None; COLUMNS];
                for (index, column) in (1..).zip(&mut columns) {
                    let value = row.try_get_raw(index)?;
                    *column = (!value.is_null()).then(|| value.as_bytes()).transpose().map_err(sqlx::Error::Decode)?;
                }
                page.push(position(&row, 0)?, &columns)?;
            }
            Ok(page)
        });
        Ok(self.seen(page.await?, most))
    }

    fn seen(&self, mut page: Page, most: usize) -> Page {
        page.whole &= page.batch.len() < most;
        if let Some(mean) = page.bytes.checked_div(page.batch.len()) {
            self.record_bytes.store(mean, Ordering::Relaxed);
        }
        page
    }

    /// How many events to ask for.
    fn most(&self, limit: Limit) -> usize {
        let in_bytes = limit.bytes / self.record_bytes.load(Ordering::Relaxed) + 2;
        limit.events.clamp(1, dacapo_model::limits::READ_EVENTS_MAX).min(in_bytes)
    }
}

fn stream_info(row: &PgRow) -> Result<StreamInfo, StoreError> {
    let parts = || Ok((row.try_get(0)?, row.try_get::<i64, _>(1)?, position(row, 2)?));
    let (name, revision, last): (&str, i64, Position) = parts().map_err(|error| fault("list the streams", &error))?;
    let name =
        StreamName::new(name).map_err(|error| StoreError::corrupt("the journal in the database", error.to_string()))?;
    Ok(StreamInfo { name, revision: Revision::new(revision.cast_unsigned()), last })
}

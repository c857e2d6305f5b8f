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

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dacapo_model::{EventId, JournalId, Mark, Position, Revision, StreamName, Timestamp, category_of};
use dacapo_store::record::{Content, HEADER_BYTES, Place};
use dacapo_store::{EventBatch, EventBatchBuilder, Filter, Head, Limit, StoreError, StreamInfo, Streams};
use futures::TryStreamExt;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{PgConnection, Postgres, Row as _, ValueRef as _};
use uuid::Uuid;

use super::copied::{Columns, Copied, damaged};
use crate::fault::fault;
use crate::history::History;
use crate::limits;
use crate::quote::literal;
use crate::servers::Pool;

/// From so many positions on they are read by `COPY`.
const COPY_EVENTS_MIN: u64 = 1_000;
/// How many columns an event is read in, its position aside.
const COLUMNS: usize = 8;
/// Most events whose places are read at once, of which each has a few dozen bytes, and never a kilobyte.
const PLACES_MAX: u64 = 16_384;
/// Microseconds from 1970 to 2000, where PostgreSQL's times begin.
const EPOCH_MICROS: i64 = 946_684_800_000_000;

/// The statement that reads the rows of a choice in an order, within a bound in bytes.
macro_rules! bounded {
    (order $order:literal, $($choice:expr),+) => {
        concat!(
            "SELECT position, recorded, revision, flags, id, stream, type, extra, \
             CASE WHEN n = 1 OR through <= $1 THEN payload END FROM \
             (SELECT *, row_number() OVER w AS n, sum(size) OVER w AS through FROM (",
            $($choice),+, " ORDER BY ", $order, " LIMIT $4) AS chosen \
             WINDOW w AS (ORDER BY ", $order, " ROWS UNBOUNDED PRECEDING)) AS sized \
             WHERE n <= 2 OR through - size <= $1 ORDER BY ", $order
        )
    };
}

/// The same of positions of which none is missing: nothing at all comes if one is, and an empty row if nothing is chosen.
macro_rules! counted {
    ($through:literal, $count:literal, $($choice:expr),+) => {
        concat!(
            "SELECT read.* FROM (SELECT FROM events WHERE position > $2 AND position <= ", $through,
            " HAVING count(*) = ", $count, ") AS counted LEFT JOIN (",
            bounded!(order "position", $($choice),+),
            ") AS read ON true ORDER BY position"
        )
    };
}

/// The condition of a [`Filter`] on rows.
macro_rules! wanted {
    () => {
        " AND (NOT $5 OR stream < '$' OR stream >= '%') \
          AND ($6::text[] IS NULL OR split_part(stream, '-', 1) = ANY ($6))"
    };
}

/// Everything, bounded in the same way: since positions have no holes, the bytes through each event tell where.
const EVERYTHING: &str = "SELECT position, recorded, revision, flags, id, stream, type, extra, \
    CASE WHEN position = $2 + 1 OR total <= bound THEN payload END \
    FROM (SELECT $1 + coalesce((SELECT total FROM events WHERE position = $2), 0) AS bound) AS bounded CROSS JOIN events \
    WHERE position > $2 AND position <= $3 AND (position <= $2 + 2 OR total - size <= bound) ORDER BY position LIMIT $4";

/// The wanted ones among all positions of a page.
const PAGE: &str = counted!(
    "$3",
    "$3 - $2",
    "SELECT * FROM events WHERE position > $2 AND position <= $3 AND ($7::text[] IS NULL OR type = ANY ($7))",
    wanted!()
);

/// The wanted ones, wherever they are: of each type the next ones, of these the first. Only the first position is counted:
/// the others are once it is known how far it went ([`COUNT`]).
const SPARSE: &str = counted!(
    "$2 + 1",
    "1",
    "SELECT of_type.* FROM unnest($7::text[]) AS wanted (type) CROSS JOIN LATERAL (\
     SELECT * FROM events WHERE events.type = wanted.type AND position > $2 AND position <= $3",
    wanted!(),
    " ORDER BY position LIMIT $4) AS of_type"
);

/// How many events there are. Of what was vacuumed that is read off the index alone, ten times as fast as events are.
const COUNT: &str = "SELECT count(*) FROM events WHERE position > $1 AND position <= $2";

const STREAM: &str = bounded!(order "revision", "SELECT * FROM events WHERE stream = $2 AND revision > $3");

/// The streams from one name on and before another: for each the next one is looked for in the index.
const STREAMS: &str = "WITH RECURSIVE names AS (\
    (SELECT stream FROM events WHERE stream >= $1 AND ($2::text IS NULL OR stream < $2) ORDER BY stream LIMIT 1) \
    UNION ALL SELECT (SELECT e.stream FROM events e \
        WHERE e.stream > names.stream AND ($2::text IS NULL OR e.stream < $2) ORDER BY e.stream LIMIT 1) \
    FROM names WHERE names.stream IS NOT NULL) \
    SELECT names.stream, last.revision, last.position FROM names CROSS JOIN LATERAL (\
        SELECT revision, position FROM events e WHERE e.stream = names.stream ORDER BY revision DESC LIMIT 1) AS last \
    LIMIT $3";

/// Where the journal ends, and the last digest through a position.
const MARK: &str = "SELECT coalesce((SELECT max(position) FROM events), 0), coalesce(last.position, 0), \
    coalesce(last.digest, '') FROM (SELECT) AS one LEFT JOIN LATERAL (\
        SELECT position, digest FROM events WHERE position <= $1 AND digest <> '' ORDER BY position DESC LIMIT 1\
    ) AS last ON true";

/// Where the journal ends, its digest there, and that at another position.
const HEAD: &str = "SELECT position, digest, (SELECT digest FROM events WHERE position = $1) FROM events \
    ORDER BY position DESC LIMIT 1";

const LAST_OF_STREAM: &str =
    "SELECT stream, revision, position FROM events WHERE stream = $1 ORDER BY revision DESC LIMIT 1";

type Sql<'q> = Query<'q, Postgres, PgArguments>;

/// The last position that is committed, of a journal that still has what was `seen`.
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

/// The identity of the journal.
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

/// How many of the events behind `after` and through `to` there are.
pub(super) async fn count(pool: &Pool, after: Position, to: Position) -> Result<u64, StoreError> {
    let sql = sqlx::query_scalar(COUNT).bind(int8(after.get())).bind(int8(to.get()));
    let count: i64 =
        within(pool, limits::ANSWER_TIME_MAX, "count events", async |connection| sql.fetch_one(connection).await)
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

    /// The head, as far as it is known, for who has seen `after`. What this node knows of it may lag, so the database is
    /// asked before somebody is refused.
    async fn head_for(&self, after: Position) -> Result<Position, StoreError> {
        if after > self.head.get() {
            let head = head(&self.pool, &self.history, self.head.get()).await?;
            self.head.advance(head);
            StoreError::check_head(after, head)?;
        }
        Ok(self.head.get())
    }

    /// A page and its end, row by row.
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

    /// Positions, streams and types only.
    pub async fn read_places(&self, after: Position, limit: Limit) -> Result<EventBatch, StoreError> {
        let head = self.head_for(after).await?;
        if after >= head {
            return Ok(EventBatch::empty(head));
        }
        let to = after.plus(head.since(after).min(PLACES_MAX).min(limit.events.max(1) as u64));
        let sql = format!(
            "COPY (SELECT stream, type FROM events WHERE position > {} AND position <= {} ORDER BY position) \
             TO STDOUT (FORMAT binary)",
            int8(after.get()),
            int8(to.get())
        );
        let push = |page: &mut Page, [stream, event_type]: &Columns<'_, 2>| {
            let position = page.next(after);
            page.push_place(position, text(*stream)?, text(*event_type)?);
            Ok(())
        };
        let page = self.copied(&sql, push).await?;
        dense(&page, after, to)?;
        Ok(page.finish(to))
    }

    pub async fn mark(&self, through: Position) -> Result<Mark, StoreError> {
        let sql = sqlx::query(MARK).bind(int8(through.get()));
        let found = within(&self.pool, limits::ANSWER_TIME_MAX, "look at the history", async |connection| {
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
        // The batch of a stream covers its last event, not what lies behind that.
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
        let found = within(&self.pool, limits::ANSWER_TIME_MAX, "look for an event", async |connection| {
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
        let rows = within(&self.pool, limits::ANSWER_TIME_MAX, "list the streams", async |connection| {
            sql.fetch_all(connection).await
        });
        for row in rows.await? {
            found.push(stream_info(&row)?);
        }
        Ok(found)
    }

    async fn last_of(&self, stream: &StreamName) -> Result<Option<StreamInfo>, StoreError> {
        let sql = sqlx::query(LAST_OF_STREAM).bind(stream.as_str());
        let row = within(&self.pool, limits::ANSWER_TIME_MAX, "look for a stream", async |connection| {
            sql.fetch_optional(connection).await
        });
        row.await?.map(|row| stream_info(&row)).transpose()
    }

    /// A long page and its end, by `COPY`, which costs the driver half as much a row, and the server the time to plan it;
    /// `None` where it is short or has too many bytes.
    ///
    /// Two connections copy half of it each: a server sends 8 KiB at a time, and with one connection both ends sleep in
    /// turns. Neither keeps its connection for the other, so that readers wait for connections, but never for each other.
    async fn read_whole(
        &self,
        after: Position,
        head: Position,
        filter: &Filter,
        limit: Limit,
    ) -> Result<Option<(Page, Position)>, StoreError> {
        // Records may be a seventh larger than those before.
        let most = self.most(Limit { bytes: limit.bytes - limit.bytes / 8, ..limit });
        let to = head.min(after.plus(most as u64));
        let events = to.since(after);
        if events < COPY_EVENTS_MIN {
            return Ok(None);
        }
        let middle = after.plus(events / 2);
        let (page, bytes) = (Span { after, to }, limit.bytes);
        let (first, second) = tokio::try_join!(
            self.read_part(Span { after, to: middle }, page, filter, bytes),
            self.read_part(Span { after: middle, to }, page, filter, bytes)
        )?;
        // Otherwise it has too many bytes, or some are missing: who reads row by row tells which.
        let (Some(mut page), Some(rest)) = (first, second) else { return Ok(None) };
        page.append(&rest);
        Ok(Some((self.seen(page, usize::MAX), to)))
    }

    /// What is wanted of a part of a page; `None` if it is not all there, or the page has too many bytes.
    async fn read_part(
        &self,
        part: Span,
        page: Span,
        filter: &Filter,
        bytes: usize,
    ) -> Result<Option<Page>, StoreError> {
        let sql = copy(part, page, filter, bytes);
        let Span { after, to } = part;
        // I-1
        // Where as many come as there are positions, none is missing.
        if *filter == Filter::everything() {
            let push = |page: &mut Page, columns: &Columns<'_, COLUMNS>| page.push(page.next(after), columns);
            let page = self.copied(&sql, push).await?;
            return Ok((page.batch.len() as u64 == to.since(after)).then_some(page));
        }
        let mut whole = false;
        let push = |page: &mut Page, [position, columns @ ..]: &Columns<'_, { COLUMNS + 1 }>| {
            let position = Position::new(number(*position)?.cast_unsigned());
            whole |= position == to;
            let [.., stream, event_type, _, _] = *columns;
            // The last one may be there for its position only.
            match position < to || filter.picks(text(stream)?, text(event_type)?) {
                true => page.push(position, columns),
                false => Ok(()),
            }
        };
        let page = self.copied(&sql, push).await?;
        Ok(whole.then_some(page))
    }

    /// What a `COPY` gives, each row of which `push` adds.
    async fn copied<const N: usize>(
        &self,
        sql: &str,
        mut push: impl FnMut(&mut Page, &Columns<'_, N>) -> Result<(), sqlx::Error>,
    ) -> Result<Page, StoreError> {
        let page = within(&self.pool, limits::ANSWER_TIME_MAX, "read events", async |connection| {
            let (mut page, mut copied) = (Page::default(), Copied::default());
            let mut chunks = connection.copy_out_raw(sql).await?;
            while let Some(chunk) = chunks.try_next().await? {
                copied.rows(&chunk, |columns| push(&mut page, columns))?;
            }
            copied.end()?;
            Ok(page)
        });
        page.await
    }

    async fn fetch(&self, sql: Sql<'_>, most: usize) -> Result<Page, StoreError> {
        let page = within(&self.pool, limits::ANSWER_TIME_MAX, "read events", async |connection| {
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

/// The filter without names that nothing has because PostgreSQL has no text with them.
fn storable(filter: &Filter) -> Cow<'_, Filter> {
    let odd = |names: &[String]| names.iter().any(|name| name.contains('\0'));
    let categories = match &filter.streams {
        Streams::Categories(categories) => categories.as_slice(),
        Streams::User | Streams::All => &[],
    };
    if !odd(categories) && !filter.types.as_deref().is_some_and(odd) {
        return Cow::Borrowed(filter);
    }
    let mut filter = filter.clone();
    if let Streams::Categories(categories) = &mut filter.streams {
        categories.retain(|name| !name.contains('\0'));
    }
    if let Some(types) = &mut filter.types {
        types.retain(|name| !name.contains('\0'));
    }
    Cow::Owned(filter)
}

/// The positions behind one, through another.
#[derive(Clone, Copy)]
struct Span {
    after: Position,
    to: Position,
}

/// What a statement gave.
struct Page {
    batch: EventBatchBuilder,
    /// How many bytes its records have.
    bytes: usize,
    /// The position of the last event.
    last: Position,
    /// Whether there is no more of what was asked for.
    whole: bool,
    /// Whether rows came, if only an empty one.
    answered: bool,
}

impl Default for Page {
    fn default() -> Self {
        Self { batch: EventBatchBuilder::default(), bytes: 0, last: Position::START, whole: true, answered: false }
    }
}

impl Page {
    /// The position of the next event, if all behind `after` are here.
    fn next(&self, after: Position) -> Position {
        after.plus(self.batch.len() as u64 + 1)
    }

    fn push(&mut self, position: Position, columns: &Columns<'_, COLUMNS>) -> Result<(), sqlx::Error> {
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

    /// Adds what comes behind.
    fn append(&mut self, rest: &Self) {
        self.batch.append(&rest.batch);
        self.bytes += rest.bytes;
        self.last = self.last.max(rest.last);
        self.whole &= rest.whole;
    }

    /// An event of which nothing else is known.
    fn push_place(&mut self, position: Position, stream: &str, event_type: &str) {
        let (revision, recorded) = (Revision::START, Timestamp::from_micros(0));
        let place = Place { stream, position, revision, recorded, flags: 0 };
        let id = EventId::from_bytes([0; 16]);
        self.batch.push_content(place, Content { id, event_type, extra: &[], payload: &[] });
        self.last = position;
    }

    /// The batch, which covers `to` if it has all that there is through there.
    fn finish(self, to: Position) -> EventBatch {
        self.batch.finish(if self.whole { to } else { self.last })
    }
}

// I-1
/// Nothing may be missing among all events behind `after`, through `to` if there is no more.
fn dense(page: &Page, after: Position, to: Position) -> Result<(), StoreError> {
    let last = after.plus(page.batch.len() as u64);
    if page.last == last && (!page.whole || last == to) {
        return Ok(());
    }
    Err(missing(after, to))
}

// I-1
/// Of a choice a page is told apart from one of which positions are not there.
fn answered(page: &Page, after: Position, to: Position) -> Result<(), StoreError> {
    if page.answered { Ok(()) } else { Err(missing(after, to)) }
}

/// A mark as the database has it.
pub(super) fn mark(position: Position, digest: &[u8]) -> Result<Mark, sqlx::Error> {
    match digest {
        [] if position == Position::START => Ok(Mark::START),
        _ => {
            let digest = digest.try_into().map_err(|_| damaged("the digest at the end of a group has not 8 bytes"))?;
            Ok(Mark { position, digest: u64::from_be_bytes(digest) })
        }
    }
}

/// What is told of events that are not all there.
pub(super) fn missing(after: Position, to: Position) -> StoreError {
    let found = format!(
        "events between {after} and {to} are missing though they were there: it was replaced by a server or a backup \
         that lacks them; restore them"
    );
    StoreError::corrupt("the journal in the database", found)
}

fn range<'q>(
    sql: &'static str,
    after: Position,
    to: Position,
    filter: &'q Filter,
    most: usize,
    limit: Limit,
) -> Sql<'q> {
    let sql = sqlx::query(sql).bind(int8(limit.bytes as u64)).bind(int8(after.get())).bind(int8(to.get()));
    let sql = sql.bind(int8(most as u64));
    if *filter == Filter::everything() {
        return sql;
    }
    let categories = match &filter.streams {
        Streams::Categories(categories) => Some(categories.as_slice()),
        Streams::User | Streams::All => None,
    };
    sql.bind(filter.streams == Streams::User).bind(categories).bind(filter.types.as_deref())
}

/// A connection that is lent. It goes back to the pool after a whole answer, and is closed otherwise: what is left of an
/// answer would be taken for that of whoever comes next, who would miss events without a word (I-3). The driver reads
/// over what is left of rows, but not over what is left of a `COPY`.
struct Lent(Option<PoolConnection<Postgres>>);

impl Lent {
    #[expect(clippy::expect_used, reason = "it is lent until it is given back")]
    fn connection(&mut self) -> &mut PgConnection {
        self.0.as_mut().expect("it is lent until it is given back")
    }

    fn give_back(mut self) {
        self.0.take();
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            drop(connection.detach());
        }
    }
}

/// Does something on a connection, within a time after which the connection is given up.
async fn within<T>(
    pool: &Pool,
    time: Duration,
    tried: &str,
    act: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
) -> Result<T, StoreError> {
    let mut lent = Lent(Some(pool.acquire(tried).await?));
    match tokio::time::timeout(time, act(lent.connection())).await {
        Ok(Ok(done)) => {
            lent.give_back();
            Ok(done)
        }
        Ok(Err(error)) => Err(fault(tried, &error)),
        Err(_) => Err(StoreError::unavailable(tried, format!("the database does not answer within {time:?}"))),
    }
}

fn stream_info(row: &PgRow) -> Result<StreamInfo, StoreError> {
    let parts = || Ok((row.try_get(0)?, row.try_get::<i64, _>(1)?, position(row, 2)?));
    let (name, revision, last): (&str, i64, Position) = parts().map_err(|error| fault("list the streams", &error))?;
    let name =
        StreamName::new(name).map_err(|error| StoreError::corrupt("the journal in the database", error.to_string()))?;
    Ok(StreamInfo { name, revision: Revision::new(revision.cast_unsigned()), last })
}

fn position(row: &PgRow, index: usize) -> Result<Position, sqlx::Error> {
    Ok(Position::new(row.try_get::<i64, _>(index)?.cast_unsigned()))
}

fn there(column: Option<&[u8]>) -> Result<&[u8], sqlx::Error> {
    column.ok_or_else(|| damaged("a column is NULL that never is"))
}

fn fixed<const N: usize>(column: Option<&[u8]>) -> Result<[u8; N], sqlx::Error> {
    there(column)?.try_into().map_err(|_| damaged("a column is not of its type"))
}

fn number(column: Option<&[u8]>) -> Result<i64, sqlx::Error> {
    Ok(i64::from_be_bytes(fixed(column)?))
}

fn text(column: Option<&[u8]>) -> Result<&str, sqlx::Error> {
    std::str::from_utf8(there(column)?).map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

/// What is wanted of a part of a page, if the page has no more bytes than it may: bounded as a whole, since what the
/// server looks at row by row costs a fifth of the time. A `COPY` takes no parameters.
///
/// Of everything it has no positions: where as many rows come as there are positions, none is missing. Of a choice it has
/// them, and the last event of the part in any case, but only if as many are there as there are positions.
fn copy(part: Span, page: Span, filter: &Filter, bytes: usize) -> String {
    let list = |texts: &[String]| match texts {
        [] => "(NULL)".to_owned(),
        _ => format!("({})", texts.iter().map(|text| literal(text)).collect::<Vec<_>>().join(", ")),
    };
    let of_stream = match &filter.streams {
        Streams::User => Some("(stream < '$' OR stream >= '%')".to_owned()),
        Streams::Categories(categories) => Some(format!("split_part(stream, '-', 1) IN {}", list(categories))),
        Streams::All => None,
    };
    let of_type = filter.types.as_ref().map(|types| format!("type IN {}", list(types)));
    let wanted: Vec<String> = of_stream.into_iter().chain(of_type).collect();
    let (after, to) = (int8(part.after.get()), int8(part.to.get()));
    let (page_after, page_to, bytes) = (int8(page.after.get()), int8(page.to.get()), int8(bytes as u64));
    let (position, choice) = match wanted.as_slice() {
        [] => ("", String::new()),
        wanted => {
            let counted = format!("SELECT count(*) FROM events WHERE position > {after} AND position <= {to}");
            let all = format!("({counted}) = {}", int8(part.to.since(part.after)));
            ("position, ", format!("AND {all} AND (position = {to} OR {})", wanted.join(" AND ")))
        }
    };
    format!(
        "COPY (SELECT {position}recorded, revision, flags, id, stream, type, extra, payload FROM events \
         WHERE position > {after} AND position <= {to} AND (SELECT total FROM events WHERE position = {page_to}) \
             - coalesce((SELECT total FROM events WHERE position = {page_after}), 0) <= {bytes} {choice} \
         ORDER BY position) TO STDOUT (FORMAT binary)"
    )
}

/// A number as PostgreSQL has it; a place that no journal reaches stays one.
fn int8(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

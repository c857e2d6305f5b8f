//! Long pages, by `COPY`: two connections take half of each.

use dacapo_model::Position;
use dacapo_store::{EventBatch, Filter, Limit, StoreError};
use futures::TryStreamExt;

use super::Reader;
use super::lent::within;
use super::page::{COLUMNS, Page, dense, number, text};
use super::sql::{Choice, int8};
use crate::journal::copied::{Columns, Copied};
use crate::limits;

/// The positions after one, through another.
#[derive(Clone, Copy)]
struct Span {
    after: Position,
    to: Position,
}

impl Reader {
    /// Positions, streams and types only.
    pub async fn read_places(&self, after: Position, limit: Limit) -> Result<EventBatch, StoreError> {
        let head = self.head_for(after).await?;
        if after >= head {
            return Ok(EventBatch::empty(head));
        }
        let to = after.plus(head.since(after).min(limits::PLACES_READ_MAX).min(limit.events.max(1) as u64));
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

    /// Returns a long page and its end, by `COPY`, which costs the driver half as much a row, and the server the time
    /// to plan it; `None` where it is short or has too many bytes.
    ///
    /// Two connections copy half of it each: a server sends 8 KiB at a time, and with one connection both ends sleep in
    /// turns. Neither keeps its connection for the other, so that readers wait for connections, but never for each other.
    pub(super) async fn read_whole(
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
        if events < limits::COPY_EVENTS_MIN {
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
        let page = within(&self.pool, limits::SILENCE_TIME_MAX, "read events", async |connection| {
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
}

/// What is wanted of a part of a page, if the page has no more bytes than it may: bounded as a whole, since what the
/// server looks at row by row costs a fifth of the time. A `COPY` takes no parameters.
///
/// Of everything it has no positions: where as many rows come as there are positions, none is missing. Of a choice it has
/// them, and the last event of the part in any case, but only if as many are there as there are positions.
fn copy(part: Span, page: Span, filter: &Filter, bytes: usize) -> String {
    let (after, to) = (int8(part.after.get()), int8(part.to.get()));
    let (page_after, page_to, bytes) = (int8(page.after.get()), int8(page.to.get()), int8(bytes as u64));
    let (position, choice) = match Choice::of(filter).literal() {
        None => ("", String::new()),
        Some(wanted) => {
            let counted = format!("SELECT count(*) FROM events WHERE position > {after} AND position <= {to}");
            let all = format!("({counted}) = {}", int8(part.to.since(part.after)));
            ("position, ", format!("AND {all} AND (position = {to} OR {wanted})"))
        }
    };
    format!(
        "COPY (SELECT {position}recorded, revision, flags, id, stream, type, extra, payload FROM events \
         WHERE position > {after} AND position <= {to} AND (SELECT total FROM events WHERE position = {page_to}) \
             - coalesce((SELECT total FROM events WHERE position = {page_after}), 0) <= {bytes} {choice} \
         ORDER BY position) TO STDOUT (FORMAT binary)"
    )
}

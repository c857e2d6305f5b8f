//! The comparison of rows: two tables in the order of their keys, one page of each at a time.

use std::collections::VecDeque;

use dacapo_model::limits;
use dacapo_model::verify::FindingKind;
use dacapo_store::{StoreError, Table, Value, ViewReader, key_order};

use crate::code::{Pair, Tally, Words, show_key};

/// The rows of one table in one state, in the order of keys, with at most one page of them in memory.
struct Side<'a> {
    reader: &'a mut dyn ViewReader,
    table: Table,
    page: VecDeque<Vec<Value>>,
    after: Option<Vec<Value>>,
    ended: bool,
}

impl<'a> Side<'a> {
    fn new(reader: &'a mut dyn ViewReader, table: Table) -> Self {
        Self { reader, table, page: VecDeque::new(), after: None, ended: false }
    }

    /// Makes sure that the next row is in memory, if there is one.
    async fn fill(&mut self) -> Result<(), StoreError> {
        if self.page.is_empty() && !self.ended {
            let page = self.reader.page(&self.table, self.after.as_deref(), limits::PAGE_ROWS_MAX).await?;
            self.ended = page.is_empty();
            self.after = page.last().map(|row| self.table.key_of(row)).or(self.after.take());
            self.page = page.into();
        }
        Ok(())
    }

    fn key(&self) -> Option<Vec<Value>> {
        self.page.front().map(|row| self.table.key_of(row))
    }

    #[expect(clippy::expect_used, reason = "a key was found, so there is a row")]
    fn take(&mut self) -> Vec<Value> {
        self.page.pop_front().expect("a key was found, so there is a row")
    }
}

/// Compares two tables, whose readers see the same position. Reports to `progress` how many rows were compared.
pub(super) async fn compare(
    pair: &Pair,
    old: &mut dyn ViewReader,
    new: &mut dyn ViewReader,
    tally: &mut Tally,
    mut progress: impl FnMut(u64),
) -> Result<(), StoreError> {
    let (mut old, mut new) = (Side::new(old, pair.old), Side::new(new, pair.new));
    let words = |key: &[Value], old: Option<String>, new: Option<String>| Words {
        place: pair.new.name.to_owned(),
        key: Some(show_key(key)),
        old,
        new,
    };
    loop {
        old.fill().await?;
        new.fill().await?;
        let (kind, key) = match (old.key(), new.key()) {
            (None, None) => break,
            (Some(key), None) => (FindingKind::Missing, key),
            (None, Some(key)) => (FindingKind::Extra, key),
            (Some(was), Some(is)) => match key_order(&was, &is) {
                std::cmp::Ordering::Less => (FindingKind::Missing, was),
                std::cmp::Ordering::Greater => (FindingKind::Extra, is),
                std::cmp::Ordering::Equal => (FindingKind::Differs, is),
            },
        };
        let old_row = (kind != FindingKind::Extra).then(|| old.take());
        let new_row = (kind != FindingKind::Missing).then(|| new.take());
        if !pair.wants(&key) {
            continue;
        }
        tally.looked_at += 1;
        match (old_row, new_row) {
            (Some(was), Some(is)) => match pair.differ(&was, &is) {
                Ok(None) => {}
                Ok(Some((was, is))) => tally.wrong(kind, || words(&key, Some(was), Some(is))),
                Err(error) => tally.wrong(kind, || words(&key, Some(pair.show_old(&was)), Some(error.to_string()))),
            },
            (was, is) => {
                tally.wrong(kind, || words(&key, was.map(|row| pair.show_old(&row)), is.map(|row| pair.show_new(&row))))
            }
        }
        if tally.looked_at.is_multiple_of(limits::PAGE_ROWS_MAX as u64) {
            progress(tally.looked_at);
            // A table may have so many rows that other tasks must get a turn.
            tokio::task::yield_now().await;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;

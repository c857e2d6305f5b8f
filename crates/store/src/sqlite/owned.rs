//! Rows that name their segments, in a column of their own ([`SEGMENT`]).
//!
//! A table gets that column with the first row that is put for a segment, in the same transaction. So the column is
//! missing in a view for which no writer names segments, and in a view that an earlier build made. Rows of such a view
//! have no segment until they are written again. An earlier build that continues with a view names the columns that it
//! writes, so rows that it writes may lose their segment.

use std::sync::Arc;

use dacapo_model::{Segment, SegmentCount, limits};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension};

use crate::error::StoreError;
use crate::shape::SEGMENT;
use crate::sqlite::Db;
use crate::sqlite::rows::{Owned, RowSql, bind};
use crate::sqlite::schema::quoted;
use crate::table::{Table, Value};
use crate::views::OfSegment;

impl Db {
    /// Returns the SQL for rows of a table that name their segments, as they do from the open transaction on.
    pub(super) fn own(&mut self, table: &Table) -> Result<Arc<RowSql>, StoreError> {
        if let Some(sql) = self.owned(table)? {
            return Ok(sql);
        }
        let sql = format!("ALTER TABLE {} ADD COLUMN {SEGMENT} INTEGER", quoted(table.name));
        self.tried(&format!("add a column to table {}", table.name), |connection| connection.execute_batch(&sql))?;
        self.altered();
        Ok(self.make_sql(table, true))
    }

    /// Returns the SQL for rows of a table that name their segments; `None` if they do not.
    fn owned(&mut self, table: &Table) -> Result<Option<Arc<RowSql>>, StoreError> {
        let sql = self.sql(table);
        if sql.owned.is_some() {
            return Ok(Some(sql));
        }
        let has = self.tried("look at a table", |connection| has_segments(connection, "main", table))?;
        Ok(has.then(|| self.make_sql(table, true)))
    }

    /// Returns the row with this key, and its segment.
    pub(crate) fn load_of(&mut self, table: &Table, key: &[Value]) -> Result<Option<OfSegment>, StoreError> {
        let Some(sql) = self.owned(table)? else {
            return Ok(self.load(table, key)?.map(|row| (None, row)));
        };
        assert_eq!(key.len(), table.key.len(), "a key of table {} has a value a column", table.name);
        let what = || format!("read table {}", table.name);
        let failed = |error: rusqlite::Error| self.fault(&what(), &error);
        let Some(Owned { load, .. }) = &sql.owned else { return Ok(None) };
        let mut statement = self.raw().prepare_cached(load).map_err(failed)?;
        bind(&mut statement, 1, key).map_err(failed)?;
        let mut stored = statement.raw_query();
        let Some(row) = stored.next().map_err(failed)? else {
            self.well(what);
            return Ok(None);
        };
        let of = self.segment(table, row.get_ref(table.columns.len()).map_err(failed)?)?;
        let row = self.row(table, row)?;
        self.well(what);
        Ok(Some((of, row)))
    }

    /// Returns the segments of the rows with these keys, each with the place of its key.
    pub(crate) fn segments_of(
        &mut self,
        table: &Table,
        keys: &[Vec<Value>],
    ) -> Result<Vec<(usize, Segment)>, StoreError> {
        let Some(sql) = self.owned(table)? else { return Ok(vec![]) };
        let failed = |error: rusqlite::Error| self.fault(&format!("read table {}", table.name), &error);
        let Some(Owned { segment, .. }) = &sql.owned else { return Ok(vec![]) };
        let mut statement = self.raw().prepare_cached(segment).map_err(failed)?;
        let mut found = Vec::new();
        for (at, key) in keys.iter().enumerate() {
            assert_eq!(key.len(), table.key.len(), "a key of table {} has a value a column", table.name);
            bind(&mut statement, 1, key).map_err(failed)?;
            let mut stored = statement.raw_query();
            if let Some(row) = stored.next().map_err(failed)? {
                let of = self.segment(table, row.get_ref(0).map_err(failed)?)?;
                found.extend(of.map(|of| (at, of)));
            }
        }
        self.well(|| format!("read table {}", table.name));
        Ok(found)
    }

    /// Copies the segments of the rows from the attached view, in the open transaction.
    pub(crate) fn take_over_segments(&mut self, table: &Table) -> Result<(), StoreError> {
        let there = |connection: &mut Connection| has_segments(connection, "source", table);
        if !self.tried("look at a table of the view to copy", there)? {
            return Ok(());
        }
        self.own(table)?;
        let name = quoted(table.name);
        let same = table.key.iter().map(|place| quoted(table.columns[*place].name));
        let same = same.map(|column| format!("kept.{column} = {name}.{column}")).collect::<Vec<_>>().join(" AND ");
        let sql = format!("UPDATE main.{name} SET {SEGMENT} = kept.{SEGMENT} FROM source.{name} AS kept WHERE {same}");
        self.tried(&format!("write to table {}", table.name), |connection| connection.execute_batch(&sql))
    }

    #[expect(clippy::expect_used, reason = "the limit is a count")]
    fn segment(&self, table: &Table, stored: ValueRef<'_>) -> Result<Option<Segment>, StoreError> {
        let every = SegmentCount::new(limits::SEGMENTS_MAX).expect("the limit is a count");
        let number = match stored {
            ValueRef::Null => return Ok(None),
            ValueRef::Integer(number) => u16::try_from(number).ok(),
            _ => None,
        };
        let segment = number.and_then(|number| every.segment(number).ok());
        let place = || format!("column {}.{SEGMENT} of {}", table.name, self.place());
        segment.map(Some).ok_or_else(|| StoreError::corrupt(place(), "this is no segment"))
    }
}

fn has_segments(connection: &Connection, schema: &str, table: &Table) -> rusqlite::Result<bool> {
    let sql = "SELECT 1 FROM pragma_table_info(?1, ?2) WHERE name = ?3";
    let mut statement = connection.prepare_cached(sql)?;
    Ok(statement.query_row((table.name, schema, SEGMENT), |_| Ok(())).optional()?.is_some())
}

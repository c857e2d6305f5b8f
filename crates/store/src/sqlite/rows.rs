//! Rows: bulk writes, reads by key and by column, and plain SQL.

use dacapo_model::{Segment, limits};
use rusqlite::{Row, Statement};

use crate::error::StoreError;
use crate::shape::{RESERVED, SEGMENT};
use crate::sqlite::Db;
use crate::sqlite::schema::quoted;
use crate::sqlite::value::{Parameter, from_column, from_query};
use crate::table::{Index, Table, Value};
use crate::views::{FirstRows, OfSegment};

/// The parameters in one statement of a bulk write. Larger statements do not make a row cheaper.
const BLOCK_PARAMETERS: usize = 256;

/// The rows of a query with the names of its columns.
pub(crate) type Answer = (Vec<String>, Vec<Vec<Value>>);

/// The SQL that writes rows.
struct Put {
    one: String,
    block: String,
    block_rows: usize,
}

/// The SQL for rows that name their segments.
pub(super) struct Owned {
    pub(super) load: String,
    put: Put,
    pub(super) segment: String,
}

/// The SQL for one table, as text that is made once.
pub(super) struct RowSql {
    load: String,
    put: Put,
    /// `Some` if rows name their segments.
    pub(super) owned: Option<Owned>,
    delete: String,
    select: String,
    order: String,
    later: String,
}

impl RowSql {
    /// Returns the SQL for rows of `table`. `bare` is true if it has no index beside the key now, `owned` if its rows
    /// name their segments.
    pub(super) fn of(table: &Table, bare: bool, owned: bool) -> Self {
        let name = quoted(table.name);
        let list = |names: Vec<String>| names.join(", ");
        let column = |place: &usize| quoted(table.columns[*place].name);
        let columns = list(table.columns.iter().map(|column| quoted(column.name)).collect());
        let key = list(table.key.iter().map(column).collect());
        let by_key = table.key.iter().map(|place| format!("{} = ?", column(place))).collect::<Vec<_>>().join(" AND ");
        let of_segment = || Owned {
            load: format!("SELECT {columns}, {SEGMENT} FROM {name} WHERE {by_key}"),
            put: Put::of(table, bare, true),
            segment: format!("SELECT {SEGMENT} FROM {name} WHERE {by_key}"),
        };
        Self {
            load: format!("SELECT {columns} FROM {name} WHERE {by_key}"),
            put: Put::of(table, bare, false),
            owned: owned.then(of_segment),
            delete: format!("DELETE FROM {name} WHERE {by_key}"),
            select: format!("SELECT {columns} FROM {name}"),
            order: format!("ORDER BY {key} LIMIT ?"),
            later: format!("WHERE ({key}) > ({})", list(vec!["?".into(); table.key.len()])),
        }
    }
}

impl Put {
    fn of(table: &Table, bare: bool, owned: bool) -> Self {
        let name = quoted(table.name);
        let list = |names: Vec<String>| names.join(", ");
        let segment = || owned.then(|| SEGMENT.to_owned());
        let column = |place: usize| quoted(table.columns[place].name);
        let all = (0..table.columns.len()).map(column).chain(segment()).collect::<Vec<_>>();
        let key = list(table.key.iter().map(|place| column(*place)).collect());
        let others = (0..table.columns.len()).filter(|place| !table.key.contains(place)).map(column);
        let set = list(others.chain(segment()).map(|column| format!("{column} = excluded.{column}")).collect());
        let conflict = if set.is_empty() { "NOTHING".into() } else { format!("UPDATE SET {set}") };
        let values = format!("({})", list(vec!["?".into(); all.len()]));
        let block_rows = (BLOCK_PARAMETERS / all.len()).max(2);
        let columns = list(all);
        let put = |rows: usize| {
            let values = list(vec![values.clone(); rows]);
            // Without an index beside the key both statements have the same effect, and replacing takes two thirds of
            // the time. With an index, replacing would write the index even if its columns stay the same, and could
            // replace rows with other keys.
            match table.indexes.is_empty() || bare {
                true => format!("INSERT OR REPLACE INTO {name} ({columns}) VALUES {values}"),
                false => format!("INSERT INTO {name} ({columns}) VALUES {values} ON CONFLICT ({key}) DO {conflict}"),
            }
        };
        Self { one: put(1), block: put(block_rows), block_rows }
    }
}

impl Db {
    /// Returns the row with this key.
    pub(crate) fn load(&mut self, table: &Table, key: &[Value]) -> Result<Option<Vec<Value>>, StoreError> {
        assert_eq!(key.len(), table.key.len(), "a key of table {} has a value a column", table.name);
        let sql = self.sql(table);
        Ok(self.rows(table, &sql.load, key, usize::MAX)?.pop())
    }

    /// Returns the rows in which each of `columns` has the given value, ordered by key, at most `most`.
    pub(crate) fn select(
        &mut self,
        table: &Table,
        columns: &[(usize, Value)],
        most: usize,
    ) -> Result<Vec<Vec<Value>>, StoreError> {
        let sql = self.sql(table);
        let wanted = columns.iter().map(|(place, _)| format!("{} IS ?", quoted(table.columns[*place].name)));
        let wanted = wanted.collect::<Vec<_>>().join(" AND ");
        let filter = if wanted.is_empty() { String::new() } else { format!("WHERE {wanted}") };
        let most = Value::Integer(i64::try_from(most).unwrap_or(i64::MAX));
        let parameters: Vec<Value> = columns.iter().map(|(_, value)| value.clone()).chain([most]).collect();
        self.rows(table, &format!("{} {filter} {}", sql.select, sql.order), &parameters, usize::MAX)
    }

    /// Returns the next rows after a key.
    pub(crate) fn page(
        &mut self,
        table: &Table,
        after: Option<&[Value]>,
        most: usize,
    ) -> Result<Vec<Vec<Value>>, StoreError> {
        let sql = self.sql(table);
        let later = if after.is_some() { sql.later.as_str() } else { "" };
        let after = after.unwrap_or_default();
        assert!(
            after.is_empty() || after.len() == table.key.len(),
            "a key of table {} has a value a column",
            table.name
        );
        let most = Value::Integer(i64::try_from(most).unwrap_or(i64::MAX));
        let parameters: Vec<Value> = after.iter().cloned().chain([most]).collect();
        self.rows(table, &format!("{} {later} {}", sql.select, sql.order), &parameters, limits::PAGE_BYTES_MAX)
    }

    /// Returns the rows that have one of these values in the columns of a unique index, each with the place of its
    /// value.
    pub(crate) fn rows_with(
        &mut self,
        table: &Table,
        index: &Index,
        values: &[Vec<Value>],
    ) -> Result<Vec<(usize, Vec<Value>)>, StoreError> {
        let columns = index.columns.iter().map(|place| format!("{} = ?", quoted(table.columns[*place].name)));
        let sql = format!("{} WHERE {}", self.sql(table).select, columns.collect::<Vec<_>>().join(" AND "));
        let mut found = Vec::new();
        for (at, values) in values.iter().enumerate() {
            assert_eq!(values.len(), index.columns.len(), "index {} has a value a column", index.name);
            found.extend(self.rows(table, &sql, values, usize::MAX)?.into_iter().map(|row| (at, row)));
        }
        Ok(found)
    }

    fn rows(
        &mut self,
        table: &Table,
        sql: &str,
        parameters: &[Value],
        bytes_max: usize,
    ) -> Result<Vec<Vec<Value>>, StoreError> {
        let failed = |error: rusqlite::Error| self.fault(&format!("read table {}", table.name), &error);
        let mut statement = self.raw().prepare_cached(sql).map_err(failed)?;
        bind(&mut statement, 1, parameters).map_err(failed)?;
        let mut stored = statement.raw_query();
        let (mut rows, mut bytes) = (Vec::new(), 0);
        while bytes < bytes_max
            && let Some(row) = stored.next().map_err(failed)?
        {
            let values = self.row(table, row)?;
            bytes += values.iter().map(Value::bytes).sum::<usize>();
            rows.push(values);
        }
        self.well(|| format!("read table {}", table.name));
        Ok(rows)
    }

    /// Returns the columns of a row that was read.
    pub(super) fn row(&self, table: &Table, row: &Row<'_>) -> Result<Vec<Value>, StoreError> {
        let mut values = Vec::with_capacity(table.columns.len());
        for (place, column) in table.columns.iter().enumerate() {
            let value =
                row.get_ref(place).map_err(|error| self.fault(&format!("read table {}", table.name), &error))?;
            values.push(from_column(column.kind, value).map_err(|found| {
                StoreError::corrupt(format!("column {}.{} of {}", table.name, column.name, self.place()), found)
            })?);
        }
        Ok(values)
    }

    /// Writes rows whole, in blocks of one statement each, in the order of their keys. Neighbours are on the same
    /// pages, which saves a third of the time if the table is much larger than the batch.
    pub(crate) fn put(
        &mut self,
        table: &Table,
        rows: &mut (dyn Iterator<Item = OfSegment> + Send),
    ) -> Result<(), StoreError> {
        let mut rows: Vec<OfSegment> = rows.collect();
        rows.iter().try_for_each(|(_, row)| table.check_row(row))?;
        let owned = rows.iter().any(|(segment, _)| segment.is_some());
        let sql = if owned { self.own(table)? } else { self.sql(table) };
        let put = sql.owned.as_ref().filter(|_| owned).map_or(&sql.put, |owned| &owned.put);
        let width = table.columns.len() + usize::from(owned);
        let failed = |error: rusqlite::Error| self.fault(&format!("write to table {}", table.name), &error);
        let bind = |statement: &mut Statement<'_>, at: usize, (segment, row): &OfSegment| {
            bind(statement, at * width + 1, row)?;
            if owned { statement.raw_bind_parameter((at + 1) * width, segment.map(Segment::get)) } else { Ok(()) }
        };
        // The sort is stable, so that the later of two rows with one key is kept.
        rows.sort_by(|(_, a), (_, b)| table.row_order(a, b));
        let blocks = rows.chunks_exact(put.block_rows);
        let rest = blocks.remainder();
        let mut statement = self.raw().prepare_cached(&put.block).map_err(failed)?;
        for block in blocks {
            block.iter().enumerate().try_for_each(|(at, row)| bind(&mut statement, at, row)).map_err(failed)?;
            statement.raw_execute().map_err(failed)?;
        }
        let mut statement = self.raw().prepare_cached(&put.one).map_err(failed)?;
        for row in rest {
            bind(&mut statement, 0, row).map_err(failed)?;
            statement.raw_execute().map_err(failed)?;
        }
        Ok(())
    }

    /// Deletes the rows with these keys.
    pub(crate) fn delete(
        &mut self,
        table: &Table,
        keys: &mut (dyn Iterator<Item = OfSegment> + Send),
    ) -> Result<(), StoreError> {
        let sql = self.sql(table);
        let failed = |error: rusqlite::Error| self.fault(&format!("delete from table {}", table.name), &error);
        let mut statement = self.raw().prepare_cached(&sql.delete).map_err(failed)?;
        for (_, key) in keys {
            assert_eq!(key.len(), table.key.len(), "a key of table {} has a value a column", table.name);
            bind(&mut statement, 1, &key).map_err(failed)?;
            statement.raw_execute().map_err(failed)?;
        }
        Ok(())
    }

    /// Executes one statement that writes.
    pub(crate) fn execute(&mut self, sql: &str, parameters: &[Value]) -> Result<u64, StoreError> {
        let failed = |error: rusqlite::Error| self.wrong(sql, &error);
        if sql.to_ascii_lowercase().contains(RESERVED) {
            return Err(StoreError::Invalid(format!("handlers may not use tables that begin with {RESERVED}: {sql}")));
        }
        let mut statement = self.raw().prepare_cached(sql).map_err(failed)?;
        // BEGIN, COMMIT and similar statements count as reading, and are not for handlers: only the writer commits.
        if statement.readonly() {
            return Err(StoreError::Invalid(format!(
                "this statement writes no rows, so it is a query or not allowed: {sql}"
            )));
        }
        bind_numbered(&mut statement, sql, parameters)?.map_err(failed)?;
        let before = self.raw().total_changes();
        let mut rows = statement.raw_query();
        // A statement with RETURNING is done only after all of its rows were read.
        while rows.next().map_err(failed)?.is_some() {}
        Ok(self.raw().total_changes() - before)
    }

    /// Returns the rows of a query. Refuses a query that would write.
    pub(crate) fn query(&mut self, sql: &str, parameters: &[Value]) -> Result<Answer, StoreError> {
        let FirstRows { columns, rows, .. } = self.first_rows(sql, parameters, usize::MAX)?;
        Ok((columns, rows))
    }

    /// Does the same, but returns only the first `most` rows and counts the others.
    pub(crate) fn first_rows(&mut self, sql: &str, parameters: &[Value], most: usize) -> Result<FirstRows, StoreError> {
        let failed = |error: rusqlite::Error| self.wrong(sql, &error);
        let mut statement = self.raw().prepare_cached(sql).map_err(failed)?;
        // COMMIT and similar statements return no rows and count as reading.
        if !statement.readonly() || statement.column_count() == 0 {
            return Err(StoreError::Invalid(format!(
                "this statement is not a query: a query returns rows and writes none: {sql}"
            )));
        }
        bind_numbered(&mut statement, sql, parameters)?.map_err(failed)?;
        let names = |statement: &Statement<'_>| statement.column_names().into_iter().map(str::to_owned).collect();
        let mut columns: Vec<String> = names(&statement);
        let mut stored = statement.raw_query();
        let (mut rows, mut all) = (Vec::new(), 0);
        while let Some(row) = stored.next().map_err(failed)? {
            if all == 0 {
                // The statement is compiled for the existing columns only now.
                columns = names(row.as_ref());
            }
            all += 1;
            if rows.len() == most {
                continue;
            }
            let values = (0..columns.len()).map(|place| {
                from_query(row.get_ref(place).map_err(failed)?)
                    .map_err(|found| StoreError::corrupt(self.place(), found))
            });
            rows.push(values.collect::<Result<_, _>>()?);
        }
        Ok(FirstRows { columns, rows, all })
    }

    fn wrong(&self, sql: &str, error: &rusqlite::Error) -> StoreError {
        match self.fault(&format!("carry out {sql:?}"), error) {
            StoreError::Invalid(why) if why.contains("values were supplied") => StoreError::Invalid(format!(
                "{why}: name the columns, since a table whose rows name their segments has one more, {SEGMENT}"
            )),
            wrong => wrong,
        }
    }
}

/// Binds the second parameter to `$2`, as PostgreSQL does. SQLite takes `$2` for a name, and numbers names in the order
/// of their first use. Parameters without a number are bound in their order.
fn bind_numbered(
    statement: &mut Statement<'_>,
    sql: &str,
    parameters: &[Value],
) -> Result<rusqlite::Result<()>, StoreError> {
    let asked = statement.parameter_count();
    let place = |at: usize| {
        let name = statement.parameter_name(at).and_then(|name| name.strip_prefix('$'));
        name.map_or(Some(at), |number| number.parse().ok())
    };
    let places: Vec<Option<usize>> = (1..=asked).map(place).collect();
    let given = parameters.len();
    let in_order = places.iter().all(|place| place.is_some_and(|place| (1..=given).contains(&place)));
    if asked != given || !in_order {
        return Err(StoreError::Invalid(format!(
            "the statement has {asked} parameters and got {given}, as $1, $2 and so on: {sql}"
        )));
    }
    let mut pairs = places.into_iter().flatten().zip(1..);
    Ok(pairs.try_for_each(|(place, at)| statement.raw_bind_parameter(at, Parameter(&parameters[place - 1]))))
}

pub(super) fn bind(statement: &mut Statement<'_>, first: usize, values: &[Value]) -> rusqlite::Result<()> {
    values.iter().zip(first..).try_for_each(|(value, at)| statement.raw_bind_parameter(at, Parameter(value)))
}

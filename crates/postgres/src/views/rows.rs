//! Rows: bulk writes, and reads by key, by column and in pages.

use dacapo_model::{Segment, SegmentCount, limits};
use dacapo_store::shape::SEGMENT;
use dacapo_store::{Index, OfSegment, StoreError, Table, Value, of_none};
use sqlx::Row;
use sqlx::postgres::{PgArguments, PgRow};

use super::session::Session;
use super::value::{self, add_array, added, arguments, from_column, is_nowhere, storage, tagged};
use crate::limits::BLOCK_ROWS_MAX;
use crate::quote::quoted;

/// Something that is written, or read, and what went wrong.
pub(super) type Sent<T> = Result<T, Failed>;

/// The reason why nothing came back.
#[derive(Debug)]
pub(super) enum Failed {
    /// It was not sent, or what came back makes no sense.
    Here(StoreError),
    /// The server or the way to it.
    There(sqlx::Error),
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self::Here(error)
    }
}

impl From<sqlx::Error> for Failed {
    fn from(error: sqlx::Error) -> Self {
        Self::There(error)
    }
}

/// The SQL for the rows of one table in one schema.
pub(super) struct RowSql<'a> {
    table: &'a Table,
    name: String,
    columns: String,
    key: String,
}

impl<'a> RowSql<'a> {
    /// In the schema of this quoted name.
    pub(super) fn new(schema: &str, table: &'a Table) -> Self {
        let list = |names: &mut dyn Iterator<Item = &str>| names.map(quoted).collect::<Vec<_>>().join(", ");
        Self {
            table,
            name: format!("{schema}.{}", quoted(table.name)),
            columns: list(&mut table.columns.iter().map(|column| column.name)),
            key: list(&mut table.key.iter().map(|place| table.columns[*place].name)),
        }
    }

    fn column(&self, place: usize) -> String {
        quoted(self.table.columns[place].name)
    }

    /// Writes rows whole, in the order of their keys: rows that are neighbours are on the same pages, and two that write
    /// at once wait for each other instead of both.
    pub(super) async fn put(
        &self,
        session: &mut Session,
        rows: &mut (dyn Iterator<Item = OfSegment> + Send),
    ) -> Sent<()> {
        let table = self.table;
        let mut rows: Vec<OfSegment> = rows.collect();
        for (_, row) in &rows {
            table.check_row(row)?;
            for (column, value) in table.columns.iter().zip(row) {
                value::check(value, || format!("column {}.{}", table.name, column.name))?;
            }
        }
        // Stable, so that the later of two rows with one key stands.
        rows.sort_by(|(_, a), (_, b)| table.row_order(a, b));
        rows.dedup_by(|later, kept| {
            let same = table.row_order(&later.1, &kept.1).is_eq();
            if same {
                std::mem::swap(later, kept);
            }
            same
        });
        let set: Vec<String> = (0..table.columns.len())
            .filter(|place| !table.key.contains(place))
            .map(|place| format!("{0} = excluded.{0}", self.column(place)))
            .collect();
        // Where a version has several segments, each row says whose it is.
        let owned = rows.iter().any(|(segment, _)| segment.is_some());
        let set = set
            .into_iter()
            .chain(owned.then(|| format!("{SEGMENT} = coalesce(excluded.{SEGMENT}, kept.{SEGMENT})")))
            .collect::<Vec<_>>();
        let conflict = if set.is_empty() { "NOTHING".to_owned() } else { format!("UPDATE SET {}", set.join(", ")) };
        let ours = match owned {
            true => format!("WHERE coalesce(kept.{SEGMENT} = excluded.{SEGMENT}, true)"),
            false => String::new(),
        };
        let places: Vec<usize> = (0..table.columns.len()).collect();
        let sql = format!(
            "INSERT INTO {} AS kept ({}{}) SELECT * FROM {} ON CONFLICT ({}) DO {conflict} {ours}",
            self.name,
            self.columns,
            if owned { format!(", {SEGMENT}") } else { String::new() },
            self.unnest(&places, owned),
            self.key
        );
        for block in rows.chunks_mut(BLOCK_ROWS_MAX) {
            let key = |(segment, row): &OfSegment| {
                (*segment, table.key.iter().map(|place| row[*place].clone()).collect::<Vec<_>>())
            };
            let keys = if owned { block.iter().map(key).collect() } else { vec![] };
            let (_, written) = session.run(&sql, self.arrays(&places, block, owned)?).await?;
            if owned && written < keys.len() as u64 {
                self.are_ours(session, keys).await?;
            }
        }
        Ok(())
    }

    /// Checks whether none of the rows with these keys is another segment's.
    async fn are_ours(&self, session: &mut Session, mut keys: Vec<OfSegment>) -> Sent<()> {
        let names: Vec<String> = (0..self.table.key.len()).map(|at| format!("k{at}")).collect();
        let sql = format!(
            "SELECT {key}, kept.{SEGMENT}, asked.segment FROM {name} AS kept JOIN {asked} AS asked ({names}, segment) ON {same}
             WHERE kept.{SEGMENT} <> asked.segment ORDER BY {key} LIMIT 1",
            key = self.table.key.iter().map(|place| format!("kept.{}", self.column(*place))).collect::<Vec<_>>().join(", "),
            name = self.name,
            asked = self.unnest(self.table.key, true),
            names = names.join(", "),
            same = self.same("asked", &names),
        );
        let arguments = self.arrays(self.table.key, &mut keys, true)?;
        let Some(row) = session.fetch(&sql, arguments).await?.pop() else { return Ok(()) };
        let columns = self.table.key.iter().enumerate().map(|(at, place)| {
            let kind = self.table.columns[*place].kind;
            from_column(kind, &row, at).map_or_else(|error| error.to_string(), |value| format!("{value:?}"))
        });
        let key = columns.collect::<Vec<_>>().join(", ");
        let (first, second): (i16, i16) = (row.try_get(names.len())?, row.try_get(names.len() + 1)?);
        Err(StoreError::Invalid(format!(
            "row {key} of table {} is written by events of segments {first} and {second}: say so in `Options::rows`, \
             or give it rows whose keys belong to one stream",
            self.table.name
        ))
        .into())
    }

    /// That the key of a kept row is that of the other one.
    fn same(&self, other: &str, names: &[String]) -> String {
        let same = self.table.key.iter().zip(names);
        let same = same.map(|(place, name)| format!("kept.{} = {other}.{name}", self.column(*place)));
        same.collect::<Vec<_>>().join(" AND ")
    }

    /// Deletes the rows with these keys.
    pub(super) async fn delete(
        &self,
        session: &mut Session,
        keys: &mut (dyn Iterator<Item = OfSegment> + Send),
    ) -> Sent<()> {
        let table = self.table;
        let names: Vec<String> = (0..table.key.len()).map(|at| format!("k{at}")).collect();
        let sql = format!(
            "DELETE FROM {} AS kept USING {} AS gone ({}) WHERE {}",
            self.name,
            self.unnest(table.key, false),
            names.join(", "),
            self.same("gone", &names)
        );
        let mut keys: Vec<OfSegment> = keys.filter(|(_, key)| !key.iter().any(is_nowhere)).collect();
        if keys.iter().any(|(segment, _)| segment.is_some()) {
            self.are_ours(session, keys.clone()).await?;
        }
        for (_, key) in &keys {
            assert_eq!(key.len(), table.key.len(), "a key of table {} has a value a column", table.name);
        }
        for block in keys.chunks_mut(BLOCK_ROWS_MAX) {
            session.run(&sql, self.arrays(table.key, block, false)?).await?;
        }
        Ok(())
    }

    /// Arrays, one a column, as rows; the last one of segments, if those are wanted.
    fn unnest(&self, places: &[usize], segments: bool) -> String {
        let arrays = places.iter().zip(1..).map(|(place, at)| {
            let (_, array) = storage(self.table.columns[*place].kind);
            format!("${at}::{array}")
        });
        let segments = segments.then(|| format!("${}::smallint[]", places.len() + 1));
        format!("unnest({})", arrays.chain(segments).collect::<Vec<_>>().join(", "))
    }

    /// Returns the values of rows, which are taken, as an array for each of the places.
    #[expect(clippy::expect_used, reason = "there are not that many segments")]
    fn arrays(&self, places: &[usize], rows: &mut [OfSegment], segments: bool) -> Result<PgArguments, StoreError> {
        let mut arguments = PgArguments::default();
        for (at, place) in places.iter().enumerate() {
            let column = rows.iter_mut().map(|(_, row)| std::mem::replace(&mut row[at], Value::Null));
            add_array(&mut arguments, self.table.columns[*place].kind, column)?;
        }
        if segments {
            let number = |segment: Segment| i16::try_from(segment.get()).expect("there are not that many segments");
            added(&mut arguments, rows.iter().map(|(segment, _)| segment.map(number)).collect::<Vec<_>>())?;
        }
        Ok(arguments)
    }

    /// What tells whether the rows can be read.
    pub(super) fn probe(&self) -> String {
        format!("SELECT {} FROM {} LIMIT 0", self.columns, self.name)
    }

    /// Returns true if there is no row.
    pub(super) async fn is_empty(&self, session: &mut Session) -> Sent<bool> {
        let sql = format!("SELECT FROM {} LIMIT 1", self.name);
        Ok(session.fetch(&sql, PgArguments::default()).await?.is_empty())
    }

    /// Returns the row with this key.
    pub(super) async fn load(&self, session: &mut Session, key: &[Value]) -> Sent<Option<Vec<Value>>> {
        assert_eq!(key.len(), self.table.key.len(), "a key of table {} has a value a column", self.table.name);
        if key.iter().any(is_nowhere) {
            return Ok(None);
        }
        let same: Vec<String> =
            self.table.key.iter().zip(1..).map(|(place, at)| format!("{} = ${at}", self.column(*place))).collect();
        let sql = format!("SELECT {} FROM {} WHERE {}", self.columns, self.name, same.join(" AND "));
        Ok(self.rows(session.fetch(&tagged(&sql, key), arguments(key)?).await?)?.pop())
    }

    /// Returns the row with this key, and the segment that it is of, in a version with several segments.
    pub(super) async fn load_of(&self, session: &mut Session, key: &[Value]) -> Sent<Option<OfSegment>> {
        assert_eq!(key.len(), self.table.key.len(), "a key of table {} has a value a column", self.table.name);
        if key.iter().any(is_nowhere) {
            return Ok(None);
        }
        let same: Vec<String> =
            self.table.key.iter().zip(1..).map(|(place, at)| format!("{} = ${at}", self.column(*place))).collect();
        let sql = format!("SELECT {}, {SEGMENT} FROM {} WHERE {}", self.columns, self.name, same.join(" AND "));
        let Some(stored) = session.fetch(&tagged(&sql, key), arguments(key)?).await?.pop() else { return Ok(None) };
        let segment = self.segment(&stored, self.table.columns.len())?;
        Ok(self.rows(vec![stored])?.pop().map(|row| (segment, row)))
    }

    /// Returns the segments that the rows with these keys are of, each with the place of its key.
    pub(super) async fn segments_of(&self, session: &mut Session, keys: &[Vec<Value>]) -> Sent<Vec<(usize, Segment)>> {
        let names: Vec<String> = (0..self.table.key.len()).map(|at| format!("k{at}")).collect();
        // One look into the index each, whatever the planner believes of a table that is new.
        let sql = format!(
            "SELECT found.segment, asked.at FROM {} WITH ORDINALITY AS asked ({}, at),
                    LATERAL (SELECT {SEGMENT} AS segment FROM {} AS kept WHERE {} LIMIT 1) AS found
             WHERE found.segment IS NOT NULL ORDER BY asked.at",
            self.unnest(self.table.key, false),
            names.join(", "),
            self.name,
            self.same("asked", &names),
        );
        let mut found = Vec::new();
        let keys: Vec<(usize, &Vec<Value>)> =
            keys.iter().enumerate().filter(|(_, key)| !key.iter().any(is_nowhere)).collect();
        for asked in keys.chunks(BLOCK_ROWS_MAX) {
            let mut block: Vec<OfSegment> = of_none(asked.iter().map(|(_, key)| (*key).clone())).collect();
            for stored in session.fetch(&sql, self.arrays(self.table.key, &mut block, false)?).await? {
                let at: i64 = stored.try_get(1)?;
                let at = usize::try_from(at - 1).ok().and_then(|at| asked.get(at));
                let (at, _) = at.ok_or_else(|| StoreError::corrupt(&self.name, "a place that was not asked for"))?;
                found.extend(self.segment(&stored, 0)?.map(|segment| (*at, segment)));
            }
        }
        Ok(found)
    }

    /// Takes over the segments of the rows with the same keys in another schema.
    pub(super) async fn take_over_segments(&self, session: &mut Session, source: &str) -> Sent<()> {
        let same = self.table.key.iter().map(|place| self.column(*place));
        let same = same.map(|column| format!("kept.{column} = source.{column}")).collect::<Vec<_>>().join(" AND ");
        let sql = format!(
            "UPDATE {} AS kept SET {SEGMENT} = source.{SEGMENT} FROM {source}.{} AS source
             WHERE {same} AND source.{SEGMENT} IS NOT NULL",
            self.name,
            quoted(self.table.name),
        );
        session.long_batch(sql).await?;
        Ok(())
    }

    #[expect(clippy::expect_used, reason = "the limit is a count")]
    fn segment(&self, stored: &PgRow, at: usize) -> Sent<Option<Segment>> {
        let every = SegmentCount::new(limits::SEGMENTS_MAX).expect("the limit is a count");
        let Some(number) = stored.try_get::<Option<i16>, _>(at)? else { return Ok(None) };
        let segment = u16::try_from(number).ok().and_then(|number| every.segment(number).ok());
        let place = || format!("column {}.{SEGMENT} in {}", self.table.name, self.name);
        Ok(Some(segment.ok_or_else(|| StoreError::corrupt(place(), format!("{number} is no segment")))?))
    }

    /// Returns the rows that have one of these values in the columns of a unique index, each with the place of what
    /// it has.
    pub(super) async fn with(
        &self,
        session: &mut Session,
        index: &Index,
        values: &[Vec<Value>],
    ) -> Sent<Vec<(usize, Vec<Value>)>> {
        let names: Vec<String> = (0..index.columns.len()).map(|at| format!("v{at}")).collect();
        let same = index.columns.iter().zip(&names);
        let same = same.map(|(place, name)| format!("kept.{} = asked.{name}", self.column(*place)));
        // One look into the index each, whatever the planner believes of a table that is new.
        let sql = format!(
            "SELECT found.*, asked.at FROM {} WITH ORDINALITY AS asked ({}, at),
                    LATERAL (SELECT {} FROM {} AS kept WHERE {} LIMIT 1) AS found",
            self.unnest(index.columns, false),
            names.join(", "),
            self.columns,
            self.name,
            same.collect::<Vec<_>>().join(" AND "),
        );
        let mut found = Vec::new();
        for (block, from) in values.chunks(BLOCK_ROWS_MAX).zip((0..).step_by(BLOCK_ROWS_MAX)) {
            for value in block.iter().flatten() {
                value::check(value, || format!("index {} of table {}", index.name, self.table.name))?;
            }
            let mut block: Vec<OfSegment> = of_none(block.iter().cloned()).collect();
            let rows = session.fetch(&sql, self.arrays(index.columns, &mut block, false)?).await?;
            let at = |row: &PgRow| -> Sent<usize> {
                let at: i64 = row.try_get(self.table.columns.len())?;
                let at = usize::try_from(at - 1).map_err(|_| StoreError::corrupt(&self.name, "a place below 1"))?;
                Ok(from + at)
            };
            let places = rows.iter().map(at).collect::<Sent<Vec<_>>>()?;
            found.extend(places.into_iter().zip(self.rows(rows)?));
        }
        Ok(found)
    }

    /// Returns the rows in which each of `columns` has the given value, ordered by key, at most `most`.
    pub(super) async fn select(
        &self,
        session: &mut Session,
        columns: &[(usize, Value)],
        most: usize,
    ) -> Sent<Vec<Vec<Value>>> {
        if columns.iter().any(|(_, value)| is_nowhere(value)) {
            return Ok(Vec::new());
        }
        let (mut wanted, mut values) = (Vec::new(), Vec::new());
        for (place, value) in columns {
            // Only an equation is found by an index.
            if *value == Value::Null {
                wanted.push(format!("{} IS NULL", self.column(*place)));
            } else {
                values.push(value.clone());
                wanted.push(format!("{} = ${}", self.column(*place), values.len()));
            }
        }
        let filter = if wanted.is_empty() { String::new() } else { format!("WHERE {}", wanted.join(" AND ")) };
        let sql = format!(
            "SELECT {} FROM {} {filter} ORDER BY {} LIMIT ${}",
            self.columns,
            self.name,
            self.key,
            values.len() + 1
        );
        let mut arguments = arguments(&values)?;
        added(&mut arguments, i64::try_from(most).unwrap_or(i64::MAX))?;
        Ok(self.rows(session.long_fetch(&tagged(&sql, &values), arguments).await?)?)
    }

    /// Returns the next rows after a key. The server counts their bytes, so that it sends no
    /// more.
    #[expect(clippy::expect_used, reason = "a page is not that large")]
    pub(super) async fn page(
        &self,
        session: &mut Session,
        after: Option<&[Value]>,
        most: usize,
    ) -> Sent<Vec<Vec<Value>>> {
        let after = after.unwrap_or_default();
        let columns = self.table.columns;
        assert!(
            after.is_empty() || after.len() == self.table.key.len(),
            "a key of table {} has a value a column",
            self.table.name
        );
        let numbers: Vec<String> = (1..=after.len()).map(|at| format!("${at}")).collect();
        let later = match after {
            [] => String::new(),
            _ => format!("WHERE ({}) > ({})", self.key, numbers.join(", ")),
        };
        let long = columns
            .iter()
            .filter(|column| storage(column.kind).0.starts_with("text") || storage(column.kind).0 == "bytea");
        let long =
            long.map(|column| format!(" + coalesce(octet_length({}), 0)", quoted(column.name))).collect::<String>();
        let bytes = format!("{}{long}", columns.len() * size_of::<Value>());
        let sql = format!(
            "SELECT {columns} FROM (
                 SELECT {columns}, sum({bytes}) OVER (ORDER BY {key} ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
                        AS _dacapo_before
                 FROM (SELECT {columns} FROM {name} {later} ORDER BY {key} LIMIT ${most}) AS next
             ) AS page WHERE coalesce(_dacapo_before, 0) < ${bytes_max} ORDER BY {key}",
            columns = self.columns,
            key = self.key,
            name = self.name,
            most = after.len() + 1,
            bytes_max = after.len() + 2,
        );
        let mut arguments = arguments(after)?;
        added(&mut arguments, i64::try_from(most).unwrap_or(i64::MAX))?;
        added(&mut arguments, i64::try_from(limits::PAGE_BYTES_MAX).expect("a page is not that large"))?;
        Ok(self.rows(session.long_fetch(&tagged(&sql, after), arguments).await?)?)
    }

    fn rows(&self, stored: Vec<PgRow>) -> Result<Vec<Vec<Value>>, StoreError> {
        let row = |stored: PgRow| {
            let values = self.table.columns.iter().enumerate().map(|(at, column)| {
                from_column(column.kind, &stored, at).map_err(|error| {
                    let place = format!("column {}.{} in {}", self.table.name, column.name, self.name);
                    StoreError::corrupt(place, error.to_string())
                })
            });
            values.collect()
        };
        stored.into_iter().map(row).collect()
    }
}

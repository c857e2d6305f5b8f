//! The schema of a view: its tables, its tokens, and its description.
//!
//! A view is made without those of its secondary indexes that are not unique, since rows are written faster without
//! them. The missing ones are not stored but looked up.
//!
//! A view is made in one transaction, which includes `_dacapo_view`. A file without that table was left by a crash
//! before anything was in it, and is made again.

use dacapo_model::{SegmentCount, ViewId};
use rusqlite::{Connection, OptionalExtension};

use crate::error::StoreError;
use crate::shape;
use crate::sqlite::db::Db;
use crate::sqlite::{begun, outbox};
use crate::table::{ColumnKind, Index, Table};

/// The format of dacapo's own tables in a view. It is raised if an older build could not read them.
const FORMAT: i64 = 5;

/// The description of a view in its own table.
struct About {
    format: i64,
    view: String,
    segments: i64,
    schema: String,
}

/// Returns a name as SQL.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

impl Db {
    /// Makes the view if it does not exist, or checks that it is the requested one.
    pub(crate) fn make(&mut self, id: &ViewId, tables: &[Table], segments: SegmentCount) -> Result<(), StoreError> {
        shape::check(tables)?;
        let asked = About {
            format: FORMAT,
            view: id.to_string(),
            segments: i64::from(segments.get()),
            schema: shape::describe(tables),
        };
        let stored = self.tried("make the view", |connection| {
            if let Some(stored) = about(connection)? {
                return Ok(Some(stored));
            }
            // Another caller may have made it before this one got the lock.
            let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            let stored = about(&transaction)?;
            if stored.is_none() {
                create(&transaction, tables, &asked)?;
            }
            transaction.commit()?;
            Ok(stored)
        })?;
        match stored {
            None => Ok(()),
            Some(stored) => self.same(id, &stored, &asked),
        }
    }

    /// Returns true if a view exists here. A file that a crash left empty has none.
    pub(crate) fn is_made(&mut self, id: &ViewId) -> Result<bool, StoreError> {
        let Some(stored) = self.tried("read what the view is", |connection| about(connection))? else {
            return Ok(false);
        };
        self.readable(id, &stored)?;
        Ok(true)
    }

    /// Returns the secondary indexes of these tables that do not exist, as places in the tables and in their indexes.
    pub(crate) fn missing_indexes(&mut self, tables: &[Table]) -> Result<Vec<(usize, usize)>, StoreError> {
        let there = self.tried("look for the indexes", |connection| {
            let sql = "SELECT name FROM main.sqlite_schema WHERE type = 'index'";
            connection.prepare_cached(sql)?.query_map([], |row| row.get::<_, String>(0))?.collect()
        });
        let there: std::collections::HashSet<String> = there?;
        let all =
            tables.iter().enumerate().flat_map(|(at, table)| (0..table.indexes.len()).map(move |index| (at, index)));
        Ok(all.filter(|(at, index)| !there.contains(&index_name(&tables[*at], &tables[*at].indexes[*index]))).collect())
    }

    /// Builds an index in the open transaction, if it does not exist.
    pub(crate) fn index(&mut self, table: &Table, index: &Index) -> Result<(), StoreError> {
        let what = format!("build the index {} of table {}", index.name, table.name);
        self.tried(&what, |connection| connection.execute_batch(&create_index(table, index)))?;
        // The best way to write rows depends on the indexes.
        self.forget_sql();
        Ok(())
    }

    fn readable(&self, id: &ViewId, stored: &About) -> Result<(), StoreError> {
        if stored.format != FORMAT {
            return Err(StoreError::Invalid(format!(
                "{} has the form {}, this build reads the form {FORMAT}: use the build that wrote it, or rebuild the \
                 projection with this one",
                self.place(),
                stored.format
            )));
        }
        if stored.view != id.to_string() {
            return Err(StoreError::Invalid(format!(
                "{} is the view {}, not {id}: was the file copied or renamed?",
                self.place(),
                stored.view
            )));
        }
        Ok(())
    }

    fn same(&self, id: &ViewId, stored: &About, asked: &About) -> Result<(), StoreError> {
        self.readable(id, stored)?;
        let asked = (asked.segments, asked.schema.as_str());
        match shape::difference((stored.segments, &stored.schema), asked) {
            None => Ok(()),
            Some(difference) => Err(StoreError::Invalid(format!(
                "the view {id} is not what the code asks for: {difference}. Raise the projection's version, so that a \
                 new view is built beside this one",
            ))),
        }
    }
}

fn about(connection: &Connection) -> rusqlite::Result<Option<About>> {
    let there: Option<i64> = connection
        .query_row("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = '_dacapo_view'", [], |row| row.get(0))
        .optional()?;
    if there.is_none() {
        return Ok(None);
    }
    connection
        .query_row("SELECT format, view, segments, schema FROM _dacapo_view", [], |row| {
            Ok(About { format: row.get(0)?, view: row.get(1)?, segments: row.get(2)?, schema: row.get(3)? })
        })
        .optional()
}

fn create(connection: &Connection, tables: &[Table], about: &About) -> rusqlite::Result<()> {
    connection.execute_batch(
        "CREATE TABLE _dacapo_view (format INTEGER NOT NULL, view TEXT NOT NULL, segments INTEGER NOT NULL,
                                    schema TEXT NOT NULL) STRICT;
         CREATE TABLE _dacapo_tokens (segment INTEGER PRIMARY KEY, epoch INTEGER NOT NULL, position INTEGER NOT NULL,
                                      owner BLOB, held_for INTEGER, cap INTEGER, counted_after INTEGER NOT NULL, counted INTEGER NOT NULL,
                                      replay_request INTEGER, replay_through INTEGER) STRICT;
         CREATE TABLE _dacapo_history (position INTEGER PRIMARY KEY, digest INTEGER NOT NULL,
                                       journal BLOB NOT NULL) STRICT;
         CREATE TABLE _dacapo_refusals (segment INTEGER PRIMARY KEY, position INTEGER NOT NULL,
                                        attempts INTEGER NOT NULL, error TEXT NOT NULL, since INTEGER NOT NULL,
                                        due INTEGER NOT NULL) STRICT;
         CREATE TABLE _dacapo_letters (position INTEGER PRIMARY KEY, segment INTEGER NOT NULL, stream TEXT NOT NULL,
                                       event_type TEXT NOT NULL, kind TEXT NOT NULL, first INTEGER,
                                       error TEXT NOT NULL, attempts INTEGER NOT NULL, recorded INTEGER NOT NULL,
                                       wish TEXT) STRICT;
         CREATE INDEX _dacapo_letters_stream ON _dacapo_letters (stream);",
    )?;
    connection.execute_batch(outbox::CREATE)?;
    connection.execute_batch(begun::CREATE)?;
    for table in tables {
        connection.execute_batch(&create_table(table))?;
    }
    for segment in 0..about.segments {
        connection
            .execute("INSERT INTO _dacapo_tokens VALUES (?1, 0, 0, NULL, NULL, NULL, 0, 0, NULL, NULL)", [segment])?;
    }
    connection.execute(
        "INSERT INTO _dacapo_view VALUES (?1, ?2, ?3, ?4)",
        (about.format, &about.view, about.segments, &about.schema),
    )?;
    Ok(())
}

fn create_table(table: &Table) -> String {
    let names =
        |places: &[usize]| places.iter().map(|place| quoted(table.columns[*place].name)).collect::<Vec<_>>().join(", ");
    let columns: Vec<String> = table
        .columns
        .iter()
        .map(|column| {
            let null = if column.optional { "" } else { " NOT NULL" };
            format!("{} {}{null}", quoted(column.name), storage(column.kind))
        })
        .collect();
    // A key of one integer is SQLite's own row id; any other key orders the rows themselves, which saves
    // the second tree that an index beside the rows would be.
    let own_id = matches!(table.key, [place] if table.columns[*place].kind == ColumnKind::Integer);
    let without = if own_id { "" } else { ", WITHOUT ROWID" };
    let mut sql = format!(
        "CREATE TABLE {} ({}, PRIMARY KEY ({})) STRICT{without};",
        quoted(table.name),
        columns.join(", "),
        names(table.key)
    );
    // Unique indexes are needed from the first event on, to find the row that has a value.
    table.indexes.iter().filter(|index| index.unique).for_each(|index| sql.push_str(&create_index(table, index)));
    sql
}

/// Returns the name of an index in the database, where all tables share the names of their indexes.
fn index_name(table: &Table, index: &Index) -> String {
    format!("{}.{}", table.name, index.name)
}

fn create_index(table: &Table, index: &Index) -> String {
    let unique = if index.unique { "UNIQUE " } else { "" };
    let columns: Vec<String> = index.columns.iter().map(|place| quoted(table.columns[*place].name)).collect();
    let (name, on) = (quoted(&index_name(table, index)), quoted(table.name));
    format!("CREATE {unique}INDEX IF NOT EXISTS {name} ON {on} ({});", columns.join(", "))
}

fn storage(kind: ColumnKind) -> &'static str {
    match kind {
        ColumnKind::Text | ColumnKind::Time | ColumnKind::Uuid | ColumnKind::Json => "TEXT",
        ColumnKind::Integer | ColumnKind::Boolean => "INTEGER",
        ColumnKind::Float => "REAL",
        ColumnKind::Bytes => "BLOB",
    }
}

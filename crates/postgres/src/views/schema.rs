//! The schema of a view: its tables, its tokens, and what it says about itself.
//!
//! It is made in one transaction, and dropped in one, so it is there as a whole or not at all. Whether a schema is a
//! view is told by the table `_dacapo_view` in it. It is made without those of its secondary indexes that are not
//! unique, since rows are written faster without them; which ones are missing is not stored but looked up.

use dacapo_model::{SegmentCount, ViewId};
use dacapo_store::shape::{SEGMENT, describe, difference};
use dacapo_store::{Index, StoreError, Table};
use sqlx::Row;
use sqlx::postgres::PgArguments;

use super::names::index_name;
use super::rows::Sent;
use super::session::Session;
use super::value::{added, storage};
use super::{begun, outbox};
use crate::quote::{literal, quoted};

/// The form of what dacapo keeps in a view beside its rows. Raised when an older build could not read it.
const FORMAT: i64 = 2;

/// What a view says about itself.
pub(super) struct About {
    format: i64,
    pub(super) view: String,
    segments: i64,
    shape: String,
}

impl About {
    /// What a view that is made now says.
    pub(super) fn new(id: &ViewId, tables: &[Table], segments: SegmentCount) -> Self {
        Self { format: FORMAT, view: id.to_string(), segments: segments.get().into(), shape: describe(tables) }
    }

    /// What the view in the schema `name` says, if there is one. Looked up in the catalog itself, since a connection
    /// that waited for another to make or drop the schema still remembers names from before.
    pub(super) async fn read(session: &mut Session, name: &str) -> Sent<Option<Self>> {
        let mut arguments = PgArguments::default();
        added(&mut arguments, name.to_owned())?;
        let there = "SELECT FROM pg_class WHERE relname = '_dacapo_view' AND relkind = 'r'
                     AND relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = $1)";
        if session.fetch(there, arguments).await?.is_empty() {
            return Ok(None);
        }
        let sql = format!("SELECT format, view, segments, shape FROM {}._dacapo_view", quoted(name));
        let rows = session.fetch(&sql, PgArguments::default()).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        Ok(Some(Self {
            format: row.try_get(0)?,
            view: row.try_get(1)?,
            segments: row.try_get(2)?,
            shape: row.try_get(3)?,
        }))
    }

    /// Refuses a view that this build cannot read, or another one than is asked for.
    pub(super) fn readable(&self, id: &ViewId, name: &str) -> Result<(), StoreError> {
        if self.view != id.to_string() {
            return Err(StoreError::Invalid(format!(
                "the schema {name} is the view {}, not {id}: does another journal of this database have a schema with \
                 a name that begins alike? Give one of them another name",
                self.view
            )));
        }
        if self.format != FORMAT {
            return Err(StoreError::Invalid(format!(
                "the view {id} has the form {}, this build reads the form {FORMAT}: use the build that wrote it, or \
                 rebuild the projection with this one",
                self.format
            )));
        }
        Ok(())
    }

    /// Refuses a view with other tables or another number of segments.
    pub(super) fn same(&self, asked: &Self, id: &ViewId) -> Result<(), StoreError> {
        match difference((self.segments, &self.shape), (asked.segments, &asked.shape)) {
            None => Ok(()),
            Some(difference) => Err(StoreError::Invalid(format!(
                "the view {id} is not what the code asks for: {difference}. Raise the projection's version, so that a \
                 new view is built beside this one",
            ))),
        }
    }

    /// Makes the schema in the open transaction. The values are given as literals, so that it is one batch.
    pub(super) fn create(&self, name: &str, tables: &[Table]) -> String {
        let schema = quoted(name);
        let mut sql = format!("CREATE SCHEMA {schema}; SET LOCAL search_path = {schema}, pg_temp;");
        sql.push_str(
            "CREATE TABLE _dacapo_view (format bigint NOT NULL, view text NOT NULL, segments bigint NOT NULL,
                                        shape text NOT NULL);
             CREATE TABLE _dacapo_tokens (segment bigint PRIMARY KEY, epoch bigint NOT NULL, position bigint NOT NULL,
                                          owner bytea, held_for bigint, cap bigint, counted_after bigint NOT NULL,
                                          counted bigint NOT NULL, replay_request bigint, replay_through bigint)
                 WITH (fillfactor = 50);
             CREATE TABLE _dacapo_history (position bigint PRIMARY KEY, digest bigint NOT NULL, journal uuid NOT NULL);
             CREATE TABLE _dacapo_refusals (segment bigint PRIMARY KEY, position bigint NOT NULL,
                                            attempts bigint NOT NULL, error text NOT NULL, since bigint NOT NULL,
                                            due bigint NOT NULL);
             CREATE TABLE _dacapo_letters (position bigint PRIMARY KEY, segment bigint NOT NULL,
                                           stream text COLLATE \"C\" NOT NULL, event_type text NOT NULL,
                                           kind text NOT NULL, first bigint, error text NOT NULL,
                                           attempts bigint NOT NULL, recorded bigint NOT NULL, wish text);
             CREATE INDEX _dacapo_letters_stream ON _dacapo_letters (stream);",
        );
        sql.push_str(outbox::CREATE);
        sql.push_str(&begun::create(&schema));
        tables.iter().for_each(|table| sql.push_str(&create_table(&schema, table, self.segments > 1)));
        sql.push_str(&format!(
            "INSERT INTO _dacapo_tokens SELECT segment, 0, 0, NULL, NULL, NULL, 0, 0, NULL, NULL
             FROM generate_series(0, {}) AS segment;
             INSERT INTO _dacapo_view VALUES ({}, {}, {}, {})",
            self.segments - 1,
            self.format,
            literal(&self.view),
            self.segments,
            literal(&self.shape)
        ));
        sql
    }
}

fn create_table(schema: &str, table: &Table, several_segments: bool) -> String {
    let names =
        |places: &[usize]| places.iter().map(|place| quoted(table.columns[*place].name)).collect::<Vec<_>>().join(", ");
    let columns: Vec<String> = table
        .columns
        .iter()
        .map(|column| {
            let null = if column.optional { "" } else { " NOT NULL" };
            format!("{} {}{null}", quoted(column.name), storage(column.kind).0)
        })
        .chain(several_segments.then(|| format!("{SEGMENT} smallint")))
        .collect();
    let name = quoted(table.name);
    let mut sql = format!("CREATE TABLE {name} ({}, PRIMARY KEY ({}));", columns.join(", "), names(table.key));
    // By these it is asked which row has a value, from the first event on.
    let unique = table.indexes.iter().filter(|index| index.unique);
    unique.for_each(|index| sql.push_str(&create_index(schema, table, index)));
    sql
}

/// An index, unless it is there.
pub(super) fn create_index(schema: &str, table: &Table, index: &Index) -> String {
    let unique = if index.unique { "UNIQUE " } else { "" };
    let columns: Vec<String> = index.columns.iter().map(|place| quoted(table.columns[*place].name)).collect();
    let (name, on) = (quoted(&index_name(table, index)), quoted(table.name));
    // NULL is not the same as NULL, as everywhere in SQL.
    format!("CREATE {unique}INDEX IF NOT EXISTS {name} ON {schema}.{on} ({});", columns.join(", "))
}

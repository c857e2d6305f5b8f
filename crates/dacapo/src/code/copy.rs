//! The rules for a new version that begins as a copy of another one's view instead of reading the past.
//!
//! This module owns the declaration and the rules for what cannot be correct. The processor makes the copy, as one
//! transaction under its claim that moves every token from the start to the copied one's place.

use std::sync::Arc;

use dacapo_model::{SegmentCount, VersionId, ViewId};
use dacapo_store::{Column, Streams, Table, View as StoredView};

use super::{Seed, VersionCode};

/// The version from which a new one begins as a copy.
#[derive(Clone)]
pub(crate) struct SeedFrom {
    pub(crate) id: ViewId,
    pub(crate) view: Arc<dyn StoredView>,
    /// The tables of its code.
    pub(crate) tables: &'static [Table],
}

/// Checks that a build of `new` in `segments` segments may begin as a copy of `source`.
///
/// # Errors
/// The reason why the copy would differ from what `new` would make of the same events, and what to do.
pub(crate) fn check(
    new: &VersionCode,
    segments: SegmentCount,
    source: VersionId,
    source_segments: SegmentCount,
    source_code: Option<&VersionCode>,
) -> Result<(), String> {
    let Some(code) = source_code else {
        let text = "this node does not carry its code, so the events of its rows are unknown";
        return Err(format!("{text}: carry it as well"));
    };
    if segments != source_segments {
        return Err(format!(
            "it has {source_segments} segments and the new version {segments}, so their tokens do not say the same: \
             give the new one {source_segments}"
        ));
    }
    let unseen = unseen(new, code);
    if !unseen.is_empty() {
        return Err(format!("it never saw {}: let the new version read the past", unseen.join(", ")));
    }
    match new.options.seed {
        Seed::Never => Err("the code of the new version does not say how: set `seed` in its options".to_owned()),
        Seed::Columns => statements(new.tables, code.tables).map(drop).map_err(|why| format!("{why} ({source})")),
        Seed::Sql(_) | Seed::Migrate => Ok(()),
    }
}

/// Returns the reason why a view with dead letters is not copied. Letters of skipped events count, too: the copy would
/// lack their events without a letter that shows it (I-11).
pub(crate) fn lacks(letters: u64) -> String {
    let events = if letters == 1 { "an event that is".to_owned() } else { format!("{letters} events that are") };
    format!(
        "its rows lack {events} set aside, and a copy would lack them without a word: retry or drop its dead letters \
         first, or let the new version read the past"
    )
}

/// Returns the types and categories of events that `new` reads and `old` does not.
fn unseen(new: &VersionCode, old: &VersionCode) -> Vec<String> {
    let (wanted, had) = (new.filter.types.as_deref(), old.filter.types.as_deref());
    let types = match (wanted, had) {
        (_, None) => vec![],
        (None, Some(_)) => vec!["events of every type".to_owned()],
        (Some(wanted), Some(had)) => {
            wanted.iter().filter(|name| !had.contains(name)).map(|name| format!("events of type {name}")).collect()
        }
    };
    let categories = match (&new.filter.streams, &old.filter.streams) {
        (_, Streams::All) | (Streams::User | Streams::Categories(_), Streams::User) => vec![],
        (Streams::Categories(wanted), Streams::Categories(had)) => {
            let lacking = wanted.iter().filter(|name| !had.contains(name));
            lacking.map(|name| format!("streams of category {name}")).collect()
        }
        (Streams::User | Streams::All, Streams::Categories(_)) => vec!["streams of every category".to_owned()],
        (Streams::All, Streams::User) => vec!["streams of dacapo itself".to_owned()],
    };
    types.into_iter().chain(categories).collect()
}

/// Returns the statements that copy the tables and columns that both have.
///
/// # Errors
/// The tables or columns that the source lacks, or has in another form.
pub(crate) fn statements(new: &[Table], old: &[Table]) -> Result<Vec<String>, String> {
    new.iter().map(|table| statement(table, old)).collect()
}

fn statement(table: &Table, old: &[Table]) -> Result<String, String> {
    let name = table.name;
    let source = old.iter().find(|source| source.name == name).ok_or_else(|| format!("it has no table {name}"))?;
    let key = |table: &Table| table.key.iter().map(|place| table.columns[*place].name).collect::<Vec<_>>();
    if key(table) != key(source) {
        let (new, old) = (key(table).join(", "), key(source).join(", "));
        return Err(format!("the key of its table {name} is ({old}), that of the new version ({new})"));
    }
    let mut columns = Vec::new();
    for column in table.columns {
        match source.columns.iter().find(|found| found.name == column.name) {
            Some(found) if fits(found, column) => columns.push(quoted(column.name)),
            Some(found) => {
                let of =
                    |column: &Column| format!("{}{:?}", if column.optional { "optional " } else { "" }, column.kind);
                let (found, wanted) = (of(found), of(column));
                return Err(format!("its column {name}.{} is {found}, the new version's {wanted}", column.name));
            }
            None if column.optional => {}
            None => return Err(format!("it has no column {name}.{}, which is not optional", column.name)),
        }
    }
    let (columns, name) = (columns.join(", "), quoted(name));
    Ok(format!("INSERT INTO {name} ({columns}) SELECT {columns} FROM {{source}}.{name}"))
}

fn fits(found: &Column, wanted: &Column) -> bool {
    found.kind == wanted.kind && (wanted.optional || !found.optional)
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use dacapo_store::ColumnKind::{self, Integer, Text};

    const fn column(name: &'static str, kind: ColumnKind, optional: bool) -> Column {
        Column { name, kind, optional }
    }

    const fn table(columns: &'static [Column], key: &'static [usize]) -> Table {
        Table { name: "accounts", columns, key, indexes: &[] }
    }

    const OLD: Table =
        table(&[column("id", Text, false), column("sum", Integer, false), column("note", Text, true)], &[0]);

    #[test]
    fn columns_that_both_have_are_copied() {
        const NEW: Table =
            table(&[column("sum", Integer, true), column("id", Text, false), column("owner", Text, true)], &[1]);
        let copy = statements(&[NEW], &[OLD]).unwrap();
        assert_eq!(
            copy,
            ["INSERT INTO \"accounts\" (\"sum\", \"id\") SELECT \"sum\", \"id\" FROM {source}.\"accounts\""]
        );
    }

    #[test]
    fn what_cannot_be_copied_is_named() {
        let why = |new: Table| statements(&[new], &[OLD]).unwrap_err();
        const OWNER: Table = table(&[column("id", Text, false), column("owner", Text, false)], &[0]);
        assert_eq!(why(OWNER), "it has no column accounts.owner, which is not optional");
        const NOTE: Table = table(&[column("id", Text, false), column("note", Text, false)], &[0]);
        assert_eq!(why(NOTE), "its column accounts.note is optional Text, the new version's Text");
        const SUM: Table = table(&[column("id", Text, false), column("sum", Text, false)], &[0]);
        assert_eq!(why(SUM), "its column accounts.sum is Integer, the new version's Text");
        const KEY: Table = table(&[column("id", Text, false), column("sum", Integer, false)], &[0, 1]);
        assert_eq!(why(KEY), "the key of its table accounts is (id), that of the new version (id, sum)");
        assert_eq!(why(Table { name: "visits", ..OLD }), "it has no table visits");
    }
}

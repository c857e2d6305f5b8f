//! The declaration of a new version that begins as a copy of another one's view instead of reading the past.
//!
//! This module owns the check of the tables. The other rules are in [`dacapo_model::copy`]. The processor makes the copy,
//! as one transaction under its claim that moves every token from the start to the copied one's place.

use std::sync::Arc;

use dacapo_model::{SegmentCount, VersionId, ViewId, copy};
use dacapo_store::{Column, Table, View as StoredView};

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
    copy::fits(&new.code, segments, source_code.map(|source| &source.code), source_segments)?;
    let tables = source_code.map(|source| source.tables).unwrap_or_default();
    match new.options.seed {
        Seed::Never => Err("the code of the new version does not say how: set `seed` in its options".to_owned()),
        Seed::Columns => statements(new.tables, tables).map(drop).map_err(|why| format!("{why} ({source})")),
        Seed::Sql(_) | Seed::Migrate => Ok(()),
    }
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

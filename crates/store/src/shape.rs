//! The rules for the tables of a view, and for the difference between two shapes of a view. Every store uses them.

use dacapo_model::limits;

use crate::error::StoreError;
use crate::table::{Column, Table};

/// The beginning of the names of tables that do not belong to the projection.
pub const RESERVED: &str = "_dacapo_";

/// The column that holds the segment of a row, in a store that keeps it in the row. It is not a column of the table:
/// only SQL that selects all columns shows it.
pub const SEGMENT: &str = "_dacapo_segment";

/// Returns the tables as lines, one for each property that can differ, in the words of an error message.
pub fn describe(tables: &[Table]) -> String {
    let mut lines = Vec::new();
    for table in tables {
        let names =
            |places: &[usize]| places.iter().map(|place| table.columns[*place].name).collect::<Vec<_>>().join(", ");
        lines.push(format!("table {} with key ({})", table.name, names(table.key)));
        for Column { name, kind, optional } in table.columns {
            let optional = if *optional { "optional " } else { "" };
            lines.push(format!("column {}.{name}: {optional}{kind:?}", table.name));
        }
        for index in table.indexes {
            let unique = if index.unique { "unique " } else { "" };
            lines.push(format!("{unique}index {}.{} on ({})", table.name, index.name, names(index.columns)));
        }
    }
    lines.sort();
    lines.join("\n")
}

/// Returns the difference between a stored view and the requested one, each with its number of segments and its
/// tables as text from [`describe`]. Returns `None` if there is no difference.
pub fn difference(stored: (i64, &str), asked: (i64, &str)) -> Option<String> {
    let mut differences = Vec::new();
    if stored.0 != asked.0 {
        differences.push(format!("it has {} segments, the code asks for {}", stored.0, asked.0));
    }
    let only = |these: &str, those: &str| -> Vec<String> {
        these.lines().filter(|line| !those.lines().any(|other| other == *line)).map(str::to_owned).collect()
    };
    differences.extend(only(stored.1, asked.1).into_iter().map(|line| format!("it has {line}")));
    differences.extend(only(asked.1, stored.1).into_iter().map(|line| format!("the code asks for {line}")));
    (!differences.is_empty()).then(|| differences.join("; "))
}

/// Refuses tables that no view can have.
///
/// # Errors
/// [`StoreError::Invalid`], which says what to change.
pub fn check(tables: &[Table]) -> Result<(), StoreError> {
    let same = |a: &str, b: &str| a.eq_ignore_ascii_case(b);
    for (at, table) in tables.iter().enumerate() {
        let refuse = |why: String| Err(StoreError::Invalid(format!("table {}: {why}", table.name)));
        if table.name.is_empty() || table.name.starts_with(RESERVED) || table.name.starts_with("sqlite_") {
            return refuse(format!("choose another name, not empty and not beginning with {RESERVED} or sqlite_"));
        }
        if tables[..at].iter().any(|other| same(other.name, table.name)) {
            return refuse("two tables of the view have this name".into());
        }
        if table.key.is_empty() {
            return refuse("it needs a key: which columns tell its rows apart?".into());
        }
        for (place, column) in table.columns.iter().enumerate() {
            if table.columns[..place].iter().any(|other| same(other.name, column.name)) {
                return refuse(format!("two columns have the name {}", column.name));
            }
            if same(column.name, SEGMENT) {
                return refuse(format!("the name {SEGMENT} is not for columns of a projection"));
            }
        }
        let used = table.key.iter().chain(table.indexes.iter().flat_map(|index| index.columns));
        if let Some(place) = used.into_iter().find(|place| **place >= table.columns.len()) {
            return refuse(format!("its key or an index names column {place} of {}", table.columns.len()));
        }
        let columns_max = limits::INDEX_COLUMNS_MAX;
        if table.key.len() > columns_max {
            return refuse(format!("its key has {} columns, and may have {columns_max}", table.key.len()));
        }
        if let Some(index) = table.indexes.iter().find(|index| index.columns.len() > columns_max) {
            let found = index.columns.len();
            return refuse(format!("index {} has {found} columns, and may have {columns_max}", index.name));
        }
        if let Some(place) = table.key.iter().find(|place| table.columns[**place].optional) {
            return refuse(format!("column {} is part of the key and cannot be optional", table.columns[*place].name));
        }
    }
    Ok(())
}

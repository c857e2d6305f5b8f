//! The declared differences between the rows of two versions, and the resulting comparison of each table.

use std::fmt;
use std::sync::Arc;

use dacapo_store::{ColumnKind, Table, Value};

use crate::row::{Row, RowError};

/// The intended differences between the rows of a version and those of the serving version. Without a declaration,
/// every table and column that both versions have, by name, must have the same rows.
///
/// A declaration for a table or a column that the other version does not have has no effect. So one declaration works
/// with any other version.
///
/// ```
/// use dacapo::verify::{Comparison, TableComparison};
///
/// let comparison = Comparison::new()
///     .without("search_terms")
///     .table(TableComparison::of("accounts").except(["changed"]).renamed("sum", "balance"));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Comparison {
    tables: Vec<TableComparison>,
    without: Vec<&'static str>,
}

/// The intended differences in the rows of one table. See [`Comparison`].
#[derive(Clone)]
pub struct TableComparison {
    table: &'static str,
    old_table: Option<&'static str>,
    except: Vec<&'static str>,
    renamed: Vec<(&'static str, &'static str)>,
    only: Option<KeyFilter>,
    by: Option<By>,
}

type KeyFilter = Arc<dyn Fn(&[Value]) -> bool + Send + Sync>;

/// The differing parts of both rows, in words; `None` if the rows are the same.
pub(crate) type Difference = Option<(String, String)>;

type Differ = dyn Fn(Vec<Value>, Vec<Value>) -> Result<Difference, RowError> + Send + Sync;

/// A comparison of values that are made from the rows.
#[derive(Clone)]
struct By {
    old: Table,
    new: Table,
    differ: Arc<Differ>,
}

impl Comparison {
    /// Returns a comparison without declared differences.
    pub fn new() -> Self {
        Self::default()
    }

    /// Excludes a table from the comparison.
    #[must_use]
    pub fn without(mut self, table: &'static str) -> Self {
        self.without.push(table);
        self
    }

    /// Compares a table in this way.
    #[must_use]
    pub fn table(mut self, table: TableComparison) -> Self {
        self.tables.push(table);
        self
    }
}

impl TableComparison {
    /// Returns the comparison of the table with this name in the new version.
    pub fn of(table: &'static str) -> Self {
        Self { table, old_table: None, except: vec![], renamed: vec![], only: None, by: None }
    }

    /// States the name of the table in the old version.
    #[must_use]
    pub fn was(mut self, table: &'static str) -> Self {
        self.old_table = Some(table);
        self
    }

    /// Excludes these columns of the new version from the comparison.
    #[must_use]
    pub fn except(mut self, columns: impl IntoIterator<Item = &'static str>) -> Self {
        self.except.extend(columns);
        self
    }

    /// States that the column `old` of the old version is `new` in the new one. Columns of the key may have new names,
    /// too.
    #[must_use]
    pub fn renamed(mut self, old: &'static str, new: &'static str) -> Self {
        self.renamed.push((old, new));
        self
    }

    /// Compares only rows for whose keys `wanted` returns true, in both versions.
    #[must_use]
    pub fn only(mut self, wanted: impl Fn(&[Value]) -> bool + Send + Sync + 'static) -> Self {
        self.only = Some(Arc::new(wanted));
        self
    }

    /// Compares whole rows instead of columns: `new` must turn the row of the old version into the row of the new
    /// version with the same key.
    #[must_use]
    pub fn mapped<Old: Row, New: Row + PartialEq + fmt::Debug>(
        self,
        new: impl Fn(Old) -> New + Send + Sync + 'static,
    ) -> Self {
        self.by(new, |row: New| row)
    }

    /// Compares values instead of columns: `old` and `new` each turn the row of their version into a value. The values
    /// for the same key must be equal.
    #[must_use]
    pub fn by<Old: Row, New: Row, T: PartialEq + fmt::Debug>(
        mut self,
        old: impl Fn(Old) -> T + Send + Sync + 'static,
        new: impl Fn(New) -> T + Send + Sync + 'static,
    ) -> Self {
        let differ = move |old_row: Vec<Value>, new_row: Vec<Value>| {
            let (old, new) = (old(Old::from_values(old_row)?), new(New::from_values(new_row)?));
            Ok((old != new).then(|| (format!("{old:?}"), format!("{new:?}"))))
        };
        self.by = Some(By { old: Old::TABLE, new: New::TABLE, differ: Arc::new(differ) });
        self
    }
}

impl fmt::Debug for TableComparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { table, old_table, except, renamed, only, by } = self;
        let mut shown = f.debug_struct("TableComparison");
        shown.field("table", table).field("old_table", old_table).field("except", except).field("renamed", renamed);
        shown.field("only", &only.is_some()).field("by", &by.is_some()).finish()
    }
}

/// Two tables that are compared by rows with the same key.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) old: Table,
    pub(crate) new: Table,
    /// The columns that are compared, as places in both tables.
    columns: Vec<(usize, usize)>,
    only: Option<KeyFilter>,
    by: Option<By>,
}

/// The comparison of the tables of two versions.
#[derive(Default)]
pub(crate) struct Pairs {
    /// The tables that can be compared.
    pub(crate) pairs: Vec<Pair>,
    /// Parts that are not compared, because only one version has them, or by declaration.
    pub(crate) notes: Vec<String>,
    /// Parts that both versions have, but in forms that cannot be compared.
    pub(crate) unlike: Vec<String>,
}

/// Returns the tables that can be compared, and the reasons for the others.
pub(crate) fn pairs(old: &[Table], new: &[Table], comparison: &Comparison) -> Pairs {
    let Pairs { mut pairs, mut notes, mut unlike } = Pairs::default();
    let declared = |name: &str| comparison.tables.iter().rev().find(|table| table.table == name);
    let mut matched = Vec::new();
    for table in new {
        let plain = TableComparison::of(table.name);
        let declared = declared(table.name).unwrap_or(&plain);
        let find = |name: &str| old.iter().find(|old| old.name == name);
        let found = declared.old_table.and_then(find).or_else(|| find(table.name));
        matched.extend(found.map(|found| found.name));
        match found {
            _ if comparison.without.contains(&table.name) => {
                notes.push(format!("table {} is not compared, as declared", table.name));
            }
            None => notes.push(format!("table {} is new", table.name)),
            Some(found) => pairs.extend(pair(found, table, declared, &mut notes, &mut unlike)),
        }
    }
    let gone = old.iter().filter(|table| !matched.contains(&table.name) && !comparison.without.contains(&table.name));
    notes.extend(gone.map(|table| format!("table {} is gone", table.name)));
    Pairs { pairs, notes, unlike }
}

fn pair(
    old: &Table,
    new: &Table,
    declared: &TableComparison,
    notes: &mut Vec<String>,
    unlike: &mut Vec<String>,
) -> Option<Pair> {
    let old_name = |name: &'static str| {
        let renamed = declared.renamed.iter().find(|(_, new)| *new == name).map(|(old, _)| *old);
        renamed.filter(|old_name| place(old, old_name).is_some()).unwrap_or(name)
    };
    let key = |table: &Table, name: &dyn Fn(&'static str) -> &'static str| -> Vec<(&'static str, ColumnKind)> {
        table.key.iter().map(|at| (name(table.columns[*at].name), table.columns[*at].kind)).collect()
    };
    let (old_key, new_key) = (key(old, &|name| name), key(new, &old_name));
    if old_key != new_key {
        let list = |key: &[(&str, ColumnKind)]| {
            key.iter().map(|(name, kind)| format!("{name}: {kind:?}")).collect::<Vec<_>>().join(", ")
        };
        let (old_key, new_key) = (list(&old_key), list(&new_key));
        unlike.push(format!("table {} cannot be compared: its key was ({old_key}) and is ({new_key})", new.name));
        return None;
    }
    let by = declared.by.clone().filter(|by| same_shape(&by.old, old) && same_shape(&by.new, new));
    let mut columns = Vec::new();
    for (at, column) in new.columns.iter().enumerate().filter(|(at, _)| by.is_none() && !new.key.contains(at)) {
        let name = format!("column {}.{}", new.name, column.name);
        if declared.except.contains(&column.name) {
            notes.push(format!("{name} is not compared, as declared"));
            continue;
        }
        match place(old, old_name(column.name)) {
            None => notes.push(format!("{name} is new")),
            Some(found) if old.columns[found].kind != column.kind => {
                let (was, is) = (old.columns[found].kind, column.kind);
                unlike.push(format!("{name} cannot be compared: it was {was:?} and is {is:?}"));
            }
            Some(found) => columns.push((found, at)),
        }
    }
    let taken = |at: &usize| old.key.contains(at) || columns.iter().any(|(old, _)| old == at);
    let gone = (0..old.columns.len()).filter(|at| by.is_none() && !taken(at)).map(|at| old.columns[at].name);
    let known = |name: &&str| {
        let same = new.columns.iter().any(|column| column.name == *name);
        !same && !declared.renamed.iter().any(|(old, _)| old == name)
    };
    notes.extend(gone.filter(known).map(|name| format!("column {}.{name} is gone", old.name)));
    if by.is_some() {
        notes.push(format!("table {} is compared by the declared values of its rows", new.name));
    }
    if declared.only.is_some() {
        notes.push(format!("of table {} only the rows that are declared are compared", new.name));
    }
    Some(Pair { old: *old, new: *new, columns, only: declared.only.clone(), by })
}

fn place(table: &Table, name: &str) -> Option<usize> {
    table.columns.iter().position(|column| column.name == name)
}

fn same_shape(a: &Table, b: &Table) -> bool {
    a.name == b.name && a.columns == b.columns && a.key == b.key
}

impl Pair {
    /// Returns true if rows with this key are compared.
    pub(crate) fn wants(&self, key: &[Value]) -> bool {
        self.only.as_ref().is_none_or(|only| only(key))
    }

    /// Returns the columns in which two rows with the same key differ.
    pub(crate) fn differ(&self, old: &[Value], new: &[Value]) -> Result<Difference, RowError> {
        if let Some(by) = &self.by {
            return (by.differ)(old.to_vec(), new.to_vec());
        }
        let differing = self.columns.iter().filter(|(was, is)| !same(&old[*was], &new[*is]));
        let (was, is): (Vec<_>, Vec<_>) = differing.copied().unzip();
        let show = |table: &Table, row: &[Value], columns: &[usize]| {
            let column = |at: &usize| format!("{} {}", table.columns[*at].name, row[*at]);
            columns.iter().map(column).collect::<Vec<_>>().join(", ")
        };
        Ok((!was.is_empty()).then(|| (show(&self.old, old, &was), show(&self.new, new, &is))))
    }

    /// Returns the compared columns of an old row.
    pub(crate) fn show_old(&self, row: &[Value]) -> String {
        self.show(&self.old, row, |pair| pair.0)
    }

    /// Returns the compared columns of a new row.
    pub(crate) fn show_new(&self, row: &[Value]) -> String {
        self.show(&self.new, row, |pair| pair.1)
    }

    fn show(&self, table: &Table, row: &[Value], side: impl Fn(&(usize, usize)) -> usize) -> String {
        let all: Vec<usize> = match &self.by {
            Some(_) => (0..table.columns.len()).filter(|at| !table.key.contains(at)).collect(),
            None => self.columns.iter().map(side).collect(),
        };
        let column = |at: &usize| format!("{} {}", table.columns[*at].name, row[*at]);
        // A row with only a key exists, and there is nothing else to show.
        if all.is_empty() { "there".to_owned() } else { all.iter().map(column).collect::<Vec<_>>().join(", ") }
    }
}

/// Returns true if two values are the same to a reader. JSON documents are compared by content, not by text.
pub(crate) fn same(a: &Value, b: &Value) -> bool {
    let document = |text: &str| serde_json::from_str::<serde_json::Value>(text).ok();
    match (a, b) {
        (Value::Json(a), Value::Json(b)) => a == b || document(a).is_some_and(|a| Some(a) == document(b)),
        (a, b) => a == b,
    }
}

/// Returns a key in a readable form.
pub(crate) fn show_key(key: &[Value]) -> String {
    key.iter().map(Value::to_string).collect::<Vec<_>>().join(", ")
}

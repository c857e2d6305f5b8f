//! Tables and values, as stores see them: untyped rows of named columns.

use dacapo_model::Timestamp;

/// The kind of values in a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ColumnKind {
    /// UTF-8 text.
    Text,
    /// A signed integer of 64 bits.
    Integer,
    /// A float of 64 bits.
    Float,
    /// True or false.
    Boolean,
    /// Bytes.
    Bytes,
    /// A time, to the microsecond.
    Time,
    /// A UUID.
    Uuid,
    /// A JSON document.
    Json,
}

/// A column of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Column {
    /// Its name.
    pub name: &'static str,
    /// The kind of its values.
    pub kind: ColumnKind,
    /// Whether a row may be without a value.
    pub optional: bool,
}

/// A secondary index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Index {
    /// Its name, unique in its table.
    pub name: &'static str,
    /// Its columns, as places in [`Table::columns`].
    pub columns: &'static [usize],
    /// Whether no two rows may have the same values in them.
    pub unique: bool,
}

/// A table of a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Table {
    /// Its name.
    pub name: &'static str,
    /// Its columns.
    pub columns: &'static [Column],
    /// The columns of its primary key, as places in `columns`; at least one.
    pub key: &'static [usize],
    /// Its secondary indexes.
    pub indexes: &'static [Index],
}

/// A value in a row or a parameter of a statement.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// No value.
    Null,
    /// UTF-8 text.
    Text(String),
    /// A signed integer.
    Integer(i64),
    /// A float.
    Float(f64),
    /// True or false.
    Boolean(bool),
    /// Bytes.
    Bytes(Vec<u8>),
    /// A time.
    Time(Timestamp),
    /// A UUID, in the order of RFC 9562.
    Uuid([u8; 16]),
    /// A JSON document as text.
    Json(String),
}

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

macro_rules! value_from {
    ($($ty:ty, $from:ident => $value:expr;)*) => {
        $(impl From<$ty> for Value {
            fn from($from: $ty) -> Self {
                $value
            }
        })*
    };
}

value_from! {
    &str, text => Self::Text(text.to_owned());
    String, text => Self::Text(text);
    &String, text => Self::Text(text.clone());
    bool, truth => Self::Boolean(truth);
    i8, number => Self::Integer(number.into());
    i16, number => Self::Integer(number.into());
    i32, number => Self::Integer(number.into());
    i64, number => Self::Integer(number);
    u8, number => Self::Integer(number.into());
    u16, number => Self::Integer(number.into());
    u32, number => Self::Integer(number.into());
    f32, number => Self::Float(number.into());
    f64, number => Self::Float(number);
    Vec<u8>, bytes => Self::Bytes(bytes);
    &[u8], bytes => Self::Bytes(bytes.to_vec());
    Timestamp, time => Self::Time(time);
    // Rounded towards the past, before 1970 as after it, so that order is kept.
    jiff::Timestamp, time => Self::Time(Timestamp::from_micros(
        i64::try_from(time.as_nanosecond().div_euclid(1_000)).expect("the years of a timestamp fit in microseconds"),
    ));
    uuid::Uuid, id => Self::Uuid(id.into_bytes());
}

impl<T: Into<Self>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

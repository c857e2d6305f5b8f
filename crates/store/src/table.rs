//! Tables and values in the form in which stores use them: untyped rows of named columns.

use std::cmp::Ordering;
use std::fmt;
use std::ops::RangeInclusive;

use dacapo_model::{Timestamp, limits};

use crate::error::StoreError;

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
    /// True if a row may have no value in it.
    pub optional: bool,
}

/// A secondary index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Index {
    /// Its name, unique in its table.
    pub name: &'static str,
    /// Its columns, as places in [`Table::columns`].
    pub columns: &'static [usize],
    /// True if no two rows may have the same values in its columns.
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

impl Table {
    /// Returns the key of a row, in the order of [`key`](Self::key).
    pub fn key_of(&self, row: &[Value]) -> Vec<Value> {
        self.key.iter().map(|place| row[*place].clone()).collect()
    }

    /// Returns the order of two rows by their keys.
    pub fn row_order(&self, a: &[Value], b: &[Value]) -> Ordering {
        let mut orders = self.key.iter().map(|place| a[*place].key_order(&b[*place]));
        orders.find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
    }

    /// Refuses a row with a value that does not fit its column.
    ///
    /// # Errors
    /// [`StoreError::Invalid`], which names the column.
    ///
    /// # Panics
    /// If the row does not have one value for each column.
    pub fn check_row(&self, row: &[Value]) -> Result<(), StoreError> {
        assert_eq!(row.len(), self.columns.len(), "a row of table {} has a value a column", self.name);
        for (column, value) in self.columns.iter().zip(row) {
            if !(value.fits(column.kind) || column.optional && *value == Value::Null) {
                return Err(StoreError::Invalid(format!(
                    "column {}.{} is {:?}{}, and was given {value:?}",
                    self.name,
                    column.name,
                    column.kind,
                    if column.optional { " or nothing" } else { "" },
                )));
            }
        }
        Ok(())
    }
}

impl Value {
    /// The times that a store accepts, in microseconds since 1970: those of years with four digits, 0000-01-01
    /// through 9999-12-30, so that their texts sort as the times do.
    pub const TIME_MICROS: RangeInclusive<i64> = -62_167_219_200_000_000..=253_402_207_200_000_000;

    /// Returns true if a column of this kind may hold it.
    pub fn fits(&self, kind: ColumnKind) -> bool {
        matches!(
            (kind, self),
            (ColumnKind::Text, Self::Text(_))
                | (ColumnKind::Integer, Self::Integer(_))
                | (ColumnKind::Float, Self::Float(_))
                | (ColumnKind::Boolean, Self::Boolean(_))
                | (ColumnKind::Bytes, Self::Bytes(_))
                | (ColumnKind::Time, Self::Time(_))
                | (ColumnKind::Uuid, Self::Uuid(_))
                | (ColumnKind::Json, Self::Json(_))
        )
    }

    /// Refuses a value that no store accepts: NaN has no place in an order, and times have bounds.
    ///
    /// # Errors
    /// The fault of the value.
    pub fn check(&self) -> Result<(), String> {
        match self {
            Self::Float(number) if number.is_nan() => Err("NaN cannot be stored".into()),
            Self::Time(time) if !Self::TIME_MICROS.contains(&time.micros()) => {
                Err(format!("{} microseconds since 1970 is not in the years 0000 through 9999", time.micros()))
            }
            _ => Ok(()),
        }
    }

    /// Returns the bytes that it counts in a key or an index, towards [`limits::INDEX_BYTES_MAX`].
    pub fn index_bytes(&self) -> usize {
        match self {
            Self::Text(text) | Self::Json(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
            _ => limits::INDEX_VALUE_BYTES,
        }
    }

    /// Returns the order of two values of one column of a key. Every store keeps rows in this order: numbers and
    /// times by size; text, JSON and bytes by their bytes. Keys have no [`Null`](Self::Null).
    pub fn key_order(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Text(a), Self::Text(b)) | (Self::Json(a), Self::Json(b)) => a.as_bytes().cmp(b.as_bytes()),
            (Self::Integer(a), Self::Integer(b)) => a.cmp(b),
            (Self::Float(a), Self::Float(b)) => a.partial_cmp(b).unwrap_or(Ordering::Equal),
            (Self::Boolean(a), Self::Boolean(b)) => a.cmp(b),
            (Self::Bytes(a), Self::Bytes(b)) => a.cmp(b),
            (Self::Time(a), Self::Time(b)) => a.cmp(b),
            (Self::Uuid(a), Self::Uuid(b)) => a.cmp(b),
            // Of one column, all are of one kind.
            _ => Ordering::Equal,
        }
    }

    /// Returns about how many bytes it takes.
    pub fn bytes(&self) -> usize {
        let more = match self {
            Self::Text(text) | Self::Json(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
            _ => 0,
        };
        size_of::<Self>() + more
    }
}

/// As a person writes it: text without quotes, bytes in hex, a time as in RFC 3339.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("none"),
            Self::Text(text) | Self::Json(text) => f.write_str(text),
            Self::Integer(number) => number.fmt(f),
            Self::Float(number) => number.fmt(f),
            Self::Boolean(truth) => truth.fmt(f),
            Self::Bytes(bytes) => bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
            Self::Time(time) => match jiff::Timestamp::from_microsecond(time.micros()) {
                Ok(time) => time.fmt(f),
                Err(_) => write!(f, "{} µs", time.micros()),
            },
            Self::Uuid(bytes) => uuid::Uuid::from_bytes(*bytes).fmt(f),
        }
    }
}

/// Returns the order of two keys, column by column, as [`Value::key_order`] defines it.
pub fn key_order(a: &[Value], b: &[Value]) -> Ordering {
    a.iter().zip(b).map(|(a, b)| a.key_order(b)).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
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
    uuid::Uuid, id => Self::Uuid(id.into_bytes());
}

impl From<jiff::Timestamp> for Value {
    /// Rounded towards the past, before 1970 as after it, so that order is kept.
    #[expect(clippy::expect_used, reason = "the years of a timestamp fit in microseconds")]
    fn from(time: jiff::Timestamp) -> Self {
        let micros = time.as_nanosecond().div_euclid(1_000);
        Self::Time(Timestamp::from_micros(i64::try_from(micros).expect("the years of a timestamp fit in microseconds")))
    }
}

impl<T: Into<Self>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

#[cfg(test)]
mod tests {
    use dacapo_model::Timestamp;

    use super::Value;

    #[test]
    fn a_value_is_shown_as_a_person_writes_it() {
        let shown = |value: Value| value.to_string();
        assert_eq!(shown(Value::Text("c1".into())), "c1");
        assert_eq!(shown(Value::Time(Timestamp::from_micros(86_400_000_000))), "1970-01-02T00:00:00Z");
        assert_eq!(shown(Value::Bytes(vec![1, 255])), "01ff");
        assert_eq!(shown(Value::Uuid([0; 16])), "00000000-0000-0000-0000-000000000000");
        assert_eq!(shown(Value::Null), "none");
    }
}

//! Rows as types: a struct is a row of a table, its fields are real columns.

use std::any::Any;
use std::fmt;
use std::hash::Hash;
use std::panic::AssertUnwindSafe;

use dacapo_model::{Timestamp, limits};
use dacapo_store::{ColumnKind, Table, Value};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::panics::panic_text;

/// A row of a table of a view. Derive it:
///
/// ```
/// use dacapo::Row;
///
/// #[derive(Clone, Row)]
/// #[row(table = "accounts")]
/// struct Account {
///     #[row(key)]
///     id: String,
///     #[row(index)]
///     owner: String,
///     balance: i64,
///     closed: Option<jiff::Timestamp>,
/// }
///
/// assert_eq!(Account::TABLE.columns[2].name, "balance");
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a row",
    label = "`Row` is missing",
    note = "add `#[derive(Clone, Row)]` to the struct"
)]
pub trait Row: Clone + Send + Sync + 'static {
    /// The table of this row type.
    const TABLE: Table;

    /// The type of the key, which identifies a row: the type of the key's field, or a tuple of several.
    type Key: Hash + Eq + Clone + fmt::Debug + Send + Sync + 'static;

    /// True if every store returns each row of this type unchanged. Otherwise a row is converted to its stored form
    /// after each event.
    const EXACT: bool = false;

    /// The same for its keys.
    const KEY_EXACT: bool = false;

    /// Returns the row's key.
    fn key(&self) -> Self::Key;

    /// Returns true if `key` is the row's key, without making one.
    fn has_key(&self, key: &Self::Key) -> bool {
        self.key() == *key
    }

    /// Returns the key as values, in the order of [`Table::key`].
    ///
    /// # Errors
    /// [`RowError`] if a store cannot keep one of them.
    fn key_values(key: &Self::Key) -> Result<Vec<Value>, RowError>;

    /// Returns the key as a store returns it, such as a time cut to the precision of its column. Rows are known by this
    /// key.
    ///
    /// # Errors
    /// [`RowError`] if a store cannot keep it.
    fn kept_key(key: Self::Key) -> Result<Self::Key, RowError>;

    /// Returns the row as values, in the order of [`Table::columns`].
    ///
    /// # Errors
    /// [`RowError`] if a store cannot keep one of them.
    fn to_values(&self) -> Result<Vec<Value>, RowError>;

    /// Returns the row of these values.
    ///
    /// # Errors
    /// [`RowError`] if one of them is not of the row's type.
    fn from_values(values: Vec<Value>) -> Result<Self, RowError>;

    /// Returns the value of one column, as in [`to_values`](Self::to_values). `place` is one of [`Table::columns`].
    ///
    /// # Errors
    /// [`RowError`] if a store cannot keep it.
    fn column_value(&self, place: usize) -> Result<Value, RowError> {
        Ok(self.to_values()?.swap_remove(place))
    }

    /// Returns the bytes that the value counts in a key or an index ([`Value::index_bytes`]), without making the value
    /// if possible.
    fn column_bytes(&self, place: usize) -> usize {
        self.column_value(place).map_or(0, |value| value.index_bytes())
    }

    /// Checks that every store can keep the row, without making its values if possible. It is called after each event
    /// that wrote the row. The derive leaves columns that are stored as JSON to [`keep`](Self::keep).
    ///
    /// # Errors
    /// [`RowError`] if one cannot.
    fn check_values(&self) -> Result<(), RowError> {
        self.to_values().map(drop)
    }

    /// Converts the row to the form that a store returns, so that the next event finds the same row in memory and in
    /// the store. It is called at the end of each event that wrote the row.
    ///
    /// # Errors
    /// [`RowError`] if a store cannot keep the row, or if what it returns is not of the row's type.
    fn keep(&mut self) -> Result<(), RowError> {
        *self = Self::from_values(self.to_values()?.into_iter().map(kept).collect())?;
        Ok(())
    }
}

/// A type whose values fit one column. Implement it for your own type through a type that has it:
///
/// ```
/// use dacapo::rows::{ColumnKind, Field, FieldError, Value};
///
/// struct Iban(String);
///
/// impl Field for Iban {
///     const KIND: ColumnKind = String::KIND;
///
///     fn to_value(&self) -> Result<Value, FieldError> {
///         self.0.to_value()
///     }
///
///     fn from_value(value: Value) -> Result<Self, FieldError> {
///         String::from_value(value).map(Self)
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the value of a column",
    label = "no column holds this type",
    note = "let serde store it as JSON with `#[row(json)]`, or implement `Field` for a type of your own"
)]
pub trait Field: Sized {
    /// The kind of the column.
    const KIND: ColumnKind;
    /// True if a row may have no value.
    const OPTIONAL: bool = false;
    /// True if every store returns each value of this type unchanged. From other types, handlers get the result of
    /// [`from_value`](Self::from_value) of [`to_value`](Self::to_value) from the next event on.
    const EXACT: bool = false;

    /// Returns the value in its stored form.
    ///
    /// # Errors
    /// [`FieldError`] if a store cannot keep it.
    fn to_value(&self) -> Result<Value, FieldError>;

    /// Returns the value of a stored form.
    ///
    /// # Errors
    /// [`FieldError`] if it is not of this type.
    fn from_value(value: Value) -> Result<Self, FieldError>;

    /// Checks that every store can keep the value. It is called after each event, so types for which the answer is
    /// known return it without making the value.
    ///
    /// # Errors
    /// [`FieldError`] if one cannot.
    fn check_value(&self) -> Result<(), FieldError> {
        match self.to_value()? {
            Value::Text(own) => text(&own).map_err(FieldError),
            value => value.check().map_err(FieldError),
        }
    }

    /// Returns the bytes that the value counts in a key or an index ([`Value::index_bytes`]).
    fn value_bytes(&self) -> usize {
        self.to_value().map_or(0, |value| value.index_bytes())
    }
}

/// The reason why a value does not fit a column.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FieldError(pub String);

/// The reason why a row does not fit its table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("column {table}.{column}: {reason}")]
pub struct RowError {
    /// The table.
    pub table: &'static str,
    /// The column.
    pub column: &'static str,
    /// The fault of its value.
    pub reason: FieldError,
}

impl FieldError {
    /// Returns the error for a value of another kind than the column's.
    fn unexpected(wanted: &str, value: &Value) -> Self {
        Self(format!("expected {wanted}, found {value:?}"))
    }
}

/// Implements [`Field`] for a type that has its own kind of value. `exact` is true if the type converts without loss,
/// `check` checks that a value can be kept, and `bytes` is its size in an index.
macro_rules! field {
    ($($ty:ty, $kind:ident, $exact:literal, $own:ident => $value:expr, $stored:ident => $back:expr, $check:expr, $bytes:expr;)*) => {
        $(impl Field for $ty {
            const KIND: ColumnKind = ColumnKind::$kind;
            const EXACT: bool = $exact;

            fn to_value(&self) -> Result<Value, FieldError> {
                let $own = self;
                Ok(Value::$kind($value))
            }

            fn from_value(value: Value) -> Result<Self, FieldError> {
                match value {
                    Value::$kind($stored) => Ok($back),
                    other => Err(FieldError::unexpected(stringify!($ty), &other)),
                }
            }

            fn check_value(&self) -> Result<(), FieldError> {
                let check: fn(&Self) -> Result<(), String> = $check;
                check(self).map_err(FieldError)
            }

            fn value_bytes(&self) -> usize {
                let bytes: fn(&Self) -> usize = $bytes;
                bytes(self)
            }
        })*
    };
}

const ONE: usize = limits::INDEX_VALUE_BYTES;

field! {
    String, Text, true, own => own.clone(), stored => stored, |own| text(own), |own| own.len();
    bool, Boolean, true, own => *own, stored => stored, |_| Ok(()), |_| ONE;
    // Stores need not distinguish the two zeros.
    f64, Float, false, own => *own, stored => stored, |own| Value::Float(*own).check(), |_| ONE;
    // Every f32 is an f64, and returns unchanged.
    f32, Float, false, own => f64::from(*own), stored => stored as f32, |own| Value::Float((*own).into()).check(), |_| ONE;
    Vec<u8>, Bytes, true, own => own.clone(), stored => stored, |_| Ok(()), |own| own.len();
    uuid::Uuid, Uuid, true, own => own.into_bytes(), stored => uuid::Uuid::from_bytes(stored), |_| Ok(()), |_| ONE;
    Timestamp, Time, true, own => *own, stored => stored, |own| Value::Time(*own).check(), |_| ONE;
}

/// Refuses text that some store cannot keep.
fn text(text: &str) -> Result<(), String> {
    if !text.contains('\0') {
        return Ok(());
    }
    Err("no store keeps text with the character U+0000: leave it out, or make the column bytes".to_owned())
}

/// Integers that fit the 64 signed bits of a column.
macro_rules! integers {
    ($($ty:ty)*) => {
        $(impl Field for $ty {
            const KIND: ColumnKind = ColumnKind::Integer;
            const EXACT: bool = true;

            fn to_value(&self) -> Result<Value, FieldError> {
                let number = i64::try_from(*self);
                number.map(Value::Integer).map_err(|_| FieldError(format!("{self} is more than a column holds, {}", i64::MAX)))
            }

            fn from_value(value: Value) -> Result<Self, FieldError> {
                let Value::Integer(number) = value else {
                    return Err(FieldError::unexpected(stringify!($ty), &value));
                };
                number.try_into().map_err(|_| FieldError::unexpected(stringify!($ty), &value))
            }

            fn check_value(&self) -> Result<(), FieldError> {
                self.to_value().map(drop)
            }

            fn value_bytes(&self) -> usize {
                ONE
            }
        })*
    };
}

integers!(i8 i16 i32 i64 isize u8 u16 u32 u64 usize);

/// Precise to the microsecond, as columns are. Finer parts are rounded towards the past.
impl Field for jiff::Timestamp {
    const KIND: ColumnKind = ColumnKind::Time;

    fn to_value(&self) -> Result<Value, FieldError> {
        Ok(Value::from(*self))
    }

    fn from_value(value: Value) -> Result<Self, FieldError> {
        match value {
            Value::Time(time) => Self::from_microsecond(time.micros()).map_err(|error| FieldError(error.to_string())),
            other => Err(FieldError::unexpected("a time", &other)),
        }
    }
}

impl Field for serde_json::Value {
    const KIND: ColumnKind = ColumnKind::Json;

    fn to_value(&self) -> Result<Value, FieldError> {
        Ok(Value::Json(self.to_string()))
    }

    fn from_value(value: Value) -> Result<Self, FieldError> {
        json(value)
    }

    // serde_json can write every value that it has read or made.
    fn check_value(&self) -> Result<(), FieldError> {
        Ok(())
    }
}

impl<T: Field> Field for Option<T> {
    const KIND: ColumnKind = T::KIND;
    const OPTIONAL: bool = {
        assert!(!T::OPTIONAL, "a column cannot tell None from Some(None)");
        true
    };
    const EXACT: bool = T::EXACT;

    fn to_value(&self) -> Result<Value, FieldError> {
        self.as_ref().map_or(Ok(Value::Null), Field::to_value)
    }

    fn from_value(value: Value) -> Result<Self, FieldError> {
        if value == Value::Null { Ok(None) } else { T::from_value(value).map(Some) }
    }

    fn check_value(&self) -> Result<(), FieldError> {
        self.as_ref().map_or(Ok(()), Field::check_value)
    }

    fn value_bytes(&self) -> usize {
        self.as_ref().map_or(0, Field::value_bytes)
    }
}

fn json<T: DeserializeOwned>(value: Value) -> Result<T, FieldError> {
    match value {
        Value::Json(text) => serde_json::from_str(&text).map_err(|error| FieldError(error.to_string())),
        other => Err(FieldError::unexpected("JSON", &other)),
    }
}

/// Returns a field as the value of its column.
#[doc(hidden)]
pub fn to_column<T: Field>(field: &T, table: &'static str, column: &'static str) -> Result<Value, RowError> {
    written(table, column, || field.to_value())
}

/// Returns a field of any type as JSON.
#[doc(hidden)]
pub fn to_json<T: Serialize>(field: &T, table: &'static str, column: &'static str) -> Result<Value, RowError> {
    let text = || serde_json::to_string(field).map_err(|error| FieldError(error.to_string()));
    written(table, column, || text().map(Value::Json))
}

/// Returns the value of a field. This runs at the commit of the batch, where nothing else would catch a panic.
fn written(
    table: &'static str,
    column: &'static str,
    write: impl FnOnce() -> Result<Value, FieldError>,
) -> Result<Value, RowError> {
    let panicked = |panic: Box<dyn Any + Send>| Err(FieldError(format!("it panicked: {}", panic_text(&*panic))));
    let value = std::panic::catch_unwind(AssertUnwindSafe(write)).unwrap_or_else(panicked);
    value.map_err(|reason| RowError { table, column, reason })
}

/// Returns the value as every store returns it: the two zeros are one.
fn kept(value: Value) -> Value {
    if let Value::Float(number) = value { Value::Float(number + 0.0) } else { value }
}

/// Converts a field to the form that a store returns.
#[doc(hidden)]
pub fn keep_column<T: Field>(field: &mut T, table: &'static str, column: &'static str) -> Result<(), RowError> {
    if T::EXACT {
        return Ok(());
    }
    let value = kept(to_column(field, table, column)?);
    // One value may have several texts in JSON.
    let once = (T::KIND != ColumnKind::Json).then(|| value.clone());
    let back: T = from_column(Some(value), table, column)?;
    if let Some(once) = once {
        let again = to_column(&back, table, column)?;
        if again != once {
            let why = format!("it is stored as {once:?}, which is read as a value that would be stored as {again:?}");
            return Err(RowError { table, column, reason: FieldError(why) });
        }
    }
    *field = back;
    Ok(())
}

/// Converts a field that is stored as JSON to the form that a store returns.
#[doc(hidden)]
pub fn keep_json<T: Serialize + DeserializeOwned>(
    field: &mut T,
    table: &'static str,
    column: &'static str,
) -> Result<(), RowError> {
    *field = from_json(Some(to_json(field, table, column)?), table, column)?;
    Ok(())
}

/// Checks that every store can keep a field.
#[doc(hidden)]
pub fn check_column<T: Field>(field: &T, table: &'static str, column: &'static str) -> Result<(), RowError> {
    field.check_value().map_err(|reason| RowError { table, column, reason })
}

/// Returns the field of a column's value.
#[doc(hidden)]
pub fn from_column<T: Field>(value: Option<Value>, table: &'static str, column: &'static str) -> Result<T, RowError> {
    present(value).and_then(T::from_value).map_err(|reason| RowError { table, column, reason })
}

/// Returns the field of a column of JSON.
#[doc(hidden)]
pub fn from_json<T: DeserializeOwned>(
    value: Option<Value>,
    table: &'static str,
    column: &'static str,
) -> Result<T, RowError> {
    present(value).and_then(json).map_err(|reason| RowError { table, column, reason })
}

fn present(value: Option<Value>) -> Result<Value, FieldError> {
    value.ok_or_else(|| FieldError("the row has fewer values than the table has columns".into()))
}

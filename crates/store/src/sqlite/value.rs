//! Values as SQLite stores them, and back.

use dacapo_model::Timestamp;
use jiff::fmt::temporal::DateTimePrinter;
use rusqlite::types::{ToSql, ToSqlOutput, Value as Stored, ValueRef};

use crate::table::{ColumnKind, Value};

/// Fixed width, so that text sorts as time does.
const TIME: DateTimePrinter = DateTimePrinter::new().precision(Some(6));
/// Text of four-digit years only is of fixed width: 0000-01-01 and 9999-12-30, which is where jiff ends.
const TIME_MICROS: std::ops::RangeInclusive<i64> = -62_167_219_200_000_000..=253_402_207_200_000_000;

/// A value as a parameter of a statement.
pub(super) struct Parameter<'a>(pub(super) &'a Value);

impl ToSql for Parameter<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self.0 {
            Value::Null => ToSqlOutput::Borrowed(ValueRef::Null),
            Value::Text(text) | Value::Json(text) => ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes())),
            Value::Integer(number) => ToSqlOutput::Borrowed(ValueRef::Integer(*number)),
            // SQLite would store NULL without a word.
            Value::Float(number) if number.is_nan() => return Err(unstorable("NaN cannot be stored")),
            Value::Float(number) => ToSqlOutput::Borrowed(ValueRef::Real(*number)),
            Value::Boolean(truth) => ToSqlOutput::Borrowed(ValueRef::Integer(i64::from(*truth))),
            Value::Bytes(bytes) => ToSqlOutput::Borrowed(ValueRef::Blob(bytes)),
            Value::Time(time) => ToSqlOutput::Owned(Stored::Text(time_text(*time)?)),
            Value::Uuid(bytes) => ToSqlOutput::Owned(Stored::Text(uuid::Uuid::from_bytes(*bytes).to_string())),
        })
    }
}

fn unstorable(why: impl Into<String>) -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure(why.into().into())
}

fn time_text(time: Timestamp) -> rusqlite::Result<String> {
    let micros = time.micros();
    if !TIME_MICROS.contains(&micros) {
        return Err(unstorable(format!("{micros} microseconds since 1970 is not in the years 0000 through 9999")));
    }
    let time = jiff::Timestamp::from_microsecond(micros).expect("within the years that were checked");
    Ok(TIME.timestamp_to_string(&time))
}

/// Whether a column of this kind may hold the value.
pub(super) fn fits(kind: ColumnKind, value: &Value) -> bool {
    matches!(
        (kind, value),
        (ColumnKind::Text, Value::Text(_))
            | (ColumnKind::Integer, Value::Integer(_))
            | (ColumnKind::Float, Value::Float(_))
            | (ColumnKind::Boolean, Value::Boolean(_))
            | (ColumnKind::Bytes, Value::Bytes(_))
            | (ColumnKind::Time, Value::Time(_))
            | (ColumnKind::Uuid, Value::Uuid(_))
            | (ColumnKind::Json, Value::Json(_))
    )
}

/// The value of a column of this kind, or what is wrong with what is stored.
pub(super) fn from_column(kind: ColumnKind, stored: ValueRef<'_>) -> Result<Value, String> {
    let unexpected = || format!("a value of kind {kind:?} is stored as {stored:?}");
    match (kind, stored) {
        (_, ValueRef::Null) => Ok(Value::Null),
        (ColumnKind::Integer, ValueRef::Integer(number)) => Ok(Value::Integer(number)),
        (ColumnKind::Boolean, ValueRef::Integer(number @ (0 | 1))) => Ok(Value::Boolean(number == 1)),
        (ColumnKind::Float, ValueRef::Real(number)) => Ok(Value::Float(number)),
        (ColumnKind::Bytes, ValueRef::Blob(bytes)) => Ok(Value::Bytes(bytes.to_vec())),
        (ColumnKind::Text, ValueRef::Text(text)) => string(text).map(Value::Text),
        (ColumnKind::Json, ValueRef::Text(text)) => string(text).map(Value::Json),
        (ColumnKind::Uuid, ValueRef::Text(text)) => {
            uuid::Uuid::try_parse_ascii(text).map(|id| Value::Uuid(id.into_bytes())).map_err(|_| unexpected())
        }
        (ColumnKind::Time, ValueRef::Text(text)) => {
            let time: jiff::Timestamp = string(text)?.parse().map_err(|_| unexpected())?;
            Ok(Value::Time(Timestamp::from_micros(time.as_microsecond())))
        }
        _ => Err(unexpected()),
    }
}

/// The value of a column of a query, of which nothing but SQLite's own type is known.
pub(super) fn from_query(stored: ValueRef<'_>) -> Result<Value, String> {
    Ok(match stored {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => Value::Integer(number),
        ValueRef::Real(number) => Value::Float(number),
        ValueRef::Text(text) => Value::Text(string(text)?),
        ValueRef::Blob(bytes) => Value::Bytes(bytes.to_vec()),
    })
}

fn string(text: &[u8]) -> Result<String, String> {
    std::str::from_utf8(text).map(str::to_owned).map_err(|error| format!("text that is not UTF-8: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_text_of_one_width_that_sorts() {
        let texts: Vec<String> = [*TIME_MICROS.start(), -1, 0, 1_700_000_000_000_001, *TIME_MICROS.end()]
            .map(|micros| time_text(Timestamp::from_micros(micros)).unwrap())
            .into();
        assert_eq!(texts[2], "1970-01-01T00:00:00.000000Z");
        assert!(texts.iter().all(|text| text.len() == 27), "{texts:?}");
        assert!(texts.is_sorted(), "{texts:?}");
        assert!(time_text(Timestamp::from_micros(i64::MAX)).unwrap_err().to_string().contains("9999"));
    }
}

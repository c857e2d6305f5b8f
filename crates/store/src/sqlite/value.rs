//! Values as SQLite stores them, and back.

use dacapo_model::Timestamp;
use jiff::fmt::temporal::DateTimePrinter;
use rusqlite::types::{ToSql, ToSqlOutput, Value as Stored, ValueRef};

use crate::table::{ColumnKind, Value};

/// Fixed width, so that text sorts as time does.
const TIME: DateTimePrinter = DateTimePrinter::new().precision(Some(6));

/// A value as a parameter of a statement.
pub(super) struct Parameter<'a>(pub(super) &'a Value);

impl ToSql for Parameter<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        self.0.check().map_err(|why| rusqlite::Error::ToSqlConversionFailure(why.into()))?;
        Ok(match self.0 {
            Value::Null => ToSqlOutput::Borrowed(ValueRef::Null),
            Value::Text(text) | Value::Json(text) => ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes())),
            Value::Integer(number) => ToSqlOutput::Borrowed(ValueRef::Integer(*number)),
            Value::Float(number) => ToSqlOutput::Borrowed(ValueRef::Real(*number)),
            Value::Boolean(truth) => ToSqlOutput::Borrowed(ValueRef::Integer(i64::from(*truth))),
            Value::Bytes(bytes) => ToSqlOutput::Borrowed(ValueRef::Blob(bytes)),
            Value::Time(time) => ToSqlOutput::Owned(Stored::Text(time_text(*time))),
            Value::Uuid(bytes) => ToSqlOutput::Owned(Stored::Text(uuid::Uuid::from_bytes(*bytes).to_string())),
        })
    }
}

#[expect(clippy::expect_used, reason = "within the years that were checked")]
fn time_text(time: Timestamp) -> String {
    let time = jiff::Timestamp::from_microsecond(time.micros()).expect("within the years that were checked");
    TIME.timestamp_to_string(&time)
}

/// Returns the value of a column of this kind, or the fault of the stored value.
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

/// Returns the value of a column of a query, for which only SQLite's own type is known.
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
        let (first, last) = (*Value::TIME_MICROS.start(), *Value::TIME_MICROS.end());
        let times = [first, -1, 0, 1_700_000_000_000_001, last].map(Timestamp::from_micros);
        assert!(times.iter().all(|time| Value::Time(*time).check().is_ok()));
        let texts = times.map(time_text);
        assert_eq!(texts[2], "1970-01-01T00:00:00.000000Z");
        assert!(texts.iter().all(|text| text.len() == 27), "{texts:?}");
        assert!(texts.is_sorted(), "{texts:?}");
    }
}

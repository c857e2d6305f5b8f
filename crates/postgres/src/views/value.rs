//! Values as PostgreSQL has them, and back.
//!
//! | kind | type |
//! |---|---|
//! | Text, Json | `text COLLATE "C"`: sorted by its bytes; JSON stays as it was given and can be part of a key |
//! | Integer, Float, Boolean | `bigint`, `double precision`, `boolean` |
//! | Bytes, Uuid | `bytea`, `uuid` |
//! | Time | `timestamptz`, which has microseconds as times here have |

use dacapo_model::Timestamp;
use dacapo_store::{ColumnKind, StoreError, Value};
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgArguments, PgHasArrayType, PgRow, PgTypeInfo, PgValueRef};
use sqlx::types::Uuid;
use sqlx::{Arguments, Decode, Encode, Postgres, Row, Type, TypeInfo, ValueRef};

use super::numeric;

/// From 1970, where times begin here, to 2000, where those of PostgreSQL do.
const EPOCH_MICROS: i64 = 946_684_800_000_000;
const TIMESTAMPTZ: Oid = Oid(1184);
const TIMESTAMPTZ_ARRAY: Oid = Oid(1185);
/// What lets the server find out itself what type a parameter is of.
const ANY: Oid = Oid(0);

/// Returns the type of a column, as SQL, and of an array of its values.
pub(super) fn storage(kind: ColumnKind) -> (&'static str, &'static str) {
    match kind {
        ColumnKind::Text | ColumnKind::Json => ("text COLLATE \"C\"", "text[]"),
        ColumnKind::Integer => ("bigint", "bigint[]"),
        ColumnKind::Float => ("double precision", "double precision[]"),
        ColumnKind::Boolean => ("boolean", "boolean[]"),
        ColumnKind::Bytes => ("bytea", "bytea[]"),
        ColumnKind::Time => ("timestamptz", "timestamptz[]"),
        ColumnKind::Uuid => ("uuid", "uuid[]"),
    }
}

/// A time as PostgreSQL has it.
struct Time(Timestamp);

impl Type<Postgres> for Time {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(TIMESTAMPTZ)
    }
}

impl PgHasArrayType for Time {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(TIMESTAMPTZ_ARRAY)
    }
}

impl Encode<'_, Postgres> for Time {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        Encode::<Postgres>::encode(self.0.micros() - EPOCH_MICROS, buffer)
    }
}

/// Refuses what cannot be stored, `place` telling where it is.
pub(super) fn check(value: &Value, place: impl Fn() -> String) -> Result<(), StoreError> {
    let refused = |why: &str| Err(StoreError::Invalid(format!("{}: {why}", place())));
    match value {
        value if is_nowhere(value) => {
            refused("PostgreSQL has no text with the character U+0000: leave it out, or make the column Bytes")
        }
        _ => value.check().or_else(|why| refused(&why)),
    }
}

/// Returns true if no row can have a value, because PostgreSQL has no such text.
pub(super) fn is_nowhere(value: &Value) -> bool {
    matches!(value, Value::Text(text) | Value::Json(text) if text.contains('\0'))
}

/// Values as the parameters of a statement.
pub(super) fn arguments(values: &[Value]) -> Result<PgArguments, StoreError> {
    let mut arguments = PgArguments::default();
    for (at, value) in values.iter().enumerate() {
        check(value, || format!("parameter ${}", at + 1))?;
        added(&mut arguments, Parameter(value))?;
    }
    Ok(arguments)
}

/// Returns the types of values as parameters.
pub(super) fn types(values: &[Value]) -> Vec<PgTypeInfo> {
    values.iter().map(type_of).collect()
}

/// Returns a statement with a comment that tells it from the same one with parameters of other types: a connection
/// keeps what it has prepared by its text, and would send the bytes of the one type for the other.
pub(super) fn tagged(sql: &str, values: &[Value]) -> String {
    let letters: String = values.iter().map(letter).collect();
    format!("/*{letters}*/ {sql}")
}

/// One column of many rows as an array.
pub(super) fn add_array(
    arguments: &mut PgArguments,
    kind: ColumnKind,
    column: impl Iterator<Item = Value>,
) -> Result<(), StoreError> {
    /// The values of a column, of which all are of one kind or nothing.
    macro_rules! array {
        ($pattern:pat => $value:expr) => {{
            let values = column.map(|value| match value {
                $pattern => Some($value),
                _ => None,
            });
            added(arguments, values.collect::<Vec<_>>())
        }};
    }
    match kind {
        ColumnKind::Text | ColumnKind::Json => array!(Value::Text(text) | Value::Json(text) => text),
        ColumnKind::Integer => array!(Value::Integer(number) => number),
        ColumnKind::Float => array!(Value::Float(number) => number),
        ColumnKind::Boolean => array!(Value::Boolean(truth) => truth),
        ColumnKind::Bytes => array!(Value::Bytes(bytes) => bytes),
        ColumnKind::Time => array!(Value::Time(time) => Time(time)),
        ColumnKind::Uuid => array!(Value::Uuid(bytes) => Uuid::from_bytes(bytes)),
    }
}

/// Adds a parameter.
pub(super) fn added<'q, T>(arguments: &mut PgArguments, value: T) -> Result<(), StoreError>
where
    T: Encode<'q, Postgres> + Type<Postgres>,
{
    arguments.add(value).map_err(|error| StoreError::Invalid(format!("a parameter cannot be sent: {error}")))
}

struct Parameter<'a>(&'a Value);

impl Type<Postgres> for Parameter<'_> {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(ANY)
    }
}

impl Encode<'_, Postgres> for Parameter<'_> {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        match self.0 {
            Value::Null => Ok(IsNull::Yes),
            Value::Text(text) | Value::Json(text) => Encode::<Postgres>::encode(text.as_str(), buffer),
            Value::Integer(number) => Encode::<Postgres>::encode(*number, buffer),
            Value::Float(number) => Encode::<Postgres>::encode(*number, buffer),
            Value::Boolean(truth) => Encode::<Postgres>::encode(*truth, buffer),
            Value::Bytes(bytes) => Encode::<Postgres>::encode(bytes.as_slice(), buffer),
            Value::Time(time) => Time(*time).encode(buffer),
            Value::Uuid(bytes) => Encode::<Postgres>::encode(Uuid::from_bytes(*bytes), buffer),
        }
    }

    fn produces(&self) -> Option<PgTypeInfo> {
        Some(type_of(self.0))
    }
}

fn type_of(value: &Value) -> PgTypeInfo {
    match value {
        Value::Null => PgTypeInfo::with_oid(ANY),
        Value::Text(_) | Value::Json(_) => <String as Type<Postgres>>::type_info(),
        Value::Integer(_) => <i64 as Type<Postgres>>::type_info(),
        Value::Float(_) => <f64 as Type<Postgres>>::type_info(),
        Value::Boolean(_) => <bool as Type<Postgres>>::type_info(),
        Value::Bytes(_) => <Vec<u8> as Type<Postgres>>::type_info(),
        Value::Time(_) => Time::type_info(),
        Value::Uuid(_) => <Uuid as Type<Postgres>>::type_info(),
    }
}

fn letter(value: &Value) -> char {
    match value {
        Value::Null => 'n',
        Value::Text(_) | Value::Json(_) => 't',
        Value::Integer(_) => 'i',
        Value::Float(_) => 'f',
        Value::Boolean(_) => 'b',
        Value::Bytes(_) => 'y',
        Value::Time(_) => 'c',
        Value::Uuid(_) => 'u',
    }
}

/// Returns the value of a column of this kind.
pub(super) fn from_column(kind: ColumnKind, row: &PgRow, at: usize) -> Result<Value, BoxDynError> {
    let stored = row.try_get_raw(at)?;
    if stored.is_null() {
        return Ok(Value::Null);
    }
    Ok(match kind {
        ColumnKind::Text => Value::Text(Decode::<Postgres>::decode(stored)?),
        ColumnKind::Json => Value::Json(Decode::<Postgres>::decode(stored)?),
        ColumnKind::Integer => Value::Integer(Decode::<Postgres>::decode(stored)?),
        ColumnKind::Float => Value::Float(Decode::<Postgres>::decode(stored)?),
        ColumnKind::Boolean => Value::Boolean(Decode::<Postgres>::decode(stored)?),
        ColumnKind::Bytes => Value::Bytes(Decode::<Postgres>::decode(stored)?),
        ColumnKind::Time => time(stored)?,
        ColumnKind::Uuid => uuid(stored)?,
    })
}

/// Returns the value of a column of a query, by the type that PostgreSQL gives it. What has no kind here is refused:
/// the query can cast it.
pub(super) fn from_query(row: &PgRow, at: usize) -> Result<Value, BoxDynError> {
    let stored = row.try_get_raw(at)?;
    let of = stored.type_info().into_owned();
    if stored.is_null() {
        return Ok(Value::Null);
    }
    let whole = |stored| Decode::<Postgres>::decode(stored).map(Value::Integer);
    Ok(match of.name() {
        "TEXT" | "VARCHAR" | "CHAR" | "NAME" | "UNKNOWN" => Value::Text(Decode::<Postgres>::decode(stored)?),
        "INT8" => whole(stored)?,
        "INT4" => Value::Integer(<i32 as Decode<'_, Postgres>>::decode(stored)?.into()),
        "INT2" => Value::Integer(<i16 as Decode<'_, Postgres>>::decode(stored)?.into()),
        "NUMERIC" => numeric::value(stored.as_bytes()?)?,
        "FLOAT8" => Value::Float(Decode::<Postgres>::decode(stored)?),
        "FLOAT4" => Value::Float(<f32 as Decode<'_, Postgres>>::decode(stored)?.into()),
        "BOOL" => Value::Boolean(Decode::<Postgres>::decode(stored)?),
        "BYTEA" => Value::Bytes(Decode::<Postgres>::decode(stored)?),
        "TIMESTAMPTZ" => time(stored)?,
        "UUID" => uuid(stored)?,
        "JSON" => Value::Json(Decode::<Postgres>::decode(stored)?),
        // A version stands before the text.
        "JSONB" => Value::Json(std::str::from_utf8(&stored.as_bytes()?[1..])?.to_owned()),
        other => {
            return Err(format!("a column of the type {other} has no kind here: cast it, for example to text").into());
        }
    })
}

fn time(stored: PgValueRef<'_>) -> Result<Value, BoxDynError> {
    let micros: i64 = Decode::<Postgres>::decode(stored)?;
    let micros = micros.checked_add(EPOCH_MICROS).ok_or("a time is infinite or too far away")?;
    Ok(Value::Time(Timestamp::from_micros(micros)))
}

fn uuid(stored: PgValueRef<'_>) -> Result<Value, BoxDynError> {
    Ok(Value::Uuid(<Uuid as Decode<'_, Postgres>>::decode(stored)?.into_bytes()))
}

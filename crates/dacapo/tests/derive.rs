//! The derives, as users write them.

use dacapo::rows::{Column, ColumnKind, Field, FieldError, Index, Value};
use dacapo::{Event, Row};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Iban(String);

impl Field for Iban {
    const KIND: ColumnKind = String::KIND;

    fn to_value(&self) -> Result<Value, FieldError> {
        self.0.to_value()
    }

    fn from_value(value: Value) -> Result<Self, FieldError> {
        String::from_value(value).map(Self)
    }
}

#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct Address {
    street: String,
}

#[derive(Clone, Debug, PartialEq, Row)]
#[row(table = "accounts")]
struct Account {
    #[row(key)]
    iban: Iban,
    #[row(key)]
    r#type: u8,
    #[row(index, index = "owner_and_age")]
    owner: String,
    #[row(index = "owner_and_age")]
    age: Option<u32>,
    #[row(unique, column = "e-mail")]
    mail: Option<String>,
    total: u64,
    rate: f32,
    open: bool,
    photo: Vec<u8>,
    opened: jiff::Timestamp,
    id: uuid::Uuid,
    #[row(json)]
    addresses: Vec<Address>,
    extra: serde_json::Value,
}

#[derive(Clone, Row)]
struct OwnerTotal {
    #[row(key)]
    owner: String,
}

fn account() -> Account {
    Account {
        iban: Iban("DE1".into()),
        r#type: 3,
        owner: "ann".into(),
        age: None,
        mail: Some("a@b".into()),
        total: 7,
        rate: 0.1,
        open: true,
        photo: vec![1],
        opened: "2026-01-02T03:04:05.000006Z".parse().unwrap(),
        id: uuid::Uuid::from_u128(9),
        addresses: vec![Address { street: "Main".into() }],
        extra: serde_json::json!({"a": [1, null]}),
    }
}

#[test]
fn a_table_has_a_column_a_field() {
    let table = Account::TABLE;
    assert_eq!((table.name, OwnerTotal::TABLE.name), ("accounts", "owner_total"));
    assert_eq!(table.key, [0, 1]);
    let columns: Vec<(&str, ColumnKind, bool)> =
        table.columns.iter().map(|Column { name, kind, optional }| (*name, *kind, *optional)).collect();
    use ColumnKind::{Boolean, Bytes, Float, Integer, Json, Text, Time, Uuid};
    let expected = [
        ("iban", Text, false),
        ("type", Integer, false),
        ("owner", Text, false),
        ("age", Integer, true),
        ("e-mail", Text, true),
        ("total", Integer, false),
        ("rate", Float, false),
        ("open", Boolean, false),
        ("photo", Bytes, false),
        ("opened", Time, false),
        ("id", Uuid, false),
        ("addresses", Json, false),
        ("extra", Json, false),
    ];
    assert_eq!(columns, expected);
    let expected = [
        Index { name: "owner", columns: &[2], unique: false },
        Index { name: "owner_and_age", columns: &[2, 3], unique: false },
        Index { name: "e-mail", columns: &[4], unique: true },
    ];
    assert_eq!(table.indexes, expected);
}

#[test]
fn a_row_comes_back_from_its_values() {
    let row = account();
    assert_eq!(Account::from_values(row.to_values().unwrap()).unwrap(), row);
    assert_eq!(row.key(), (Iban("DE1".into()), 3));
    assert!(row.has_key(&(Iban("DE1".into()), 3)) && !row.has_key(&(Iban("DE1".into()), 4)));
    assert_eq!(Account::key_values(&row.key()).unwrap(), [Value::from("DE1"), Value::from(3)]);
    assert_eq!(OwnerTotal { owner: "ann".into() }.key(), "ann");
}

#[test]
fn a_value_that_does_not_fit_names_its_column() {
    let row = Account { total: u64::MAX, ..account() };
    let error = row.to_values().unwrap_err().to_string();
    assert_eq!(error, "column accounts.total: 18446744073709551615 is more than a column holds, 9223372036854775807");
    let mut values = account().to_values().unwrap();
    values[1] = Value::from(256);
    let error = Account::from_values(values.clone()).unwrap_err().to_string();
    assert_eq!(error, "column accounts.type: expected u8, found Integer(256)");
    values.truncate(1);
    assert!(Account::from_values(values).unwrap_err().to_string().contains("fewer values"));
}

/// A name that generated code might use for itself.
#[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct Payload {
    street: String,
}

#[derive(Debug, PartialEq, Event)]
#[serde(rename_all_fields = "camelCase")]
#[event(upcast(from = "renamed-and-moved", with = from_moved))]
enum AccountEvent {
    Opened {
        first_name: String,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        labels: Vec<String>,
    },
    #[event(name = "money-deposited", alias = "deposited", alias = "paid-in")]
    #[event(upcast(from = "deposited-v1", with = from_v1))]
    MoneyDeposited {
        #[serde(with = "as_text")]
        amount: i64,
        #[serde(rename = "ref")]
        reference: Option<String>,
    },
    Moved(Payload),
    Closed,
}

mod as_text {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(amount: &i64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(amount)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[derive(serde::Deserialize)]
struct DepositedV1 {
    euros: i64,
}

fn from_v1(old: DepositedV1) -> AccountEvent {
    AccountEvent::MoneyDeposited { amount: old.euros * 100, reference: None }
}

fn from_moved((_, street): (String, String)) -> AccountEvent {
    AccountEvent::Moved(Payload { street })
}

#[test]
fn events_are_stored_under_stable_names() {
    let expected =
        ["opened", "money-deposited", "deposited", "paid-in", "moved", "closed", "renamed-and-moved", "deposited-v1"];
    assert_eq!(AccountEvent::TYPES, expected);
}

#[test]
fn events_come_back_from_their_payloads() {
    let events = [
        (AccountEvent::Opened { first_name: "Ann".into(), labels: vec![] }, r#"{"firstName":"Ann"}"#),
        (AccountEvent::MoneyDeposited { amount: 5, reference: None }, r#"{"amount":"5","ref":null}"#),
        (AccountEvent::Moved(Payload { street: "Main".into() }), r#"{"street":"Main"}"#),
        (AccountEvent::Closed, "{}"),
    ];
    for (event, payload) in events {
        let encoded = event.encode().unwrap();
        assert_eq!(std::str::from_utf8(&encoded).unwrap(), payload);
        assert_eq!(AccountEvent::decode(event.event_type(), &encoded).unwrap(), Some(event));
    }
}

#[test]
fn older_names_and_shapes_are_read() {
    let read = |name: &str, payload: &str| AccountEvent::decode(name, payload.as_bytes()).unwrap();
    let deposited = |amount| Some(AccountEvent::MoneyDeposited { amount, reference: None });
    assert_eq!(read("paid-in", r#"{"amount":"5","added later":1}"#), deposited(5));
    assert_eq!(read("deposited-v1", r#"{"euros":5}"#), deposited(500));
    assert_eq!(
        read("renamed-and-moved", r#"["Ann","Side"]"#),
        Some(AccountEvent::Moved(Payload { street: "Side".into() }))
    );
    assert_eq!(read("unknown", "no JSON"), None);
    let error = AccountEvent::decode("opened", b"{}").unwrap_err().to_string();
    assert!(
        error.starts_with("cannot read the payload of an event of type opened: missing field `firstName`"),
        "{error}"
    );
}

//! What differs between what was expected and what was found, as text for people.

use std::fmt::Write;

use dacapo::Row;
use dacapo::effects::Effect;
use dacapo::rows::Value;
use serde_json::Value as Json;

/// What differs between rows; nothing when they are the same, whatever their order.
pub(crate) fn rows<R: Row>(expected: impl IntoIterator<Item = R>, found: Vec<R>) -> String {
    let table = R::TABLE;
    let mut left: Vec<Vec<Value>> = found.iter().map(values).collect();
    let mut text = String::new();
    for row in expected {
        let wanted = kept(row);
        let key = table.key_of(&wanted);
        let Some(at) = left.iter().position(|found| table.key_of(found) == key) else {
            line(&mut text, format_args!("missing:  {}", shown(table.columns, &wanted)));
            continue;
        };
        let found = left.swap_remove(at);
        for ((column, wanted), found) in table.columns.iter().zip(&wanted).zip(&found) {
            if wanted != found {
                let key: Vec<_> = key.iter().map(value).collect();
                let (key, wanted, found) = (key.join(", "), value(wanted), value(found));
                line(&mut text, format_args!("{key}: {} is {found}, expected {wanted}", column.name));
            }
        }
    }
    left.sort_by(|a, b| table.row_order(a, b));
    for found in left {
        line(&mut text, format_args!("too many: {}", shown(table.columns, &found)));
    }
    titled(&format!("the rows of {} differ", table.name), text)
}

/// What differs between effects, which are in order; `found` has their keys beside them.
pub(crate) fn effects<E: Effect>(expected: impl IntoIterator<Item = E>, found: Vec<(String, Json)>) -> String {
    let expected = expected.into_iter().map(|effect| {
        serde_json::to_value(effect).unwrap_or_else(|error| panic!("an effect {} cannot be written: {error}", E::NAME))
    });
    let (mut text, mut found) = (String::new(), found.into_iter());
    for (number, wanted) in (1..).zip(expected) {
        match found.next() {
            None => line(&mut text, format_args!("missing:  {wanted}")),
            Some((key, made)) if made != wanted => {
                line(&mut text, format_args!("no. {number}, {key}: is {made}, expected {wanted}"));
            }
            Some(_) => {}
        }
    }
    for (key, made) in found {
        line(&mut text, format_args!("too many: {made} ({key})"));
    }
    titled(&format!("the effects {} differ", E::NAME), text)
}

fn values<R: Row>(row: &R) -> Vec<Value> {
    row.to_values().unwrap_or_else(|error| panic!("a row of {} cannot be kept: {error}", R::TABLE.name))
}

/// An expected row as a store gives it back: times to the microsecond, for one.
fn kept<R: Row>(mut row: R) -> Vec<Value> {
    row.keep().unwrap_or_else(|error| panic!("an expected row of {} cannot be kept: {error}", R::TABLE.name));
    values(&row)
}

fn titled(title: &str, lines: String) -> String {
    if lines.is_empty() { lines } else { format!("{title}\n{lines}") }
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "  {line}");
}

fn shown(columns: &[dacapo::rows::Column], row: &[Value]) -> String {
    let columns = columns.iter().zip(row).map(|(column, found)| format!("{}: {}", column.name, value(found)));
    columns.collect::<Vec<_>>().join(", ")
}

fn value(found: &Value) -> String {
    match found {
        // The quotes show where a text begins and ends.
        Value::Text(text) => format!("{text:?}"),
        other => other.to_string(),
    }
}

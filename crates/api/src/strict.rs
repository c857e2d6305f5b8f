//! Requests are read so that nothing in them is ignored: a key that a form does not have, a key that occurs twice,
//! and an array instead of an object are refused by name. Answers are read less strictly, so that they stay
//! extensible.
//!
//! Serde's own derive would accept an array for an object by its places and would ignore unknown keys. The layer
//! between the reader and the forms here knows the fields of the forms and checks each key before the form does. It
//! also checks the forms within forms. A payload is passed on as it is.

mod reader;
mod trail;

use percent_encoding::percent_decode_str;
use serde::de::{DeserializeOwned, IgnoredAny};

use crate::error::{ApiError, Problem};

use reader::Strict;
use trail::{Found, Trail};

/// Returns the request in a body of JSON.
///
/// # Errors
/// [`ApiError::Invalid`], which names the key: `unknown_key` or `doubled_key`; `unprocessable` for a value of another
/// kind or a missing one; `bad_request` for text that is not JSON.
pub fn from_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    let trail = Trail::default();
    let mut json = serde_json::Deserializer::from_slice(body);
    let read = T::deserialize(Strict { inner: &mut json, trail: &trail }).and_then(|read| json.end().map(|()| read));
    read.map_err(|error| {
        if !error.is_data() && !is_json(body) {
            return Problem::new("bad_request", format!("the request is not JSON: {error}")).invalid();
        }
        trail.problem("the request", &error)
    })
}

/// Returns true if the text is JSON, whatever it says. The reader of a form reports some values that the form cannot
/// have, such as a number that no type can hold, as if the text were not JSON.
fn is_json(body: &[u8]) -> bool {
    std::str::from_utf8(body).is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok())
}

/// Returns the request in the parameters of a query. A parameter with several values is repeated.
///
/// # Errors
/// As [`from_json`].
pub fn from_query<T: DeserializeOwned>(query: &str) -> Result<T, ApiError> {
    query.split('&').try_for_each(is_legible)?;
    let trail = Trail { is_query: true, ..Trail::default() };
    let inner = serde_html_form::Deserializer::from_bytes(query.as_bytes());
    T::deserialize(Strict { inner, trail: &trail }).map_err(|error| {
        // The reader has already combined the values of one key, and cannot say that there should be only one.
        let pairs: Vec<(String, String)> = serde_html_form::from_str(query).unwrap_or_default();
        let doubled =
            trail.path.borrow().first().filter(|at| pairs.iter().filter(|(key, _)| key == *at).count() > 1).cloned();
        let is_many = trail.path.borrow().len() > 1;
        if let Some(key) = doubled.filter(|_| !is_many) {
            *trail.found.borrow_mut() = Some(Found::Doubled { key });
            trail.path.borrow_mut().clear();
        }
        trail.problem("the query", &error)
    })
}

/// Checks that there is only one way to read a parameter. Readers of queries silently replace bytes that are not text
/// and escapes that are not valid, and one of them reads a list where another reads a single name.
fn is_legible(pair: &str) -> Result<(), ApiError> {
    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
    let key = percent_decode_str(key).decode_utf8_lossy();
    let refused = |found: &str, help: &str| {
        let problem = Problem::new("unprocessable", format!("the query is not understood: {key}: {found}"));
        Err(problem.field("at", &*key).help(help).invalid())
    };
    let is_escape = |rest: &str| rest.len() > 1 && rest.bytes().take(2).all(|byte| byte.is_ascii_hexdigit());
    if !pair.split('%').skip(1).all(is_escape) {
        return refused("a % is not followed by two hexadecimal digits", "write a % within a value as %25");
    }
    if percent_decode_str(pair).decode_utf8().is_err() {
        return refused("its bytes are not UTF-8", "send texts in UTF-8");
    }
    if value.contains(',') {
        let help = "repeat the parameter to give several values; write a comma within a value as %2C";
        return refused("it has a comma, which could part values or be within one", help);
    }
    Ok(())
}

/// Returns the form in one line of JSON. It differs from a request only in the words of its errors.
///
/// # Errors
/// The fault of the line, in words, and the byte of the fault, from 1, if there is one.
pub fn from_line<T: DeserializeOwned>(line: &str) -> Result<T, (String, Option<usize>)> {
    let trail = Trail::default();
    let mut json = serde_json::Deserializer::from_str(line);
    let read = T::deserialize(Strict { inner: &mut json, trail: &trail }).and_then(|read| json.end().map(|()| read));
    read.map_err(|error| {
        let column = Some(error.column()).filter(|column| *column > 0);
        if error.is_data() { (trail.in_words(&error), column) } else { (without_place(&error), column) }
    })
}

/// Returns a JSON error without its place: where it is shown, lines are counted differently.
fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    text.strip_suffix(&place).unwrap_or(&text).to_owned()
}

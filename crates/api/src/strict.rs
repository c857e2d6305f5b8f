//! Requests are read so that nothing in them is passed over: a key that a form does not have, a key that is there twice
//! and an array where an object belongs are refused by name. Answers are not read so: they stay extensible.
//!
//! Serde's own derive would take an array for an object by its places and would ignore keys it does not know. What
//! stands between the reader and the forms here knows their fields and looks at each key before the form does. It holds
//! for the forms within forms too; a payload is passed on as it is.

mod reader;
mod trail;

use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;

use crate::error::{ApiError, Problem};

use reader::Strict;
use trail::{Found, Trail};

/// The request in a body of JSON.
///
/// # Errors
/// [`ApiError::Invalid`], which names the key: `unknown_key` or `doubled_key`, `unprocessable` for a value of another
/// kind or one that is missing, `bad_request` for what is not JSON.
pub fn from_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    let trail = Trail::default();
    let mut json = serde_json::Deserializer::from_slice(body);
    let read = T::deserialize(Strict { inner: &mut json, trail: &trail }).and_then(|read| json.end().map(|()| read));
    read.map_err(|error| {
        if !error.is_data() {
            return Problem::new("bad_request", format!("the request is not JSON: {error}")).invalid();
        }
        trail.problem("the request", &error)
    })
}

/// The request in the parameters of a query. One that is many is repeated.
///
/// # Errors
/// As [`from_json`].
pub fn from_query<T: DeserializeOwned>(query: &str) -> Result<T, ApiError> {
    query.split('&').try_for_each(is_legible)?;
    let trail = Trail { is_query: true, ..Trail::default() };
    let inner = serde_html_form::Deserializer::from_bytes(query.as_bytes());
    T::deserialize(Strict { inner, trail: &trail }).map_err(|error| {
        // The reader has put the values of one key together by now, and cannot say that there should be one.
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

/// Whether there is one way to read a parameter. Readers of queries take bytes that are no text, and escapes that are
/// none, for something else without a word; and what one of them takes for a list is one name to another.
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

/// The form in one line of JSON, told apart from a request only by the words of its errors.
///
/// # Errors
/// What is wrong with the line, in words, and the byte from 1 at which that was seen where one is to blame.
pub fn from_line<T: DeserializeOwned>(line: &str) -> Result<T, (String, Option<usize>)> {
    let trail = Trail::default();
    let mut json = serde_json::Deserializer::from_str(line);
    let read = T::deserialize(Strict { inner: &mut json, trail: &trail }).and_then(|read| json.end().map(|()| read));
    read.map_err(|error| {
        let column = Some(error.column()).filter(|column| *column > 0);
        if error.is_data() { (trail.in_words(&error), column) } else { (without_place(&error), column) }
    })
}

/// A JSON error without its place: lines count otherwise where it is shown.
fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    text.strip_suffix(&place).unwrap_or(&text).to_owned()
}

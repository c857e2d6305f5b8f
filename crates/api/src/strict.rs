//! Requests are read so that nothing in them is passed over: a key that a form does not have, a key that is there twice
//! and an array where an object belongs are refused by name. Answers are not read so: they stay extensible.
//!
//! Serde's own derive would take an array for an object by its places and would ignore keys it does not know. What
//! stands between the reader and the forms here knows their fields and looks at each key before the form does. It holds
//! for the forms within forms too; a payload is passed on as it is.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;

use percent_encoding::percent_decode_str;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error as _, IntoDeserializer, MapAccess,
    SeqAccess, Visitor,
};

use crate::error::{ApiError, Problem};
use crate::form::parse_number;

/// How alike two keys must be for the one to be suggested in place of the other, from 0 to 1.
const ALIKE_MIN: f64 = 0.8;

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

/// Where the reader is, and what it found there.
#[derive(Default)]
struct Trail {
    path: RefCell<Vec<String>>,
    found: RefCell<Option<Found>>,
    /// Whether values are texts, to be read in one way each.
    is_query: bool,
}

/// A key that is refused.
enum Found {
    Unknown { key: String, known: &'static [&'static str] },
    Doubled { key: String },
}

impl Trail {
    fn enter<T, E>(&self, part: String, read: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        self.path.borrow_mut().push(part);
        let read = read();
        // What failed stays, for the error to name.
        if read.is_ok() {
            self.path.borrow_mut().pop();
        }
        read
    }

    fn refuse<E: de::Error>(&self, found: Found) -> E {
        let error = E::custom(&found);
        *self.found.borrow_mut() = Some(found);
        error
    }

    /// The place in a form, such as `events[0].metadata`; nothing for the form itself.
    fn place(&self) -> Option<String> {
        let path = self.path.borrow();
        let mut place = String::new();
        for part in path.iter() {
            if !place.is_empty() && !part.starts_with('[') {
                place.push('.');
            }
            place.push_str(part);
        }
        Some(place).filter(|place| !place.is_empty())
    }

    fn in_words(&self, error: &impl fmt::Display) -> String {
        let error = match &*self.found.borrow() {
            Some(found) => found.to_string(),
            None => error.to_string(),
        };
        let error = match error.rsplit_once(" at line ") {
            Some((what, place)) if place.contains(" column ") => what.to_owned(),
            _ => error,
        };
        match self.place() {
            Some(place) => format!("{place}: {error}"),
            None => error,
        }
    }

    fn problem(&self, what: &str, error: &impl fmt::Display) -> ApiError {
        let message = format!("{what} is not understood: {}", self.in_words(error));
        let place = self.place();
        let with_place = |problem: Problem| match place {
            Some(place) => problem.field("at", place),
            None => problem,
        };
        match self.found.take() {
            Some(Found::Unknown { key, known }) => {
                let problem = with_place(Problem::new("unknown_key", message).field("known", known));
                let problem = match nearest(&key, known) {
                    Some(near) => problem.field("meant", near),
                    None => problem,
                };
                problem.field("key", key).invalid()
            }
            Some(Found::Doubled { key }) => {
                let help = "give it once: readers would see one or the other";
                with_place(Problem::new("doubled_key", message)).field("key", key).help(help).invalid()
            }
            None => {
                let help = "see the form of this request in the API's reference";
                with_place(Problem::new("unprocessable", message)).help(help).invalid()
            }
        }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Doubled { key } => write!(f, "the key {key:?} is there twice"),
            Self::Unknown { key, known } => {
                write!(f, "the key {key:?} is not known")?;
                match nearest(key, known) {
                    Some(near) => write!(f, ", did you mean {near:?}?"),
                    None if known.is_empty() => write!(f, ": there are none here"),
                    None => write!(f, ": the keys here are {}", known.join(", ")),
                }
            }
        }
    }
}

/// The key that was meant, perhaps.
fn nearest(key: &str, known: &[&'static str]) -> Option<&'static str> {
    // Long keys are no slips, and comparing them costs.
    if key.len() > 64 {
        return None;
    }
    let key = key.to_lowercase();
    let likeness = |known: &&'static str| {
        let begins = key.len() >= 3 && (key.starts_with(known) || known.starts_with(&key));
        if begins { 1.0 } else { strsim::jaro_winkler(&key, known) }
    };
    let alike = known.iter().map(|known| (likeness(known), *known)).filter(|(likeness, _)| *likeness >= ALIKE_MIN);
    alike.max_by(|one, other| one.0.total_cmp(&other.0)).map(|(_, known)| known)
}

/// The name under which `serde_json` reads a value as it is. A payload must not be looked into.
const RAW: &str = "$serde_json::private::RawValue";

/// A reader, or what a reader hands out, whose objects are looked at.
struct Strict<'t, D> {
    inner: D,
    trail: &'t Trail,
}

macro_rules! forwarded {
    ($($method:ident),+ $(,)?) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
            let trail = self.trail;
            self.inner.$method(Looking { visitor, fields: None, trail })
        })+
    };
}

/// What is a text in a query is looked at before it is taken for something else.
macro_rules! texts {
    ($($method:ident: $text:ident),+ $(,)?) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
            let visitor = Looking { visitor, fields: None, trail: self.trail };
            if self.trail.is_query { self.inner.deserialize_str($text(visitor)) } else { self.inner.$method(visitor) }
        })+
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Strict<'_, D> {
    type Error = D::Error;

    forwarded!(
        deserialize_any,
        deserialize_i8,
        deserialize_i16,
        deserialize_i32,
        deserialize_i64,
        deserialize_i128,
        deserialize_u128,
        deserialize_f32,
        deserialize_f64,
        deserialize_char,
        deserialize_str,
        deserialize_string,
        deserialize_bytes,
        deserialize_byte_buf,
        deserialize_unit,
        deserialize_seq,
        deserialize_map,
        deserialize_identifier,
        deserialize_ignored_any,
    );

    texts!(
        deserialize_bool: Word,
        deserialize_u8: Digits,
        deserialize_u16: Digits,
        deserialize_u32: Digits,
        deserialize_u64: Digits,
    );

    /// A parameter that is there has a value: the reader of queries would take an empty one for none.
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        let visitor = Looking { visitor, fields: None, trail: self.trail };
        if self.trail.is_query { visitor.visit_some(self.inner) } else { self.inner.deserialize_option(visitor) }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inner.deserialize_struct(name, fields, Looking { visitor, fields: Some(fields), trail: self.trail })
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, D::Error> {
        if name == RAW {
            return self.inner.deserialize_newtype_struct(name, visitor);
        }
        self.inner.deserialize_newtype_struct(name, Looking { visitor, fields: None, trail: self.trail })
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_unit_struct(name, Looking { visitor, fields: None, trail: self.trail })
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_tuple(len, Looking { visitor, fields: None, trail: self.trail })
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inner.deserialize_tuple_struct(name, len, Looking { visitor, fields: None, trail: self.trail })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inner.deserialize_enum(name, variants, Looking { visitor, fields: None, trail: self.trail })
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

/// A number in a query.
struct Digits<V>(V);

impl<'de, V: Visitor<'de>> Visitor<'de> for Digits<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<V::Value, E> {
        self.0.visit_u64(parse_number(text).map_err(E::custom)?)
    }
}

/// Yes or no in a query.
struct Word<V>(V);

impl<'de, V: Visitor<'de>> Visitor<'de> for Word<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<V::Value, E> {
        match text {
            "true" => self.0.visit_bool(true),
            "false" => self.0.visit_bool(false),
            other => Err(E::custom(format!("{other:?} is neither true nor false"))),
        }
    }
}

/// What a form makes of what was read, after it was looked at. `fields` are those of a form that is an object.
struct Looking<'t, V> {
    visitor: V,
    fields: Option<&'static [&'static str]>,
    trail: &'t Trail,
}

macro_rules! passed_on {
    ($($method:ident: $type:ty),+ $(,)?) => {
        $(fn $method<E: de::Error>(self, value: $type) -> Result<V::Value, E> {
            self.visitor.$method(value)
        })+
    };
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Looking<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.fields {
            // The name of a type says nothing to whoever sends JSON.
            Some(_) => f.write_str("an object"),
            None => self.visitor.expecting(f),
        }
    }

    passed_on!(
        visit_bool: bool,
        visit_i8: i8,
        visit_i16: i16,
        visit_i32: i32,
        visit_i64: i64,
        visit_i128: i128,
        visit_u8: u8,
        visit_u16: u16,
        visit_u32: u32,
        visit_u64: u64,
        visit_u128: u128,
        visit_f32: f32,
        visit_f64: f64,
        visit_char: char,
        visit_str: &str,
        visit_borrowed_str: &'de str,
        visit_string: String,
        visit_bytes: &[u8],
        visit_borrowed_bytes: &'de [u8],
        visit_byte_buf: Vec<u8>,
    );

    fn visit_none<E: de::Error>(self) -> Result<V::Value, E> {
        self.visitor.visit_none()
    }

    fn visit_unit<E: de::Error>(self) -> Result<V::Value, E> {
        match self.fields {
            Some(_) => Err(E::invalid_type(de::Unexpected::Other("null"), &self)),
            None => self.visitor.visit_unit(),
        }
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        self.visitor.visit_some(Strict { inner, trail: self.trail })
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        self.visitor.visit_newtype_struct(Strict { inner, trail: self.trail })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        match self.fields {
            Some(_) => Err(A::Error::invalid_type(de::Unexpected::Other("an array"), &self)),
            None => self.visitor.visit_seq(Items { inner, at: 0, trail: self.trail }),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        let keys = Keys { inner, fields: self.fields, seen: HashSet::new(), key: String::new(), trail: self.trail };
        self.visitor.visit_map(keys)
    }

    /// The variants of requests are words; what a variant held would not be looked at.
    fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<V::Value, A::Error> {
        self.visitor.visit_enum(data)
    }
}

struct Items<'t, A> {
    inner: A,
    at: usize,
    trail: &'t Trail,
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Items<'_, A> {
    type Error = A::Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, A::Error> {
        let part = format!("[{}]", self.at);
        self.at += 1;
        let (inner, trail) = (&mut self.inner, self.trail);
        trail.enter(part, || inner.next_element_seed(Seed { seed, trail }))
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

/// The keys of an object, each looked at before the form sees it.
struct Keys<'t, A> {
    inner: A,
    fields: Option<&'static [&'static str]>,
    seen: HashSet<String>,
    key: String,
    trail: &'t Trail,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Keys<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        let Some(key) = self.inner.next_key::<String>()? else { return Ok(None) };
        if let Some(known) = self.fields.filter(|fields| !fields.contains(&key.as_str())) {
            return Err(self.trail.refuse(Found::Unknown { key, known }));
        }
        if !self.seen.insert(key.clone()) {
            return Err(self.trail.refuse(Found::Doubled { key }));
        }
        self.key.clone_from(&key);
        seed.deserialize(key.into_deserializer()).map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, A::Error> {
        let (inner, trail) = (&mut self.inner, self.trail);
        trail.enter(std::mem::take(&mut self.key), || inner.next_value_seed(Seed { seed, trail }))
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

struct Seed<'t, S> {
    seed: S,
    trail: &'t Trail,
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Seed<'_, S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<S::Value, D::Error> {
        self.seed.deserialize(Strict { inner, trail: self.trail })
    }
}

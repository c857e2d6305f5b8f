//! The present place of the reader, and its findings there.

use std::cell::RefCell;
use std::fmt;

use serde::de;

use crate::error::{ApiError, Problem};

/// How alike two keys must be for the one to be suggested in place of the other, from 0 to 1.
const ALIKE_MIN: f64 = 0.8;

/// The present place of the reader, and its findings there.
#[derive(Default)]
pub(super) struct Trail {
    pub(super) path: RefCell<Vec<String>>,
    pub(super) found: RefCell<Option<Found>>,
    /// True if values are texts, each with one way to read it.
    pub(super) is_query: bool,
}

/// A key that is refused.
pub(super) enum Found {
    Unknown { key: String, known: &'static [&'static str] },
    Doubled { key: String },
}

impl Trail {
    pub(super) fn enter<T, E>(&self, part: String, read: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        self.path.borrow_mut().push(part);
        let read = read();
        // The place of a failure stays, for the error to name.
        if read.is_ok() {
            self.path.borrow_mut().pop();
        }
        read
    }

    pub(super) fn refuse<E: de::Error>(&self, found: Found) -> E {
        let error = E::custom(&found);
        *self.found.borrow_mut() = Some(found);
        error
    }

    /// Returns the place in a form, such as `events[0].metadata`; `None` for the form itself.
    pub(super) fn place(&self) -> Option<String> {
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

    pub(super) fn in_words(&self, error: &impl fmt::Display) -> String {
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

    pub(super) fn problem(&self, what: &str, error: &impl fmt::Display) -> ApiError {
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
            Self::Doubled { key } => write!(f, "the key {key:?} occurs twice"),
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

/// Returns the key that was probably meant.
fn nearest(key: &str, known: &[&'static str]) -> Option<&'static str> {
    // A long key is not a typing error, and comparing it is expensive.
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

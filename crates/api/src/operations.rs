//! Every operation of the API is one row, in the file of its topic, beside its forms: `status.rs`, `events.rs`,
//! `operate.rs`, `verification.rs`, `letters.rs`. The trait [`Api`](crate::Api), the client, the routes of a node, the
//! OpenAPI document and the table in `docs/http-api.md` are made of these rows. To add an operation, add a row.

use std::borrow::Cow;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::ApiError;
use crate::form::{parse_projection, parse_version};
use crate::operate::Asked;

/// Passes all rows to the given macro, topic by topic. Each topic has a macro that adds its rows and comes back here.
///
/// A row is: documentation, name, method, path, parts of the path, request if there is one, response, [`Right`],
/// [`Twice`]. The first paragraph of the documentation is also the text of the reference.
#[doc(hidden)]
#[macro_export]
macro_rules! operations {
    ($with:ident) => {
        $crate::operations! { $with [status_rows event_rows operate_rows verification_rows letter_rows] }
    };
    ($with:ident [] $($rows:tt)*) => {
        $with! { $($rows)* }
    };
    ($with:ident [$topic:ident $($later:ident)*] $($rows:tt)*) => {
        $crate::$topic! { $with [$($later)*] $($rows)* }
    };
}

/// The right that the caller of an operation needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Right {
    /// Read events and every status.
    Read,
    /// Append events.
    Append,
    /// Change which versions exist and what they do.
    Operate,
}

impl Right {
    /// Returns its name: `read`, `append` or `operate`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Append => "append",
            Self::Operate => "operate",
        }
    }
}

/// The effect of sending the same request twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Twice {
    /// It changes nothing, so it may be repeated.
    Safe,
    /// Events that have an `id` are recognised and not written twice.
    ByEventIds,
    /// A second request under the same idempotency key gets the first answer again and changes nothing.
    ByKey,
}

/// One row: an operation of the API.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Operation {
    /// Its name: the method of [`Api`](crate::Api).
    pub name: &'static str,
    /// `GET` or `POST`.
    pub method: &'static str,
    /// Its path. A part in braces stands for a name that the caller gives.
    pub path: &'static str,
    /// The parts in braces, in their order.
    pub parts: &'static [&'static str],
    /// The right that the caller must have.
    pub right: Right,
    /// The effect of sending it twice.
    pub twice: Twice,
    /// Its documentation, line by line, as Rust has it.
    pub doc: &'static [&'static str],
}

macro_rules! table {
    ($(
        $(#[doc = $doc:literal])*
        $name:ident: $method:ident $path:literal ($($part:ident),*) $($request:ident)? => $response:ident,
            $right:ident, $twice:ident;
    )*) => {
        /// All operations, in the order of the reference.
        pub const OPERATIONS: &[Operation] = &[$(Operation {
            name: stringify!($name),
            method: stringify!($method),
            path: $path,
            parts: &[$(stringify!($part)),*],
            right: Right::$right,
            twice: Twice::$twice,
            doc: &[$($doc),*],
        }),*];

        /// The path of each operation, by its name.
        #[expect(non_upper_case_globals, reason = "they are named as their operations are")]
        pub mod paths {
            $(
                #[doc = concat!("The path of [`Api::", stringify!($name), "`](crate::Api::", stringify!($name), ").")]
                pub const $name: &str = $path;
            )*
        }
    };
}

operations!(table);

/// The header that may carry the idempotency key in place of the field of the body.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";

impl Operation {
    /// Returns its summary: the first paragraph of its documentation.
    pub fn summary(&self) -> String {
        let lines: Vec<&str> = self.doc.iter().map(|line| line.trim()).take_while(|line| !line.is_empty()).collect();
        lines.join(" ")
    }
}

/// The common interface of the requests of all operations.
pub trait Request: Serialize + DeserializeOwned + Send + 'static {
    /// Returns the requester, the reason and the key, if the request changes a version.
    fn asked(&mut self) -> Option<&mut Asked> {
        None
    }

    /// Returns the time for which the answer may wait, in milliseconds, if the caller has set one.
    fn wait_ms(&mut self) -> Option<&mut u64> {
        None
    }
}

/// The request that an operation was given, or the one of an operation that takes no fields.
macro_rules! given {
    () => {
        $crate::operations::NoRequest {}
    };
    ($given:ident as $request:ident) => {
        $given
    };
}
pub(crate) use given;

/// One method of [`Request`], of the field of its name.
macro_rules! field {
    (asked) => {
        fn asked(&mut self) -> Option<&mut $crate::Asked> {
            Some(&mut self.asked)
        }
    };
    (wait_ms) => {
        fn wait_ms(&mut self) -> Option<&mut u64> {
            self.wait_ms.as_mut()
        }
    };
}
pub(crate) use field;

/// The request of an operation that takes no fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct NoRequest {}

/// Implements [`Request`] for the requests of a topic, with the fields that each has for it.
macro_rules! requests {
    ($($request:ident { $($field:ident),* })+) => {
        $(impl $crate::operations::Request for $request {
            $($crate::operations::field!($field);)*
        })+
    };
}
pub(crate) use requests;

impl Request for NoRequest {}

/// Returns a path with its parts filled in. It checks projections and versions, so that neither can lead to another
/// path.
pub(crate) fn path_to<'a>(path: &'a str, parts: &[(&str, &str)]) -> Result<Cow<'a, str>, ApiError> {
    let mut path = Cow::Borrowed(path);
    for (name, value) in parts {
        let value = match *name {
            "version" => parse_version(value)?.to_string(),
            _ => parse_projection(value)?.to_string(),
        };
        path = path.replace(&format!("{{{name}}}"), &value).into();
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_lead_to_another_path() {
        let flip = |projection| path_to(paths::flip, &[("projection", projection)]);
        assert_eq!(flip("balances").unwrap(), "/v1/projections/balances/flip");
        assert!(flip("..").is_err());
        assert!(flip("a/b").is_err());
        assert!(path_to(paths::clean_up, &[("projection", "balances"), ("version", "../x")]).is_err());
    }

    #[test]
    fn every_row_is_whole_and_says_what_is_so() {
        for (at, row) in OPERATIONS.iter().enumerate() {
            let braces = row.path.split('{').skip(1).filter_map(|rest| Some(rest.split_once('}')?.0));
            assert_eq!(braces.collect::<Vec<_>>(), row.parts, "{}", row.name);
            assert_eq!(row.method == "GET", row.twice == Twice::Safe, "{}", row.name);
            assert_eq!(row.method == "GET", row.right == Right::Read, "{}", row.name);
            assert_eq!(row.right == Right::Operate, row.twice == Twice::ByKey, "{}", row.name);
            assert!(
                row.summary().ends_with('.') && row.doc.iter().any(|line| line.contains("# Errors")),
                "{}",
                row.name
            );
            let same = |other: &Operation| (other.method, other.path) == (row.method, row.path);
            assert!(!OPERATIONS[..at].iter().any(same), "{} is where another one is", row.name);
        }
    }
}

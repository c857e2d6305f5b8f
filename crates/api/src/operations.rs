//! Every operation of the API, each in one row. The trait [`Api`](crate::Api), the client, the routes of a node, the
//! OpenAPI document and the table in `docs/http-api.md` are made of these rows. To add an operation, add a row.

use std::borrow::Cow;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::ApiError;
use crate::events::{AppendRequest, ReadRequest, StreamsRequest};
use crate::form::{parse_projection, parse_version};
use crate::letters::{LettersRequest, PauseRequest, SetAsideRequest, SettleRequest};
use crate::operate::{Asked, CancelRequest, CleanUpRequest, FlipRequest, PhasesRequest, RebuildRequest, ReplayRequest};
use crate::verification::{VerificationRequest, VerifyRequest};

/// Passes all rows to the given macro.
///
/// A row is: documentation, name, method, path, parts of the path, request if there is one, response, [`Right`],
/// [`Twice`]. The first paragraph of the documentation is also the text of the reference.
#[doc(hidden)]
#[macro_export]
macro_rules! operations {
    ($($with:tt)+) => {
        $($with)+! {
            /// Returns the state of the node, its projections and versions, the members that share the store, and the
            /// subscribers. It answers at once, from what is known.
            ///
            /// # Errors
            /// [`ApiError::Unavailable`] if the node cannot answer at the moment.
            status: GET "/v1/status" () => Status, Read, Safe;

            /// Appends events to any streams: all of them or none. Once this returns, the events are durable.
            ///
            /// # Errors
            /// [`ApiError::Refused`] if the present state does not allow it, such as `wrong_revision`;
            /// [`ApiError::Invalid`] if the events break a rule or a limit.
            append: POST "/v1/events" () AppendRequest => AppendResponse, Append, ByEventIds;

            /// Reads events forward, from the journal or from one stream. If there are none yet, it waits for up to
            /// `wait_ms` and answers as soon as there is one. `through` in the answer is the end of the range that
            /// it has searched: the next `after`. Give at most one of `stream`, `categories` and `system`.
            ///
            /// # Errors
            /// [`ApiError::Invalid`] if the request contradicts itself; [`ApiError::Refused`] if `after` is not in the
            /// journal.
            read: GET "/v1/events" () ReadRequest => ReadResponse, Read, Safe;

            /// Lists streams, ordered by the bytes of their names.
            ///
            /// # Errors
            /// [`ApiError::Unavailable`] if the streams cannot be read at the moment.
            streams: GET "/v1/streams" () StreamsRequest => StreamsResponse, Read, Safe;

            /// Lists the changes of versions, oldest first, each with its requester and reason.
            ///
            /// # Errors
            /// [`ApiError::NotFound`] if the projection is not known.
            phases: GET "/v1/phases" () PhasesRequest => History, Read, Safe;

            /// Schedules a new version beside the serving one. It reads the past, or begins as a copy of the serving
            /// view. `discards` in the answer names the versions that it replaces. It replaces a version that is ready
            /// only with `discard`.
            ///
            /// # Errors
            /// [`ApiError::NotFound`] if no live node carries such code; [`ApiError::Refused`] if the catalog refuses.
            rebuild: POST "/v1/projections/{projection}/rebuild" (projection) RebuildRequest => RebuildResponse,
                Operate, ByKey;

            /// Cancels a flip, a rebuild, a clean-up or a replay that was requested and is not carried out yet.
            ///
            /// # Errors
            /// [`ApiError::NotFound`] if there is no such version; [`ApiError::Refused`] if it is too late, if there is
            /// nothing to cancel, or if it is not clear what to cancel.
            cancel: POST "/v1/projections/{projection}/cancel" (projection) CancelRequest => CancelResponse,
                Operate, ByKey;

            /// Moves readers to a newer version: to `to`, or to the newest above the serving one. With `wait_ms` it
            /// answers when the flip has happened or the time is over, and says which.
            ///
            /// # Errors
            /// [`ApiError::NotFound`] if there is no such version; [`ApiError::Refused`] if the catalog refuses.
            flip: POST "/v1/projections/{projection}/flip" (projection) FlipRequest => FlipResponse, Operate, ByKey;

            /// Moves readers back: to `to`, or to the version that served last and stands by. With `wait_ms` it answers
            /// when the rollback has happened or the time is over, and says which.
            ///
            /// # Errors
            /// As [`flip`](Self::flip).
            rollback: POST "/v1/projections/{projection}/rollback" (projection) FlipRequest => FlipResponse,
                Operate, ByKey;

            /// Applies past events again to the serving version, or to `version`, in its own view. Give exactly one of
            /// `from`, `from_time`, `from_event` and `from_start`. With `wait_ms` it answers when the replay has ended
            /// or the time is over, and says which.
            ///
            /// # Errors
            /// [`ApiError::Refused`] if the projection does not allow it, and while another replay runs, with its
            /// progress; [`ApiError::NotFound`] if there is no such version.
            replay: POST "/v1/projections/{projection}/replay" (projection) ReplayRequest => ReplayResponse,
                Operate, ByKey;

            /// Returns the findings of the verification of a version, and its verdict: `Pass`, `Fail` or `Waived`. With
            /// `wait_ms` it answers when the version is verified or the time is over. `halts` is true if the
            /// verification is blocked and needs an operator; `waiting_on` says why.
            ///
            /// # Errors
            /// [`ApiError::NotFound`] if there is no such projection; [`ApiError::Refused`] if there is no such version.
            verification: GET "/v1/projections/{projection}/verification" (projection)
                VerificationRequest => Verification, Read, Safe;

            /// Verifies again a version that is being built. Until that is done, its earlier verdict does not count.
            ///
            /// # Errors
            /// As [`verification`](Self::verification); [`ApiError::Refused`] if the version is not being built.
            verify: POST "/v1/projections/{projection}/verification" (projection) VerifyRequest => VerifyResponse,
                Operate, ByKey;

            /// Lets a version serve although its verification failed. A `reason` is required; the catalog keeps it with
            /// the requester.
            ///
            /// # Errors
            /// As [`verify`](Self::verify); [`ApiError::Refused`] if there is no failed verdict, and
            /// [`ApiError::Invalid`] without a reason.
            waive: POST "/v1/projections/{projection}/verification/waive" (projection) VerifyRequest => VerifyResponse,
                Operate, ByKey;

            /// Drops the view of a version that does not serve. This aborts a flip to it.
            ///
            /// # Errors
            /// [`ApiError::NotFound`] if there is no such version; [`ApiError::Refused`] if it serves.
            clean_up: POST "/v1/projections/{projection}/versions/{version}/clean-up" (projection, version)
                CleanUpRequest => CleanUpResponse, Operate, ByKey;

            /// Stops applying events to a version, and making its effects, until it is resumed.
            ///
            /// # Errors
            /// [`ApiError::NotFound`] if there is no such version; [`ApiError::Refused`] if the catalog refuses, or if it
            /// is not clear which version is meant.
            pause: POST "/v1/projections/{projection}/pause" (projection) PauseRequest => PauseResponse, Operate, ByKey;

            /// Applies events to a version again, and immediately retries the event that its handler refused, and a
            /// failed copy or reset.
            ///
            /// # Errors
            /// As [`pause`](Self::pause).
            resume: POST "/v1/projections/{projection}/resume" (projection) PauseRequest => PauseResponse,
                Operate, ByKey;

            /// Lists the dead letters of a version: the events that were set aside, each with its error, its number of
            /// tries, its time and its kind. With `effects` it lists the failed effects; then `after` is the `number`
            /// of an effect.
            ///
            /// # Errors
            /// [`ApiError::NotFound`] if there is no such version; [`ApiError::Refused`] if it is not clear which
            /// version is meant.
            letters: GET "/v1/projections/{projection}/letters" (projection) LettersRequest => LettersResponse,
                Read, Safe;

            /// Retries dead letters, in the order of their streams. Give exactly one of `position`, `stream` and `all`.
            ///
            /// # Errors
            /// As [`letters`](Self::letters); [`ApiError::Refused`] for one event if an earlier event of its stream is
            /// set aside and has no decision.
            retry_letters: POST "/v1/projections/{projection}/letters/retry" (projection)
                SettleRequest => SettleResponse, Operate, ByKey;

            /// Drops dead letters: they are never applied. Give exactly one of `position`, `stream` and `all`.
            ///
            /// # Errors
            /// As [`letters`](Self::letters).
            drop_letters: POST "/v1/projections/{projection}/letters/drop" (projection)
                SettleRequest => SettleResponse, Operate, ByKey;

            /// Sets aside the event at which a segment halts, if the handler refuses it once more.
            ///
            /// # Errors
            /// As [`letters`](Self::letters); [`ApiError::Refused`] if no segment halts at that event.
            set_aside: POST "/v1/projections/{projection}/letters/set-aside" (projection)
                SetAsideRequest => SetAsideResponse, Operate, ByKey;
        }
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

/// One method of [`Request`], of the field of its name.
macro_rules! field {
    (asked) => {
        fn asked(&mut self) -> Option<&mut Asked> {
            Some(&mut self.asked)
        }
    };
    (wait_ms) => {
        fn wait_ms(&mut self) -> Option<&mut u64> {
            self.wait_ms.as_mut()
        }
    };
}

/// The request of an operation that takes no fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct NoRequest {}

macro_rules! requests {
    ($($request:ident { $($field:ident),* })+) => {
        $(impl Request for $request {
            $(field!($field);)*
        })+
    };
}

requests! {
    NoRequest {}
    AppendRequest {}
    ReadRequest { wait_ms }
    StreamsRequest {}
    PhasesRequest {}
    RebuildRequest { asked }
    CancelRequest { asked }
    FlipRequest { asked, wait_ms }
    ReplayRequest { asked, wait_ms }
    VerificationRequest { wait_ms }
    VerifyRequest { asked }
    CleanUpRequest { asked }
    PauseRequest { asked }
    LettersRequest {}
    SettleRequest { asked }
    SetAsideRequest { asked }
}

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

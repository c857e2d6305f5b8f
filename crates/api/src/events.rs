//! Appending and reading events, and listing streams: rows and forms.

mod append;
mod bounds;
mod demand;
mod read;

pub use append::{AppendRequest, AppendResponse, Metadata, NewEvent, OnKnown};
pub use demand::{Expected, RevisionDemand};
pub use read::{Event, ReadRequest, ReadResponse, Recorded, StreamSummary, StreamsRequest, StreamsResponse};

use crate::operations::requests;

/// The rows of events and streams.
#[doc(hidden)]
#[macro_export]
macro_rules! event_rows {
    ($with:ident [$($later:ident)*] $($rows:tt)*) => {
        $crate::operations! { $with [$($later)*] $($rows)*
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
        }
    };
}

requests! {
    AppendRequest {}
    ReadRequest { wait_ms }
    StreamsRequest {}
}

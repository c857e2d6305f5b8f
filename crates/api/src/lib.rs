//! The API of dacapo: the wire forms of version 1, the trait that every node implements, and its HTTP client.
//!
//! The forms here are what is sent. They are converted by hand from and to the types of `dacapo-model`, so that a
//! change of a rule cannot silently change the wire. A reader ignores fields it does not know. Sets to which a later
//! release may add (phases, reasons to wait, error codes, kinds of history) are text, so that an older client can
//! show values it does not know.
//!
//! This crate never decides anything and knows no store. `dacapo-server` implements [`Api`] for a node, and
//! [`HttpClient`] implements it for a remote one.

#![warn(clippy::unwrap_used, clippy::expect_used)]

mod client;
mod error;
mod events;
#[cfg(feature = "fake")]
pub mod fake;
mod form;
mod letters;
mod limits;
#[cfg(feature = "openapi")]
pub mod openapi;
mod operate;
pub mod operations;
mod status;
pub mod strict;
mod verification;

use async_trait::async_trait;

pub use client::{ClientLimits, HttpClient, without_secrets};
pub use error::{ApiError, Problem};
pub use events::*;
pub use form::{
    Json, check_category, format_time, parse_event_id, parse_number, parse_projection, parse_time, parse_version,
};
pub use letters::*;
pub use operate::*;
pub use status::*;
pub use verification::*;

macro_rules! api {
    ($(
        $(#[doc = $doc:literal])*
        $name:ident: $method:ident $path:literal ($($part:ident),*) $($request:ident)? => $response:ident,
            $right:ident, $twice:ident;
    )*) => {
        /// Every operation of a node. Any node answers every call, whichever node carries it out.
        ///
        /// Every call that changes versions carries the caller, the reason and an idempotency key ([`Asked`]). A call
        /// under a known key gets the first answer again and changes nothing. [`operations`] has each call in one
        /// row.
        #[async_trait]
        pub trait Api: Send + Sync {
            $(
                $(#[doc = $doc])*
                async fn $name(&self $(, $part: &str)* $(, request: $request)?) -> Result<$response, ApiError>;
            )*

            /// Returns the state of the node itself, and whether queries should be sent to it. The answer comes at
            /// once, whatever the store does.
            ///
            /// # Errors
            /// As [`status`](Self::status).
            async fn readiness(&self) -> Result<NodeStatus, ApiError> {
                self.status().await.map(|status| status.node)
            }
        }
    };
}

operations!(api);

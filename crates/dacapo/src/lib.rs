//! Event sourcing whose read models are rebuilt while the system keeps serving.
//!
//! A [`Node`] appends to the journal, runs the [`Projection`]s that it carries, each in versions, and answers
//! [`Query`]s from the version that serves. A new version is built beside the serving one, and a flip moves readers to
//! it. The way back takes milliseconds.
//!
//! This crate owns the drivers: feed, processors, views in memory, queries, rebuilds, flips. The rules that they follow
//! are in `dacapo-model`. Storage is in `dacapo-store`.
//!
//! # Features
//!
//! - `embedded` (default): the embedded store ([`NodeBuilder::data`]) and the memory store, which both keep rows in
//!   SQLite. It also provides the folds of past events. They verify a version that began as a copy, and check the rows
//!   of a serving version. Without this feature no SQLite is compiled, a node needs a store ([`NodeBuilder::store`]),
//!   such as that of `dacapo-postgres`, and both checks are reported as not done.

#![warn(clippy::unwrap_used, clippy::expect_used)]

#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

#[cfg(doctest)]
#[doc = include_str!("../../../docs/verification.md")]
struct Verification;

#[cfg(doctest)]
#[doc = include_str!("../../../docs/events.md")]
struct Events;

// The derives generate paths that begin with `::dacapo`, also in the tests of this crate.
#[allow(unused_extern_crates)]
extern crate self as dacapo;

pub mod catalog;
mod cluster;
mod code;
mod conductor;
mod effect;
pub mod effects;
mod error;
mod event;
mod feed;
mod flip;
mod history;
mod landing;
pub mod limits;
mod node;
mod panics;
mod processor;
mod query;
mod reads;
mod row;
mod scrub;
pub mod status;
pub mod subscribe;
mod times;
pub mod verify;
mod versions;
mod view;
pub mod world;

pub use code::{Answers, CodeOf, HandlerError, Options, Projection, Query, Recorded, VersionCode};
pub use dacapo_macros::{Event, Row};
pub use dacapo_model::{ExpectedRevision, Metadata, Position, ProjectionName, VersionId, ViewId};
pub use dacapo_store::Table;
pub use error::{Error, ErrorKind, StartError};
pub use event::Event;
pub use node::{Node, NodeBuilder};
pub use query::{Answered, Ask, Reading};
pub use row::Row;
pub use view::{ReadView, View};

/// The names that the code of a projection needs: `use dacapo::prelude::*`. All of them are at the top of the crate,
/// too.
pub mod prelude {
    pub use crate::{Answers, Event, HandlerError, Projection, Query, ReadView, Recorded, Row, Table, View};
}

/// The journal and its events: appending, reading, names.
pub mod journal {
    pub use crate::event::EventError;
    pub use crate::node::JournalReader;
    pub use dacapo_model::{EventId, EventType, InvalidName, JournalId, NewEvent, Revision, StreamName, Timestamp};
    pub use dacapo_store::{
        Append, AppendRefused, Appended, EventBatch, EventRef, Filter, Limit, OnKnown, StreamEvent, StreamInfo, Streams,
    };
}

/// The parts of a version's [`Options`], and the error of invalid ones. The options of its verification are in
/// [`verify`], those of its effects in [`effects`].
pub mod options {
    pub use crate::code::{CarryRefused, Scrub, Seed};
    pub use dacapo_model::assign::RowScope;
    pub use dacapo_model::replay::InPlace;
    pub use dacapo_model::{FlipPolicy, OnFailure, Policy, Retry, SegmentCount, WorkShare};
}

/// The operations on projections and versions: [`Node::projection`](crate::Node::projection) and
/// [`Node::version`](crate::Node::version) lead here.
///
/// Each operation is a [`Request`](operate::Request). It takes the requester and the reason, and is recorded once it is
/// awaited. The recorded request can wait for its end.
pub mod operate {
    pub use crate::error::NoTarget;
    pub use crate::flip::FlipReport;
    pub use crate::node::operations::*;
    pub use dacapo_model::{Cancel, EffectLetter, Letter, LetterKind, Wish};
    pub use dacapo_store::WhichLetters;
}

/// The parts of tables and rows: what a derived [`Row`] consists of, and how to look rows up.
pub mod rows {
    pub use crate::row::{Field, FieldError, RowError};
    pub use crate::view::{Lookup, Rows, ViewError};
    pub use dacapo_store::{Column, ColumnKind, Index, Value};
}

/// The stores in which a node keeps its data.
pub mod store {
    pub use dacapo_store::{Journal, Store, StoreError};
}

/// Items that the derives use. They are not part of the API.
#[doc(hidden)]
pub mod __private {
    pub use crate::event::{decode, encode};
    pub use crate::row::{check_column, from_column, from_json, keep_column, keep_json, to_column, to_json};
    pub use {serde, serde_json};
}

/// Builds the parameters of an SQL statement: `params!["ann", 5, account.id]`.
#[macro_export]
macro_rules! params {
    ($($value:expr),* $(,)?) => {
        &[$($crate::rows::Value::from($value)),*] as &[$crate::rows::Value]
    };
}

//! Event sourcing whose read models are rebuilt while the system keeps serving.
//!
//! A [`Node`] appends to the journal, runs the [`Projection`]s it carries, each in versions, and answers
//! [`Query`]s from the version that serves. New code is built beside the old and flipped to; the way back takes
//! milliseconds.
//!
//! This crate owns the drivers: feed, processors, views in memory, queries, rebuilds, flips. The rules that they
//! follow are in `dacapo-model`, what lasts is in `dacapo-store`.
//!
//! # Features
//!
//! - `embedded` (default): the embedded store ([`NodeBuilder::data`]) and the store in memory, which both keep rows in
//!   SQLite, and so do the folds of past events with which a version that began as a copy is verified and rows that
//!   serve are looked at. Without it a node needs a store ([`NodeBuilder::store`]), such as that of `dacapo-postgres`,
//!   no SQLite is compiled, and those two looks at rows are reported as not done.

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

// What the derives generate names `::dacapo`, in this crate's own tests as well.
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

/// What the code of a projection names: `use dacapo::prelude::*`. All of it is at the top of the crate as well.
pub mod prelude {
    pub use crate::{Answers, Event, HandlerError, Projection, Query, ReadView, Recorded, Row, Table, View};
}

/// Events and the journal that they are in: appending, reading, names.
pub mod journal {
    pub use crate::event::EventError;
    pub use crate::node::JournalReader;
    pub use dacapo_model::{EventId, EventType, InvalidName, JournalId, NewEvent, Revision, StreamName, Timestamp};
    pub use dacapo_store::{
        Append, AppendRefused, Appended, EventBatch, EventRef, Filter, Limit, OnKnown, StreamEvent, StreamInfo, Streams,
    };
}

/// What a projection sets in its [`Options`], and what is refused of it. How it is verified is in
/// [`verify`], what effects do in [`effects`].
pub mod options {
    pub use crate::code::{CarryRefused, Scrub, Seed};
    pub use dacapo_model::assign::RowScope;
    pub use dacapo_model::replay::InPlace;
    pub use dacapo_model::{FlipPolicy, OnFailure, Policy, Retry, SegmentCount, WorkShare};
}

/// What operators do with projections and versions: [`Node::projection`](crate::Node::projection) and
/// [`Node::version`](crate::Node::version) lead here.
///
/// Each operation is a [`Request`](operate::Request): who asks and why is added to it, it is recorded once it is awaited,
/// and what is recorded knows its end.
pub mod operate {
    pub use crate::error::NoTarget;
    pub use crate::flip::FlipReport;
    pub use crate::node::{
        Cancellation, Cancelled, CleanUp, CleanedUp, DeadLetter, Done, End, Examine, Flip, List, Listed, Operation,
        Order, ProjectionHandle, Rebuild, Rebuilt, Replay, ReplayFrom, ReplayReport, Request, Requested, SetAside,
        Settle, VersionHandle,
    };
    pub use dacapo_model::{Cancel, EffectLetter, Letter, LetterKind, Wish};
    pub use dacapo_store::WhichLetters;
}

/// The parts of tables and rows: what a derived [`Row`] is made of, and how rows are looked up.
pub mod rows {
    pub use crate::row::{Field, FieldError, RowError};
    pub use crate::view::{Lookup, Rows, ViewError};
    pub use dacapo_store::{Column, ColumnKind, Index, Value};
}

/// Where a node keeps what lasts.
pub mod store {
    pub use dacapo_store::{Journal, Store, StoreError};
}

/// What the derives generate calls. No part of the API.
#[doc(hidden)]
pub mod __private {
    pub use crate::event::{decode, encode};
    pub use crate::row::{check_column, from_column, from_json, keep_column, keep_json, to_column, to_json};
    pub use {serde, serde_json};
}

/// Values as parameters of SQL: `params!["ann", 5, account.id]`.
#[macro_export]
macro_rules! params {
    ($($value:expr),* $(,)?) => {
        &[$($crate::rows::Value::from($value)),*] as &[$crate::rows::Value]
    };
}

//! Event sourcing whose read models are rebuilt while the system keeps serving.
//!
//! A [`Node`] appends to the journal, runs the [`Projection`]s it carries, each in versions, and answers
//! [`Query`]s from the version that serves. New code is built beside the old and flipped to; the way back takes
//! milliseconds.
//!
//! This crate owns the drivers: feed, processors, views in memory, queries, rebuilds, flips. The rules that they
//! follow are in `dacapo-model`, what lasts is in `dacapo-store`.

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

mod catalog;
mod cluster;
mod code;
mod conductor;
mod effect;
mod effects;
mod error;
mod event;
mod feed;
mod flip;
mod history;
mod node;
mod panics;
mod processor;
mod query;
mod reads;
mod row;
mod scrub;
mod status;
mod subscribe;
mod times;
pub mod verify;
mod versions;
pub mod view;
mod world;

pub use catalog::{Asked, CatalogEntry, KeyReused};
pub use code::{
    Acts, Answers, Carried, CarriedVersion, CarryRefused, HandlerError, Options, Projection, Query, Recorded, Scrub,
    Seed, Verify,
};
pub use dacapo_macros::{Event, Row};
pub use dacapo_model::assign::Rows;
pub use dacapo_model::progress::{Basis, NoTimeLeft, Pace, Stall, TimeLeft};
pub use dacapo_model::replay::InPlace;
pub use dacapo_model::{
    Cancel, Catalog, CatalogEvent, CatalogRefused, CodeId, EffectFailure, EffectKey, EffectLetter, EffectTry, Epoch,
    EventId, EventType, ExpectedRevision, FlipKind, FlipPolicy, InvalidName, Letter, LetterKind, Member, MemberId,
    Metadata, NewEvent, OnFailure, PastEffects, Phase, Policy, Position, ProjectionName, Reads, Retry, Revision,
    Segment, SegmentCount, Stage, StreamName, Timestamp, Token, Unlike, VersionId, ViewId, WaitingOn, Wish, WorkShare,
    limits,
};
pub use dacapo_store::{
    Append, AppendRefused, Appended, Clock, Column, ColumnKind, EventBatch, EventRef, Filter, Index, Journal, Limit,
    OnKnown, Store, StoreError, StreamEvent, Streams, SystemClock, Table, Value, WhichLetters,
};
pub use effect::{Effect, EffectOptions};
pub use error::{Error, StartError};
pub use event::{Event, EventError};
pub use flip::FlipReport;
pub use node::{
    Cancelled, DeadLetter, JournalReader, Node, NodeBuilder, RebuildOptions, Rebuilt, ReplayFrom, ReplayReport,
    Requested,
};
pub use query::{Answered, Ask, Reading};
pub use row::{Field, FieldError, Row, RowError};
pub use status::{NotReady, ProjectionStatus, ReplayStatus, Status, VersionStatus};
pub use subscribe::{Subscriber, SubscriberFailure, SubscriberStatus, Subscription};
pub use times::ClockBehind;
pub use view::{ReadView, View, ViewError};
pub use world::{Ids, NoProbe, Offload, Probe, Step, SystemIds, World};

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
        &[$($crate::Value::from($value)),*] as &[$crate::Value]
    };
}

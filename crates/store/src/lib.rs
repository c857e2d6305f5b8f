//! Storage: the store traits, the memory store, the embedded store and their disk forms.
//!
//! A store is two things: a [`Journal`], the ordered log of all events, and [`Views`], one namespace of rows and
//! tokens for each version of a projection. This crate owns how they are kept. It never decides what happens next
//! (`dacapo-model` does) and never calls a handler (`dacapo` does).
//!
//! Every store passes the suite in `contract`.
//!
//! The feature `embedded` (default: on) provides [`embedded`], [`memory::MemoryViews`] and the functions of [`Store`]
//! that open them. All of them keep rows in SQLite. A program that uses another store need not compile it.

#![warn(clippy::unwrap_used, clippy::expect_used)]

pub mod admit;
#[cfg(feature = "embedded")]
mod blocking;
pub mod catalog_form;
mod clock;
#[allow(clippy::expect_used, clippy::unwrap_used, reason = "it is for tests, which panic where something is wrong")]
#[cfg(feature = "contract")]
pub mod contract;
mod delegate;
#[cfg(feature = "embedded")]
pub mod embedded;
mod error;
mod extra;
mod files;
mod head;
mod journal;
#[cfg(feature = "embedded")]
mod limits;
mod members;
pub mod memory;
pub mod record;
pub mod shape;
#[cfg(feature = "embedded")]
mod sqlite;
mod store;
mod table;
pub mod view_form;
mod views;

pub use clock::{Clock, SystemClock, uuid_at};
#[doc(hidden)]
pub use delegate::delegated;
pub use error::{AppendError, AppendRefused, CommitError, StoreError};
pub use files::no_more_files;
pub use head::Head;
pub use journal::{Append, Appended, Filter, Health, Journal, Limit, OnKnown, StreamEvent, StreamInfo, Streams};
pub use members::Members;
pub use record::{EventBatch, EventBatchBuilder, EventRef};
pub use store::Store;
pub use table::{Column, ColumnKind, Index, Table, Value, key_order};
pub use views::{
    Attached, Commit, FirstRows, NewMark, OfSegment, Outbox, View, ViewCopy, ViewHealth, ViewHistory, ViewLetters,
    ViewOutbox, ViewReader, ViewRows, ViewTokens, ViewWriter, Views, WhichEffects, WhichLetters, of_none,
};

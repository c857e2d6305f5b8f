//! Forms of appending and reading events, and of listing streams.

mod append;
mod bounds;
mod demand;
mod read;

pub use append::{AppendRequest, AppendResponse, Metadata, NewEvent, OnKnown};
pub use demand::{Expected, RevisionDemand};
pub use read::{Event, ReadRequest, ReadResponse, Recorded, StreamSummary, StreamsRequest, StreamsResponse};

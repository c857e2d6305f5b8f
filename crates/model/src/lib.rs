//! The rules of dacapo, as pure functions over typed values.
//!
//! This crate owns every decision: which stream belongs to which segment, which phase may follow
//! which, what the catalog accepts, when a flip may happen and what it waits on. It never performs
//! one: no async, no clock, no log, no serialisation. The library fetches facts, hands them in and
//! carries out what comes back, so each rule here can be tested alone and explored exhaustively.
//!
//! Bounds are words throughout: `after` excludes, `through` includes.

#![warn(clippy::unwrap_used, clippy::expect_used)]

mod asked;
pub mod assign;
mod back_off;
mod catalog;
pub mod copy;
mod effect;
mod event;
mod failure;
pub mod flip;
mod journal;
mod letter;
pub mod limits;
pub mod meet;
mod member;
mod name;
mod numbers;
mod phase;
mod position;
pub mod progress;
pub mod reach;
mod reads;
pub mod reasons;
pub mod rebuild;
pub mod replay;
pub mod scrub;
mod segment;
mod share;
#[cfg(test)]
mod testing;
mod time;
mod token;
pub mod verify;
mod version;
pub mod views;
mod waiting;
pub mod work;

pub use asked::{AskedText, AskedTooLong};
pub use back_off::BackOff;
pub use catalog::{
    Cancel, Catalog, CatalogCommand, CatalogEvent, CatalogRefused, CleanUpReason, FlipKind, FlipPolicy, Misfit,
    PendingFlip, PendingReplay, ProjectionState, Verified, VersionState,
};
pub use effect::{
    BegunEffect, EffectFailure, EffectKey, EffectLetter, EffectOutcome, EffectTry, EffectsClaim, NewEffect,
    PastEffects, PendingEffect, Voice,
};
pub use event::{EventId, Metadata, NewEvent};
pub use failure::{AfterRefusal, OnFailure, Policy, Retry};
pub use journal::{JournalId, Mark, Parted, forgotten};
pub use letter::{Letter, LetterKind, Letters, LettersOf, Refusal, WhichLetters, Wish};
pub use member::{CodeId, Member, MemberCode, MemberId};
pub use name::{EventType, InvalidName, ProjectionName, StreamName, category_of};
pub use numbers::grouped;
pub use phase::{Phase, Stage};
pub use position::{ExpectedRevision, Position, Revision};
pub use reads::{Announcement, CodeMismatch, Reads};
pub use segment::{Segment, SegmentCount, SegmentRange, stream_hash};
pub use share::{InvalidShare, WorkShare};
pub use time::Timestamp;
pub use token::{Applied, Epoch, ReplayMark, Token, TokenMove, TokenRefused, covered};
pub use version::{InvalidVersion, VersionId, ViewId};
pub use waiting::{Fact, WaitingOn};

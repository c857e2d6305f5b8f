//! What is kept of events that handlers refuse: the tries of one that is still in the way, and the letter of one
//! that was set aside.

use crate::name::{EventType, StreamName};
use crate::position::Position;
use crate::segment::Segment;
use crate::time::Timestamp;

/// An event that a handler refuses and that its segment stops before. Kept with the segment, so that whoever claims
/// it next goes on with the tries where they were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The segment that stops.
    pub segment: Segment,
    /// The event it stops before.
    pub position: Position,
    /// How often it was tried, at least once.
    pub attempts: u32,
    /// What the handler said last.
    pub error: String,
    /// When it was refused first.
    pub since: Timestamp,
    /// When it is tried again.
    pub due: Timestamp,
}

/// Why an event was set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LetterKind {
    /// Its handler refused it, as often as the policy lets it try.
    Refused,
    /// An earlier event of its stream was set aside, and their order matters.
    Behind {
        /// The first of them.
        first: Position,
    },
    /// Its handler refused it, and the policy is to go on without it. It holds nothing back.
    Skipped,
}

/// What an operator wants done with a dead letter. The processor does it, under its claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Hand the event to the handler again.
    Retry,
    /// Forget the letter: the view goes without the event.
    Drop,
}

/// A dead letter: an event set aside, in the view of the version whose handler refused it. The event itself is in
/// the journal for good; the letter says which one it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// The event.
    pub position: Position,
    /// The segment it belongs to.
    pub segment: Segment,
    /// Its stream.
    pub stream: StreamName,
    /// Its type.
    pub event_type: EventType,
    /// Why it was set aside.
    pub kind: LetterKind,
    /// What the handler said last; for an event behind another, what was said of that one.
    pub error: String,
    /// How often it was tried; 0 for one that never was.
    pub attempts: u32,
    /// When it was set aside, or last tried.
    pub recorded: Timestamp,
    /// What shall be done with it.
    pub wish: Option<Wish>,
}

impl Letter {
    /// Whether later events of the same stream must wait behind it, where their order matters.
    pub fn blocks(&self) -> bool {
        self.kind != LetterKind::Skipped
    }
}

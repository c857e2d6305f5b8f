//! The rule whether an append may be written in the present state: the one place that knows retries (I-2).
//!
//! The order of the checks is part of the contract. The first check is whether the events are known, because a retry
//! finds the revision that its first try has made. Only new events are checked against [`Append::expected`]. This
//! module is for authors of stores.

use std::collections::HashMap;

use dacapo_model::{Position, Revision, StreamName};

use crate::error::{AppendError, AppendRefused, StoreError};
use crate::journal::{Append, Appended, OnKnown, StreamEvent};

/// An event in the journal with the id of one that is to be appended.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// Its position.
    pub position: Position,
    /// Its revision in its stream.
    pub revision: Revision,
    /// True if stream, type and payload are the same too, so that it is the same event.
    pub same: bool,
}

/// The facts of a store about its journal.
pub trait Past {
    /// Returns the event that has the id of `event`.
    ///
    /// # Errors
    /// [`StoreError`] if the search fails.
    fn known(&mut self, event: &StreamEvent) -> Result<Option<Known>, StoreError>;

    /// Returns the last revision of `stream`.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be read.
    fn revision(&mut self, stream: &StreamName) -> Result<Revision, StoreError>;
}

/// The decision about an append.
#[derive(Debug)]
pub enum Admission {
    /// Write the events for which there is no entry in `known`.
    Write {
        /// For each event of the append, its place if it is in the journal already; empty if none is.
        known: Vec<Option<Known>>,
    },
    /// Everything is there. Answer as the first time.
    Retry(Appended),
}

/// Decides about `append`.
///
/// # Errors
/// [`AppendError::Refused`] if the present state does not allow it; any error of `past`.
pub fn admit(append: &Append, past: &mut impl Past) -> Result<Admission, AppendError> {
    let known = known_events(append, past)?;
    let count = known.iter().flatten().count();
    if count == append.events.len()
        && let Some(Some(last)) = known.last()
    {
        return Ok(Admission::Retry(Appended { position: last.position, revision: last.revision, written: 0 }));
    }
    if count > 0 && append.on_known == OnKnown::Recognise {
        return Err(partly_known(append, &known).into());
    }
    expected(append, past)?;
    Ok(Admission::Write { known: if count > 0 { known } else { Vec::new() } })
}

/// Checks the append against the revisions it expects.
///
/// # Errors
/// [`AppendRefused::WrongRevision`]; any error of `past`.
pub fn expected(append: &Append, past: &mut impl Past) -> Result<(), AppendError> {
    for (stream, expected) in &append.expected {
        let actual = past.revision(stream)?;
        if !expected.allows(actual) {
            return Err(AppendRefused::WrongRevision { stream: stream.clone(), expected: *expected, actual }.into());
        }
    }
    Ok(())
}

/// Returns the place of each event that is there already. A second event of the append with the id of an earlier one
/// is known at [`Position::START`] until the first is written.
fn known_events(append: &Append, past: &mut impl Past) -> Result<Vec<Option<Known>>, AppendError> {
    let mut first_with_id: HashMap<_, usize> = HashMap::with_capacity(append.events.len());
    let mut known = Vec::with_capacity(append.events.len());
    for (index, event) in append.events.iter().enumerate() {
        let id = event.event.id;
        let mut found = past.known(event)?;
        let earlier = *first_with_id.entry(id).or_insert(index);
        if earlier != index {
            if append.on_known != OnKnown::Skip || !same_event(&append.events[earlier], event) {
                return Err(AppendRefused::IdTwice { id, first: earlier, second: index }.into());
            }
            let of_first: Option<Known> = known[earlier];
            let (position, revision) =
                of_first.map_or((Position::START, Revision::START), |first| (first.position, first.revision));
            found = Some(Known { position, revision, same: true });
        }
        if let Some(Known { same: false, position, .. }) = found {
            return Err(AppendRefused::IdTaken { id, position }.into());
        }
        known.push(found);
    }
    Ok(known)
}

fn same_event(one: &StreamEvent, other: &StreamEvent) -> bool {
    one.stream == other.stream
        && one.event.event_type == other.event.event_type
        && one.event.payload == other.event.payload
}

#[expect(clippy::expect_used, reason = "some are known; not all are known; it is known")]
fn partly_known(append: &Append, known: &[Option<Known>]) -> AppendRefused {
    let there = known.iter().position(Option::is_some).expect("some are known");
    let missing = known.iter().position(Option::is_none).expect("not all are known");
    AppendRefused::PartlyKnown {
        known: append.events[there].event.id,
        position: known[there].expect("it is known").position,
        unknown: append.events[missing].event.id,
    }
}

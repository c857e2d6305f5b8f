//! The last revisions of the streams that a node wrote to, for as long as nobody else appends.
//!
//! Each is what it was as long as the journal ends where it did, which the database looks at under the lock: then
//! nothing has to be looked up. What is not known any more costs that look, and nothing else.

use std::collections::HashMap;

use dacapo_model::{Position, Revision, StreamName};

use super::group::Group;
use crate::limits;

#[derive(Default)]
pub(super) struct Known {
    at: Position,
    revisions: HashMap<StreamName, Revision>,
}

impl Known {
    /// Where the journal ends if all of it still holds.
    pub fn at(&self) -> Position {
        self.at
    }

    /// The last revision of a stream.
    pub fn revision(&self, stream: &StreamName) -> Option<Revision> {
        self.revisions.get(stream).copied()
    }

    /// A group was written behind `head`, where its streams had these revisions.
    pub fn wrote(&mut self, head: Position, group: &Group, revisions: &[Revision]) {
        // Somebody else appended meanwhile, to whatever stream.
        if head != self.at || self.revisions.len() + group.asked.len() > limits::KNOWN_STREAMS_MAX {
            self.revisions.clear();
        }
        self.at = head.plus(group.rows.len() as u64);
        for (stream, revision) in group.leaves(revisions) {
            match self.revisions.get_mut(stream) {
                Some(known) => *known = revision,
                None => drop(self.revisions.insert(stream.clone(), revision)),
            }
        }
    }
}

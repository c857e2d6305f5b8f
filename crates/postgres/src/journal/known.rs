//! The last revisions of the streams that this node wrote to, as of one position.
//!
//! They hold for as long as nobody else writes, which the database tells under the lock: once it has reached another
//! position, all is forgotten. What is not known costs a look into the index that the insert goes to as well, and nothing
//! else.

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
    /// Returns the position that all of it is of.
    pub fn at(&self) -> Position {
        self.at
    }

    /// Returns the last revision of a stream.
    pub fn revision(&self, stream: &StreamName) -> Option<Revision> {
        self.revisions.get(stream).copied()
    }

    /// A group was written after `head`, where its streams had these revisions.
    pub fn wrote(&mut self, head: Position, group: &Group, revisions: &[Revision]) {
        let is_full = self.revisions.len() + group.asked.len() > limits::KNOWN_STREAMS_MAX;
        if head != self.at || is_full {
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

#[cfg(test)]
mod tests {
    use dacapo_model::{EventId, EventType, ExpectedRevision, Metadata, NewEvent};
    use dacapo_store::Append;
    use tokio::sync::oneshot;

    use super::*;
    use crate::journal::group::Waiting;

    fn name(stream: &str) -> StreamName {
        StreamName::new(stream).unwrap()
    }

    /// Returns a group of one event.
    fn group(stream: &str) -> Group {
        let event = NewEvent {
            id: EventId::from_bytes([1; 16]),
            event_type: EventType::new("happened").unwrap(),
            payload: vec![],
            metadata: Metadata::default(),
            tags: vec![],
        };
        let append = Append::to_stream(name(stream), ExpectedRevision::Any, vec![event]);
        Group::of(&mut [Waiting::new(append, 0, oneshot::channel().0)].into())
    }

    #[test]
    fn what_this_node_wrote_is_known_until_another_one_writes() {
        let mut known = Known::default();
        known.wrote(Position::START, &group("a"), &[Revision::new(3)]);
        known.wrote(Position::new(1), &group("b"), &[Revision::START]);
        let revisions = |known: &Known| ["a", "b", "c"].map(|stream| known.revision(&name(stream)).map(Revision::get));
        assert_eq!((known.at(), revisions(&known)), (Position::new(2), [Some(4), Some(1), None]));
        known.wrote(Position::new(7), &group("b"), &[Revision::new(2)]);
        assert_eq!((known.at(), revisions(&known)), (Position::new(8), [None, Some(3), None]));
    }
}

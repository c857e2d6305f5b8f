//! The last revisions of the streams that this node and others wrote to, as of one position.
//!
//! The database looks under the lock at what came behind that position, and says which streams others wrote to: all other
//! revisions are what they were. Revisions only grow, so the highest that was heard of is the last. Where it is too much to
//! look at, all is forgotten. What is not known costs a look at the stream, and nothing else.

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
    /// The position that all of it is of.
    pub fn at(&self) -> Position {
        self.at
    }

    /// The last revision of a stream.
    pub fn revision(&self, stream: &StreamName) -> Option<Revision> {
        self.revisions.get(stream).copied()
    }

    /// The journal has come to `head`, by what `others` wrote, if that could be told.
    pub fn follow(&mut self, head: Position, others: Option<&[(String, Revision)]>) {
        match others {
            _ if head == self.at => {}
            Some(others) if self.revisions.len() + others.len() <= limits::KNOWN_STREAMS_MAX => {
                for (name, revision) in others {
                    let Ok(name) = StreamName::new(name) else { continue };
                    let known = self.revisions.entry(name).or_default();
                    *known = (*known).max(*revision);
                }
            }
            _ => self.revisions.clear(),
        }
        self.at = head;
    }

    /// A group was written behind `head`, which all that is known is of; there its streams had these revisions.
    pub fn wrote(&mut self, head: Position, group: &Group, revisions: &[Revision]) {
        if self.revisions.len() + group.asked.len() > limits::KNOWN_STREAMS_MAX {
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
    use super::*;

    fn name(stream: &str) -> StreamName {
        StreamName::new(stream).unwrap()
    }

    fn known() -> Known {
        let revisions = [("a", 1), ("b", 2)].map(|(stream, revision)| (name(stream), Revision::new(revision)));
        Known { at: Position::new(3), revisions: revisions.into() }
    }

    #[test]
    fn what_others_wrote_is_known_as_well_and_the_rest_is_as_it_was() {
        let mut known = known();
        let others = [("b", 4), ("c", 1), ("b", 3)].map(|(stream, revision)| (stream.into(), Revision::new(revision)));
        known.follow(Position::new(6), Some(&others));
        let revisions = ["a", "b", "c", "d"].map(|stream| known.revision(&name(stream)).map(Revision::get));
        assert_eq!((known.at(), revisions), (Position::new(6), [Some(1), Some(4), Some(1), None]));
    }

    #[test]
    fn where_it_was_too_much_to_tell_nothing_is_known() {
        let mut known = known();
        known.follow(Position::new(3), None);
        assert_eq!(known.revision(&name("a")), Some(Revision::new(1)), "nobody wrote");
        known.follow(Position::new(5_000), None);
        assert_eq!((known.at(), known.revision(&name("a"))), (Position::new(5_000), None));
    }
}

//! Places: in the journal ([`Position`]) and in one stream ([`Revision`]).

use std::fmt;

/// A place in the journal. The first event has position 1 and there are no holes (I-1); 0 is the place before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(u64);

/// A place in one stream. The first event of a stream has revision 1; 0 is the place before it,
/// so a stream's last revision is also the number of its events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(u64);

macro_rules! place {
    ($name:ident) => {
        impl $name {
            /// The place before the first event.
            pub const START: Self = Self(0);

            /// Returns the place with the given number.
            pub const fn new(number: u64) -> Self {
                Self(number)
            }

            /// Returns the number of this place.
            pub const fn get(self) -> u64 {
                self.0
            }

            /// Returns the place that follows this one.
            ///
            /// # Panics
            /// At `u64::MAX`, which no journal reaches.
            pub const fn next(self) -> Self {
                self.plus(1)
            }

            /// Returns the place that is `count` events further.
            ///
            /// # Panics
            /// Past `u64::MAX`, which no journal reaches.
            pub const fn plus(self, count: u64) -> Self {
                match self.0.checked_add(count) {
                    Some(number) => Self(number),
                    None => panic!("a place beyond u64::MAX"),
                }
            }

            /// Returns the number of events after `other`, through this place; 0 if `other` is not before it.
            pub const fn since(self, other: Self) -> u64 {
                self.0.saturating_sub(other.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

place!(Position);
place!(Revision);

/// The revision of a stream that an append expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExpectedRevision {
    /// Any state of the stream.
    Any,
    /// The stream has no events yet.
    NoStream,
    /// The stream has at least one event.
    Exists,
    /// The stream's last event has exactly this revision.
    Exact(Revision),
}

impl ExpectedRevision {
    /// Returns true if a stream whose last revision is `actual` meets the expectation.
    pub fn allows(self, actual: Revision) -> bool {
        match self {
            Self::Any => true,
            Self::NoStream => actual == Revision::START,
            Self::Exists => actual > Revision::START,
            Self::Exact(expected) => actual == expected,
        }
    }
}

impl fmt::Display for ExpectedRevision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any revision"),
            Self::NoStream => f.write_str("no stream"),
            Self::Exists => f.write_str("an existing stream"),
            Self::Exact(revision) => write!(f, "revision {revision}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_counts_the_events_between() {
        assert_eq!(Position::new(7).since(Position::new(4)), 3);
        assert_eq!(Position::new(4).since(Position::new(7)), 0);
    }

    #[test]
    fn each_expectation_allows_what_it_says() {
        let (empty, three) = (Revision::START, Revision::new(3));
        for (expected, on_empty, on_three) in [
            (ExpectedRevision::Any, true, true),
            (ExpectedRevision::NoStream, true, false),
            (ExpectedRevision::Exists, false, true),
            (ExpectedRevision::Exact(three), false, true),
            (ExpectedRevision::Exact(empty), true, false),
        ] {
            assert_eq!((expected.allows(empty), expected.allows(three)), (on_empty, on_three), "{expected}");
        }
    }
}

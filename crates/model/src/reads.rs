//! What the code of a version reads, which is part of the version: whatever went by while nobody read it is not in the
//! rows, and nothing but a new version reads it again.
//!
//! Types may be added under the same number as long as the journal has no event of them. The journal is looked through
//! for that, and meanwhile somebody may append one. So it is done in two steps, both of them events of the catalog:
//!
//! ```text
//!   a node that starts                              every node that applies the version
//!   looks through `checked` ──▶ announced at P      nothing is committed past P before it was decided
//!   looks through P         ──▶ recorded            code that reads less gets no segments any more
//!                           └─▶ declined            goes on as before; the node does not start
//! ```
//!
//! Positions order all of it: an event behind P is never passed by code that reads less, since whoever commits past P has
//! folded the catalog through P; and one before P is found by whoever decides.

use std::collections::BTreeSet;
use std::fmt;

use crate::assign::RowScope;
use crate::position::Position;
use crate::segment::SegmentCount;

/// What the code of a version reads, and whose events change a row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reads {
    /// The stable names of the types of events, older ones included; `None` is all.
    pub types: Option<BTreeSet<String>>,
    /// The categories of streams; `None` is all.
    pub categories: Option<BTreeSet<String>>,
    /// Whose events change a row.
    pub rows: RowScope,
}

/// What a newer code of a version shall read, while the journal is looked through for events of the added types.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announced {
    /// Where the catalog has it: nothing is committed past it before it was decided.
    pub position: Position,
    /// What the version shall read.
    pub reads: Reads,
    /// Through here the journal was found to have no event of the added types.
    pub checked: Position,
}

/// In what the code of a version is unlike what was recorded for its number.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unlike {
    /// It reads types that the version did not read.
    Added {
        /// The types; empty for all that there may be.
        types: Vec<String>,
        /// The first event of them that the version has not read, if one is known.
        event: Option<(String, Position)>,
    },
    /// It does not read types that the version reads; empty for all but its own.
    Missing(Vec<String>),
    /// It reads streams of other categories; `None` is all.
    Categories {
        /// What was recorded.
        recorded: Option<Vec<String>>,
        /// What the code says.
        declared: Option<Vec<String>>,
    },
    /// Its rows are changed by events of others.
    Rows {
        /// What was recorded.
        recorded: RowScope,
        /// What the code says.
        declared: RowScope,
    },
    /// It is cut into another number of segments.
    Segments {
        /// What was recorded.
        recorded: SegmentCount,
        /// What the code says.
        declared: SegmentCount,
    },
    /// Whether the version may read more is not decided yet.
    Undecided {
        /// Where that was announced.
        announced: Position,
    },
}

impl Reads {
    /// Whether it reads events of this type.
    pub fn has(&self, event_type: &str) -> bool {
        self.types.as_ref().is_none_or(|types| types.contains(event_type))
    }

    /// In what this is unlike what was `recorded`; what is worse comes first.
    pub fn unlike(&self, recorded: &Self) -> Option<Unlike> {
        if self.rows != recorded.rows {
            return Some(Unlike::Rows { recorded: recorded.rows, declared: self.rows });
        }
        if self.categories != recorded.categories {
            let list =
                |categories: &Option<BTreeSet<String>>| categories.as_ref().map(|all| all.iter().cloned().collect());
            let (recorded, declared) = (list(&recorded.categories), list(&self.categories));
            return Some(Unlike::Categories { recorded, declared });
        }
        let without = |some: &BTreeSet<String>, others: &BTreeSet<String>| some.difference(others).cloned().collect();
        match (&self.types, &recorded.types) {
            (None, None) => None,
            (Some(_), None) => Some(Unlike::Missing(vec![])),
            (None, Some(_)) => Some(Unlike::Added { types: vec![], event: None }),
            (Some(declared), Some(recorded)) if !declared.is_superset(recorded) => {
                Some(Unlike::Missing(without(recorded, declared)))
            }
            (Some(declared), Some(recorded)) => {
                let types: Vec<String> = without(declared, recorded);
                (!types.is_empty()).then_some(Unlike::Added { types, event: None })
            }
        }
    }
}

impl fmt::Display for Unlike {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let types = |types: &[String], none: &str| match types {
            [] => none.to_owned(),
            [one] => format!("events of type {one:?}"),
            all => format!("events of the types {}", quoted(all)),
        };
        let categories = |found: &Option<Vec<String>>| match found {
            None => "all categories".to_owned(),
            Some(found) if found.len() == 1 => format!("the category {}", quoted(found)),
            Some(found) => format!("the categories {}", quoted(found)),
        };
        let rows = |rows: &RowScope| match rows {
            RowScope::OfOneSegment => "one segment",
            RowScope::AcrossSegments => "several segments",
        };
        match self {
            Self::Added { types: added, event } => {
                write!(f, "it reads {}, which the version did not read", types(added, "events of every type"))?;
                match event {
                    Some((name, position)) => write!(f, "; event {position} is of type {name:?} and was passed"),
                    None => Ok(()),
                }
            }
            Self::Missing(missing) => {
                write!(f, "it does not read {}, which the version reads", types(missing, "events of every type"))
            }
            Self::Categories { recorded, declared } => {
                write!(f, "it reads streams of {}, the version those of {}", categories(declared), categories(recorded))
            }
            Self::Rows { recorded, declared } => {
                let (recorded, declared) = (rows(recorded), rows(declared));
                write!(f, "its rows are changed by events of {declared}, those of the version by events of {recorded}")
            }
            Self::Segments { recorded, declared } => {
                write!(f, "it has {declared} segments, the version {recorded}")
            }
            Self::Undecided { announced } => {
                write!(f, "position {announced} announces more types, for which the journal is being looked through")
            }
        }
    }
}

impl Unlike {
    /// What to do about it.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Added { event: Some(_), .. } | Self::Categories { .. } | Self::Rows { .. } => {
                "raise the version number, so that the view is rebuilt"
            }
            Self::Segments { .. } => "raise the version number, so that the view is rebuilt, or set the number back",
            Self::Missing(_) => {
                "if this is an older program, start the newer one; if a type was removed, keep reading it or raise the \
                 version number, so that the view is rebuilt"
            }
            Self::Added { event: None, .. } => {
                "raise the version number, so that the view is rebuilt, or start the node again: it may read them if the \
                 journal has none yet"
            }
            Self::Undecided { .. } => "wait, or start the node again",
        }
    }
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reads(types: &[&str]) -> Reads {
        Reads { types: Some(types.iter().map(|name| (*name).to_owned()).collect()), ..Reads::default() }
    }

    #[test]
    fn what_is_added_is_told_from_what_is_missing() {
        let (old, new) = (reads(&["a", "b"]), reads(&["a", "b", "c"]));
        assert_eq!(old.unlike(&reads(&["b", "a"])), None);
        assert_eq!(new.unlike(&old), Some(Unlike::Added { types: vec!["c".into()], event: None }));
        assert_eq!(old.unlike(&new), Some(Unlike::Missing(vec!["c".into()])));
        let renamed = reads(&["a", "c"]);
        assert_eq!(renamed.unlike(&old), Some(Unlike::Missing(vec!["b".into()])), "what is lost counts more");
    }

    #[test]
    fn code_that_reads_everything_reads_more_than_any_list() {
        let (all, some) = (Reads::default(), reads(&["a"]));
        assert_eq!(all.unlike(&all), None);
        assert_eq!(all.unlike(&some), Some(Unlike::Added { types: vec![], event: None }));
        assert_eq!(some.unlike(&all), Some(Unlike::Missing(vec![])));
        assert!(all.has("z") && !some.has("z"));
    }

    #[test]
    fn other_categories_or_rows_are_never_just_an_addition() {
        let of = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>());
        let one = Reads { categories: of(&["a"]), ..reads(&["t"]) };
        let more = Reads { categories: of(&["a", "b"]), ..reads(&["t", "u"]) };
        let found = more.unlike(&one).unwrap();
        assert_eq!(
            found.to_string(),
            "it reads streams of the categories \"a\", \"b\", the version those of the category \"a\""
        );
        assert!(found.advice().contains("raise the version"));
        let across = Reads { rows: RowScope::AcrossSegments, ..one.clone() };
        assert!(matches!(across.unlike(&one), Some(Unlike::Rows { .. })));
    }
}

//! The events that the code of a version reads. They are part of the version: an event that passed while the code did
//! not read it is not in the rows, and only a new version reads it again.
//!
//! Types may be added under the same number as long as the journal has no event of them. A node searches the journal
//! for such events, and meanwhile somebody may append one. So it is done in two steps, both of them events of the
//! catalog:
//!
//! ```text
//!   a node that starts                              every node that applies the version
//!   searches `checked`      ──▶ announced at P      nothing is committed past P before it was decided
//!   searches through P      ──▶ recorded            code that reads less gets no segments any more
//!                           └─▶ declined            continues as before; the node does not start
//! ```
//!
//! Positions order all of it. Code that reads less never passes an event after P, since a commit past P has folded
//! the catalog through P. An event before P is found by the node that decides.

use std::collections::BTreeSet;
use std::fmt;

use crate::assign::RowScope;
use crate::numbers::grouped;
use crate::position::Position;
use crate::segment::SegmentCount;

/// The events that the code of a version reads, and the segments whose events change a row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reads {
    /// The stable names of the event types, older ones included; `None` means all.
    pub types: Option<BTreeSet<String>>,
    /// The categories of streams; `None` means all.
    pub categories: Option<BTreeSet<String>>,
    /// The segments whose events change a row.
    pub rows: RowScope,
}

/// The events that a newer code of a version shall read, while the journal is searched for events of the added types.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// The position of the announcement in the catalog. No commit passes it before it is decided.
    pub position: Position,
    /// The events that the version shall read.
    pub reads: Reads,
    /// The position through which the journal was found to have no event of the added types.
    pub checked: Position,
}

/// The difference between the code of a version and what was recorded for its number.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CodeMismatch {
    /// It reads types that the version did not read.
    Added {
        /// The added types; empty if it reads all types.
        types: Vec<String>,
        /// The first event of them that the version has passed without reading it, if one is known.
        event: Option<(String, Position)>,
    },
    /// It does not read types that the version reads; empty if the version reads all types.
    Missing(Vec<String>),
    /// It reads streams of other categories; `None` means all.
    Categories {
        /// The recorded categories.
        recorded: Option<Vec<String>>,
        /// The categories that the code declares.
        declared: Option<Vec<String>>,
    },
    /// Events of other segments change its rows.
    Rows {
        /// The recorded segments.
        recorded: RowScope,
        /// The segments that the code declares.
        declared: RowScope,
    },
    /// It has another number of segments.
    Segments {
        /// The recorded number.
        recorded: SegmentCount,
        /// The number that the code declares.
        declared: SegmentCount,
    },
    /// The catalog has not decided yet whether the version may read more.
    Undecided {
        /// The position of the announcement.
        announced: Position,
    },
}

impl Reads {
    /// Returns true if it reads events of this type.
    pub fn has(&self, event_type: &str) -> bool {
        self.types.as_ref().is_none_or(|types| types.contains(event_type))
    }

    /// Returns how this differs from what was `recorded`. Of several differences it returns the most serious one.
    pub fn unlike(&self, recorded: &Self) -> Option<CodeMismatch> {
        if self.rows != recorded.rows {
            return Some(CodeMismatch::Rows { recorded: recorded.rows, declared: self.rows });
        }
        if self.categories != recorded.categories {
            let list =
                |categories: &Option<BTreeSet<String>>| categories.as_ref().map(|all| all.iter().cloned().collect());
            let (recorded, declared) = (list(&recorded.categories), list(&self.categories));
            return Some(CodeMismatch::Categories { recorded, declared });
        }
        let without = |some: &BTreeSet<String>, others: &BTreeSet<String>| some.difference(others).cloned().collect();
        match (&self.types, &recorded.types) {
            (None, None) => None,
            (Some(_), None) => Some(CodeMismatch::Missing(vec![])),
            (None, Some(_)) => Some(CodeMismatch::Added { types: vec![], event: None }),
            (Some(declared), Some(recorded)) if !declared.is_superset(recorded) => {
                Some(CodeMismatch::Missing(without(recorded, declared)))
            }
            (Some(declared), Some(recorded)) => {
                let types: Vec<String> = without(declared, recorded);
                (!types.is_empty()).then_some(CodeMismatch::Added { types, event: None })
            }
        }
    }
}

impl fmt::Display for CodeMismatch {
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
                    Some((name, position)) => {
                        write!(f, "; event {} is of type {name:?} and was passed", grouped(position.get()))
                    }
                    None => Ok(()),
                }
            }
            Self::Missing(missing) => {
                write!(f, "it does not read {}, which the version reads", types(missing, "events of every type"))
            }
            Self::Categories { recorded, declared } => {
                write!(
                    f,
                    "it reads streams of {}, the version reads those of {}",
                    categories(declared),
                    categories(recorded)
                )
            }
            Self::Rows { recorded, declared } => {
                let (recorded, declared) = (rows(recorded), rows(declared));
                write!(f, "events of {declared} change its rows, and events of {recorded} those of the version")
            }
            Self::Segments { recorded, declared } => {
                write!(f, "it has {declared} segments, the version has {recorded}")
            }
            Self::Undecided { announced } => {
                let announced = grouped(announced.get());
                write!(f, "position {announced} announces more types, for which the journal is being searched")
            }
        }
    }
}

impl CodeMismatch {
    /// Returns the advice what to do about it.
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
        assert_eq!(new.unlike(&old), Some(CodeMismatch::Added { types: vec!["c".into()], event: None }));
        assert_eq!(old.unlike(&new), Some(CodeMismatch::Missing(vec!["c".into()])));
        let renamed = reads(&["a", "c"]);
        assert_eq!(renamed.unlike(&old), Some(CodeMismatch::Missing(vec!["b".into()])), "what is lost counts more");
    }

    #[test]
    fn code_that_reads_everything_reads_more_than_any_list() {
        let (all, some) = (Reads::default(), reads(&["a"]));
        assert_eq!(all.unlike(&all), None);
        assert_eq!(all.unlike(&some), Some(CodeMismatch::Added { types: vec![], event: None }));
        assert_eq!(some.unlike(&all), Some(CodeMismatch::Missing(vec![])));
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
            "it reads streams of the categories \"a\", \"b\", the version reads those of the category \"a\""
        );
        assert!(found.advice().contains("raise the version"));
        let across = Reads { rows: RowScope::AcrossSegments, ..one.clone() };
        assert!(matches!(across.unlike(&one), Some(CodeMismatch::Rows { .. })));
    }
}

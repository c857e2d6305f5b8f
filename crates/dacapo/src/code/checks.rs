//! The checks that a version makes of itself, as a user declares them.

use dacapo_model::verify::FindingKind;

use super::tally::{Tally, Words};

/// A query that must return no rows. The rows that it returns are the faults.
///
/// ```
/// use dacapo::verify::Assertion;
///
/// const NO_DEBT: Assertion =
///     Assertion { name: "no balance is below zero", sql: "SELECT id, balance FROM accounts WHERE balance < 0" };
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assertion {
    /// The statement that is true if the query returns no rows.
    pub name: &'static str,
    /// The query.
    pub sql: &'static str,
}

/// Collects the results of a version's own checks. See [`Projection::check`](crate::Projection::check).
#[derive(Debug, Default)]
pub struct Checks {
    pub(crate) tally: Tally,
}

impl Checks {
    /// Adds the result of a check. `name` is the statement that is true if `holds`.
    pub fn holds(&mut self, name: &str, holds: bool) {
        self.compares(name, holds, || (String::new(), String::new()));
    }

    /// Adds the result of a check: `found` must equal `expected`.
    pub fn equal<T: PartialEq + std::fmt::Debug>(&mut self, name: &str, found: T, expected: T) {
        self.compares(name, found == expected, || (format!("{expected:?}"), format!("{found:?}")));
    }

    /// Adds the result of a check of one row or one thing, which `key` identifies.
    pub fn equal_at<T: PartialEq + std::fmt::Debug>(&mut self, name: &str, key: &str, found: T, expected: T) {
        self.tally.looked_at += 1;
        if found != expected {
            self.tally.wrong(FindingKind::Check, || Words {
                place: name.to_owned(),
                key: Some(key.to_owned()),
                old: Some(format!("{expected:?}")),
                new: Some(format!("{found:?}")),
            });
        }
    }

    fn compares(&mut self, name: &str, holds: bool, words: impl FnOnce() -> (String, String)) {
        self.tally.looked_at += 1;
        if !holds {
            let text = |text: String| Some(text).filter(|text| !text.is_empty());
            self.tally.wrong(FindingKind::Check, || {
                let (expected, found) = words();
                Words { place: name.to_owned(), key: None, old: text(expected), new: text(found) }
            });
        }
    }
}

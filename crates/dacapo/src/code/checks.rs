//! What a version checks of itself, as a user declares it.

use dacapo_model::verify::FindingKind;

use super::tally::{Tally, Words};

/// A query that must give no rows; those that it gives are what is wrong.
///
/// ```
/// use dacapo::verify::Assertion;
///
/// const NO_DEBT: Assertion =
///     Assertion { name: "no balance is below zero", sql: "SELECT id, balance FROM accounts WHERE balance < 0" };
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assertion {
    /// What is so when it gives none.
    pub name: &'static str,
    /// The query.
    pub sql: &'static str,
}

/// What the code of a version finds of itself. See [`Projection::check`](crate::Projection::check).
#[derive(Debug, Default)]
pub struct Checks {
    pub(crate) tally: Tally,
}

impl Checks {
    /// A check was made: `name` says what is so if `holds`.
    pub fn holds(&mut self, name: &str, holds: bool) {
        self.compares(name, holds, || (String::new(), String::new()));
    }

    /// A check was made: `found` must be `expected`.
    pub fn equal<T: PartialEq + std::fmt::Debug>(&mut self, name: &str, found: T, expected: T) {
        self.compares(name, found == expected, || (format!("{expected:?}"), format!("{found:?}")));
    }

    /// A check of one row or one thing was made: `key` says which.
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

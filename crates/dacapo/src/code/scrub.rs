//! The background check of a serving version's rows.

use std::time::Duration;

use dacapo_model::limits;

/// The options of the background check that compares the rows of a serving version with what its code makes of its
/// events. One node of a cluster does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scrub {
    /// The pause between two checks; `None` for no checks. Default: [`limits::SCRUB_ROWS_REST`], one hour. The pause is
    /// at least [`limits::SCRUB_ROWS_REST_MIN`], and at least as long as the check took.
    pub rest: Option<Duration>,
    /// The most events that one check folds. If there are more, each check takes another part of them. Default:
    /// [`limits::FOLD_EVENTS_MAX`].
    pub events_max: usize,
    /// True if each row depends on the events of one stream only: no other stream changes it, and the handler reads no
    /// row of another stream for it. Then a check may take some streams if there are too many events. If this is
    /// wrongly true, correct rows are reported as wrong. Default: false.
    pub rows_of_one_stream: bool,
}

impl Default for Scrub {
    fn default() -> Self {
        Self { rest: Some(limits::SCRUB_ROWS_REST), events_max: limits::FOLD_EVENTS_MAX, rows_of_one_stream: false }
    }
}

impl Scrub {
    /// Returns options without any check.
    pub const fn never() -> Self {
        Self { rest: None, events_max: 0, rows_of_one_stream: false }
    }
}

//! How a version that serves is looked at though nobody asks.

use std::time::Duration;

use dacapo_model::limits;

/// How often, and by what, the rows of a version that serves are compared with what its code makes of its events. One
/// node of a cluster does it, in the background.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scrub {
    /// How long the node rests between two looks; it never looks where there is none. Default:
    /// [`limits::SCRUB_ROWS_REST`], an hour. At least [`limits::SCRUB_ROWS_REST_MIN`], and as long as the look took.
    pub rest: Option<Duration>,
    /// How many events a look folds at most. Where there are more, it takes a part of them, and another one each time.
    /// Default: [`limits::FOLD_EVENTS_MAX`].
    pub events_max: usize,
    /// Whether each row follows from the events of one stream alone: no other one changes it, and the handler reads no
    /// row of another for it. Then a look may take some streams where there are too many events. Where this is said of
    /// rows that several streams change, they are found wrong. Default: false.
    pub rows_of_one_stream: bool,
}

impl Default for Scrub {
    fn default() -> Self {
        Self { rest: Some(limits::SCRUB_ROWS_REST), events_max: limits::FOLD_EVENTS_MAX, rows_of_one_stream: false }
    }
}

impl Scrub {
    /// The version is never looked at.
    pub const fn never() -> Self {
        Self { rest: None, events_max: 0, rows_of_one_stream: false }
    }
}

//! The verification that a version must pass before readers move to it.

use std::time::Duration;

use dacapo_model::limits;
use dacapo_model::verify::Part;

/// The options of the verification before readers move to a version. The version may serve once every part in
/// `required` has passed and no part has failed, or once somebody waives the verdict.
#[derive(Clone, Debug)]
pub struct Verify {
    /// The parts that must pass. The other parts run if they can, and their findings count. A part that cannot run
    /// reports why. It blocks the flip only if it is listed here. Default: counts and checks.
    pub required: Vec<Part>,
    /// The parts that are not run. Default: none.
    pub without: Vec<Part>,
    /// True if the version may serve with dead letters of events that its handler refused. Default: false.
    pub letters_allowed: bool,
    /// Share of live queries that is also put to the version while it does not serve, 0.0 through 1.0. Default: 0. It
    /// costs one query on each version, in the background.
    pub shadow_share: f64,
    /// The number of answers that must be compared before there is a verdict, if answers are required. Default: 100.
    pub answers_min: u64,
    /// For a version that began as a copy: the most past events that its code folds from the start, to compare the
    /// result with its rows. If there are more, a sample of them is folded. Default: [`limits::FOLD_EVENTS_MAX`].
    pub fold_events_max: usize,
    /// The longest time of that fold. Default: [`limits::FOLD_TIME_MAX`].
    pub fold_time_max: Duration,
    /// The longest time that the two versions may make no progress towards a position at which they can be compared.
    /// After it they are not compared. Default: [`limits::MEET_TIME_MAX`].
    pub meet_time_max: Duration,
}

impl Default for Verify {
    fn default() -> Self {
        Self {
            required: vec![Part::Counts, Part::Checks],
            without: vec![],
            letters_allowed: false,
            shadow_share: 0.0,
            answers_min: 100,
            fold_events_max: limits::FOLD_EVENTS_MAX,
            fold_time_max: limits::FOLD_TIME_MAX,
            meet_time_max: limits::MEET_TIME_MAX,
        }
    }
}

impl Verify {
    /// Returns true if an event that is set aside makes the verification fail.
    pub(crate) fn counts_letters(&self) -> bool {
        !self.letters_allowed && !self.without.contains(&Part::Counts)
    }

    /// Returns the options with these parts required as well.
    #[must_use]
    pub fn require(mut self, parts: impl IntoIterator<Item = Part>) -> Self {
        self.required.extend(parts);
        self
    }

    /// Returns the options without this part, for a version whose rows or answers are intended to be different
    /// altogether.
    #[must_use]
    pub fn without(mut self, part: Part) -> Self {
        self.required.retain(|required| *required != part);
        self.without.push(part);
        self
    }
}

//! What a version must show before readers move to it.

use std::time::Duration;

use dacapo_model::limits;
use dacapo_model::verify::Part;

/// What is verified of a version before readers move to it. It may serve only once every part that is `required` has
/// passed and none that was done has failed, or once somebody waives the verdict.
#[derive(Clone, Debug)]
pub struct Verify {
    /// The parts that must have passed. The others are done where they can be; what they find counts, but one that
    /// could not be done keeps nothing back. Counts and checks, unless set.
    pub required: Vec<Part>,
    /// The parts that are not done at all. None, unless set.
    pub without: Vec<Part>,
    /// Whether it may serve with events that were set aside because its handler refused them. Not unless set.
    pub letters_allowed: bool,
    /// The share of live queries that is also put to the version while it is not serving, 0.0 through 1.0. 0 unless
    /// set. It costs a query on either version each, in the background.
    pub shadow_share: f64,
    /// Where answers are required: how many must have been compared before there is a verdict. 100 unless set.
    pub answers_min: u64,
    /// Of a version that began as a copy: how many past events its code folds from the start at most, to compare what
    /// comes of them with its rows. Where there are more, it is a sample of them. [`limits::FOLD_EVENTS_MAX`] unless set.
    pub fold_events_max: usize,
    /// How long that may take before it is given up. [`limits::FOLD_TIME_MAX`] unless set.
    pub fold_time_max: Duration,
    /// How long the two versions may make no progress towards a position at which they can be compared, before they
    /// are not. [`limits::MEET_TIME_MAX`] unless set.
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
    /// The same, with these parts required as well.
    #[must_use]
    pub fn require(mut self, parts: impl IntoIterator<Item = Part>) -> Self {
        self.required.extend(parts);
        self
    }

    /// The same, without this part, for a version whose rows or answers are meant to be others altogether.
    #[must_use]
    pub fn without(mut self, part: Part) -> Self {
        self.required.retain(|required| *required != part);
        self.without.push(part);
        self
    }
}

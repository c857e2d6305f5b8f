//! The share of the time in which a rebuild works, and the rests that follow from it.

use std::fmt;
use std::time::Duration;

use crate::phase::Phase;

/// The share of the time in which the processor of a version that is being built works. It rests for the remainder,
/// so that the serving versions have the machine. The share refers to the time of one core; reading ahead takes a
/// little of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkShare(u8);

/// A number that is not a share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidShare(pub u8);

impl fmt::Display for InvalidShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} % is no share to work with: it is from 1 to 100", self.0)
    }
}

impl std::error::Error for InvalidShare {}

impl WorkShare {
    /// The whole time, without rests.
    pub const ALL: Self = Self(100);

    /// Returns a share of `percent` of the time, from 1 to 100.
    ///
    /// # Errors
    /// [`InvalidShare`] for any other number.
    pub const fn percent(percent: u8) -> Result<Self, InvalidShare> {
        if percent >= 1 && percent <= 100 { Ok(Self(percent)) } else { Err(InvalidShare(percent)) }
    }

    /// Returns the share in percent.
    pub const fn get(self) -> u8 {
        self.0
    }

    /// Returns the share of a version in this phase whose rebuild has this share. Every other version works without
    /// rests.
    pub fn in_phase(self, phase: Phase) -> Self {
        if phase == Phase::Initializing { self } else { Self::ALL }
    }

    /// Returns the time to rest after working for `worked`, so that work and rest together have this share of work.
    pub fn rest(self, worked: Duration) -> Duration {
        worked * u32::from(100 - self.0) / u32::from(self.0)
    }
}

impl Default for WorkShare {
    fn default() -> Self {
        Self::ALL
    }
}

impl fmt::Display for WorkShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} %", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_and_rest_have_the_share_that_was_asked_for() {
        let worked = Duration::from_millis(30);
        let rest = |percent| WorkShare::percent(percent).unwrap().rest(worked).as_millis();
        assert_eq!([100, 75, 50, 25, 1].map(rest), [0, 10, 30, 90, 2_970]);
        assert_eq!([0, 101].map(WorkShare::percent), [Err(InvalidShare(0)), Err(InvalidShare(101))]);
    }

    #[test]
    fn only_a_version_that_is_being_built_rests() {
        let quarter = WorkShare::percent(25).unwrap();
        let rests = |phase: &Phase| quarter.in_phase(*phase) != WorkShare::ALL;
        assert_eq!(Phase::ALL.into_iter().filter(rests).collect::<Vec<_>>(), [Phase::Initializing]);
    }
}

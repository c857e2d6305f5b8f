//! How much of the time a rebuild works, and how long it rests for that.

use std::fmt;
use std::time::Duration;

/// The part of the time in which the processor of a version that is built works; the rest of it, it rests, so that
/// whoever serves has the machine. It is of the time of one core, and of a little of another for reading ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkShare(u8);

/// Why something is no share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidShare(pub u8);

impl fmt::Display for InvalidShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} % is no share to work with: it is from 1 to 100", self.0)
    }
}

impl std::error::Error for InvalidShare {}

impl WorkShare {
    /// It never rests.
    pub const ALL: Self = Self(100);

    /// So many percent of the time, from 1 to 100.
    ///
    /// # Errors
    /// [`InvalidShare`] for any other number.
    pub const fn percent(percent: u8) -> Result<Self, InvalidShare> {
        if percent >= 1 && percent <= 100 { Ok(Self(percent)) } else { Err(InvalidShare(percent)) }
    }

    /// The share in percent.
    pub const fn get(self) -> u8 {
        self.0
    }

    /// How long to rest after so much work: work and rest together then have this share of work.
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
}

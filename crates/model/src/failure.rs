//! The rules for an event that a handler refuses.
//!
//! ```text
//!   refused ──▶ tried again after a wait, each twice as long as the one before
//!      │
//!      └─ as often as `Retry::attempts` says ──┬─ Halt ───────▶ the segment stays before it, tries go on
//!                                              ├─ DeadLetter ─▶ a letter; later events of its stream wait for
//!                                              └─ Skip ───────▶ a letter that holds nothing back
//! ```
//!
//! Under every policy, an event is skipped only with a letter (I-11).

use std::time::Duration;

use crate::back_off::BackOff;
use crate::letter::LetterKind;
use crate::limits;
use crate::phase::Phase;

/// The policy for an event that was refused as often as [`Retry::attempts`] allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// The segment stops before the event and retries it, every [`Retry::longest`] and at once when the version is
    /// resumed. Other segments are not affected.
    #[default]
    Halt,
    /// The event is set aside as a dead letter. Where the order matters, the later events of its stream are set aside
    /// too. Everything else continues.
    DeadLetter,
    /// The event is set aside as a dead letter that blocks nothing, even where the order matters.
    Skip,
}

/// The policies of a projection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OnFailure {
    /// The policy while a version serves or stands by, when readers would wait for a segment that halts.
    pub serving: Policy,
    /// The policy while a version initializes, when nobody queries it yet.
    pub initializing: Policy,
}

impl OnFailure {
    /// Returns the policy for a phase.
    pub fn in_phase(self, phase: Phase) -> Policy {
        if phase == Phase::Initializing { self.initializing } else { self.serving }
    }
}

/// The number of tries for a refused event, and the waits between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// The number of tries before the policy decides, the first one included. 0 counts as 1.
    pub attempts: u32,
    /// The wait before the second try. Each further wait is twice as long.
    pub first: Duration,
    /// The longest wait.
    pub longest: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        let (first, longest) = (limits::HANDLER_RETRY_PAUSE_FIRST, limits::HANDLER_RETRY_PAUSE_MAX);
        Self { attempts: limits::HANDLER_TRIES, first, longest }
    }
}

/// The consequence of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterRefusal {
    /// The segment stops before the event, which is retried after this time.
    TryAgain(Duration),
    /// The event is set aside.
    SetAside(LetterKind),
}

impl Retry {
    /// Returns the wait before the next try, after `attempts` tries.
    pub fn wait(&self, attempts: u32) -> Duration {
        BackOff::new(self.first, self.longest).after(attempts)
    }

    /// Returns the consequence when an event was refused for the `attempts`th time under `policy`.
    pub fn after(&self, policy: Policy, attempts: u32) -> AfterRefusal {
        if attempts < self.attempts {
            return AfterRefusal::TryAgain(self.wait(attempts));
        }
        match policy {
            Policy::Halt => AfterRefusal::TryAgain(self.longest),
            Policy::DeadLetter => AfterRefusal::SetAside(LetterKind::Refused),
            Policy::Skip => AfterRefusal::SetAside(LetterKind::Skipped),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use AfterRefusal::{SetAside, TryAgain};

    #[test]
    fn waits_double_up_to_the_longest_and_then_the_policy_decides() {
        let retry = Retry { attempts: 5, first: Duration::from_secs(1), longest: Duration::from_secs(3) };
        for policy in [Policy::Halt, Policy::DeadLetter, Policy::Skip] {
            let waits = [1, 2, 3, 4].map(|attempts| retry.after(policy, attempts));
            assert_eq!(waits, [1, 2, 3, 3].map(|seconds| TryAgain(Duration::from_secs(seconds))));
        }
        assert_eq!(retry.after(Policy::Halt, 5), TryAgain(retry.longest));
        assert_eq!(retry.after(Policy::Halt, u32::MAX), TryAgain(retry.longest));
        assert_eq!(retry.after(Policy::DeadLetter, 5), SetAside(LetterKind::Refused));
        assert_eq!(retry.after(Policy::Skip, 6), SetAside(LetterKind::Skipped));
        let once = Retry { attempts: 0, ..retry };
        assert_eq!(once.after(Policy::Skip, 1), SetAside(LetterKind::Skipped), "it was tried once");
    }

    #[test]
    fn a_version_that_stands_by_counts_as_serving() {
        let policies = OnFailure { serving: Policy::Skip, initializing: Policy::DeadLetter };
        let phases = [Phase::Initializing, Phase::Serving, Phase::StandingBy].map(|phase| policies.in_phase(phase));
        assert_eq!(phases, [Policy::DeadLetter, Policy::Skip, Policy::Skip]);
    }
}

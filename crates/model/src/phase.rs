//! The phases of a version and their moves.
//!
//! ```text
//!   Scheduled ──▶ Initializing ──▶ Serving ◀──▶ StandingBy
//!       │             │  │                          │
//!       │             │  └──▶ Failed ─┐             │
//!       └─────────────┴───────────────┴─────────────┴──▶ CleaningUp ──▶ Obsolete
//! ```
//!
//! A clean-up that is cancelled before anything is dropped leads back to the phase in which it was requested.

use std::fmt;

/// The phase of a version's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Known, but not built yet.
    Scheduled,
    /// Its view is being built beside the serving one.
    Initializing,
    /// It answers queries.
    Serving,
    /// It served before and keeps following the journal, ready for a rollback.
    StandingBy,
    /// It is cleaned up: its view will be dropped.
    CleaningUp,
    /// Gone; its number never comes back (I-12).
    Obsolete,
    /// It cannot be built; the reason is kept with the version.
    Failed,
}

impl Phase {
    /// Every phase.
    pub const ALL: [Self; 7] = [
        Self::Scheduled,
        Self::Initializing,
        Self::Serving,
        Self::StandingBy,
        Self::CleaningUp,
        Self::Obsolete,
        Self::Failed,
    ];

    /// Returns true if the phase may change to `next`: the table of moves.
    pub const fn may_become(self, next: Self) -> bool {
        use Phase::*;
        matches!(
            (self, next),
            (Scheduled, Initializing | CleaningUp)
                | (Initializing, Serving | Failed | CleaningUp)
                | (Serving, StandingBy)
                | (StandingBy, Serving | CleaningUp)
                | (Failed, CleaningUp)
                | (CleaningUp, Obsolete | Scheduled | Initializing | StandingBy | Failed)
        )
    }

    /// Returns true if events are applied to the version's view in this phase.
    pub const fn applies(self) -> bool {
        matches!(self, Self::Initializing | Self::Serving | Self::StandingBy)
    }

    /// Returns true if a view exists, or may exist, in this phase.
    pub const fn has_view(self) -> bool {
        !matches!(self, Self::Scheduled | Self::Obsolete)
    }

    /// Returns the name in messages and on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "Scheduled",
            Self::Initializing => "Initializing",
            Self::Serving => "Serving",
            Self::StandingBy => "StandingBy",
            Self::CleaningUp => "CleaningUp",
            Self::Obsolete => "Obsolete",
            Self::Failed => "Failed",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The progress of an initializing version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// It reads the events that were in the journal when it began.
    Replaying,
    /// It builds the indexes that its view does without while it replays.
    Indexing,
    /// It reads the events that were appended in the meantime.
    CatchingUp,
    /// It is being verified, or has failed verification.
    Verifying,
    /// It is near enough to the head for a flip.
    Ready,
}

impl Stage {
    /// Returns true if the version is near the head with all of its indexes, so that it can be compared.
    pub const fn has_caught_up(self) -> bool {
        matches!(self, Self::Verifying | Self::Ready)
    }

    /// Returns the name in messages and on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Replaying => "Replaying",
            Self::Indexing => "Indexing",
            Self::CatchingUp => "CatchingUp",
            Self::Verifying => "Verifying",
            Self::Ready => "Ready",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_phase_leads_to_obsolete_and_nothing_leads_out_of_it() {
        for phase in Phase::ALL {
            assert!(!Phase::Obsolete.may_become(phase), "I-12");
            assert!(!phase.may_become(phase), "{phase} is no move to itself");
            let mut reached = vec![phase];
            let mut at = 0;
            while at < reached.len() {
                let next = Phase::ALL.into_iter().filter(|next| reached[at].may_become(*next));
                let fresh: Vec<_> = next.filter(|next| !reached.contains(next)).collect();
                reached.extend(fresh);
                at += 1;
            }
            assert!(reached.contains(&Phase::Obsolete), "{phase}");
        }
    }

    #[test]
    fn a_view_is_only_dropped_after_it_stopped_serving() {
        // I-12: there is no way from Serving to CleaningUp that does not stand by first.
        assert!(!Phase::Serving.may_become(Phase::CleaningUp));
        assert!(!Phase::Serving.may_become(Phase::Obsolete));
    }
}

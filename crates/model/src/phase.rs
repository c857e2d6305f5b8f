//! The phases of a version and their moves.
//!
//! ```text
//!   Scheduled ──▶ Initializing ──▶ Serving ◀──▶ StandingBy
//!       │             │  │                          │
//!       │             │  └──▶ Failed ─┐             │
//!       └─────────────┴───────────────┴─────────────┴──▶ CleaningUp ──▶ Obsolete
//! ```
//!
//! A clean-up that is cancelled before anything is dropped leads back to the phase in which it was asked for.

use std::fmt;

use crate::planted::{self, Fault};

/// Where a version is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Known, nothing built yet.
    Scheduled,
    /// Its view is being built beside the serving one.
    Initializing,
    /// It answers queries.
    Serving,
    /// It served before and keeps following, ready for a rollback.
    StandingBy,
    /// Its view is being dropped.
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

    /// The table of moves.
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

    /// Whether events are applied to the version's view in this phase.
    pub fn applies(self) -> bool {
        matches!(self, Self::Initializing | Self::Serving | Self::StandingBy)
            && !(planted::is(Fault::NotFollowing) && self == Self::StandingBy)
    }

    /// Whether a view exists, or may exist, in this phase.
    pub const fn has_view(self) -> bool {
        !matches!(self, Self::Scheduled | Self::Obsolete)
    }

    /// The name in messages and on the wire.
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

/// How far an initializing version is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Reading what was in the journal when it began.
    Replaying,
    /// Building the indexes that its view goes without while it replays.
    Indexing,
    /// Reading what was appended meanwhile.
    CatchingUp,
    /// Being verified, or found wrong.
    Verifying,
    /// Near enough to the head to be flipped to.
    Ready,
}

impl Stage {
    /// The name in messages and on the wire.
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

//! What the catalog declines, and why.

use std::fmt;

use crate::name::ProjectionName;
use crate::phase::Phase;
use crate::position::Position;
use crate::reads::Unlike;
use crate::version::{VersionId, ViewId};

/// Why the catalog declined a change.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CatalogRefused {
    /// No version of that number.
    NoSuchVersion {
        /// The version asked for.
        view: ViewId,
        /// Those that exist and are not obsolete.
        known: Vec<VersionId>,
    },
    /// Its phase does not allow the change.
    WrongPhase {
        /// The version asked for.
        view: ViewId,
        /// Its phase.
        phase: Phase,
        /// What was asked for.
        asked: &'static str,
    },
    /// Another flip is under way.
    FlipUnderWay {
        /// Where that one goes.
        view: ViewId,
    },
    /// No flip is under way, or not the one that is confirmed.
    NoFlipUnderWay {
        /// The projection asked about.
        projection: ProjectionName,
    },
    /// A replay in place is under way.
    ReplayUnderWay {
        /// Of which version.
        view: ViewId,
        /// The events behind this position.
        after: Position,
        /// The position of the request.
        requested: Position,
    },
    /// What shall be cancelled has happened.
    TooLate {
        /// The version that it is about.
        view: ViewId,
        /// What shall be cancelled.
        what: &'static str,
        /// How things are.
        found: &'static str,
    },
    /// A version whose building was given up does not come back while another one is being built.
    NotRestored {
        /// Which version.
        view: ViewId,
    },
    /// There is no verdict that could be waived.
    NotVerified {
        /// The version asked for.
        view: ViewId,
    },
    /// The version has passed its verification.
    NothingToWaive {
        /// The version asked for.
        view: ViewId,
    },
    /// It has no verdict that lets it serve (I-6).
    NoVerdict {
        /// The version of the flip.
        view: ViewId,
    },
    /// A verification that was asked for later is to be done; this one answers for it no more.
    VerificationOutdated {
        /// The version that was verified.
        view: ViewId,
    },
    /// No replay in place is under way, or not the one that has ended.
    NoReplayUnderWay {
        /// The version asked about.
        view: ViewId,
    },
    /// No version serves that a new one could begin as a copy of.
    NothingToCopy {
        /// Of which projection.
        projection: ProjectionName,
    },
    /// The confirmation does not cover the request (I-6).
    NotCovered {
        /// The position of the request.
        requested: Position,
        /// What the new version covers.
        covers: Position,
    },
    /// The code changed under an unchanged version number.
    Fingerprint {
        /// The projection.
        projection: ProjectionName,
        /// The code version.
        code: u32,
        /// What was declared when the version was first seen.
        recorded: String,
        /// What is declared now.
        declared: String,
    },
    /// What the code reads changed under an unchanged version number.
    Reads {
        /// The projection.
        projection: ProjectionName,
        /// The code version.
        code: u32,
        /// In what it is unlike what was recorded.
        unlike: Unlike,
    },
}

impl fmt::Display for CatalogRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchVersion { view, known } if known.is_empty() => {
                let projection = &view.projection;
                write!(f, "there is no {view}: {projection} has no versions, or there is no such projection")
            }
            Self::NoSuchVersion { view, known } => {
                let known: Vec<_> = known.iter().map(ToString::to_string).collect();
                write!(f, "there is no {view}: the versions are {}", known.join(", "))
            }
            Self::WrongPhase { view, phase, asked } => write!(f, "cannot {asked} {view}: it is {phase}"),
            Self::FlipUnderWay { view } => {
                write!(f, "a flip to {view} is under way: wait for it, or cancel it")
            }
            Self::NoFlipUnderWay { projection } => write!(f, "no such flip of {projection} is under way"),
            Self::ReplayUnderWay { view, after, requested } => write!(
                f,
                "a replay of {view} from behind position {after} is under way, asked for at position {requested}: \
                 wait for its end"
            ),
            Self::TooLate { view, what, found } => {
                write!(f, "{what} {view} cannot be cancelled, it is too late: {found}")
            }
            Self::NotRestored { view } => write!(
                f,
                "the clean-up of {view} cannot be cancelled: it was not built to its end, and another version is being \
                 built by now; cancel that rebuild first"
            ),
            Self::NotVerified { view } => {
                write!(f, "{view} was not verified yet, so there is no verdict to waive: wait until it has caught up")
            }
            Self::NothingToWaive { view } => {
                write!(f, "{view} has passed its verification, so there is nothing to waive: a flip may go to it")
            }
            Self::NoVerdict { view } => {
                write!(f, "{view} has no verdict that lets it serve: `dacapo verify` shows what was found of it")
            }
            Self::VerificationOutdated { view } => {
                write!(f, "{view} shall be verified again, and what is told was begun before that was asked for")
            }
            Self::NoReplayUnderWay { view } => write!(f, "no such replay of {view} is under way"),
            Self::NothingToCopy { projection } => write!(
                f,
                "no version of {projection} serves, so there is nothing to begin as a copy of: rebuild it from the \
                 journal"
            ),
            Self::NotCovered { requested, covers } => {
                write!(f, "the flip requested at {requested} is not covered: the new version covers {covers}")
            }
            Self::Fingerprint { projection, code, recorded, declared } => write!(
                f,
                "the code of {projection} v{code} has changed under an unchanged version number (it declared \
                 {recorded:?}, now {declared:?}): raise the version number, so that the view is rebuilt"
            ),
            Self::Reads { projection, code, unlike } => write!(
                f,
                "the code of {projection} v{code} is not what was recorded for this version number: {unlike}; {}",
                unlike.advice()
            ),
        }
    }
}

impl std::error::Error for CatalogRefused {}

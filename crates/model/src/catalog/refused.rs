//! The changes that the catalog declines, with the reasons.

use std::fmt;

use crate::name::ProjectionName;
use crate::numbers::grouped;
use crate::phase::Phase;
use crate::position::Position;
use crate::reads::CodeMismatch;
use crate::version::{VersionId, ViewId};
use crate::waiting::WaitingOn;

/// The reason why the catalog declined a change.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CatalogRefused {
    /// No version has that number.
    NoSuchVersion {
        /// The requested version.
        view: ViewId,
        /// The versions that exist and are not obsolete.
        known: Vec<VersionId>,
    },
    /// Its phase does not allow the change.
    WrongPhase {
        /// The requested version.
        view: ViewId,
        /// Its phase.
        phase: Phase,
        /// The requested change.
        asked: &'static str,
    },
    /// Another flip is under way.
    FlipUnderWay {
        /// The version that the other flip goes to.
        view: ViewId,
    },
    /// No flip is under way, or not the one that is confirmed.
    NoFlipUnderWay {
        /// The requested projection.
        projection: ProjectionName,
    },
    /// A replay in place is under way.
    ReplayUnderWay {
        /// The version.
        view: ViewId,
        /// The position after which events are replayed.
        after: Position,
        /// The position of the request.
        requested: Position,
    },
    /// It is too late to cancel: the change has happened.
    TooLate {
        /// The version.
        view: ViewId,
        /// The change that was to be cancelled.
        what: &'static str,
        /// The present state.
        found: &'static str,
    },
    /// A version whose building was cancelled cannot return while another one is being built.
    NotRestored {
        /// The version.
        view: ViewId,
    },
    /// There is no verdict that could be waived.
    NotVerified {
        /// The requested version.
        view: ViewId,
        /// What its verification waits on, as far as the node that was asked knows.
        waiting_on: Vec<WaitingOn>,
    },
    /// The version has passed its verification.
    NothingToWaive {
        /// The requested version.
        view: ViewId,
    },
    /// It has no verdict that lets it serve (I-6).
    NoVerdict {
        /// The version of the flip.
        view: ViewId,
    },
    /// A later request for a verification is pending. This one answers it no longer.
    VerificationOutdated {
        /// The version that was verified.
        view: ViewId,
    },
    /// No replay in place is under way, or not the one that has ended.
    NoReplayUnderWay {
        /// The requested version.
        view: ViewId,
    },
    /// No version serves that a new one could copy.
    NothingToCopy {
        /// The projection.
        projection: ProjectionName,
    },
    /// The confirmation does not cover the request (I-6).
    NotCovered {
        /// The position of the request.
        requested: Position,
        /// The position that the new version covers.
        covers: Position,
    },
    /// The code changed under an unchanged version number.
    Fingerprint {
        /// The projection.
        projection: ProjectionName,
        /// The code version.
        code: u32,
        /// The fingerprint that was declared when the version was first seen.
        recorded: String,
        /// The fingerprint that is declared now.
        declared: String,
    },
    /// The set of events that the code reads changed under an unchanged version number.
    Reads {
        /// The projection.
        projection: ProjectionName,
        /// The code version.
        code: u32,
        /// The difference from the recorded code.
        unlike: CodeMismatch,
    },
}

impl fmt::Display for CatalogRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchVersion { view, known } if known.is_empty() => {
                let projection = &view.projection;
                write!(f, "{view} does not exist: {projection} has no versions, or there is no such projection")
            }
            Self::NoSuchVersion { view, known } if known.len() == 1 => {
                write!(f, "{view} does not exist: the version is {}", known[0])
            }
            Self::NoSuchVersion { view, known } => {
                let known: Vec<_> = known.iter().map(ToString::to_string).collect();
                write!(f, "{view} does not exist: the versions are {}", known.join(", "))
            }
            Self::WrongPhase { view, phase, asked } => write!(f, "cannot {asked} {view}: it is {phase}"),
            Self::FlipUnderWay { view } => {
                write!(f, "a flip to {view} is under way: wait for it, or cancel it")
            }
            Self::NoFlipUnderWay { projection } => write!(f, "no such flip of {projection} is under way"),
            Self::ReplayUnderWay { view, after, requested } => write!(
                f,
                "a replay of {view} after position {} is already running, requested at position {}: wait for its end",
                grouped(after.get()),
                grouped(requested.get())
            ),
            Self::TooLate { view, what, found } => {
                write!(f, "it is too late to cancel {what} {view}: {found}")
            }
            Self::NotRestored { view } => write!(
                f,
                "the clean-up of {view} cannot be cancelled: its build had not ended, and another version is now being \
                 built; cancel that rebuild first"
            ),
            Self::NotVerified { view, waiting_on } => {
                write!(f, "{view} has not been verified yet, so there is no verdict to waive: ")?;
                if waiting_on.is_empty() {
                    return f.write_str("wait until it has caught up and has a verdict");
                }
                let waiting_on: Vec<_> = waiting_on.iter().map(ToString::to_string).collect();
                write!(f, "it waits on {}", waiting_on.join("; "))
            }
            Self::NothingToWaive { view } => {
                write!(f, "{view} has passed its verification, so there is nothing to waive: request a flip to it")
            }
            Self::NoVerdict { view } => {
                write!(f, "{view} has no verdict that lets it serve: `dacapo verify` shows the report")
            }
            Self::VerificationOutdated { view } => {
                write!(f, "a new verification of {view} was requested, and this result is of one that began before")
            }
            Self::NoReplayUnderWay { view } => write!(f, "no such replay of {view} is under way"),
            Self::NothingToCopy { projection } => {
                write!(f, "no version of {projection} serves, so there is nothing to copy: rebuild it from the journal")
            }
            Self::NotCovered { requested, covers } => {
                let (requested, covers) = (grouped(requested.get()), grouped(covers.get()));
                write!(f, "the new version covers position {covers}, not the flip request at position {requested}")
            }
            Self::Fingerprint { projection, code, recorded, declared } => write!(
                f,
                "the code of {projection} v{code} has changed under an unchanged version number (it declared \
                 {recorded:?}, now {declared:?}): raise the version number, so that the view is rebuilt"
            ),
            Self::Reads { projection, code, unlike } => write!(
                f,
                "the code of {projection} v{code} differs from what was recorded for this version number: {unlike}; {}",
                unlike.advice()
            ),
        }
    }
}

impl std::error::Error for CatalogRefused {}

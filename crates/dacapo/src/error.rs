//! The errors of a node, classified by what the caller can do about them.

use std::collections::BTreeSet;
use std::time::Duration;

use dacapo_model::{
    AskedTooLong, Cancel, CatalogRefused, EventId, InvalidName, Position, ProjectionName, VersionId, ViewId, WaitingOn,
};
use dacapo_store::{AppendError, AppendRefused, StoreError};

use crate::catalog::CatalogError;
use crate::catalog::KeyReused;
use crate::code::{CarryRefused, HandlerError};
use crate::event::EventError;
use crate::view::ViewError;

/// The class of an [`Error`], by what the caller can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request itself is wrong. It is refused each time until it is changed.
    Invalid,
    /// The request is valid, but the present state does not allow it. Check the state, then decide again.
    Refused,
    /// The requested object does not exist, or is not on this node.
    NotFound,
    /// The store, or something else that is waited for, is not available now. The same request may succeed later.
    Unavailable,
    /// Stored data is damaged, or does not belong to this journal. An operator must repair, restore or rebuild it.
    Corrupt,
    /// Code of the application failed.
    Failed,
}

/// The reason why a node did not carry out a request. [`kind`](Self::kind) shows what the caller can do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A name breaks a rule.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// An event cannot be written as JSON, or the stored event is not of the requested type.
    #[error(transparent)]
    Event(#[from] EventError),
    /// The idempotency key belongs to another request. Nothing was done.
    #[error(transparent)]
    KeyReused(#[from] KeyReused),
    /// The requester, the reason or the idempotency key is too long.
    #[error(transparent)]
    AskedTooLong(#[from] AskedTooLong),
    /// The append is refused. Nothing of it was written.
    #[error(transparent)]
    Append(#[from] AppendRefused),
    /// Only dacapo writes streams that begin with `$`.
    #[error("stream {0} belongs to dacapo itself: append to a stream whose name does not begin with '$'")]
    SystemStream(dacapo_model::StreamName),
    /// The catalog refuses the change.
    #[error(transparent)]
    Catalog(#[from] CatalogRefused),
    /// The version cannot be carried as it is.
    #[error(transparent)]
    Carry(#[from] CarryRefused),
    /// The object of the operation, or of the wait, does not exist.
    #[error(transparent)]
    NoTarget(#[from] NoTarget),
    /// Past events may not be replayed in place in this version.
    #[error(
        "{view} cannot be replayed in place: {why}; `rebuild` makes a new version beside it and moves readers then"
    )]
    NotInPlace {
        /// The version.
        view: ViewId,
        /// The reason.
        why: String,
    },
    /// A replay of this version runs already, and only one can run at a time.
    #[error(
        "a replay of {view} after position {after} is already running, requested at position {requested}{}: wait for \
         its end",
        far_text(.progress)
    )]
    ReplayUnderWay {
        /// The version.
        view: ViewId,
        /// The position after which events are replayed.
        after: Position,
        /// The position of the request for that replay.
        requested: Position,
        /// The position that it covers, and the position where it ends.
        progress: Option<(Position, Position)>,
    },
    /// The new version cannot begin as a copy of the serving one.
    #[error("a new build of {projection} cannot begin as a copy of the serving version: {why}")]
    NoCopy {
        /// The projection.
        projection: ProjectionName,
        /// The reason, and what to do.
        why: String,
    },
    /// The projection is neither carried by this node nor known to the catalog.
    #[error("there is no projection {name}: {}", known_projections(.known))]
    NoSuchProjection {
        /// The requested name.
        name: ProjectionName,
        /// The existing projections.
        known: Vec<ProjectionName>,
    },
    /// This node does not carry the code that is needed.
    #[error("this node does not carry the code of {projection}{}: ask a node whose program has it", version_text(.version))]
    NotCarried {
        /// The projection.
        projection: ProjectionName,
        /// The version whose code is needed; any if there is none.
        version: Option<VersionId>,
    },
    /// The serving version does not answer such a query.
    #[error("{view} does not answer {query}: it answers {}; add it with `answering::<{query}>()`", list(.answers))]
    NoAnswer {
        /// The serving version.
        view: ViewId,
        /// The type of the query.
        query: &'static str,
        /// The types of queries that it answers.
        answers: Vec<&'static str>,
    },
    /// The condition was not met in the time allowed. Retrying is safe.
    #[error("{what} after {} ms: {}", .waited.as_millis(), waiting_text(.waiting_on))]
    TimedOut {
        /// The condition, as a statement that it was not met.
        what: String,
        /// The time that was waited.
        waited: Duration,
        /// The wait reasons of the condition.
        waiting_on: Vec<WaitingOn>,
    },
    /// A verdict can be waived only with a reason.
    #[error("a verdict can be waived only with a reason, which is kept with it: say why it does not matter")]
    NoReason,
    /// The flip was given up.
    #[error("the flip of {projection} to {to} was given up: {reason}")]
    FlipAborted {
        /// The projection.
        projection: ProjectionName,
        /// The version that would have served.
        to: VersionId,
        /// The reason.
        reason: String,
    },
    /// The event waits for an earlier one of its stream that was set aside, and their order matters.
    #[error(
        "event {position} of {stream} waits in {view} for event {first}, which was set aside before it: retry or drop \
         that one first, or retry the stream"
    )]
    Behind {
        /// The version.
        view: ViewId,
        /// The requested event.
        position: Position,
        /// The earlier event.
        first: Position,
        /// The stream of both.
        stream: dacapo_model::StreamName,
    },
    /// No segment of the version halts at the event, so it cannot be set aside.
    #[error("no segment of {view} halts at event {event}, so it cannot be set aside: {}", halts_text(.halts))]
    NotHalted {
        /// The version.
        view: ViewId,
        /// The requested event.
        event: Position,
        /// The events at which segments halt.
        halts: Vec<Position>,
    },
    /// A new build would discard a version that has passed its verification and waits only for its flip.
    #[error(
        "a new build of {} would discard {view}, which is ready: flip to it, or say that it may be discarded",
        .view.projection
    )]
    WouldDiscard {
        /// The version that is ready.
        view: ViewId,
    },
    /// No live node carries code of this number.
    #[error("no node carries version {code} of the code of {projection}: carried are {}", codes_text(.carried))]
    NoSuchCode {
        /// The projection.
        projection: ProjectionName,
        /// The requested code version.
        code: u32,
        /// The code versions that are carried.
        carried: Vec<u32>,
    },
    /// The code that answers the query failed.
    #[error("the query failed: {0}")]
    Answer(HandlerError),
    /// The rows of a view cannot be read.
    #[error(transparent)]
    View(#[from] ViewError),
    /// The store cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The reason why the object of an operation, or of a wait, does not exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoTarget {
    /// No version is above the serving one.
    #[error("{0} has no version above the serving one to flip to: ask for a rebuild, or name a version")]
    NothingToFlipTo(ProjectionName),
    /// No earlier version stands by.
    #[error("{0} has no earlier version that stands by, so there is nothing to roll back to")]
    NothingToRollBackTo(ProjectionName),
    /// The target of a rollback is not below the serving version.
    #[error("{to} is not below {serving}, which serves: a rollback goes to an earlier version")]
    NotEarlier {
        /// The requested version.
        to: VersionId,
        /// The serving version.
        serving: VersionId,
    },
    /// The target of a flip is below the serving version.
    #[error(
        "{to} is below {serving}, which serves: a flip goes to a later version; ask for a rollback to go back to {to}"
    )]
    NotLater {
        /// The requested version.
        to: VersionId,
        /// The serving version.
        serving: VersionId,
    },
    /// The version was never verified.
    #[error("{0} was never verified")]
    NeverVerified(ViewId),
    /// No version is being built, and none was verified.
    #[error("no version of {0} is being built or was verified: ask for a rebuild")]
    NothingVerified(ProjectionName),
    /// No version is being built, and none was named.
    #[error("no version of {0} can be verified or waived, since none is being built: ask for a rebuild")]
    NothingBuilt(ProjectionName),
    /// No version serves, and none was named.
    #[error("no version of {0} serves, so there is none to replay: name one")]
    NothingToReplay(ProjectionName),
    /// The journal has no event from there on.
    #[error("there is nothing to replay from {from} on: the journal ends at {head}")]
    NothingAfter {
        /// The requested beginning of the replay, in words.
        from: String,
        /// The last position of the journal.
        head: Position,
    },
    /// The journal has no event of this id.
    #[error("event {0} is not in the journal")]
    NoSuchEvent(EventId),
    /// Another replay prevented this one from beginning, and has ended.
    #[error("a replay of {0} has just ended: retry")]
    ReplayEndedNow(ViewId),
    /// The replay that the caller waits for was cancelled.
    #[error("the replay of {view} was cancelled by {by}")]
    ReplayCancelled {
        /// The version.
        view: ViewId,
        /// The person or node that cancelled it.
        by: String,
    },
    /// The version whose replay the caller waits for is gone.
    #[error("the replay of {0} will not end: the version is cleaned up")]
    ReplayGone(ViewId),
    /// The replay that the caller waits for was never requested.
    #[error("no such replay of {0} was requested")]
    NoReplay(ViewId),
    /// The flip that the caller waits for was never requested.
    #[error("no flip of {} to {} was requested", .0.projection, .0.version)]
    NoFlip(ViewId),
    /// The clean-up that the caller waits for was cancelled.
    #[error("the clean-up of {0} was cancelled")]
    CleanUpCancelled(ViewId),
    /// No request is under way that could be cancelled.
    #[error("{}", nothing_text(.projection, .what))]
    NothingToCancel {
        /// The projection.
        projection: ProjectionName,
        /// The kind of request, if it was named.
        what: Option<Cancel>,
    },
    /// Several requests could be cancelled, and none was named.
    #[error("it is not clear what of {projection} is to be cancelled: {}", cancels_text(.of))]
    WhichToCancel {
        /// The projection.
        projection: ProjectionName,
        /// The requests that can be cancelled, with their versions.
        of: Vec<(Cancel, VersionId)>,
    },
}

impl From<std::convert::Infallible> for Error {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

impl From<AppendError> for Error {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Refused(refused) => Self::Append(refused),
            AppendError::Store(error) => Self::Store(error),
        }
    }
}

impl From<CatalogError> for Error {
    fn from(error: CatalogError) -> Self {
        match error {
            CatalogError::Refused(refused) => Self::Catalog(refused),
            CatalogError::Append(refused) => Self::Append(refused),
            CatalogError::KeyReused(reused) => Self::KeyReused(reused),
            CatalogError::Store(error) => Self::Store(error),
        }
    }
}

impl Error {
    /// Returns the class of the error, by what the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Name(_)
            | Self::Event(_)
            | Self::KeyReused(_)
            | Self::AskedTooLong(_)
            | Self::SystemStream(_)
            | Self::NoReason => ErrorKind::Invalid,
            Self::Append(refused) => of_append(refused),
            Self::Catalog(CatalogRefused::NoSuchVersion { .. })
            | Self::NoSuchProjection { .. }
            | Self::NotCarried { .. }
            | Self::NoSuchCode { .. }
            | Self::NoAnswer { .. } => ErrorKind::NotFound,
            Self::Catalog(_)
            | Self::Carry(_)
            | Self::NoTarget(_)
            | Self::NotInPlace { .. }
            | Self::ReplayUnderWay { .. }
            | Self::NoCopy { .. }
            | Self::FlipAborted { .. }
            | Self::Behind { .. }
            | Self::NotHalted { .. }
            | Self::WouldDiscard { .. } => ErrorKind::Refused,
            Self::TimedOut { .. } => ErrorKind::Unavailable,
            Self::Answer(_) => ErrorKind::Failed,
            Self::Store(error) => of_store(error),
            Self::View(ViewError::Store(error)) => of_store(error),
            Self::View(_) => ErrorKind::Invalid,
        }
    }

    /// Returns true if the same request may succeed later without a change.
    pub fn is_retryable(&self) -> bool {
        self.kind() == ErrorKind::Unavailable
    }

    /// Returns true if an append was refused because its stream is not at the expected revision. Read the stream or the
    /// view again, decide again, and append the new decision.
    pub fn is_wrong_revision(&self) -> bool {
        matches!(self, Self::Append(AppendRefused::WrongRevision { .. }))
    }

    /// Returns the error that no projection has this name. `known` may name one several times.
    pub(crate) fn no_such_projection(name: &ProjectionName, known: impl Iterator<Item = ProjectionName>) -> Self {
        let known = known.collect::<BTreeSet<_>>().into_iter().collect();
        Self::NoSuchProjection { name: name.clone(), known }
    }

    /// Returns the error that `position` cannot be covered yet because the journal ends before it.
    pub(crate) fn beyond_head(position: Position, head: Position, waited: Duration) -> Self {
        let what = format!("position {position} is not in the journal, which ends at {head},");
        Self::TimedOut { what, waited, waiting_on: vec![WaitingOn::BeyondHead { position, head }] }
    }
}

fn of_append(refused: &AppendRefused) -> ErrorKind {
    match refused {
        AppendRefused::WrongRevision { .. } | AppendRefused::IdTaken { .. } | AppendRefused::PartlyKnown { .. } => {
            ErrorKind::Refused
        }
        AppendRefused::IdTwice { .. } | AppendRefused::Limit { .. } | AppendRefused::Empty => ErrorKind::Invalid,
        // Nothing of a refused append was written, for any reason.
        _ => ErrorKind::Refused,
    }
}

fn of_store(error: &StoreError) -> ErrorKind {
    match error {
        StoreError::Unavailable { .. } | StoreError::Owned { .. } => ErrorKind::Unavailable,
        StoreError::Corrupt { .. } | StoreError::Parted(_) | StoreError::JournalParted(_) => ErrorKind::Corrupt,
        StoreError::Invalid(_) => ErrorKind::Invalid,
        StoreError::BeyondHead { .. } | StoreError::BeyondStream { .. } => ErrorKind::Refused,
        // The store did not do it, and gives no more details.
        _ => ErrorKind::Unavailable,
    }
}

fn list(names: &[&str]) -> String {
    if names.is_empty() { "no queries".to_owned() } else { names.join(", ") }
}

fn known_projections(known: &[ProjectionName]) -> String {
    match known {
        [] => "there are none yet".to_owned(),
        [one] => format!("the projection is {one}"),
        several => {
            let names: Vec<_> = several.iter().map(ProjectionName::as_str).collect();
            format!("the projections are {}", names.join(", "))
        }
    }
}

fn halts_text(halts: &[Position]) -> String {
    let halts: Vec<_> = halts.iter().map(ToString::to_string).collect();
    if halts.is_empty() { "none halts".to_owned() } else { format!("they halt at {}", halts.join(", ")) }
}

fn codes_text(carried: &[u32]) -> String {
    let carried: Vec<_> = carried.iter().map(ToString::to_string).collect();
    if carried.is_empty() { "none of it".to_owned() } else { carried.join(", ") }
}

fn nothing_text(projection: &ProjectionName, what: &Option<Cancel>) -> String {
    let kind = match what {
        Some(Cancel::Flip) => "flip",
        Some(Cancel::Rebuild) => "rebuild",
        Some(Cancel::CleanUp) => "clean-up",
        Some(Cancel::Replay) => "replay",
        None => return format!("nothing of {projection} is under way that could be cancelled"),
    };
    format!("there is no {kind} of {projection} to cancel")
}

fn cancels_text(of: &[(Cancel, VersionId)]) -> String {
    let names: Vec<_> = of.iter().map(|(what, version)| format!("{what} {version}")).collect();
    names.join(", or ")
}

fn far_text(progress: &Option<(Position, Position)>) -> String {
    progress.map_or_else(String::new, |(at, through)| format!(", and is at position {at} of {through}"))
}

fn version_text(version: &Option<VersionId>) -> String {
    version.map_or_else(String::new, |version| format!(" {version}"))
}

fn waiting_text(waiting_on: &[WaitingOn]) -> String {
    let texts: Vec<_> = waiting_on.iter().map(ToString::to_string).collect();
    if texts.is_empty() { "retry".to_owned() } else { format!("it waits on {}", texts.join("; ")) }
}

/// The reason why a node did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The code that it carries does not fit the stored catalog.
    #[error(transparent)]
    Code(#[from] CatalogRefused),
    /// A version that the builder got could not run.
    #[error(transparent)]
    Carry(#[from] CarryRefused),
    /// The builder got no store, and the crate was built without the feature `embedded`, which has the memory store.
    #[error("there is no store: give one with NodeBuilder::store, or build with the feature `embedded` of dacapo")]
    NoStore,
    /// A subscriber that the builder got would never be called.
    #[error("the subscriber {name} cannot run: {why}")]
    Subscriber {
        /// Its name.
        name: &'static str,
        /// The reason.
        why: String,
    },
    /// The store cannot be opened, or its views do not belong to its journal.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<CatalogError> for StartError {
    fn from(error: CatalogError) -> Self {
        match error {
            CatalogError::Refused(refused) => Self::Code(refused),
            CatalogError::Store(error) => Self::Store(error),
            error => Self::Store(StoreError::Invalid(error.to_string())),
        }
    }
}

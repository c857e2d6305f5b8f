//! How dacapo is spoken to: the wire forms of version 1, the trait that every node answers to, and
//! its HTTP client.
//!
//! The forms here are what travels, not what the program thinks in: they are converted by hand from
//! and to the types of `dacapo-model`, so that a change of a rule cannot silently change the wire. A
//! reader ignores fields it does not know, and what a later release may add to (phases, reasons to
//! wait, error codes, kinds of history) is text, so that an older client shows what it cannot name.
//!
//! This crate never decides anything and knows no store; [`Api`] is implemented for a node by
//! `dacapo-server` and for a far one by [`HttpClient`].

#![warn(clippy::unwrap_used, clippy::expect_used)]

mod client;
mod error;
mod events;
#[cfg(feature = "fake")]
pub mod fake;
mod form;
mod letters;
mod operate;
pub mod paths;
mod status;
pub mod strict;
mod verification;

use async_trait::async_trait;

pub use client::{ClientLimits, HttpClient, without_secrets};
pub use error::{ApiError, Problem};
pub use events::{
    AppendRequest, AppendResponse, Event, Expected, Metadata, NewEvent, OnKnown, ReadRequest, ReadResponse, Recorded,
    RevisionDemand, StreamSummary, StreamsRequest, StreamsResponse,
};
pub use form::{
    Json, check_category, format_time, parse_event_id, parse_number, parse_projection, parse_time, parse_version,
};
pub use letters::{
    EffectLetter, Letter, LettersRequest, LettersResponse, PauseRequest, PauseResponse, SetAsideRequest,
    SetAsideResponse, SettleRequest, SettleResponse,
};
pub use operate::{
    Asked, CancelRequest, CancelResponse, CleanUpRequest, CleanUpResponse, FlipRequest, FlipResponse, History,
    HistoryEntry, PhasesRequest, RebuildRequest, RebuildResponse, ReplayRequest, ReplayResponse, name_of_cancel,
};
pub use status::{
    FlipStatus, MemberStatus, NodeStatus, ProjectionStatus, SegmentStatus, Stall, Status, SubscriberFailure,
    SubscriberStatus, TimeLeft, VersionStatus, WaitingOn, kind_of_flip,
};
pub use verification::{
    Finding, PartReport, Report, Verification, VerificationRequest, VerifyRequest, VerifyResponse, Waiver,
};

/// Everything a node can be asked. Any node answers every call, whichever node carries it out.
///
/// Every call that changes the catalog carries who asks, why, and an idempotency key ([`Asked`]): asked
/// again with the same key it answers as the first time and changes nothing.
#[async_trait]
pub trait Api: Send + Sync {
    /// How the node and its projections are.
    ///
    /// # Errors
    /// [`ApiError::Unavailable`] when the node cannot tell at the moment.
    async fn status(&self) -> Result<Status, ApiError>;

    /// How the node itself is, and whether queries should be sent to it. It is told at once, whatever the store does.
    ///
    /// # Errors
    /// As [`status`](Self::status).
    async fn readiness(&self) -> Result<NodeStatus, ApiError> {
        self.status().await.map(|status| status.node)
    }

    /// Appends events: all of them or nothing. Once this returns they are durable.
    ///
    /// # Errors
    /// [`ApiError::Refused`] when they cannot be written as things are, such as `wrong_revision`;
    /// [`ApiError::Invalid`] when they break a rule or a limit.
    async fn append(&self, request: AppendRequest) -> Result<AppendResponse, ApiError>;

    /// Reads events forward, from the journal or from one stream; at the head it waits for more if asked to.
    ///
    /// # Errors
    /// [`ApiError::Invalid`] when the request contradicts itself.
    async fn read(&self, request: ReadRequest) -> Result<ReadResponse, ApiError>;

    /// Lists streams in the order of their names' bytes.
    ///
    /// # Errors
    /// [`ApiError::Unavailable`] when they cannot be read at the moment.
    async fn streams(&self, request: StreamsRequest) -> Result<StreamsResponse, ApiError>;

    /// Schedules a new version of a projection beside the serving one.
    ///
    /// # Errors
    /// [`ApiError::NotFound`] when no node carries such code; [`ApiError::Refused`] by the catalog.
    async fn rebuild(&self, projection: &str, request: RebuildRequest) -> Result<RebuildResponse, ApiError>;

    /// Asks that readers move to another version: to `to`, or to the newest above the serving one.
    /// With `wait_ms` the answer comes when it has happened or the time is over, and says which.
    ///
    /// # Errors
    /// [`ApiError::NotFound`] without such a version; [`ApiError::Refused`] by the catalog.
    async fn flip(&self, projection: &str, request: FlipRequest) -> Result<FlipResponse, ApiError>;

    /// Asks that readers move back: to `to`, or to the version that served last and stands by.
    /// Waits as [`flip`](Self::flip) does.
    ///
    /// # Errors
    /// As [`flip`](Self::flip).
    async fn rollback(&self, projection: &str, request: FlipRequest) -> Result<FlipResponse, ApiError>;

    /// Lets past events go through the serving version again, or through another one, in its own view. With `wait_ms`
    /// the answer comes when that has ended or the time is over, and says which.
    ///
    /// # Errors
    /// [`ApiError::Refused`] when the projection does not let it, and while another replay runs, with how far that is;
    /// [`ApiError::NotFound`] without such a version.
    async fn replay(&self, projection: &str, request: ReplayRequest) -> Result<ReplayResponse, ApiError>;

    /// Drops the view of a version that does not serve. A flip to it is aborted.
    ///
    /// # Errors
    /// [`ApiError::NotFound`] without such a version; [`ApiError::Refused`] when it serves.
    async fn clean_up(
        &self,
        projection: &str,
        version: &str,
        request: CleanUpRequest,
    ) -> Result<CleanUpResponse, ApiError>;

    /// How the verification of a version stands: what was found, and the verdict. With `wait_ms` the answer comes when
    /// it is verified or the time is over.
    ///
    /// # Errors
    /// [`ApiError::NotFound`] without such a projection; [`ApiError::Refused`] without such a version.
    async fn verification(&self, projection: &str, request: VerificationRequest) -> Result<Verification, ApiError>;

    /// Asks that a version that is being built is verified again. Until that is done its verdict does not count.
    ///
    /// # Errors
    /// As [`verification`](Self::verification); [`ApiError::Refused`] when it is not being built.
    async fn verify(&self, projection: &str, request: VerifyRequest) -> Result<VerifyResponse, ApiError>;

    /// Answers for a version that was not found right, so that it may serve. Who and why are kept.
    ///
    /// # Errors
    /// As [`verify`](Self::verify); [`ApiError::Refused`] when there is no verdict, [`ApiError::Invalid`] without a
    /// reason.
    async fn waive(&self, projection: &str, request: VerifyRequest) -> Result<VerifyResponse, ApiError>;

    /// Applies no more events to the view of a version until it is resumed.
    ///
    /// # Errors
    /// [`ApiError::NotFound`] without such a version; [`ApiError::Refused`] by the catalog, or when it is not clear
    /// which version is meant.
    async fn pause(&self, projection: &str, request: PauseRequest) -> Result<PauseResponse, ApiError>;

    /// Applies events to it again, and tries at once what its handler refused.
    ///
    /// # Errors
    /// As [`pause`](Self::pause).
    async fn resume(&self, projection: &str, request: PauseRequest) -> Result<PauseResponse, ApiError>;

    /// Lists the dead letters of a version with their events.
    ///
    /// # Errors
    /// [`ApiError::NotFound`] without such a version; [`ApiError::Refused`] when it is not clear which one is meant.
    async fn letters(&self, projection: &str, request: LettersRequest) -> Result<LettersResponse, ApiError>;

    /// Hands events that were set aside to the handler again, in the order of their streams.
    ///
    /// # Errors
    /// As [`letters`](Self::letters); [`ApiError::Refused`] for one event that is behind another of its stream.
    async fn retry_letters(&self, projection: &str, request: SettleRequest) -> Result<SettleResponse, ApiError>;

    /// Lets the event be set aside at which a segment halts.
    ///
    /// # Errors
    /// As [`letters`](Self::letters); [`ApiError::Refused`] when no segment halts there.
    async fn set_aside(&self, projection: &str, request: SetAsideRequest) -> Result<SetAsideResponse, ApiError>;

    /// Gives up what was asked for and has not happened: a flip, a rebuild, a clean-up or a replay in place.
    ///
    /// # Errors
    /// [`ApiError::NotFound`] without such a version; [`ApiError::Refused`] when it is too late, there is nothing to
    /// cancel, or more than one thing.
    async fn cancel(&self, projection: &str, request: CancelRequest) -> Result<CancelResponse, ApiError>;

    /// Gives up events that were set aside.
    ///
    /// # Errors
    /// As [`letters`](Self::letters).
    async fn drop_letters(&self, projection: &str, request: SettleRequest) -> Result<SettleResponse, ApiError>;

    /// What happened to the versions of one projection or of all: the catalog's history, oldest first.
    ///
    /// # Errors
    /// [`ApiError::NotFound`] when the projection is not known.
    async fn phases(&self, request: PhasesRequest) -> Result<History, ApiError>;
}

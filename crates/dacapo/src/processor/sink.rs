//! The contract between a processor and the target to which it writes.
//!
//! A sink keeps one token for each segment, and what it makes of the events. Both change in one atomic step,
//! [`Sink::commit`]. The step fails if a token is not where its move begins, or has another epoch than the one that was
//! claimed (I-3, I-4). A processor is right if this step is; the other methods only prepare it.
//!
//! A run may be dropped at any await, and its sink with it: only a commit lasts.

use std::future::{Future, ready};
use std::ops::ControlFlow::Continue;
use std::time::Duration;

use dacapo_model::assign::Spread;
use dacapo_model::{LetterKind, MemberId, Position, Refusal, Segment, SegmentCount, Timestamp, Token, WaitingOn};
use dacapo_store::{Commit, EventBatch, EventRef, Journal, NewMark, StoreError};
use tokio::time::Instant;

use super::prepare::Prepared;
use super::run::Run;
use super::segments::Segments;
use super::{Next, Orders};
use crate::landing::{Mistake, NotCommitted};

/// The events of one read, and how far each segment goes in them.
pub(crate) struct Portion<'a> {
    pub(crate) batch: &'a EventBatch,
    /// The first of the events to take, counted from 0.
    pub(crate) from: usize,
    pub(crate) segments: SegmentCount,
    /// For each segment the last position to take. A segment that takes no part has its own token here, or a lower
    /// position.
    pub(crate) through: &'a [Position],
    /// For each segment the number of events that it has taken. This portion is added to it.
    pub(crate) applied: &'a mut [u64],
    /// The time at which the rest is left for later.
    pub(crate) until: Instant,
}

/// How far a sink got in a portion.
pub(crate) enum Taken<E> {
    /// All of it is taken.
    All,
    /// All of it through the event at this place in the batch. The rest is left for later.
    Through(usize),
    /// An event is refused. The events before it are taken.
    Refused(RefusedEvent),
    /// An event before this position is at fault, as the sink has found out only now. The run rolls the batch back.
    Mistaken(Position, E),
    /// The sink must be prepared first. The run rolls the batch back.
    Unprepared,
}

/// An event that a sink refuses.
pub(crate) struct RefusedEvent {
    pub(crate) segment: Segment,
    /// Its place in the batch, counted from 0.
    pub(crate) index: usize,
    /// True if the event changed something before it was refused. Then the run rolls the batch back.
    pub(crate) changed: bool,
    pub(crate) error: String,
    /// True if it is refused only because no more events may be set aside.
    pub(crate) no_room: bool,
}

/// A sink, as one run under one claim uses it.
pub(crate) trait Sink: Send + Sized {
    /// The place in which a run finds its sink. It outlives runs.
    type Place: Send + Sync;
    /// The error of a commit.
    type Error: Mistake;

    /// Opens the sink of one run, before it claims segments. It contains only what earlier runs have committed.
    fn open(place: &Self::Place) -> impl Future<Output = Result<Self, StoreError>> + Send;

    /// Returns every token, in the order of segments.
    fn tokens(&mut self) -> impl Future<Output = Result<Vec<Token>, StoreError>> + Send;

    /// Claims segments for the member `by`, or releases them with `None`. Each segment whose token still has the epoch
    /// that was `seen` gets the next epoch, so that no commit of an earlier claim lands any more (I-4). Returns the
    /// tokens that were claimed.
    fn claim(
        &mut self,
        by: Option<MemberId>,
        seen: &[Token],
    ) -> impl Future<Output = Result<Vec<Token>, StoreError>> + Send;

    /// Loads what is stored for the segments that this run has claimed. Returns the events that segments stop before;
    /// the run ignores those of other segments.
    fn begin(&mut self, claimed: &[Token]) -> impl Future<Output = Result<Vec<Refusal>, StoreError>> + Send;

    /// Takes events, in their order, as far as it can. An error means that the claim is in doubt.
    fn take(&mut self, portion: Portion<'_>) -> impl Future<Output = Result<Taken<Self::Error>, StoreError>> + Send;

    /// Commits what was taken since the last commit, together with the moves of tokens and the rest of `commit`, if
    /// [`Token::moved`] allows every move: all of it or nothing (I-3, I-4). The run sets only the moves, the refusals
    /// and the mark of `commit`.
    fn commit(&mut self, commit: &Commit) -> impl Future<Output = Result<(), NotCommitted<Self::Error>>> + Send;

    /// Forgets what was taken since the last commit.
    fn rollback(&mut self) -> impl Future<Output = Result<(), StoreError>> + Send;

    // The optional parts of a sink.

    /// Returns the damage that was found.
    fn damaged(_place: &Self::Place) -> Option<String> {
        None
    }

    /// Checks the changes of other members to the sink. Returns true if a new run must begin.
    fn look(&mut self) -> impl Future<Output = Result<bool, StoreError>> + Send {
        ready(Ok(false))
    }

    /// Returns how its segments are assigned to members.
    fn spread(&self, _seen: &[Token], _orders: &Orders) -> Spread {
        Spread::Even
    }

    /// Reads wishes. The run calls it before it reads the orders, so that it carries out no wish that came after a
    /// pause.
    fn listen(_run: &mut Run<'_, Self>) -> impl Future<Output = Result<(), StoreError>> + Send {
        ready(Ok(()))
    }

    /// Notes that the run has read its orders. With `try_now`, failed work is retried at once.
    fn heed(_run: &mut Run<'_, Self>, _try_now: bool) {}

    /// Does the work on the sink as a whole that is due before the next batch.
    fn prepare(_run: &mut Run<'_, Self>) -> impl Future<Output = Result<Next<Prepared>, StoreError>> + Send {
        ready(Ok(Continue(Prepared::Ready)))
    }

    /// Returns the position at which work on the sink as a whole is due. A batch ends there, and only a run with all
    /// segments goes further.
    fn stops_at(&self) -> Option<Position> {
        None
    }

    /// Notes that a batch begins at this time.
    fn begin_batch(&mut self, _now: Timestamp) {}

    /// Notes that the run takes the batch from its first event, for the first time or again.
    fn begin_try(&mut self, _segments: &Segments) {}

    /// Returns true if a batch that has taken this long must end although there is more to read.
    fn is_full(&self, _time: Duration) -> bool {
        false
    }

    /// Sets an event aside, so that it counts as taken. Returns false if there is no room; then the segment stops
    /// before the event.
    fn set_aside(&mut self, _event: &AsideEvent<'_, '_>) -> Result<bool, StoreError> {
        Ok(false)
    }

    /// Completes the commit of a batch.
    fn complete(&self, _commit: &mut Commit) {}

    /// Notes that the batch is committed.
    fn batch_landed(&mut self) {}

    /// Returns the mark of the journal's history that belongs to a commit through this position, if the sink keeps
    /// marks.
    fn mark(
        &mut self,
        _journal: &dyn Journal,
        _through: Position,
    ) -> impl Future<Output = Result<Option<NewMark>, StoreError>> + Send {
        ready(Ok(None))
    }

    /// Returns how many events are set aside.
    fn aside(&self) -> usize {
        0
    }

    /// Returns the wait reasons of work on the sink as a whole.
    fn reasons(&self) -> Vec<WaitingOn> {
        vec![]
    }

    /// Returns the time until work on the sink as a whole is retried.
    fn next_due(&self, _now: Timestamp) -> Option<Duration> {
        None
    }
}

/// An event that will be set aside, and the reason.
pub(crate) struct AsideEvent<'a, 'e> {
    pub(crate) segment: Segment,
    pub(crate) event: &'a EventRef<'e>,
    pub(crate) kind: LetterKind,
    pub(crate) error: &'a str,
    pub(crate) attempts: u32,
    pub(crate) now: Timestamp,
}

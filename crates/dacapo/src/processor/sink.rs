//! What a processor writes to: what it needs of it, and what it may have besides.
//!
//! A sink keeps a token for each segment, and whatever it makes of the events. Both change in one step, [`Sink::commit`],
//! which lands only if each token is where its move begins and has the epoch that was claimed (I-3, I-4). That step is all
//! that makes a processor right; the rest of this trait says how to fill it, and when.
//!
//! Whatever is called may be dropped before it is done, and the whole run with it: nothing but a commit lasts.

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

/// Some of the events of a batch, and how far each segment goes in them.
pub(crate) struct Portion<'a> {
    pub(crate) batch: &'a EventBatch,
    /// The first of the events to take, counted from 0.
    pub(crate) from: usize,
    pub(crate) segments: SegmentCount,
    /// For each segment the last position to take; one that takes no part has its own token here or less.
    pub(crate) through: &'a [Position],
    /// For each segment how many events it has taken up; added to.
    pub(crate) applied: &'a mut [u64],
    /// When to leave the rest for later.
    pub(crate) until: Instant,
}

/// How far a sink came in a portion.
pub(crate) enum Taken<E> {
    /// All of it is taken.
    All,
    /// All through the event at this place in the batch; the rest is left for later.
    Through(usize),
    /// An event is refused. Those before it are taken.
    Refused(RefusedEvent),
    /// A mistake has shown in what was taken before this position: everything that was not committed is taken back.
    Mistaken(Position, E),
    /// Something is to be done to the sink as a whole first: everything that was not committed is taken back.
    Unprepared,
}

/// An event that a sink refuses.
pub(crate) struct RefusedEvent {
    pub(crate) segment: Segment,
    /// Its place in the batch, counted from 0.
    pub(crate) index: usize,
    /// Whether anything was changed for it before it was refused, which is taken back with the batch.
    pub(crate) changed: bool,
    pub(crate) error: String,
    /// Whether it is refused only because no more events may be set aside.
    pub(crate) no_room: bool,
}

/// A sink, as one run under one claim has it.
pub(crate) trait Sink: Send + Sized {
    /// Where a run finds its sink: this outlives runs.
    type Place: Send + Sync;
    /// What can go wrong with what is committed.
    type Error: Mistake;

    /// Opens it, before segments are claimed. Nothing of an earlier run that was not committed is in it.
    fn open(place: &Self::Place) -> impl Future<Output = Result<Self, StoreError>> + Send;

    /// Every token, in the order of segments.
    fn tokens(&mut self) -> impl Future<Output = Result<Vec<Token>, StoreError>> + Send;

    /// Claims segments for the member `by`, or for nobody: each whose token still has the epoch that was `seen` gets the
    /// next one, so that no commit of an earlier claim lands any more (I-4). Returns the tokens that were claimed.
    fn claim(
        &mut self,
        by: Option<MemberId>,
        seen: &[Token],
    ) -> impl Future<Output = Result<Vec<Token>, StoreError>> + Send;

    /// Takes up what is kept for the segments of these tokens, which this run has claimed. Returns the events that
    /// segments stop before; those of other segments among them are ignored.
    fn begin(&mut self, claimed: &[Token]) -> impl Future<Output = Result<Vec<Refusal>, StoreError>> + Send;

    /// Takes events, in their order, as far as it can. An error means that the claim is in doubt.
    fn take(&mut self, portion: Portion<'_>) -> impl Future<Output = Result<Taken<Self::Error>, StoreError>> + Send;

    /// Commits whatever was taken since the last commit, together with the moves of tokens and what else `commit` says, if
    /// every move is allowed by [`Token::moved`]: all of it or nothing (I-3, I-4). Of `commit` the run itself sets the
    /// moves, the refusals and the mark.
    fn commit(&mut self, commit: &Commit) -> impl Future<Output = Result<(), NotCommitted<Self::Error>>> + Send;

    /// Forgets whatever was taken since the last commit.
    fn rollback(&mut self) -> impl Future<Output = Result<(), StoreError>> + Send;

    // What a sink may have besides.

    /// What is found of it that is not what was written.
    fn damaged(_place: &Self::Place) -> Option<String> {
        None
    }

    /// Looks what others have done to it. `true`: the run must begin anew.
    fn look(&mut self) -> impl Future<Output = Result<bool, StoreError>> + Send {
        ready(Ok(false))
    }

    /// How its segments go to the members.
    fn spread(&self, _seen: &[Token], _orders: &Orders) -> Spread {
        Spread::Even
    }

    /// Listens for what is wished for; before the run looks whether it is paused, so that no wish that came after a pause
    /// is carried out.
    fn listen(_run: &mut Run<'_, Self>) -> impl Future<Output = Result<(), StoreError>> + Send {
        ready(Ok(()))
    }

    /// There may be new orders. With `try_now` whatever failed is due for another try.
    fn heed(_run: &mut Run<'_, Self>, _try_now: bool) {}

    /// Does what is to be done to it as a whole before the next batch.
    fn prepare(_run: &mut Run<'_, Self>) -> impl Future<Output = Result<Next<Prepared>, StoreError>> + Send {
        ready(Ok(Continue(Prepared::Ready)))
    }

    /// Where something is done to it as a whole: a batch ends there, and goes further only where the run has all segments.
    fn stops_at(&self) -> Option<Position> {
        None
    }

    /// A batch begins, at this time.
    fn begin_batch(&mut self, _now: Timestamp) {}

    /// The events of the batch are taken from its first one on, for the first time or again.
    fn begin_try(&mut self, _segments: &Segments) {}

    /// Whether a batch that was begun so long ago should end, though there is more to read.
    fn is_full(&self, _time: Duration) -> bool {
        false
    }

    /// Sets an event aside, so that it counts as taken. `false`: it cannot, and the segment stops before the event.
    fn set_aside(&mut self, _event: &AsideEvent<'_, '_>) -> Result<bool, StoreError> {
        Ok(false)
    }

    /// Adds what belongs to the batch to its commit.
    fn complete(&self, _commit: &mut Commit) {}

    /// The batch is committed.
    fn batch_landed(&mut self) {}

    /// The mark of the journal's history that a commit takes along whose tokens come as far as `through`, if it keeps any.
    fn mark(
        &mut self,
        _journal: &dyn Journal,
        _through: Position,
    ) -> impl Future<Output = Result<Option<NewMark>, StoreError>> + Send {
        ready(Ok(None))
    }

    /// How many events are set aside.
    fn aside(&self) -> usize {
        0
    }

    /// What it waits on beside its events.
    fn reasons(&self) -> Vec<WaitingOn> {
        vec![]
    }

    /// In how long something is due for another try beside its events.
    fn next_due(&self, _now: Timestamp) -> Option<Duration> {
        None
    }
}

/// An event that is to be set aside, and why.
pub(crate) struct AsideEvent<'a, 'e> {
    pub(crate) segment: Segment,
    pub(crate) event: &'a EventRef<'e>,
    pub(crate) kind: LetterKind,
    pub(crate) error: &'a str,
    pub(crate) attempts: u32,
    pub(crate) now: Timestamp,
}

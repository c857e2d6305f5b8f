//! Dead letters and failed effects, for operators: listed, set aside, retried, dropped.
//!
//! The catalog first records the requester, the decision and the reason. A decision about dead letters is then recorded
//! in the view, and the version's processor carries it out under its claim. So it survives any failure of the node that
//! took the request. During a pause of the version it waits. A decision about effects is carried out in the outbox at
//! once. Nothing here applies an event or makes an effect.

use std::future::{Future, IntoFuture};
use std::sync::Arc;

use dacapo_model::{
    CatalogCommand, CatalogRefused, EffectLetter, Letter, LetterKind, Letters, LettersOf, Phase, Position, Timestamp,
    ViewId, Wish, limits,
};
use dacapo_store::{EventBatch, EventRef, StoreError, WhichEffects, WhichLetters};
use futures::future::BoxFuture;

use super::request::{Operation, Request, Requested};
use super::{Node, VersionHandle};
use crate::catalog::{KeyedRequest, RequestedBy, Which};
use crate::error::Error;
use crate::feed;
use crate::versions::OpenVersion;

impl VersionHandle {
    /// Lists the dead letters of this version in the order of their events.
    ///
    /// # Errors
    /// [`Error::Catalog`] if there is no such version; [`Error::Store`] if its view is not open on this node, or if the
    /// position after which the list begins is not in the journal.
    pub fn letters(&self) -> List<DeadLetter> {
        List::new(self)
    }

    /// Retries events that were set aside, in the order of their streams. It happens soon, possibly after this has
    /// returned; for a paused version, once it is resumed. [`Settled`] has their number.
    ///
    /// A letter whose event is applied is removed. A letter whose event is refused again stays, with one more attempt.
    /// If the order matters, later letters of its stream then stay as they were, without a retry. Events of these
    /// streams that are set aside during that time are retried as well.
    ///
    /// # Errors
    /// As [`letters`](Self::letters); [`Error::Behind`] for one event if an earlier event of its stream is set aside
    /// and has no decision.
    pub fn retry_letters(&self, which: WhichLetters) -> Request<Settle> {
        self.settles(LettersOf::Events, which, Wish::Retry)
    }

    /// Gives up events that were set aside, so that the view stays without them. Later events of their streams that
    /// were set aside stay so until they are retried. It happens soon, possibly after this has returned; for a paused
    /// version, once it is resumed.
    ///
    /// # Errors
    /// As [`letters`](Self::letters).
    pub fn drop_letters(&self, which: WhichLetters) -> Request<Settle> {
        self.settles(LettersOf::Events, which, Wish::Drop)
    }

    /// Sets aside the event at which a segment of this version halts, under any policy. The event is tried once more.
    /// If it is refused again, it becomes a dead letter. If the order of streams matters, later events of its stream
    /// wait for it. It happens soon, possibly after this has returned, on the node that has the segment; for a paused
    /// version, once it is resumed.
    ///
    /// # Errors
    /// [`Error::NotHalted`] if no segment halts at the event; as [`letters`](Self::letters), including an event that is
    /// not in the journal.
    pub fn set_aside(&self, event: Position) -> Request<SetAside> {
        Request::new(&self.node, SetAside { view: self.view.clone(), event })
    }

    /// Lists the failed effects of this version, set aside or not, in the order in which they were emitted. For a
    /// version that is being cleaned up, lists all effects that are still to be made.
    ///
    /// # Errors
    /// As [`letters`](Self::letters).
    pub fn effect_letters(&self) -> List<EffectLetter> {
        List::new(self)
    }

    /// Retries effects at once. An effect that was set aside is made before the waiting
    /// effects of its stream, and after those that were made meanwhile.
    ///
    /// # Errors
    /// As [`letters`](Self::letters).
    pub fn retry_effects(&self, which: WhichLetters) -> Request<Settle> {
        self.settles(LettersOf::Effects, which, Wish::Retry)
    }

    /// Gives up failed effects. They are not made any more, except if a try is under way now.
    /// The later effects of their streams are made. The effect of one named event, and all effects of a version that is
    /// being cleaned up, are given up even if they were never tried.
    ///
    /// # Errors
    /// As [`letters`](Self::letters).
    pub fn drop_effects(&self, which: WhichLetters) -> Request<Settle> {
        self.settles(LettersOf::Effects, which, Wish::Drop)
    }

    fn settles(&self, of: LettersOf, which: WhichLetters, wish: Wish) -> Request<Settle> {
        Request::new(&self.node, Settle { view: self.view.clone(), of, which, wish })
    }
}

/// A dead letter with the event that was set aside.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// The reason why it was set aside, and the decision about it.
    pub letter: Letter,
    event: EventBatch,
}

impl DeadLetter {
    /// Returns the event, as the journal has it.
    pub fn event(&self) -> EventRef<'_> {
        self.event.get(0)
    }
}

/// The items of a [`List`]: dead letters, or failed effects.
pub trait Listed: Sized + Send + 'static {
    /// The place after which a list begins.
    type Place: Default + Send + 'static;

    /// Reads at most `most` items after `after`.
    #[doc(hidden)]
    fn list(
        node: Node,
        view: ViewId,
        after: Self::Place,
        most: usize,
    ) -> impl Future<Output = Result<Vec<Self>, Error>> + Send;
}

/// A part of a list, which is read once it is awaited: `version.letters().after(position).limit(100).await`.
#[must_use = "a list is read when it is awaited"]
pub struct List<L: Listed> {
    version: VersionHandle,
    after: L::Place,
    most: usize,
}

impl<L: Listed> List<L> {
    fn new(version: &VersionHandle) -> Self {
        Self { version: version.clone(), after: L::Place::default(), most: limits::LETTERS_READ_MAX }
    }

    /// Begins after this place: the position of an event for dead letters, the number of an effect for effects.
    /// Default: at the beginning.
    pub fn after(mut self, place: L::Place) -> Self {
        self.after = place;
        self
    }

    /// Reads at most this many items. Default: 1,000.
    pub fn limit(mut self, most: usize) -> Self {
        self.most = most;
        self
    }
}

impl<L: Listed> IntoFuture for List<L> {
    type Output = Result<Vec<L>, Error>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let VersionHandle { node, view } = self.version;
        Box::pin(L::list(node, view, self.after, self.most))
    }
}

impl Listed for DeadLetter {
    type Place = Position;

    async fn list(node: Node, view: ViewId, after: Position, most: usize) -> Result<Vec<Self>, Error> {
        node.versions.check_seen(after).await?;
        let open = node.with_letters(&view)?;
        let mut letters = Vec::new();
        for letter in open.view.letters(after, most).await? {
            let event = feed::event_at(&*node.versions.journal, letter.position).await?;
            letters.push(Self { letter, event });
        }
        Ok(letters)
    }
}

impl Listed for EffectLetter {
    type Place = u64;

    async fn list(node: Node, view: ViewId, after: u64, most: usize) -> Result<Vec<Self>, Error> {
        let (stored, phase) = node.with_outbox(&view).await?;
        Ok(stored.effect_letters(after, most, phase == Phase::CleaningUp).await?)
    }
}

/// A decision about dead letters or effects that was recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// The version, and the position of the decision in the catalog; no position if there was nothing to decide about.
    pub requested: Requested,
    /// The number of letters that the decision is about; `None` if a decision is repeated under its idempotency key.
    pub letters: Option<u64>,
}

/// A decision about dead letters or effects; see [`VersionHandle::retry_letters`].
pub struct Settle {
    view: ViewId,
    of: LettersOf,
    which: WhichLetters,
    wish: Wish,
}

impl Operation for Settle {
    type Recorded = Settled;

    async fn record(self, node: Node, by: RequestedBy) -> Result<Settled, Error> {
        let before = node.repeated(&by, &self.request()).await?;
        match before {
            // There was nothing to decide about, so nothing can be incomplete.
            Some(requested) if requested.position.is_none() => Ok(Settled { requested, letters: Some(0) }),
            Some(requested) => {
                if !self.is_over(&node) {
                    self.decide(&node, &by, true).await?;
                }
                Ok(Settled { requested, letters: None })
            }
            None => {
                let (position, letters) = self.decide(&node, &by, false).await?;
                Ok(Settled { requested: Requested::new(&node, self.view, position), letters: Some(letters) })
            }
        }
    }
}

impl Settle {
    /// Returns the request in the form that is stored with its key.
    fn request(&self) -> KeyedRequest {
        let act = match (self.wish, self.of) {
            (Wish::Retry, LettersOf::Events) => "letters-retry",
            (Wish::Retry, LettersOf::Effects) => "effects-retry",
            (Wish::Drop, LettersOf::Events) => "letters-drop",
            (Wish::Drop, LettersOf::Effects) => "effects-drop",
        };
        KeyedRequest::new(act, &self.view.projection, Which::Version(self.view.version)).with(selected(&self.which))
    }

    /// Returns true if the version has nothing left that a repeated request could complete.
    fn is_over(&self, node: &Node) -> bool {
        let catalog = node.versions.catalog.current();
        !catalog.version(&self.view).is_some_and(|state| state.may_have(self.of))
    }

    /// Records the decision and carries it out. Returns its position and the number of letters. A request that
    /// `is_known` completes what is not done yet, but only for what was there before the first request.
    async fn decide(&self, node: &Node, by: &RequestedBy, is_known: bool) -> Result<(Option<Position>, u64), Error> {
        if let WhichLetters::One(position) = self.which {
            node.versions.check_seen(position).await?;
        }
        match self.of {
            LettersOf::Effects => self.decide_effects(node, by, is_known).await,
            LettersOf::Events => {
                let open = node.with_letters(&self.view)?;
                if self.wish == Wish::Retry && !is_known {
                    is_next(&open, &self.which).await?;
                }
                self.wish(node, &open, by, is_known).await
            }
        }
    }

    async fn decide_effects(
        &self,
        node: &Node,
        by: &RequestedBy,
        is_known: bool,
    ) -> Result<(Option<Position>, u64), Error> {
        let Self { view, which, wish, .. } = self;
        let (stored, phase) = node.with_outbox(view).await?;
        let untried = phase == Phase::CleaningUp || matches!(which, WhichLetters::One(_));
        let exist = is_known || has_effects(&*stored, which, untried).await?;
        let Some((through, _)) = self.recorded(node, by, exist).await? else { return Ok((None, 0)) };
        let selected = selected(which);
        let which = WhichEffects { which: which.clone(), through, untried };
        let decided = stored.decide_effects(&which, *wish).await?;
        let RequestedBy { actor, reason, .. } = by;
        tracing::info!(%view, which = selected, ?wish, effects = decided, actor, reason, "effects were decided about");
        Ok((Some(through), decided))
    }

    /// Records the requester and the reason in the catalog, and returns the position and the time. Nothing is done
    /// before it is recorded. If no such letters `exist`, only the key is recorded, if there is one.
    async fn recorded(
        &self,
        node: &Node,
        by: &RequestedBy,
        exist: bool,
    ) -> Result<Option<(Position, Timestamp)>, Error> {
        let (view, of, which, wish) = (self.view.clone(), self.of, self.which.clone(), self.wish);
        let command = CatalogCommand::DecideLetters { view, of, which, wish, exist };
        let entries = Arc::clone(&node.versions.catalog).change_for(self.request(), command, by.clone()).await?;
        Ok(entries.first().map(|entry| (entry.position, entry.recorded)))
    }

    async fn wish(
        &self,
        node: &Node,
        open: &OpenVersion,
        by: &RequestedBy,
        is_known: bool,
    ) -> Result<(Option<Position>, u64), Error> {
        let Self { which, wish, .. } = self;
        let letters = open.view.letters(Position::START, limits::LETTERS_MAX).await?;
        let meant = letters.into_iter().filter(|letter| which.has(letter.position, &letter.stream));
        let meant: Vec<(Position, Timestamp)> = meant.map(|letter| (letter.position, letter.recorded)).collect();
        let exist = is_known || !meant.is_empty();
        let Some((through, decided)) = self.recorded(node, by, exist).await? else { return Ok((None, 0)) };
        let wishing = async {
            if !is_known {
                return open.view.wish(which, Some(*wish)).await;
            }
            let mut wished = 0;
            let were_aside = meant.into_iter().filter(|(position, aside)| *position <= through && *aside <= decided);
            for (position, _) in were_aside {
                wished += open.view.wish(&WhichLetters::One(position), Some(*wish)).await?;
            }
            Ok(wished)
        };
        let wished = tokio::time::timeout(limits::REQUEST_TIME_MAX, wishing).await;
        // This happens after an error, too: the decision may be recorded although the answer was lost.
        open.commands.wished();
        // Another processor, with corrected code, may have replaced its processor meanwhile.
        if let Some(now) = node.versions.open_version(&open.id) {
            now.commands.wished();
        }
        let Ok(wished) = wished else {
            let what = format!("the decision about dead letters of {} is not recorded", open.id);
            let waiting_on = open.told();
            return Err(Error::TimedOut { what, waited: limits::REQUEST_TIME_MAX, waiting_on });
        };
        let (wished, RequestedBy { actor, reason, .. }) = (wished?, by);
        tracing::info!(view = %open.id, which = selected(which), ?wish, events = wished, actor, reason, "dead letters were asked for");
        Ok((Some(through), wished))
    }
}

/// Checks that the named event does not wait for an earlier one that has no decision.
async fn is_next(open: &OpenVersion, which: &WhichLetters) -> Result<(), Error> {
    let WhichLetters::One(position) = *which else { return Ok(()) };
    let letters = Letters::new(open.view.letters(Position::START, limits::LETTERS_MAX).await?);
    // A node without the code knows it from the letter: an event is blocked only where the order matters.
    let order_matters = |letter: &Letter| match &open.carried {
        Some(carried) => carried.options.order_matters,
        None => matches!(letter.kind, LetterKind::Blocked { .. }),
    };
    let letter = letters.get(position).filter(|letter| order_matters(letter));
    match letter.and_then(|letter| letters.before(letter)) {
        None => Ok(()),
        Some(before) => {
            let (view, first) = (open.id.clone(), before.position);
            Err(Error::Behind { view, position, first, stream: before.stream.clone() })
        }
    }
}

/// An event that will be set aside; see [`VersionHandle::set_aside`](super::VersionHandle::set_aside).
pub struct SetAside {
    view: ViewId,
    event: Position,
}

impl Operation for SetAside {
    type Recorded = Requested;

    async fn record(self, node: Node, by: RequestedBy) -> Result<Requested, Error> {
        let Self { view, event } = self;
        let request = KeyedRequest::new("set-aside", &view.projection, Which::Version(view.version));
        let request = request.with(format_args!("event {event}"));
        if let Some(requested) = node.repeated(&by, &request).await? {
            return Ok(requested);
        }
        node.versions.check_seen(event).await?;
        let open = node.with_letters(&view)?;
        let before = Position::new(event.get().saturating_sub(1));
        let is_aside = open.view.letters(before, 1).await?.first().is_some_and(|letter| letter.position == event);
        let halts: Vec<Position> = open.view.refusals().await?.iter().map(|refusal| refusal.position).collect();
        if !is_aside && !halts.contains(&event) {
            return Err(Error::NotHalted { view, event, halts });
        }
        let command = CatalogCommand::SetAside { view: view.clone(), event, halts: !is_aside };
        let entries = Arc::clone(&node.versions.catalog).change_for(request, command, by).await?;
        node.pass_on_orders(&view);
        Ok(Requested::new(&node, view, entries.first().map(|entry| entry.position)))
    }
}

impl Node {
    /// Returns the view of a version, open on this node or not, and its phase.
    async fn with_outbox(&self, view: &ViewId) -> Result<(Arc<dyn dacapo_store::View>, Phase), Error> {
        let phase = self.known(view)?;
        let stored = match self.versions.open_version(view) {
            Some(open) => Some(Arc::clone(&open.view)),
            None => self.versions.views.find(view).await?,
        };
        let tried = || format!("look for effects of {view}");
        let stored =
            stored.ok_or_else(|| StoreError::unavailable(tried(), format!("it is {phase} and has no view")))?;
        Ok((stored, phase))
    }

    /// Returns the phase of the version, if it exists.
    fn known(&self, view: &ViewId) -> Result<Phase, Error> {
        let catalog = self.versions.catalog.current();
        let state = catalog.version(view).filter(|state| state.phase != Phase::Obsolete);
        Ok(state.map(|state| state.phase).ok_or_else(|| {
            let versions = catalog.versions().filter(|(known, _)| known.projection == view.projection);
            let known = versions.map(|(known, _)| known.version).collect();
            CatalogRefused::NoSuchVersion { view: view.clone(), known }
        })?)
    }

    /// Returns the version, if it exists and can have dead letters here.
    fn with_letters(&self, view: &ViewId) -> Result<Arc<OpenVersion>, Error> {
        let phase = self.known(view)?;
        let not_open = || {
            StoreError::unavailable(
                format!("look for dead letters of {view}"),
                format!("it is {phase}, and its view is not open on this node"),
            )
        };
        Ok(self.versions.open_version(view).ok_or_else(not_open)?)
    }
}

/// Returns true if one of the requested effects exists.
async fn has_effects(view: &dyn dacapo_store::View, which: &WhichLetters, untried: bool) -> Result<bool, StoreError> {
    let mut after = 0;
    loop {
        let letters = view.effect_letters(after, limits::LETTERS_READ_MAX, untried).await?;
        let Some(last) = letters.last() else { return Ok(false) };
        after = last.pending.number;
        let effects = letters.iter().map(|letter| &letter.pending.effect);
        if effects.into_iter().any(|effect| which.has(effect.position, &effect.stream)) {
            return Ok(true);
        }
    }
}

/// Returns a selection in words. They are stored with the key of a request, so they never change.
fn selected(which: &WhichLetters) -> String {
    match which {
        WhichLetters::One(position) => format!("of event {position}"),
        WhichLetters::Stream(stream) => format!("of stream {stream}"),
        WhichLetters::All => "all".to_owned(),
    }
}

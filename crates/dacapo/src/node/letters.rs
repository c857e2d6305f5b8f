//! Dead letters and effects that do not come about, as operators meet them: listed, set aside, retried, dropped.
//!
//! Who wants what and why is kept in the catalog first. A wish for dead letters is then recorded in the view and carried
//! out by the version's processor under its claim, so that it survives whatever happens to the node that took it; while
//! the version is paused, it waits. What is decided about effects is done in the outbox at once. Nothing here applies an
//! event or makes an effect.

use std::sync::Arc;

use dacapo_model::{
    CatalogCommand, CatalogRefused, EffectLetter, Letter, Letters, LettersOf, Phase, Position, Timestamp, ViewId, Wish,
    limits,
};
use dacapo_store::{EventBatch, EventRef, StoreError, WhichEffects, WhichLetters};

use super::{Node, Requested};
use crate::catalog::Asked;
use crate::catalog::{Request, Which};
use crate::error::Error;
use crate::feed;
use crate::processor::Orders;
use crate::versions::OpenVersion;

/// A dead letter with the event that was set aside.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// Why it was set aside, and what shall be done with it.
    pub letter: Letter,
    event: EventBatch,
}

impl DeadLetter {
    /// The event, as the journal has it.
    pub fn event(&self) -> EventRef<'_> {
        self.event.get(0)
    }
}

impl Node {
    /// The dead letters of a version behind the event at `after`, in the order of their events, at most `most`.
    ///
    /// # Errors
    /// [`Error::Catalog`] without such a version; [`Error::Store`] when its view is not open on this node, or when
    /// `after` is not in the journal.
    pub async fn letters(&self, view: &ViewId, after: Position, most: usize) -> Result<Vec<DeadLetter>, Error> {
        self.versions.check_seen(after).await?;
        let open = self.with_letters(view)?;
        let mut letters = Vec::new();
        for letter in open.view.letters(after, most).await? {
            let event = feed::event_at(&*self.versions.journal, letter.position).await?;
            letters.push(DeadLetter { letter, event });
        }
        Ok(letters)
    }

    /// Hands events that were set aside to the handler again, in the order of their streams, and returns how many
    /// there are. It happens soon, or once a version that is paused is resumed, and maybe after this has returned: a
    /// letter that goes was applied, one that is refused again stays with one attempt more, and where the order matters
    /// those behind it are left as they were, not to be retried. Events of these streams that are set aside behind the
    /// last of them meanwhile are tried as well.
    ///
    /// # Errors
    /// As [`letters`](Self::letters); [`Error::Behind`] for one event that waits behind another of its stream, for which
    /// nothing is wished.
    pub async fn retry_letters(&self, view: &ViewId, which: &WhichLetters, asked: &Asked) -> Result<u64, Error> {
        let open = self.with_letters(view)?;
        let order_matters = open.carried.as_ref().is_none_or(|carried| carried.options.order_matters);
        if let (WhichLetters::One(position), true) = (which, order_matters) {
            let letters = Letters::new(open.view.letters(Position::START, limits::LETTERS_MAX).await?);
            if let Some(before) = letters.get(*position).and_then(|letter| letters.before(letter)) {
                let (view, position, first) = (view.clone(), *position, before.position);
                return Err(Error::Behind { view, position, first, stream: before.stream.clone() });
            }
        }
        self.wish(&open, which, Wish::Retry, asked).await
    }

    /// Gives up events that were set aside, so that the view goes without them, and returns how many there are. Later
    /// events of their streams that were set aside behind them stay so until they are retried. It happens soon, or once a
    /// version that is paused is resumed, and maybe after this has returned.
    ///
    /// # Errors
    /// As [`letters`](Self::letters).
    pub async fn drop_letters(&self, view: &ViewId, which: &WhichLetters, asked: &Asked) -> Result<u64, Error> {
        let open = self.with_letters(view)?;
        self.wish(&open, which, Wish::Drop, asked).await
    }

    /// Lets the event be set aside at which a segment of the version halts, whatever the policy is: it is tried once more,
    /// and should it be refused again it becomes a dead letter like any other. Where the order of streams matters, later
    /// events of its stream wait behind it. It happens soon, maybe after this has returned, on whichever node has the
    /// segment, and once a version that is paused is resumed.
    ///
    /// # Errors
    /// [`Error::NotHalted`] when no segment halts at the event; as [`letters`](Self::letters), also when it is not in the
    /// journal.
    pub async fn set_aside(&self, view: &ViewId, event: Position, asked: Asked) -> Result<Requested, Error> {
        self.versions.catalog.refresh().await?;
        self.versions.check_seen(event).await?;
        let open = self.with_letters(view)?;
        let request = Request::new("set-aside", &view.projection, Which::Version(view.version));
        let request = request.with(format_args!("event {event}"));
        if let Some(requested) = self.repeated(&asked, &request).await? {
            return Ok(requested);
        }
        let before = Position::new(event.get().saturating_sub(1));
        let is_aside = open.view.letters(before, 1).await?.first().is_some_and(|letter| letter.position == event);
        let halts: Vec<Position> = open.view.refusals().await?.iter().map(|refusal| refusal.position).collect();
        // Of one that is set aside already only the key is kept.
        let keyed = asked.idempotency_key.is_some();
        if is_aside && !keyed {
            return Ok(Requested { view: view.clone(), position: None });
        }
        if !is_aside && !halts.contains(&event) {
            return Err(Error::NotHalted { view: view.clone(), event, halts });
        }
        let command = CatalogCommand::SetAside { view: view.clone(), event };
        let entries = Arc::clone(&self.versions.catalog).change_for(request, command, asked).await?;
        if let Some(state) = self.versions.catalog.current().version(view) {
            open.order(Orders::of(state));
        }
        Ok(Requested { view: view.clone(), position: entries.first().map(|entry| entry.position) })
    }

    /// The effects of a version that were tried in vain, set aside or not, in the order in which they were emitted, of
    /// those whose number is above `after` at most `most`. Of a version that is cleaned up, all that it owes.
    ///
    /// # Errors
    /// As [`letters`](Self::letters).
    pub async fn effect_letters(&self, view: &ViewId, after: u64, most: usize) -> Result<Vec<EffectLetter>, Error> {
        let (stored, phase) = self.with_outbox(view).await?;
        Ok(stored.effect_letters(after, most, phase == Phase::CleaningUp).await?)
    }

    /// Lets effects be tried at once, and returns how many there are. One that was set aside is made before what waits in
    /// its stream, and after what was made of it meanwhile.
    ///
    /// # Errors
    /// As [`letters`](Self::letters).
    pub async fn retry_effects(&self, view: &ViewId, which: &WhichLetters, asked: &Asked) -> Result<u64, Error> {
        self.decide_effects(view, which, Wish::Retry, asked).await
    }

    /// Gives up effects that were tried in vain, and returns how many there are: they are not made any more, unless a try
    /// is under way just now, and the later ones of their streams are. That of one event is given up, and all of a version
    /// that is cleaned up, also when it was never tried.
    ///
    /// # Errors
    /// As [`letters`](Self::letters).
    pub async fn drop_effects(&self, view: &ViewId, which: &WhichLetters, asked: &Asked) -> Result<u64, Error> {
        self.decide_effects(view, which, Wish::Drop, asked).await
    }

    async fn decide_effects(
        &self,
        view: &ViewId,
        which: &WhichLetters,
        wish: Wish,
        asked: &Asked,
    ) -> Result<u64, Error> {
        self.versions.catalog.refresh().await?;
        if let WhichLetters::One(position) = which {
            self.versions.check_seen(*position).await?;
        }
        let (stored, phase) = self.with_outbox(view).await?;
        let untried = phase == Phase::CleaningUp || matches!(which, WhichLetters::One(_));
        let request = settling(view, LettersOf::Effects, which, wish);
        let is_known = self.versions.catalog.repeated(asked, &request).await?.is_some();
        // Where there are none, only the key is kept, should there be one.
        if !is_known && asked.idempotency_key.is_none() && !has_effects(&*stored, which, untried).await? {
            return Ok(0);
        }
        // Asked again under the same key, what is not done yet is done: of events before the request only.
        let (through, _) = self.decided(view, LettersOf::Effects, which, wish, asked).await?;
        let which = WhichEffects { which: which.clone(), through, untried };
        let decided = stored.decide_effects(&which, wish).await?;
        let Asked { actor, reason, .. } = asked;
        tracing::info!(%view, ?which, ?wish, effects = decided, actor, reason, "effects were decided about");
        Ok(decided)
    }

    /// Keeps in the catalog who wants it and why, and returns where and when. Nothing is done before it is there.
    async fn decided(
        &self,
        view: &ViewId,
        of: LettersOf,
        which: &WhichLetters,
        wish: Wish,
        asked: &Asked,
    ) -> Result<(Position, Timestamp), Error> {
        let command = CatalogCommand::DecideLetters { view: view.clone(), of, which: which.clone(), wish };
        let request = settling(view, of, which, wish);
        let entries = Arc::clone(&self.versions.catalog).change_for(request, command, asked.clone()).await?;
        let first = entries.first().map(|entry| (entry.position, entry.recorded));
        Ok(first.unwrap_or((Position::START, Timestamp::from_micros(0))))
    }

    async fn wish(&self, open: &OpenVersion, which: &WhichLetters, wish: Wish, asked: &Asked) -> Result<u64, Error> {
        self.versions.catalog.refresh().await?;
        if let WhichLetters::One(position) = which {
            self.versions.check_seen(*position).await?;
        }
        let request = settling(&open.id, LettersOf::Events, which, wish);
        let is_known = self.versions.catalog.repeated(asked, &request).await?.is_some();
        let letters = open.view.letters(Position::START, limits::LETTERS_MAX).await?;
        let meant = letters.into_iter().filter(|letter| which.has(letter.position, &letter.stream));
        let meant: Vec<(Position, Timestamp)> = meant.map(|letter| (letter.position, letter.recorded)).collect();
        // Where there are none, only the key is kept, should there be one.
        if meant.is_empty() && !is_known && asked.idempotency_key.is_none() {
            return Ok(0);
        }
        let (through, decided) = self.decided(&open.id, LettersOf::Events, which, wish, asked).await?;
        let wishing = async {
            if !is_known {
                return open.view.wish(which, Some(wish)).await;
            }
            // Asked again under the same key, what is not done yet is done: of events that were set aside by then only.
            let mut wished = 0;
            let were_aside = meant.into_iter().filter(|(position, aside)| *position <= through && *aside <= decided);
            for (position, _) in were_aside {
                wished += open.view.wish(&WhichLetters::One(position), Some(wish)).await?;
            }
            Ok(wished)
        };
        let wished = tokio::time::timeout(limits::REQUEST_TIME_MAX, wishing).await;
        // Also after an error: it may be recorded although the answer was lost.
        open.wished();
        // Its processor may have been put in the place of another one meanwhile, with corrected code.
        if let Some(now) = self.versions.open_version(&open.id) {
            now.wished();
        }
        let Ok(wished) = wished else {
            let what = format!("what is wished for dead letters of {} is not recorded", open.id);
            let waiting_on = open.told();
            return Err(Error::TimedOut { what, waited: limits::REQUEST_TIME_MAX, waiting_on });
        };
        let (wished, Asked { actor, reason, .. }) = (wished?, asked);
        tracing::info!(view = %open.id, ?which, ?wish, events = wished, actor, reason, "dead letters were asked for");
        Ok(wished)
    }

    /// The view of a version, and its phase, whether it is open on this node or not.
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

    /// The phase of the version, if there is one.
    fn known(&self, view: &ViewId) -> Result<Phase, Error> {
        let catalog = self.versions.catalog.current();
        let state = catalog.version(view).filter(|state| state.phase != Phase::Obsolete);
        Ok(state.map(|state| state.phase).ok_or_else(|| {
            let versions = catalog.versions().filter(|(known, _)| known.projection == view.projection);
            let known = versions.map(|(known, _)| known.version).collect();
            CatalogRefused::NoSuchVersion { view: view.clone(), known }
        })?)
    }

    /// The version, if there is one that can have dead letters here.
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

/// What is asked of letters, to be kept with its key.
fn settling(view: &ViewId, of: LettersOf, which: &WhichLetters, wish: Wish) -> Request {
    let act = match (wish, of) {
        (Wish::Retry, LettersOf::Events) => "letters-retry",
        (Wish::Retry, LettersOf::Effects) => "effects-retry",
        (Wish::Drop, LettersOf::Events) => "letters-drop",
        (Wish::Drop, LettersOf::Effects) => "effects-drop",
    };
    let request = Request::new(act, &view.projection, Which::Version(view.version));
    match which {
        WhichLetters::One(position) => request.with(format_args!("of event {position}")),
        WhichLetters::Stream(stream) => request.with(format_args!("of stream {stream}")),
        WhichLetters::All => request.with("all"),
    }
}

/// Whether there is an effect of those that are meant.
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

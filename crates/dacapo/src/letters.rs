//! Dead letters as operators meet them: listed with their events, retried, dropped.
//!
//! A wish is recorded in the view and carried out by the version's processor under its claim, so that it survives
//! whatever happens to the node that took it; while the version is paused, it waits. Nothing here applies an event.

use dacapo_model::{CatalogRefused, Letter, Letters, Phase, Position, ViewId, Wish, limits};
use dacapo_store::{EventBatch, EventRef, StoreError, WhichLetters};

use crate::catalog::Asked;
use crate::core::OpenVersion;
use crate::error::Error;
use crate::feed;
use crate::node::Node;

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
        self.core.check_seen(after).await?;
        let open = self.with_letters(view)?;
        let mut letters = Vec::new();
        for letter in open.view.letters(after, most).await? {
            let event = feed::event_at(&**self.journal(), letter.position).await?;
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

    async fn wish(&self, open: &OpenVersion, which: &WhichLetters, wish: Wish, asked: &Asked) -> Result<u64, Error> {
        let wished = tokio::time::timeout(limits::REQUEST_TIME_MAX, open.view.wish(which, Some(wish))).await;
        // Also after an error: it may be recorded although the answer was lost.
        open.wished();
        let Ok(wished) = wished else {
            let what = format!("what is wished for dead letters of {} is not recorded", open.id);
            let waiting_on = open.waiting_on();
            return Err(Error::TimedOut { what, waited: limits::REQUEST_TIME_MAX, waiting_on });
        };
        let (wished, Asked { actor, reason, .. }) = (wished?, asked);
        tracing::info!(view = %open.id, ?which, ?wish, events = wished, actor, reason, "dead letters were asked for");
        Ok(wished)
    }

    /// The version, if there is one that can have dead letters here.
    fn with_letters(&self, view: &ViewId) -> Result<std::sync::Arc<OpenVersion>, Error> {
        let catalog = self.core.catalog.current();
        let Some(state) = catalog.version(view).filter(|state| state.phase != Phase::Obsolete) else {
            let versions = catalog.versions().filter(|(known, _)| known.projection == view.projection);
            let known = versions.map(|(known, _)| known.version).collect();
            return Err(CatalogRefused::NoSuchVersion { view: view.clone(), known }.into());
        };
        let not_open = || {
            StoreError::unavailable(
                format!("look for dead letters of {view}"),
                format!("it is {}, and its view is not open on this node", state.phase),
            )
        };
        Ok(self.core.open_version(view).ok_or_else(not_open)?)
    }
}

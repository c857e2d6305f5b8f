//! A projection under test: its own code, whose effects are noted and not made, and whose events are tried once.

use std::sync::{Arc, Mutex, PoisonError};

use dacapo::effects::{Acts, Effect, EffectKey, EffectTry};
use dacapo::options::Retry;
use dacapo::verify::{Assertion, Checks, Comparison};
use dacapo::{Answers, HandlerError, Options, Position, Projection, Query, ReadView, Recorded, Table, View};
use serde_json::Value as Json;

/// An effect that was made.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    pub(crate) key: EffectKey,
    pub(crate) name: &'static str,
    pub(crate) effect: Json,
}

/// The effects that were made, in the order in which they were.
#[derive(Clone, Debug, Default)]
pub(crate) struct Effects(Arc<Mutex<Vec<Made>>>);

impl Effects {
    /// The effects in the order of their events. Those of different streams are made side by side, so the order in
    /// which they were made says nothing.
    pub(crate) fn all(&self) -> Vec<Made> {
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        made.sort_by(|a, b| a.key.cmp(&b.key));
        made
    }
}

/// The projection `P`, unchanged. Its effects are recorded here.
pub(crate) struct Watched<P> {
    inner: P,
    effects: Effects,
}

impl<P> Watched<P> {
    pub(crate) fn new(inner: P, effects: Effects) -> Self {
        Self { inner, effects }
    }
}

impl<P: Projection> Projection for Watched<P> {
    const NAME: &'static str = P::NAME;
    const VERSION: u32 = P::VERSION;
    const TABLES: &'static [Table] = P::TABLES;
    const ASSERTIONS: &'static [Assertion] = P::ASSERTIONS;
    type Event = P::Event;

    fn options(&self) -> Options {
        let options = self.inner.options();
        // A test waits for no second try: what the policy says of a refusal is done at the first one.
        Options { retry: Retry { attempts: 1, ..options.retry }, ..options }
    }

    fn apply(
        &self,
        event: &Recorded<'_, P::Event>,
        view: &mut View,
    ) -> impl Future<Output = Result<(), HandlerError>> + Send {
        self.inner.apply(event, view)
    }

    fn reset(&self, view: &mut View, after: Position) -> impl Future<Output = Result<(), HandlerError>> + Send {
        self.inner.reset(view, after)
    }

    fn check(&self, view: &mut ReadView, checks: &mut Checks) -> impl Future<Output = Result<(), HandlerError>> + Send {
        self.inner.check(view, checks)
    }

    fn comparison(&self, old: u32) -> Comparison {
        self.inner.comparison(old)
    }

    fn migrate(&self, source: &mut ReadView, view: &mut View) -> impl Future<Output = Result<(), HandlerError>> + Send {
        self.inner.migrate(source, view)
    }
}

impl<Q: Query, P: Answers<Q>> Answers<Q> for Watched<P> {
    fn answer(&self, query: &Q, view: &mut ReadView) -> impl Future<Output = Result<Q::Answer, HandlerError>> + Send {
        self.inner.answer(query, view)
    }
}

impl<E: Effect, P: Projection> Acts<E> for Watched<P> {
    async fn act(&self, effect: &E, attempt: &EffectTry) -> Result<(), HandlerError> {
        let made = Made { key: attempt.key.clone(), name: E::NAME, effect: serde_json::to_value(effect)? };
        self.effects.0.lock().unwrap_or_else(PoisonError::into_inner).push(made);
        Ok(())
    }
}

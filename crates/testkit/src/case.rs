//! What a test gives: a projection, past events, new events, times.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dacapo::effects::Effect;
use dacapo::journal::{EventId, Timestamp};
use dacapo::store::Store;
use dacapo::world::{Clock, Ids};
use dacapo::{Answers, CodeOf, ExpectedRevision, Node, Projection, Query};

use crate::clock::ManualClock;
use crate::outcome::Outcome;
use crate::watched::{Effects, Watched};

/// One test of a projection: what is given, and what happens then.
#[must_use = "nothing happens before `run`"]
pub struct Case<P: Projection> {
    version: CodeOf<Watched<P>>,
    effects: Effects,
    given: Vec<Step<P::Event>>,
    when: Vec<Step<P::Event>>,
}

enum Step<E> {
    /// Events of a stream.
    Append(String, Vec<E>),
    /// The time of the events that follow.
    At(Timestamp),
}

impl<P: Projection> Case<P> {
    /// Returns a test of this version of a projection, without events.
    pub fn of(projection: P) -> Self {
        let effects = Effects::default();
        let version = Watched::new(projection, effects.clone()).code();
        Self { version, effects, given: Vec::new(), when: Vec::new() }
    }

    /// Lets the projection answer queries of type `Q`.
    pub fn answering<Q: Query>(mut self) -> Self
    where
        P: Answers<Q>,
    {
        self.version = self.version.answering::<Q>();
        self
    }

    /// Lets the handler emit effects of type `E`, which are noted for [`Outcome::effects`] and not made.
    pub fn effects<E: Effect>(mut self) -> Self {
        self.version = self.version.acting::<E>();
        self
    }

    /// Adds events that are in the journal before a node carries the projection for the first time. Their effects belong to
    /// the past: by default ([`EffectOptions::past`](dacapo::effects::EffectOptions::past)) they are not made.
    pub fn given(mut self, stream: &str, events: impl IntoIterator<Item = P::Event>) -> Self {
        self.given.push(Step::Append(stream.to_owned(), events.into_iter().collect()));
        self
    }

    /// Adds events that are appended while the projection serves, after all that are given.
    pub fn when(mut self, stream: &str, events: impl IntoIterator<Item = P::Event>) -> Self {
        self.when.push(Step::Append(stream.to_owned(), events.into_iter().collect()));
        self
    }

    /// Sets the time at which the events that follow are appended, until the next `at`. After a [`when`](Self::when) it
    /// is that of the following ones. Before the first, it is that of the [`given`](Self::given) events that follow, and
    /// also of the `when` after them: the clock stands still. Default: the Unix epoch.
    pub fn at(mut self, time: Timestamp) -> Self {
        let steps = if self.when.is_empty() { &mut self.given } else { &mut self.when };
        steps.push(Step::At(time));
        self
    }

    /// Starts a node, appends the events, and waits until all of them are applied and every effect is made, or until the
    /// handler has refused one.
    ///
    /// # Panics
    /// If the node does not start, or an event cannot be appended. The message says why.
    pub async fn run(self) -> Outcome {
        let clock = Arc::new(ManualClock::default());
        let store = Store::memory(Arc::clone(&clock) as Arc<dyn Clock>);
        let views = Arc::clone(&store.views);
        let ids = Arc::new(CountedIds::default());
        let node = Node::builder().store(store).clock(Arc::clone(&clock) as Arc<dyn Clock>).ids(ids).start().await;
        let node = node.unwrap_or_else(|error| panic!("the node does not start: {error}"));
        append(&node, &clock, self.given).await;
        node.add_projection(self.version).unwrap_or_else(|error| panic!("{} cannot be carried: {error}", P::NAME));
        let mut outcome = Outcome::new::<P>(node, clock, self.effects, views);
        if outcome.until_serving().await {
            append(outcome.node(), outcome.clock(), self.when).await;
            outcome.until_done().await;
        }
        outcome
    }
}

async fn append<E: dacapo::Event>(node: &Node, clock: &ManualClock, steps: Vec<Step<E>>) {
    for step in steps {
        match step {
            Step::At(time) => clock.set(time),
            Step::Append(stream, events) => {
                let appended = node.append(stream.as_str(), ExpectedRevision::Any, events).await;
                appended.unwrap_or_else(|error| panic!("events of {stream} cannot be appended: {error}"));
            }
        }
    }
}

/// Ids that are counted.
#[derive(Debug, Default)]
struct CountedIds(AtomicU64);

impl Ids for CountedIds {
    fn next(&self) -> EventId {
        let number = self.0.fetch_add(1, Ordering::SeqCst) + 1;
        EventId::from_bytes(u128::from(number).to_be_bytes())
    }
}

//! How most tests begin: a node on some store, its versions, and what happened before the test looks.

use std::path::Path;
use std::sync::Arc;

use dacapo::catalog::Phase;
use dacapo::journal::{Append, OnKnown, StreamEvent, StreamName};
use dacapo::store::Store;
use dacapo::world::SystemClock;
use dacapo::{Answers, Metadata, Node, NodeBuilder, Projection, VersionCode};
use dacapo_testkit::Faults;

use super::{TotalOf, add, added, flip, phase, ready};

/// A node, and how far it is when a test begins. The steps are done in their order:
/// `Scenario::new().serving(v1()).filled(400).ready(v2()).start().await`.
#[must_use = "nothing happens before `start`"]
pub struct Scenario {
    builder: NodeBuilder,
    steps: Vec<Step>,
}

enum Step {
    Carry(Box<VersionCode>),
    UntilPhase(String, Phase),
    UntilReady(String),
    Flip,
    Add(String, i64),
    Fill(i64),
}

impl Scenario {
    /// On a store in memory.
    pub fn new() -> Self {
        Self::on(Node::builder())
    }

    /// On the embedded store in this directory.
    pub fn data(directory: &Path) -> Self {
        Self::on(Node::builder().data(directory))
    }

    /// On a store in memory that goes wrong as `faults` says.
    pub fn faulty(faults: &Faults) -> Self {
        Self::on(Node::builder().store(faults.over(&Store::memory(Arc::new(SystemClock)))))
    }

    /// On whatever store, with whatever else a test needs.
    pub fn on(builder: NodeBuilder) -> Self {
        Self { builder, steps: Vec::new() }
    }

    /// A version of any projection, which nothing waits for. It is carried from the start if no other step is before it.
    pub fn version(self, code: impl Into<VersionCode>) -> Self {
        self.then(Step::Carry(Box::new(code.into())))
    }

    /// A version that answers and whose first build serves.
    pub fn serving<P: Projection + Answers<TotalOf>>(self, version: P) -> Self {
        self.version(version.answering::<TotalOf>()).then(Step::UntilPhase(first_build::<P>(), Phase::Serving))
    }

    /// A version that answers and whose first build has begun.
    pub fn building<P: Projection + Answers<TotalOf>>(self, version: P) -> Self {
        self.version(version.answering::<TotalOf>()).then(Step::UntilPhase(first_build::<P>(), Phase::Initializing))
    }

    /// A version that answers and whose first build can be flipped to.
    pub fn ready<P: Projection + Answers<TotalOf>>(self, version: P) -> Self {
        self.version(version.answering::<TotalOf>()).then(Step::UntilReady(first_build::<P>()))
    }

    /// A flip to the version that is ready.
    pub fn flipped(self) -> Self {
        self.then(Step::Flip)
    }

    /// An event of a ledger.
    pub fn added(self, ledger: &str, amount: i64) -> Self {
        self.then(Step::Add(ledger.to_owned(), amount))
    }

    /// So many events ([`fill`]).
    pub fn filled(self, events: i64) -> Self {
        self.then(Step::Fill(events))
    }

    /// Starts the node and does the steps.
    pub async fn start(self) -> Node {
        let (mut builder, mut steps) = (self.builder, self.steps.into_iter().peekable());
        while let Some(Step::Carry(code)) = steps.next_if(|step| matches!(step, Step::Carry(_))) {
            builder = builder.projection(*code);
        }
        let node = builder.start().await.unwrap();
        for step in steps {
            match step {
                Step::Carry(code) => node.add_projection(*code).unwrap(),
                Step::UntilPhase(version, wanted) => phase(&node, &version, wanted).await,
                Step::UntilReady(version) => ready(&node, &version).await,
                Step::Flip => drop(flip(&node).await),
                Step::Add(ledger, amount) => drop(add(&node, &ledger, amount).await),
                Step::Fill(events) => fill(&node, events).await,
            }
        }
        node
    }

    fn then(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }
}

fn first_build<P: Projection>() -> String {
    format!("v{}.1", P::VERSION)
}

/// Appends so many events, whose amounts are 0, 1, 2, …, to 40 ledgers in turns.
pub async fn fill(node: &Node, events: i64) {
    let event = |number: i64| {
        let stream = StreamName::new(format!("ledger-{}", number % 40)).unwrap();
        StreamEvent { stream, event: node.new_event(&added(number), Metadata::default()).unwrap() }
    };
    for first in (0..events).step_by(1_000) {
        let events = (first..events.min(first + 1_000)).map(event).collect();
        let append = Append { events, expected: vec![], on_known: OnKnown::Recognise };
        node.append_batch(append).await.unwrap();
    }
}

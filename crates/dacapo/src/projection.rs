//! Projections: the code that turns events into a view, and the queries it answers.
//!
//! This module owns what a user implements, how it is built and run ([`Options`]), and its erased form, [`Carried`], in
//! which a node holds code of any event and row types side by side. It never decides when something is applied.

mod answers;
mod carried;
mod handlers;
mod options;

use std::future::Future;
use std::ops::Deref;

use dacapo_model::Position;
use dacapo_store::{EventRef, Table};

pub use carried::{Carried, CarriedVersion};
pub(crate) use handlers::{Failure, FailureCause, Handlers, Work, chain, panic_text};
pub use options::{InPlace, Options};

use crate::event::Event;
use crate::verify::{Assertion, Checks, Comparison};
use crate::view::{ReadView, View};

/// What a handler returns when it cannot go on.
pub type HandlerError = Box<dyn std::error::Error + Send + Sync>;

/// An event as a handler gets it: decoded, with its place in the journal and in its stream.
#[derive(Debug)]
pub struct Recorded<'a, E> {
    /// The event.
    pub data: E,
    place: EventRef<'a>,
    replay: bool,
}

impl<'a, E> Recorded<'a, E> {
    /// The event `data` that was read as `place`.
    pub fn new(data: E, place: EventRef<'a>) -> Self {
        Self { data, place, replay: false }
    }

    /// The same event as one of the past.
    #[must_use]
    pub fn replayed(self) -> Self {
        Self { replay: true, ..self }
    }

    /// Whether it is of the past for this version: it was in the journal when the version began to be built, or it went
    /// through the version before and does so again in a replay in place. Decided for each event alone; what makes
    /// rows should not ask, and what acts elsewhere must.
    pub fn is_replay(&self) -> bool {
        self.replay
    }
}

impl<'a, E> Deref for Recorded<'a, E> {
    type Target = EventRef<'a>;

    fn deref(&self) -> &EventRef<'a> {
        &self.place
    }
}

/// One version of the code that makes a view.
///
/// Raise [`VERSION`](Self::VERSION) whenever the rows it makes would differ: a node that carries the new
/// code builds it a view of its own beside the serving one and flips to it once it has caught up. Keep
/// the old type in the program for as long as its version serves or stands by.
pub trait Projection: Send + Sync + 'static {
    /// The name of the projection, the same for all of its versions.
    const NAME: &'static str;
    /// The version of this code, from 1.
    const VERSION: u32;
    /// The tables of its view.
    const TABLES: &'static [Table];
    /// The events it reads.
    type Event: Event;

    /// How it is built and run.
    fn options(&self) -> Options {
        Options::default()
    }

    /// Applies one event to the view. It is called for each event of a stream in order, and what it
    /// does to the view is kept exactly once; anything it does elsewhere may happen again.
    ///
    /// A row that is written for events of several streams is safe as long as the order between those
    /// streams does not matter to it, or the version has one segment.
    ///
    /// # Errors
    /// Whatever keeps it from applying the event. It is tried again, and then what [`Options::on_failure`] says is
    /// done; nothing of what it did to the view is kept. A panic is an error like any other.
    fn apply(
        &self,
        event: &Recorded<'_, Self::Event>,
        view: &mut View,
    ) -> impl Future<Output = Result<(), HandlerError>> + Send;

    /// Takes away what the events behind `after` made, before they are replayed in place: in the transaction in which
    /// the tokens move back. Called for [`InPlace::Resets`], where `after` is the start, and for
    /// [`InPlace::ResetsFrom`]. It empties every table, unless it is written.
    ///
    /// # Errors
    /// Whatever keeps it from that. The version goes on as it was, and it is tried again.
    fn reset(&self, view: &mut View, after: Position) -> impl Future<Output = Result<(), HandlerError>> + Send {
        async move {
            if after > Position::START {
                return Err(format!("{} does not say what to take away behind position {after}", Self::NAME).into());
            }
            Ok(view.clear().await?)
        }
    }

    /// Queries in SQL that must give no rows before readers move to this version. None unless set.
    const ASSERTIONS: &'static [Assertion] = &[];

    /// What else must be so before readers move to this version: told to `checks`, on one state of the view. Nothing
    /// unless set.
    ///
    /// # Errors
    /// Whatever keeps it from checking, which counts as a check that failed.
    fn check(&self, view: &mut ReadView, checks: &mut Checks) -> impl Future<Output = Result<(), HandlerError>> + Send {
        let _ = (view, checks);
        std::future::ready(Ok(()))
    }

    /// How its rows differ by intent from those of code version `old`, which serves; that is this version itself when
    /// the same code is built again. Nothing unless set: then every table and column that both have must have the
    /// same rows.
    fn comparison(&self, old: u32) -> Comparison {
        let _ = old;
        Comparison::new()
    }

    /// Fills the new, empty `view` from that of another version, as [`Seed::Migrate`](crate::Seed::Migrate) asks for. All
    /// of it is one transaction, and what is put stays in memory until its end: for large tables
    /// [`Seed::Sql`](crate::Seed::Sql) is better.
    ///
    /// # Errors
    /// Whatever keeps it from doing so; it is tried again.
    fn migrate(&self, source: &mut ReadView, view: &mut View) -> impl Future<Output = Result<(), HandlerError>> + Send {
        let _ = (source, view);
        async { Err("the projection does not implement `migrate`, which `Seed::Migrate` calls".into()) }
    }
}

/// A question to a projection, whichever version of it serves.
pub trait Query: Send + Sync + 'static {
    /// The name of the projection that answers.
    const PROJECTION: &'static str;
    /// What the answer is.
    type Answer: Send + 'static;
}

/// A version that answers `Q`.
pub trait Answers<Q: Query>: Projection {
    /// Answers from one state of this version's view.
    ///
    /// # Errors
    /// Whatever keeps it from answering; the asker gets it.
    fn answer(&self, query: &Q, view: &mut ReadView) -> impl Future<Output = Result<Q::Answer, HandlerError>> + Send;
}

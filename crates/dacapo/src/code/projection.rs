//! Projections: the code that turns events into a view, as a user declares it.

use std::fmt;
use std::future::Future;

use dacapo_model::Position;
use dacapo_store::Table;

use super::{
    Acts, Answers, Assertion, Checks, CodeOf, Comparison, HandlerError, Options, Query, Recorded, VersionCode,
};
use crate::effect::Effect;
use crate::event::Event;
use crate::view::{ReadView, View};

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
    /// the tokens move back. Called for [`InPlace::Resets`](crate::options::InPlace::Resets), where `after` is the start, and for
    /// [`InPlace::ResetsFrom`](crate::options::InPlace::ResetsFrom). It empties every table, unless it is written.
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

    /// Fills the new, empty `view` from that of another version, as [`Seed::Migrate`](crate::options::Seed::Migrate) asks for. All
    /// of it is one transaction, and what is put stays in memory until its end: for large tables
    /// [`Seed::Sql`](crate::options::Seed::Sql) is better.
    ///
    /// # Errors
    /// Whatever keeps it from doing so; it is tried again.
    fn migrate(&self, source: &mut ReadView, view: &mut View) -> impl Future<Output = Result<(), HandlerError>> + Send {
        let _ = (source, view);
        async { Err("the projection does not implement `migrate`, which `Seed::Migrate` calls".into()) }
    }

    /// Its code, which answers queries of type `Q`: what a node is given as a
    /// [`projection`](crate::NodeBuilder::projection). More queries and effects are added to what this returns.
    ///
    /// # Panics
    /// As [`code`](Self::code); when the query names another projection.
    fn answering<Q: Query>(self) -> CodeOf<Self>
    where
        Self: Answers<Q> + Sized,
    {
        self.code().answering::<Q>()
    }

    /// As [`answering`](Self::answering). The answers are compared with those of the serving version before readers move
    /// to this one; see [`CodeOf::shadowing`].
    ///
    /// # Panics
    /// As [`answering`](Self::answering).
    fn shadowing<Q: Query + Clone + fmt::Debug>(self) -> CodeOf<Self>
    where
        Self: Answers<Q> + Sized,
        Q::Answer: PartialEq + fmt::Debug,
    {
        self.code().shadowing::<Q>()
    }

    /// Its code, which makes the effects of type `E` that its handler emits; see [`CodeOf::acting`].
    ///
    /// # Panics
    /// As [`code`](Self::code).
    fn acting<E: Effect>(self) -> CodeOf<Self>
    where
        Self: Acts<E> + Sized,
    {
        self.code().acting::<E>()
    }

    /// Its code, to which queries and effects are added.
    ///
    /// # Panics
    /// When [`NAME`](Self::NAME) is not a valid name, or [`VERSION`](Self::VERSION) is 0.
    fn code(self) -> CodeOf<Self>
    where
        Self: Sized,
    {
        VersionCode::of(self)
    }
}

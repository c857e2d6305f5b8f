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
/// Raise [`VERSION`](Self::VERSION) whenever the code would make different rows. A node that carries the new code
/// builds a new view beside the serving one, and flips to it once it has caught up. Keep the old type in the program as
/// long as its version serves or stands by.
pub trait Projection: Send + Sync + 'static {
    /// The name of the projection, the same for all of its versions.
    const NAME: &'static str;
    /// The version of this code, from 1.
    const VERSION: u32;
    /// The tables of its view.
    const TABLES: &'static [Table];
    /// The events it reads.
    type Event: Event;

    /// Returns the options for building and running it.
    fn options(&self) -> Options {
        Options::default()
    }

    /// Applies one event to the view. It is called for each event of a stream in order. Its changes of the view are
    /// kept exactly once; anything that it does elsewhere may happen again.
    ///
    /// Events of several streams may write the same row if the order between those streams does not matter for the row,
    /// or if the version has one segment.
    ///
    /// # Errors
    /// The reason why the event cannot be applied. The event is retried, and after the last try [`Options::on_failure`]
    /// decides. Nothing that a failed try did to the view is kept. A panic counts as an error.
    fn apply(
        &self,
        event: &Recorded<'_, Self::Event>,
        view: &mut View,
    ) -> impl Future<Output = Result<(), HandlerError>> + Send;

    /// Removes what the events after `after` made, before they are replayed in place. It runs in the transaction in
    /// which the tokens move back. It is called for [`InPlace::Resets`](crate::options::InPlace::Resets), where `after`
    /// is the start, and for [`InPlace::ResetsFrom`](crate::options::InPlace::ResetsFrom). Default: empties every
    /// table.
    ///
    /// # Errors
    /// The reason for the failure. The version continues as it was, and the reset is retried.
    fn reset(&self, view: &mut View, after: Position) -> impl Future<Output = Result<(), HandlerError>> + Send {
        async move {
            if after > Position::START {
                return Err(format!("{} needs its own `reset` to replay after position {after}", Self::NAME).into());
            }
            Ok(view.clear().await?)
        }
    }

    /// SQL queries that must return no rows before readers move to this version. Default: none.
    const ASSERTIONS: &'static [Assertion] = &[];

    /// Checks further conditions that must be true before readers move to this version, on one state of the view. Add
    /// the results to `checks`. Default: no checks.
    ///
    /// # Errors
    /// The reason why the checks could not run, which counts as a failed check.
    fn check(&self, view: &mut ReadView, checks: &mut Checks) -> impl Future<Output = Result<(), HandlerError>> + Send {
        let _ = (view, checks);
        std::future::ready(Ok(()))
    }

    /// Returns the intended differences between its rows and those of code version `old`, which serves. `old` is this
    /// version itself if the same code is built again. Default: no differences. Then every table and column that both
    /// have must have the same rows.
    fn comparison(&self, old: u32) -> Comparison {
        let _ = old;
        Comparison::new()
    }

    /// Fills the new, empty `view` from that of another version, for [`Seed::Migrate`](crate::options::Seed::Migrate).
    /// It is one transaction, and its rows stay in memory until the end. For large tables,
    /// [`Seed::Sql`](crate::options::Seed::Sql) is better.
    ///
    /// # Errors
    /// The reason for the failure. The migration is retried.
    fn migrate(&self, source: &mut ReadView, view: &mut View) -> impl Future<Output = Result<(), HandlerError>> + Send {
        let _ = (source, view);
        async { Err("the projection does not implement `migrate`, which `Seed::Migrate` calls".into()) }
    }

    /// Returns its code, which answers queries of type `Q`, for
    /// [`NodeBuilder::projection`](crate::NodeBuilder::projection). More queries and effects can be added to it.
    ///
    /// [`Query::PROJECTION`] must be [`NAME`](Self::NAME); otherwise no node carries the version.
    ///
    /// # Panics
    /// As [`code`](Self::code).
    fn answering<Q: Query>(self) -> CodeOf<Self>
    where
        Self: Answers<Q> + Sized,
    {
        self.code().answering::<Q>()
    }

    /// Does the same as [`answering`](Self::answering), and compares the answers with those of the serving version
    /// before readers move to this one; see [`CodeOf::shadowing`].
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

    /// Returns its code, which makes the effects of type `E` that its handler emits; see [`CodeOf::acting`].
    ///
    /// # Panics
    /// As [`code`](Self::code).
    fn acting<E: Effect>(self) -> CodeOf<Self>
    where
        Self: Acts<E> + Sized,
    {
        self.code().acting::<E>()
    }

    /// Returns its code, to which queries and effects can be added.
    ///
    /// # Panics
    /// If [`NAME`](Self::NAME) is not a valid name, or [`VERSION`](Self::VERSION) is 0.
    fn code(self) -> CodeOf<Self>
    where
        Self: Sized,
    {
        VersionCode::of(self)
    }
}

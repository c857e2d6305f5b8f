//! Projections: the code that turns events into a view, and the queries it answers.
//!
//! This module owns what a user implements and its erased form, [`Carried`], in which a node holds code
//! of any event and row types side by side. It never decides when something is applied.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use dacapo_model::planted::{self, Fault};
use dacapo_model::rebuild::Code;
use dacapo_model::{
    FlipPolicy, InvalidName, OnFailure, Position, ProjectionName, Retry, Segment, SegmentCount, VersionId, WorkShare,
};
use dacapo_store::{EventBatch, EventRef, Filter, Index, Streams, Table};
use futures::FutureExt;
use futures::future::BoxFuture;

use crate::event::Event;
use crate::processor::{Aside, Busy};
use crate::reactor::{Actor, Acts, AnyAct, Effect, EffectOptions, Speaks};
use crate::seed::Seed;
use crate::verify::{AnyQuery, Assertion, Checks, Comparison, Shadow, Verify};
use crate::view::{ReadView, View, ViewError};

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

/// Whether past events may go through a version again in its own view, without a new version beside it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InPlace {
    /// They may not: a rebuild does it without readers noticing.
    #[default]
    No,
    /// From any position, and the rows stay: applying an event a second time makes of its row what it is already, as
    /// where rows are put whole. Readers are answered all the while.
    KeepsRows,
    /// From the start, and the rows go first, by [`Projection::reset`]. Readers wait until they are there again.
    Resets,
    /// From any position, and [`Projection::reset`] takes away what later events made. Readers wait until it is there
    /// again.
    ResetsFrom,
}

/// How a version is built and run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Into how many segments a new build is cut. Events of one stream are always in one segment and in
    /// order; a segment whose handler fails does not hold the others back. 1 unless set.
    pub segments: SegmentCount,
    /// When a new build flips. By itself as soon as it is ready, unless set.
    pub flip: FlipPolicy,
    /// How long a version stands by after a flip, following and ready for a rollback, before it is
    /// cleaned up. One day unless set.
    pub stand_by: Duration,
    /// Only streams of these categories; all unless set.
    pub categories: Option<Vec<String>>,
    /// What the rows in memory may take, in bytes. 64 MiB unless set.
    pub row_cache_bytes: usize,
    /// Most events in one batch. It adapts to time below that.
    pub batch_events_max: usize,
    /// Whether past events may go through it again in place. They may not, unless set.
    pub in_place: InPlace,
    /// How the effects are made that its handler emits.
    pub effects: EffectOptions,
    /// How a build may begin as a copy of the view that serves, so that it reads only what came after. Not at all unless
    /// set.
    pub seed: Seed,
    /// Whether new code does so by itself, where that is possible; it reads the past, unless set. A rebuild that is asked
    /// for does as it is asked.
    pub seed_new_code: bool,
    /// How much of the time a new build works while it is far from the head; the rest it leaves to those that serve. All
    /// of it unless set: it takes one core, and a little of another.
    pub rebuild_share: WorkShare,
    /// Whether the view goes without its indexes while it replays the past, unique ones aside, and gets them at the end:
    /// rows are written faster so. It does, unless set otherwise. A handler that uses SQL, which may need them, gets
    /// them first: its first statement is refused ([`ViewError::Unindexed`]), and once they are built it gets its event
    /// again.
    pub index_last: bool,
    /// How often and when an event is tried again that the handler refuses: an error, a panic, or more than
    /// `handler_time_max`. 10 times within about a minute unless set; whoever sets events aside may want fewer, since
    /// the segment waits meanwhile. A reset or a copy that fails waits as long between two tries, which never end.
    pub retry: Retry,
    /// What to do with an event that was refused so often. The segment halts before it, unless set.
    pub on_failure: OnFailure,
    /// Whether the events of a stream must be applied in their order, so that later ones wait behind one that was
    /// set aside as a dead letter. True unless set.
    pub order_matters: bool,
    /// How long the handler may wait for something in one event; then it counts as having refused it. One minute
    /// unless set. A handler that computes without ever waiting cannot be stopped; the status says where it is.
    pub handler_time_max: Duration,
    /// What must be verified of it before readers move to it.
    pub verify: Verify,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segments: SegmentCount::ONE,
            flip: FlipPolicy::WhenReady,
            stand_by: Duration::from_secs(24 * 60 * 60),
            categories: None,
            row_cache_bytes: 64 << 20,
            batch_events_max: dacapo_model::limits::BATCH_EVENTS_MAX,
            in_place: InPlace::No,
            effects: EffectOptions::default(),
            seed: Seed::Never,
            seed_new_code: false,
            rebuild_share: WorkShare::ALL,
            index_last: true,
            retry: Retry::default(),
            on_failure: OnFailure::default(),
            order_matters: true,
            handler_time_max: Duration::from_secs(60),
            verify: Verify::default(),
        }
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

    /// Fills the new, empty `view` from that of another version, as [`Seed::Migrate`] asks for. All of it is one
    /// transaction, and what is put stays in memory until its end: for large tables [`Seed::Sql`] is better.
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

/// One version of a projection with the queries it answers, as a node carries it: `Carried::new(BalancesV1)`, or
/// `Carried::version(BalancesV1).answers::<BalanceOf>()`.
#[derive(Clone)]
pub struct Carried {
    pub(crate) code: Code,
    pub(crate) options: Options,
    pub(crate) tables: &'static [Table],
    pub(crate) filter: Filter,
    pub(crate) handlers: Arc<dyn Handlers>,
    answers: HashMap<TypeId, Arc<dyn AnyAnswer>>,
    query_names: Vec<&'static str>,
    acts: HashMap<&'static str, Arc<dyn AnyAct>>,
    /// The types of queries whose answers are compared with those of another version.
    pub(crate) shadows: HashMap<TypeId, Arc<dyn Shadow>>,
    /// Queries of those types that are put to both versions when this one is verified.
    pub(crate) samples: Vec<AnyQuery>,
}

impl<P: Projection> From<P> for Carried {
    fn from(projection: P) -> Self {
        Self::new(projection)
    }
}

/// [`Carried`] while the type of its projection is known, so that queries can be added.
pub struct CarriedVersion<P> {
    projection: Arc<P>,
    carried: Carried,
}

impl Carried {
    /// The code of `projection`, without queries.
    ///
    /// # Panics
    /// When [`Projection::NAME`] is not a valid name or [`Projection::VERSION`] is 0.
    pub fn new<P: Projection>(projection: P) -> Self {
        Self::version(projection).carried
    }

    /// The code of `projection`, to which queries can be added.
    ///
    /// # Panics
    /// When [`Projection::NAME`] is not a valid name or [`Projection::VERSION`] is 0.
    pub fn version<P: Projection>(projection: P) -> CarriedVersion<P> {
        let name = ProjectionName::new(P::NAME).unwrap_or_else(|invalid: InvalidName| panic!("{invalid}"));
        assert!(P::VERSION > 0, "versions of {name} are counted from 1");
        let options = projection.options();
        let projection = Arc::new(projection);
        let code = Code {
            projection: name,
            code: P::VERSION,
            segments: options.segments,
            flip: options.flip,
            stand_by: options.stand_by,
            fingerprint: fingerprint(P::TABLES),
            // Whether it may, the driver finds out when it comes to it.
            seeded: false,
        };
        let filter = Filter {
            streams: options.categories.clone().map_or(Streams::User, Streams::Categories),
            types: Some(P::Event::TYPES.iter().map(|name| (*name).to_owned()).collect()),
        };
        let carried = Self {
            code,
            options,
            tables: P::TABLES,
            filter,
            handlers: Arc::clone(&projection) as Arc<dyn Handlers>,
            answers: HashMap::new(),
            query_names: Vec::new(),
            acts: HashMap::new(),
            shadows: HashMap::new(),
            samples: Vec::new(),
        };
        CarriedVersion { projection, carried }
    }

    /// Whether this is the code of `version` of `projection`.
    pub(crate) fn is_of(&self, projection: &ProjectionName, version: VersionId) -> bool {
        self.code.projection == *projection && self.code.code == version.code
    }

    /// The answer of this version, from `view`; `None` when it does not answer such queries.
    pub(crate) fn answer<'a, Q: Query>(
        &'a self,
        query: &'a Q,
        view: &'a mut ReadView,
    ) -> Option<BoxFuture<'a, Result<Q::Answer, HandlerError>>> {
        let answers = self.answers.get(&TypeId::of::<Q>())?;
        let answer = answers.answer(query, view);
        Some(Box::pin(async move {
            let answer = answer.await?;
            Ok(*answer.downcast::<Q::Answer>().expect("answers are registered under their query's type"))
        }))
    }

    /// The names of the effects it acts on.
    pub(crate) fn effect_names(&self) -> Vec<&'static str> {
        self.acts.keys().copied().collect()
    }

    /// What acts on effects of this name.
    pub(crate) fn act_on(&self, name: &str) -> Option<Arc<dyn AnyAct>> {
        self.acts.get(name).cloned()
    }

    /// The answer of this version to a query of whatever type.
    pub(crate) fn answer_any<'a>(
        &'a self,
        query: &'a (dyn Any + Send + Sync),
        view: &'a mut ReadView,
    ) -> Option<BoxFuture<'a, Result<Box<dyn Any + Send>, HandlerError>>> {
        Some(self.answers.get(&query.type_id())?.answer(query, view))
    }

    /// The names of the types of queries it answers.
    pub(crate) fn query_names(&self) -> &[&'static str] {
        &self.query_names
    }
}

impl<P: Projection> CarriedVersion<P> {
    /// Lets the version answer queries of type `Q`.
    #[must_use]
    pub fn answers<Q: Query>(mut self) -> Self
    where
        P: Answers<Q>,
    {
        assert_eq!(Q::PROJECTION, P::NAME, "a query is answered by the projection that it names");
        let answerer = Answerer { projection: Arc::clone(&self.projection), query: std::marker::PhantomData::<fn(Q)> };
        self.carried.answers.insert(TypeId::of::<Q>(), Arc::new(answerer));
        self.carried.query_names.push(std::any::type_name::<Q>());
        self
    }

    /// Lets the version answer queries of type `Q`, and compares what it answers with what the serving version does,
    /// before readers move to it: to a share of the live queries ([`Verify::shadow_share`]), and to every
    /// [`sample`](Self::sample).
    #[must_use]
    pub fn shadows<Q: Query + Clone + fmt::Debug>(self) -> Self
    where
        P: Answers<Q>,
        Q::Answer: PartialEq + fmt::Debug,
    {
        let mut version = self.answers::<Q>();
        let shadow = ShadowOf { query: std::marker::PhantomData::<fn(Q)> };
        version.carried.shadows.insert(TypeId::of::<Q>(), Arc::new(shadow));
        version
    }

    /// Puts this query to both versions when this one is verified. As [`shadows`](Self::shadows) otherwise.
    #[must_use]
    pub fn sample<Q: Query + Clone + fmt::Debug>(self, query: Q) -> Self
    where
        P: Answers<Q>,
        Q::Answer: PartialEq + fmt::Debug,
    {
        let known = self.carried.shadows.contains_key(&TypeId::of::<Q>());
        let mut version = if known { self } else { self.shadows::<Q>() };
        version.carried.samples.push(Arc::new(query));
        version
    }
}

impl<P: Projection> CarriedVersion<P> {
    /// Lets the version make effects of type `E` that its handler emits. Without it, emitting one is an error.
    ///
    /// # Panics
    /// When another effect has the same name.
    #[must_use]
    pub fn acts<E: Effect>(mut self) -> Self
    where
        P: Acts<E>,
    {
        let actor = Actor { projection: Arc::clone(&self.projection), effect: std::marker::PhantomData::<fn(E)> };
        let before = self.carried.acts.insert(E::NAME, Arc::new(actor));
        assert!(before.is_none(), "two kinds of effects of {} are called {:?}", P::NAME, E::NAME);
        self
    }
}

impl<P: Projection> From<CarriedVersion<P>> for Carried {
    fn from(version: CarriedVersion<P>) -> Self {
        version.carried
    }
}

/// The shape of the tables as text: what can be seen of a change under an unchanged version number.
fn fingerprint(tables: &[Table]) -> String {
    let column = |table: &Table, at: usize| {
        let column = &table.columns[at];
        format!("{}:{:?}{}", column.name, column.kind, if column.optional { "?" } else { "" })
    };
    let table = |table: &Table| {
        let columns: Vec<_> = (0..table.columns.len()).map(|at| column(table, at)).collect();
        let names = |places: &[usize]| places.iter().map(|at| table.columns[*at].name).collect::<Vec<_>>().join(", ");
        let index = |index: &Index| {
            let unique = if index.unique { "unique " } else { "" };
            format!("; {unique}index {} on {}", index.name, names(index.columns))
        };
        let indexes: String = table.indexes.iter().map(index).collect();
        format!("{}({}; key {}{indexes})", table.name, columns.join(", "), names(table.key))
    };
    tables.iter().map(table).collect::<Vec<_>>().join(" ")
}

/// A batch of events and how far each segment shall go in it.
pub(crate) struct Work<'a> {
    pub(crate) batch: &'a EventBatch,
    /// The first of its events to take up, counted from 0.
    pub(crate) from: usize,
    pub(crate) segments: SegmentCount,
    /// For each segment the last position to apply; one that takes no part has its own token here or less.
    pub(crate) through: &'a [Position],
    /// For each segment the last position that is a replay.
    pub(crate) past: &'a [Position],
    /// For which events effects are kept, where there are any.
    pub(crate) speaks: Option<&'a Speaks>,
    /// For each segment how many events it has taken up; added to.
    pub(crate) applied: &'a mut [u64],
    /// What is set aside instead.
    pub(crate) aside: &'a mut Aside,
    /// Where the handler is.
    pub(crate) busy: &'a Busy,
    /// How long the handler may wait in one event.
    pub(crate) time_max: Duration,
}

/// An event that was not applied. Those before it were.
pub(crate) struct Failure {
    pub(crate) segment: Segment,
    /// Its place in the batch, counted from 0.
    pub(crate) index: usize,
    /// Whether the handler changed rows before it failed.
    pub(crate) changed: bool,
    pub(crate) cause: FailureCause,
}

pub(crate) enum FailureCause {
    /// The handler refused the event, panicked or did not return in time.
    Handler(String),
    /// The event must be set aside and cannot be, since too many are.
    NoRoom(String),
    /// The view could not be read or written: not the handler's fault.
    Store(ViewError),
}

/// The erased form of a projection.
pub(crate) trait Handlers: Send + Sync {
    fn assertions(&self) -> &'static [Assertion];

    fn check<'a>(&'a self, view: &'a mut ReadView, checks: &'a mut Checks) -> BoxFuture<'a, Result<(), HandlerError>>;

    fn comparison(&self, old: u32) -> Comparison;

    /// Applies a batch, event by event, until it is done or one fails.
    fn apply<'a>(&'a self, work: Work<'a>, view: &'a mut View) -> BoxFuture<'a, Result<(), Failure>>;

    /// Takes away what the events behind `after` made.
    fn reset<'a>(&'a self, view: &'a mut View, after: Position) -> BoxFuture<'a, Result<(), FailureCause>>;

    /// Fills an empty view from that of another version.
    fn migrate<'a>(&'a self, source: &'a mut ReadView, view: &'a mut View) -> BoxFuture<'a, Result<(), HandlerError>>;
}

/// Where in a batch the handler is.
struct Current {
    segment: Segment,
    index: usize,
    /// The changes that the view had seen before the event.
    changes: u64,
}

impl<P: Projection> Handlers for P {
    fn assertions(&self) -> &'static [Assertion] {
        P::ASSERTIONS
    }

    fn check<'a>(&'a self, view: &'a mut ReadView, checks: &'a mut Checks) -> BoxFuture<'a, Result<(), HandlerError>> {
        Box::pin(Projection::check(self, view, checks))
    }

    fn comparison(&self, old: u32) -> Comparison {
        Projection::comparison(self, old)
    }

    fn migrate<'a>(&'a self, source: &'a mut ReadView, view: &'a mut View) -> BoxFuture<'a, Result<(), HandlerError>> {
        Box::pin(Projection::migrate(self, source, view))
    }

    fn apply<'a>(&'a self, work: Work<'a>, view: &'a mut View) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move {
            let (busy, mut current) = (work.busy, None);
            let run = AssertUnwindSafe(apply_all(self, work, view, &mut current)).catch_unwind().await;
            busy.rests();
            let cause = match run {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(cause)) => cause,
                Err(panic) => FailureCause::Handler(format!("it panicked: {}", panic_text(&*panic))),
            };
            let Current { segment, index, changes } = current.expect("only the handling of an event can fail");
            Err(Failure { segment, index, changed: view.changes() != changes, cause })
        })
    }

    fn reset<'a>(&'a self, view: &'a mut View, after: Position) -> BoxFuture<'a, Result<(), FailureCause>> {
        let reset = async move { Projection::reset(self, view, after).await };
        Box::pin(AssertUnwindSafe(reset).catch_unwind().map(|run| match run {
            Ok(done) => done.map_err(of),
            Err(panic) => Err(FailureCause::Handler(format!("it panicked: {}", panic_text(&*panic)))),
        }))
    }
}

async fn apply_all<P: Projection>(
    projection: &P,
    work: Work<'_>,
    view: &mut View,
    current: &mut Option<Current>,
) -> Result<(), FailureCause> {
    for index in work.from..work.batch.len() {
        let place = work.batch.get(index);
        let segment = work.segments.segment_of(place.stream);
        let at = usize::from(segment.get());
        if place.position > work.through[at] {
            continue;
        }
        *current = Some(Current { segment, index, changes: view.changes() });
        let skipped = planted::is(Fault::Skip) && place.position.get().is_multiple_of(41);
        if !skipped && !work.aside.takes(segment, &place).map_err(FailureCause::NoRoom)? {
            work.busy.begins(place.position);
            if let Some(data) = P::Event::decode(place.event_type, place.payload).map_err(|error| of(error.into()))? {
                let replay = place.position <= work.past[at];
                if let Some(speaks) = work.speaks {
                    view.begin_event(&place, segment, speaks.is_silent(segment, place.position));
                }
                let event = Recorded { data, place, replay };
                in_time(projection.apply(&event, view), work.time_max).await?;
            }
        }
        work.applied[at] += 1;
    }
    Ok(())
}

/// What a handler makes of an event, if it does so in time. Nearly always it is done at once; then no clock is
/// asked.
async fn in_time(
    applying: impl Future<Output = Result<(), HandlerError>>,
    time_max: Duration,
) -> Result<(), FailureCause> {
    let mut applying = std::pin::pin!(applying);
    if let Poll::Ready(applied) = futures::poll!(applying.as_mut()) {
        return applied.map_err(of);
    }
    match tokio::time::timeout(time_max, applying).await {
        Ok(applied) => applied.map_err(of),
        Err(_) => {
            let waited = time_max.as_secs_f64();
            Err(FailureCause::Handler(format!("it did not return within {waited} s (`handler_time_max`)")))
        }
    }
}

/// Whose fault an error is, which a handler may have made one of its own of.
fn of(error: HandlerError) -> FailureCause {
    let causes = std::iter::successors(Some(&*error as &(dyn std::error::Error + 'static)), |cause| cause.source());
    match causes.filter_map(|cause| cause.downcast_ref::<ViewError>()).find(|error| error.is_passing()) {
        Some(error) => FailureCause::Store(error.clone()),
        None => FailureCause::Handler(chain(&*error)),
    }
}

/// An error and what caused it, in one line.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// What a panic says.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message")
}

/// The erased form of an answer.
trait AnyAnswer: Send + Sync {
    fn answer<'a>(
        &'a self,
        query: &'a (dyn Any + Send + Sync),
        view: &'a mut ReadView,
    ) -> BoxFuture<'a, Result<Box<dyn Any + Send>, HandlerError>>;
}

struct Answerer<P, Q> {
    projection: Arc<P>,
    query: std::marker::PhantomData<fn(Q)>,
}

impl<P: Answers<Q>, Q: Query> AnyAnswer for Answerer<P, Q> {
    fn answer<'a>(
        &'a self,
        query: &'a (dyn Any + Send + Sync),
        view: &'a mut ReadView,
    ) -> BoxFuture<'a, Result<Box<dyn Any + Send>, HandlerError>> {
        Box::pin(async move {
            let query = query.downcast_ref::<Q>().expect("answers are registered under their query's type");
            let answer = self.projection.answer(query, view).await?;
            Ok(Box::new(answer) as Box<dyn Any + Send>)
        })
    }
}

struct ShadowOf<Q> {
    query: std::marker::PhantomData<fn(Q)>,
}

impl<Q: Query + Clone + fmt::Debug> Shadow for ShadowOf<Q>
where
    Q::Answer: PartialEq + fmt::Debug,
{
    fn copy(&self, query: &(dyn Any + Send + Sync)) -> AnyQuery {
        Arc::new(query.downcast_ref::<Q>().expect("shadows are registered under their query's type").clone())
    }

    fn show(&self, query: &(dyn Any + Send + Sync)) -> String {
        format!("{:?}", query.downcast_ref::<Q>().expect("shadows are registered under their query's type"))
    }

    fn show_answer(&self, answer: &(dyn Any + Send)) -> String {
        format!("{:?}", answer.downcast_ref::<Q::Answer>().expect("an answer is of its query's type"))
    }

    fn differ(&self, old: &(dyn Any + Send), new: &(dyn Any + Send)) -> Option<(String, String)> {
        let of = |answer: &dyn Any| answer.downcast_ref::<Q::Answer>().is_some();
        assert!(of(old) && of(new), "an answer is of its query's type");
        let same = old.downcast_ref::<Q::Answer>() == new.downcast_ref::<Q::Answer>();
        (!same).then(|| (self.show_answer(old), self.show_answer(new)))
    }
}

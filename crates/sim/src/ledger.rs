//! The code that the simulated nodes carry: two projections of a ledger, each in several versions.
//!
//! `totals` has a row for each stream, in one to six segments; `tally` has one row for all of them, in one segment.
//! Both keep a digest that depends on the order of events, so that one that is lost, applied twice or applied too
//! early shows permanently.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use dacapo::effects::{Acts, EffectFailure, EffectOptions, EffectTry, PastEffects};
use dacapo::options::{FlipPolicy, InPlace, OnFailure, Policy, Retry, Scrub, Seed, SegmentCount, WorkShare};
use dacapo::verify::Part;
use dacapo::verify::Verify;
use dacapo::{
    Answers, Event, HandlerError, Options, Position, Projection, Query, ReadView, Recorded, Row, Table, VersionCode,
    View,
};

use crate::effects::{Told, effects_of};
use crate::limits;
use crate::world::World;

/// The projections, by name.
pub const PROJECTIONS: [&str; 2] = ["totals", "tally"];
/// The highest code version there is of either.
pub const CODE_MAX: u32 = 4;

#[derive(Clone, Debug, Event)]
pub enum LedgerEvent {
    #[event(name = "added")]
    Added { amount: i64 },
    #[event(name = "taken")]
    Taken { amount: i64 },
    #[event(name = "given")]
    Given { amount: i64 },
}

/// What the program of the first release knows of that.
#[derive(Clone, Debug, Event)]
pub enum FewerEvents {
    #[event(name = "added")]
    Added { amount: i64 },
    #[event(name = "taken")]
    Taken { amount: i64 },
}

/// How an event changes a sum.
pub trait Change: Event {
    fn change(&self) -> i64;
}

impl Change for LedgerEvent {
    fn change(&self) -> i64 {
        match self {
            Self::Added { amount } | Self::Given { amount } => *amount,
            Self::Taken { amount } => -*amount,
        }
    }
}

impl Change for FewerEvents {
    fn change(&self) -> i64 {
        match self {
            Self::Added { amount } => *amount,
            Self::Taken { amount } => -*amount,
        }
    }
}

/// What even code versions keep.
#[derive(Clone, Debug, Row)]
#[row(table = "totals")]
pub struct Total {
    #[row(key)]
    pub ledger: String,
    pub sum: i64,
    pub events: i64,
    pub digest: i64,
}

/// What odd code versions keep.
#[derive(Clone, Debug, Row)]
#[row(table = "totals")]
pub struct TotalWithLast {
    #[row(key)]
    pub ledger: String,
    pub sum: i64,
    pub events: i64,
    pub digest: i64,
    #[row(index)]
    pub last: i64,
}

/// That odd code versions have added an event, so that they know one that comes again.
#[derive(Clone, Debug, Row)]
#[row(table = "applied")]
pub struct Applied {
    #[row(key)]
    pub position: i64,
}

const PLAIN: &[Table] = &[Total::TABLE];
const WITH_LAST: &[Table] = &[TotalWithLast::TABLE, Applied::TABLE];

const fn tables(code: u32) -> &'static [Table] {
    if code.is_multiple_of(2) { PLAIN } else { WITH_LAST }
}

/// Adds an event at `position` to a digest of those before it.
fn digest(before: i64, position: i64) -> i64 {
    before.wrapping_mul(31).wrapping_add(position)
}

/// Which rows an event is added to, and how.
struct Adding<'a> {
    world: &'a World,
    code: u32,
    row: &'a str,
    /// True if an event that comes again makes of its row what it is already.
    keeps: bool,
}

async fn add<E: Change>(
    Adding { world, code, row, keeps }: Adding<'_>,
    event: &Recorded<'_, E>,
    view: &mut View,
) -> Result<(), HandlerError> {
    world.meet(code, event.position.get()).await?;
    for nth in 0..effects_of(event.position.get()) {
        let (position, stream, change) = (event.position.get(), event.stream.to_owned(), event.data.change());
        view.emit(&Told { position, nth, stream, change, run: world.next_emitted() })?;
    }
    let (change, position) = (event.data.change(), i64::try_from(event.position.get())?);
    if code.is_multiple_of(2) {
        let none = || Total { ledger: row.to_owned(), sum: 0, events: 0, digest: 0 };
        let change = |row: &mut Total| {
            row.sum += change;
            row.events += 1;
            row.digest = digest(row.digest, position);
        };
        Ok(view.upsert(row, none, change).await?)
    } else {
        let none = || TotalWithLast { ledger: row.to_owned(), sum: 0, events: 0, digest: 0, last: 0 };
        let again = keeps && event.is_replay() && view.get::<Applied>(position).await?.is_some();
        view.put(Applied { position })?;
        let change = |row: &mut TotalWithLast| {
            if again {
                return;
            }
            row.sum += change;
            row.events += 1;
            row.digest = digest(row.digest, position);
            row.last = row.last.max(position);
        };
        Ok(view.upsert(row, none, change).await?)
    }
}

/// Takes everything away. What troubles it comes in the middle, when rows are gone already.
async fn reset(world: &World, code: u32, view: &mut View) -> Result<(), HandlerError> {
    view.clear().await?;
    world.meet_reset(code).await
}

/// What a row says: sum, number of events, digest.
pub type Answer = (i64, i64, i64);

async fn row(code: u32, row: &str, view: &mut ReadView) -> Result<Answer, HandlerError> {
    Ok(if code.is_multiple_of(2) {
        view.get::<Total>(row).await?.map(|row| (row.sum, row.events, row.digest))
    } else {
        view.get::<TotalWithLast>(row).await?.map(|row| (row.sum, row.events, row.digest))
    }
    .unwrap_or_default())
}

pub struct Totals<const CODE: u32, E> {
    world: Arc<World>,
    options: Options,
    reads: PhantomData<fn(E)>,
}

impl<const CODE: u32, E: Change> Projection for Totals<CODE, E> {
    const NAME: &'static str = PROJECTIONS[0];
    const VERSION: u32 = CODE;
    const TABLES: &'static [Table] = tables(CODE);
    type Event = E;

    fn options(&self) -> Options {
        self.options.clone()
    }

    async fn apply(&self, event: &Recorded<'_, E>, view: &mut View) -> Result<(), HandlerError> {
        let keeps = self.options.in_place == InPlace::KeepsRows;
        add(Adding { world: &self.world, code: CODE, row: event.stream, keeps }, event, view).await
    }

    async fn reset(&self, view: &mut View, _: Position) -> Result<(), HandlerError> {
        reset(&self.world, CODE, view).await
    }
}

pub struct TotalOf(pub String);

impl Query for TotalOf {
    const PROJECTION: &'static str = PROJECTIONS[0];
    type Answer = Answer;
}

impl<const CODE: u32, E: Change> Answers<TotalOf> for Totals<CODE, E> {
    async fn answer(&self, query: &TotalOf, view: &mut ReadView) -> Result<Answer, HandlerError> {
        row(CODE, &query.0, view).await
    }
}

impl<const CODE: u32, E: Change> Acts<Told> for Totals<CODE, E> {
    async fn act(&self, told: &Told, attempt: &EffectTry) -> Result<(), HandlerError> {
        self.world.receive(CODE, told, &attempt.key).await
    }
}

pub struct Tally<const CODE: u32, E> {
    world: Arc<World>,
    options: Options,
    reads: PhantomData<fn(E)>,
}

/// The key of the one row of `tally`.
pub const ALL: &str = "all";

impl<const CODE: u32, E: Change> Projection for Tally<CODE, E> {
    const NAME: &'static str = PROJECTIONS[1];
    const VERSION: u32 = CODE;
    const TABLES: &'static [Table] = tables(CODE);
    type Event = E;

    fn options(&self) -> Options {
        Options { segments: SegmentCount::ONE, ..self.options.clone() }
    }

    async fn apply(&self, event: &Recorded<'_, E>, view: &mut View) -> Result<(), HandlerError> {
        let keeps = self.options.in_place == InPlace::KeepsRows;
        add(Adding { world: &self.world, code: CODE, row: ALL, keeps }, event, view).await
    }

    async fn reset(&self, view: &mut View, _: Position) -> Result<(), HandlerError> {
        reset(&self.world, CODE, view).await
    }
}

impl<const CODE: u32, E: Change> Acts<Told> for Tally<CODE, E> {
    async fn act(&self, told: &Told, attempt: &EffectTry) -> Result<(), HandlerError> {
        self.world.receive(CODE, told, &attempt.key).await
    }
}

pub struct TheTally;

impl Query for TheTally {
    const PROJECTION: &'static str = PROJECTIONS[1];
    type Answer = Answer;
}

impl<const CODE: u32, E: Change> Answers<TheTally> for Tally<CODE, E> {
    async fn answer(&self, _: &TheTally, view: &mut ReadView) -> Result<Answer, HandlerError> {
        row(CODE, ALL, view).await
    }
}

/// Returns the code version `code` of a projection, as a program has it that knows all events or fewer. How it is
/// built and run follows from the seed.
pub fn carried(world: &Arc<World>, projection: &str, code: u32, knows_fewer: bool) -> VersionCode {
    if knows_fewer { of::<FewerEvents>(world, projection, code) } else { of::<LedgerEvent>(world, projection, code) }
}

fn of<E: Change>(world: &Arc<World>, projection: &str, code: u32) -> VersionCode {
    let (options, reads) = (options(world, projection, code), PhantomData);
    let world = Arc::clone(world);
    macro_rules! of {
        ($($code:literal)*) => {
            match code {
                $(
                    $code if projection == PROJECTIONS[0] => {
                        let version = Totals::<$code, E> { world, options, reads }.code();
                        version.answering::<TotalOf>().acting::<Told>().into()
                    }
                    $code => {
                        let version = Tally::<$code, E> { world, options, reads }.code();
                        version.answering::<TheTally>().acting::<Told>().into()
                    }
                )*
                _ => panic!("there is no code version {code}"),
            }
        };
    }
    of!(1 2 3 4)
}

/// Returns the shortest stand-by that any code of a projection wants.
pub fn shortest_stand_by(world: &World, projection: &str) -> Duration {
    (1..=4).map(|code| options(world, projection, code).stand_by).min().expect("there are four")
}

fn options(world: &World, projection: &str, code: u32) -> Options {
    let mut chance = world.chance(1_000 + u64::from(code) * 10 + projection.len() as u64);
    Options {
        segments: SegmentCount::new(chance.u16(1..=6)).expect("a small number"),
        flip: if chance.u8(..4) < 3 { FlipPolicy::WhenReady } else { FlipPolicy::OnCommand },
        stand_by: Duration::from_secs(chance.u64(2..30)),
        row_cache_bytes: if chance.bool() { 256 } else { 1 << 20 },
        batch_events_max: if chance.bool() { chance.usize(1..20) } else { 1_000 },
        rebuild_share: WorkShare::percent(if chance.bool() { 100 } else { chance.u8(10..100) }).expect("a percentage"),
        index_last: chance.bool(),
        seed: Seed::Columns,
        seed_new_code: chance.bool(),
        // Only odd code versions keep what tells that an event is in a row already.
        in_place: match chance.u8(..6) {
            0 => InPlace::No,
            1 | 2 if !code.is_multiple_of(2) => InPlace::KeepsRows,
            _ => InPlace::Resets,
        },
        // Far more often than anybody would, so that it meets whatever else continues.
        scrub: Scrub { rest: Some(Duration::from_millis(500)), ..Scrub::default() },
        effects: EffectOptions {
            time_max: limits::EFFECT_TIME_MAX,
            retry_first: Duration::from_millis(100),
            retry_longest: Duration::from_secs(2),
            on_failure: effect_failure(world, projection, code),
            past: if makes_past_effects(world, projection) { PastEffects::Made } else { PastEffects::Silent },
        },
        ..failures(world, projection, code)
    }
}

/// What a code version does with effects that fail.
fn effect_failure(world: &World, projection: &str, code: u32) -> EffectFailure {
    let mut chance = world.chance(5_000 + u64::from(code) * 10 + projection.len() as u64);
    if chance.bool() { EffectFailure::Halt } else { EffectFailure::SetAside { tries: chance.u32(1..4) } }
}

/// What a code version does with events that it refuses. In half of the seeds a projection sets none aside, whichever
/// of its versions it is.
fn failures(world: &World, projection: &str, code: u32) -> Options {
    if world.chance(3_000 + projection.len() as u64).bool() {
        return Options::default();
    }
    let mut chance = world.chance(4_000 + u64::from(code) * 10 + projection.len() as u64);
    let mut policy = || [Policy::Halt, Policy::DeadLetter, Policy::DeadLetter, Policy::Skip][chance.usize(..4)];
    let on_failure = OnFailure { serving: policy(), initializing: policy() };
    let longest = Duration::from_secs(chance.u64(1..10));
    let verify = Verify { letters_allowed: chance.bool(), ..Verify::default() };
    Options {
        retry: Retry { attempts: chance.u32(1..4), first: Duration::from_millis(50), longest },
        on_failure,
        order_matters: chance.u8(..3) > 0,
        // Rows that lack events, or have them in another order, are others than those of the version before.
        verify: if chance.bool() { verify.without(Part::Rows) } else { verify },
        ..Options::default()
    }
}

/// What checkers must know of a code version.
pub struct Rules {
    pub on_failure: OnFailure,
    pub attempts: u32,
    pub order_matters: bool,
    pub letters_allowed: bool,
}

pub fn rules(world: &World, projection: &str, code: u32) -> Rules {
    let Options { on_failure, retry, order_matters, verify, .. } = failures(world, projection, code);
    Rules { on_failure, attempts: retry.attempts, order_matters, letters_allowed: verify.letters_allowed }
}

/// Returns true if effects of events are made that were there before a projection was; every version says the same.
pub fn makes_past_effects(world: &World, projection: &str) -> bool {
    world.chance(2_000 + projection.len() as u64).bool()
}

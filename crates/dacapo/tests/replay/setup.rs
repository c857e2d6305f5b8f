//! Two projections that can be replayed in place, and what they are asked for.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use dacapo::catalog::CatalogEvent;
use dacapo::operate::{ReplayFrom, ReplayReport, Requested};
use dacapo::options::{FlipPolicy, InPlace, SegmentCount};
use dacapo::rows::Value;
use dacapo::{Answers, Error, HandlerError, Node, Options, Position, Projection, ReadView, Recorded, Row, Table, View};

use crate::common::*;

/// What a version of the ledger did, and what it shall do.
#[derive(Debug, Default)]
pub(super) struct Watched {
    pub(super) behaviour: Behaviour,
    /// Each event that was applied: its position, and whether it was a replay.
    pub(super) applied: Mutex<Vec<(u64, bool)>>,
    pub(super) reset_fails: AtomicBool,
    pub(super) resets: AtomicU64,
}

impl Watched {
    pub(super) fn applied(&self) -> Vec<(u64, bool)> {
        self.applied.lock().unwrap().clone()
    }

    pub(super) async fn meet(&self, event: &Recorded<'_, LedgerEvent>) -> Result<i64, HandlerError> {
        let amount = self.behaviour.gate.subscribe().wait_for(|open| *open).await.map(|_| match event.data {
            LedgerEvent::Added { amount } | LedgerEvent::Doubted { amount } => amount,
        })?;
        let doubts = matches!(event.data, LedgerEvent::Doubted { .. });
        if doubts && self.behaviour.refuse.load(Ordering::SeqCst) {
            return Err("doubtful".into());
        }
        self.applied.lock().unwrap().push((event.position.get(), event.is_replay()));
        Ok(amount)
    }

    pub(super) fn forget(&self) {
        self.applied.lock().unwrap().clear();
    }

    pub(super) fn shut(&self) {
        self.behaviour.gate.send_replace(false);
    }

    pub(super) fn open(&self) {
        self.behaviour.gate.send_replace(true);
    }
}

/// Sums, which are only right if each event is added once: its rows must go before a replay.
#[derive(Clone)]
pub(super) struct Sums<const CODE: u32> {
    pub(super) options: Options,
    pub(super) watched: Arc<Watched>,
}

impl<const CODE: u32> Projection for Sums<CODE> {
    const NAME: &'static str = "totals";
    const VERSION: u32 = CODE;
    const TABLES: &'static [Table] = &[Total::TABLE];
    type Event = LedgerEvent;

    fn options(&self) -> Options {
        self.options.clone()
    }

    async fn apply(&self, event: &Recorded<'_, LedgerEvent>, view: &mut View) -> Result<(), HandlerError> {
        let amount = self.watched.meet(event).await?;
        let none = || Total { ledger: event.stream.to_owned(), sum: 0, events: 0 };
        let add = |row: &mut Total| (row.sum, row.events) = (row.sum + amount, row.events + 1);
        Ok(view.upsert(event.stream, none, add).await?)
    }

    async fn reset(&self, view: &mut View, after: Position) -> Result<(), HandlerError> {
        assert_eq!(after, Position::START);
        self.watched.resets.fetch_add(1, Ordering::SeqCst);
        view.clear().await?;
        match self.watched.reset_fails.load(Ordering::SeqCst) {
            true => Err("not now".into()),
            false => Ok(()),
        }
    }
}

impl<const CODE: u32> Answers<TotalOf> for Sums<CODE> {
    async fn answer(&self, query: &TotalOf, view: &mut ReadView) -> Result<(i64, i64), HandlerError> {
        let row = view.get::<Total>(query.0.as_str()).await?;
        Ok(row.map(|row| (row.sum, row.events)).unwrap_or_default())
    }
}

/// One row an event, put whole: applying it twice makes the same row.
#[derive(Clone, Debug, PartialEq, Eq, Row)]
#[row(table = "entries")]
pub(super) struct Entry {
    #[row(key)]
    pub(super) position: i64,
    pub(super) ledger: String,
    pub(super) amount: i64,
}

#[derive(Clone)]
pub(super) struct Entries {
    pub(super) watched: Arc<Watched>,
    pub(super) in_place: InPlace,
}

impl Projection for Entries {
    const NAME: &'static str = "entries";
    const VERSION: u32 = 1;
    const TABLES: &'static [Table] = &[Entry::TABLE];
    type Event = LedgerEvent;

    fn options(&self) -> Options {
        let segments = SegmentCount::new(3).unwrap();
        Options { segments, in_place: self.in_place, ..Options::default() }
    }

    async fn apply(&self, event: &Recorded<'_, LedgerEvent>, view: &mut View) -> Result<(), HandlerError> {
        let amount = self.watched.meet(event).await?;
        let position = i64::try_from(event.position.get())?;
        view.put(Entry { position, ledger: event.stream.to_owned(), amount })?;
        Ok(())
    }

    async fn reset(&self, view: &mut View, after: Position) -> Result<(), HandlerError> {
        let after = i64::try_from(after.get())?;
        view.execute("DELETE FROM entries WHERE position > $1", &[Value::from(after)]).await?;
        Ok(())
    }
}

pub(super) fn sums<const CODE: u32>() -> Sums<CODE> {
    let segments = SegmentCount::new(3).unwrap();
    let options = Options { segments, in_place: InPlace::Resets, flip: FlipPolicy::OnCommand, ..Options::default() };
    Sums { options, watched: Arc::default() }
}

pub(super) fn entries(in_place: InPlace) -> Entries {
    Entries { watched: Arc::default(), in_place }
}

pub(super) async fn ask_replay(node: &Node, from: ReplayFrom) -> Result<Requested<ReplayReport>, Error> {
    let state = node.catalog().borrow().projections.keys().next().unwrap().clone();
    node.projection(&state).unwrap().replay(from).by("test").await
}

pub(super) async fn replay(node: &Node, from: ReplayFrom) -> ReplayReport {
    let requested = ask_replay(node, from).await.unwrap();
    requested.done().within(WAIT_MAX).await.unwrap()
}

/// Waits for the first version of a projection to serve.
pub(super) async fn serving(node: &Node) {
    let mut catalog = node.catalog();
    let serves = catalog.wait_for(|catalog| catalog.projections.values().any(|state| state.serving.is_some()));
    tokio::time::timeout(WAIT_MAX, serves).await.unwrap().unwrap();
}

pub(super) async fn fill(node: &Node, count: i64) -> Position {
    let mut last = Position::START;
    for number in 1..=count {
        last = add(node, &format!("ledger-{}", number % 7), number).await;
    }
    last
}

/// How often replays ended, after each was asked for.
pub(super) async fn ends(node: &Node) -> Vec<&'static str> {
    let told = |entry: &dacapo::catalog::CatalogEntry| match entry.event {
        CatalogEvent::ReplayRequested { .. } => Some("asked"),
        CatalogEvent::ReplayEnded { .. } => Some("ended"),
        _ => None,
    };
    node.history().await.unwrap().iter().filter_map(told).collect()
}

//! A view, in a file or in memory.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use dacapo_model::{
    BegunEffect, EffectLetter, EffectOutcome, EffectsClaim, Letter, MemberId, PendingEffect, Position, Refusal,
    StreamName, Timestamp, Token, Wish,
};
use tokio::runtime::{Handle, RuntimeFlavor};

use crate::blocking::blocking;
use crate::error::StoreError;
use crate::sqlite::Db;
use crate::sqlite::reader::Reader;
use crate::sqlite::writer::Writer;
use crate::table::Table;
use crate::views::{
    Outbox, ViewCopy, ViewHealth, ViewHistory, ViewLetters, ViewOutbox, ViewReader, ViewRows, ViewTokens, ViewWriter,
    WhichEffects, WhichLetters,
};

/// The place of a view, and its rules for reading the committed state while another caller writes.
pub(crate) trait Home: Send + Sync + Sized + 'static {
    /// The work of its writer.
    type Desk: Desk;
    /// True if every call does its work at once on the caller's thread, as a simulation needs it.
    const INLINE: bool;

    /// Returns a desk for one writer.
    fn desk(self: &Arc<Self>) -> Result<Self::Desk, StoreError>;

    /// Reads the committed state. It waits for no writer, neither of this process nor of another one.
    fn look<T>(&self, act: impl FnOnce(&mut Db) -> Result<T, StoreError>) -> Result<T, StoreError>;

    /// Does something short to the committed state. If it writes, the caller has the gate.
    fn control<T>(&self, act: impl FnOnce(&mut Db) -> Result<T, StoreError>) -> Result<T, StoreError>;

    /// Returns what [`snapshot`](Self::snapshot) returns, if that needs no waiting.
    fn snapshot_now(&self) -> Option<Db>;

    /// Returns a connection that sees the committed state in an open transaction, or that nobody else writes to.
    fn snapshot(&self) -> Result<Db, StoreError>;

    /// Returns the facts that another view needs to read this one.
    fn copy(&self) -> Result<ViewCopy, StoreError>;

    /// Takes back a connection that [`snapshot`](Self::snapshot) returned.
    fn give_back(&self, db: Db);

    /// Returns its health, as far as it is known.
    fn health(&self) -> ViewHealth;

    /// As [`ViewRows::look_at_pages`].
    fn look_at_pages(&self, after: u64, most: u64) -> Result<Option<u64>, StoreError>;
}

/// The work of one writer.
pub(crate) trait Desk: Send + 'static {
    /// Reads the committed state, outside of any transaction.
    fn read<T>(&mut self, act: impl FnOnce(&mut Db) -> Result<T, StoreError>) -> Result<T, StoreError>;

    /// Begins a transaction; the caller has the gate.
    fn begin(&mut self) -> Result<(), StoreError>;

    /// Does something in the open transaction.
    fn inside<T, E>(&mut self, act: impl FnOnce(&mut Db) -> Result<T, E>) -> Result<T, E>;

    /// Notes that the transaction has ended, by a commit or a rollback.
    fn ended(&mut self);
}

/// A view in SQLite. All users of a view in a process share one of these, and with it the gate.
pub(crate) struct SqliteView<H> {
    home: Arc<H>,
    /// A writer holds it from its first write to the end of the transaction. A caller that waits for it waits as a
    /// task. Waiting for SQLite's own lock would block a thread, possibly the one that must release the lock.
    gate: Arc<tokio::sync::Mutex<()>>,
}

impl<H: Home> SqliteView<H> {
    pub(crate) fn new(home: H) -> Self {
        Self { home: Arc::new(home), gate: Arc::default() }
    }

    pub(crate) fn home(&self) -> &H {
        &self.home
    }

    async fn mark<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Db) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let gate = Arc::clone(&self.gate).lock_owned().await;
        let home = Arc::clone(&self.home);
        // The caller may be gone before the work is done, so the work takes the gate with it.
        apart::<H, _>(move || {
            let marked = home.control(act);
            drop(gate);
            marked
        })
        .await
    }

    async fn look<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Db) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let home = Arc::clone(&self.home);
        apart::<H, _>(move || home.look(act)).await
    }
}

#[async_trait]
impl<H: Home> ViewTokens for SqliteView<H> {
    async fn tokens(&self) -> Result<Vec<Token>, StoreError> {
        self.look(Db::tokens).await
    }

    async fn history(&self) -> Result<Option<ViewHistory>, StoreError> {
        self.home.control(Db::history)
    }

    async fn claim(&self, by: Option<MemberId>, seen: &[Token]) -> Result<Vec<Token>, StoreError> {
        let seen = seen.to_vec();
        self.mark(move |db| db.claim(by, &seen)).await
    }

    async fn revoke(&self) -> Result<(), StoreError> {
        self.mark(Db::revoke).await
    }

    async fn hold(&self, mark: Position) -> Result<Vec<Token>, StoreError> {
        self.mark(move |db| db.hold(mark)).await
    }

    async fn lift(&self, mark: Position) -> Result<(), StoreError> {
        self.mark(move |db| db.lift(mark)).await
    }

    async fn cap(&self, at: Option<Position>) -> Result<Vec<Token>, StoreError> {
        self.mark(move |db| db.cap(at)).await
    }
}

#[async_trait]
impl<H: Home> ViewLetters for SqliteView<H> {
    async fn refusals(&self) -> Result<Vec<Refusal>, StoreError> {
        self.look(Db::refusals).await
    }

    async fn letters(&self, after: Position, most: usize) -> Result<Vec<Letter>, StoreError> {
        self.look(move |db| db.letters(after, most)).await
    }

    async fn wish(&self, which: &WhichLetters, wish: Option<Wish>) -> Result<u64, StoreError> {
        let which = which.clone();
        self.mark(move |db| db.wish(&which, wish)).await
    }

    async fn unspoken(&self) -> Result<Vec<Position>, StoreError> {
        self.look(Db::unspoken).await
    }
}

#[async_trait]
impl<H: Home> ViewOutbox for SqliteView<H> {
    async fn effects_due(
        &self,
        now: Timestamp,
        longest: Duration,
        most: usize,
    ) -> Result<Vec<PendingEffect>, StoreError> {
        self.look(move |db| db.effects_due(now, longest, most)).await
    }

    async fn first_effect(&self, stream: &StreamName, after: Position) -> Result<Option<Position>, StoreError> {
        let stream = stream.clone();
        self.look(move |db| db.first_effect(&stream, after)).await
    }

    async fn outbox(&self, most: usize) -> Result<Outbox, StoreError> {
        self.look(move |db| db.outbox(most)).await
    }

    async fn effect_letters(&self, after: u64, most: usize, untried: bool) -> Result<Vec<EffectLetter>, StoreError> {
        self.look(move |db| db.effect_letters(after, most, untried)).await
    }

    async fn decide_effects(&self, which: &WhichEffects, wish: Wish) -> Result<u64, StoreError> {
        let which = which.clone();
        self.mark(move |db| db.decide_effects(&which, wish)).await
    }

    async fn effects_claim(&self) -> Result<EffectsClaim, StoreError> {
        self.look(Db::effects_claim).await
    }

    async fn claim_effects(&self, seen: EffectsClaim, next: EffectsClaim) -> Result<bool, StoreError> {
        self.mark(move |db| db.claim_effects(seen, next)).await
    }

    async fn begin_effects(
        &self,
        claim: EffectsClaim,
        numbers: &[u64],
    ) -> Result<Option<Vec<BegunEffect>>, StoreError> {
        let numbers = numbers.to_vec();
        self.mark(move |db| db.begin_effects(claim, &numbers)).await
    }

    async fn settle_effects(&self, claim: EffectsClaim, settled: &[(u64, EffectOutcome)]) -> Result<(), StoreError> {
        let settled = settled.to_vec();
        self.mark(move |db| db.settle_effects(claim, &settled)).await
    }
}

#[async_trait]
impl<H: Home> ViewRows for SqliteView<H> {
    async fn missing_indexes(&self, tables: &[Table]) -> Result<Vec<(usize, usize)>, StoreError> {
        let tables = tables.to_vec();
        self.look(move |db| db.missing_indexes(&tables)).await
    }

    fn health(&self) -> ViewHealth {
        self.home.health()
    }

    async fn look_at_pages(&self, after: u64, most: u64) -> Result<Option<u64>, StoreError> {
        let home = Arc::clone(&self.home);
        apart::<H, _>(move || home.look_at_pages(after, most)).await
    }

    async fn copy(&self) -> Result<ViewCopy, StoreError> {
        let home = Arc::clone(&self.home);
        apart::<H, _>(move || home.copy()).await
    }

    async fn writer(&self) -> Result<Box<dyn ViewWriter>, StoreError> {
        let home = Arc::clone(&self.home);
        let desk = apart::<H, _>(move || home.desk()).await?;
        Ok(Box::new(Writer::<H>::new(desk, Arc::clone(&self.gate))))
    }

    async fn reader(&self) -> Result<Box<dyn ViewReader>, StoreError> {
        Ok(Box::new(Reader::open(Arc::clone(&self.home)).await?))
    }
}

/// Does work that may wait for the disk, or for a lock of another process, on a thread of its own, under any runtime.
/// The work continues even if nobody waits for it any more.
pub(super) async fn apart<H: Home, T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    if H::INLINE { work() } else { blocking(work).await }
}

/// Does work that may take long without blocking the other tasks of this thread, if the runtime has other threads to
/// which they can move. Only processors call it: they run on such a runtime or alone. Readers run anywhere, so they
/// give their work to another thread instead.
pub(super) fn aside<H: Home, T>(work: impl FnOnce() -> T) -> T {
    let many_threads = || Handle::try_current().is_ok_and(|it| it.runtime_flavor() == RuntimeFlavor::MultiThread);
    if !H::INLINE && many_threads() { tokio::task::block_in_place(work) } else { work() }
}

/// Locks a value that a panic cannot leave half changed: transactions roll back when they are dropped.
pub(crate) fn locked<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! The journal: one table of events, to which every node appends in groups.
//!
//! ```text
//!   append ─▶ queue ─▶ sequencer (sequencer.rs): what waits becomes a group (group.rs)
//!                          │  one call of the function `append` in the database (writer.rs):
//!                          │  row lock ▸ look ▸ insert ▸ commit
//!                          ├─ written ─▶ answers, head
//!                          └─ not as thought ─▶ look, refuse whom it concerns (`admit`), the others go again
//!   read   ─▶ reader (read.rs), never past the head
//!   head   ◀─ own appends; notifications of other nodes, and a slow poll beside them (follow.rs)
//! ```
//!
//! Whether an append may be written is decided by `dacapo_store::admit` alone. The call to the database carries only
//! what was thought when the group was put together, and writes nothing unless all of it still holds; so no node ever
//! keeps the lock while it thinks, and one that stops holds up nobody.

mod copied;
mod follow;
mod group;
mod health;
mod known;
mod read;
mod sequencer;
mod writer;

use std::sync::Arc;

use async_trait::async_trait;
use dacapo_model::{EventId, JournalId, Mark, Position, Revision, StreamName};
use dacapo_store::{
    Append, AppendError, Appended, Clock, EventBatch, Filter, Head, Health, Journal, Limit, StoreError, StreamInfo,
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::database::Database;
use crate::limits;
use crate::servers::Pool;
use crate::settings::shown;
use crate::tries::Tries;
use follow::Follower;
use group::Waiting;
use health::Went;
use read::Reader;
use sequencer::Request;
use writer::Writer;

/// The journal in a database.
pub struct PostgresJournal {
    id: JournalId,
    head: Arc<Head>,
    reader: Reader,
    went: Arc<Went>,
    seed: u64,
    requests: mpsc::Sender<Request>,
    /// Closes when the sequencer has finished.
    ended: watch::Receiver<()>,
    sequencer: JoinHandle<()>,
    follower: JoinHandle<()>,
}

impl PostgresJournal {
    /// Opens the journal in `database`. Events are given the time of `clock`, or else that of the database; either way
    /// no event is older than the one before it.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the database cannot be reached.
    pub async fn open(database: &Database, clock: Option<Arc<dyn Clock>>) -> Result<Self, StoreError> {
        // A plan is kept for many calls; one that was made while the table was short must not read all of it later.
        let servers = database.servers().with("enable_seqscan", "off");
        let servers = Arc::new(servers.with("lock_timeout", &shown(limits::WRITE_LOCK_TIME_MAX)));
        let seed = database.options().seed;
        let pool = Arc::new(Pool::new(Arc::clone(&servers), limits::READERS_MAX));
        let id = read::id(&pool).await?;
        let history = Arc::clone(servers.history());
        history.is_of(id);
        let head = Arc::new(Head::new(read::head(&pool, &history, Position::START).await?));
        let (requests, queue) = mpsc::channel(limits::WAITING_APPENDS_MAX);
        let (ending, ended) = watch::channel(());
        let writer = Writer::new(Arc::clone(&servers), clock);
        let went = Arc::new(Went::new(Arc::clone(&history)));
        let sequencer = tokio::spawn(sequencer::run(writer, Arc::clone(&head), Arc::clone(&went), queue, seed, ending));
        let follower = Follower {
            servers,
            pool: Arc::clone(&pool),
            head: Arc::clone(&head),
            went: Arc::clone(&went),
            schema: database.options().schema.clone(),
            seed,
        };
        let follower = tokio::spawn(follower.run());
        let reader = Reader::new(pool, Arc::clone(&head), history);
        Ok(Self { id, reader, went, head, seed, requests, ended, sequencer, follower })
    }
}

fn closed() -> StoreError {
    StoreError::unavailable("append", "the journal is closed: open it again")
}

/// Tries something until it works or trying does not help.
macro_rules! tried {
    ($journal:expr, $attempt:expr) => {{
        let mut tries = Tries::new($journal.seed);
        loop {
            let answer = $attempt.await;
            $journal.went.read(&answer);
            match answer {
                Ok(done) => break Ok(done),
                Err(error) => tries.again(error).await?,
            }
        }
    }};
}

#[async_trait]
impl Journal for PostgresJournal {
    fn id(&self) -> JournalId {
        self.id
    }

    async fn mark(&self, through: Position) -> Result<Mark, StoreError> {
        tried!(self, self.reader.mark(through))
    }

    async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        let bytes = append.check()?;
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting::new(append, bytes, answer);
        self.requests.send(Request::Append(waiting)).await.map_err(|_| closed())?;
        answered.await.map_err(|_| closed())?
    }

    async fn read(&self, after: Position, filter: &Filter, limit: Limit) -> Result<EventBatch, StoreError> {
        tried!(self, self.reader.read(after, filter, limit))
    }

    async fn read_places(&self, after: Position, limit: Limit) -> Result<EventBatch, StoreError> {
        tried!(self, self.reader.read_places(after, limit))
    }

    async fn read_stream(&self, stream: &StreamName, after: Revision, limit: Limit) -> Result<EventBatch, StoreError> {
        tried!(self, self.reader.read_stream(stream, after, limit))
    }

    async fn stream_revision(&self, stream: &StreamName) -> Result<Revision, StoreError> {
        tried!(self, self.reader.stream_revision(stream))
    }

    async fn position_of(&self, id: EventId) -> Result<Option<Position>, StoreError> {
        tried!(self, self.reader.position_of(id))
    }

    async fn streams(
        &self,
        category: Option<&str>,
        after: Option<&StreamName>,
        most: usize,
    ) -> Result<Vec<StreamInfo>, StoreError> {
        tried!(self, self.reader.streams(category, after, most))
    }

    fn blocks(&self) -> bool {
        false
    }

    fn health(&self) -> Health {
        self.went.health()
    }

    fn head(&self) -> watch::Receiver<Position> {
        self.head.subscribe()
    }

    async fn close(&self) {
        // It fails when the journal is closed already; then there is only its end to wait for.
        drop(self.requests.send(Request::Close).await);
        // Nothing is ever sent: it returns when the sequencer drops its side.
        drop(self.ended.clone().changed().await);
        self.follower.abort();
        self.head.close();
        self.reader.close().await;
    }
}

impl Drop for PostgresJournal {
    fn drop(&mut self) {
        // An append that is under way stands or falls in the database; nobody waits for it any more.
        self.sequencer.abort();
        self.follower.abort();
    }
}

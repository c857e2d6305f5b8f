//! The threads of a journal: one that writes groups of appends, one that writes indexes of sealed chunks.
//!
//! ```text
//!   append() ─▶ bounded queue ─▶ sequencer: takes all that waits ─▶ Writer::commit ─▶ answers
//!                                                                       │ a chunk is sealed
//!                                                      indexer: index file, then the index leaves memory
//! ```
//!
//! While one group is flushed, the next one gathers. So the more appends wait, the fewer flushes each one costs.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use super::chunk::{Chunk, Index};
use super::index_file::{self, Summary};
use super::log::{Log, write_index};
use super::writer::Writer;
use crate::error::AppendError;
use crate::journal::{Append, Appended};
use crate::limits;

pub(super) enum Request {
    Append {
        append: Append,
        bytes: usize,
        answer: oneshot::Sender<Result<Appended, AppendError>>,
    },
    /// Check whether appends work again.
    Probe,
    /// Finish the waiting requests, then end.
    Close,
}

/// Writes until the journal is closed. `ended` is dropped when everything is finished.
pub(super) fn run(mut writer: Writer, mut requests: mpsc::Receiver<Request>, ended: watch::Sender<()>) {
    let mut appends = Vec::new();
    let mut answers = Vec::new();
    while let Some(request) = requests.blocking_recv() {
        let (mut next, mut group_bytes, mut probe) = (Some(request), 0, false);
        while let Some(request) = next {
            match request {
                Request::Append { append, bytes, answer } => {
                    group_bytes += bytes;
                    appends.push(append);
                    answers.push(answer);
                }
                Request::Probe => probe = true,
                Request::Close => requests.close(),
            }
            let full = appends.len() >= limits::GROUP_APPENDS_MAX || group_bytes >= limits::GROUP_BYTES_MAX;
            next = if full { None } else { requests.try_recv().ok() };
        }
        if appends.is_empty() {
            if probe {
                writer.probe();
            }
            continue;
        }
        let committed = writer.commit(&appends);
        for (answer, result) in answers.drain(..).zip(committed) {
            // A caller that stopped waiting gets no answer. Its append stands, and a retry is recognised.
            drop(answer.send(result));
        }
        appends.clear();
    }
    writer.close();
    drop(writer);
    drop(ended);
}

/// Starts the thread that writes the indexes of sealed chunks, and from time to time makes notes of commits durable. It
/// ends when the sender is dropped.
pub(super) fn start_indexer(
    log: Arc<Log>,
    flush_every: Duration,
) -> std::io::Result<(SyncSender<Arc<Chunk>>, JoinHandle<()>)> {
    let (sender, receiver) = sync_channel(limits::SEALED_CHUNKS_MAX);
    let thread = std::thread::Builder::new()
        .name("dacapo-indexer".into())
        .spawn(move || index_sealed(&log, &receiver, flush_every))?;
    Ok((sender, thread))
}

fn index_sealed(log: &Log, sealed: &Receiver<Arc<Chunk>>, flush_every: Duration) {
    // An index that could not be written is retried with the next one.
    let mut waiting = Vec::new();
    loop {
        match sealed.recv_timeout(flush_every) {
            Ok(chunk) => {
                waiting.push(chunk);
                waiting.retain(|chunk| !seal(log, chunk));
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        log.flush_commits();
    }
}

/// Writes the index of a chunk and releases its memory. Returns false if it could not be written. Then the index stays
/// in memory and works as well.
#[expect(clippy::expect_used, reason = "it was just encoded")]
pub(super) fn seal(log: &Log, chunk: &Chunk) -> bool {
    let bytes = match &*chunk.index() {
        Index::Memory(index) => index_file::encode(index, chunk.first, chunk.durable()),
        Index::File(_) => return true,
    };
    if let Err(error) = write_index(&*log.disk, &log.dir, chunk.first, &bytes) {
        tracing::warn!(%error, "the index of a sealed chunk cannot be written: it stays in memory until it can");
        return false;
    }
    let summary = Summary::decode(&bytes).expect("it was just encoded");
    let old = std::mem::replace(&mut *chunk.index_mut(), Index::File(Arc::new(summary)));
    // This happens outside the lock, because freeing a large index takes a while.
    drop(old);
    true
}

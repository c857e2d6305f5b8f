//! The head, as it is moved by other nodes.
//!
//! Each group notifies anyone who listens, with its commit. Notifications are lost while nobody is connected, so the head
//! is asked for after each connection and, slowly, all the time.

use std::sync::Arc;

use dacapo_model::{Mark, Position};
use dacapo_store::{Head, StoreError};
use tokio::time::Instant;

use super::health::Went;
use super::read;
use super::writer::Writer;
use crate::chance::{Chance, back_off};
use crate::fault::fault;
use crate::limits;
use crate::servers::{Pool, Servers};
use crate::settings::TCP_USER_TIMEOUT;

/// What moves the head.
pub(super) struct Follower {
    pub servers: Arc<Servers>,
    pub pool: Arc<Pool>,
    pub head: Arc<Head>,
    pub went: Arc<Went>,
    pub schema: String,
    pub seed: u64,
}

impl Follower {
    /// Moves the head until it is aborted, or the history is lost.
    pub async fn run(self) {
        let (mut pauses, mut chance) = (back_off(), Chance::new(self.seed));
        // The server counts through here, so far.
        let mut counted = Position::START;
        loop {
            let mut reached = false;
            let followed = self.listen(&mut counted, &mut reached).await;
            self.went.read(&followed);
            if let Err(error) = followed {
                if self.servers.history().holds().is_err() {
                    return;
                }
                tracing::warn!(%error, "the journal's head cannot be followed for the moment; a retry follows");
            }
            if reached {
                pauses.reset();
            }
            tokio::time::sleep(pauses.pause_at_random(chance.number())).await;
        }
    }

    /// Follows on one connection until that ends.
    async fn listen(&self, counted: &mut Position, reached: &mut bool) -> Result<(), StoreError> {
        let failed = |error: sqlx::Error| fault("listen for new events", &error);
        // One that is stopped keeps the server's queue of notifications from getting shorter, so the server ends it.
        let time = limits::LISTENER_STOPPED_TIME_MAX.as_millis().to_string();
        // The driver listens on a pool's connection only.
        let own = Pool::new(Arc::new(self.servers.with(TCP_USER_TIMEOUT, &time)), 1);
        let mut listener = own.listener().await?;
        listener.eager_reconnect(false);
        listener.listen(&format!("journal {}", self.schema)).await.map_err(failed)?;
        *reached = true;
        // Whether the last poll found something that nobody had told, and whether anything was told since.
        let (mut untold, mut told_since) = (false, true);
        loop {
            let asked = read::head(&self.pool, self.servers.history(), self.head.get()).await?;
            if untold && !told_since {
                // A connection that is dead and does not know: the next one will be told.
                return Ok(());
            }
            (untold, told_since) = (asked > self.head.get(), false);
            self.head.advance(asked);
            self.look_again(counted, asked).await?;
            let poll = tokio::time::sleep(limits::HEAD_LOOK);
            tokio::pin!(poll);
            loop {
                tokio::select! {
                    told = listener.try_recv() => match told.map_err(failed)? {
                        Some(told) => {
                            told_since = true;
                            self.told(told.payload());
                        }
                        // What came meanwhile is found by asking, after the next connection.
                        None => return Ok(()),
                    },
                    () = &mut poll => break,
                }
            }
        }
    }

    fn told(&self, payload: &str) {
        match parsed(payload) {
            Some(mark) => {
                self.servers.history().learn(mark);
                self.head.advance(mark.position);
            }
            None => tracing::warn!(payload, "a notification that is no mark"),
        }
    }

    /// Checks whether what failed works again, and counts some of the events after `counted`: what a read cannot notice,
    /// such as a stream whose last event is gone, is found so in the course of time (I-1).
    async fn look_again(&self, counted: &mut Position, head: Position) -> Result<(), StoreError> {
        self.went.read(&Ok(()));
        if self.went.appends_fail() {
            let until = Instant::now() + limits::HEAD_TIME_MAX;
            match Writer::new(Arc::clone(&self.servers), None).probe(until).await {
                Ok(()) => self.went.appended(),
                Err(error) => self.went.append_failed(&error),
            }
        }
        let after = if *counted < head { *counted } else { Position::START };
        let to = head.min(after.plus(limits::SCRUB_EVENTS_MAX));
        if read::count(&self.pool, after, to).await? == to.since(after) {
            if self.went.is_missing_events() {
                self.went.counted(None);
            }
            *counted = to;
        } else {
            // Here it is looked again, until they are restored.
            let error = read::missing(after, to);
            if !self.went.is_missing_events() {
                tracing::error!(%error, "the journal was counted");
            }
            self.went.counted(Some(error));
        }
        Ok(())
    }
}

/// Returns the mark in a notification: a position, and a digest in hexadecimal digits.
fn parsed(payload: &str) -> Option<Mark> {
    let (position, digest) = payload.split_once(' ')?;
    let (position, digest) = (position.parse().ok()?, u64::from_str_radix(digest, 16).ok()?);
    Some(Mark { position: Position::new(position), digest })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notification_is_a_mark_or_nothing() {
        assert_eq!(parsed("12 00000000000000ff"), Some(Mark { position: Position::new(12), digest: 255 }));
        for other in ["", "12", "12 ", "x 1", "1 x"] {
            assert_eq!(parsed(other), None, "{other:?}");
        }
    }
}

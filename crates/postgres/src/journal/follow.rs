//! The head, as it is moved by other nodes.
//!
//! Each group notifies whoever listens, with its commit. Notifications are lost while nobody is connected, so the head
//! is asked for after each connection and, slowly, all the time.

use std::sync::Arc;

use dacapo_model::Position;
use dacapo_store::{Head, StoreError};

use super::read;
use crate::back_off::BackOff;
use crate::fault::fault;
use crate::limits;
use crate::servers::{Pool, Servers};

/// Moves `head` until it is aborted.
pub(super) async fn run(servers: Arc<Servers>, pool: Arc<Pool>, head: Arc<Head>, schema: String, seed: u64) {
    let mut back_off = BackOff::new(seed);
    loop {
        let mut reached = false;
        if let Err(error) = listen(&servers, &pool, &head, &schema, &mut reached).await {
            tracing::warn!(%error, "the journal's head is not followed for the moment, it is tried again");
        }
        if reached {
            back_off.reset();
        }
        tokio::time::sleep(back_off.pause()).await;
    }
}

/// Follows on one connection until that ends.
async fn listen(
    servers: &Servers,
    pool: &Pool,
    head: &Head,
    schema: &str,
    reached: &mut bool,
) -> Result<(), StoreError> {
    let failed = |error: sqlx::Error| fault("listen for new events", &error);
    // One that is stopped keeps the server's queue of notifications from getting shorter, so the server ends it.
    let time = limits::LISTENER_STOPPED_TIME_MAX.as_millis().to_string();
    // The driver listens on a pool's connection only.
    let own = Pool::new(Arc::new(servers.with("tcp_user_timeout", &time)), 1);
    let mut listener = own.listener().await?;
    listener.eager_reconnect(false);
    listener.listen(&format!("journal {schema}")).await.map_err(failed)?;
    *reached = true;
    // Whether the last poll found something that nobody had told, and whether anything was told since.
    let (mut untold, mut told_since) = (false, true);
    loop {
        let asked = read::head(pool).await?;
        if untold && !told_since {
            // A connection that is dead and does not know: the next one will be told.
            return Ok(());
        }
        (untold, told_since) = (asked > head.get(), false);
        head.advance(asked);
        let poll = tokio::time::sleep(limits::HEAD_POLL_TIME);
        tokio::pin!(poll);
        loop {
            tokio::select! {
                told = listener.try_recv() => match told.map_err(failed)? {
                    Some(told) => {
                        told_since = true;
                        match told.payload().parse() {
                            Ok(position) => head.advance(Position::new(position)),
                            Err(_) => tracing::warn!(payload = told.payload(), "a notification that is no position"),
                        }
                    }
                    // What came meanwhile is found by asking, after the next connection.
                    None => return Ok(()),
                },
                () = &mut poll => break,
            }
        }
    }
}

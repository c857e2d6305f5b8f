//! Checks the pages of a node's views in the background, so that damage is found while a rebuild can still heal it.
//!
//! ```text
//!   rest ──▶ wait while a batch is under way, for a minute at most ──▶ look at 1 MiB of a view ──▶ rest …
//! ```
//!
//! A pass over all views takes about a day, or less if they are small: there is at least one look each minute. The
//! number of pages is known after the first pass, which takes one look each second. The view remembers and logs what is
//! found, and the status shows it. The progress of a pass is not stored: after a start it begins again.

use std::sync::Weak;

use dacapo_model::ViewId;
use dacapo_model::scrub::rest_of_pages;
use dacapo_store::StoreError;
use tokio::sync::watch;

use crate::limits;
use crate::versions::Versions;

/// Runs until it is stopped or the node is gone.
pub(crate) async fn scrub(versions: Weak<Versions>, mut stop: watch::Receiver<bool>) {
    tokio::select! {
        biased;
        _ = stop.wait_for(|stop| *stop) => {}
        () = passes(versions) => {}
    }
}

async fn passes(versions: Weak<Versions>) {
    let mut rest = limits::SCRUB_REST_FIRST;
    loop {
        let Some(open) = versions.upgrade().map(|versions| versions.open_versions()) else { return };
        let ids: Vec<ViewId> = open.iter().map(|open| open.id.clone()).collect();
        drop(open);
        let mut looks = 0;
        for id in ids {
            let mut next = Some(0);
            while let Some(after) = next {
                tokio::time::sleep(rest).await;
                until_calm(&versions).await;
                looks += 1;
                next = look(&versions, &id, after).await;
            }
        }
        match looks {
            // No view is open yet.
            0 => tokio::time::sleep(limits::SCRUB_REST_FIRST).await,
            _ => rest = rest_of_pages(looks),
        }
    }
}

/// Checks some pages of a view after `after`, and returns the place to continue, if there are more.
async fn look(versions: &Weak<Versions>, id: &ViewId, after: u64) -> Option<u64> {
    let open = versions.upgrade()?.open_version(id)?;
    match open.view.look_at_pages(after, limits::SCRUB_PAGES_MAX).await {
        Ok(next) => next,
        // The view reports it.
        Err(StoreError::Corrupt { .. }) => None,
        Err(error) => {
            tracing::warn!(view = %id, %error, "the pages of a view cannot be checked now");
            None
        }
    }
}

/// Waits until no batch is under way, but not for ever: a view may always have a batch to do.
async fn until_calm(versions: &Weak<Versions>) {
    let mut left = limits::SCRUB_REST_MAX;
    let is_busy = || {
        let open = versions.upgrade().map(|versions| versions.open_versions()).unwrap_or_default();
        open.iter().any(|open| open.progress.borrow().batch.is_some())
    };
    while is_busy() && !left.is_zero() {
        tokio::time::sleep(limits::SCRUB_BUSY_LOOK).await;
        left = left.saturating_sub(limits::SCRUB_BUSY_LOOK);
    }
}

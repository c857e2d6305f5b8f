//! The commands that a version gives to its processor while that runs.

use std::sync::Arc;

use dacapo_model::WorkShare;
use tokio::sync::{Notify, watch};

use super::Orders;

/// The side of the version. Each command replaces the one before, so a processor that is busy misses nothing.
pub(crate) struct Commands {
    share: watch::Sender<WorkShare>,
    orders: watch::Sender<Orders>,
    wishes: watch::Sender<()>,
    lifted: Arc<Notify>,
}

/// The side of the processor.
pub(crate) struct Inbox {
    /// The share of time that it works while the head is far.
    pub(crate) share: watch::Receiver<WorkShare>,
    /// The orders of the catalog for the version.
    pub(crate) orders: watch::Receiver<Orders>,
    /// Wakes when an operator has recorded a wish about the sink, such as a decision about events that are set aside.
    pub(crate) wishes: watch::Receiver<()>,
    /// Wakes when a hold is lifted.
    pub(crate) lifted: Arc<Notify>,
    /// True once it must stop.
    pub(crate) stop: watch::Receiver<bool>,
}

impl Commands {
    pub(crate) fn new(orders: Orders) -> Self {
        Self {
            share: watch::Sender::default(),
            orders: watch::Sender::new(orders),
            wishes: watch::Sender::new(()),
            lifted: Arc::default(),
        }
    }

    /// Returns an inbox for a run that ends with `stop`.
    pub(crate) fn inbox(&self, stop: watch::Receiver<bool>) -> Inbox {
        Inbox {
            share: self.share.subscribe(),
            orders: self.orders.subscribe(),
            wishes: self.wishes.subscribe(),
            lifted: Arc::clone(&self.lifted),
            stop,
        }
    }

    /// Sets the share of time that it works, from the next batch on.
    pub(crate) fn work(&self, share: WorkShare) {
        self.share.send_if_modified(|before| std::mem::replace(before, share) != share);
    }

    /// Passes on the orders of the catalog. Orders that are not new wake nobody.
    pub(crate) fn order(&self, orders: Orders) {
        self.orders.send_if_modified(|known| {
            let is_news = *known != orders;
            *known = orders;
            is_news
        });
    }

    /// Says that an operator has recorded a wish about the sink.
    pub(crate) fn wished(&self) {
        self.wishes.send_replace(());
    }

    /// Says that a hold or a cap is gone.
    pub(crate) fn lifted(&self) {
        self.lifted.notify_waiters();
    }
}

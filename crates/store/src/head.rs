//! The head of a journal, as a watch that ends with the journal.

use std::sync::{Mutex, PoisonError};

use dacapo_model::Position;
use tokio::sync::watch;

/// The last durable position. Only one at a time moves it.
pub(crate) struct Head {
    /// Gone once the journal is closed, which whoever waits for more is told by.
    sender: Mutex<Option<watch::Sender<Position>>>,
    last: watch::Receiver<Position>,
}

impl Head {
    pub(crate) fn new(position: Position) -> Self {
        let (sender, last) = watch::channel(position);
        Self { sender: Mutex::new(Some(sender)), last }
    }

    pub(crate) fn get(&self) -> Position {
        *self.last.borrow()
    }

    pub(crate) fn set(&self, position: Position) {
        if let Some(sender) = &*self.sender.lock().unwrap_or_else(PoisonError::into_inner) {
            sender.send_replace(position);
        }
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Position> {
        let mut receiver = self.last.clone();
        receiver.mark_unchanged();
        receiver
    }

    /// There will be no more.
    pub(crate) fn close(&self) {
        drop(self.sender.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

//! The head of a journal, as a watch that ends with the journal. This module is for authors of stores.

use std::sync::{Mutex, PoisonError};

use dacapo_model::Position;
use tokio::sync::watch;

/// The last durable position, which only grows.
pub struct Head {
    /// `None` once the journal is closed, which ends the watches.
    sender: Mutex<Option<watch::Sender<Position>>>,
    last: watch::Receiver<Position>,
}

impl Head {
    /// Returns the head of a journal that was just opened.
    pub fn new(position: Position) -> Self {
        let (sender, last) = watch::channel(position);
        Self { sender: Mutex::new(Some(sender)), last }
    }

    /// Returns its position.
    pub fn get(&self) -> Position {
        *self.last.borrow()
    }

    /// Moves it to `position`, if that is further on.
    pub fn advance(&self, position: Position) {
        if let Some(sender) = &*self.sender.lock().unwrap_or_else(PoisonError::into_inner) {
            sender.send_if_modified(|last| {
                let further = position > *last;
                *last = position.max(*last);
                further
            });
        }
    }

    /// Returns a watch that wakes its followers.
    pub fn subscribe(&self) -> watch::Receiver<Position> {
        let mut receiver = self.last.clone();
        receiver.mark_unchanged();
        receiver
    }

    /// Ends all watches: there will be no more events.
    pub fn close(&self) {
        drop(self.sender.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

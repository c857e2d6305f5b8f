//! The head of a journal, as a watch that ends with the journal. For those who write a store.

use std::sync::{Mutex, PoisonError};

use dacapo_model::Position;
use tokio::sync::watch;

/// The last durable position, which only grows.
pub struct Head {
    /// Gone once the journal is closed, which whoever waits for more is told by.
    sender: Mutex<Option<watch::Sender<Position>>>,
    last: watch::Receiver<Position>,
}

impl Head {
    /// The head of a journal that was just opened.
    pub fn new(position: Position) -> Self {
        let (sender, last) = watch::channel(position);
        Self { sender: Mutex::new(Some(sender)), last }
    }

    /// Where it is.
    pub fn get(&self) -> Position {
        *self.last.borrow()
    }

    /// Moves it to `position`, unless it is there already or further on.
    pub fn advance(&self, position: Position) {
        if let Some(sender) = &*self.sender.lock().unwrap_or_else(PoisonError::into_inner) {
            sender.send_if_modified(|last| {
                let further = position > *last;
                *last = position.max(*last);
                further
            });
        }
    }

    /// A watch that wakes whoever follows.
    pub fn subscribe(&self) -> watch::Receiver<Position> {
        let mut receiver = self.last.clone();
        receiver.mark_unchanged();
        receiver
    }

    /// There will be no more.
    pub fn close(&self) {
        drop(self.sender.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

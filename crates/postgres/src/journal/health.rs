//! Whether the journal works, as the last calls of it went.
//!
//! A failure is over once a call of the same kind works: a database that cannot write may still answer every read.
//! A call that its caller has made wrongly says nothing about the journal. What failed is tried again by anyone who follows
//! the head, so that it is found to work once more also when nobody asks any more.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dacapo_store::{Health, StoreError};

use crate::history::History;

/// What the last calls said.
pub(super) struct Went {
    history: Arc<History>,
    last: Mutex<Last>,
}

/// The reason why they failed, if they did.
#[derive(Default)]
struct Last {
    append: Option<StoreError>,
    read: Option<StoreError>,
    /// Events that should be there and are not.
    count: Option<StoreError>,
}

impl Went {
    pub fn new(history: Arc<History>) -> Self {
        Self { history, last: Mutex::default() }
    }

    fn last(&self) -> MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Events were written, or bytes for a try.
    pub fn appended(&self) {
        self.last().append = None;
    }

    pub fn append_failed(&self, error: &StoreError) {
        if is_of_store(error) {
            self.last().append = Some(error.clone());
        }
    }

    pub fn appends_fail(&self) -> bool {
        self.last().append.is_some()
    }

    pub fn read<T>(&self, answer: &Result<T, StoreError>) {
        match answer {
            Ok(_) => self.last().read = None,
            Err(error) if is_of_store(error) => self.last().read = Some(error.clone()),
            Err(_) => {}
        }
    }

    /// Events between two places were counted. What is missing stays missing until that place is counted again.
    pub fn counted(&self, missing: Option<StoreError>) {
        self.last().count = missing;
    }

    pub fn is_missing_events(&self) -> bool {
        self.last().count.is_some()
    }

    pub fn health(&self) -> Health {
        if let Some(parted) = self.history.parted() {
            return Health::Parted(parted);
        }
        let last = self.last();
        let failed = last.append.as_ref().or(last.read.as_ref()).or(last.count.as_ref());
        failed.map_or(Health::Well, Health::from)
    }
}

/// Returns true if an error says something about the store, and not about what was asked of it.
fn is_of_store(error: &StoreError) -> bool {
    matches!(error, StoreError::Unavailable { .. } | StoreError::Corrupt { .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_over_once_a_call_of_the_same_kind_works() {
        let went = Went::new(Arc::default());
        let full = StoreError::unavailable("append", "no space left on device");
        let gone = StoreError::unavailable("read events", "connection refused");
        let missing = StoreError::corrupt("events", "one is missing");
        let failing = |error: &StoreError| Health::from(error);

        went.append_failed(&full);
        went.read(&Ok(()));
        went.counted(None);
        assert!(went.appends_fail() && went.health() == failing(&full), "a read writes nothing");
        went.append_failed(&StoreError::Invalid("too large".into()));
        assert_eq!(went.health(), failing(&full), "the caller's mistake says nothing");

        went.read::<()>(&Err(gone.clone()));
        went.counted(Some(missing.clone()));
        went.appended();
        assert!(!went.appends_fail() && went.health() == failing(&gone), "an append reads nothing");
        went.read(&Ok(()));
        assert_eq!(went.health(), failing(&missing), "a read does not count");
        went.counted(None);
        assert_eq!(went.health(), Health::Well);
    }
}

//! Opening the stores of this crate.

use std::path::Path;
use std::sync::Arc;

use super::Store;
use crate::clock::Clock;
use crate::embedded::{DataDir, EmbeddedJournal, JournalOptions, SqliteViews};
use crate::error::StoreError;
use crate::memory::{MemoryJournal, MemoryMembers, MemoryViews};

impl Store {
    /// Returns a store in memory. It lasts as long as its value.
    pub fn memory(clock: Arc<dyn Clock>) -> Self {
        Self {
            journal: Arc::new(MemoryJournal::new(Arc::clone(&clock))),
            views: Arc::new(MemoryViews::new()),
            members: Arc::new(MemoryMembers::new(clock)),
            shared: true,
            description: "memory".to_owned(),
        }
    }

    /// Opens the embedded store in `directory`, and makes the directory if it does not exist.
    ///
    /// # Errors
    /// [`StoreError`] if another process owns the directory (the message says which), or if it cannot be read.
    pub fn embedded(directory: &Path, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let owned = DataDir::open(directory)?;
        let options = JournalOptions { clock: Arc::clone(&clock), ..JournalOptions::default() };
        let journal = EmbeddedJournal::open(&owned, options)?;
        let views = SqliteViews::open(owned.path().join("views"))?;
        Ok(Self::of_directory(directory, journal, views, clock))
    }

    /// Opens the store only to look at it: no byte in the directory changes, and nothing can be appended or written.
    ///
    /// # Errors
    /// As [`embedded`](Self::embedded); [`StoreError::Invalid`] if the directory holds no journal.
    pub fn look(directory: &Path, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let owned = DataDir::look(directory)?;
        let journal = EmbeddedJournal::look(&owned)?;
        let views = SqliteViews::look(owned.path().join("views"));
        Ok(Self::of_directory(directory, journal, views, clock))
    }

    fn of_directory(directory: &Path, journal: EmbeddedJournal, views: SqliteViews, clock: Arc<dyn Clock>) -> Self {
        Self {
            journal: Arc::new(journal),
            views: Arc::new(views),
            // One process has the directory, so its members need not outlive it.
            members: Arc::new(MemoryMembers::new(clock)),
            shared: false,
            description: format!("embedded in {}", directory.display()),
        }
    }
}

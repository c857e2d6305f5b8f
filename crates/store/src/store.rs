//! A store: a journal and the views over it, opened together.

use std::path::Path;
use std::sync::Arc;

use crate::clock::Clock;
use crate::embedded::{DataDir, EmbeddedJournal, JournalOptions, SqliteViews};
use crate::error::StoreError;
use crate::journal::Journal;
use crate::members::Members;
use crate::memory::{MemoryJournal, MemoryMembers, MemoryViews};
use crate::views::Views;

/// A journal and the views over it.
#[derive(Clone)]
pub struct Store {
    /// The events.
    pub journal: Arc<dyn Journal>,
    /// The rows and tokens.
    pub views: Arc<dyn Views>,
    /// The nodes that share it.
    pub members: Arc<dyn Members>,
    /// Whether other processes, or other nodes of this one, may use it at the same time.
    pub shared: bool,
    /// What it is and where, for people.
    pub description: String,
}

impl Store {
    /// A store in memory: it lasts as long as its value.
    pub fn memory(clock: Arc<dyn Clock>) -> Self {
        Self {
            journal: Arc::new(MemoryJournal::new(Arc::clone(&clock))),
            views: Arc::new(MemoryViews::new()),
            members: Arc::new(MemoryMembers::new(clock)),
            shared: true,
            description: "memory".to_owned(),
        }
    }

    /// The embedded store in `directory`, which is made if it is not there.
    ///
    /// # Errors
    /// [`StoreError`] when another process owns the directory (the message says which) or it cannot be read.
    pub fn embedded(directory: &Path, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let owned = DataDir::open(directory)?;
        // One process has the directory, so its members need not outlive it.
        let members = Arc::new(MemoryMembers::new(Arc::clone(&clock)));
        let journal = EmbeddedJournal::open(&owned, JournalOptions { clock, ..JournalOptions::default() })?;
        let views = SqliteViews::open(owned.path().join("views"))?;
        let description = format!("embedded in {}", directory.display());
        Ok(Self { journal: Arc::new(journal), views: Arc::new(views), members, shared: false, description })
    }
}

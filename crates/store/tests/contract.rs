//! The contract suite, run by the memory journal and by the embedded journal with usual and with tiny chunks.

use std::sync::Arc;

use async_trait::async_trait;
use dacapo_store::contract::journal::JournalHome;
use dacapo_store::embedded::{DataDir, EmbeddedJournal, JournalOptions};
use dacapo_store::memory::MemoryJournal;
use dacapo_store::{Clock, Journal};

struct Memory;

#[async_trait]
impl JournalHome for Memory {
    fn lasts(&self) -> bool {
        false
    }

    async fn open(&mut self, clock: Arc<dyn Clock>) -> Arc<dyn Journal> {
        Arc::new(MemoryJournal::new(clock))
    }
}

struct Embedded {
    dir: tempfile::TempDir,
    chunk_bytes: u64,
    index_cache_bytes: usize,
}

impl Embedded {
    fn usual() -> Self {
        let JournalOptions { chunk_bytes, index_cache_bytes, .. } = JournalOptions::default();
        Self { dir: tempfile::tempdir().unwrap(), chunk_bytes, index_cache_bytes }
    }

    /// Chunks of a few events, and an index cache that holds next to nothing.
    fn tiny() -> Self {
        Self { chunk_bytes: 1_500, index_cache_bytes: 300, ..Self::usual() }
    }
}

#[async_trait]
impl JournalHome for Embedded {
    fn lasts(&self) -> bool {
        true
    }

    async fn open(&mut self, clock: Arc<dyn Clock>) -> Arc<dyn Journal> {
        let dir = DataDir::open(self.dir.path()).unwrap();
        let (chunk_bytes, index_cache_bytes) = (self.chunk_bytes, self.index_cache_bytes);
        let options = JournalOptions { clock, chunk_bytes, index_cache_bytes, ..JournalOptions::default() };
        Arc::new(EmbeddedJournal::open(&dir, options).unwrap())
    }
}

mod memory {
    dacapo_store::journal_contract!(super::Memory);
    dacapo_store::journal_history_contract!(super::Memory);
}

mod embedded {
    dacapo_store::journal_contract!(super::Embedded::usual());
    dacapo_store::journal_history_contract!(super::Embedded::usual());
}

mod embedded_with_tiny_chunks {
    dacapo_store::journal_contract!(super::Embedded::tiny());
    dacapo_store::journal_history_contract!(super::Embedded::tiny());
}

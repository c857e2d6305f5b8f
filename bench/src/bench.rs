//! How much is measured, and where.

use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use crate::say;

/// An error that ends the benchmark and is shown to its user.
pub(crate) type Done<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// The sizes of everything that is measured.
pub(crate) struct Sizes {
    /// How often each pair is measured.
    pub(crate) repeats: usize,
    /// How long a loop of flushes runs.
    pub(crate) loop_time: Duration,
    /// Streams that are appended to.
    pub(crate) streams: usize,
    /// Batches that are appended.
    pub(crate) batches: usize,
    /// Events that are read.
    pub(crate) events: usize,
    /// Accounts they are about.
    pub(crate) accounts: usize,
    /// Events of the stream that lies scattered among them.
    pub(crate) scattered: usize,
    /// Appends whose way into the view is watched.
    pub(crate) followed: usize,
    /// Events of the rows that take long.
    pub(crate) full_events: usize,
}

/// One run.
pub(crate) struct Bench {
    pub(crate) sizes: Sizes,
    pub(crate) full: bool,
    only: Vec<String>,
    /// Removed at the end.
    pub(crate) dir: TempDir,
}

impl Bench {
    pub(crate) fn new(quick: bool, full: bool, only: Vec<String>, dir: &Path) -> Done<Self> {
        std::fs::create_dir_all(dir)?;
        let dir = tempfile::Builder::new().prefix("run-").tempdir_in(dir)?;
        let sizes = if quick {
            Sizes {
                repeats: 2,
                loop_time: Duration::from_millis(200),
                streams: 1_000,
                batches: 20,
                events: 50_000,
                accounts: 5_000,
                scattered: 100,
                followed: 50,
                full_events: 0,
            }
        } else {
            Sizes {
                repeats: 5,
                loop_time: Duration::from_secs(2),
                streams: 10_000,
                batches: 200,
                events: 1_000_000,
                accounts: 100_000,
                scattered: 1_000,
                followed: 1_000,
                full_events: 5_000_000,
            }
        };
        Ok(Self { sizes, full, only, dir })
    }

    /// Whether the row is asked for, and if so says that it is being measured.
    pub(crate) fn begins(&self, name: &str) -> bool {
        let wanted = self.wants(name);
        if wanted {
            say(&format!("measuring {name}"));
        }
        wanted
    }

    pub(crate) fn wants_any(&self, names: &[&[&str]]) -> bool {
        names.iter().flat_map(|names| *names).any(|name| self.wants(name))
    }

    pub(crate) fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| name.starts_with(only.as_str()))
    }

    /// A place for one row's files, which are removed when it is dropped.
    pub(crate) fn place(&self) -> Done<TempDir> {
        Ok(TempDir::new_in(self.dir.path())?)
    }
}

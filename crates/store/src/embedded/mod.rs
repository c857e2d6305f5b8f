//! The embedded store: one process, one directory, no server.
//!
//! ```text
//! DIR/
//!   format       the version of everything below, checked when the directory is opened
//!   lock         says which process owns the directory; the right itself is on the directory
//!   journal/     the events, see EmbeddedJournal
//!   views/       a file a version with its rows and tokens, see SqliteViews
//! ```

pub(crate) mod disk;
mod journal;
mod lock;
mod look;
#[cfg(test)]
mod moved_tests;
#[cfg(test)]
mod replaced_tests;
#[allow(clippy::expect_used, clippy::unwrap_used, reason = "it is for tests, which panic where something is wrong")]
#[cfg(feature = "contract")]
mod sim_disk;
mod views;

pub use disk::{Disk, DiskFile, FileDisk, LookDisk};
pub use journal::{EmbeddedJournal, JournalOptions, Repair, RepairAct, RepairStep, repair};
pub use lock::DataDir;
#[cfg(feature = "contract")]
pub use sim_disk::{Refuses, SimDisk};
pub use views::SqliteViews;

//! The memory store, for tests and simulation. It obeys the same contract as the others and lasts as long as its value.

mod journal;
mod members;
#[cfg(feature = "embedded")]
mod views;

pub use journal::MemoryJournal;
pub use members::MemoryMembers;
#[cfg(feature = "embedded")]
pub use views::MemoryViews;

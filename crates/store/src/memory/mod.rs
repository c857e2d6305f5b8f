//! The memory store, for tests and simulation: it obeys the same contract as the others and lasts as
//! long as its value.

mod journal;
mod members;
mod views;

pub use journal::MemoryJournal;
pub use members::MemoryMembers;
pub use views::MemoryViews;

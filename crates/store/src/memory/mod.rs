//! The memory store, for tests and simulation: it obeys the same contract as the others and lasts as
//! long as its value.

mod journal;

pub use journal::MemoryJournal;

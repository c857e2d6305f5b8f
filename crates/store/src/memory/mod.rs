//! The memory store: for tests and simulation. Nothing of it lasts.

mod views;

pub use views::MemoryViews;

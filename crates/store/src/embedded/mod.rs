//! The embedded store: everything in files of one folder, for one process without a server.

mod views;

pub use views::SqliteViews;

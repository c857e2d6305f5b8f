//! The catalog: which versions exist, their phases, which one serves.
//!
//! The catalog is a fold of the stream `$catalog`. A change is decided here from the current fold and appended with
//! the exact revision of that fold. Of two concurrent changes, one is refused and decided again on the result of the
//! other. The position of a flip request in the journal makes a flip race-free: everything before it is before the
//! flip.
//!
//! This module never looks at tokens. Whether a flip may be confirmed is the gate's rule in [`flip`](crate::flip),
//! and [`ConfirmFlip`](CatalogCommand::ConfirmFlip) carries its evidence.
//!
//! ```text
//!   command ──▶ decide ──▶ events ──▶ evolve ──▶ state ─┐
//!                 ▲                                     │
//!                 └─────────────────────────────────────┘
//! ```

mod command;
mod decide;
mod event;
mod evolve;
mod refused;
mod state;
#[cfg(test)]
mod tests;

pub use command::CatalogCommand;
pub use event::CatalogEvent;
pub use evolve::Misfit;
pub use refused::CatalogRefused;
pub use state::{
    Cancel, Catalog, CleanUpReason, FlipKind, FlipPolicy, PendingFlip, PendingReplay, ProjectionState, Verified,
    VersionState,
};

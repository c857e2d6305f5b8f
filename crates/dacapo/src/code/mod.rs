//! Code: what a user writes about a version of a projection, and the form in which a node carries it.
//!
//! This module owns the traits and options of users, and the erased form, [`VersionCode`], in which a node holds code
//! with any event and row types. It never decides when something is applied, and holds nothing that runs.

mod acts;
mod answers;
mod aside;
mod busy;
mod carried;
mod carry;
mod checks;
mod comparison;
mod copy;
mod failure;
mod handlers;
mod options;
mod projection;
mod query;
mod recorded;
mod scrub;
mod seed;
mod shadow;
mod tally;
mod verify;
mod voice;

pub use acts::Acts;
pub use carried::{CodeOf, VersionCode};
pub use carry::CarryRefused;
pub use checks::{Assertion, Checks};
pub use comparison::{Comparison, TableComparison};
pub use options::Options;
pub use projection::Projection;
pub use query::{Answers, Query};
pub use recorded::Recorded;
pub use scrub::Scrub;
pub use seed::Seed;
pub use verify::Verify;

pub(crate) use aside::{Aside, letter, shortened};
pub(crate) use busy::Busy;
pub(crate) use carry::{check as check_carried, check_all as check_all_carried, check_categories};
pub(crate) use comparison::{Pair, Pairs, pairs, same, show_key};
pub(crate) use copy::{SeedFrom, check, statements};
pub(crate) use failure::{Failure, FailureCause};
pub(crate) use handlers::{Handlers, Work};
pub(crate) use shadow::{AnyQuery, Shadow};
pub(crate) use tally::{Tally, Words, cut};
pub(crate) use voice::{Speaks, Voices};

/// The error that a handler returns.
pub type HandlerError = Box<dyn std::error::Error + Send + Sync>;

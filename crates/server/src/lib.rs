//! The HTTP API over a node.
//!
//! [`router`] turns any [`Api`](dacapo_api::Api) into routes, to be mounted in an application of one's
//! own; [`serve`] serves it alone. This crate owns what HTTP adds: paths, limits of bodies, the form of
//! every error, and who may ask. It decides nothing about versions or events.
//!
//! There is no authentication yet, so [`bind`] takes loopback addresses only unless it is told
//! otherwise, and [`guard`] keeps web pages in a browser on the same machine from reaching it.

#![warn(clippy::unwrap_used, clippy::expect_used)]

mod extract;
mod guard;
mod letters;
mod limits;
mod node;
mod routes;
mod serve;
mod signal;

pub use guard::{Access, guard};
pub use limits::{APPEND_BODY_BYTES_MAX, BODY_BYTES_MAX, DRAIN_TIME_MAX, WAIT_TIME_MAX};
pub use node::NodeApi;
pub use routes::router;
pub use serve::{bind, serve};
pub use signal::asked_to_end;

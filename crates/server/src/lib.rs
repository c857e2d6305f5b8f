//! The HTTP API over a node.
//!
//! [`router`] turns any [`Api`](dacapo_api::Api) into routes, and [`serve`] serves them. An application mounts
//! [`operations`] and [`probes`] beside its own routes, which it guards itself. This crate owns what HTTP adds:
//! paths, limits of connections and bodies, the form of every error, and the guard. It decides nothing about versions
//! or events.
//!
//! dacapo authenticates nobody. So [`bind`] accepts only loopback addresses by default, and [`guard`] keeps web
//! pages in a browser from reaching the operations. An application that recognises callers says with [`Caller`] what
//! each of them may do.

#![warn(clippy::unwrap_used, clippy::expect_used)]

#[cfg(doctest)]
#[doc = include_str!("../../../docs/operating/proxies.md")]
struct Proxies;

mod bodies;
mod events;
mod extract;
mod guard;
mod in_time;
mod letters;
mod limits;
mod line;
mod node;
mod operate;
mod read;
mod rights;
mod room;
mod routes;
mod serve;
mod signal;
mod status;
mod verification;

pub use dacapo_api::operations::Right;
pub use guard::{Access, Hosts, guard};
pub use limits::{APPEND_BODY_BYTES_MAX, BODY_BYTES_MAX, CONNECTIONS_MAX, DRAIN_TIME_MAX, WAIT_TIME_MAX};
pub use node::NodeApi;
pub use rights::Caller;
pub use routes::{operations, probes, router};
pub use serve::{Bounds, bind, serve, serve_within};
pub use signal::asked_to_end;

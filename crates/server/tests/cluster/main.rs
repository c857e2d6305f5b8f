//! A cluster on PostgreSQL whose nodes serve the API. Any node takes any request, with or without the code that carries
//! it out, and a request outlasts the node that took it.

mod code;
mod killed;
mod nodes;
mod operations;

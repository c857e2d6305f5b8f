//! The suite that every store must pass, as functions that panic where a store is wrong.

pub mod views;

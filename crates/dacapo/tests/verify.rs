//! What is found of a version before readers move to it, and what that keeps from happening. // I-6

#[path = "verify/again.rs"]
mod again;
#[path = "verify/answers.rs"]
mod answers;
#[path = "verify/checks.rs"]
mod checks;
mod common;
#[path = "verify/counts.rs"]
mod counts;
#[path = "verify/meetings.rs"]
mod meetings;
#[path = "verify/rows.rs"]
mod rows;
#[path = "verify/setup.rs"]
mod setup;
#[path = "verify/verdicts.rs"]
mod verdicts;

//! Which of the planted faults is active in this process.

use std::sync::LazyLock;

static ACTIVE: LazyLock<Option<String>> = LazyLock::new(|| std::env::var("DACAPO_PLANTED").ok());

/// Returns true if the environment names this fault.
pub fn is(fault: &str) -> bool {
    ACTIVE.as_deref() == Some(fault)
}

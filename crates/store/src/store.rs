//! A store: a journal and the views over it, opened together.

#[cfg(feature = "embedded")]
mod opened;

use std::sync::Arc;

use crate::journal::Journal;
use crate::members::Members;
use crate::views::Views;

/// A journal and the views over it.
#[derive(Clone)]
pub struct Store {
    /// The events.
    pub journal: Arc<dyn Journal>,
    /// The rows and tokens.
    pub views: Arc<dyn Views>,
    /// The nodes that share it.
    pub members: Arc<dyn Members>,
    /// True if other processes, or other nodes of this one, may use it at the same time.
    pub shared: bool,
    /// Its kind and place, for people.
    pub description: String,
}

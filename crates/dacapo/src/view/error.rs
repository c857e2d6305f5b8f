//! The errors of a view, classified by their cause.

use dacapo_model::{Position, Segment, limits};
use dacapo_store::StoreError;

use crate::landing::{self, Mistake};
use crate::row::RowError;

/// The reason why rows could not be read or changed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ViewError {
    /// A value does not fit its column.
    #[error(transparent)]
    Row(#[from] RowError),
    /// The store could not do it.
    #[error(transparent)]
    Store(std::sync::Arc<StoreError>),
    /// The projection did not declare the row's table.
    #[error("the view has no table {table} for {row}: name the row type among the projection's tables")]
    NoTable {
        /// The missing table.
        table: &'static str,
        /// The type of row that would be in it.
        row: &'static str,
    },
    /// The type of row describes its table differently than the projection.
    #[error(
        "table {table} of {row} is not the one that the projection declares: it has other columns, another key or other \
         indexes; use the type of row that is named among the projection's tables"
    )]
    OtherTable {
        /// The table.
        table: &'static str,
        /// The type of row.
        row: &'static str,
    },
    /// Two types of rows for one table would be kept apart in memory. The first one that is used after the start of the
    /// version is accepted, so use only one type.
    #[error("table {table} is used through {first} and through {second}: a table has rows of one type")]
    TwoTypes {
        /// The table.
        table: &'static str,
        /// The type that was used first.
        first: &'static str,
        /// The type that was used second.
        second: &'static str,
    },
    /// An effect cannot be stored.
    #[error("effect {name} cannot be emitted: {why}")]
    Effect {
        /// The name of its kind.
        name: &'static str,
        /// The reason.
        why: String,
    },
    /// The view has no indexes yet, which SQL may need. The indexes are built now, whether the handler returns this
    /// error or not, and then the handler gets the event again.
    #[error(
        "the indexes of the view are to be built before SQL is used: the event is applied again once they are there"
    )]
    Unindexed,
    /// Events of two segments would write one row. Segments move independently, and each node has its own rows in
    /// memory, so one event would undo the change of the other. The error is reported at the end of the event, even if
    /// the handler ignores it.
    #[error(
        "row {key} of table {table} is written by events of segments {first} and {second}: say so in \
         `Options::rows`, or give it rows whose keys belong to one stream"
    )]
    Shared {
        /// The table.
        table: &'static str,
        /// The key of the row.
        key: String,
        /// The segment whose events wrote it before.
        first: Segment,
        /// The segment of the event that would write it now.
        second: Segment,
        /// The position of that event; `None` outside of events.
        at: Option<Position>,
    },
    /// After this event, two rows would have a value that only one may have.
    #[error("value ({value}) of the unique index {index} of table {table} would be in two rows, {} and {}", .rows[0], .rows[1])]
    Taken {
        /// The table.
        table: &'static str,
        /// The index.
        index: &'static str,
        /// The value, or those of its columns.
        value: String,
        /// The keys of the rows.
        rows: [String; 2],
        /// The position of the event after which they would have it; `None` outside of events.
        at: Option<Position>,
    },
    /// The values of a row in its key or in an index have more bytes than every store can index.
    #[error(
        "{} of a row of table {table} has {bytes} bytes, and may have {}: index something shorter, such as its beginning",
        .index.map_or_else(|| "the key".to_owned(), |index| format!("the index {index}")),
        limits::INDEX_BYTES_MAX
    )]
    TooLong {
        /// The table.
        table: &'static str,
        /// The index; `None` for the key.
        index: Option<&'static str>,
        /// The number of bytes.
        bytes: usize,
    },
    /// A change gave a row another key. The batch cannot be committed.
    #[error("the key of row {key} in table {table} was changed: delete that row and put another one")]
    KeyChanged {
        /// The table.
        table: &'static str,
        /// The key under which the row was looked up.
        key: String,
    },
}

impl From<StoreError> for ViewError {
    fn from(error: StoreError) -> Self {
        Self::Store(error.into())
    }
}

impl ViewError {
    /// Returns true if it is a failure of the store that may pass, not a fault of the handler.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_passing())
    }

    /// Returns the position of the event that caused it, if that is known.
    pub(crate) fn at(&self) -> Option<Position> {
        if let Self::Taken { at, .. } | Self::Shared { at, .. } = self { *at } else { None }
    }
}

impl Mistake for ViewError {
    fn is_passing(&self) -> bool {
        Self::is_passing(self)
    }

    fn at(&self) -> Option<Position> {
        Self::at(self)
    }
}

/// The reason why a batch of rows was not committed.
pub(crate) type NotCommitted = landing::NotCommitted<ViewError>;

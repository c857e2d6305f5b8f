//! What can go wrong with a view, told apart by whose fault it is.

use dacapo_model::{Position, Segment, limits};
use dacapo_store::StoreError;

use crate::landing::{self, Mistake};
use crate::row::RowError;

/// Why rows could not be read or changed.
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
        /// The table that is missing.
        table: &'static str,
        /// The type of row that would be in it.
        row: &'static str,
    },
    /// The type of row describes its table otherwise than the projection.
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
    /// Two types of rows would be kept apart though they are in one table. The one that is used first since the version was
    /// started is taken, so use one type only.
    #[error("table {table} is used through {first} and through {second}: a table has rows of one type")]
    TwoTypes {
        /// The table.
        table: &'static str,
        /// The type that was used first.
        first: &'static str,
        /// The type that was used then.
        second: &'static str,
    },
    /// An effect cannot be kept.
    #[error("effect {name} cannot be emitted: {why}")]
    Effect {
        /// The name of its kind.
        name: &'static str,
        /// Why not.
        why: String,
    },
    /// The view went without its indexes so far, which SQL may need. Whatever a handler makes of this, they are built
    /// now, and then it gets the event once more.
    #[error(
        "the indexes of the view are to be built before SQL is used: the event is applied again once they are there"
    )]
    Unindexed,
    /// Events of two segments would write one row. Segments move by themselves, and on several nodes each has its own rows
    /// in memory, so one would undo what the other did. It is told at the end of the event, whatever the handler makes of it.
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
        /// The position of that event; none beside events.
        at: Option<Position>,
    },
    /// Two rows would have a value that only one may have, after this event.
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
        /// The position of the event after which they would; none beside events.
        at: Option<Position>,
    },
    /// What a row has in its key or in an index is more than every store can index.
    #[error(
        "{} of a row of table {table} has {bytes} bytes, and may have {}: index something shorter, such as its beginning",
        .index.map_or_else(|| "the key".to_owned(), |index| format!("the index {index}")),
        limits::INDEX_BYTES_MAX
    )]
    TooLong {
        /// The table.
        table: &'static str,
        /// The index; none for the key.
        index: Option<&'static str>,
        /// How many bytes there are.
        bytes: usize,
    },
    /// A change put another key into a row; the batch cannot be committed.
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
    /// Whether it is the store's failure and may pass, rather than a mistake of the handler.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_passing())
    }

    /// The position of the event whose mistake it is, where that is known.
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

/// Why a batch of rows was not committed.
pub(crate) type NotCommitted = landing::NotCommitted<ViewError>;

//! Views: for each version of a projection a namespace of its own, with rows and tokens.

mod delegate;
mod letters;
mod outbox;
mod reader;
mod rows;
mod tokens;
mod writer;

use std::sync::Arc;

use async_trait::async_trait;
use dacapo_model::{
    JournalId, Letter, Mark, NewEffect, Position, ProjectionName, Refusal, Segment, SegmentCount, Token, TokenMove,
    ViewId,
};

#[doc(hidden)]
pub use delegate::delegated;

pub use dacapo_model::WhichLetters;
pub use letters::ViewLetters;
pub use outbox::{Outbox, ViewOutbox, WhichEffects};
pub use reader::{FirstRows, ViewReader};
pub use rows::ViewRows;
pub use tokens::ViewTokens;
pub use writer::ViewWriter;

use crate::error::StoreError;
use crate::table::{Table, Value};

/// What one transaction of a view comes to beside its rows: all of it lands, or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commit {
    /// How the tokens move. A transaction that only records something has a move to where the token is, which is
    /// its fence (I-4).
    pub moves: Vec<TokenMove>,
    /// Segments that stop before an event that their handler refuses. What was kept of a segment's earlier refusal
    /// is replaced; it goes by itself once the token covers the event.
    pub refused: Vec<Refusal>,
    /// Events that are set aside, or are tried again in vain: written in place of a letter of the same event, of which
    /// only the wish to give it up stays, since it may have come meanwhile.
    pub letters: Vec<Letter>,
    /// Events whose letters go, since they were applied after all or are given up.
    pub settled: Vec<Position>,
    /// Events that were set aside when a replay in place began, and never applied before: their effects were never kept.
    /// Each is forgotten once its segment's token covers it and it has no letter.
    pub unspoken: Vec<(Segment, Position)>,
    /// Effects that go to the outbox. One that is there already stays as it is.
    pub effects: Vec<NewEffect>,
    /// What the history is of which the view is made, where it is known anew.
    pub history: Option<NewMark>,
}

/// A mark that a view keeps of the history of its journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewMark {
    /// The journal.
    pub journal: JournalId,
    /// The mark. One that is kept of the same position already stays, so that no later history hides an earlier one.
    pub mark: Mark,
    /// The positions of marks that are kept no longer.
    pub forget: Vec<Position>,
}

/// How a view is, as far as what was done with it tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ViewHealth {
    /// What was found first of it that is not what was written. What is not damaged can be read all the same.
    pub damaged: Option<String>,
    /// What is tried with it and fails until now, such as writing where the disk is full.
    pub failing: Option<String>,
}

/// What a view keeps of the history that it is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewHistory {
    /// The journal.
    pub journal: JournalId,
    /// Marks of its history, in the order of positions, the last one at most a little before the furthest token.
    pub marks: Vec<Mark>,
}

impl Commit {
    /// Nothing but these moves.
    pub fn of(moves: impl Into<Vec<TokenMove>>) -> Self {
        Self { moves: moves.into(), ..Self::default() }
    }
}

/// A row or a key, and the segment whose events write it; `None` for nobody's, and where nobody asks, such as in a version
/// with one segment.
pub type OfSegment = (Option<Segment>, Vec<Value>);

/// Rows or keys of no segment in particular.
pub fn of_none(values: impl IntoIterator<Item = Vec<Value>>) -> impl Iterator<Item = OfSegment> {
    values.into_iter().map(|values| (None, values))
}

/// A view as another one of the same store can read it.
#[derive(Clone, Debug)]
pub enum ViewCopy {
    /// The file that it is kept in, which is not written to through this.
    File(std::path::PathBuf),
    /// All of it, as it was.
    Bytes(Arc<Vec<u8>>),
    /// The schema that it is kept in, in the same database.
    Schema(String),
}

/// Another view, as a transaction sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The name of the schema under which SQL finds its tables, as it is written in a statement.
    pub schema: String,
    /// Its tokens, in the order of segments.
    pub tokens: Vec<Token>,
    /// How many dead letters it has.
    pub letters: u64,
}

/// The views of a store.
#[async_trait]
pub trait Views: Send + Sync + 'static {
    /// Opens the view of `id`, making it with these tables and with tokens at the start if it is not there. It is made
    /// without its secondary indexes, except for unique ones, since rows are written faster without them:
    /// [`ViewWriter::index`] builds those later.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] when it is there with other tables or another number of segments.
    async fn open(&self, id: &ViewId, tables: &[Table], segments: SegmentCount) -> Result<Arc<dyn View>, StoreError>;

    /// Opens the view of `id` if it is there, whatever its tables are: for tokens, holds and SQL.
    ///
    /// # Errors
    /// [`StoreError`] when it is there but cannot be read.
    async fn find(&self, id: &ViewId) -> Result<Option<Arc<dyn View>>, StoreError>;

    /// Every view there is.
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be listed.
    async fn list(&self) -> Result<Vec<ViewId>, StoreError>;

    /// Checks that each of these projections can be told from the others by its name in this store. Those that are `known`
    /// are there already.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] when a new one cannot.
    fn check_names(&self, known: &[&ProjectionName], new: &[&ProjectionName]) -> Result<(), StoreError> {
        let _ = (known, new);
        Ok(())
    }

    /// Drops the view of `id` if it is there. Only the driver of CleaningUp calls this (I-12), after the
    /// view's epochs were revoked; a writer or reader that is still open fails or reads on from what it
    /// holds, but nothing of it comes back.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be dropped; it may be half gone, and dropping it again finishes it.
    async fn drop_view(&self, id: &ViewId) -> Result<(), StoreError>;

    /// Whether views have pages that somebody must look at now and then ([`ViewRows::look_at_pages`]), since nobody else does.
    fn has_pages(&self) -> bool {
        false
    }

    /// Lets SQL from outside find the view of `serving` under the name of its projection from now on, in a store that is
    /// queried so; in others there is nothing to do. `flip` is the position of the flip by which it serves: names that
    /// show what a later flip brought stay. Nobody who uses them sees less than before (I-7). A view that they show is
    /// not dropped.
    ///
    /// # Errors
    /// [`StoreError`] when the names cannot be moved now; then they are as they were, and it should be tried again.
    async fn publish(&self, serving: &ViewId, flip: Position) -> Result<(), StoreError> {
        let _ = (serving, flip);
        Ok(())
    }
}

/// One view: all that can be done with it, by what it is about.
pub trait View: ViewTokens + ViewLetters + ViewOutbox + ViewRows {}

impl<V: ViewTokens + ViewLetters + ViewOutbox + ViewRows> View for V {}

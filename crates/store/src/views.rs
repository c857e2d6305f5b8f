//! Views: for each version of a projection a namespace of its own, with rows and tokens.

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

pub use dacapo_model::WhichLetters;
pub use letters::ViewLetters;
pub use outbox::{Outbox, ViewOutbox, WhichEffects};
pub use reader::{FirstRows, ViewReader};
pub use rows::ViewRows;
pub use tokens::ViewTokens;
pub use writer::ViewWriter;

use crate::error::StoreError;
use crate::table::{Table, Value};

/// The parts of one transaction of a view beside its rows: all of them land, or none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commit {
    /// The moves of the tokens. A transaction that only records something has a move to the token's own position,
    /// which is its fence (I-4).
    pub moves: Vec<TokenMove>,
    /// Segments that stop before an event that their handler refuses. A segment's earlier refusal is replaced. The
    /// refusal is removed once the token covers the event.
    pub refused: Vec<Refusal>,
    /// Events that are set aside, or that were retried without success. Each replaces the letter of the same event.
    /// Only a decision to drop the old letter is kept, since it may have arrived meanwhile.
    pub letters: Vec<Letter>,
    /// Events whose letters are removed: they were applied after all, or are given up.
    pub settled: Vec<Position>,
    /// Events that were set aside when a replay in place began, and never applied before: their effects were never
    /// kept. Each is forgotten once its segment's token covers it and it has no letter.
    pub unspoken: Vec<(Segment, Position)>,
    /// Effects for the outbox. An effect that is there already stays as it is.
    pub effects: Vec<NewEffect>,
    /// The history from which the view is made, if there is a newer mark of it.
    pub history: Option<NewMark>,
}

/// A mark that a view keeps of the history of its journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewMark {
    /// The journal.
    pub journal: JournalId,
    /// The mark. If one of the same position is kept already, that one stays, so that no later history hides an
    /// earlier one.
    pub mark: Mark,
    /// The positions of marks that are no longer kept.
    pub forget: Vec<Position>,
}

/// The health of a view, as far as its use has shown it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ViewHealth {
    /// The first damage that was found: stored data that is not what was written. Undamaged data can still be read.
    pub damaged: Option<String>,
    /// A use of it that fails until now, such as a write to a full disk.
    pub failing: Option<String>,
}

/// The view's record of the history from which it is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewHistory {
    /// The journals that its marks name, each once: one, unless somebody put another view in the place of this one.
    pub journals: Vec<JournalId>,
    /// Marks of its history, in the order of positions, the last one at most a little before the furthest token.
    pub marks: Vec<Mark>,
}

impl ViewHistory {
    /// Returns the history with these marks, each of which names a journal; `None` if there is none.
    pub fn of(kept: impl IntoIterator<Item = (JournalId, Mark)>) -> Option<Self> {
        let mut history = Self { journals: Vec::new(), marks: Vec::new() };
        for (journal, mark) in kept {
            if !history.journals.contains(&journal) {
                history.journals.push(journal);
            }
            history.marks.push(mark);
        }
        Some(history).filter(|history| !history.marks.is_empty())
    }
}

impl Commit {
    /// Returns a commit of these moves only.
    pub fn of(moves: impl Into<Vec<TokenMove>>) -> Self {
        Self { moves: moves.into(), ..Self::default() }
    }
}

/// A row or a key, and the segment whose events write it. The segment is `None` if no segment has the row, and if
/// nobody needs it, such as in a version with one segment.
pub type OfSegment = (Option<Segment>, Vec<Value>);

/// Returns rows or keys without a segment.
pub fn of_none(values: impl IntoIterator<Item = Vec<Value>>) -> impl Iterator<Item = OfSegment> {
    values.into_iter().map(|values| (None, values))
}

/// A view in a form in which another one of the same store can read it.
#[derive(Clone, Debug)]
pub enum ViewCopy {
    /// The file of the view. It is not written to through this.
    File(std::path::PathBuf),
    /// The whole view, as it was.
    Bytes(Arc<Vec<u8>>),
    /// The schema of the view, in the same database.
    Schema(String),
}

/// Another view, as a transaction sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The name of the schema under which SQL finds its tables, as a statement writes it.
    pub schema: String,
    /// Its tokens, in the order of segments.
    pub tokens: Vec<Token>,
    /// The number of its dead letters.
    pub letters: u64,
}

/// The views of a store.
#[async_trait]
pub trait Views: Send + Sync + 'static {
    /// Opens the view of `id`. If it does not exist, it is made with these tables and with tokens at the start. It is
    /// made without its secondary indexes, except unique ones, since rows are written faster without them:
    /// [`ViewWriter::index`] builds those later.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] if it exists with other tables or another number of segments.
    async fn open(&self, id: &ViewId, tables: &[Table], segments: SegmentCount) -> Result<Arc<dyn View>, StoreError>;

    /// Opens the view of `id` if it exists, whatever its tables are: for tokens, holds and SQL.
    ///
    /// # Errors
    /// [`StoreError`] if it exists but cannot be read.
    async fn find(&self, id: &ViewId) -> Result<Option<Arc<dyn View>>, StoreError>;

    /// Returns true if the view of `id`, which is open, does not exist any more: somebody else dropped it or put another
    /// one in its place. [`open`](Self::open) then makes it again, or opens the other one. A caller closes what it has
    /// open of it before that.
    ///
    /// # Errors
    /// [`StoreError`] if that cannot be found out.
    async fn is_gone(&self, id: &ViewId) -> Result<bool, StoreError> {
        Ok(self.find(id).await?.is_none())
    }

    /// Returns every view that exists.
    ///
    /// # Errors
    /// [`StoreError`] if they cannot be listed.
    async fn list(&self) -> Result<Vec<ViewId>, StoreError>;

    /// Checks that this store can distinguish each of these projections from the others by its name. Those that are
    /// `known` exist already.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] if it cannot distinguish a new one.
    fn check_names(&self, known: &[&ProjectionName], new: &[&ProjectionName]) -> Result<(), StoreError> {
        let _ = (known, new);
        Ok(())
    }

    /// Drops the view of `id` if it exists. Only the driver of CleaningUp calls this (I-12), after the view's epochs
    /// were revoked. An open writer or reader then fails, or reads on from its own state, but the view never comes
    /// back.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be dropped. A part of it may be gone, and dropping it again completes the drop.
    async fn drop_view(&self, id: &ViewId) -> Result<(), StoreError>;

    /// Returns true if views have pages that the caller must check from time to time ([`ViewRows::look_at_pages`]),
    /// since nobody else does.
    fn has_pages(&self) -> bool {
        false
    }

    /// Lets SQL from outside find the view of `serving` under the name of its projection from now on, in a store that
    /// has such names; other stores do nothing. `flip` is the position of the flip by which it serves: names that
    /// show the view of a later flip stay. No user of the names sees less than before (I-7). A view that they show is
    /// not dropped.
    ///
    /// # Errors
    /// [`StoreError`] if the names cannot be moved now. They are then as they were, and the caller should retry.
    async fn publish(&self, serving: &ViewId, flip: Position) -> Result<(), StoreError> {
        let _ = (serving, flip);
        Ok(())
    }
}

/// One view, with everything that can be done with it, by subject.
pub trait View: ViewTokens + ViewLetters + ViewOutbox + ViewRows {}

impl<V: ViewTokens + ViewLetters + ViewOutbox + ViewRows> View for V {}

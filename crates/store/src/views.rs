//! Views: for each version of a projection a namespace of its own, with rows and tokens.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dacapo_model::{
    BegunEffect, EffectLetter, EffectsClaim, Epoch, JournalId, Letter, Mark, MemberId, NewEffect, PendingEffect,
    Position, ProjectionName, Refusal, Segment, SegmentCount, Settled, StreamName, Timestamp, Token, TokenMove, ViewId,
    Wish,
};

pub use dacapo_model::WhichLetters;

use crate::error::{CommitError, StoreError};
use crate::table::{Index, Table, Value};

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

/// What a view still owes to the world outside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outbox {
    /// How many effects are still to be made.
    pub pending: u64,
    /// How many were set aside beside these.
    pub aside: u64,
    /// When the next one is to be tried.
    pub next_due: Option<Timestamp>,
    /// Some that were tried in vain, in the order of their events.
    pub failing: Vec<PendingEffect>,
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

/// What a query gives, of which only the first rows are taken into memory.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FirstRows {
    /// The names of its columns.
    pub columns: Vec<String>,
    /// The first rows.
    pub rows: Vec<Vec<Value>>,
    /// How many rows it gives in all.
    pub all: u64,
}

/// Which effects of an outbox something is decided about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WhichEffects {
    /// Those of these events.
    pub which: WhichLetters,
    /// Of no event behind this position.
    pub through: Position,
    /// Also those that were never tried. Otherwise those that were tried in vain, whether they are set aside or not.
    pub untried: bool,
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

    /// Whether views have pages that somebody must look at now and then ([`View::look_at_pages`]), since nobody else does.
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

/// One view.
#[async_trait]
pub trait View: Send + Sync + 'static {
    /// Every token, in the order of segments.
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be read.
    async fn tokens(&self) -> Result<Vec<Token>, StoreError>;

    /// The history that it is made of, as far as commits have said; `None` when none has.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    async fn history(&self) -> Result<Option<ViewHistory>, StoreError>;

    /// Claims segments for the member `by`, or for nobody: each whose token still has the epoch that was `seen` gets the
    /// next one and its new owner, so that no commit of an earlier claim lands any more (I-4). Returns the tokens that
    /// were claimed, in the order of segments: of two that saw the same, one gets them. Positions, holds and caps stay.
    ///
    /// It waits for the end of a transaction that has written under the earlier claim.
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be written.
    async fn claim(&self, by: Option<MemberId>, seen: &[Token]) -> Result<Vec<Token>, StoreError>;

    /// Takes every segment from whoever has it: no commit of an earlier claim lands any more (I-4).
    ///
    /// # Errors
    /// [`StoreError`] when the tokens cannot be written.
    async fn revoke(&self) -> Result<(), StoreError>;

    /// Marks every token as held under `mark`, unless a later mark holds it, and returns the tokens as they
    /// are once all are marked: nothing moves from here until the mark is lifted. Marking twice is marking once.
    /// It waits for the end of a transaction that has written; the task that has one must not wait for it.
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be written; then none is marked.
    async fn hold(&self, mark: Position) -> Result<Vec<Token>, StoreError>;

    /// Lifts the hold under `mark` or an earlier one; a later one stays.
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be written.
    async fn lift(&self, mark: Position) -> Result<(), StoreError>;

    /// Lets no token move past `at` until another cap, or none, takes its place, and returns the tokens as they are then.
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be written; then the cap is what it was.
    async fn cap(&self, at: Option<Position>) -> Result<Vec<Token>, StoreError>;

    /// What is kept of the events that segments stop before, in the order of segments.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    async fn refusals(&self) -> Result<Vec<Refusal>, StoreError>;

    /// The dead letters of events behind `after`, in order, at most `most` of them.
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be read.
    async fn letters(&self, after: Position, most: usize) -> Result<Vec<Letter>, StoreError>;

    /// Records what shall be done with dead letters, in place of an earlier wish, and returns how many there are.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be written.
    async fn wish(&self, which: &WhichLetters, wish: Option<Wish>) -> Result<u64, StoreError>;

    /// The events whose effects were never kept, of those that a replay in place is about to come past again.
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be read.
    async fn unspoken(&self) -> Result<Vec<Position>, StoreError>;

    /// The effects that are due at `now`, the first of each stream at most, those that are due longest first. Where none is
    /// made to wait longer than `longest`, one that would be due later was tried by a node whose clock is ahead, and is due.
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be read.
    async fn effects_due(
        &self,
        now: Timestamp,
        longest: Duration,
        most: usize,
    ) -> Result<Vec<PendingEffect>, StoreError>;

    /// The position of the first effect of a stream after `after` that is still to be made.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    async fn first_effect(&self, stream: &StreamName, after: Position) -> Result<Option<Position>, StoreError>;

    /// What is in the outbox as a whole, with at most `most` of those that fail.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    async fn outbox(&self, most: usize) -> Result<Outbox, StoreError>;

    /// The effects whose number is above `after`, in the order of their numbers, at most `most`: those that were tried in
    /// vain, set aside or not, and with `untried` all.
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be read.
    async fn effect_letters(&self, after: u64, most: usize, untried: bool) -> Result<Vec<EffectLetter>, StoreError>;

    /// Lets effects be tried at once, those that were set aside too, which come before what waits in their streams; or
    /// takes them away, so that the next ones of their streams are due. Returns how many there are.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be written; then nothing of it is.
    async fn decide_effects(&self, which: &WhichEffects, wish: Wish) -> Result<u64, StoreError>;

    /// Who has the right to make the effects.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    async fn effects_claim(&self) -> Result<EffectsClaim, StoreError>;

    /// Gives the right to make the effects to the member `by`, or to nobody, if its epoch is still the one that was `seen`.
    /// Returns the new epoch: nothing is begun under an earlier one any more. `None` when somebody else was first.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be written.
    async fn claim_effects(&self, by: Option<MemberId>, seen: Epoch) -> Result<Option<Epoch>, StoreError>;

    /// Records, before they are tried, that effects are begun under a claim, in the order in which they are named. Returns
    /// those that are still to be made; `None` when somebody else has the right, or nobody, and then none is begun (I-9). A
    /// database that lost its last commits may give an epoch twice, so the member counts as well.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be written.
    async fn begin_effects(&self, claim: EffectsClaim, numbers: &[u64])
    -> Result<Option<Vec<BegunEffect>>, StoreError>;

    /// Records what tries under an epoch came to, by the numbers of the effects. What is done goes, and the next one of its
    /// stream is due. What was begun under a later epoch stays as it is: that try is under way, and tells what it came to.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be written; then nothing of it is.
    async fn settle_effects(&self, epoch: Epoch, settled: &[(u64, Settled)]) -> Result<(), StoreError>;

    /// The secondary indexes of these tables that are not there yet, as places in the tables and in their indexes.
    ///
    /// # Errors
    /// [`StoreError`] when the view cannot be read.
    async fn missing_indexes(&self, tables: &[Table]) -> Result<Vec<(usize, usize)>, StoreError>;

    /// How it is, as far as what was done with it tells. Asks nobody, so it never waits.
    fn health(&self) -> ViewHealth {
        ViewHealth::default()
    }

    /// Looks at what is stored behind the page `after`, at most `most` pages of it, though nobody asks for it. Returns
    /// where to go on; `None` at the end, or where the store looks itself.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] where something is not what was written, which [`health`](Self::health) tells from then on.
    async fn look_at_pages(&self, _after: u64, _most: u64) -> Result<Option<u64>, StoreError> {
        Ok(None)
    }

    /// What another view of the same store needs to read this one as it is at one moment.
    ///
    /// # Errors
    /// [`StoreError`] when this one cannot be read.
    async fn copy(&self) -> Result<ViewCopy, StoreError>;

    /// A writer. Within a process, at most one writes at a time where the store demands that: then its first write waits
    /// for another's end. Elsewhere writers of other segments go on beside each other, and those of one segment are told
    /// apart by the commit (I-4).
    ///
    /// # Errors
    /// [`StoreError`] when the view cannot be opened for writing.
    async fn writer(&self) -> Result<Box<dyn ViewWriter>, StoreError>;

    /// A reader of the rows as they are now. It sees one state of the view however long it lives.
    ///
    /// # Errors
    /// [`StoreError`] when the view cannot be read.
    async fn reader(&self) -> Result<Box<dyn ViewReader>, StoreError>;
}

/// Writes rows and tokens of one view, in one transaction after the other. The next one begins with the
/// first call after [`commit`](Self::commit) or [`rollback`](Self::rollback). Dropping it rolls back.
#[async_trait]
pub trait ViewWriter: Send {
    /// The row with this key, as this transaction sees it.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    async fn load(&mut self, table: &Table, key: &[Value]) -> Result<Option<Vec<Value>>, StoreError>;

    /// The same in a view with several segments, with the segment that the row was put for, by whatever writer; `None` where
    /// none was named, such as by SQL or by a build that kept none.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    async fn load_of(&mut self, table: &Table, key: &[Value]) -> Result<Option<OfSegment>, StoreError>;

    /// The segments that the rows with these keys were put for in a view with several, each with the place of its key, as far
    /// as there is such a row and one was named. Bulk.
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be read.
    async fn segments_of(&mut self, table: &Table, keys: &[Vec<Value>]) -> Result<Vec<(usize, Segment)>, StoreError>;

    /// Lets the rows of a table of a view with several segments say of which they are, from the open transaction on. A table
    /// that does so has one more column for SQL, so what SQL sees must not depend on what was put before. A store whose
    /// tables always do so has nothing to do.
    ///
    /// # Errors
    /// [`StoreError`] when the table cannot be changed.
    async fn keep_segments(&mut self, table: &Table) -> Result<(), StoreError>;

    /// Whether the table has no row, as this transaction sees it.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    async fn is_empty(&mut self, table: &Table) -> Result<bool, StoreError> {
        let name = table.name.replace('"', "\"\"");
        Ok(self.query(&format!("SELECT 1 FROM \"{name}\" LIMIT 1"), &[]).await?.is_empty())
    }

    /// The rows that have one of these `values` in the columns of a unique `index`, as this transaction sees them, each with
    /// the place of what it has among those. None of the values has a [`Null`](Value::Null). Bulk.
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be read.
    async fn rows_with(
        &mut self,
        table: &Table,
        index: &Index,
        values: &[Vec<Value>],
    ) -> Result<Vec<(usize, Vec<Value>)>, StoreError>;

    /// Writes these rows whole, in place of those with the same keys. Bulk: it is called once a table and batch. Unique
    /// indexes are asked row by row: what is to move from one row to another is deleted with its row first, and so is a row
    /// that is to be another segment's. Each keeps the segment that it is put for; whoever names those of some rows of a
    /// table names them of all that have one.
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be written; in a store that several nodes share, [`StoreError::Invalid`] when a row is
    /// another segment's, since another node may have put it after this one has asked.
    async fn put(
        &mut self,
        table: &Table,
        rows: &mut (dyn Iterator<Item = OfSegment> + Send),
    ) -> Result<(), StoreError>;

    /// Deletes the rows with these keys, as far as there are any.
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be deleted; as [`put`](Self::put) for rows of another segment.
    async fn delete(
        &mut self,
        table: &Table,
        keys: &mut (dyn Iterator<Item = OfSegment> + Send),
    ) -> Result<(), StoreError>;

    /// Carries out one SQL statement and returns the number of rows it changed. Its parameters are `$1`, `$2` and so on.
    /// A statement that fails has changed nothing, and the transaction goes on.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] when the statement is wrong.
    async fn execute(&mut self, sql: &str, parameters: &[Value]) -> Result<u64, StoreError>;

    /// The rows that a query gives, as this transaction sees them. It cannot write.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] when the statement is wrong or would write.
    async fn query(&mut self, sql: &str, parameters: &[Value]) -> Result<Vec<Vec<Value>>, StoreError>;

    /// Builds a secondary index in this transaction, if it is not there. That may take long; when the future is dropped
    /// meanwhile, the work ends soon, the transaction is rolled back, and the writer is of no more use.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] when a unique index finds rows that are not; [`StoreError::Unavailable`] when there is
    /// no room for it.
    async fn index(&mut self, table: &Table, index: &Index) -> Result<(), StoreError>;

    /// Begins a transaction in which SQL sees another view as it is now, in the schema that [`Attached::schema`] names,
    /// until the transaction ends; it cannot write there. Statements may take long meanwhile: when the future of one is dropped, it ends soon and the writer is of no
    /// more use.
    ///
    /// # Errors
    /// [`StoreError`] when the other view cannot be read.
    ///
    /// # Panics
    /// When a transaction is open.
    async fn attach(&mut self, copy: &ViewCopy) -> Result<Attached, StoreError>;

    /// Lets the rows of a table be of the segments that rows with the same keys are of in the attached view, which has a
    /// table of the same name and key, and as many segments.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be written.
    async fn take_over_segments(&mut self, table: &Table, from: &Attached) -> Result<(), StoreError>;

    /// Moves the tokens, keeps what else `commit` says, and commits, rows and tokens together (I-3), if every
    /// move is allowed by [`Token::moved`] (I-4); the check is part of the statement that moves.
    ///
    /// # Errors
    /// [`CommitError`]; then everything is rolled back.
    ///
    /// # Panics
    /// Without a move, since nothing would fence the rows.
    async fn commit(&mut self, commit: &Commit) -> Result<(), CommitError>;

    /// Forgets everything since the last commit.
    ///
    /// # Errors
    /// [`StoreError`] when the connection is lost; nothing was written even then.
    async fn rollback(&mut self) -> Result<(), StoreError>;
}

/// Reads one state of a view.
#[async_trait]
pub trait ViewReader: Send {
    /// Every token in that state.
    fn tokens(&self) -> &[Token];

    /// The position that the whole state covers: the lowest token.
    fn covers(&self) -> Position {
        self.tokens().iter().map(|token| token.position).min().unwrap_or_default()
    }

    /// The row with this key, its columns in the order of `table`, which may have fewer of them than the
    /// stored table.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    async fn get(&mut self, table: &Table, key: &[Value]) -> Result<Option<Vec<Value>>, StoreError>;

    /// The rows in which each of `columns` (places in `table.columns`) has the given value, ordered by
    /// primary key, at most `most` of them. Without columns, all rows.
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be read.
    async fn select(
        &mut self,
        table: &Table,
        columns: &[(usize, Value)],
        most: usize,
    ) -> Result<Vec<Vec<Value>>, StoreError>;

    /// The next rows behind the key `after`, or the first ones, in the order of [`key_order`](crate::key_order): at
    /// most `most`, and no more than make up [`limits::PAGE_BYTES_MAX`](dacapo_model::limits::PAGE_BYTES_MAX), but at
    /// least one if there is one. What was read before costs nothing again.
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be read.
    async fn page(
        &mut self,
        table: &Table,
        after: Option<&[Value]>,
        most: usize,
    ) -> Result<Vec<Vec<Value>>, StoreError>;

    /// The rows that a query gives, with the names of its columns. It cannot write.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] when the statement is wrong or would write.
    async fn query(&mut self, sql: &str, parameters: &[Value]) -> Result<(Vec<String>, Vec<Vec<Value>>), StoreError>;

    /// The same for a query without parameters, of which only the first `most` rows are wanted and the others counted. The
    /// statement stands as it is, so it may end in a semicolon or a comment.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    async fn first_rows(&mut self, sql: &str, most: usize) -> Result<FirstRows, StoreError>;

    /// The dead letters in that state of events behind `after`, in order, at most `most` of them.
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be read.
    async fn letters(&mut self, after: Position, most: usize) -> Result<Vec<Letter>, StoreError>;
}

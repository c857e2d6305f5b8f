//! A processor's use of a view: it names the event of the changes, and commits them.

use dacapo_model::{Position, Segment, TokenRefused, limits};
use dacapo_store::{Commit, CommitError, EventRef, Table, ViewWriter};

use super::emitter::Emitter;
use super::shelf::By;
use super::{Indexes, NotCommitted, View, ViewError};

impl View {
    /// Returns a view to change through `writer`, with these tables.
    pub(crate) fn new(writer: Box<dyn ViewWriter>, tables: &'static [Table]) -> Self {
        Self {
            writer,
            tables,
            shelves: Vec::new(),
            bytes_max: limits::ROW_BYTES_MAX,
            wrote_sql: false,
            sent: false,
            of_one_segment: false,
            by: By::default(),
            unasked: 0,
            unasked_max: limits::UNIQUE_UNASKED_MAX,
            emitter: None,
            indexes: Indexes::There,
            changes: 0,
            mistake: None,
        }
    }

    /// Limits the memory of rows that stay from batch to batch. Within a batch they take as much as it needs.
    pub(crate) fn with_bytes_max(self, bytes_max: usize) -> Self {
        Self { bytes_max, ..self }
    }

    /// Lets handlers emit effects of these names.
    pub(crate) fn with_effects(self, names: Vec<&'static str>, segment: Segment) -> Self {
        let emitter = (!names.is_empty()).then(|| Emitter::new(names, segment));
        Self { emitter, ..self }
    }

    /// Sets whether it refuses events of two segments that write one row.
    pub(crate) fn of_one_segment(self, of_one_segment: bool) -> Self {
        Self { of_one_segment, by: By { asks: of_one_segment, ..By::default() }, ..self }
    }

    /// States that the next writes follow from this event of this segment.
    pub(crate) fn write_for(&mut self, segment: Segment, at: Position) {
        let asks = self.of_one_segment;
        self.by = By { asks, segment: asks.then_some(segment), at: Some(at) };
    }

    /// States that the next effects follow from this event.
    pub(crate) fn begin_event(&mut self, place: &EventRef<'_>, segment: Segment, silent: bool) {
        if let Some(emitter) = &mut self.emitter {
            emitter.begin(place.position, segment, place.stream, silent);
        }
    }

    /// Ends the event that was applied, and checks the rows that it wrote.
    pub(crate) fn end_event(&mut self) -> Result<(), ViewError> {
        if let Some(mistake) = &self.mistake {
            return Err(mistake.clone());
        }
        let mut unasked = 0;
        for at in 0..self.shelves.len() {
            let shelf = &mut self.shelves[at].2;
            let ended = shelf.end_event(self.by.at);
            unasked += shelf.unasked();
            self.noted(ended)?;
        }
        self.unasked = unasked;
        Ok(())
    }

    /// States that the next effects follow from no event, so that they are discarded.
    pub(crate) fn end_events(&mut self) {
        self.by = By { asks: self.of_one_segment, ..By::default() };
        self.emitter.iter_mut().for_each(Emitter::silence);
    }

    /// Returns a number that grows with every change that is begun.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// Returns true if the store may have an open transaction for this batch.
    pub(crate) fn has_sent(&self) -> bool {
        self.sent
    }

    /// Returns true if the rows in memory exceed their limit so far that the batch should end. Changed rows stay in
    /// memory until they are committed.
    pub(crate) fn is_full(&self) -> bool {
        let emitted = self.emitter.as_ref().map_or(0, Emitter::bytes);
        self.bytes() + emitted > self.bytes_max.saturating_mul(2)
    }

    pub(super) fn bytes(&self) -> usize {
        self.shelves.iter().map(|(.., shelf)| shelf.bytes()).sum()
    }

    /// Removes rows above the limit, of each table in proportion. It is called between batches.
    #[expect(clippy::expect_used, reason = "a share is less than the whole")]
    pub(super) fn evict(&mut self) {
        let bytes = self.bytes();
        if bytes <= self.bytes_max {
            return;
        }
        // It removes somewhat more than needed, so that not every batch has to do this.
        let keep = self.bytes_max / 8 * 7;
        for (.., shelf) in &mut self.shelves {
            let share = shelf.bytes() as u128 * keep as u128 / bytes as u128;
            shelf.evict(usize::try_from(share).expect("a share is less than the whole"));
        }
    }

    /// Returns true if so many values were taken, or rows written, without a check that the batch should end to check
    /// them.
    pub(crate) fn should_ask(&self) -> bool {
        self.unasked >= self.unasked_max
    }

    /// Returns an earlier event of the batch whose fault shows only now, as far as that can be known. It is called if
    /// an event is refused, since the refusal may be a consequence of that fault.
    pub(crate) async fn blamed(&mut self) -> Result<Option<ViewError>, ViewError> {
        let asked = self.ask().await?;
        let known = self.mistake.clone().filter(|mistake| mistake.at().is_some());
        Ok(asked.into_iter().chain(known).min_by_key(ViewError::at))
    }

    /// Asks the store about all values and rows that were taken or written without a check.
    pub(super) async fn ask(&mut self) -> Result<Option<ViewError>, ViewError> {
        let mut first: Option<ViewError> = None;
        for (.., shelf) in &mut self.shelves {
            let found = shelf.ask(&mut *self.writer).await?;
            first = first.into_iter().chain(found).min_by_key(ViewError::at);
        }
        self.unasked = 0;
        if first.is_some() {
            self.unasked_max = 1;
        }
        Ok(first)
    }

    /// Commits every change since the last commit together with the moves of tokens (I-3).
    pub(crate) async fn commit(&mut self, commit: &Commit) -> Result<(), NotCommitted> {
        assert!(!self.wants_indexes(), "what was made of SQL that was refused is taken back");
        if let Err(error) = self.flush().await {
            self.forget_changes();
            return match self.writer.rollback().await {
                Ok(()) => Err(NotCommitted::Failed(error)),
                Err(lost) => Err(NotCommitted::Failed(lost.into())),
            };
        }
        let effects = self.emitter.as_mut().map(|emitter| std::mem::take(&mut emitter.emitted)).unwrap_or_default();
        let with_effects = (!effects.is_empty()).then(|| Commit { effects, ..commit.clone() });
        let committed = self.writer.commit(with_effects.as_ref().unwrap_or(commit)).await;
        self.sent = false;
        match committed {
            Ok(()) => {
                self.shelves.iter_mut().for_each(|(.., shelf)| shelf.committed());
                self.unasked_max = self.unasked_max.saturating_mul(2).min(limits::UNIQUE_UNASKED_MAX);
                self.wrote_sql = false;
                self.evict();
                Ok(())
            }
            Err(CommitError::Refused(TokenRefused::Held { held_for, .. })) => {
                let must_reapply = self.wrote_sql || self.shelves.iter().any(|(.., shelf)| shelf.must_reapply());
                if must_reapply {
                    self.forget_changes();
                } else {
                    self.shelves.iter_mut().for_each(|(.., shelf)| shelf.taken_back());
                    if let (Some(emitter), Some(commit)) = (&mut self.emitter, with_effects) {
                        emitter.emitted = commit.effects;
                    }
                }
                Err(NotCommitted::Held { held_for, must_reapply })
            }
            Err(CommitError::Refused(refused)) => {
                self.forget_changes();
                Err(NotCommitted::of(refused))
            }
            Err(CommitError::Store(error)) => {
                self.forget_changes();
                Err(NotCommitted::Failed(error.into()))
            }
        }
    }

    /// Forgets every change since the last commit.
    pub(crate) async fn rollback(&mut self) -> Result<(), ViewError> {
        self.forget_changes();
        Ok(self.writer.rollback().await?)
    }

    /// Sends every change to the store's transaction.
    pub(super) async fn flush(&mut self) -> Result<(), ViewError> {
        self.sent = true;
        // In the middle of an event, the changes that SQL will see must be valid already.
        self.end_event()?;
        if let Some(error) = self.ask().await? {
            return self.noted(Err(error));
        }
        for (.., shelf) in &mut self.shelves {
            shelf.flush(&mut *self.writer).await?;
        }
        Ok(())
    }

    pub(super) fn forget_changes(&mut self) {
        (self.mistake, self.unasked) = (None, 0);
        for (.., shelf) in &mut self.shelves {
            // Rows that were read after SQL wrote may have been written by it.
            if self.wrote_sql { shelf.forget() } else { shelf.rolled_back() }
        }
        (self.wrote_sql, self.sent) = (false, false);
        self.emitter.iter_mut().for_each(|emitter| emitter.emitted.clear());
        if self.indexes == Indexes::Wanted {
            self.indexes = Indexes::Missing;
        }
    }
}

//! Events that are set aside: those with letters in the view, and those of the batch under way.

use std::collections::BTreeMap;

use dacapo_model::{
    EventType, InvalidName, Letter, LetterKind, Letters, Position, Segment, StreamName, Timestamp, Wish, limits,
};
use dacapo_store::{EventRef, StoreError, View as StoredView};

/// The events that are set aside, and the rule that sets later events of their streams aside, too.
#[derive(Default)]
pub(crate) struct Aside {
    /// True if later events of a stream wait for an earlier one that was refused.
    order_matters: bool,
    /// The letters of the view.
    kept: Letters,
    /// The number of letters in the view of segments that this run does not have.
    others: usize,
    /// The letters of the batch under way, which its commit adds.
    batch: Letters,
    /// The events of the batch that were refused and not retried, in case the batch is applied again.
    refused: BTreeMap<Position, Letter>,
    /// The time of the batch.
    now: Timestamp,
}

impl Aside {
    /// Reads the letters of a view, of the segments for which `ours` returns true.
    pub(crate) async fn load(
        view: &dyn StoredView,
        order_matters: bool,
        ours: impl Fn(Segment) -> bool,
    ) -> Result<Self, StoreError> {
        let (mut kept, mut others) = (Letters::default(), 0);
        let mut after = Position::START;
        loop {
            let page = view.letters(after, limits::LETTERS_READ_MAX).await?;
            let Some(last) = page.last() else { break };
            after = last.position;
            for letter in page {
                match ours(letter.segment) {
                    true => kept.put(letter),
                    false => others += 1,
                }
            }
        }
        Ok(Self { order_matters, kept, others, ..Self::default() })
    }

    /// Returns a value that sets aside the events of these letters, and no others.
    pub(crate) fn of(letters: impl IntoIterator<Item = Letter>) -> Self {
        let refused = letters.into_iter().map(|letter| (letter.position, letter)).collect();
        Self { refused, ..Self::default() }
    }

    /// Returns the number of letters in the view, as far as this run knows.
    pub(crate) fn count(&self) -> usize {
        self.kept.len() + self.others
    }

    /// Begins a batch at this time.
    pub(crate) fn begin(&mut self, now: Timestamp) {
        (self.batch, self.refused, self.now) = (Letters::default(), BTreeMap::new(), now);
    }

    /// Begins the batch again. Events that were already refused in it are not tried again.
    pub(crate) fn begin_again(&mut self) {
        self.batch = Letters::default();
    }

    /// Returns the letters of the batch, for its commit.
    pub(crate) fn of_batch(&self) -> Vec<Letter> {
        self.batch.iter().cloned().collect()
    }

    /// Records that the batch is committed.
    pub(crate) fn committed(&mut self) {
        std::mem::take(&mut self.batch).iter().for_each(|letter| self.kept.put(letter.clone()));
    }

    pub(crate) fn kept(&self) -> &Letters {
        &self.kept
    }

    pub(crate) fn kept_mut(&mut self) -> &mut Letters {
        &mut self.kept
    }

    pub(crate) fn order_matters(&self) -> bool {
        self.order_matters
    }

    /// Returns true if no more events may be set aside.
    pub(crate) fn is_full(&self) -> bool {
        self.count() + self.batch.len().max(self.refused.len()) >= limits::LETTERS_MAX
    }

    /// Sets an event aside after its last try.
    pub(crate) fn refuse(&mut self, letter: Letter) {
        assert!(!self.is_full(), "I-11: an event is set aside only where there is room for its letter");
        self.refused.insert(letter.position, letter.clone());
        self.batch.put(letter);
    }

    /// Returns true if the event is set aside without a try, since an earlier event of its stream is set aside, or
    /// since it was refused before in this batch.
    ///
    /// # Errors
    /// The error of the earlier event, if no more events may be set aside.
    pub(crate) fn takes(&mut self, segment: Segment, event: &EventRef<'_>) -> Result<bool, String> {
        if self.kept.is_empty() && self.refused.is_empty() {
            return Ok(false);
        }
        if let Some(letter) = self.refused.get(&event.position) {
            self.batch.put(letter.clone());
            return Ok(true);
        }
        if !self.order_matters {
            return Ok(false);
        }
        let Some(first) = self.kept.first_of(event.stream).or_else(|| self.batch.first_of(event.stream)) else {
            return Ok(false);
        };
        let kind = LetterKind::Blocked { first: first.position };
        let error = first.error.clone();
        if self.is_full() {
            return Err(format!("event {} of its stream is set aside before it: {error}", first.position));
        }
        // A retry includes the events that arrive during it. Otherwise a retry in a busy stream would never end.
        let last = self.batch.last_of(event.stream).or_else(|| self.kept.last_of(event.stream));
        let wish = last.and_then(|last| last.wish).filter(|wish| *wish == Wish::Retry);
        let letter = letter(segment, event, kind, error, 0, self.now).map_err(|error| error.to_string())?;
        self.batch.put(Letter { wish, ..letter });
        Ok(true)
    }
}

/// Returns the letter of an event.
///
/// # Errors
/// [`StoreError::Corrupt`] if the journal has the event under an invalid name.
pub(crate) fn letter(
    segment: Segment,
    event: &EventRef<'_>,
    kind: LetterKind,
    error: String,
    attempts: u32,
    recorded: Timestamp,
) -> Result<Letter, StoreError> {
    let damaged = |name: InvalidName| StoreError::corrupt(format!("event {}", event.position), name.to_string());
    Ok(Letter {
        position: event.position,
        segment,
        stream: StreamName::new(event.stream).map_err(damaged)?,
        event_type: EventType::new(event.event_type).map_err(damaged)?,
        kind,
        error,
        attempts,
        recorded,
        wish: None,
    })
}

/// Returns the error of a handler, cut to the length that is stored.
pub(crate) fn shortened(mut error: String) -> String {
    if error.len() > limits::HANDLER_ERROR_BYTES_MAX {
        let end = (0..=limits::HANDLER_ERROR_BYTES_MAX).rev().find(|at| error.is_char_boundary(*at)).unwrap_or(0);
        error.truncate(end);
        error.push('…');
    }
    error
}

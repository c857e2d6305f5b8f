//! Events that are set aside: those that the view keeps letters of, and those of the batch under way.

use std::collections::BTreeMap;

use dacapo_model::planted::{self, Fault};
use dacapo_model::{
    EventType, InvalidName, Letter, LetterKind, Letters, Position, Segment, StreamName, Timestamp, Wish, limits,
};
use dacapo_store::{EventRef, StoreError, View as StoredView};

/// What is set aside, and what must be because it comes behind something that is.
#[derive(Default)]
pub(crate) struct Aside {
    /// Whether later events of a stream wait behind one that was refused.
    order_matters: bool,
    /// As the view has them.
    kept: Letters,
    /// How many the view had of segments that are not this run's.
    others: usize,
    /// Those of the batch under way, which its commit adds.
    batch: Letters,
    /// Those of the batch that were refused for good, should the batch be applied again.
    refused: BTreeMap<Position, Letter>,
    /// The time of the batch.
    now: Timestamp,
}

impl Aside {
    /// Reads the letters of a view that are of the segments which are `ours`.
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

    /// Sets aside what was set aside before, and nothing else.
    pub(crate) fn of(letters: impl IntoIterator<Item = Letter>) -> Self {
        let refused = letters.into_iter().map(|letter| (letter.position, letter)).collect();
        Self { refused, ..Self::default() }
    }

    /// How many the view has, as far as this run knows.
    pub(crate) fn count(&self) -> usize {
        self.kept.len() + self.others
    }

    /// A batch begins, at this time.
    pub(crate) fn begin(&mut self, now: Timestamp) {
        (self.batch, self.refused, self.now) = (Letters::default(), BTreeMap::new(), now);
    }

    /// The batch is applied again from its start: what was refused for good in it is not tried again.
    pub(crate) fn begin_again(&mut self) {
        self.batch = Letters::default();
    }

    /// The letters of the batch, for its commit.
    pub(crate) fn of_batch(&self) -> Vec<Letter> {
        self.batch.iter().cloned().collect()
    }

    /// The batch is committed.
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

    /// Whether no more events may be set aside.
    pub(crate) fn is_full(&self) -> bool {
        self.count() + self.batch.len() >= limits::LETTERS_MAX
    }

    /// Sets an event aside that its handler has refused for good.
    pub(crate) fn refuse(&mut self, letter: Letter) {
        self.refused.insert(letter.position, letter.clone());
        self.batch.put(letter);
    }

    /// Whether the event is set aside without being tried: its stream is, or it was refused before in this batch.
    ///
    /// # Errors
    /// With what was said of the event it comes behind, when no more events may be set aside.
    pub(crate) fn takes(&mut self, segment: Segment, event: &EventRef<'_>) -> Result<bool, String> {
        if self.kept.is_empty() && self.refused.is_empty() {
            return Ok(false);
        }
        if let Some(letter) = self.refused.get(&event.position) {
            self.batch.put(letter.clone());
            return Ok(true);
        }
        if !self.order_matters || planted::is(Fault::NotBlocked) {
            return Ok(false);
        }
        let Some(first) = self.kept.first_of(event.stream).or_else(|| self.batch.first_of(event.stream)) else {
            return Ok(false);
        };
        let kind = LetterKind::Blocked { first: first.position };
        let error = first.error.clone();
        if self.is_full() {
            return Err(format!("it is behind event {} of its stream, of which was said: {error}", first.position));
        }
        // A retry goes on with what comes while it is under way: else one of a busy stream would never be through.
        let last = self.batch.last_of(event.stream).or_else(|| self.kept.last_of(event.stream));
        let wish = last.and_then(|last| last.wish).filter(|wish| *wish == Wish::Retry);
        let letter = letter(segment, event, kind, error, 0, self.now).map_err(|error| error.to_string())?;
        self.batch.put(Letter { wish, ..letter });
        Ok(true)
    }
}

/// The letter of an event.
///
/// # Errors
/// [`StoreError::Corrupt`] when the journal has the event under a name that no append takes.
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

/// What a handler said, no longer than is kept.
pub(crate) fn shortened(mut error: String) -> String {
    if error.len() > limits::HANDLER_ERROR_BYTES_MAX {
        let end = (0..=limits::HANDLER_ERROR_BYTES_MAX).rev().find(|at| error.is_char_boundary(*at)).unwrap_or(0);
        error.truncate(end);
        error.push('…');
    }
    error
}

//! Whether a view, and what the node itself knows, still belong to the journal.
//!
//! ```text
//!   a commit ──takes along──▶ marks in the view ──┐
//!                                                 ├─ compared ─▶ the same: go on
//!   the node ──looks now and then──▶ its own ─────┘            └▶ not: stop, and say where they part
//! ```
//!
//! A mark is a digest of all events through a position. Two journals, or two histories of one, that have the same mark
//! have the same events through there, so a few marks tell whether what was made from a journal is of this one: also if
//! another one is longer, or a backup was put back and went on differently. Positions alone tell nothing of that.

use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::Duration;

use async_trait::async_trait;
use dacapo_model::{
    EventId, JournalId, Mark, Parted, Position, Revision, StreamName, Timestamp, WaitingOn, forgotten, limits,
};
use dacapo_store::{
    Append, AppendError, Appended, EventBatch, Filter, Health, Journal, Limit, NewMark, StoreError, StreamInfo, View,
    ViewHistory,
};
use tokio::sync::watch;

/// Compares a view with the journal, and returns the history that it keeps; a new one has none.
///
/// # Errors
/// [`StoreError::Parted`] when it does not belong to the journal; another [`StoreError`] when either cannot be read.
pub(crate) async fn check(journal: &dyn Journal, view: &dyn View) -> Result<Option<ViewHistory>, StoreError> {
    let Some(history) = view.history().await? else { return Ok(None) };
    let found = journal.id();
    if history.journal != found {
        return Err(StoreError::Parted(Parted::Journal { made_from: history.journal, found }));
    }
    compare(journal, &history.marks).await?;
    Ok(Some(history))
}

/// The mark that a commit takes along whose tokens come as far as `through`.
///
/// # Errors
/// As [`check`].
pub(crate) async fn next_mark(
    journal: &dyn Journal,
    view: &dyn View,
    through: Position,
) -> Result<Option<NewMark>, StoreError> {
    // First what is asked for, then whether that is of the history that is known.
    let mark = journal.mark(through).await?;
    let kept = check(journal, view).await?.map(|history| history.marks).unwrap_or_default();
    if mark.position == Position::START || kept.iter().any(|kept| kept.position == mark.position) {
        return Ok(None);
    }
    let kept: Vec<Position> = kept.iter().map(|mark| mark.position).collect();
    Ok(Some(NewMark { journal: journal.id(), mark, forget: forgotten(&kept, mark.position) }))
}

/// Compares marks, in the order of their positions, with what the journal has there. Only the last one, unless it differs:
/// then where they part is looked for by halving.
async fn compare(journal: &dyn Journal, marks: &[Mark]) -> Result<(), StoreError> {
    let Some(last) = marks.last() else { return Ok(()) };
    if is_same(journal, last).await? {
        return Ok(());
    }
    let (mut same_through, mut differs_at) = (Position::START, last.position);
    let mut between = &marks[..marks.len() - 1];
    while !between.is_empty() {
        let (before, rest) = between.split_at(between.len() / 2);
        let middle = rest[0];
        if is_same(journal, &middle).await? {
            (same_through, between) = (middle.position, &rest[1..]);
        } else {
            (differs_at, between) = (middle.position, before);
        }
    }
    Err(StoreError::Parted(Parted::History { same_through, differs_at }))
}

async fn is_same(journal: &dyn Journal, mark: &Mark) -> Result<bool, StoreError> {
    match journal.mark(mark.position).await {
        Ok(found) => Ok(found == *mark),
        Err(StoreError::BeyondHead { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// What a version waits on whose view met an error.
pub(crate) fn waiting_on(error: &StoreError) -> WaitingOn {
    match error {
        StoreError::Parted(parted) => WaitingOn::Parted { parted: *parted },
        error => WaitingOn::Store { error: error.to_string() },
    }
}

/// The journal as a node uses it: once its history is another one than the node has seen, nothing goes through here any
/// more, since all that the node knows, its catalog too, is of a history that is gone.
pub(crate) struct Guarded {
    inner: Arc<dyn Journal>,
    parted: RwLock<Option<Parted>>,
}

impl Guarded {
    pub(crate) fn new(inner: Arc<dyn Journal>) -> Self {
        Self { inner, parted: RwLock::default() }
    }

    /// How the journal and what the node knows have parted, if they have.
    pub(crate) fn parted(&self) -> Option<Parted> {
        *self.parted.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// # Errors
    /// [`StoreError::Parted`] once they have.
    pub(crate) fn sound(&self) -> Result<(), StoreError> {
        self.parted().map_or(Ok(()), |parted| Err(StoreError::Parted(parted)))
    }

    /// Compares the journal with what was known of it, and takes note of what is new.
    async fn look(&self, known: &mut Vec<Mark>) -> Result<(), StoreError> {
        let head = *self.inner.head().borrow();
        let mark = self.inner.mark(head).await;
        compare(&*self.inner, known).await?;
        let mark = mark?;
        if known.last().is_none_or(|last| last.position < mark.position) {
            let at: Vec<Position> = known.iter().map(|mark| mark.position).collect();
            let forgotten = forgotten(&at, mark.position);
            known.retain(|mark| !forgotten.contains(&mark.position));
            known.push(mark);
        }
        Ok(())
    }
}

/// Looks at the history whenever the journal has grown, and now and then, until it is stopped, the journal closes, or
/// they have parted, which is told to `parted`.
pub(crate) async fn guard(guarded: Weak<Guarded>, mut stop: watch::Receiver<bool>) {
    let Some(mut head) = guarded.upgrade().map(|guarded| guarded.inner.head()) else { return };
    let mut known = Vec::new();
    loop {
        {
            let Some(guarded) = guarded.upgrade() else { return };
            head.mark_unchanged();
            match guarded.look(&mut known).await {
                Ok(()) => {}
                Err(StoreError::Parted(parted)) => {
                    tracing::error!(%parted, "the journal is not the one that this node knows: start the node again");
                    *guarded.parted.write().unwrap_or_else(PoisonError::into_inner) = Some(parted);
                    return;
                }
                Err(error) => tracing::debug!(%error, "the history cannot be looked at for the moment"),
            }
        }
        let rest = async {
            tokio::time::sleep(limits::HISTORY_LOOK_TIME_MIN).await;
            tokio::time::timeout(limits::MARK_TIME_MAX - limits::HISTORY_LOOK_TIME_MIN, head.changed()).await
        };
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return,
            // A journal that closes takes its sender with it.
            changed = rest => if matches!(changed, Ok(Err(_))) { return },
        }
    }
}

#[async_trait]
impl Journal for Guarded {
    fn id(&self) -> JournalId {
        self.inner.id()
    }

    async fn mark(&self, through: Position) -> Result<Mark, StoreError> {
        self.sound()?;
        self.inner.mark(through).await
    }

    async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        self.sound()?;
        self.inner.append(append).await
    }

    async fn read(&self, after: Position, filter: &Filter, limit: Limit) -> Result<EventBatch, StoreError> {
        self.sound()?;
        self.inner.read(after, filter, limit).await
    }

    async fn read_places(&self, after: Position, limit: Limit) -> Result<EventBatch, StoreError> {
        self.sound()?;
        self.inner.read_places(after, limit).await
    }

    async fn read_stream(&self, stream: &StreamName, after: Revision, limit: Limit) -> Result<EventBatch, StoreError> {
        self.sound()?;
        self.inner.read_stream(stream, after, limit).await
    }

    async fn stream_revision(&self, stream: &StreamName) -> Result<Revision, StoreError> {
        self.sound()?;
        self.inner.stream_revision(stream).await
    }

    async fn position_of(&self, id: EventId) -> Result<Option<Position>, StoreError> {
        self.sound()?;
        self.inner.position_of(id).await
    }

    async fn position_before(&self, time: Timestamp) -> Result<Position, StoreError> {
        self.sound()?;
        self.inner.position_before(time).await
    }

    async fn streams(
        &self,
        category: Option<&str>,
        after: Option<&StreamName>,
        most: usize,
    ) -> Result<Vec<StreamInfo>, StoreError> {
        self.sound()?;
        self.inner.streams(category, after, most).await
    }

    fn blocks(&self) -> bool {
        self.inner.blocks()
    }

    fn health(&self) -> Health {
        self.inner.health()
    }

    fn head(&self) -> watch::Receiver<Position> {
        self.inner.head()
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

/// How often at most a view is compared.
pub(crate) const VIEW_LOOK: Duration = limits::MARK_TIME_MAX;

#[cfg(test)]
mod tests {
    use super::*;
    use dacapo_model::{EventType, ExpectedRevision, Metadata, NewEvent};
    use dacapo_store::memory::MemoryJournal;
    use dacapo_store::{Clock, Head};

    struct Still;

    impl Clock for Still {
        fn now(&self) -> Timestamp {
            Timestamp::from_micros(0)
        }
    }

    async fn write(journal: &dyn Journal, numbers: impl IntoIterator<Item = u128>) {
        for number in numbers {
            let event = NewEvent {
                id: EventId::from_bytes(number.to_be_bytes()),
                event_type: EventType::new("written").unwrap(),
                payload: b"1".to_vec(),
                metadata: Metadata::default(),
                tags: vec![],
            };
            let append = Append::to_stream(StreamName::new("a-1").unwrap(), ExpectedRevision::Any, vec![event]);
            journal.append(append).await.unwrap();
        }
    }

    async fn marks(journal: &dyn Journal, at: impl IntoIterator<Item = u64>) -> Vec<Mark> {
        let mut marks = vec![];
        for position in at {
            marks.push(journal.mark(Position::new(position)).await.unwrap());
        }
        marks
    }

    fn parted(compared: Result<(), StoreError>) -> Option<(u64, u64)> {
        match compared {
            Ok(()) => None,
            Err(StoreError::Parted(Parted::History { same_through, differs_at })) => {
                Some((same_through.get(), differs_at.get()))
            }
            Err(error) => panic!("{error}"),
        }
    }

    #[tokio::test]
    async fn where_histories_part_is_told_as_closely_as_the_marks_let() {
        let [one, other] = [(); 2].map(|()| MemoryJournal::new(Arc::new(Still)));
        write(&one, 1..=40).await;
        write(&other, (1..=17).chain(100..=130)).await;
        let of_one = marks(&one, (2..=40).step_by(2)).await;
        assert_eq!(parted(compare(&one, &of_one).await), None);
        assert_eq!(parted(compare(&other, &of_one).await), Some((16, 18)));
        assert_eq!(parted(compare(&other, &of_one[..8]).await), None, "through 16 they are the same");
        assert_eq!(parted(compare(&other, &of_one[8..9]).await), Some((0, 18)), "one mark says only so much");
        let each = marks(&one, 1..=40).await;
        assert_eq!(parted(compare(&other, &each).await), Some((17, 18)));
        let short = MemoryJournal::new(Arc::new(Still));
        write(&short, 1..=9).await;
        assert_eq!(parted(compare(&short, &each).await), Some((9, 10)), "what is lost differs too");
    }

    /// A journal that another server takes over, as nodes see it.
    struct Failing(RwLock<Arc<MemoryJournal>>, Head);

    impl Failing {
        fn now(&self) -> Arc<MemoryJournal> {
            Arc::clone(&self.0.read().unwrap())
        }
    }

    #[async_trait]
    impl Journal for Failing {
        fn id(&self) -> JournalId {
            JournalId::from_bytes([1; 16])
        }

        async fn mark(&self, through: Position) -> Result<Mark, StoreError> {
            self.now().mark(through).await
        }

        async fn append(&self, append: Append) -> Result<Appended, AppendError> {
            let appended = self.now().append(append).await?;
            self.1.advance(appended.position);
            Ok(appended)
        }

        async fn read(&self, after: Position, filter: &Filter, limit: Limit) -> Result<EventBatch, StoreError> {
            self.now().read(after, filter, limit).await
        }

        async fn read_stream(
            &self,
            stream: &StreamName,
            after: Revision,
            limit: Limit,
        ) -> Result<EventBatch, StoreError> {
            self.now().read_stream(stream, after, limit).await
        }

        async fn stream_revision(&self, stream: &StreamName) -> Result<Revision, StoreError> {
            self.now().stream_revision(stream).await
        }

        async fn streams(
            &self,
            category: Option<&str>,
            after: Option<&StreamName>,
            most: usize,
        ) -> Result<Vec<StreamInfo>, StoreError> {
            self.now().streams(category, after, most).await
        }

        fn head(&self) -> watch::Receiver<Position> {
            self.1.subscribe()
        }

        async fn close(&self) {
            self.1.close();
        }
    }

    /// Also where the journal is longer by then than all that the node has seen.
    #[tokio::test(start_paused = true)]
    async fn a_node_that_runs_on_while_a_tail_is_lost_lets_nothing_through_any_more() {
        for events_after in [0, 3, 50] {
            let [one, other] = [(); 2].map(|()| Arc::new(MemoryJournal::new(Arc::new(Still))));
            let failing = Arc::new(Failing(RwLock::new(Arc::clone(&one)), Head::new(Position::START)));
            let guarded = Arc::new(Guarded::new(Arc::clone(&failing) as Arc<dyn Journal>));
            let (_stop, stopped) = watch::channel(false);
            let guard = tokio::spawn(guard(Arc::downgrade(&guarded), stopped));
            for number in 1..=20 {
                write(&*guarded, [number]).await;
                tokio::time::sleep(limits::MARK_TIME_MAX).await;
            }
            write(&*other, 1..=10).await;
            *failing.0.write().unwrap() = other;
            write(&*failing, 100..100 + events_after).await;
            guard.await.unwrap();
            let told = guarded.parted().unwrap();
            let Parted::History { same_through, differs_at } = told else { panic!("{told}") };
            assert!(same_through <= Position::new(10) && differs_at > Position::new(10), "{told}");
            let refused = guarded.read(Position::START, &Filter::everything(), Limit::events(1)).await;
            assert!(matches!(refused, Err(StoreError::Parted(_))), "{refused:?}");
            assert!(matches!(
                guarded.stream_revision(&StreamName::new("a-1").unwrap()).await,
                Err(StoreError::Parted(_))
            ));
            assert!(
                guarded
                    .append(Append::to_stream(StreamName::new("a-1").unwrap(), ExpectedRevision::Any, vec![]))
                    .await
                    .is_err()
            );
        }
    }
}

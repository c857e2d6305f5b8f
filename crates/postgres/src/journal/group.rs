//! Which of the appends that wait go into one group, and what is demanded of the journal for them. Pure.
//!
//! A group is put together without asking the database: each append is taken to be new and expected rightly. That
//! becomes a demand, which the database holds against what is there. If it does not hold, nothing is written, and
//! [`Waiting::decided`] has the appends decided on facts before they go again.
//!
//! No append of a group depends on another one of it: one that asks about a stream that the group writes to, or has an
//! event in common with it, is left for the next group, where the facts tell.

use std::collections::{HashMap, HashSet, VecDeque};

use dacapo_model::{EventId, ExpectedRevision, Position, Revision, StreamName};
use dacapo_store::admit::{Admission, Known, Past, admit};
use dacapo_store::record::{FIRST_OF_GROUP, LAST_OF_APPEND, encode_extra, encoded_len};
use dacapo_store::{Append, AppendError, Appended, StoreError, StreamEvent};
use tokio::sync::oneshot;
use tokio::time::Instant;
use xxhash_rust::xxh3::Xxh3;

use crate::limits;

/// How the database is told that a stream must have events, however many.
const EXISTS: i64 = -1;

/// An append that waits.
pub(super) struct Waiting {
    pub append: Append,
    pub bytes: usize,
    answer: oneshot::Sender<Result<Appended, AppendError>>,
    /// After this it is answered, whatever the state of the database.
    pub until: Instant,
    /// Where the journal ended when it was first sent to the database without an answer: after that it may be written.
    pub sent: Option<Position>,
    /// True if it can only be decided on facts, because it names an event or a stream twice.
    tangled: bool,
    /// For each event where it is already, once that was looked up; empty when none is known.
    known: Option<Vec<Option<Known>>>,
}

impl Waiting {
    pub fn new(append: Append, bytes: usize, answer: oneshot::Sender<Result<Appended, AppendError>>) -> Self {
        let until = Instant::now() + limits::RETRY_TIME_MAX;
        let mut ids = HashSet::with_capacity(append.events.len());
        let mut streams = HashSet::with_capacity(append.expected.len());
        let tangled = !append.events.iter().all(|event| ids.insert(event.event.id))
            || !append.expected.iter().all(|(stream, _)| streams.insert(stream));
        Self { append, bytes, answer, until, sent: None, tangled, known: None }
    }

    /// Returns true if facts spoke for it already.
    pub fn is_decided(&self) -> bool {
        self.known.is_some()
    }

    /// Returns true if it cannot be part of a group before it is [decided](Self::decided).
    pub fn needs_facts(&self) -> bool {
        self.tangled && !self.is_decided()
    }

    /// Tells the caller what came of it.
    pub fn answer(self, result: Result<Appended, AppendError>) {
        // Anyone who stopped waiting gets no answer; the append stands, a retry is recognised.
        drop(self.answer.send(result));
    }

    /// Decides on facts. What is left is to be written as far as is known; the rest is answered.
    pub fn decided(mut self, facts: &mut Facts) -> Option<Self> {
        match admit(&self.append, facts) {
            Ok(Admission::Write { known }) => {
                self.known = Some(known);
                Some(self)
            }
            Ok(Admission::Retry(appended)) => {
                let written = self.written(facts);
                self.answer(Ok(Appended { written, ..appended }));
                None
            }
            Err(refused) => {
                self.answer(Err(refused));
                None
            }
        }
    }

    /// How many of its events a call has written whose answer was lost. Those that somebody else appended under the same
    /// ids in that moment count too: they cannot be told apart.
    fn written(&self, facts: &Facts) -> usize {
        let Some(sent) = self.sent else { return 0 };
        let ids: HashSet<_> = self.append.events.iter().map(|event| event.event.id).collect();
        ids.iter().filter_map(|id| facts.events.get(id)).filter(|found| found.position > sent).count()
    }

    /// Returns the streams about which it says something.
    pub fn asked(&self) -> impl Iterator<Item = (&StreamName, i64)> {
        self.append.expected.iter().filter_map(|(stream, expected)| {
            let demand = match expected {
                ExpectedRevision::Any => return None,
                ExpectedRevision::NoStream => 0,
                ExpectedRevision::Exists => EXISTS,
                ExpectedRevision::Exact(revision) => i64::try_from(revision.get()).unwrap_or(i64::MAX),
            };
            Some((stream, demand))
        })
    }
}

/// What was found in the journal about some appends.
#[derive(Default)]
pub(super) struct Facts {
    /// The last revisions of the streams that they ask about.
    pub revisions: HashMap<StreamName, Revision>,
    /// Their events that are there.
    pub events: HashMap<EventId, Found>,
}

/// An event that is there.
pub(super) struct Found {
    pub position: Position,
    pub revision: Revision,
    pub stream: String,
    pub event_type: String,
    pub payload: Vec<u8>,
}

impl Past for Facts {
    fn known(&mut self, StreamEvent { stream, event }: &StreamEvent) -> Result<Option<Known>, StoreError> {
        Ok(self.events.get(&event.id).map(|found| Known {
            position: found.position,
            revision: found.revision,
            same: found.stream == stream.as_str()
                && found.event_type == event.event_type.as_str()
                && found.payload == event.payload,
        }))
    }

    fn revision(&mut self, stream: &StreamName) -> Result<Revision, StoreError> {
        Ok(self.revisions.get(stream).copied().unwrap_or(Revision::START))
    }
}

/// One event of a group, in the place that it gets after what is there.
pub(super) struct Row {
    /// Its stream, as a place in [`Group::asked`] counted from 0, and its place among the group's events of it from 1.
    pub stream: usize,
    pub step: u64,
    /// Which append has it, and which of its events it is.
    member: usize,
    event: usize,
    pub flags: u8,
    pub size: usize,
    pub extra: Vec<u8>,
}

/// Appends that are written together or not at all.
#[derive(Default)]
pub(super) struct Group {
    pub members: Vec<Waiting>,
    pub rows: Vec<Row>,
    /// The streams that are written to or asked about, with what is demanded of each.
    pub asked: Vec<(StreamName, Option<i64>)>,
    places: HashMap<StreamName, usize>,
    /// How many events of the group each of those streams gets.
    steps: Vec<u64>,
    ids: HashMap<EventId, usize>,
    bytes: usize,
}

impl Group {
    /// Takes from `waiting` what can be written together; what must wait stays, in its order.
    pub fn of(waiting: &mut VecDeque<Waiting>) -> Self {
        let mut group = Self::default();
        let mut later = VecDeque::new();
        while let Some(next) = waiting.pop_front() {
            if group.is_full_for(&next) {
                later.push_back(next);
                break;
            }
            // What was decided on facts goes alone: a wrong guess of another must not hold it up again.
            let alike = group.members.first().is_none_or(|first| first.is_decided() == next.is_decided());
            if alike && group.is_apart_from(&next) {
                group.add(next);
            } else {
                later.push_back(next);
            }
        }
        later.append(waiting);
        *waiting = later;
        if let Some(first) = group.rows.first_mut() {
            first.flags |= FIRST_OF_GROUP;
        }
        group
    }

    /// Returns the event of a row.
    pub fn event(&self, row: &Row) -> &StreamEvent {
        &self.members[row.member].append.events[row.event]
    }

    /// Returns a hash over everything that its events are, in their order.
    pub fn hash(&self) -> u64 {
        let mut hash = Xxh3::new();
        // Each part with its length before it: no two groups give the same bytes.
        let mut part = |bytes: &[u8]| {
            hash.update(&(bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        for row in &self.rows {
            let StreamEvent { stream, event } = self.event(row);
            part(&event.id.bytes());
            part(stream.as_str().as_bytes());
            part(event.event_type.as_str().as_bytes());
            part(&row.extra);
            part(&event.payload);
        }
        hash.digest()
    }

    /// Returns the last revision of each stream it asks about, once it is written after `revisions`.
    pub fn leaves<'a>(&'a self, revisions: &'a [Revision]) -> impl Iterator<Item = (&'a StreamName, Revision)> {
        let after = self.asked.iter().zip(&self.steps).zip(revisions);
        after.map(|(((stream, _), steps), revision)| (stream, revision.plus(*steps)))
    }

    /// Answers everyone, now that the group is written after `head` and after `revisions`. Returns its last position.
    pub fn written(self, head: Position, revisions: &[Revision]) -> Position {
        let place = |row: usize| {
            let Row { stream, step, .. } = self.rows[row];
            (head.plus(row as u64 + 1), revisions[stream].plus(step))
        };
        let mut written = vec![0; self.members.len()];
        for row in &self.rows {
            written[row.member] += 1;
        }
        let through = head.plus(self.rows.len() as u64);
        for (waiting, written) in self.members.into_iter().zip(written) {
            let at = waiting.append.events.len() - 1;
            let known = waiting.known.as_ref().and_then(|known| *known.get(at)?);
            let (position, revision) = match (self.ids.get(&waiting.append.events[at].event.id), known) {
                (Some(row), _) => place(*row),
                (None, Some(known)) => (known.position, known.revision),
                (None, None) => unreachable!("an event is written or known"),
            };
            waiting.answer(Ok(Appended { position, revision, written }));
        }
        through
    }

    fn is_full_for(&self, next: &Waiting) -> bool {
        !self.members.is_empty()
            && (self.rows.len() + next.append.events.len() > limits::GROUP_EVENTS_MAX
                || self.bytes + next.bytes > limits::GROUP_BYTES_MAX)
    }

    /// Returns true if `next` depends on nothing that the group would write, nor thinks otherwise about a stream.
    fn is_apart_from(&self, next: &Waiting) -> bool {
        let stream_is_apart = |(stream, demand): (&StreamName, i64)| {
            self.places.get(stream).is_none_or(|place| {
                self.steps[*place] == 0 && self.asked[*place].1.is_none_or(|demanded| demanded == demand)
            })
        };
        next.asked().all(stream_is_apart)
            && next.append.events.iter().all(|event| !self.ids.contains_key(&event.event.id))
    }

    fn add(&mut self, next: Waiting) {
        let member = self.members.len();
        self.bytes += next.bytes;
        for (stream, demand) in next.asked() {
            let place = self.place(stream);
            let demanded = &mut self.asked[place].1;
            // An append that names a stream twice was decided; then the number says more.
            if demanded.is_none() || demand != EXISTS {
                *demanded = Some(demand);
            }
        }
        let first = self.rows.len();
        let known = next.known.as_deref().unwrap_or_default();
        for (at, StreamEvent { stream, event }) in next.append.events.iter().enumerate() {
            if known.get(at).is_some_and(Option::is_some) {
                continue;
            }
            self.ids.insert(event.id, self.rows.len());
            let place = self.place(stream);
            self.steps[place] += 1;
            let (step, size, extra) = (self.steps[place], encoded_len(stream.as_str(), event), encode_extra(event));
            self.rows.push(Row { stream: place, step, member, event: at, flags: 0, size, extra });
        }
        if let Some(last) = self.rows[first..].last_mut() {
            last.flags = LAST_OF_APPEND;
        }
        self.members.push(next);
    }

    /// Returns the place of a stream in the list of those asked about.
    fn place(&mut self, stream: &StreamName) -> usize {
        if let Some(place) = self.places.get(stream) {
            return *place;
        }
        self.asked.push((stream.clone(), None));
        self.steps.push(0);
        self.places.insert(stream.clone(), self.asked.len() - 1);
        self.asked.len() - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dacapo_model::{EventType, Metadata, NewEvent};
    use dacapo_store::{AppendRefused, OnKnown};

    type Answer = oneshot::Receiver<Result<Appended, AppendError>>;

    fn name(stream: &str) -> StreamName {
        StreamName::new(stream).unwrap()
    }

    fn waiting(stream: &str, expected: ExpectedRevision, ids: &[u8]) -> (Waiting, Answer) {
        let event = |id: &u8| NewEvent {
            id: EventId::from_bytes([*id; 16]),
            event_type: EventType::new("happened").unwrap(),
            payload: vec![*id],
            metadata: Metadata::default(),
            tags: vec![],
        };
        let append = Append::to_stream(name(stream), expected, ids.iter().map(event).collect());
        let (answer, answered) = oneshot::channel();
        let bytes = append.check().unwrap();
        (Waiting::new(append, bytes, answer), answered)
    }

    fn group(all: Vec<(Waiting, Answer)>) -> (Group, VecDeque<Waiting>, Vec<Answer>) {
        let (waiting, answers): (VecDeque<_>, Vec<_>) = all.into_iter().unzip();
        let mut waiting = waiting;
        (Group::of(&mut waiting), waiting, answers)
    }

    fn steps(group: &Group) -> Vec<(&str, u64, u8)> {
        group.rows.iter().map(|row| (group.asked[row.stream].0.as_str(), row.step, row.flags)).collect()
    }

    #[tokio::test]
    async fn what_waits_is_written_together_and_answered_apart() {
        use ExpectedRevision::{Any, Exact};
        let (group, left, mut answers) = group(vec![
            waiting("a-1", Exact(Revision::new(7)), &[1, 2]),
            waiting("b-1", Any, &[3]),
            waiting("a-1", Any, &[4]),
        ]);
        assert!(left.is_empty());
        assert_eq!(steps(&group), [("a-1", 1, 2), ("a-1", 2, 1), ("b-1", 1, 1), ("a-1", 3, 1)]);
        assert_eq!(group.asked, [(name("a-1"), Some(7)), (name("b-1"), None)]);
        let through = group.written(Position::new(100), &[Revision::new(7), Revision::START]);
        assert_eq!(through, Position::new(104));
        let mut answer = |at: usize| {
            let Appended { position, revision, written } = answers[at].try_recv().unwrap().unwrap();
            (position.get(), revision.get(), written)
        };
        assert_eq!([answer(0), answer(1), answer(2)], [(102, 9, 2), (103, 1, 1), (104, 10, 1)]);
    }

    /// One that asks about a stream that is written to, one that thinks otherwise of a stream, one with a known event.
    #[tokio::test]
    async fn what_depends_on_the_group_is_left_for_the_next() {
        use ExpectedRevision::{Any, Exact, Exists, NoStream};
        let (mut first, first_answer) = waiting("c-1", Any, &[1]);
        first.append.expected.push((name("named-1"), Exact(Revision::new(4))));
        let (mut other, other_answer) = waiting("d-1", Any, &[2]);
        other.append.expected.push((name("named-1"), Exact(Revision::new(5))));
        let (group, left, _answers) = group(vec![
            (first, first_answer),
            waiting("c-1", NoStream, &[3]),
            (other, other_answer),
            waiting("e-1", Any, &[1]),
            waiting("f-1", Exists, &[4]),
        ]);
        assert_eq!(group.members.len(), 2);
        assert_eq!(group.asked, [(name("named-1"), Some(4)), (name("c-1"), None), (name("f-1"), Some(EXISTS))]);
        let streams: Vec<_> = left.iter().map(|one| one.append.events[0].stream.as_str()).collect();
        assert_eq!(streams, ["c-1", "d-1", "e-1"], "in their order");
    }

    #[tokio::test]
    async fn what_was_decided_goes_alone() {
        let (first, first_answer) = waiting("a-1", ExpectedRevision::Any, &[1]);
        let first = first.decided(&mut Facts::default()).unwrap();
        let others = [waiting("b-1", ExpectedRevision::Any, &[2]), waiting("c-1", ExpectedRevision::Any, &[3])];
        let (group, left, _answers) = group([(first, first_answer)].into_iter().chain(others).collect());
        assert_eq!((group.members.len(), left.len()), (1, 2));
    }

    #[tokio::test]
    async fn a_group_has_bounds_and_one_append_always_fits() {
        let many = || (0..40).map(|n| waiting(&format!("a-{n}"), ExpectedRevision::Any, &[n]));
        let (mut large, answer) = waiting("large-1", ExpectedRevision::Any, &[99]);
        large.bytes = limits::GROUP_BYTES_MAX + 1;
        let (full, left, _answers) =
            group(many().chain([(large, answer)]).chain([waiting("z-1", ExpectedRevision::Any, &[98])]).collect());
        assert_eq!((full.members.len(), left.len()), (40, 2), "what does not fit ends the group");
        let mut left = left;
        assert_eq!(Group::of(&mut left).members.len(), 1);
    }

    fn found(position: u64, id: u8) -> (EventId, Found) {
        let (position, revision) = (Position::new(position), Revision::new(3));
        let (stream, event_type) = ("a-1".into(), "happened".into());
        (EventId::from_bytes([id; 16]), Found { position, revision, stream, event_type, payload: vec![id] })
    }

    #[tokio::test]
    async fn what_a_lost_call_has_written_is_counted() {
        for (sent, written) in [(None, 0), (Some(49), 2), (Some(50), 1), (Some(51), 0)] {
            let mut facts = Facts { events: [found(50, 1), found(51, 2)].into(), ..Facts::default() };
            let (mut lost, mut answer) = waiting("a-1", ExpectedRevision::Any, &[1, 2]);
            lost.sent = sent.map(Position::new);
            assert!(lost.decided(&mut facts).is_none());
            assert_eq!(answer.try_recv().unwrap().unwrap().written, written, "sent at {sent:?}");
        }
    }

    #[tokio::test]
    async fn facts_decide_what_was_only_thought() {
        use ExpectedRevision::{Any, Exact};
        let mut facts = Facts { revisions: [(name("b-1"), Revision::new(8))].into(), events: [found(50, 1)].into() };
        let (retry, mut answer) = waiting("a-1", Exact(Revision::new(77)), &[1]);
        assert!(retry.decided(&mut facts).is_none());
        assert_eq!(answer.try_recv().unwrap().unwrap().position, Position::new(50));
        let (wrong, mut answer) = waiting("b-1", Exact(Revision::new(7)), &[2]);
        assert!(wrong.decided(&mut facts).is_none());
        let refused = answer.try_recv().unwrap().unwrap_err();
        assert!(
            matches!(refused, AppendError::Refused(AppendRefused::WrongRevision { actual, .. }) if actual.get() == 8)
        );
        // An import that names an event twice, and one that is there.
        let (mut import, answer) = waiting("a-1", Any, &[1, 5, 5]);
        import.append.on_known = OnKnown::Skip;
        assert!(import.needs_facts());
        let import = import.decided(&mut facts).unwrap();
        assert!(!import.needs_facts());
        let (group, _, mut answers) = group(vec![(import, answer)]);
        assert_eq!(steps(&group), [("a-1", 1, FIRST_OF_GROUP | LAST_OF_APPEND)]);
        group.written(Position::new(60), &[Revision::new(3)]);
        let answer = answers[0].try_recv().unwrap().unwrap();
        assert_eq!((answer.position.get(), answer.revision.get(), answer.written), (61, 4, 1));
    }
}

//! Records of events that handlers refuse: the tries of one that still blocks its segment, and the letter of one that
//! was set aside.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use crate::limits;
use crate::name::{EventType, StreamName};
use crate::position::Position;
use crate::segment::Segment;
use crate::time::Timestamp;
use crate::waiting::WaitingOn;

/// An event that a handler refuses and that its segment stops before. It is kept with the segment, so that the next
/// member that claims the segment continues the tries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The segment that stops.
    pub segment: Segment,
    /// The event it stops before.
    pub position: Position,
    /// The number of tries, at least 1.
    pub attempts: u32,
    /// The handler's last error.
    pub error: String,
    /// The time of the first refusal.
    pub since: Timestamp,
    /// The time of the next try.
    pub due: Timestamp,
}

impl Refusal {
    /// Returns true if the event may be retried. A time later than the longest wait was written by a clock that has
    /// been set back since.
    pub fn is_due(&self, now: Timestamp, longest: Duration) -> bool {
        self.due <= now || self.due > now.plus(longest)
    }

    /// Returns the reason that the segment waits on: its next try.
    pub fn waiting_on(&self) -> WaitingOn {
        let Self { segment, position, attempts, due, .. } = *self;
        WaitingOn::Handler { segment, position, attempts, error: self.error.clone(), due }
    }
}

/// The reason why an event was set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LetterKind {
    /// Its handler refused it, as often as the policy allows.
    Refused,
    /// An earlier event of its stream was set aside, and their order matters, so it was not tried.
    Blocked {
        /// The first such event.
        first: Position,
    },
    /// Its handler refused it, and the policy is to continue without it. It blocks no other event.
    Skipped,
}

/// An operator's decision about a dead letter. The processor carries it out, under its claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Hand the event to the handler again.
    Retry,
    /// Forget the letter: the view goes without the event.
    Drop,
}

/// The things that are decided about: events that were set aside, or effects that fail or were set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LettersOf {
    /// Dead letters.
    Events,
    /// Effects.
    Effects,
}

/// A selection of dead letters or effects of a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WhichLetters {
    /// The one of this event.
    One(Position),
    /// Those of one stream.
    Stream(StreamName),
    /// All.
    All,
}

impl WhichLetters {
    /// Returns true if the selection includes what belongs to this event.
    pub fn has(&self, position: Position, stream: &StreamName) -> bool {
        match self {
            Self::One(one) => *one == position,
            Self::Stream(wanted) => wanted == stream,
            Self::All => true,
        }
    }
}

/// A dead letter: an event set aside, in the view of the version whose handler refused it. The event itself stays in
/// the journal; the letter identifies it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// The event.
    pub position: Position,
    /// The segment it belongs to.
    pub segment: Segment,
    /// Its stream.
    pub stream: StreamName,
    /// Its type.
    pub event_type: EventType,
    /// The reason why it was set aside.
    pub kind: LetterKind,
    /// The handler's last error; for a blocked event, the error of the event that blocks it.
    pub error: String,
    /// The number of tries; 0 if it was never tried.
    pub attempts: u32,
    /// The time at which it was set aside, or last tried.
    pub recorded: Timestamp,
    /// The operator's decision, if there is one.
    pub wish: Option<Wish>,
}

impl Letter {
    /// Returns true if later events of the same stream must wait for it, where their order matters.
    pub fn blocks(&self) -> bool {
        self.kind != LetterKind::Skipped
    }
}

/// The dead letters of a version, and the rules of their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Letters {
    letters: BTreeMap<Position, Letter>,
    /// The letters that later events of their streams wait for.
    blocking: HashMap<String, BTreeSet<Position>>,
}

impl Letters {
    /// Returns a collection of these letters.
    pub fn new(letters: impl IntoIterator<Item = Letter>) -> Self {
        let mut all = Self::default();
        letters.into_iter().for_each(|letter| all.put(letter));
        all
    }

    /// Returns the number of letters.
    pub fn len(&self) -> usize {
        self.letters.len()
    }

    /// Returns true if there are no letters.
    pub fn is_empty(&self) -> bool {
        self.letters.is_empty()
    }

    /// Returns every letter, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Letter> + Clone {
        self.letters.values()
    }

    /// Returns the letter of the event at `position`.
    pub fn get(&self, position: Position) -> Option<&Letter> {
        self.letters.get(&position)
    }

    /// Adds a letter, replacing one of the same event.
    pub fn put(&mut self, letter: Letter) {
        self.settle(letter.position);
        if letter.blocks() {
            self.blocking.entry(letter.stream.as_str().to_owned()).or_default().insert(letter.position);
        }
        self.letters.insert(letter.position, letter);
    }

    /// Removes and returns the letter of the event at `position`, if there is one.
    pub fn settle(&mut self, position: Position) -> Option<Letter> {
        let letter = self.letters.remove(&position)?;
        if let Some(positions) = self.blocking.get_mut(letter.stream.as_str()) {
            positions.remove(&position);
            if positions.is_empty() {
                self.blocking.remove(letter.stream.as_str());
            }
        }
        Some(letter)
    }

    /// Returns the first letter of `stream` that its later events wait for, where their order matters.
    pub fn first_of(&self, stream: &str) -> Option<&Letter> {
        let first = self.blocking.get(stream)?.first()?;
        self.letters.get(first)
    }

    /// Returns the last letter of `stream` that its later events wait for, where their order matters.
    pub fn last_of(&self, stream: &str) -> Option<&Letter> {
        let last = self.blocking.get(stream)?.last()?;
        self.letters.get(last)
    }

    /// Returns the first letter that must be settled before this one can be retried, where the order matters, and
    /// about which nothing is decided.
    pub fn before(&self, letter: &Letter) -> Option<&Letter> {
        let stream = self.blocking.get(letter.stream.as_str()).filter(|_| letter.blocks())?;
        let mut before = stream.range(..letter.position).filter_map(|position| self.letters.get(position));
        before.find(|before| before.wish.is_none())
    }

    /// Returns the first letter whose decision can be carried out now. Where the order matters, an event is retried
    /// only when the letters that it waits for are gone. A letter can be dropped in any order.
    pub fn next_wished(&self, order_matters: bool) -> Option<&Letter> {
        let mut waiting = HashSet::new();
        self.iter().find(|letter| {
            let stuck = order_matters && letter.blocks() && waiting.contains(letter.stream.as_str());
            if letter.blocks() {
                waiting.insert(letter.stream.as_str());
            }
            match letter.wish {
                Some(Wish::Drop) => true,
                Some(Wish::Retry) => !stuck,
                None => false,
            }
        })
    }

    /// Returns the letters of a stream that change when the event of `tried` is refused again. Its own letter records
    /// the refusal. Where the order matters, decisions to retry later letters of the stream are withdrawn, since they
    /// were meant for all of them in order.
    pub fn refused_again(&self, tried: Letter, order_matters: bool) -> Vec<Letter> {
        let stream = self.blocking.get(tried.stream.as_str()).filter(|_| order_matters && tried.blocks());
        let later = stream.into_iter().flatten().filter(|position| **position > tried.position);
        let wished = later.filter_map(|position| self.letters.get(position));
        let wished = wished.filter(|letter| letter.wish == Some(Wish::Retry));
        let given_up = wished.map(|letter| Letter { wish: None, ..letter.clone() }).collect::<Vec<_>>();
        [Letter { wish: None, ..tried }].into_iter().chain(given_up).collect()
    }

    /// Returns true if the number of letters is at its limit and no more events may be set aside: a handler that
    /// refuses everything is no reason to set everything aside.
    pub fn is_full(&self) -> bool {
        self.len() >= limits::LETTERS_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::SegmentCount;
    use proptest::prelude::*;

    fn letter(position: u64, stream: u8, kind: LetterKind, wish: Option<Wish>) -> Letter {
        Letter {
            position: Position::new(position),
            segment: SegmentCount::ONE.segment(0).unwrap(),
            stream: StreamName::new(format!("account-{stream}")).unwrap(),
            event_type: EventType::new("deposited").unwrap(),
            kind,
            error: String::new(),
            attempts: 1,
            recorded: Timestamp::from_micros(0),
            wish,
        }
    }

    /// A version that processes events as a processor does. Its handler refuses some of them.
    #[derive(Default)]
    struct Version {
        letters: Letters,
        applied: Vec<(u64, u8)>,
        at: u64,
    }

    impl Version {
        fn take_up(&mut self, stream: u8, refuses: bool, policy: LetterKind, order_matters: bool) {
            self.at += 1;
            let name = format!("account-{stream}");
            let first = self.letters.first_of(&name).filter(|_| order_matters).map(|first| first.position);
            match first {
                Some(first) => self.letters.put(letter(self.at, stream, LetterKind::Blocked { first }, None)),
                None if refuses => self.letters.put(letter(self.at, stream, policy, None)),
                None => self.applied.push((self.at, stream)),
            }
        }

        fn wish(&mut self, stream: u8, wish: Wish) {
            let name = format!("account-{stream}");
            let of_stream = self.letters.iter().filter(|letter| letter.stream.as_str() == name);
            let wished: Vec<_> = of_stream.map(|letter| Letter { wish: Some(wish), ..letter.clone() }).collect();
            wished.into_iter().for_each(|letter| self.letters.put(letter));
        }

        fn carry_out(&mut self, refuses: impl Fn(u64) -> bool, order_matters: bool) {
            while let Some(next) = self.letters.next_wished(order_matters).cloned() {
                let position = next.position.get();
                if next.wish == Some(Wish::Retry) && refuses(position) {
                    let again = self.letters.refused_again(next, order_matters);
                    again.into_iter().for_each(|letter| self.letters.put(letter));
                    continue;
                }
                if next.wish == Some(Wish::Retry) {
                    let stream = next.stream.as_str().trim_start_matches("account-").parse().unwrap();
                    self.applied.push((position, stream));
                }
                self.letters.settle(next.position);
            }
        }
    }

    proptest! {
        // I-3, I-11
        #[test]
        fn every_event_is_applied_in_its_streams_order_or_has_a_letter(
            steps in prop::collection::vec((0..3_u8, any::<bool>(), 0..8_u8), 1..60), order_matters: bool, skips: bool,
        ) {
            let mut version = Version::default();
            let policy = if skips { LetterKind::Skipped } else { LetterKind::Refused };
            let mut dropped = 0;
            for (stream, refuses, wish) in steps {
                match wish {
                    0 => {
                        let before = version.letters.len();
                        version.wish(stream, Wish::Drop);
                        version.carry_out(|_| true, order_matters);
                        dropped += before - version.letters.len();
                    }
                    1 => {
                        version.wish(stream, Wish::Retry);
                        version.carry_out(|position| refuses && position % 2 == 0, order_matters);
                    }
                    _ => version.take_up(stream, refuses, policy, order_matters),
                }
                let known = version.applied.len() + version.letters.len() + dropped;
                prop_assert_eq!(known as u64, version.at, "each event is applied, set aside or given up, once");
                prop_assert!(version.letters.iter().all(|letter| letter.wish.is_none()), "every wish ends");
            }
            if order_matters && !skips {
                for stream in 0..3 {
                    let mut of_stream = version.applied.iter().filter(|(_, of)| *of == stream).map(|(at, _)| at);
                    prop_assert!(of_stream.by_ref().is_sorted(), "stream {stream}: {:?}", version.applied);
                }
            }
        }
    }

    #[test]
    fn a_blocked_event_is_tried_only_when_the_one_before_it_is_gone() {
        let (first, retry) = (Position::new(3), Some(Wish::Retry));
        let blocked = letter(5, 1, LetterKind::Blocked { first }, retry);
        let last = letter(9, 1, LetterKind::Blocked { first }, retry);
        let all = [letter(3, 1, LetterKind::Refused, retry), letter(5, 1, LetterKind::Blocked { first }, None), last];
        let gap = Letters::new(all.clone());
        assert_eq!(gap.before(&all[2]), Some(&all[1]), "what is not wished for stays, whatever goes before it");
        assert_eq!((gap.before(&all[1]), gap.last_of("account-1")), (None, Some(&all[2])));
        let mut letters = Letters::new([letter(3, 1, LetterKind::Refused, None), blocked.clone()]);
        assert_eq!(letters.next_wished(true), None);
        assert_eq!(letters.before(&blocked).map(|letter| letter.position), Some(first));
        assert_eq!(letters.next_wished(false), Some(&blocked), "where the order does not matter, nothing is blocked");
        letters.settle(first);
        assert_eq!(letters.next_wished(true), Some(&blocked));
        assert_eq!(letters.before(&blocked), None);
    }

    #[test]
    fn a_retry_of_a_stream_ends_at_the_first_event_that_is_refused_again() {
        let (first, retry) = (Position::new(3), Some(Wish::Retry));
        let tried = letter(3, 1, LetterKind::Refused, retry);
        let blocked = letter(5, 1, LetterKind::Blocked { first }, retry);
        let given_up = letter(6, 1, LetterKind::Blocked { first }, Some(Wish::Drop));
        let skipped = letter(7, 1, LetterKind::Skipped, retry);
        let letters = Letters::new([tried.clone(), blocked.clone(), given_up, skipped]);
        let again = letters.refused_again(Letter { attempts: 2, ..tried.clone() }, true);
        let expected = [Letter { attempts: 2, wish: None, ..tried.clone() }, Letter { wish: None, ..blocked }];
        assert_eq!(again, expected);
        assert_eq!(letters.refused_again(tried, false).len(), 1);
    }

    #[test]
    fn a_clock_that_was_put_back_keeps_no_event_waiting() {
        let refusal = Refusal {
            segment: SegmentCount::ONE.segment(0).unwrap(),
            position: Position::new(1),
            attempts: 1,
            error: String::new(),
            since: Timestamp::from_micros(0),
            due: Timestamp::from_micros(60_000_000),
        };
        let due = |micros| refusal.is_due(Timestamp::from_micros(micros), Duration::from_secs(30));
        assert_eq!([0, 30_000_000, 59_999_999, 60_000_000].map(due), [true, false, false, true]);
    }
}

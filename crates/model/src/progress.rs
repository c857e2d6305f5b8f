//! How a version gets on: its pace, the time that is left with what that rests on, and whether it stands still.
//!
//! ```text
//!   looks:   (when, what it covers, the head)   one now and then, over the last ten seconds
//!              │
//!              ├─▶ pace:      positions covered a second, and positions that arrive a second
//!              ├─▶ time left: what is left / (covered - arriving); none where that does not shrink
//!              └─▶ still for: since it last moved, or last had nothing to do
//! ```
//!
//! Times are spans since any fixed moment: nothing here reads a clock.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use crate::limits;
use crate::position::Position;
use crate::waiting::{WaitingOn, grouped, span};

/// Two looks closer to each other than this are kept as one.
const LOOK_SPACING: Duration = Duration::from_millis(200);

/// How far a version was at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// When.
    pub at: Duration,
    /// The position that all of its segments cover.
    pub covers: Position,
    /// The last position of the journal.
    pub head: Position,
}

/// The looks at one version over the last [`limits::PACE_TIME_MAX`].
#[derive(Clone, Debug, Default)]
pub struct Trail {
    looks: VecDeque<Look>,
    /// When it was first seen where it is, with something to do.
    moved: Option<Look>,
}

/// How fast a version gets on, and how fast there is more to do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// The time that it was measured over.
    pub over: Duration,
    /// Positions covered a second.
    pub rate: f64,
    /// Positions appended a second.
    pub arrivals: f64,
}

/// What a time left rests on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Basis {
    /// The pace that is thought to go on.
    pub pace: Pace,
    /// How many positions are left.
    pub left: u64,
}

/// When a version will have caught up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TimeLeft {
    /// So long from now.
    pub left: Duration,
    /// What that rests on.
    pub basis: Basis,
}

/// Why there is no time left to tell.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum NoTimeLeft {
    /// It has caught up, or is so near the head that it follows.
    Following,
    /// It was not watched for long enough.
    Unknown,
    /// As much arrives as it covers, or more, for so long that it is no burst: at this pace it never catches up.
    DoesNotShrink(Basis),
}

/// A version that has something to do and does not get on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stall {
    /// For how long it has not moved.
    pub still: Duration,
    /// What keeps it; never empty.
    pub on: Vec<WaitingOn>,
}

impl Trail {
    /// Notes how far the version is.
    pub fn look(&mut self, look: Look) {
        let before = self.looks.back().copied();
        let idle = |look: &Look| look.covers >= look.head;
        let had_nothing = before.as_ref().is_some_and(idle);
        if had_nothing || before.is_none_or(|before| before.covers != look.covers) {
            self.moved = Some(look);
        }
        // What it did before it had nothing to do, or before it was moved back, says nothing about now.
        if had_nothing || before.is_some_and(|before| look.covers < before.covers) {
            self.looks.clear();
        }
        let count = self.looks.len();
        if count >= 2 && look.at.saturating_sub(self.looks[count - 2].at) < LOOK_SPACING {
            self.looks.pop_back();
        }
        self.looks.push_back(look);
        while self.looks.len() > 2 && look.at.saturating_sub(self.looks[1].at) >= limits::PACE_TIME_MAX {
            self.looks.pop_front();
        }
    }

    /// Its pace; `None` while it was not watched for long enough.
    pub fn pace(&self) -> Option<Pace> {
        let (first, last, moved) = (self.looks.front()?, self.looks.back()?, self.moved?);
        // It moves by whole batches. In the middle of one as much is done as at its beginning, unless it takes long.
        let (since, until) = (last.at.saturating_sub(moved.at), moved.at.saturating_sub(first.at));
        let end = if since <= until.min(limits::STALL_TIME_MAX) { moved } else { *last };
        let over = end.at.saturating_sub(first.at);
        let a_second = |count: u64| count as f64 / over.as_secs_f64();
        (over >= LOOK_SPACING).then(|| Pace {
            over,
            rate: a_second(end.covers.since(first.covers)),
            arrivals: a_second(end.head.since(first.head)),
        })
    }

    /// For how long it has not moved at `now` though there was something to do.
    pub fn still(&self, now: Duration) -> Duration {
        let busy = self.looks.back().is_some_and(|last| last.covers < last.head);
        self.moved.filter(|_| busy).map_or(Duration::ZERO, |moved| now.saturating_sub(moved.at))
    }
}

/// When a version that is `lag` positions behind will have caught up. `age` is how old the oldest event is that it
/// does not cover yet.
///
/// # Errors
/// [`NoTimeLeft`] when there is no such time.
pub fn time_left(lag: u64, age: Duration, pace: Option<Pace>) -> Result<TimeLeft, NoTimeLeft> {
    if lag == 0 || lag <= limits::READY_LAG_MAX && age < limits::FOLLOWING_AGE_MAX {
        return Err(NoTimeLeft::Following);
    }
    let pace = pace.ok_or(NoTimeLeft::Unknown)?;
    let basis = Basis { pace, left: lag };
    let shrinks = pace.rate - pace.arrivals;
    // Centuries are no time that anyone waits for, and less than the measure is exact to.
    let left = Duration::try_from_secs_f64(lag as f64 / shrinks).ok().filter(|left| left.as_secs() < 10_000_000_000);
    // A burst, or a pause between two batches, is no pace.
    if left.is_none() && (pace.over < limits::NEVER_TIME_MIN || age < limits::NEVER_TIME_MIN) {
        return Err(NoTimeLeft::Unknown);
    }
    left.map(|left| TimeLeft { left, basis }).ok_or(NoTimeLeft::DoesNotShrink(basis))
}

/// Whether a version that has been `still` for so long is stalled, and by what: what it waits on, or else the
/// batch that it is in.
pub fn stalled(still: Duration, waiting_on: &[WaitingOn], busy: Option<WaitingOn>) -> Option<Stall> {
    // However long that takes: an index or a copy is made or is not, and if not there is another reason.
    let goes_on = |reason: &WaitingOn| matches!(reason, WaitingOn::Index { .. } | WaitingOn::Copy { .. });
    let indexing = !waiting_on.is_empty() && waiting_on.iter().all(goes_on);
    if still < limits::STALL_TIME_MAX || indexing {
        return None;
    }
    // That it does not work all of the time says nothing about what it does when it works.
    let tells = waiting_on.iter().any(|reason| !matches!(reason, WaitingOn::Share { .. }));
    let on: Vec<WaitingOn> = waiting_on.iter().cloned().chain(busy.filter(|_| !tells)).collect();
    let on = if on.is_empty() { vec![WaitingOn::Processor] } else { on };
    Some(Stall { still, on })
}

impl fmt::Display for Basis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Pace { over, rate, arrivals } = self.pace;
        // Casts from floats saturate.
        let (rate, arrivals) = (rate.round() as u64, arrivals.round() as u64);
        let seconds = (over.as_secs_f64().round() as u64).max(1);
        write!(f, "the last {seconds} s at {} positions a second; {} left", grouped(rate), grouped(self.left))?;
        match arrivals {
            0 => Ok(()),
            _ => write!(f, ", {} a second arrive", grouped(arrivals)),
        }
    }
}

impl fmt::Display for NoTimeLeft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Following => f.write_str("it follows the head"),
            Self::Unknown => f.write_str("its pace is not known yet"),
            Self::DoesNotShrink(basis) => write!(f, "at this pace it never catches up: {basis}"),
        }
    }
}

impl fmt::Display for Stall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on: Vec<String> = self.on.iter().map(ToString::to_string).collect();
        write!(f, "no progress for {}, it waits on {}", span(self.still), on.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn look(seconds: f64, covers: u64, head: u64) -> Look {
        Look { at: Duration::from_secs_f64(seconds), covers: Position::new(covers), head: Position::new(head) }
    }

    fn trail(looks: &[(f64, u64, u64)]) -> Trail {
        let mut trail = Trail::default();
        looks.iter().for_each(|(seconds, covers, head)| trail.look(look(*seconds, *covers, *head)));
        trail
    }

    const OLD: Duration = Duration::from_secs(60);

    #[test]
    fn time_left_counts_what_arrives_meanwhile() {
        let trail = trail(&[(0.0, 0, 100_000), (5.0, 10_000, 102_500), (10.0, 20_000, 105_000)]);
        let pace = trail.pace().unwrap();
        assert_eq!((pace.rate, pace.arrivals), (2_000.0, 500.0));
        let left = time_left(85_000, OLD, Some(pace)).unwrap();
        assert_eq!(left.left.as_secs(), 85_000 / 1_500);
        let basis = "the last 10 s at 2,000 positions a second; 85,000 left, 500 a second arrive";
        assert_eq!(left.basis.to_string(), basis);
    }

    #[test]
    fn what_does_not_shrink_has_no_time_left_and_says_so() {
        let pace = trail(&[(0.0, 0, 100_000), (10.0, 1_000, 105_000)]).pace();
        let none = time_left(104_000, OLD, pace).unwrap_err();
        assert_eq!(
            none.to_string(),
            "at this pace it never catches up: the last 10 s at 100 positions a second; 104,000 left, 500 a second \
             arrive"
        );
        let pace = trail(&[(0.0, 7, 100_000), (10.0, 7, 100_000)]).pace();
        assert!(matches!(time_left(99_993, OLD, pace), Err(NoTimeLeft::DoesNotShrink(_))), "it stands still");
    }

    #[test]
    fn a_burst_is_not_told_as_what_never_ends() {
        let pace = trail(&[(0.0, 0, 100_000), (1.0, 100, 150_000)]).pace();
        let second = Duration::from_secs(1);
        assert_eq!(time_left(149_900, second, pace), Err(NoTimeLeft::Unknown), "one second says nothing");
        assert_eq!(time_left(149_900, OLD, pace), Err(NoTimeLeft::Unknown), "nor does a pace of one second");
        let pace = trail(&[(0.0, 0, 100_000), (6.0, 100, 150_000)]).pace();
        assert_eq!(time_left(149_900, second, pace), Err(NoTimeLeft::Unknown));
        assert!(matches!(time_left(149_900, OLD, pace), Err(NoTimeLeft::DoesNotShrink(_))));
    }

    #[test]
    fn near_the_head_it_follows_and_nothing_is_left() {
        let pace = trail(&[(0.0, 0, 50), (10.0, 5_000, 5_050)]).pace();
        assert_eq!(time_left(50, Duration::from_millis(20), pace), Err(NoTimeLeft::Following));
        assert_eq!(time_left(0, Duration::ZERO, None), Err(NoTimeLeft::Following));
        assert!(matches!(time_left(50, OLD, pace), Err(NoTimeLeft::DoesNotShrink(_))), "old events are no following");
    }

    #[test]
    fn a_pace_is_of_the_last_ten_seconds_of_work() {
        // Fast at first, then slow: only the last ten seconds count.
        let mut looks: Vec<_> =
            (0..20).map(|second| (f64::from(second), u64::from(second as u32) * 1_000, 90_000)).collect();
        looks.extend((20..40).map(|second| (f64::from(second), 20_000 + (second as u64 - 20) * 10, 90_000)));
        assert_eq!(trail(&looks).pace().unwrap().rate, 10.0);
        // What happened before it had nothing to do, or before it was moved back, does not count.
        let pace = trail(&[(0.0, 0, 100), (10.0, 100, 100), (500.0, 100, 900), (501.0, 200, 900)]).pace().unwrap();
        assert_eq!(trail(&[(0.0, 0, 100), (1.0, 80, 100), (2.0, 10, 100)]).pace(), None);
        assert_eq!((pace.rate, pace.over.as_secs()), (100.0, 1));
        assert_eq!(trail(&[(0.0, 0, 100), (0.1, 50, 100)]).pace(), None, "too short to tell");
    }

    #[test]
    fn a_pace_does_not_sag_in_the_middle_of_a_batch() {
        let two_batches = [(0.0, 0, 9_000), (1.0, 1_000, 9_000), (2.0, 2_000, 9_000)];
        let rate_after = |seconds: f64| {
            let mut trail = trail(&two_batches);
            trail.look(look(2.0 + seconds, 2_000, 9_000));
            trail.pace().unwrap().rate
        };
        assert_eq!([0.5, 1.0, 1.9].map(rate_after), [1_000.0; 3]);
        assert_eq!(rate_after(2.5).round(), 444.0, "that is no pause between two batches any more");
    }

    #[test]
    fn a_stall_is_told_with_its_reason() {
        let still = trail(&[(0.0, 5, 5), (1.0, 5, 9), (4.0, 5, 9)]);
        assert_eq!(still.still(Duration::from_secs(5)), Duration::from_secs(4), "since there was something to do");
        assert_eq!(stalled(still.still(Duration::from_secs(4)), &[], None), None, "not for long enough");
        let reasons = [WaitingOn::Store { error: "the disk is full".into() }];
        let busy = WaitingOn::Batch { after: Position::new(5), since: Duration::from_secs(12) };
        let told =
            |waiting_on: &[WaitingOn], busy| stalled(Duration::from_secs(12), waiting_on, busy).unwrap().to_string();
        assert_eq!(told(&reasons, Some(busy.clone())), "no progress for 12 s, it waits on the store: the disk is full");
        let text =
            "no progress for 12 s, it waits on the handler, which has been busy with the batch behind 5 for 12 s";
        assert_eq!(told(&[], Some(busy)), text);
        assert_eq!(
            told(&[], None),
            "no progress for 12 s, it waits on its processor, which has not begun or has ended"
        );
        let index = WaitingOn::Index { index: "accounts.owner".into(), number: 1, of: 2 };
        assert_eq!(stalled(Duration::from_secs(70), &[index], None), None, "building an index is no stall");
        assert_eq!(trail(&[(0.0, 5, 9), (9.0, 9, 9)]).still(Duration::from_secs(60)), Duration::ZERO);
    }

    proptest! {
        #[test]
        fn a_trail_stays_short_and_its_pace_is_a_number(
            steps in proptest::collection::vec((0..3_000_u64, 0..500_u64, 0..500_u64), 1..400),
        ) {
            let (mut at, mut covers, mut head) = (0, 0, 0);
            let mut trail = Trail::default();
            for (millis, covered, appended) in steps {
                (at, head) = (at + millis, head + appended);
                covers = head.min(covers + covered);
                trail.look(look(at as f64 / 1_000.0, covers, head));
                prop_assert!(trail.looks.len() <= 2 * limits::PACE_TIME_MAX.as_millis() as usize / LOOK_SPACING.as_millis() as usize);
                if let Some(pace) = trail.pace() {
                    prop_assert!(pace.rate.is_finite() && pace.rate >= 0.0 && pace.arrivals >= 0.0);
                    if let Ok(left) = time_left(head - covers, OLD, Some(pace)) {
                        prop_assert!(pace.rate > pace.arrivals && left.left > Duration::ZERO);
                    }
                }
            }
        }
    }
}

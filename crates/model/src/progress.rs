//! The progress of a version: its pace, the remaining time with its basis, and whether it stands still.
//!
//! ```text
//!   looks:   (when, what it covers, the head)   one now and then
//!              │
//!              ├─▶ pace:      positions covered a second, and positions that arrive a second, the last ones counting most
//!              ├─▶ time left: what is left / (covered - arriving); none where that does not shrink
//!              └─▶ still for: since it last moved, or last had nothing to do
//! ```
//!
//! A version moves by whole batches, so a pace is measured from one move to a later one. While it stands, the pace
//! and the remaining time stay as they were. A second counts less the longer ago it was, by a factor of e after
//! [`limits::PACE_TIME`]. Once the version has stood still for [`limits::STALL_TIME_MAX`], its pace is unknown.
//!
//! Times are spans since any fixed moment: nothing here reads a clock.

use std::fmt;
use std::time::Duration;

use crate::limits;
use crate::numbers::{grouped, span};
use crate::position::Position;
use crate::waiting::WaitingOn;

/// The progress of a version at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// The time of the look.
    pub at: Duration,
    /// The position that all of its segments cover.
    pub covers: Position,
    /// The last position of the journal.
    pub head: Position,
}

/// The looks at one version so far, as far as its pace depends on them.
#[derive(Clone, Debug, Default)]
pub struct Trail {
    last: Option<Look>,
    /// The look from which the next piece of the pace is measured: the last move, or the beginning.
    from: Option<Look>,
    /// The first look at which the version was where it is now, with something to do.
    moved: Option<Look>,
    weighed: Weighed,
}

/// Sums in which a second counts less the longer ago it was.
#[derive(Clone, Copy, Debug, Default)]
struct Weighed {
    seconds: f64,
    covered: f64,
    arrived: f64,
    /// The time that was measured, unweighed.
    over: Duration,
}

/// The pace of a version, and the pace at which new work arrives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// The time over which the pace was measured, as far as it still counts.
    pub over: Duration,
    /// Positions covered a second.
    pub rate: f64,
    /// Positions appended a second.
    pub arrivals: f64,
}

/// The basis of a remaining time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Basis {
    /// The pace that is assumed to continue.
    pub pace: Pace,
    /// The number of positions left.
    pub left: u64,
}

/// The time after which a version will have caught up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TimeLeft {
    /// The time from now.
    pub left: Duration,
    /// The basis of the estimate.
    pub basis: Basis,
}

/// The reason why there is no remaining time.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum NoTimeLeft {
    /// It has caught up, or is so near the head that it follows.
    Following,
    /// It was not observed for long enough, or it does not move.
    Unknown,
    /// It is paused.
    Paused,
    /// Events arrive as fast as it covers them, or faster, for too long to be a burst: at this pace it never catches
    /// up.
    DoesNotShrink(Basis),
}

/// A version that has something to do and makes no progress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stall {
    /// The time since its last move.
    pub still: Duration,
    /// The reasons; never empty.
    pub on: Vec<WaitingOn>,
}

impl Trail {
    /// Notes the present progress of the version.
    pub fn look(&mut self, look: Look) {
        let before = self.last.replace(look);
        let had_nothing = before.is_some_and(|before| before.covers >= before.head);
        let went_back = before.is_some_and(|before| look.covers < before.covers);
        if had_nothing || before.is_none_or(|before| before.covers != look.covers) {
            self.moved = Some(look);
        }
        // Its moves before it had nothing to do, or before it was moved back, say nothing about now.
        if had_nothing || went_back {
            (self.from, self.weighed) = (None, Weighed::default());
        }
        let from = *self.from.get_or_insert(look);
        let time = look.at.saturating_sub(from.at);
        if look.covers > from.covers && time >= limits::PACE_LOOK {
            self.weighed.add(time, look.covers.since(from.covers), look.head.since(from.head));
            self.from = Some(look);
        }
    }

    /// Returns its pace; `None` until it was observed for long enough, and once it has stood still for long.
    pub fn pace(&self) -> Option<Pace> {
        let Weighed { seconds, covered, arrived, over } = self.weighed;
        let (last, moved) = (self.last?, self.moved?);
        let still = last.at.saturating_sub(moved.at);
        (over >= limits::PACE_TIME_MIN && still < limits::STALL_TIME_MAX).then(|| Pace {
            over: over.min(limits::PACE_TIME * 3),
            rate: covered / seconds,
            arrivals: arrived / seconds,
        })
    }

    /// Returns the time, until `now`, for which it has not moved though there was something to do.
    pub fn still(&self, now: Duration) -> Duration {
        let busy = self.last.is_some_and(|last| last.covers < last.head);
        self.moved.filter(|_| busy).map_or(Duration::ZERO, |moved| now.saturating_sub(moved.at))
    }
}

impl Weighed {
    fn add(&mut self, time: Duration, covered: u64, arrived: u64) {
        let fades = (-time.as_secs_f64() / limits::PACE_TIME.as_secs_f64()).exp();
        self.seconds = self.seconds * fades + time.as_secs_f64();
        self.covered = self.covered * fades + covered as f64;
        self.arrived = self.arrived * fades + arrived as f64;
        self.over += time;
    }
}

/// Returns a remaining time, rounded up to a precision that it can have: the longer, the coarser.
pub fn coarse(left: Duration) -> Duration {
    let (minute, hour) = (60_u32, 3_600);
    let seconds = left.as_secs_f64();
    let step = match left.as_secs() {
        0..10 => 1,
        10..60 => 5,
        60..600 => 30,
        600..3_600 => minute,
        3_600..36_000 => 10 * minute,
        36_000..172_800 => hour,
        _ => 24 * hour,
    };
    // What a float is off by is no step.
    Duration::from_secs((seconds / f64::from(step) - 1e-6).ceil() as u64 * u64::from(step))
}

/// Returns the time after which a version with this `lag`, in positions, will have caught up. `age` is the age of the
/// oldest event that it does not cover yet.
///
/// # Errors
/// [`NoTimeLeft`] if there is no such time.
pub fn time_left(lag: u64, age: Duration, pace: Option<Pace>) -> Result<TimeLeft, NoTimeLeft> {
    if lag == 0 || lag <= limits::READY_LAG_MAX && age < limits::FOLLOWING_AGE_MAX {
        return Err(NoTimeLeft::Following);
    }
    let pace = pace.ok_or(NoTimeLeft::Unknown)?;
    let basis = Basis { pace, left: lag };
    let shrinks = pace.rate - pace.arrivals;
    // Nobody waits for centuries, and the measurement is not that exact.
    let left = Duration::try_from_secs_f64(lag as f64 / shrinks).ok().filter(|left| left.as_secs() < 10_000_000_000);
    // A burst, or a pause between two batches, is not a pace.
    if left.is_none() && (pace.over < limits::NEVER_TIME_MIN || age < limits::NEVER_TIME_MIN) {
        return Err(NoTimeLeft::Unknown);
    }
    left.map(|left| TimeLeft { left: coarse(left), basis }).ok_or(NoTimeLeft::DoesNotShrink(basis))
}

/// Returns the stall of a version that has been `still` for this time, if it is one, with its reasons: those it waits
/// on, or else `beside`: its current batch, or the member that has its segments.
pub fn stalled(still: Duration, waiting_on: &[WaitingOn], beside: Option<WaitingOn>) -> Option<Stall> {
    // These may take any time: an index or a copy is made or is not, and if not there is another reason.
    let goes_on = |reason: &WaitingOn| matches!(reason, WaitingOn::Index { .. } | WaitingOn::Copy { .. });
    let indexing = !waiting_on.is_empty() && waiting_on.iter().all(goes_on);
    if still < limits::STALL_TIME_MAX || indexing {
        return None;
    }
    // A version that works only part of the time may still make progress when it works.
    let tells = waiting_on.iter().any(|reason| !matches!(reason, WaitingOn::Share { .. }));
    let on: Vec<WaitingOn> = waiting_on.iter().cloned().chain(beside.filter(|_| !tells)).collect();
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
            Self::Paused => f.write_str("it is paused"),
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

    /// An age of the oldest uncovered event at which a version neither follows nor is spared the report that it never
    /// catches up.
    fn old() -> Duration {
        2 * limits::NEVER_TIME_MIN
    }

    #[test]
    fn time_left_counts_what_arrives_meanwhile() {
        let trail = trail(&[(0.0, 0, 100_000), (5.0, 10_000, 102_500), (10.0, 20_000, 105_000)]);
        let pace = trail.pace().unwrap();
        assert_eq!((pace.rate.round(), pace.arrivals.round()), (2_000.0, 500.0));
        let left = time_left(85_000, old(), Some(pace)).unwrap();
        assert_eq!(left.left.as_secs(), 60, "57 seconds, as exact as that is known");
        let basis = "the last 10 s at 2,000 positions a second; 85,000 left, 500 a second arrive";
        assert_eq!(left.basis.to_string(), basis);
    }

    #[test]
    fn what_does_not_shrink_has_no_time_left_and_says_so() {
        let pace = trail(&[(0.0, 0, 100_000), (10.0, 1_000, 105_000)]).pace();
        let none = time_left(104_000, old(), pace).unwrap_err();
        assert_eq!(
            none.to_string(),
            "at this pace it never catches up: the last 10 s at 100 positions a second; 104,000 left, 500 a second \
             arrive"
        );
        let pace = trail(&[(0.0, 7, 100_000), (10.0, 7, 100_000)]).pace();
        assert_eq!(time_left(99_993, old(), pace), Err(NoTimeLeft::Unknown), "it stands still, and may go on any time");
    }

    /// Returns the remaining times that are shown after each look.
    fn told(looks: &[(f64, u64, u64)]) -> Vec<Option<u64>> {
        let mut trail = Trail::default();
        let told = looks.iter().map(|(seconds, covers, head)| {
            trail.look(look(*seconds, *covers, *head));
            time_left(head - covers, old(), trail.pace()).ok().map(|left| left.left.as_secs())
        });
        told.collect()
    }

    #[test]
    fn the_time_left_stays_while_the_bar_stands() {
        // A rebuild as it was recorded: ten batches of a second, then one that takes four.
        let mut looks: Vec<(f64, u64, u64)> = (0..=10).map(|at| (at as f64, at * 5_000, 100_000)).collect();
        looks.extend((1..=39).map(|at| (10.0 + f64::from(at) / 10.0, 50_000, 100_000)));
        looks.push((14.0, 60_000, 100_000));
        let told = told(&looks);
        assert_eq!(told[0], None, "nothing is known yet");
        assert_eq!((told[1], told[10]), (Some(20), Some(10)));
        assert!(told[10..50].iter().all(|left| *left == Some(10)), "{told:?}");
        // 40,000 positions at nearly 4,000 a second.
        assert_eq!(told[50], Some(15), "{told:?}");
    }

    #[test]
    fn the_time_left_does_not_jump_with_single_batches() {
        // Batches of very different lengths at the same pace on average, and looks in between.
        let (mut at, mut covers, mut looks) = (0.0, 0, vec![]);
        for seconds in [1, 4, 1, 2, 4, 1, 1, 4, 2, 1, 4, 3] {
            for step in 0..seconds * 5 {
                looks.push((at + f64::from(step) / 5.0, covers, 1_000_000));
            }
            (at, covers) = (at + f64::from(seconds), covers + 2_500 * u64::from(seconds as u32) + 500);
        }
        let told: Vec<u64> = told(&looks).into_iter().flatten().collect();
        let jump = told.windows(2).map(|pair| pair[1] as f64 / pair[0] as f64);
        assert!(jump.clone().all(|by| (0.8..1.25).contains(&by)), "{told:?}");
    }

    #[test]
    fn a_long_time_is_told_coarsely() {
        let of = |seconds: u64| coarse(Duration::from_secs(seconds)).as_secs();
        assert_eq!([of(0), of(7), of(41), of(61), of(601), of(4_000), of(40_000)], [0, 7, 45, 90, 660, 4_200, 43_200]);
        assert_eq!(of(200_000), 3 * 86_400);
        assert_eq!(coarse(Duration::from_millis(200)).as_secs(), 1, "never less than it is");
    }

    #[test]
    fn a_burst_is_not_told_as_what_never_ends() {
        let pace = trail(&[(0.0, 0, 100_000), (1.0, 100, 150_000)]).pace();
        let second = Duration::from_secs(1);
        assert_eq!(time_left(149_900, second, pace), Err(NoTimeLeft::Unknown), "one second says nothing");
        assert_eq!(time_left(149_900, old(), pace), Err(NoTimeLeft::Unknown), "nor does a pace of one second");
        let pace = trail(&[(0.0, 0, 100_000), (6.0, 100, 150_000)]).pace();
        assert_eq!(time_left(149_900, second, pace), Err(NoTimeLeft::Unknown));
        assert!(matches!(time_left(149_900, old(), pace), Err(NoTimeLeft::DoesNotShrink(_))));
    }

    #[test]
    fn near_the_head_it_follows_and_nothing_is_left() {
        let pace = trail(&[(0.0, 0, 50), (10.0, 5_000, 5_050)]).pace();
        assert_eq!(time_left(50, Duration::from_millis(20), pace), Err(NoTimeLeft::Following));
        assert_eq!(time_left(0, Duration::ZERO, None), Err(NoTimeLeft::Following));
        assert!(matches!(time_left(50, old(), pace), Err(NoTimeLeft::DoesNotShrink(_))), "old events are no following");
    }

    #[test]
    fn what_was_last_counts_most_in_a_pace() {
        // Fast at first, then slow.
        let mut looks: Vec<_> =
            (0..20).map(|second| (f64::from(second), u64::from(second as u32) * 1_000, 90_000)).collect();
        looks.extend((20..60).map(|second| (f64::from(second), 20_000 + (second as u64 - 20) * 10, 90_000)));
        let rate = trail(&looks).pace().unwrap().rate;
        assert!((10.0..40.0).contains(&rate), "{rate}");
        // What happened before it had nothing to do, or before it was moved back, does not count.
        let pace = trail(&[(0.0, 0, 100), (10.0, 100, 100), (500.0, 100, 900), (501.0, 200, 900)]).pace().unwrap();
        assert_eq!(trail(&[(0.0, 0, 100), (1.0, 80, 100), (2.0, 10, 100)]).pace(), None);
        assert_eq!((pace.rate.round(), pace.over.as_secs()), (100.0, 1));
        assert_eq!(trail(&[(0.0, 0, 100), (0.5, 50, 100)]).pace(), None, "too short to tell");
    }

    #[test]
    fn a_pace_does_not_sag_in_the_middle_of_a_batch() {
        let two_batches = [(0.0, 0, 9_000), (1.0, 1_000, 9_000), (2.0, 2_000, 9_000)];
        let pace_after = |seconds: f64| {
            let mut trail = trail(&two_batches);
            trail.look(look(2.0 + seconds, 2_000, 9_000));
            trail.pace().map(|pace| pace.rate.round())
        };
        assert_eq!([0.5, 1.0, 9.9].map(pace_after), [Some(1_000.0); 3]);
        assert_eq!(pace_after(10.0), None, "that is no pause between two batches any more");
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
        let text = "no progress for 12 s, it waits on its batch after position 5, which has taken 12 s: the handler \
                    or the store is slow, or hangs";
        assert_eq!(told(&[], Some(busy)), text);
        let elsewhere = WaitingOn::Member { member: "b".into() };
        assert_eq!(
            told(&[], Some(elsewhere)),
            "no progress for 12 s, it waits on the member b, which has the segment that lags: the status of that node says \
             why"
        );
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
        fn a_pace_is_a_number(
            steps in proptest::collection::vec((0..3_000_u64, 0..500_u64, 0..500_u64), 1..400),
        ) {
            let (mut at, mut covers, mut head) = (0, 0, 0);
            let mut trail = Trail::default();
            for (millis, covered, appended) in steps {
                (at, head) = (at + millis, head + appended);
                covers = head.min(covers + covered);
                trail.look(look(at as f64 / 1_000.0, covers, head));
                if let Some(pace) = trail.pace() {
                    prop_assert!(pace.rate.is_finite() && pace.rate >= 0.0 && pace.arrivals >= 0.0);
                    if let Ok(left) = time_left(head - covers, old(), Some(pace)) {
                        prop_assert!(pace.rate > pace.arrivals && left.left > Duration::ZERO);
                    }
                }
            }
        }
    }
}

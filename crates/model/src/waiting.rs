//! Why something does not happen yet, as data (I-11).

use std::fmt;
use std::time::Duration;

use crate::failure::Retry;
use crate::journal::Parted;
use crate::name::StreamName;
use crate::position::Position;
use crate::reads::Unlike;
use crate::segment::Segment;
use crate::share::WorkShare;
use crate::time::Timestamp;
use crate::verify::Part;
use crate::version::VersionId;

/// What a version, a flip or a query waits on. The same value reaches log, API, CLI and console.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WaitingOn {
    /// A segment does not cover the position that is needed.
    Segment {
        /// The version it belongs to.
        version: VersionId,
        /// The segment.
        segment: Segment,
        /// How many positions it is behind what is needed.
        behind: u64,
    },
    /// A handler refuses an event; the segment halts there and tries again.
    Handler {
        /// The segment that halts.
        segment: Segment,
        /// The event it refuses.
        position: Position,
        /// How often it was tried.
        attempts: u32,
        /// What the handler said.
        error: String,
        /// When it is tried again.
        due: Timestamp,
    },
    /// A handler refuses an event that would be set aside, and so many are already that no more may be.
    Letters {
        /// The segment that halts.
        segment: Segment,
        /// The event it halts before.
        position: Position,
        /// How many are set aside.
        letters: usize,
        /// What the handler said.
        error: String,
    },
    /// A handler does not return.
    Busy {
        /// The event it sits on.
        position: Position,
        /// For how long it was seen doing so.
        time: Duration,
    },
    /// Somebody paused the version.
    Paused,
    /// The view cannot be written at the moment.
    Store {
        /// What was tried and what came back.
        error: String,
    },
    /// A flip holds the version for a moment.
    Hold {
        /// The mark of the hold: a position in the catalog.
        held_for: Position,
    },
    /// The last hold ran out of its budget and was lifted; the flip tries again.
    HoldBudget {
        /// How long the hold may last.
        budget: Duration,
    },
    /// A replay in place is under way; where the rows were reset, readers wait for its end.
    Replay {
        /// Of which version.
        version: VersionId,
        /// What it covers again.
        at: Position,
        /// Where it ends.
        through: Position,
    },
    /// A replay in place that was asked for has not begun: the rows cannot be reset, and that is tried again.
    Reset {
        /// How often it was tried.
        attempts: u32,
        /// What the handler said.
        error: String,
    },
    /// An effect cannot be made; it is tried again, and later effects of its stream wait.
    Effect {
        /// The event that it follows from.
        position: Position,
        /// The stream of that event.
        stream: StreamName,
        /// How often it was tried.
        attempts: u32,
        /// What was said last.
        error: String,
    },
    /// Effects of another version come before its own in their streams, and are not made yet or not even known.
    EffectsBefore {
        /// The other version.
        version: VersionId,
    },
    /// The version still owes effects of events that it speaks for.
    Effects {
        /// How many its outbox has, those included that wait behind others and may turn out to be another version's.
        pending: u64,
    },
    /// The node has no lease, so others take over what is its own.
    Lease {
        /// Why it could not be renewed.
        error: String,
    },
    /// No live node carries the code of the version.
    Code {
        /// The version whose code is missing.
        version: VersionId,
    },
    /// The code of this version that a node carries is not what was recorded for its number, so that node applies nothing
    /// with it.
    Reads {
        /// The version.
        version: VersionId,
        /// In what it is unlike.
        unlike: Unlike,
    },
    /// Segments are nobody's for longer than a dead member's may be (I-10).
    Unowned {
        /// The first of them.
        segment: Segment,
        /// How many there are.
        segments: usize,
        /// For how long this node has seen that.
        since: Duration,
    },
    /// Its batch has taken long: the handler or the store works, or hangs.
    Batch {
        /// The batch begins behind this position.
        after: Position,
        /// For how long it has gone on.
        since: Duration,
    },
    /// It is filled with what the view of another version has.
    Copy {
        /// The other version.
        of: VersionId,
    },
    /// It cannot begin as a copy of another version; that is tried again.
    Seed {
        /// The other version.
        source: VersionId,
        /// How often it was tried.
        attempts: u32,
        /// Why not.
        error: String,
    },
    /// It leaves the rest of the time to those that serve.
    Share {
        /// How much of the time it works.
        share: WorkShare,
    },
    /// An index is built that the view went without while it replayed.
    Index {
        /// The table and the index: `accounts.owner`.
        index: String,
        /// Which one it is, from 1.
        number: usize,
        /// Of how many.
        of: usize,
    },
    /// Nobody applies its events just now.
    Processor,
    /// A view, or what the node knows, does not belong to the journal beside which it is found.
    Parted {
        /// How that shows.
        parted: Parted,
    },
    /// Something that is stored, in most cases of its view, is not what was written. What is not damaged of a view can be
    /// read all the same.
    Damaged {
        /// What was found, where, and what to do.
        error: String,
    },
    /// A position that somebody has seen is not in the journal.
    BeyondHead {
        /// The position.
        position: Position,
        /// Where the journal ends.
        head: Position,
    },
    /// The version is verified before anyone reads it.
    Verification {
        /// The version.
        version: VersionId,
        /// The part that is under way, once one is.
        part: Option<Part>,
        /// How many events, checks, rows or answers that part has looked at.
        looked_at: u64,
    },
    /// The version was not found right, and nobody answers for it.
    Verdict {
        /// The version.
        version: VersionId,
        /// What is wrong with it, in a few words.
        found: String,
    },
    /// The version is ready; someone must ask for the flip.
    FlipCommand,
    /// The version stands by until its time is over.
    StandBy {
        /// How long it still stands by.
        remaining: Duration,
    },
}

impl WaitingOn {
    /// Whether a version stays where it is until somebody does something about this; with `retry`, what its handler
    /// refuses is tried that often before.
    pub fn needs_somebody(&self, retry: &Retry) -> bool {
        match self {
            Self::Paused | Self::Letters { .. } | Self::Code { .. } | Self::Verdict { .. } => true,
            Self::BeyondHead { .. } | Self::Parted { .. } | Self::Damaged { .. } => true,
            Self::Reads { unlike, .. } => !matches!(unlike, Unlike::Undecided { .. }),
            Self::Handler { attempts, .. } | Self::Seed { attempts, .. } | Self::Reset { attempts, .. } => {
                *attempts >= retry.attempts
            }
            _ => false,
        }
    }
}

impl fmt::Display for WaitingOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Segment { version, segment, behind } => {
                write!(f, "segment {segment} of {version}, {behind} behind")
            }
            Self::Handler { segment, position, attempts, error, due: _ } => {
                write!(f, "the handler, which refuses event {position} in segment {segment} (try {attempts}): {error}")
            }
            Self::Letters { segment, position, letters, error } => write!(
                f,
                "room for dead letters: {letters} events are set aside, so segment {segment} halts before event \
                 {position}: {error}"
            ),
            Self::Busy { position, time } => {
                write!(f, "the handler, which has been busy with event {position} for {}", span(*time))
            }
            Self::Paused => write!(f, "the command to resume: it is paused"),
            Self::Store { error } => write!(f, "the store: {error}"),
            Self::Hold { held_for } => write!(f, "the flip of position {held_for}, which holds it for a moment"),
            Self::HoldBudget { budget } => {
                write!(f, "another try: the last hold took longer than {} ms and was lifted", budget.as_millis())
            }
            Self::Replay { version, at, through } => {
                write!(f, "the end of the replay of {version}, at position {at} of {through}")
            }
            Self::Reset { attempts, error } => {
                write!(f, "the reset of the rows before the replay, which fails (try {attempts}): {error}")
            }
            Self::Effect { position, stream, attempts, error } => {
                write!(f, "an effect of event {position} in {stream}, which fails (try {attempts}): {error}")
            }
            Self::EffectsBefore { version } => {
                write!(f, "effects of {version}, which come before its own in their streams")
            }
            Self::Effects { pending: 1 } => write!(f, "its outbox, which still has an effect"),
            Self::Effects { pending } => write!(f, "its outbox, which still has {pending} effects"),
            Self::Lease { error } => write!(f, "a lease, which is not renewed: {error}"),
            Self::Code { version } => write!(f, "a node that carries the code of {version}"),
            Self::Reads { version, unlike: unlike @ Unlike::Undecided { .. } } => {
                write!(f, "the decision what {version} reads: {unlike}")
            }
            Self::Reads { version, unlike } => write!(
                f,
                "code that is what was recorded for {version}; that of this node is not: {unlike}; {}",
                unlike.advice()
            ),
            Self::Unowned { segment, segments: 1, since } => {
                write!(f, "a member that takes over segment {segment}, which has been nobody's for {}", span(*since))
            }
            Self::Unowned { segment, segments, since } => write!(
                f,
                "members that take over {segments} segments, segment {segment} among them, which have been nobody's for {}",
                span(*since)
            ),
            Self::Batch { after, since } => {
                let (after, since) = (grouped(after.get()), span(*since));
                write!(f, "the handler, which has been busy with the batch behind {after} for {since}")
            }
            Self::Copy { of } => write!(f, "the copy of {of} that it begins as"),
            Self::Seed { source, attempts, error } => {
                write!(f, "a copy of {source} to begin as, which does not come about (try {attempts}): {error}")
            }
            Self::Share { share } => write!(f, "its turn: it works {share} of the time, as its options say"),
            Self::Index { index, number, of } => {
                write!(f, "the index {index}, which is being built ({number} of {of})")
            }
            Self::Processor => write!(f, "its processor, which has not begun or has ended"),
            Self::Parted { parted } => {
                write!(f, "the right journal, or a rebuild: {parted}")
            }
            Self::Damaged { error } => write!(f, "somebody who mends it: {error}"),
            Self::BeyondHead { position, head } => write!(
                f,
                "position {position}, which is not in the journal: that ends at {head}. It may be about to come from \
                 another node; else it is of another journal, or of a history that this one has lost"
            ),
            Self::Verification { version, part: None, .. } => write!(f, "the verification of {version}"),
            Self::Verification { version, part: Some(part), looked_at } => {
                write!(f, "the verification of {version}: {part}, {looked_at} {} so far", part.unit())
            }
            Self::Verdict { version, found } => write!(
                f,
                "a verdict that lets {version} serve ({found}): see what was found, then fix the code and rebuild, \
                 verify it again, or waive the verdict"
            ),
            Self::FlipCommand => write!(f, "the command to flip"),
            Self::StandBy { remaining } => write!(f, "the end of its stand-by in {}", span(*remaining)),
        }
    }
}

/// `1234567` as `1,234,567`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups = digits.as_bytes().rchunks(3).rev();
    groups.map(|group| std::str::from_utf8(group).unwrap_or_default()).collect::<Vec<_>>().join(",")
}

/// A span of time in its largest two units: `23 h 59 min`.
pub(crate) fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::SegmentCount;

    #[test]
    fn a_refusal_needs_somebody_once_it_was_tried_as_often_as_the_policy_says() {
        let refused = |attempts| WaitingOn::Handler {
            segment: SegmentCount::ONE.segment(0).unwrap(),
            position: Position::new(7),
            attempts,
            error: "no".into(),
            due: Timestamp::from_micros(0),
        };
        let retry = Retry { attempts: 3, ..Retry::default() };
        assert_eq!([1, 2, 3, 4].map(|attempts| refused(attempts).needs_somebody(&retry)), [false, false, true, true]);
        assert!(WaitingOn::Paused.needs_somebody(&retry));
        assert!(!WaitingOn::Store { error: "full".into() }.needs_somebody(&retry));
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn a_span_is_shown_in_its_largest_units() {
        let shown = [0, 59, 61, 3_600, 86_399, 90_000].map(|seconds| span(Duration::from_secs(seconds)));
        assert_eq!(shown, ["0 s", "59 s", "1 min 1 s", "1 h 0 min", "23 h 59 min", "1 d 1 h"]);
    }
}

//! Why something does not happen yet, as data (I-11).
//!
//! Each reason is one row of the table in `reasons!`: its name, its fields and its words. The enum, what reaches the
//! API, and the reference (`docs/waiting-on.md`) come from that row. To add a reason, add a row.

mod facts;

use std::fmt;
use std::time::Duration;

use facts::Facts;
pub use facts::{Fact, Kind};

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

macro_rules! reasons {
    ($f:ident: $(
        $(#[doc = $meaning:literal])+
        $reason:ident $name:literal
        $({ $($(#[doc = $field_meaning:literal])+ $field:ident as $field_name:literal: $type:ty,)+ })?
        => $words:expr,
    )+) => {
        /// What a version, a flip or a query waits on. The same value reaches log, API, CLI and console.
        #[derive(Clone, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum WaitingOn {
            $($(#[doc = $meaning])+ $reason $({ $($(#[doc = $field_meaning])+ $field: $type,)+ })?,)+
        }

        impl WaitingOn {
            /// Every reason there is, with the fields that it has outside.
            pub const KINDS: &[Kind] = &[$(Kind {
                name: $name,
                meaning: concat!($($meaning),+),
                fields: &[$($(($field_name, concat!($($field_meaning),+)),)+)?],
            },)+];

            /// Its name outside, in snake_case.
            pub fn kind(&self) -> &'static str {
                match self {
                    $(Self::$reason { .. } => $name,)+
                }
            }

            /// Its fields, by their names outside.
            pub fn facts(&self) -> Vec<(&'static str, Fact)> {
                let mut facts = Vec::new();
                match self {
                    $(Self::$reason $({ $($field),+ })? => {
                        $($($field.add($field_name, &mut facts);)+)?
                    })+
                }
                facts
            }
        }

        impl fmt::Display for WaitingOn {
            fn fmt(&self, $f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(#[allow(unused_variables)] Self::$reason $({ $($field),+ })? => $words,)+
                }
            }
        }
    };
}

reasons! { f:
    /// A segment does not cover the position that is needed.
    Segment "segment" {
        /// The version it belongs to.
        version as "version": VersionId,
        /// The segment.
        segment as "segment": Segment,
        /// How many positions it is behind what is needed.
        behind as "behind": u64,
    } => {
        write!(f, "segment {segment} of {version}, {behind} behind")
        },

    /// A handler refuses an event; the segment halts there and tries again.
    Handler "handler" {
        /// The segment that halts.
        segment as "segment": Segment,
        /// The event it refuses.
        position as "position": Position,
        /// How often it was tried.
        attempts as "attempts": u32,
        /// What the handler said.
        error as "error": String,
        /// When it is tried again.
        due as "due": Timestamp,
    } => {
        write!(f, "the handler, which refuses event {position} in segment {segment} (try {attempts}): {error}")
        },

    /// A handler refuses an event that would be set aside, and so many are already that no more may be.
    Letters "letters" {
        /// The segment that halts.
        segment as "segment": Segment,
        /// The event it halts before.
        position as "position": Position,
        /// How many are set aside.
        letters as "letters": usize,
        /// What the handler said.
        error as "error": String,
    } => write!(
        f,
        "room for dead letters: {letters} events are set aside, so segment {segment} halts before event \
         {position}: {error}"
        ),

    /// A handler does not return.
    Busy "busy" {
        /// The event it sits on.
        position as "position": Position,
        /// For how long it was seen doing so.
        time as "time_ms": Duration,
    } => {
        write!(f, "the handler, which has been busy with event {position} for {}", span(*time))
        },

    /// Somebody paused the version.
    Paused "paused" => write!(f, "the command to resume: it is paused"),

    /// The view cannot be written at the moment.
    Store "store" {
        /// What was tried and what came back.
        error as "error": String,
    } => write!(f, "the store: {error}"),

    /// A flip holds the version for a moment.
    Hold "hold" {
        /// The mark of the hold: a position in the catalog.
        held_for as "held_for": Position,
    } => write!(f, "the flip of position {held_for}, which holds it for a moment"),

    /// The last hold ran out of its budget and was lifted; the flip tries again.
    HoldBudget "hold_budget" {
        /// How long the hold may last.
        budget as "budget_ms": Duration,
    } => {
        write!(f, "another try: the last hold took longer than {} ms and was lifted", budget.as_millis())
        },

    /// A replay in place is under way; where the rows were reset, readers wait for its end.
    Replay "replay" {
        /// Of which version.
        version as "version": VersionId,
        /// What it covers again.
        at as "at": Position,
        /// Where it ends.
        through as "through": Position,
    } => {
        write!(f, "the end of the replay of {version}, at position {at} of {through}")
        },

    /// A replay in place that was asked for has not begun: the rows cannot be reset, and that is tried again.
    Reset "reset" {
        /// How often it was tried.
        attempts as "attempts": u32,
        /// What the handler said.
        error as "error": String,
    } => {
        write!(f, "the reset of the rows before the replay, which fails (try {attempts}): {error}")
        },

    /// An effect cannot be made; it is tried again, and later effects of its stream wait.
    Effect "effect" {
        /// The event that it follows from.
        position as "position": Position,
        /// The stream of that event.
        stream as "stream": StreamName,
        /// How often it was tried.
        attempts as "attempts": u32,
        /// What was said last.
        error as "error": String,
    } => {
        write!(f, "an effect of event {position} in {stream}, which fails (try {attempts}): {error}")
        },

    /// Effects of another version come before its own in their streams, and are not made yet or not even known.
    EffectsBefore "effects_before" {
        /// The other version.
        version as "version": VersionId,
    } => {
        write!(f, "effects of {version}, which come before its own in their streams")
        },

    /// Effects of the version wait, and its code here acts on none.
    Acts "acts" {
        /// How many there are.
        pending as "pending": u64,
    } => write!(
        f,
        "code that acts on its effects: {pending} wait in its outbox, and the code here acts on none; carry the \
         projection with `acts`, or drop the effects"
    ),

    /// The version still owes effects of events that it speaks for.
    Effects "effects" {
        /// How many its outbox has, those included that wait behind others and may turn out to be another version's.
        pending as "pending": u64,
    } => match pending {
        1 => write!(f, "its outbox, which still has an effect"),
        pending => write!(f, "its outbox, which still has {pending} effects"),
    },

    /// The node has no lease, so others take over what is its own.
    Lease "lease" {
        /// Why it could not be renewed.
        error as "error": String,
    } => write!(f, "a lease, which is not renewed: {error}"),

    /// No live node carries the code of the version.
    Code "code" {
        /// The version whose code is missing.
        version as "version": VersionId,
    } => write!(f, "a node that carries the code of {version}"),

    /// The code of this version that a node carries is not what was recorded for its number, so that node applies nothing
    /// with it.
    Reads "reads" {
        /// The version.
        version as "version": VersionId,
        /// In what it is unlike.
        unlike as "unlike": Unlike,
    } => match unlike {
        Unlike::Undecided { .. } => write!(f, "the decision what {version} reads: {unlike}"),
        _ => write!(
        f,
        "code that is what was recorded for {version}; that of this node is not: {unlike}; {}",
        unlike.advice()
        ),
    },

    /// Segments are nobody's for longer than a dead member's may be (I-10).
    Unowned "unowned" {
        /// The first of them.
        segment as "segment": Segment,
        /// How many there are.
        segments as "segments": usize,
        /// For how long this node has seen that.
        since as "since_ms": Duration,
    } => match segments {
        1 => write!(f, "a member that takes over segment {segment}, which has been nobody's for {}", span(*since)),
        segments => write!(
        f,
        "members that take over {segments} segments, segment {segment} among them, which have been nobody's for {}",
        span(*since)
        ),
    },

    /// Its batch has taken long: the handler or the store works, or hangs.
    Batch "batch" {
        /// The batch begins behind this position.
        after as "after": Position,
        /// For how long it has gone on.
        since as "since_ms": Duration,
    } => {
        let (after, since) = (grouped(after.get()), span(*since));
        write!(f, "the handler, which has been busy with the batch behind {after} for {since}")
        },

    /// It is filled with what the view of another version has.
    Copy "copy" {
        /// The other version.
        of as "of": VersionId,
    } => write!(f, "the copy of {of} that it begins as"),

    /// It cannot begin as a copy of another version; that is tried again.
    Seed "seed" {
        /// The other version.
        source as "source": VersionId,
        /// How often it was tried.
        attempts as "attempts": u32,
        /// Why not.
        error as "error": String,
    } => {
        write!(f, "a copy of {source} to begin as, which does not come about (try {attempts}): {error}")
        },

    /// It leaves the rest of the time to those that serve.
    Share "share" {
        /// How much of the time it works.
        share as "percent": WorkShare,
    } => write!(f, "its turn: it works {share} of the time, as its options say"),

    /// An index is built that the view went without while it replayed.
    Index "index" {
        /// The table and the index: `accounts.owner`.
        index as "index": String,
        /// Which one it is, from 1.
        number as "number": usize,
        /// Of how many.
        of as "of": usize,
    } => {
        write!(f, "the index {index}, which is being built ({number} of {of})")
        },

    /// Nobody applies its events just now.
    Processor "processor" => write!(f, "its processor, which has not begun or has ended"),

    /// A view, or what the node knows, does not belong to the journal beside which it is found.
    Parted "parted" {
        /// How that shows: `made_from` and `found`, or `same_through` and `differs_at`.
        parted as "parted": Parted,
    } => {
        write!(f, "the right journal, or a rebuild: {parted}")
        },

    /// Something that is stored, in most cases of its view, is not what was written. What is not damaged of a view can be
    /// read all the same.
    Damaged "damaged" {
        /// What was found, where, and what to do.
        error as "error": String,
    } => write!(f, "somebody who mends it: {error}"),

    /// A position that somebody has seen is not in the journal.
    BeyondHead "beyond_head" {
        /// The position.
        position as "position": Position,
        /// Where the journal ends.
        head as "head": Position,
    } => write!(
        f,
        "position {position}, which is not in the journal: that ends at {head}. It may be about to come from \
         another node; else it is of another journal, or of a history that this one has lost"
        ),

    /// The version is verified before anyone reads it.
    Verification "verification" {
        /// The version.
        version as "version": VersionId,
        /// The part that is under way, once one is.
        part as "part": Option<Part>,
        /// How many events, checks, rows or answers that part has looked at.
        looked_at as "looked_at": u64,
    } => match part {
        None => write!(f, "the verification of {version}"),
        Some(part) => write!(f, "the verification of {version}: {part}, {looked_at} {} so far", part.unit()),
    },

    /// The version was not found right, and nobody answers for it.
    Verdict "verdict" {
        /// The version.
        version as "version": VersionId,
        /// What is wrong with it, in a few words.
        found as "found": String,
    } => write!(
        f,
        "a verdict that lets {version} serve ({found}): see what was found, then fix the code and rebuild, \
         verify it again, or waive the verdict"
        ),

    /// Rows of the version are not what its code makes of its events. It goes on as it is: the rows may be wrong, or the
    /// code.
    Rows "rows" {
        /// The position that the rows cover which were looked at.
        position as "position": Position,
        /// How many rows were compared.
        looked_at as "looked_at": u64,
        /// How many of them were wrong, missing or too many.
        wrong as "wrong": u64,
        /// The table of the first of these.
        table as "table": String,
        /// Its key.
        key as "key": String,
        /// What the code makes: the columns that differ, all of them, or that there is no row.
        made as "made": String,
        /// What the view has.
        found as "found": String,
    } => write!(
        f,
        "somebody who looks at its rows: {} of {} compared at position {position} {} not what its code makes of the \
         events, such as {table} {key}, which is ({found}) and should be ({made}); unless the code is wrong, a rebuild \
         makes it right",
        grouped(*wrong),
        grouped(*looked_at),
        if *wrong == 1 { "is" } else { "are" }
        ),

    /// The version is ready; someone must ask for the flip.
    FlipCommand "flip_command" => write!(f, "the command to flip"),

    /// The version stands by until its time is over.
    StandBy "stand_by" {
        /// How long it still stands by.
        remaining as "remaining_ms": Duration,
    } => write!(f, "the end of its stand-by in {}", span(*remaining)),
}

impl WaitingOn {
    /// Whether a version stays where it is until somebody does something about this; with `retry`, what its handler
    /// refuses is tried that often before.
    pub fn needs_somebody(&self, retry: &Retry) -> bool {
        match self {
            Self::Paused | Self::Letters { .. } | Self::Code { .. } | Self::Verdict { .. } => true,
            Self::BeyondHead { .. } | Self::Parted { .. } | Self::Damaged { .. } | Self::Acts { .. } => true,
            Self::Reads { unlike, .. } => !matches!(unlike, Unlike::Undecided { .. }),
            Self::Handler { attempts, .. } | Self::Seed { attempts, .. } | Self::Reset { attempts, .. } => {
                *attempts >= retry.attempts
            }
            _ => false,
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
    fn every_reason_is_in_the_reference() {
        let row = |name: &str, meaning: &str| format!("| {name} | {} |", meaning.trim().replace('|', "\\|"));
        let kind = |kind: &Kind| {
            let fields = kind.fields.iter().map(|(name, meaning)| format!("`{name}`: {}", meaning.trim()));
            format!(
                "{} {} |\n",
                row(&format!("`{}`", kind.name), kind.meaning),
                fields.collect::<Vec<_>>().join("<br>")
            )
        };
        let table: String = WaitingOn::KINDS.iter().map(kind).collect();
        let reference = include_str!("../../../docs/waiting-on.md");
        assert!(reference.contains(&table), "docs/waiting-on.md should have these rows:\n{table}");
    }

    #[test]
    fn the_fields_of_a_reason_are_those_of_its_row() {
        let reason = WaitingOn::Batch { after: Position::new(4), since: Duration::from_secs(9) };
        assert_eq!(reason.kind(), "batch");
        let facts = [("after", Fact::Number(4)), ("since_ms", Fact::Span(Duration::from_secs(9)))];
        assert_eq!(reason.facts(), facts);
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

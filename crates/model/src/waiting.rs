//! The reasons why something does not happen yet, as data (I-11).
//!
//! Each reason is one row of the table in `reasons!`: its name, its fields and its words. The enum, the form in the
//! API, and the reference (`docs/waiting-on.md`) come from it. A new row needs a case in [`WaitingOn::needs_somebody`].

mod facts;
#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use facts::Facts;
pub use facts::{Fact, Kind};

use crate::failure::Retry;
use crate::journal::Parted;
use crate::name::StreamName;
use crate::numbers::{grouped, span};
use crate::position::Position;
use crate::reads::CodeMismatch;
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
        /// The reason that a version, a flip or a query waits on. Log, API, CLI and console show the same value.
        #[derive(Clone, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum WaitingOn {
            $($(#[doc = $meaning])+ $reason $({ $($(#[doc = $field_meaning])+ $field: $type,)+ })?,)+
        }

        impl WaitingOn {
            /// Every reason, with the public names of its fields.
            pub const KINDS: &[Kind] = &[$(Kind {
                name: $name,
                meaning: concat!($($meaning),+),
                fields: &[$($(($field_name, concat!($($field_meaning),+)),)+)?],
            },)+];

            /// Returns its public name, in snake_case.
            pub fn kind(&self) -> &'static str {
                match self {
                    $(Self::$reason { .. } => $name,)+
                }
            }

            /// Returns its fields, by their public names.
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
        /// The version of the segment.
        version as "version": VersionId,
        /// The segment.
        segment as "segment": Segment,
        /// Its lag: the number of positions between its token and the position that is needed.
        lag as "lag": u64,
    } => {
        write!(f, "segment {segment} of {version} (lag {})", grouped(*lag))
        },

    /// A handler refuses an event. The segment halts there and retries it.
    Handler "handler" {
        /// The segment that halts.
        segment as "segment": Segment,
        /// The position of the refused event.
        position as "position": Position,
        /// The number of tries.
        attempts as "attempts": u32,
        /// The handler's error.
        error as "error": String,
        /// The time of the next try.
        due as "due": Timestamp,
    } => {
        write!(f, "the handler, which refuses event {} in segment {segment} (try {attempts}): {error}", grouped(position.get()))
        },

    /// A handler refuses an event that would be set aside, but the limit of dead letters is reached.
    Letters "letters" {
        /// The segment that halts.
        segment as "segment": Segment,
        /// The position of the event before which it halts.
        position as "position": Position,
        /// The number of events that are set aside.
        letters as "letters": usize,
        /// The handler's error.
        error as "error": String,
    } => write!(
        f,
        "room for dead letters: {} events are set aside, so segment {segment} halts before event {}: {error}",
        grouped(*letters as u64),
        grouped(position.get())
        ),

    /// A handler has been busy with one event for long.
    Busy "busy" {
        /// The position of the event.
        position as "position": Position,
        /// The time for which it has been busy.
        time as "time_ms": Duration,
    } => {
        write!(f, "the handler, which has been busy with event {} for {}", grouped(position.get()), span(*time))
        },

    /// An operator paused the version.
    Paused "paused" => write!(f, "the command `resume`: the version is paused"),

    /// The view cannot be written at the moment.
    Store "store" {
        /// The attempt and its error.
        error as "error": String,
    } => write!(f, "the store: {error}"),

    /// A flip holds the version for a moment.
    Hold "hold" {
        /// The mark of the hold: a position in the catalog.
        held_for as "held_for": Position,
    } => write!(f, "the flip of position {}, which holds it for a moment", grouped(held_for.get())),

    /// The last hold exceeded its budget and was lifted. The flip tries again.
    HoldBudget "hold_budget" {
        /// The budget: the longest time for which a hold may last.
        budget as "budget_ms": Duration,
    } => {
        write!(f, "another try: the last hold took longer than {} ms and was lifted", budget.as_millis())
        },

    /// A replay in place is under way. If the rows were reset, readers wait for its end.
    Replay "replay" {
        /// The version.
        version as "version": VersionId,
        /// The position that it covers again.
        at as "at": Position,
        /// The position at which it ends.
        through as "through": Position,
    } => {
        write!(f, "the end of the replay of {version}, at position {} of {}", grouped(at.get()), grouped(through.get()))
        },

    /// A requested replay in place has not begun: the rows cannot be reset. The reset is retried.
    Reset "reset" {
        /// The number of tries.
        attempts as "attempts": u32,
        /// The handler's error.
        error as "error": String,
    } => {
        write!(f, "the reset of the rows before the replay, which fails (try {attempts}): {error}")
        },

    /// An effect cannot be made. It is retried, and later effects of its stream wait.
    Effect "effect" {
        /// The position of the event that it follows from.
        position as "position": Position,
        /// The stream of that event.
        stream as "stream": StreamName,
        /// The number of tries.
        attempts as "attempts": u32,
        /// The error of the last try.
        error as "error": String,
    } => {
        write!(f, "an effect of event {} in {stream}, which fails (try {attempts}): {error}", grouped(position.get()))
        },

    /// Effects of another version come before its own in their streams, and are not made yet or not yet known.
    EffectsBefore "effects_before" {
        /// The other version.
        version as "version": VersionId,
    } => {
        write!(f, "effects of {version}, which come before its own in their streams")
        },

    /// Effects of the version wait, and its code here cannot make them.
    Acts "acts" {
        /// The number of waiting effects.
        pending as "pending": u64,
    } => write!(
        f,
        "code that acts on its effects: {} wait in its outbox, and the code here acts on none; carry the \
         projection with `acts`, or drop the effects",
        grouped(*pending)
    ),

    /// The version still owes effects that only it may emit.
    Effects "effects" {
        /// The number of effects in its outbox, including those that wait for earlier ones and may turn out to belong to another version.
        pending as "pending": u64,
    } => match pending {
        1 => write!(f, "its outbox, which still has an effect"),
        pending => write!(f, "its outbox, which still has {} effects", grouped(*pending)),
    },

    /// The node has no lease, so other nodes take over its segments.
    Lease "lease" {
        /// The reason why it could not be renewed.
        error as "error": String,
    } => write!(f, "a lease, which cannot be renewed: {error}"),

    /// No live node carries the code of the version. A node that does not carry it gives this reason for not being ready
    /// also if others do.
    Code "code" {
        /// The version whose code is missing.
        version as "version": VersionId,
    } => write!(f, "a node that carries the code of {version}"),

    /// A node carries code of this version that differs from what was recorded for its number, so that node applies no
    /// events with it.
    Reads "reads" {
        /// The version.
        version as "version": VersionId,
        /// The difference.
        unlike as "unlike": CodeMismatch,
    } => match unlike {
        CodeMismatch::Undecided { .. } => write!(f, "the decision about the types that {version} reads: {unlike}"),
        _ => write!(
        f,
        "code as it was recorded for {version}, from which the code of this node differs: {unlike}; {}",
        unlike.advice()
        ),
    },

    /// No live member has claimed some segments for longer than a takeover may take (I-10).
    Unowned "unowned" {
        /// The first of them.
        segment as "segment": Segment,
        /// The number of such segments.
        segments as "segments": usize,
        /// The time for which this node has seen that.
        since as "since_ms": Duration,
    } => match segments {
        1 => write!(f, "a member that takes over segment {segment}, which no live member has claimed for {}", span(*since)),
        segments => write!(
        f,
        "members that take over {segments} segments, segment {segment} among them, which no live member has claimed for {}",
        span(*since)
        ),
    },

    /// Its batch has taken long: the handler or the store is slow, or hangs.
    Batch "batch" {
        /// The position after which the batch begins.
        after as "after": Position,
        /// The time that it has taken so far.
        since as "since_ms": Duration,
    } => write!(
        f,
        "its batch after position {}, which has taken {}: the handler or the store is slow, or hangs",
        grouped(after.get()),
        span(*since)
    ),

    /// The view of another version is being copied into it.
    Copy "copy" {
        /// The other version.
        of as "of": VersionId,
    } => write!(f, "the copy of {of}, which it begins as"),

    /// It cannot begin as a copy of another version. The copy is retried.
    Seed "seed" {
        /// The other version.
        source as "source": VersionId,
        /// The number of tries.
        attempts as "attempts": u32,
        /// The error.
        error as "error": String,
    } => {
        write!(f, "a copy of {source} to begin as, which fails (try {attempts}): {error}")
        },

    /// It rests, to leave time to the serving versions.
    Share "share" {
        /// The share of the time in which it works.
        share as "percent": WorkShare,
    } => write!(f, "its turn: it works {share} of the time, as its options say"),

    /// An index is being built that the view did without while it replayed.
    Index "index" {
        /// The table and the index: `accounts.owner`.
        index as "index": String,
        /// The number of the index, from 1.
        number as "number": usize,
        /// The number of indexes.
        of as "of": usize,
    } => {
        write!(f, "the index {index}, which is being built ({number} of {of})")
        },

    /// Another member has the segment with the largest lag, and only that member knows why it rests.
    Member "member" {
        /// The name of the member.
        member as "member": String,
    } => write!(f, "the member {member}, which has the segment that lags: the status of that node says why"),

    /// No processor applies its events at the moment.
    Processor "processor" => write!(f, "its processor, which has not begun or has ended"),

    /// The journal is not the one, or does not have the history, that this node has read. The node must be restarted.
    JournalParted "journal_parted" {
        /// The evidence: `made_from` and `found`, or `same_through` and `differs_at`.
        parted as "parted": Parted,
    } => write!(f, "a restart of every node, once it is decided which journal is right: {}", parted.of_journal()),

    /// A view does not belong to the journal beside which it is found.
    Parted "parted" {
        /// The evidence: `made_from` and `found`, or `same_through` and `differs_at`.
        parted as "parted": Parted,
    } => {
        write!(f, "the right journal, or a rebuild: {parted}")
        },

    /// Something that is stored, in most cases in its view, is not what was written. The undamaged parts of a view can
    /// still be read.
    Damaged "damaged" {
        /// The damage, its place, and what to do about it.
        error as "error": String,
    } => write!(f, "an operator who repairs it: {error}"),

    /// A position that a caller has seen is not in the journal.
    BeyondHead "beyond_head" {
        /// The position.
        position as "position": Position,
        /// The end of the journal.
        head as "head": Position,
    } => write!(
        f,
        "position {}, which is not in the journal: the journal ends at {}. The position may arrive soon from another \
         node; otherwise it belongs to another journal, or to a history that this one has lost",
        grouped(position.get()),
        grouped(head.get())
        ),

    /// The version must be verified before anyone reads it.
    Verification "verification" {
        /// The version.
        version as "version": VersionId,
        /// The part that is under way, if one is.
        part as "part": Option<Part>,
        /// The number of events, checks, rows or answers that this part has looked at.
        looked_at as "looked_at": u64,
    } => match part {
        None => write!(f, "the verification of {version}"),
        Some(part) => {
            write!(f, "the verification of {version}: {part}, {} {} so far", grouped(*looked_at), part.unit())
        }
    },

    /// The version failed its verification, and nobody has waived the verdict.
    Verdict "verdict" {
        /// The version.
        version as "version": VersionId,
        /// The findings, in a few words.
        found as "found": String,
    } => write!(
        f,
        "a verdict that lets {version} serve ({found}): read the report, then fix the code and rebuild, verify it again, \
         or waive the verdict"
        ),

    /// Rows of the version differ from what its code makes of its events. The version keeps serving: the rows or the code
    /// may be wrong.
    Rows "rows" {
        /// The position that the compared rows cover.
        position as "position": Position,
        /// The number of rows that were compared.
        looked_at as "looked_at": u64,
        /// The number of rows that were wrong, missing or extra.
        wrong as "wrong": u64,
        /// The table of the first such row.
        table as "table": String,
        /// Its key.
        key as "key": String,
        /// The result of the code: the columns that differ, all columns, or that there is no row.
        made as "made": String,
        /// The contents of the view.
        found as "found": String,
    } => write!(
        f,
        "an operator who looks at its rows: {} of {} compared at position {} {} not what its code makes of the events, \
         such as {table} {key}, which is ({found}) and should be ({made}); if the code is right, a rebuild repairs it",
        grouped(*wrong),
        grouped(*looked_at),
        grouped(position.get()),
        if *wrong == 1 { "is" } else { "are" }
        ),

    /// The version is ready. An operator must request the flip.
    FlipCommand "flip_command" => write!(f, "the command `flip`"),

    /// The version stands by until its stand-by time is over.
    StandBy "stand_by" {
        /// The time for which it still stands by.
        remaining as "remaining_ms": Duration,
    } => write!(f, "the end of its stand-by, in {}", span(*remaining)),
}

impl WaitingOn {
    /// Returns true if the view is damaged.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. })
    }

    /// Returns true if the version is blocked until an operator does something about this. `retry` is the policy for the
    /// events that its handler refuses: they are retried before an operator is needed.
    pub fn needs_somebody(&self, retry: &Retry) -> bool {
        match self {
            Self::Paused | Self::Letters { .. } | Self::Code { .. } | Self::Verdict { .. } => true,
            Self::BeyondHead { .. } | Self::Parted { .. } | Self::JournalParted { .. } => true,
            Self::Damaged { .. } | Self::Acts { .. } => true,
            Self::Reads { unlike, .. } => !matches!(unlike, CodeMismatch::Undecided { .. }),
            Self::Handler { attempts, .. } | Self::Seed { attempts, .. } | Self::Reset { attempts, .. } => {
                *attempts >= retry.attempts
            }
            // They pass by themselves, or do not block the version.
            Self::Segment { .. }
            | Self::Busy { .. }
            | Self::Store { .. }
            | Self::Hold { .. }
            | Self::HoldBudget { .. }
            | Self::Replay { .. }
            | Self::Effect { .. }
            | Self::EffectsBefore { .. }
            | Self::Effects { .. }
            | Self::Lease { .. }
            | Self::Unowned { .. }
            | Self::Batch { .. }
            | Self::Copy { .. }
            | Self::Share { .. }
            | Self::Index { .. }
            | Self::Member { .. }
            | Self::Processor
            | Self::Verification { .. }
            | Self::Rows { .. }
            | Self::FlipCommand
            | Self::StandBy { .. } => false,
        }
    }
}

//! What may go wrong: the calls, and the faults.

use dacapo::journal::Append;
use dacapo::{Position, ViewId};

/// A call to a store that may go wrong. Its data is enough to pick it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Call<'a> {
    /// An append of these events to the journal.
    Append(&'a Append),
    /// A read of the journal by position.
    Read,
    /// A read of one stream.
    ReadStream,
    /// The look-up of the revision of a stream.
    StreamRevision,
    /// A list of streams.
    Streams,
    /// The look-up of the position of an event id, or of a time.
    FindPosition,
    /// The digest of the history through a position.
    Mark,
    /// The opening of a view, which makes it if it does not exist.
    Open(&'a ViewId),
    /// The opening of a view if it exists.
    Find(&'a ViewId),
    /// The list of views.
    List,
    /// The drop of a view.
    Drop(&'a ViewId),
    /// The move of the names for SQL from outside to this view.
    Publish(&'a ViewId),
    /// A read of the tokens of a view.
    Tokens(&'a ViewId),
    /// A claim of segments, or their release.
    Claim(&'a ViewId),
    /// The revocation of every claim.
    Revoke(&'a ViewId),
    /// The position at which tokens stop; `None` lifts it.
    Cap(&'a ViewId, Option<Position>),
    /// The hold of a flip.
    Hold(&'a ViewId),
    /// The end of a hold.
    Lift(&'a ViewId),
    /// A read of the marks of the history that a view was made from.
    History(&'a ViewId),
    /// A read of the refused events at which segments halt.
    Refusals(&'a ViewId),
    /// A read of dead letters.
    Letters(&'a ViewId),
    /// A wish about dead letters.
    Wish(&'a ViewId),
    /// A read of the positions whose events were set aside before they made effects.
    Unspoken(&'a ViewId),
    /// A read of the outbox.
    Outbox(&'a ViewId),
    /// A decision about effects: to retry or to drop them.
    DecideEffects(&'a ViewId),
    /// A claim of the right to make effects.
    ClaimEffects(&'a ViewId),
    /// The note that effects are about to be made.
    BeginEffects(&'a ViewId),
    /// The note of what became of effects.
    SettleEffects(&'a ViewId),
    /// The look-up of indexes that are not built yet.
    MissingIndexes(&'a ViewId),
    /// A check of pages for damage.
    Pages(&'a ViewId),
    /// What a view says of its health. [`Fault::Fails`] and [`Fault::Damaged`] let it say so; no other fault changes it.
    ViewHealth(&'a ViewId),
    /// A copy of a view, for another one to read.
    Copy(&'a ViewId),
    /// The opening of a reader.
    Reader(&'a ViewId),
    /// A read through a reader.
    Query(&'a ViewId),
    /// The opening of a writer.
    Writer(&'a ViewId),
    /// A read through a writer, in its transaction.
    Load(&'a ViewId),
    /// A write of rows, or of whose segments they are.
    Write(&'a ViewId),
    /// The build of an index.
    Index(&'a ViewId),
    /// The attachment of a copy to a writer.
    Attach(&'a ViewId),
    /// The commit of a writer. One that goes wrong before it lands is rolled back.
    Commit(&'a ViewId),
}

impl Call<'_> {
    /// Returns true if it appends an event of this type, such as `flipped` of the catalog.
    pub fn appends(&self, event_type: &str) -> bool {
        let Self::Append(append) = self else { return false };
        append.events.iter().any(|found| found.event.event_type.as_str() == event_type)
    }

    /// Returns the attempt, for the error of the call.
    pub(super) fn tried(&self) -> String {
        let debug = format!("{self:?}");
        let name = debug.split('(').next().unwrap_or_default();
        match self {
            Self::Append(append) => {
                let types: Vec<_> = append.events.iter().map(|found| found.event.event_type.as_str()).collect();
                format!("do `{name}` of {}", types.join(", "))
            }
            _ => self.view().map_or_else(|| format!("do `{name}`"), |view| format!("do `{name}` on {view}")),
        }
    }

    /// Returns the part of the store that it is about, for the error that it is damaged.
    pub(super) fn place(&self) -> String {
        self.view().map_or_else(|| "the store".to_owned(), |view| format!("the view of {view}"))
    }

    fn view(&self) -> Option<&ViewId> {
        match self {
            Self::Append(_)
            | Self::Read
            | Self::ReadStream
            | Self::StreamRevision
            | Self::Streams
            | Self::FindPosition
            | Self::Mark
            | Self::List => None,
            Self::Open(view)
            | Self::Find(view)
            | Self::Drop(view)
            | Self::Publish(view)
            | Self::Tokens(view)
            | Self::Claim(view)
            | Self::Revoke(view)
            | Self::Hold(view)
            | Self::Lift(view)
            | Self::History(view)
            | Self::Refusals(view)
            | Self::Letters(view)
            | Self::Wish(view)
            | Self::Unspoken(view)
            | Self::Outbox(view)
            | Self::DecideEffects(view)
            | Self::ClaimEffects(view)
            | Self::BeginEffects(view)
            | Self::SettleEffects(view)
            | Self::MissingIndexes(view)
            | Self::Pages(view)
            | Self::ViewHealth(view)
            | Self::Copy(view)
            | Self::Reader(view)
            | Self::Query(view)
            | Self::Writer(view)
            | Self::Load(view)
            | Self::Write(view)
            | Self::Index(view)
            | Self::Attach(view)
            | Self::Commit(view)
            | Self::Cap(view, _) => Some(view),
        }
    }
}

/// What goes wrong with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Nothing is done, and the call fails with [`StoreError::Unavailable`](dacapo::store::StoreError::Unavailable).
    Fails,
    /// The call is done, and then fails with [`StoreError::Unavailable`](dacapo::store::StoreError::Unavailable): its
    /// answer is lost.
    LosesAnswer,
    /// Nothing is done, and the call fails with [`StoreError::Corrupt`](dacapo::store::StoreError::Corrupt).
    Damaged,
    /// The call waits until there is another plan, which then decides about it.
    Waits,
    /// [`Call::Reader`] only: the reader says that it covers nothing, as one of a view that has lost its commits.
    Stale,
}

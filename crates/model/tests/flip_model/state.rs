//! What is in the world: a journal, its catalog, views, writers, nodes and a reader.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use dacapo_model::{Catalog, PendingFlip, Position, ProjectionName, Token, VersionId, ViewId};

pub(super) const VERSIONS: [VersionId; 2] = [VersionId { code: 1, build: 1 }, VersionId { code: 2, build: 1 }];

pub(super) fn view(version: VersionId) -> ViewId {
    ViewId { projection: ProjectionName::new("totals").unwrap(), version }
}

pub(super) fn number(version: VersionId) -> usize {
    VERSIONS.iter().position(|known| *known == version).unwrap()
}

/// A catalog, told apart from others of the same journal by its revision alone.
#[derive(Clone)]
pub(super) struct Folded(pub(super) Arc<Catalog>);

impl PartialEq for Folded {
    fn eq(&self, other: &Self) -> bool {
        self.0.revision == other.0.revision
    }
}

impl Eq for Folded {}

impl Hash for Folded {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.revision.hash(state);
    }
}

impl fmt::Debug for Folded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "catalog at {}", self.0.revision)
    }
}

impl Folded {
    pub(super) fn pending(&self) -> Option<PendingFlip> {
        self.0.projections.values().next()?.flip
    }

    pub(super) fn serving(&self) -> Option<usize> {
        self.0.projections.values().next()?.serving.map(number)
    }
}

/// A token with a hash.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Stored(pub(super) Token);

impl Hash for Stored {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Token { segment, epoch, position, claimed_by: _, held_for, cap: _, applied, replay } = self.0;
        (segment, epoch, position, held_for, applied.events, replay.map(|mark| mark.request)).hash(state);
    }
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.0.position, self.0.epoch)?;
        self.0.held_for.map_or(Ok(()), |mark| write!(f, " held for {mark}"))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Entry {
    /// An event of a user, with its segment.
    User(usize),
    /// An event of the catalog: its digest, and for a flip from where it goes.
    Catalog { digest: u64, flipped: Option<(Option<usize>, usize)> },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct StoredView {
    pub(super) tokens: Vec<Stored>,
    /// How often the event at each position was applied.
    pub(super) applied: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Writer {
    pub(super) version: usize,
    /// The tokens as it knows them, once it has claimed.
    pub(super) claimed: Option<Vec<Stored>>,
    /// A segment that it is about to commit, and how far.
    pub(super) batch: Option<(usize, Position)>,
}

/// What a node is about to do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Next {
    Look,
    /// It has read the tokens of the version to serve.
    ReadFrom(Vec<Stored>),
    Hold,
    Confirm(Position),
    Postpone,
    /// Lift this mark from that version.
    Lift(usize, Position),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) catalog: Folded,
    pub(super) pending: Option<PendingFlip>,
    pub(super) next: Next,
}

impl Hash for Node {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.catalog, self.pending.map(|pending| pending.hold), &self.next).hash(state);
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Reader {
    /// A state that is open: of which version, and where each segment is.
    pub(super) open: Option<(usize, Vec<Position>)>,
    /// What it was answered last.
    pub(super) seen: Option<(usize, Vec<Position>)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct World {
    pub(super) journal: Vec<Entry>,
    pub(super) catalog: Folded,
    pub(super) views: [StoredView; 2],
    pub(super) writers: Vec<Writer>,
    pub(super) nodes: Vec<Node>,
    pub(super) reader: Reader,
    /// The invariant that was seen to break.
    pub(super) broken: Option<&'static str>,
    pub(super) refused: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Action {
    Append(usize),
    RequestFlip,
    Claim(usize),
    Prepare(usize, usize),
    Commit(usize),
    Step(usize),
    OutOfBudget(usize),
    LiftStray(usize, usize),
    Restart(usize),
    Open(usize),
    Answer,
}

pub(super) fn positions(tokens: &[Stored]) -> Vec<Position> {
    tokens.iter().map(|stored| stored.0.position).collect()
}

//! Members: the live nodes that share a store, and what they can be given to do.

use std::fmt;

use crate::name::ProjectionName;
use crate::replay::InPlace;
use crate::version::ViewId;

/// One run of a node. A node that is started again is another member, so that nothing of the run before is taken
/// for its own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId([u8; 16]);

impl MemberId {
    /// The id with these bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn bytes(self) -> [u8; 16] {
        self.0
    }
}

impl fmt::Display for MemberId {
    /// Its last eight digits: in a version 7 UUID the first ones are the time, and much the same for all.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[12..].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A code version of a projection.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CodeId {
    /// Of which projection.
    pub projection: ProjectionName,
    /// The version of the code.
    pub code: u32,
}

/// The code of a version as the node that carries it tells the others of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberCode {
    /// Which code.
    pub id: CodeId,
    /// Whether past events may go through its versions again in place; `None` where an earlier release does not say.
    pub in_place: Option<InPlace>,
}

/// A node as it tells the others of itself, each time it renews its lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Which run of which node.
    pub id: MemberId,
    /// What people call it, such as its host name and process.
    pub name: String,
    /// Where other nodes reach its API; `None` when they cannot.
    pub address: Option<String>,
    /// The code that it carries.
    pub carries: Vec<MemberCode>,
    /// Whether it may be given work: it has caught up with the catalog and is not about to leave.
    pub ready: bool,
}

impl Member {
    /// Whether it can be given segments of this version.
    pub fn is_capable(&self, view: &ViewId) -> bool {
        self.ready && self.has_code_of(view)
    }

    /// Whether it can be once it is ready.
    pub fn has_code_of(&self, view: &ViewId) -> bool {
        self.code_of(view).is_some()
    }

    /// The code of this version, if it carries it.
    pub fn code_of(&self, view: &ViewId) -> Option<&MemberCode> {
        self.carries.iter().find(|it| it.id.projection == view.projection && it.id.code == view.version.code)
    }
}

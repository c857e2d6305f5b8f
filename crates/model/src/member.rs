//! Members: the live nodes that share a store, and the work that they can be given.

use std::fmt;

use crate::name::ProjectionName;
use crate::replay::InPlace;
use crate::version::ViewId;

/// One run of a node. A node that is started again is another member, so that it never takes anything of the earlier
/// run for its own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId([u8; 16]);

impl MemberId {
    /// Returns the id with these bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn bytes(self) -> [u8; 16] {
        self.0
    }
}

impl fmt::Display for MemberId {
    /// Its last eight digits. In a version 7 UUID the first digits are the time, so they are nearly the same for all
    /// members.
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
    /// The projection.
    pub projection: ProjectionName,
    /// The version of the code.
    pub code: u32,
}

/// The code of a version, as the node that carries it describes it to the others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberCode {
    /// Which code.
    pub id: CodeId,
    /// The version's support for a replay in place; `None` if an earlier release did not say.
    pub in_place: Option<InPlace>,
}

/// A node, as it describes itself to the others each time it renews its lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The run of the node.
    pub id: MemberId,
    /// A name for people, such as host name and process.
    pub name: String,
    /// The address of its API for other nodes; `None` if they cannot reach it.
    pub address: Option<String>,
    /// The code that it carries.
    pub carries: Vec<MemberCode>,
    /// True if it may be given work: it has caught up with the catalog and is not about to leave.
    pub ready: bool,
}

impl Member {
    /// Returns true if it can be given segments of this version.
    pub fn is_capable(&self, view: &ViewId) -> bool {
        self.ready && self.has_code_of(view)
    }

    /// Returns true if it carries the code of this version, ready or not.
    pub fn has_code_of(&self, view: &ViewId) -> bool {
        self.code_of(view).is_some()
    }

    /// Returns the code of this version, if the node carries it.
    pub fn code_of(&self, view: &ViewId) -> Option<&MemberCode> {
        self.carries.iter().find(|it| it.id.projection == view.projection && it.id.code == view.version.code)
    }
}

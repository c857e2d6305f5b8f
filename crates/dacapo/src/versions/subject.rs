//! The subject of a verification, and the check whether it is still the same.

use std::sync::Arc;

use dacapo_model::{Position, VersionId, VersionState, ViewId};

use super::Versions;
use crate::code::VersionCode;

/// The subject of a verification. If any part of it changes, earlier findings do not count any more.
#[derive(Clone)]
pub(crate) struct Subject {
    /// The last request to verify again.
    pub(crate) asked: Option<Position>,
    /// The serving version.
    pub(crate) against: Option<VersionId>,
    /// The code of the version.
    pub(crate) code: VersionCode,
    /// The code of the serving version, if this node carries it.
    pub(crate) old_code: Option<VersionCode>,
}

impl Subject {
    /// Returns the present subject, for a version whose state is wanted and whose code is here.
    pub(crate) fn of(versions: &Versions, id: &ViewId, wanted: impl Fn(&VersionState) -> bool) -> Option<Self> {
        let catalog = versions.catalog.current();
        let state = catalog.version(id).filter(|state| wanted(state))?;
        let against = catalog.serving(&id.projection);
        let code_of = |version| versions.code_of(&ViewId { version, ..id.clone() });
        let (code, old_code) = (code_of(id.version)?, against.and_then(code_of));
        Some(Self { asked: state.verify_again, against, code, old_code })
    }

    /// Returns true if it is the same.
    pub(crate) fn is(&self, other: &Self) -> bool {
        let same = |a: &VersionCode, b: &VersionCode| Arc::ptr_eq(&a.handlers, &b.handlers);
        let same_old = match (&self.old_code, &other.old_code) {
            (Some(a), Some(b)) => same(a, b),
            (a, b) => a.is_none() && b.is_none(),
        };
        (self.asked, self.against) == (other.asked, other.against) && same(&self.code, &other.code) && same_old
    }
}

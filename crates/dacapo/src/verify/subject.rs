//! What a verification is of, and whether it still is.

use std::sync::Arc;

use dacapo_model::{Position, VersionId, VersionState, ViewId};

use crate::core::Core;
use crate::projection::Carried;

/// What a verification is of. Once any of it is another, what was found before counts no more.
#[derive(Clone)]
pub(crate) struct Subject {
    /// The last request to verify again.
    pub(super) asked: Option<Position>,
    /// The version that serves.
    pub(super) against: Option<VersionId>,
    /// The code of the version.
    pub(super) code: Carried,
    /// The code of the version that serves, if this node carries it.
    pub(super) old_code: Option<Carried>,
}

impl Subject {
    /// As things are, for a version that is in such a state and whose code is here.
    pub(super) fn of(core: &Core, id: &ViewId, wanted: impl Fn(&VersionState) -> bool) -> Option<Self> {
        let catalog = core.catalog.current();
        let state = catalog.version(id).filter(|state| wanted(state))?;
        let against = catalog.serving(&id.projection);
        let code_of = |version| core.code_of(&ViewId { version, ..id.clone() });
        let (code, old_code) = (code_of(id.version)?, against.and_then(code_of));
        Some(Self { asked: state.verify_again, against, code, old_code })
    }

    /// Whether it is the same.
    pub(super) fn is(&self, other: &Self) -> bool {
        let same = |a: &Carried, b: &Carried| Arc::ptr_eq(&a.handlers, &b.handlers);
        let same_old = match (&self.old_code, &other.old_code) {
            (Some(a), Some(b)) => same(a, b),
            (a, b) => a.is_none() && b.is_none(),
        };
        (self.asked, self.against) == (other.asked, other.against) && same(&self.code, &other.code) && same_old
    }
}

/// Returns as soon as `now` gives another subject than `known`, or none.
pub(super) async fn changed(core: &Core, known: &Subject, now: impl Fn() -> Option<Subject>) {
    let (mut catalog, mut opened) = (core.catalog.watch(), core.opened.subscribe());
    loop {
        catalog.mark_unchanged();
        opened.mark_unchanged();
        if now().is_none_or(|now| !now.is(known)) {
            return;
        }
        // They end with the core, and so does whoever asks.
        tokio::select! {
            Ok(()) = catalog.changed() => {}
            Ok(()) = opened.changed() => {}
            else => return,
        }
    }
}

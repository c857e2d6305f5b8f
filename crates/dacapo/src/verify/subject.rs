//! The wait for a change of the subject of a verification.

use crate::versions::{Subject, Versions};

/// Returns as soon as `now` returns another subject than `known`, or none.
pub(super) async fn changed(versions: &Versions, known: &Subject, now: impl Fn() -> Option<Subject>) {
    let (mut catalog, mut opened) = (versions.catalog.watch(), versions.opened.subscribe());
    loop {
        catalog.mark_unchanged();
        opened.mark_unchanged();
        if now().is_none_or(|now| !now.is(known)) {
            return;
        }
        // They end with the node, and so does the caller.
        tokio::select! {
            Ok(()) = catalog.changed() => {}
            Ok(()) = opened.changed() => {}
            else => return,
        }
    }
}

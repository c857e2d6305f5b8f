//! Idempotency keys belong to one request. The request is stored with its key. Another request under the same key is
//! refused; it does not get the answer of the first one.
//!
//! The request is stored as words such as `flip balances v2.1`, which stay readable in the catalog. The requester and
//! the reason are not part of it, nor is the time that the caller waits. A request that names no version equals one
//! that names the version which was found for it.

use dacapo_model::{CatalogEvent, ProjectionName, VersionId, ViewId};

use super::CatalogEntry;

/// A request, as it is stored with its key.
#[derive(Clone, Debug)]
pub(crate) struct KeyedRequest {
    act: &'static str,
    projection: ProjectionName,
    which: Which,
    detail: String,
}

/// The version of a request, as far as the request names it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Which {
    Any,
    Code(u32),
    Version(VersionId),
}

impl From<Option<VersionId>> for Which {
    fn from(version: Option<VersionId>) -> Self {
        version.map_or(Self::Any, Self::Version)
    }
}

impl Which {
    fn allows(self, version: VersionId) -> bool {
        match self {
            Self::Any => true,
            Self::Code(code) => version.code == code,
            Self::Version(named) => version == named,
        }
    }
}

/// The error that another request has the key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the idempotency key {key:?} was used for `{before}` and belongs to it; this is `{now}`: ask under a key of its own"
)]
pub struct KeyReused {
    /// The key.
    pub key: String,
    /// The request that has the key.
    pub before: String,
    /// The new request.
    pub now: String,
}

impl KeyedRequest {
    pub(crate) fn new(act: &'static str, projection: &ProjectionName, which: impl Into<Which>) -> Self {
        Self { act, projection: projection.clone(), which: which.into(), detail: String::new() }
    }

    /// Returns the same request with further details.
    pub(crate) fn with(mut self, detail: impl std::fmt::Display) -> Self {
        self.detail = format!(" {detail}");
        self
    }

    /// Returns the request in the form that is stored with the resulting events.
    pub(crate) fn kept(&self, events: &[CatalogEvent]) -> Option<String> {
        subject(events.iter()).map(|view| self.words(view.version))
    }

    fn words(&self, version: VersionId) -> String {
        format!("{} {} {version}{}", self.act, self.projection, self.detail)
    }

    /// Checks that it is the request that led to these entries, which have its key.
    ///
    /// # Errors
    /// [`KeyReused`] if another request did.
    pub(crate) fn check(&self, key: &str, entries: &[CatalogEntry]) -> Result<(), KeyReused> {
        let Some(version) = view_of(entries).map(|view| view.version) else { return Ok(()) };
        let before = match entries.iter().find_map(|entry| entry.request.clone()) {
            Some(kept) if kept == self.words(version) && self.which.allows(version) => return Ok(()),
            Some(kept) => kept,
            // An earlier release stored only the result.
            None => match entries.iter().find_map(|entry| Some((act_of(&entry.event)?, entry))) {
                Some((act, entry)) => {
                    let view = entry.event.view();
                    let same = act == self.act || [act, self.act].iter().all(|act| ["flip", "rollback"].contains(act));
                    if same && view.projection == self.projection && self.which.allows(version) {
                        return Ok(());
                    }
                    format!("{act} {} {version}", view.projection)
                }
                None => return Ok(()),
            },
        };
        let named = match self.which {
            Which::Any => String::new(),
            Which::Code(code) => format!(" v{code}"),
            Which::Version(version) => format!(" {version}"),
        };
        let now = format!("{} {}{named}{}", self.act, self.projection, self.detail);
        Err(KeyReused { key: key.to_owned(), before, now })
    }
}

/// Returns the version that the request of these entries is about.
pub(crate) fn view_of(entries: &[CatalogEntry]) -> Option<&ViewId> {
    subject(entries.iter().map(|entry| &entry.event))
}

/// Returns the version that a request is about: the one that it schedules, or else the one that it changes first.
fn subject<'a>(events: impl Iterator<Item = &'a CatalogEvent> + Clone) -> Option<&'a ViewId> {
    let scheduled = events.clone().find(|event| matches!(event, CatalogEvent::Scheduled { .. }));
    scheduled.or_else(|| events.clone().next()).map(CatalogEvent::view)
}

/// Returns the request that leads to such an event, if only one does.
fn act_of(event: &CatalogEvent) -> Option<&'static str> {
    use dacapo_model::FlipKind::{Flip, Rollback};
    match event {
        CatalogEvent::Scheduled { .. } => Some("rebuild"),
        CatalogEvent::FlipRequested { kind: Flip, .. } => Some("flip"),
        CatalogEvent::FlipRequested { kind: Rollback, .. } => Some("rollback"),
        CatalogEvent::VerificationRequested { .. } => Some("verify"),
        CatalogEvent::Waived { .. } => Some("waive"),
        CatalogEvent::ReplayRequested { .. } => Some("replay"),
        CatalogEvent::CleaningUp { .. } => Some("clean-up"),
        CatalogEvent::Paused { .. } => Some("pause"),
        CatalogEvent::Resumed { .. } => Some("resume"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::RequestedBy;
    use dacapo_model::{FlipKind, Position, Timestamp, ViewId};

    #[test]
    fn what_an_earlier_release_has_kept_still_belongs_to_its_request() {
        let name = ProjectionName::new("totals").unwrap();
        let (one, two): (VersionId, VersionId) = ("v1.1".parse().unwrap(), "v2.1".parse().unwrap());
        let view = ViewId { projection: name.clone(), version: two };
        let entry = |event| {
            let (position, recorded) = (Position::new(7), Timestamp::from_micros(0));
            [CatalogEntry { position, recorded, event, asked: RequestedBy::by("ann"), request: None }]
        };
        let paused = entry(CatalogEvent::Paused { view: view.clone() });
        let check =
            |act, which: Option<VersionId>, entries: &[_]| KeyedRequest::new(act, &name, which).check("k", entries);
        assert_eq!(check("pause", Some(two), &paused), Ok(()));
        assert_eq!(check("pause", Some(one), &paused).unwrap_err().before, "pause totals v2.1");
        assert_eq!(check("resume", Some(two), &paused).unwrap_err().now, "resume totals v2.1");
        // Which of the two was asked for is not kept where readers move to an earlier version.
        let back = entry(CatalogEvent::FlipRequested { view, from: Some(one), kind: FlipKind::Rollback });
        assert_eq!((check("flip", None, &back), check("rollback", Some(two), &back)), (Ok(()), Ok(())));
        assert!(check("rebuild", None, &back).is_err());
    }
}

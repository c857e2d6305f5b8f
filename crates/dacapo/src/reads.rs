//! The check of what the code of a version reads against the catalog's record for its number.
//!
//! A node agrees with the catalog before it runs ([`agree`]), and every processor checks again before it commits past a
//! position ([`Fence`]). The rules, and the reasons why they are exact, are in `dacapo_model::reads`. This module
//! carries them out.

use std::sync::Arc;

use dacapo_model::{
    Announcement, CatalogCommand, CatalogRefused, CodeMismatch, Position, Reads, SegmentCount, ViewId, limits,
};
use dacapo_store::{Filter, Journal, Limit, StoreError, Streams};

use crate::catalog::{CatalogError, CatalogLog, RequestedBy};
use crate::code::VersionCode;
use crate::error::StartError;

/// Makes the catalog agree that this is the code of its number, or that it may read the types that were added. Returns
/// once that is decided.
///
/// # Errors
/// [`StartError::Code`] if it is other code, or if the journal has events of the added types, which the version has not
/// read.
pub(crate) async fn agree(
    journal: &Arc<dyn Journal>,
    catalog: &Arc<CatalogLog>,
    carried: &VersionCode,
) -> Result<(), StartError> {
    let code = &carried.code;
    let refused = |unlike| {
        let (projection, code) = (code.projection.clone(), code.code);
        StartError::Code(CatalogRefused::Reads { projection, code, unlike })
    };
    loop {
        catalog.refresh().await?;
        let current = catalog.current();
        let Some((version, state)) = current.newest_build(&code.projection, code.code) else { return Ok(()) };
        let view = ViewId { projection: code.projection.clone(), version };
        let checked = match (current.unlike(code), &state.announced) {
            (Some(CodeMismatch::Undecided { .. }), Some(announced)) => {
                settle(journal, catalog, view, announced, state.reads.as_ref()).await?;
                continue;
            }
            (None, _) if current.lacks_reads(code) => Position::START,
            (None, _) => return Ok(()),
            (Some(CodeMismatch::Added { types, .. }), _) => {
                let head = *journal.head().borrow();
                let recorded = state.reads.clone().unwrap_or_default();
                if let Some(event) = first(journal, &code.reads, &recorded, Position::START, head).await? {
                    return Err(refused(CodeMismatch::Added { types, event: Some(event) }));
                }
                tracing::info!(%view, ?types, "the code reads more types, of which the journal has no event");
                head
            }
            (Some(unlike), _) => return Err(refused(unlike)),
        };
        let announce = CatalogCommand::AnnounceReads { code: code.clone(), checked };
        match Arc::clone(catalog).change(announce, RequestedBy::by_plan()).await {
            // Another driver changed it meanwhile, or also announces types: check again.
            Ok(_) | Err(CatalogError::Refused(_)) => {}
            Err(error) => return Err(unreached(error).into()),
        }
    }
}

/// Decides about an announcement: the version may read the added types if none of their events came before it. Any node
/// can decide this, and the first decision counts.
pub(crate) async fn settle(
    journal: &Arc<dyn Journal>,
    catalog: &Arc<CatalogLog>,
    view: ViewId,
    announced: &Announcement,
    recorded: Option<&Reads>,
) -> Result<(), StoreError> {
    let Announcement { position, reads, checked } = announced;
    let recorded = recorded.cloned().unwrap_or_default();
    let found = first(journal, reads, &recorded, *checked, *position).await?;
    if let Some((event_type, event)) = &found {
        tracing::warn!(%view, event_type, %event, "more types were announced, and an event of them came before");
    }
    let settle = CatalogCommand::SettleReads { view, announced: *position, found };
    match Arc::clone(catalog).change(settle, RequestedBy::by_plan()).await {
        Ok(_) | Err(CatalogError::Refused(_)) => Ok(()),
        Err(error) => Err(unreached(error)),
    }
}

fn unreached(error: CatalogError) -> StoreError {
    match error {
        CatalogError::Store(error) => error,
        other => StoreError::unavailable("record what the code of a version reads", other),
    }
}

/// Returns the first event after `after` and through `through` that `wider` reads and `recorded` does not.
async fn first(
    journal: &Arc<dyn Journal>,
    wider: &Reads,
    recorded: &Reads,
    after: Position,
    through: Position,
) -> Result<Option<(String, Position)>, StoreError> {
    let types = wider.types.as_ref().map(|types| types.iter().filter(|name| !recorded.has(name)).cloned().collect());
    let streams = match &wider.categories {
        Some(categories) => Streams::Categories(categories.iter().cloned().collect()),
        None => Streams::User,
    };
    let (filter, mut at, mut head) = (Filter { streams, types }, after, journal.head());
    while at < through {
        // An append of another node may be known before the head is.
        if head.wait_for(|head| *head > at).await.is_err() {
            return Err(StoreError::unavailable("look for events of the added types", "the journal is closed"));
        }
        let batch = journal.read(at, &filter, Limit::events(limits::READ_EVENTS_MAX)).await?;
        if let Some(event) = batch.iter().find(|event| !recorded.has(event.event_type)) {
            let found = (event.event_type.to_owned(), event.position);
            return Ok((event.position <= through).then_some(found));
        }
        at = batch.through;
    }
    Ok(None)
}

/// Prevents code from passing events that the version reads and the code does not.
pub(crate) struct Fence {
    catalog: Arc<CatalogLog>,
    id: ViewId,
    segments: SegmentCount,
    reads: Reads,
}

impl Fence {
    pub(crate) fn new(catalog: Arc<CatalogLog>, id: ViewId, segments: SegmentCount, reads: Reads) -> Self {
        Self { catalog, id, segments, reads }
    }

    /// Returns the difference between the code and the catalog's record for its number, through `through`. `None` lets
    /// tokens move through that position. An announcement or a record after it comes before all events that it is
    /// about.
    pub(crate) async fn unlike(&self, through: Position) -> Result<Option<CodeMismatch>, StoreError> {
        let catalog = self.catalog.through(through).await?;
        Ok(catalog.version(&self.id).and_then(|state| state.unlike(self.segments, &self.reads)))
    }
}

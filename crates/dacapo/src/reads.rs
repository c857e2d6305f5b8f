//! What the code of a version reads, held against what the catalog has recorded for its number.
//!
//! A node agrees on it before it runs ([`agree`]), and every processor looks again before it commits past a position
//! ([`Fence`]). The rules, and why they are exact, are in `dacapo_model::reads`; here they are carried out.

use std::collections::BTreeSet;
use std::sync::Arc;

use dacapo_model::rebuild::Code;
use dacapo_model::{
    Announced, CatalogCommand, CatalogRefused, Position, ProjectionName, Reads, SegmentCount, Unlike, ViewId,
    category_of, limits,
};
use dacapo_store::{Filter, Journal, Limit, StoreError, Streams, Table};

use crate::catalog::{Asked, CatalogError, CatalogLog};
use crate::node::StartError;
use crate::projection::Carried;

/// Why a node does not carry a version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CarryRefused {
    /// Another projection of the same name and version is carried, and only one of them would run.
    #[error(
        "{projection} v{code} is carried twice: each version of a projection has one code; give one of them another \
         `NAME`, or a `VERSION` of its own"
    )]
    Twice {
        /// The projection.
        projection: ProjectionName,
        /// The code version.
        code: u32,
    },
    /// No stream is of such a category.
    #[error(
        "{projection} v{code} asks for streams of the category {category:?}, and there can be none: a category is what \
         comes before the first '-' of a stream's name, so {category:?} as the beginning of a name is of the category \
         {instead:?}; name that one, or name the streams otherwise"
    )]
    Category {
        /// The projection.
        projection: ProjectionName,
        /// The code version.
        code: u32,
        /// The category as its options name it.
        category: String,
        /// The category of streams whose names begin so.
        instead: String,
    },
    /// It would read the streams of dacapo itself.
    #[error(
        "{projection} v{code} asks for streams of the category {category:?}: names that begin with '$' belong to dacapo \
         itself, and no projection reads them"
    )]
    System {
        /// The projection.
        projection: ProjectionName,
        /// The code version.
        code: u32,
        /// The category as its options name it.
        category: String,
    },
    /// It has a unique index and more than one segment. Segments come past events each at its own pace, also on one node, so
    /// which of two rows had a value first would depend on that.
    #[error(
        "{projection} v{code} has a unique index on table {table} and {segments} segments: what is unique can be promised \
         within one segment only. Give it one segment, or make the index a plain one and let a check of the version look \
         for values that are there twice"
    )]
    Unique {
        /// The projection.
        projection: ProjectionName,
        /// The code version.
        code: u32,
        /// The table with the unique index.
        table: &'static str,
        /// How many segments it asks for.
        segments: SegmentCount,
    },
    /// It names no category at all.
    #[error("{projection} v{code} asks for streams of no category: name some, or leave `categories` unset for all")]
    NoCategory {
        /// The projection.
        projection: ProjectionName,
        /// The code version.
        code: u32,
    },
}

/// Looks whether a version could ever apply an event, and whether what it asks for can be promised.
///
/// # Errors
/// [`CarryRefused`] when its options name categories that no stream of a user has, or several segments beside a unique
/// index.
pub(crate) fn check(carried: &Carried) -> Result<(), CarryRefused> {
    let (projection, code) = (carried.code.projection.clone(), carried.code.code);
    let has_unique = |table: &&Table| table.indexes.iter().any(|index| index.unique);
    let segments = carried.options.segments;
    if let Some(table) = carried.tables.iter().find(has_unique).filter(|_| segments != SegmentCount::ONE) {
        return Err(CarryRefused::Unique { projection, code, table: table.name, segments });
    }
    let Some(categories) = &carried.options.categories else { return Ok(()) };
    if categories.is_empty() {
        return Err(CarryRefused::NoCategory { projection, code });
    }
    for category in categories.iter().cloned() {
        if category.starts_with('$') {
            return Err(CarryRefused::System { projection, code, category });
        }
        if category_of(&category) != category {
            let instead = category_of(&category).to_owned();
            return Err(CarryRefused::Category { projection, code, category, instead });
        }
    }
    Ok(())
}

/// Looks whether each version that a node starts with could run.
///
/// # Errors
/// [`CarryRefused`] for the first that could not.
pub(crate) fn check_all(carried: &[Carried]) -> Result<(), CarryRefused> {
    let mut seen = BTreeSet::new();
    for carried in carried {
        check(carried)?;
        let Code { projection, code, .. } = &carried.code;
        if !seen.insert((projection, *code)) {
            return Err(CarryRefused::Twice { projection: projection.clone(), code: *code });
        }
    }
    Ok(())
}

/// Has the catalog agree that this code is that of its number, or that it may read the types that were added. Returns
/// once that is decided.
///
/// # Errors
/// [`StartError::Code`] when it is another code, or the journal has events of the added types, which the version has not
/// read.
pub(crate) async fn agree(
    journal: &Arc<dyn Journal>,
    catalog: &Arc<CatalogLog>,
    carried: &Carried,
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
            (Some(Unlike::Undecided { .. }), Some(announced)) => {
                settle(journal, catalog, view, announced, state.reads.as_ref()).await?;
                continue;
            }
            (None, _) if current.lacks_reads(code) => Position::START,
            (None, _) => return Ok(()),
            (Some(Unlike::Added { types, .. }), _) => {
                let head = *journal.head().borrow();
                let recorded = state.reads.clone().unwrap_or_default();
                if let Some(event) = first(journal, &code.reads, &recorded, Position::START, head).await? {
                    return Err(refused(Unlike::Added { types, event: Some(event) }));
                }
                tracing::info!(%view, ?types, "the code reads more types, of which the journal has no event");
                head
            }
            (Some(unlike), _) => return Err(refused(unlike)),
        };
        let announce = CatalogCommand::AnnounceReads { code: code.clone(), checked };
        match Arc::clone(catalog).change(announce, Asked::by_plan()).await {
            // Somebody else changed it meanwhile, or announces something too: looked at again.
            Ok(_) | Err(CatalogError::Refused(_)) => {}
            Err(error) => return Err(unreached(error).into()),
        }
    }
}

/// Decides about an announcement: the version may read the added types if none of their events came before it. Any node
/// can tell, and the first one to do so counts.
pub(crate) async fn settle(
    journal: &Arc<dyn Journal>,
    catalog: &Arc<CatalogLog>,
    view: ViewId,
    announced: &Announced,
    recorded: Option<&Reads>,
) -> Result<(), StoreError> {
    let Announced { position, reads, checked } = announced;
    let recorded = recorded.cloned().unwrap_or_default();
    let found = first(journal, reads, &recorded, *checked, *position).await?;
    if let Some((event_type, event)) = &found {
        tracing::warn!(%view, event_type, %event, "more types were announced, and an event of them came before");
    }
    let settle = CatalogCommand::SettleReads { view, announced: *position, found };
    match Arc::clone(catalog).change(settle, Asked::by_plan()).await {
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

/// The first event behind `after` and through `through` that `wider` reads and `recorded` does not.
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
        // What another node has appended may be known of before the head is.
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

/// What keeps code from passing events that the version reads and the code does not.
pub(crate) struct Fence {
    catalog: Arc<CatalogLog>,
    id: ViewId,
    segments: SegmentCount,
    reads: Reads,
}

impl Fence {
    pub(crate) fn new(catalog: Arc<CatalogLog>, id: ViewId, carried: &Carried) -> Self {
        Self { catalog, id, segments: carried.code.segments, reads: carried.code.reads.clone() }
    }

    /// In what the code is unlike what the catalog has recorded for its number, at `through` at the latest: `None` lets
    /// tokens move through there. An announcement or a record behind it comes before all events that it is about.
    pub(crate) async fn unlike(&self, through: Position) -> Result<Option<Unlike>, StoreError> {
        let catalog = self.catalog.through(through).await?;
        Ok(catalog.version(&self.id).and_then(|state| state.unlike(self.segments, &self.reads)))
    }
}

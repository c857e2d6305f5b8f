//! What keeps a node from carrying a version, as far as its code alone tells.

use std::collections::BTreeSet;

use dacapo_model::rebuild::Code;
use dacapo_model::{ProjectionName, SegmentCount, category_of};
use dacapo_store::Table;

use super::VersionCode;

/// Why a node does not carry a version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
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
pub(crate) fn check(carried: &VersionCode) -> Result<(), CarryRefused> {
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
        match never(&category) {
            None => {}
            Some(Never::System) => return Err(CarryRefused::System { projection, code, category }),
            Some(Never::Category { instead }) => {
                return Err(CarryRefused::Category { projection, code, category, instead });
            }
        }
    }
    Ok(())
}

/// Why no stream that a user may read is of a category.
enum Never {
    System,
    Category {
        /// The category of streams whose names begin so.
        instead: String,
    },
}

fn never(category: &str) -> Option<Never> {
    if category.starts_with('$') {
        return Some(Never::System);
    }
    let instead = category_of(category);
    (instead != category || category.is_empty()).then(|| Never::Category { instead: instead.to_owned() })
}

/// Checks the categories that a subscription asks for, as those of a projection are checked. Those of `system` streams are
/// read by operators only.
///
/// # Errors
/// Why no stream is of one of them.
pub(crate) fn check_categories(categories: &[String], system: bool) -> Result<(), String> {
    if categories.is_empty() {
        return Err("streams of no category are asked for: name some, or leave categories away for all".into());
    }
    let checked = categories.iter().filter(|category| !(system && category.starts_with('$')));
    match checked.into_iter().find_map(|category| Some((category, never(category)?))) {
        None => Ok(()),
        Some((category, Never::System)) => {
            Err(format!("it asks for streams of the category {category:?}: those belong to dacapo itself"))
        }
        Some((category, Never::Category { instead })) => Err(format!(
            "no stream is of the category {category:?}: a category is what comes before the first '-' of a stream's \
             name; streams whose names begin so are of the category {instead:?}"
        )),
    }
}

/// Looks whether each version that a node starts with could run.
///
/// # Errors
/// [`CarryRefused`] for the first that could not.
pub(crate) fn check_all(carried: &[VersionCode]) -> Result<(), CarryRefused> {
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

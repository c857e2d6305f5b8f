//! The rules that prevent a node from carrying a version, as far as its code alone shows.

use std::collections::BTreeSet;

use dacapo_model::rebuild::Code;
use dacapo_model::{ProjectionName, SegmentCount, category_of};
use dacapo_store::Table;

use super::VersionCode;

/// The reason why a node does not carry a version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CarryRefused {
    /// Another projection with the same name and version is carried. Only one of them would run.
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
    /// No stream can have such a category.
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
        /// The category in its options.
        category: String,
        /// The category of streams whose names begin with that text.
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
        /// The category in its options.
        category: String,
    },
    /// It has a unique index and more than one segment. Each segment passes events at its own pace, even on one node,
    /// so the pace would decide which of two rows had a value first.
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
        /// The number of segments in its options.
        segments: SegmentCount,
    },
    /// Two of its tables have one name. Names that differ only in case count as one, since SQL does not tell them
    /// apart.
    #[error(
        "{projection} v{code} has two tables with one name, {:?} and {:?}: give one of their row types another name, with \
         `#[row(table = …)]`",
        .tables[0],
        .tables[1]
    )]
    Tables {
        /// The projection.
        projection: ProjectionName,
        /// The code version.
        code: u32,
        /// The names of both tables.
        tables: [&'static str; 2],
    },
    /// It answers queries of a type that names another projection. Nobody could ask them: a query goes to the projection
    /// that it names.
    #[error(
        "{projection} v{code} answers {query}, which is a query to the projection {names:?}: set `PROJECTION` of the \
         query to {:?}, or let {names:?} answer it",
        projection.as_str()
    )]
    Query {
        /// The projection.
        projection: ProjectionName,
        /// The code version.
        code: u32,
        /// The name of the query's type.
        query: &'static str,
        /// The projection that the query names.
        names: &'static str,
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

/// Checks that a version can ever apply an event, and that its options can be fulfilled.
///
/// # Errors
/// [`CarryRefused`] if its options name categories that no stream of a user has, or several segments with a unique
/// index; if two of its tables have one name; or if it answers queries to another projection.
pub(crate) fn check(carried: &VersionCode) -> Result<(), CarryRefused> {
    let (projection, code) = (carried.code.projection.clone(), carried.code.code);
    let has_unique = |table: &&Table| table.indexes.iter().any(|index| index.unique);
    let segments = carried.options.segments;
    if let Some(table) = carried.tables.iter().find(has_unique).filter(|_| segments != SegmentCount::ONE) {
        return Err(CarryRefused::Unique { projection, code, table: table.name, segments });
    }
    if let Some(tables) = one_name(carried.tables) {
        return Err(CarryRefused::Tables { projection, code, tables });
    }
    if let Some((query, names)) = carried.foreign_query {
        return Err(CarryRefused::Query { projection, code, query, names });
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

/// Returns the names of the first two tables that have one name.
fn one_name(tables: &[Table]) -> Option<[&'static str; 2]> {
    tables.iter().enumerate().find_map(|(at, table)| {
        let other = tables[..at].iter().find(|other| other.name.eq_ignore_ascii_case(table.name))?;
        Some([other.name, table.name])
    })
}

/// The reason why no stream that a user may read has a category.
enum Never {
    System,
    Category {
        /// The category of streams whose names begin with that text.
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

/// Checks the categories of a subscription, by the same rules as those of a projection. Only operators read those of
/// `system` streams.
///
/// # Errors
/// The reason why no stream has one of them.
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

/// Checks that each version that a node starts with could run.
///
/// # Errors
/// [`CarryRefused`] for the first one that could not.
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

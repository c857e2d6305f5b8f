//! The texts of the statements that read, and what a filter wants of their rows.

use std::borrow::Cow;

use dacapo_model::Position;
use dacapo_store::{Filter, Limit, Streams};
use sqlx::Postgres;
use sqlx::postgres::PgArguments;
use sqlx::query::Query;

use crate::quote::literal;

/// The statement that reads the rows of a choice in an order, within a bound in bytes.
macro_rules! bounded {
    (order $order:literal, $($choice:expr),+) => {
        concat!(
            "SELECT position, recorded, revision, flags, id, stream, type, extra, \
             CASE WHEN n = 1 OR through <= $1 THEN payload END FROM \
             (SELECT *, row_number() OVER w AS n, sum(size) OVER w AS through FROM (",
            $($choice),+, " ORDER BY ", $order, " LIMIT $4) AS chosen \
             WINDOW w AS (ORDER BY ", $order, " ROWS UNBOUNDED PRECEDING)) AS sized \
             WHERE n <= 2 OR through - size <= $1 ORDER BY ", $order
        )
    };
}

/// The same of positions of which none is missing: nothing at all comes if one is, and an empty row if nothing is chosen.
macro_rules! counted {
    ($through:literal, $count:literal, $($choice:expr),+) => {
        concat!(
            "SELECT read.* FROM (SELECT FROM events WHERE position > $2 AND position <= ", $through,
            " HAVING count(*) = ", $count, ") AS counted LEFT JOIN (",
            bounded!(order "position", $($choice),+),
            ") AS read ON true ORDER BY position"
        )
    };
}

/// The condition of a [`Filter`] on rows.
macro_rules! wanted {
    () => {
        " AND (NOT $5 OR stream < '$' OR stream >= '%') \
          AND ($6::text[] IS NULL OR split_part(stream, '-', 1) = ANY ($6))"
    };
}

/// Everything, bounded in the same way: since positions have no holes, the bytes through each event tell where.
pub(super) const EVERYTHING: &str = "SELECT position, recorded, revision, flags, id, stream, type, extra, \
    CASE WHEN position = $2 + 1 OR total <= bound THEN payload END \
    FROM (SELECT $1 + coalesce((SELECT total FROM events WHERE position = $2), 0) AS bound) AS bounded CROSS JOIN events \
    WHERE position > $2 AND position <= $3 AND (position <= $2 + 2 OR total - size <= bound) ORDER BY position LIMIT $4";

/// The wanted ones among all positions of a page.
pub(super) const PAGE: &str = counted!(
    "$3",
    "$3 - $2",
    "SELECT * FROM events WHERE position > $2 AND position <= $3 AND ($7::text[] IS NULL OR type = ANY ($7))",
    wanted!()
);

/// The wanted ones, wherever they are: of each type the next ones, of these the first. Only the first position is counted:
/// the others are once it is known how far it went ([`COUNT`]).
pub(super) const SPARSE: &str = counted!(
    "$2 + 1",
    "1",
    "SELECT of_type.* FROM unnest($7::text[]) AS wanted (type) CROSS JOIN LATERAL (\
     SELECT * FROM events WHERE events.type = wanted.type AND position > $2 AND position <= $3",
    wanted!(),
    " ORDER BY position LIMIT $4) AS of_type"
);

/// The number of events. Of what was vacuumed that is read off the index alone, ten times as fast as events are.
pub(super) const COUNT: &str = "SELECT count(*) FROM events WHERE position > $1 AND position <= $2";

pub(super) const STREAM: &str = bounded!(order "revision", "SELECT * FROM events WHERE stream = $2 AND revision > $3");

/// The streams from one name on and before another: for each the next one is looked for in the index.
pub(super) const STREAMS: &str = "WITH RECURSIVE names AS (\
    (SELECT stream FROM events WHERE stream >= $1 AND ($2::text IS NULL OR stream < $2) ORDER BY stream LIMIT 1) \
    UNION ALL SELECT (SELECT e.stream FROM events e \
        WHERE e.stream > names.stream AND ($2::text IS NULL OR e.stream < $2) ORDER BY e.stream LIMIT 1) \
    FROM names WHERE names.stream IS NOT NULL) \
    SELECT names.stream, last.revision, last.position FROM names CROSS JOIN LATERAL (\
        SELECT revision, position FROM events e WHERE e.stream = names.stream ORDER BY revision DESC LIMIT 1) AS last \
    LIMIT $3";

/// Where the journal ends, and the last digest through a position.
pub(super) const MARK: &str = "SELECT coalesce((SELECT max(position) FROM events), 0), coalesce(last.position, 0), \
    coalesce(last.digest, '') FROM (SELECT) AS one LEFT JOIN LATERAL (\
        SELECT position, digest FROM events WHERE position <= $1 AND digest <> '' ORDER BY position DESC LIMIT 1\
    ) AS last ON true";

/// Where the journal ends, its digest there, and that at another position.
pub(super) const HEAD: &str = "SELECT position, digest, (SELECT digest FROM events WHERE position = $1) FROM events \
    ORDER BY position DESC LIMIT 1";

pub(super) const LAST_OF_STREAM: &str =
    "SELECT stream, revision, position FROM events WHERE stream = $1 ORDER BY revision DESC LIMIT 1";

pub(super) type Sql<'q> = Query<'q, Postgres, PgArguments>;

/// What a [`Filter`] wants of rows, as a statement says it.
pub(super) struct Choice<'a> {
    user: bool,
    categories: Option<&'a [String]>,
    types: Option<&'a [String]>,
}

impl<'a> Choice<'a> {
    pub(super) fn of(filter: &'a Filter) -> Self {
        let categories = match &filter.streams {
            Streams::Categories(categories) => Some(categories.as_slice()),
            Streams::User | Streams::All => None,
        };
        Self { user: filter.streams == Streams::User, categories, types: filter.types.as_deref() }
    }

    /// Bound to the parameters of [`wanted`] and of the types; to none where everything is wanted.
    fn bind(self, sql: Sql<'a>) -> Sql<'a> {
        match self {
            Self { user: false, categories: None, types: None } => sql,
            Self { user, categories, types } => sql.bind(user).bind(categories).bind(types),
        }
    }

    /// As a condition without parameters; `None` where everything is wanted.
    pub(super) fn literal(&self) -> Option<String> {
        let list = |texts: &[String]| match texts {
            [] => "(NULL)".to_owned(),
            _ => format!("({})", texts.iter().map(|text| literal(text)).collect::<Vec<_>>().join(", ")),
        };
        let of_user = self.user.then(|| "(stream < '$' OR stream >= '%')".to_owned());
        let of_category = self.categories.map(|names| format!("split_part(stream, '-', 1) IN {}", list(names)));
        let of_type = self.types.map(|types| format!("type IN {}", list(types)));
        let wanted: Vec<String> = of_user.into_iter().chain(of_category).chain(of_type).collect();
        (!wanted.is_empty()).then(|| wanted.join(" AND "))
    }
}

/// Returns a statement about positions, with its parameters.
pub(super) fn range<'q>(
    sql: &'static str,
    after: Position,
    to: Position,
    filter: &'q Filter,
    most: usize,
    limit: Limit,
) -> Sql<'q> {
    let sql = sqlx::query(sql).bind(int8(limit.bytes as u64)).bind(int8(after.get())).bind(int8(to.get()));
    Choice::of(filter).bind(sql.bind(int8(most as u64)))
}

/// Returns the filter without names that nothing has because PostgreSQL has no text with them.
pub(super) fn storable(filter: &Filter) -> Cow<'_, Filter> {
    let odd = |names: &[String]| names.iter().any(|name| name.contains('\0'));
    let categories = match &filter.streams {
        Streams::Categories(categories) => categories.as_slice(),
        Streams::User | Streams::All => &[],
    };
    if !odd(categories) && !filter.types.as_deref().is_some_and(odd) {
        return Cow::Borrowed(filter);
    }
    let mut filter = filter.clone();
    if let Streams::Categories(categories) = &mut filter.streams {
        categories.retain(|name| !name.contains('\0'));
    }
    if let Some(types) = &mut filter.types {
        types.retain(|name| !name.contains('\0'));
    }
    Cow::Owned(filter)
}

/// A number as PostgreSQL has it; a place that no journal reaches stays one.
pub(super) fn int8(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

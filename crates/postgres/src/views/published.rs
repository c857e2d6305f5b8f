//! The names under which SQL from outside finds what serves: a schema a projection, `dacapo_balances`, with an SQL view
//! for each table of the version that serves, and `_dacapo_serving`, which says which version that is and what it covers.
//!
//! Names move in one transaction, and only forward: to a later flip (anyone who slept through one comes too late), and only
//! once the new version covers everything that the old one has ever shown, so that a query is not sent back in time (I-7).
//! Meanwhile the old one is kept where it is; nobody waits for it, since it serves no more. PostgreSQL lets no query use
//! a name that somebody waits to move, so that wait is short, and it is tried again later.
//!
//! Somebody may drop a name, and a name goes with the schema of the version that it shows. So a node looks from time to
//! time whether all names are there, and makes them again if not.

use std::cmp::Ordering;

use dacapo_model::{Position, ViewId};
use dacapo_store::StoreError;
use dacapo_store::shape::SEGMENT;
use dacapo_store::view_form::number;
use sqlx::Row;
use sqlx::postgres::PgArguments;
use tokio::time::Instant;

use super::Home;
use super::names::{outside_name, schema_name};
use super::rows::{Failed, Sent};
use super::schema::About;
use super::session::Session;
use super::value::added;
use crate::limits;
use crate::quote::{literal, quoted};

/// The SQL view that says which version serves.
const SERVING: &str = "_dacapo_serving";

/// What the names of a projection show.
struct Shown {
    version: String,
    flip: i64,
    names: Vec<String>,
}

/// Lets the names of its projection show the view from the flip at `flip` on.
pub(super) async fn publish(session: &mut Session, home: &Home, id: &ViewId, flip: Position) -> Sent<()> {
    // Nearly always they are as they should be, which takes no lock to find out.
    let now = read(session, id, "").await?;
    if let Some(now) = now
        && stands(session, home, id, flip, &now).await?
    {
        return Ok(());
    }
    let lock = limits::NAME_LOCK_TIME_MAX.as_millis();
    session.begin(format!("BEGIN; SET LOCAL lock_timeout = {lock}")).await?;
    let shown = shown(session, id).await?;
    if stands(session, home, id, flip, &shown).await? {
        return Ok(session.rollback().await?);
    }
    let version = id.version.to_string();
    let is_shown = shown.version == version && is_there(session, home, id, &shown).await?;
    let was_shown = number(flip) == shown.flip;
    let (names, ddl) = match is_shown {
        true => (shown.names, String::new()),
        false => moves(session, home, id, &shown).await?,
    };
    let names: Vec<String> = names.iter().map(|name| literal(name)).collect();
    let update = format!(
        "UPDATE published SET version = {}, flip = {}, names = ARRAY[{}]::text[] WHERE projection = {};",
        literal(&version),
        number(flip),
        names.join(", "),
        literal(id.projection.as_str()),
    );
    session.commit_after(ddl + &update).await?;
    if was_shown {
        tracing::warn!(view = %id, "names for SQL from outside were gone or showed something else, and are made again");
    }
    Ok(())
}

/// Returns true if there is nothing to do: the names show the view of a later flip, or this one with all its names.
async fn stands(session: &mut Session, home: &Home, id: &ViewId, flip: Position, shown: &Shown) -> Sent<bool> {
    match number(flip).cmp(&shown.flip) {
        Ordering::Less => Ok(true),
        Ordering::Equal => is_there(session, home, id, shown).await,
        Ordering::Greater => Ok(false),
    }
}

/// Returns true if all the names are there, and each shows something of the view.
async fn is_there(session: &mut Session, home: &Home, id: &ViewId, shown: &Shown) -> Sent<bool> {
    let schema = &home.database.options().schema;
    let mut arguments = PgArguments::default();
    added(&mut arguments, outside_name(schema, &id.projection))?;
    added(&mut arguments, schema_name(schema, id))?;
    added(&mut arguments, shown.names.clone())?;
    let sql = "SELECT FROM unnest($3::text[]) AS wanted (name) WHERE NOT EXISTS (
                   SELECT FROM pg_class AS named
                   JOIN pg_rewrite AS rule ON rule.ev_class = named.oid
                   JOIN pg_depend AS uses ON uses.classid = 'pg_rewrite'::regclass AND uses.objid = rule.oid
                       AND uses.refclassid = 'pg_class'::regclass
                   JOIN pg_class AS used ON used.oid = uses.refobjid
                   WHERE named.relname = wanted.name AND named.relkind = 'v'
                     AND named.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = $1)
                     AND used.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = $2))";
    Ok(!shown.names.is_empty() && session.fetch(sql, arguments).await?.is_empty())
}

/// Refuses to continue while the names of its projection show the view, and keeps them from doing so until the open
/// transaction ends.
pub(super) async fn check_unpublished(session: &mut Session, home: &Home, id: &ViewId) -> Sent<()> {
    let mut arguments = PgArguments::default();
    added(&mut arguments, id.projection.to_string())?;
    let sql = "SELECT version FROM published WHERE projection = $1 FOR UPDATE";
    let rows = session.fetch(sql, arguments).await?;
    let Some(row) = rows.first() else { return Ok(()) };
    if row.try_get::<String, _>(0)? != id.version.to_string() {
        return Ok(());
    }
    let name = outside_name(&home.database.options().schema, &id.projection);
    let found = format!("the schema {name} shows it to SQL from outside: it can be dropped once those names are moved");
    Err(StoreError::unavailable(format!("drop the view {id}"), found).into())
}

/// What the names show now. Only one transaction at a time continues from here.
async fn shown(session: &mut Session, id: &ViewId) -> Sent<Shown> {
    let mut arguments = PgArguments::default();
    added(&mut arguments, id.projection.to_string())?;
    session.fetch("INSERT INTO published VALUES ($1, '', 0, '{}') ON CONFLICT DO NOTHING", arguments).await?;
    Ok(read(session, id, "FOR UPDATE").await?.ok_or_else(|| gone(id))?)
}

/// What is recorded of the names, if anything is. `lock`: how the row is locked.
async fn read(session: &mut Session, id: &ViewId, lock: &str) -> Sent<Option<Shown>> {
    let mut arguments = PgArguments::default();
    added(&mut arguments, id.projection.to_string())?;
    let sql = format!("SELECT version, flip, names FROM published WHERE projection = $1 {lock}");
    let rows = session.fetch(&sql, arguments).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    Ok(Some(Shown { version: row.try_get(0)?, flip: row.try_get(1)?, names: row.try_get(2)? }))
}

fn gone(id: &ViewId) -> StoreError {
    StoreError::unavailable(format!("name the view {id}"), "it is not there any more")
}

/// Returns the names of the view, and what moves them there, once nothing but queries of them is in the way.
async fn moves(session: &mut Session, home: &Home, id: &ViewId, shown: &Shown) -> Sent<(Vec<String>, String)> {
    let options = home.database.options();
    let (name, outside) = (schema_name(&options.schema, id), outside_name(&options.schema, &id.projection));
    About::read(session, &name).await?.ok_or_else(|| gone(id))?.readable(id, &name)?;
    if About::read(session, &outside).await?.is_some() {
        return Err(StoreError::Invalid(format!(
            "the schema {outside} is the view of a version, so SQL from outside cannot find {} by that name: give the \
             projection another name",
            id.projection
        ))
        .into());
    }
    if let Ok(version) = shown.version.parse()
        && version != id.version
    {
        let old = ViewId { version, ..id.clone() };
        let old = schema_name(&options.schema, &old);
        if About::read(session, &old).await?.is_some() {
            let all_that_it_shows = stopped(session, &quoted(&old)).await?;
            until_covered(session, id, &quoted(&name), all_that_it_shows).await?;
        }
    }
    let (names, ddl) = statements(session, &name, &outside, id, shown).await?;
    let mut arguments = PgArguments::default();
    added(&mut arguments, outside.clone())?;
    // Asked before, because making one that is there demands the right to make one.
    if session.fetch("SELECT FROM pg_namespace WHERE nspname = $1", arguments).await?.is_empty() {
        session.batch(format!("CREATE SCHEMA {}", quoted(&outside))).await?;
    }
    // One statement, so that queries wait no longer than for that, however many tables there are.
    let ddl = format!(
        "SET LOCAL statement_timeout = {}; DO {}; SET LOCAL statement_timeout = {};",
        limits::NAME_LOCK_TIME_MAX.as_millis(),
        literal(&format!("BEGIN {ddl} END")),
        limits::STATEMENT_TIME_MAX.as_millis(),
    );
    Ok((names, ddl))
}

/// Keeps the tokens of a schema where they are until the transaction ends, and returns the highest position that rows of
/// it have shown: after its tokens while a replay in place goes through the past again.
async fn stopped(session: &mut Session, schema: &str) -> Sent<i64> {
    let sql = format!(
        "LOCK TABLE {schema}._dacapo_tokens IN SHARE ROW EXCLUSIVE MODE;
         SELECT max(greatest(position, replay_through)) FROM {schema}._dacapo_tokens"
    );
    let rows = session.batch(sql).await?;
    Ok(rows.first().map(|row| row.try_get::<Option<i64>, _>(0)).transpose()?.flatten().unwrap_or_default())
}

/// Waits a little until all tokens of a schema have reached `through`.
async fn until_covered(session: &mut Session, id: &ViewId, schema: &str, through: i64) -> Sent<()> {
    let sql = format!("SELECT min(position) FROM {schema}._dacapo_tokens");
    let began = Instant::now();
    loop {
        let rows = session.fetch(&sql, PgArguments::default()).await?;
        let lowest: i64 = rows.first().ok_or_else(|| gone(id))?.try_get(0)?;
        if lowest >= through {
            return Ok(());
        }
        if began.elapsed() >= limits::NAME_COVER_TIME_MAX {
            let found =
                format!("what they show covers position {through} by now, but it covers {lowest}: a retry follows",);
            return Err(StoreError::unavailable(format!("let the names for SQL from outside show {id}"), found).into());
        }
        tokio::time::sleep(limits::NAME_COVER_LOOK).await;
    }
}

/// Returns the names of the new version, and what brings the schema `outside` to them.
async fn statements(
    session: &mut Session,
    name: &str,
    outside: &str,
    id: &ViewId,
    shown: &Shown,
) -> Sent<(Vec<String>, String)> {
    let sql = "SELECT tables.relname::text, string_agg(quote_ident(columns.attname), ', ' ORDER BY columns.attnum)
               FROM pg_class AS tables JOIN pg_attribute AS columns ON columns.attrelid = tables.oid
               WHERE tables.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = $1) AND tables.relkind = 'r'
                 AND NOT starts_with(tables.relname, '_dacapo_') AND columns.attnum > 0 AND NOT columns.attisdropped
                 AND columns.attname <> $2
               GROUP BY 1 ORDER BY 1";
    let mut arguments = PgArguments::default();
    added(&mut arguments, name.to_owned())?;
    added(&mut arguments, SEGMENT.to_owned())?;
    let (from, into) = (quoted(name), quoted(outside));
    let mut selects = vec![(
        SERVING.to_owned(),
        format!(
            "SELECT {}::text AS version, min(position) AS covers FROM {from}._dacapo_tokens",
            literal(&id.version.to_string())
        ),
    )];
    for row in session.fetch(sql, arguments).await? {
        let (table, columns): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        let select = format!("SELECT {columns} FROM {from}.{}", quoted(&table));
        selects.push((table, select));
    }
    let mark = mark(session, id).await?;
    let there = there(session, outside, &mark, shown).await?;
    let is_there = |name: &str| there.iter().find(|(found, _)| found == name);
    let is_kept = |name: &&String| selects.iter().any(|(kept, _)| kept == *name);
    let mut ddl = String::new();
    for gone in shown.names.iter().filter(|name| !is_kept(name)) {
        if is_there(gone).is_some_and(|(_, ours)| *ours) {
            ddl.push_str(&format!("DROP VIEW {into}.{};\n", quoted(gone)));
        }
    }
    let marked = literal(&mark);
    for (name, select) in &selects {
        let view = format!("{into}.{}", quoted(name));
        match is_there(name) {
            Some((_, true)) => {}
            Some((_, false)) => {
                let tried = format!("let the schema {outside} show {id} to SQL from outside");
                let found = format!(
                    "{outside}.{name} is there and is not a view that this projection of this journal has made: rename \
                     it, or give the projection or the schema of the journal another name"
                );
                return Err(StoreError::unavailable(tried, found).into());
            }
            None => {
                ddl.push_str(&format!("CREATE VIEW {view} AS {select}; COMMENT ON VIEW {view} IS {marked};\n"));
                continue;
            }
        }
        // In place where the columns are the same, or more: then rights, and whatever was built on it, stay.
        ddl.push_str(&format!(
            "BEGIN CREATE OR REPLACE VIEW {view} AS {select};
             EXCEPTION WHEN invalid_table_definition THEN DROP VIEW {view}; CREATE VIEW {view} AS {select};
             END;
             COMMENT ON VIEW {view} IS {marked};\n"
        ));
    }
    Ok((selects.into_iter().map(|(name, _)| name).collect(), ddl))
}

/// What marks a name as that of a projection of this journal. A form: names are known by it.
async fn mark(session: &mut Session, id: &ViewId) -> Sent<String> {
    let rows = session.fetch("SELECT journal::text FROM sequencer", PgArguments::default()).await?;
    let journal: String = rows.first().ok_or_else(|| gone(id))?.try_get(0)?;
    Ok(format!("dacapo {} of journal {journal}", id.projection))
}

/// What has a name in the schema `outside`, and whether that is a view which this projection of this journal made. One of
/// an earlier release has no mark; then it must be noted. Nobody else makes names there until the transaction ends.
async fn there(session: &mut Session, outside: &str, mark: &str, shown: &Shown) -> Sent<Vec<(String, bool)>> {
    let mut arguments = PgArguments::default();
    added(&mut arguments, format!("dacapo names {outside}"))?;
    session.fetch("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", arguments).await?;
    let mut arguments = PgArguments::default();
    added(&mut arguments, outside.to_owned())?;
    let sql = "SELECT relname::text, relkind = 'v', obj_description(oid, 'pg_class') FROM pg_class
               WHERE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = $1)";
    let rows = session.fetch(sql, arguments).await?;
    let one = |row: &sqlx::postgres::PgRow| -> Sent<(String, bool)> {
        let (name, is_view, found): (String, bool, Option<String>) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        let is_ours = match found {
            Some(found) if found.starts_with("dacapo ") => found == mark,
            _ => shown.names.contains(&name),
        };
        Ok((name, is_view && is_ours))
    };
    rows.iter().map(one).collect()
}

/// What went wrong with the names, in words for the person who can repair it.
pub(super) fn wrong(home: &Home, id: &ViewId, failed: Failed) -> StoreError {
    let outside = outside_name(&home.database.options().schema, &id.projection);
    let tried = format!("let the schema {outside} show {id} to SQL from outside");
    match super::code(&failed).as_deref() {
        Some("42501") => {
            let found = "this user may not make or change it: let it be the owner, or GRANT CREATE ON DATABASE … TO …";
            StoreError::unavailable(tried, found)
        }
        // A lock was not had in time, or the statement that waited for it was ended.
        Some("55P03" | "57014") => {
            let found = "a query of its names, or a batch of the version that they show, takes longer than it may be \
                         waited for: it is tried again";
            StoreError::unavailable(tried, found)
        }
        Some("2BP01") => {
            let found = "an object of yours depends on a column that the new version does not have: drop it, or let it \
                         use columns that stay";
            StoreError::unavailable(tried, found)
        }
        _ => match failed {
            Failed::Here(error) => error,
            Failed::There(error) => crate::fault::fault_of_call(&tried, &error),
        },
    }
}

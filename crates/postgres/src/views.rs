//! Views in PostgreSQL: a schema a version, `dacapo_balances_v2_1`.
//!
//! ```text
//!  views.rs ─┬─ open, find, list, drop ─▶ schema.rs, names.rs
//!     │       └─ publish ──────────────▶ published.rs: the names for SQL from outside
//!     └▶ view.rs ─┬─ tokens, claim, hold, lift ─────────▶ tokens.rs, health.rs
//!                 ├─ letters, outbox ───────────────────▶ letters.rs, outbox.rs
//!                 ├─ writer.rs ─ rows, SQL, index, commit ─┐
//!                 └─ reader.rs ─ one state ────────────────┴▶ rows.rs, sql.rs, value.rs ─▶ session.rs
//! ```
//!
//! Several nodes write to one view, each to its own segments, with no lock between them but those of the rows that they
//! write and of the tokens that they move. What keeps a node from writing that has lost its segment is the statement
//! that moves the tokens (I-4), at the end of each transaction.
//!
//! No transaction waits for anything but the database, except for a handler that wrote SQL and continues. The server ends
//! one that waits too long, and a statement that nobody waits for any more.

mod begun;
mod health;
mod history;
mod letters;
mod names;
mod numeric;
mod outbox;
mod published;
mod reader;
mod rows;
mod schema;
mod session;
mod sql;
mod tokens;
mod value;
mod view;
mod writer;

use std::sync::Arc;

use async_trait::async_trait;
use dacapo_model::{Position, ProjectionName, SegmentCount, VersionId, ViewId};
use dacapo_store::{StoreError, Table, View, Views, shape};
use sqlx::Row;
use sqlx::postgres::PgArguments;
use tokio::sync::Semaphore;

use crate::quote::quoted;
use crate::{Database, limits};
use names::schema_name;
use rows::{Failed, Sent};
use schema::About;
use session::Session;
use value::added;
use view::PgView;

/// The views beside the journal of one database.
pub struct PostgresViews {
    home: Arc<Home>,
}

/// The part that all views of a database share.
#[derive(Debug)]
struct Home {
    database: Arc<Database>,
    /// Those who keep a state of a view leave connections to those who write.
    readers: Arc<Semaphore>,
}

impl PostgresViews {
    /// Returns the views of `database`.
    #[expect(clippy::expect_used, reason = "a u32 fits in a usize")]
    pub fn new(database: Arc<Database>) -> Self {
        let readers = (database.options().connections_max / 2).max(1);
        let readers = Arc::new(Semaphore::new(usize::try_from(readers).expect("a u32 fits in a usize")));
        Self { home: Arc::new(Home { database, readers }) }
    }

    /// Returns the name of the schema of a view.
    fn name(&self, id: &ViewId) -> String {
        schema_name(&self.home.database.options().schema, id)
    }

    fn view(&self, id: &ViewId) -> Arc<dyn View> {
        Arc::new(PgView::new(Arc::clone(&self.home), id, quoted(&self.name(id))))
    }

    /// Begins a transaction that makes or drops the view, which only one does at a time.
    async fn begin(&self, session: &mut Session, name: &str) -> Sent<()> {
        session
            .begin(format!(
                "BEGIN; SET LOCAL client_connection_check_interval = {check}; SET LOCAL lock_timeout = {wait};
                 SELECT pg_advisory_xact_lock(hashtextextended('dacapo view {name}', 0))",
                check = limits::CLIENT_LOOK.as_millis(),
                wait = limits::MAKE_LOCK_TIME_MAX.as_millis(),
            ))
            .await?;
        Ok(())
    }

    /// Makes the view unless another node did, whose view is the answer.
    async fn make(&self, name: &str, about: &About, tables: &[Table]) -> Sent<Option<About>> {
        let mut session = Session::open(&self.home, "make a view").await?;
        self.begin(&mut session, name).await?;
        let there = About::read(&mut session, name).await?;
        if there.is_none() {
            session.batch(about.create(name, tables)).await?;
        }
        session.commit().await?;
        Ok(there)
    }

    async fn read(&self, name: &str) -> Sent<Option<About>> {
        let mut session = Session::open(&self.home, "look for a view").await?;
        match About::read(&mut session, name).await {
            // It was dropped since its name was looked up.
            Err(failed) if view::is_gone(&failed) => Ok(None),
            about => about,
        }
    }

    /// Schemas that may be views of this journal.
    async fn candidates(&self) -> Sent<Vec<String>> {
        let mut session = Session::open(&self.home, "list the views").await?;
        let mut arguments = PgArguments::default();
        added(&mut arguments, format!("{}_", self.home.database.options().schema))?;
        let sql = "SELECT schema.nspname::text FROM pg_namespace AS schema
                   JOIN pg_class AS about ON about.relnamespace = schema.oid
                   WHERE about.relname = '_dacapo_view' AND about.relkind = 'r' AND starts_with(schema.nspname, $1)";
        let rows = session.fetch(sql, arguments).await?;
        Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
    }

    /// Drops the schema, unless it is none of ours or somebody keeps it from that.
    async fn try_drop(&self, id: &ViewId, name: &str) -> Sent<()> {
        let mut session = Session::open(&self.home, "drop a view").await?;
        self.begin(&mut session, name).await?;
        match About::read(&mut session, name).await? {
            Some(about) if about.view == id.to_string() => {
                // With it would go the names that show it.
                published::check_unpublished(&mut session, &self.home, id).await?;
                check_alone(&mut session, id, name).await?;
                let wait = limits::DROP_LOCK_TIME_MAX.as_millis();
                let schema = quoted(name);
                session.batch(format!("SET LOCAL lock_timeout = {wait}; DROP SCHEMA {schema} CASCADE")).await?;
            }
            _ => {}
        }
        Ok(session.commit().await?)
    }

    /// Ends the connections of nodes that hold a lock on something in the schema: writers that lost their claim when
    /// the view's epochs were revoked, and readers of a version that nobody is shown any more.
    async fn cut_off(&self, name: &str) -> Sent<()> {
        let mut session = Session::open(&self.home, "drop a view").await?;
        let mut arguments = PgArguments::default();
        added(&mut arguments, quoted(name))?;
        let sql = "SELECT pg_terminate_backend(pid) FROM (
                       SELECT DISTINCT held.pid FROM pg_locks AS held JOIN pg_class AS locked ON locked.oid = held.relation
                       JOIN pg_stat_activity AS who ON who.pid = held.pid
                       WHERE locked.relnamespace = to_regnamespace($1) AND held.granted AND who.usename = current_user
                         AND who.application_name = current_setting('application_name')
                         AND held.database = (SELECT oid FROM pg_database WHERE datname = current_database())
                         AND held.pid <> pg_backend_pid()) AS those";
        session.fetch(sql, arguments).await?;
        Ok(())
    }
}

#[async_trait]
impl Views for PostgresViews {
    async fn open(&self, id: &ViewId, tables: &[Table], segments: SegmentCount) -> Result<Arc<dyn View>, StoreError> {
        shape::check(tables)?;
        names::check(tables)?;
        let (name, asked) = (self.name(id), About::new(id, tables, segments));
        let opened = async {
            match self.read(&name).await? {
                Some(there) => Ok(Some(there)),
                None => self.make(&name, &asked, tables).await,
            }
        };
        let there = opened.await.map_err(|failed| may_not_make(id, &name, failed))?;
        if let Some(there) = there {
            there.readable(id, &name)?;
            there.same(&asked, id)?;
        }
        Ok(self.view(id))
    }

    async fn find(&self, id: &ViewId) -> Result<Option<Arc<dyn View>>, StoreError> {
        let name = self.name(id);
        let about = self.read(&name).await.map_err(|failed| view::fault(id, "look for", failed))?;
        let Some(about) = about else { return Ok(None) };
        about.readable(id, &name)?;
        Ok(Some(self.view(id)))
    }

    async fn list(&self) -> Result<Vec<ViewId>, StoreError> {
        let failed = |failed| match failed {
            Failed::Here(error) => error,
            Failed::There(error) => crate::fault::fault("list the views", &error),
        };
        let mut views = Vec::new();
        for name in self.candidates().await.map_err(failed)? {
            let about = self.read(&name).await.map_err(failed)?;
            let Some(id) = about.and_then(|about| parsed(&about.view)) else { continue };
            // Another journal's schemas may have names that begin with this one's.
            if self.name(&id) == name {
                views.push(id);
            }
        }
        views.sort();
        Ok(views)
    }

    fn check_names(&self, known: &[&ProjectionName], new: &[&ProjectionName]) -> Result<(), StoreError> {
        let all = || known.iter().chain(new);
        let pairs = new.iter().flat_map(|new| all().flat_map(move |other| [(*new, *other), (*other, *new)]));
        for (one, other) in pairs {
            if names::is_of_version(one, other) {
                let schema = names::outside_name(&self.home.database.options().schema, one);
                return Err(StoreError::Invalid(format!(
                    "the projections {one} and {other} would have a schema of one name: in {schema} SQL from outside finds \
                     {one}, and it is that of a version of {other}. Give the new one another name"
                )));
            }
        }
        Ok(())
    }

    async fn drop_view(&self, id: &ViewId) -> Result<(), StoreError> {
        let name = self.name(id);
        let dropped = async {
            match self.try_drop(id, &name).await {
                Err(failed) if code(&failed).as_deref() == Some("55P03") => {
                    self.cut_off(&name).await?;
                    self.try_drop(id, &name).await
                }
                dropped => dropped,
            }
        };
        dropped.await.map_err(|failed| view::fault(id, "drop", failed))
    }

    async fn publish(&self, serving: &ViewId, flip: Position) -> Result<(), StoreError> {
        let mut session = Session::open(&self.home, "name a view").await?;
        let published = published::publish(&mut session, &self.home, serving, flip).await;
        published.map_err(|failed| published::wrong(&self.home, serving, failed))
    }
}

/// Refuses to drop a schema with which something else would go: a journal that was put into it, or somebody's view that
/// was built on its tables.
async fn check_alone(session: &mut Session, id: &ViewId, name: &str) -> Sent<()> {
    let mut arguments = PgArguments::default();
    added(&mut arguments, name.to_owned())?;
    let sql =
        "WITH own AS (SELECT pg_class.oid, relname FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
                            WHERE nspname = $1)
               SELECT 'a journal' FROM own HAVING bool_or(relname = 'sequencer') AND bool_or(relname = 'published')
               UNION ALL
               SELECT 'the view ' || rule.ev_class::regclass::text FROM pg_rewrite AS rule
               JOIN pg_depend AS uses ON uses.classid = 'pg_rewrite'::regclass AND uses.objid = rule.oid
               WHERE uses.refclassid = 'pg_class'::regclass AND uses.refobjid IN (SELECT oid FROM own)
                 AND rule.ev_class NOT IN (SELECT oid FROM own)
               LIMIT 1";
    let rows = session.fetch(sql, arguments).await?;
    let Some(row) = rows.first() else { return Ok(()) };
    let what: String = row.try_get(0)?;
    let found = format!("{what} would go with its schema {name}, and is not of it: move it elsewhere or drop it");
    Err(StoreError::unavailable(format!("drop the view {id}"), found).into())
}

/// Returns the error code of the server.
fn code(failed: &Failed) -> Option<String> {
    match failed {
        Failed::There(sqlx::Error::Database(error)) => error.code().map(Into::into),
        _ => None,
    }
}

fn may_not_make(id: &ViewId, name: &str, failed: Failed) -> StoreError {
    if code(&failed).as_deref() == Some("42P06") {
        let found = format!(
            "the schema {name} is there, and no row of a table _dacapo_view in it says that it is this view. If it has the \
             tables of the view, put that row back, or rebuild the projection, and drop nothing of a view that serves. If \
             somebody else made it, such as for names for SQL of another projection, rename it"
        );
        return StoreError::unavailable(format!("make the view {id}"), found);
    }
    if code(&failed).as_deref() == Some("42501") {
        let tried = format!("make the view {id}");
        let found = "this user may not make a schema in the database: GRANT CREATE ON DATABASE … TO … lets it";
        return StoreError::unavailable(tried, found);
    }
    view::fault(id, "open", failed)
}

/// Returns the view that a schema says it is.
fn parsed(view: &str) -> Option<ViewId> {
    let (projection, version) = view.rsplit_once(' ')?;
    Some(ViewId { projection: ProjectionName::new(projection).ok()?, version: version.parse::<VersionId>().ok()? })
}

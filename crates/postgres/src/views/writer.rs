//! The writer of a view.
//!
//! ```text
//!  reads: committed state ──first write──▶ BEGIN ──▶ reads and writes inside ──▶ tokens ──▶ COMMIT
//! ```
//!
//! Until the first write there is no transaction, so that nothing waits for a handler. What it read before cannot have
//! changed unless another claimed its segments, and then its commit is refused (I-4).
//!
//! A connection is had from the first statement to the end of the transaction, and given back between batches.

use std::sync::Arc;

use async_trait::async_trait;
use dacapo_model::{Segment, Token, TokenMove, TokenRefused};
use dacapo_store::{Attached, Commit, CommitError, Index, OfSegment, StoreError, Table, Value, ViewCopy, ViewWriter};
use sqlx::Row;
use sqlx::postgres::PgArguments;

use super::rows::{Failed, RowSql, Sent};
use super::session::Session;
use super::sql::{self, Answer};
use super::value::added;
use super::view::Place;
use super::{code, history, letters, outbox, schema, tokens};
use crate::limits;

pub(super) struct Writer {
    place: Arc<Place>,
    session: Option<Session>,
    /// True if a transaction was begun that has not ended; its connection may be lost meanwhile.
    inside: bool,
    /// The schema of another view that can be read until the transaction ends.
    attached: Option<String>,
}

/// The reason why a commit did not happen.
enum NotMoved {
    Refused(TokenRefused),
    Failed(Failed),
}

impl<E: Into<Failed>> From<E> for NotMoved {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl Writer {
    pub(super) fn new(place: Arc<Place>) -> Self {
        Self { place, session: None, inside: false, attached: None }
    }

    /// Returns a connection; that of the transaction if one is open.
    #[expect(clippy::expect_used, reason = "it was just opened")]
    async fn session(&mut self) -> Result<&mut Session, StoreError> {
        if self.session.is_none() {
            let tried = format!("write to the view {}", self.place.id);
            self.session = Some(Session::open(&self.place.home, &tried).await?);
        }
        Ok(self.session.as_mut().expect("it was just opened"))
    }

    /// Begins the transaction with the first write.
    async fn enter(&mut self) -> Sent<&mut Session> {
        if !self.inside {
            self.begin("READ COMMITTED").await?;
        }
        Ok(self.session().await?)
    }

    async fn begin(&mut self, isolation: &str) -> Sent<()> {
        // Long statements are fine, as long as somebody waits for them.
        let begin = format!(
            "BEGIN ISOLATION LEVEL {isolation}; SET LOCAL search_path = {schema}, pg_temp;
             SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = {wait};
             SET LOCAL client_connection_check_interval = {check}",
            schema = self.place.schema,
            wait = limits::WRITE_LOCK_TIME_MAX.as_millis(),
            check = limits::CLIENT_LOOK.as_millis(),
        );
        let begun = self.session().await?.begin(begin).await;
        if begun.is_err() {
            self.leave();
        }
        begun?;
        self.inside = true;
        Ok(())
    }

    /// The transaction has ended, or does so with its connection.
    fn leave(&mut self) {
        (self.session, self.inside, self.attached) = (None, false, None);
    }

    async fn put_rows(&mut self, table: &Table, rows: &mut (dyn Iterator<Item = OfSegment> + Send)) -> Sent<()> {
        let place = Arc::clone(&self.place);
        RowSql::new(&place.schema, table).put(self.enter().await?, rows).await
    }

    async fn delete_rows(&mut self, table: &Table, keys: &mut (dyn Iterator<Item = OfSegment> + Send)) -> Sent<()> {
        let place = Arc::clone(&self.place);
        RowSql::new(&place.schema, table).delete(self.enter().await?, keys).await
    }

    async fn load_row(&mut self, table: &Table, key: &[Value]) -> Sent<Option<Vec<Value>>> {
        let place = Arc::clone(&self.place);
        RowSql::new(&place.schema, table).load(self.session().await?, key).await
    }

    async fn rows_with_values(
        &mut self,
        table: &Table,
        index: &Index,
        values: &[Vec<Value>],
    ) -> Sent<Vec<(usize, Vec<Value>)>> {
        let place = Arc::clone(&self.place);
        RowSql::new(&place.schema, table).with(self.session().await?, index, values).await
    }

    async fn write_sql(&mut self, sql: &str, parameters: &[Value]) -> Sent<u64> {
        let (place, attached) = (Arc::clone(&self.place), self.attached.clone());
        let session = self.enter().await?;
        session.batch("SAVEPOINT dacapo".to_owned()).await?;
        let done = async {
            let changed = sql::run(session, &place.schema, sql, parameters, None).await?.changed;
            if let Some(source) = attached {
                untouched(session, &source).await?;
            }
            Ok(changed)
        };
        let done = done.await;
        let end = match &done {
            Ok(_) => "RELEASE SAVEPOINT dacapo",
            Err(_) => "ROLLBACK TO SAVEPOINT dacapo; RELEASE SAVEPOINT dacapo",
        };
        session.batch(end.to_owned()).await?;
        done
    }

    async fn read_sql(&mut self, sql: &str, parameters: &[Value]) -> Sent<Answer> {
        let (place, inside) = (Arc::clone(&self.place), self.inside);
        let session = self.session().await?;
        if inside {
            // What is read-only within a savepoint is writable again after it.
            session.batch("SAVEPOINT dacapo; SET TRANSACTION READ ONLY".to_owned()).await?;
        } else {
            let check = limits::CLIENT_LOOK.as_millis();
            let begin = format!(
                "BEGIN READ ONLY; SET LOCAL search_path = {}, pg_temp; SET LOCAL statement_timeout = 0;
                 SET LOCAL client_connection_check_interval = {check}",
                place.schema
            );
            session.begin(begin).await?;
        }
        let answer = sql::run(session, &place.schema, sql, parameters, Some(usize::MAX)).await;
        if inside {
            session.batch("ROLLBACK TO SAVEPOINT dacapo; RELEASE SAVEPOINT dacapo".to_owned()).await?;
        } else {
            session.rollback().await?;
        }
        answer
    }

    async fn attach_schema(&mut self, source: &str) -> Sent<Attached> {
        self.begin("REPEATABLE READ").await?;
        self.attached = Some(source.to_owned());
        let session = self.session().await?;
        let tokens = tokens::read(session, source).await?;
        let letters = letters::letter_count(session, source).await?;
        Ok(Attached { schema: source.to_owned(), tokens, letters })
    }

    async fn land(&mut self, commit: &Commit) -> Result<(), NotMoved> {
        let place = Arc::clone(&self.place);
        let session = self.enter().await?;
        let found = tokens::move_tokens(session, &place.schema, commit).await?;
        for asked in &commit.moves {
            let Some(found) = found.iter().find(|found| found.token.segment == asked.segment) else {
                // One that is gone, unless there never was one.
                tokens::read(session, &place.schema).await?;
                return Err(
                    StoreError::Invalid(format!("the view {} has no segment {}", place.id, asked.segment)).into()
                );
            };
            if !found.moved {
                return Err(match found.token.moved(*asked) {
                    Err(refused) => NotMoved::Refused(refused),
                    // The statement and the rule in the model refuse the same moves.
                    Ok(_) => StoreError::unavailable("move a token", "it was changed meanwhile from outside").into(),
                });
            }
        }
        if !commit.effects.is_empty() {
            outbox::emit(session, &place.schema, &commit.effects).await?;
        }
        letters::keep(session, &place.schema, commit).await?;
        if let Some(new) = &commit.history {
            history::keep(session, &place.schema, new).await?;
        }
        Ok(session.commit().await?)
    }

    /// Returns a transaction that sees one state cannot lock a token that changed since. What it is now tells whether
    /// it was the claim that changed, or only a hold that came and went.
    async fn overtaken(&mut self, moves: &[TokenMove], failed: Failed) -> NotMoved {
        let place = Arc::clone(&self.place);
        let now: Sent<Vec<Token>> = async { tokens::read(self.session().await?, &place.schema).await }.await;
        let now = match now {
            Ok(now) => now,
            Err(failed) => return NotMoved::Failed(failed),
        };
        let of = |asked: &TokenMove| now.iter().find(|token| token.segment == asked.segment);
        let refused = moves.iter().find_map(|asked| of(asked)?.moved(*asked).err());
        refused.map_or(NotMoved::Failed(failed), NotMoved::Refused)
    }
}

/// Refuses what wrote to a view that is only to be read. What a statement has written or will, it has locked for that.
async fn untouched(session: &mut Session, source: &str) -> Sent<()> {
    let mut arguments = PgArguments::default();
    added(&mut arguments, source.to_owned())?;
    let sql = "SELECT locked.relname::text FROM pg_locks AS held JOIN pg_class AS locked ON locked.oid = held.relation
               WHERE held.pid = pg_backend_pid() AND held.mode <> 'AccessShareLock'
                 AND locked.relnamespace = to_regnamespace($1) LIMIT 1";
    let rows = session.fetch(sql, arguments).await?;
    let Some(row) = rows.first() else { return Ok(()) };
    let table: String = row.try_get(0)?;
    Err(StoreError::Invalid(format!("the statement writes to {source}.{table}, which is only to be read")).into())
}

#[async_trait]
impl ViewWriter for Writer {
    async fn load(&mut self, table: &Table, key: &[Value]) -> Result<Option<Vec<Value>>, StoreError> {
        let row = self.load_row(table, key).await;
        row.map_err(|failed| self.place.fault(&format!("read table {} of", table.name), failed))
    }

    async fn load_of(&mut self, table: &Table, key: &[Value]) -> Result<Option<OfSegment>, StoreError> {
        let place = Arc::clone(&self.place);
        let rows = RowSql::new(&place.schema, table);
        let row: Sent<Option<OfSegment>> = async { rows.load_of(self.session().await?, key).await }.await;
        row.map_err(|failed| place.fault(&format!("read table {} of", table.name), failed))
    }

    async fn segments_of(&mut self, table: &Table, keys: &[Vec<Value>]) -> Result<Vec<(usize, Segment)>, StoreError> {
        let place = Arc::clone(&self.place);
        let rows = RowSql::new(&place.schema, table);
        let found: Sent<Vec<(usize, Segment)>> = async { rows.segments_of(self.session().await?, keys).await }.await;
        found.map_err(|failed| place.fault(&format!("read table {} of", table.name), failed))
    }

    async fn is_empty(&mut self, table: &Table) -> Result<bool, StoreError> {
        let place = Arc::clone(&self.place);
        let rows = RowSql::new(&place.schema, table);
        let is_empty: Sent<bool> = async { rows.is_empty(self.session().await?).await }.await;
        is_empty.map_err(|failed| place.fault(&format!("read table {} of", table.name), failed))
    }

    async fn rows_with(
        &mut self,
        table: &Table,
        index: &Index,
        values: &[Vec<Value>],
    ) -> Result<Vec<(usize, Vec<Value>)>, StoreError> {
        let rows = self.rows_with_values(table, index, values).await;
        rows.map_err(|failed| self.place.fault(&format!("read table {} of", table.name), failed))
    }

    async fn put(
        &mut self,
        table: &Table,
        rows: &mut (dyn Iterator<Item = OfSegment> + Send),
    ) -> Result<(), StoreError> {
        let done = self.put_rows(table, rows).await;
        done.map_err(|failed| self.place.fault(&format!("write to table {} of", table.name), failed))
    }

    async fn delete(
        &mut self,
        table: &Table,
        keys: &mut (dyn Iterator<Item = OfSegment> + Send),
    ) -> Result<(), StoreError> {
        let done = self.delete_rows(table, keys).await;
        done.map_err(|failed| self.place.fault(&format!("delete from table {} of", table.name), failed))
    }

    async fn execute(&mut self, sql: &str, parameters: &[Value]) -> Result<u64, StoreError> {
        sql::check_write(sql)?;
        let done = self.write_sql(sql, parameters).await;
        done.map_err(|failed| sql::wrong(&format!("the view {}", self.place.id), sql, true, failed))
    }

    async fn query(&mut self, sql: &str, parameters: &[Value]) -> Result<Vec<Vec<Value>>, StoreError> {
        sql::check_query(sql)?;
        let answer = self.read_sql(sql, parameters).await;
        let answer = answer.map_err(|failed| sql::wrong(&format!("the view {}", self.place.id), sql, false, failed))?;
        Ok(answer.rows)
    }

    async fn index(&mut self, table: &Table, index: &Index) -> Result<(), StoreError> {
        let place = Arc::clone(&self.place);
        let built = async {
            let session = self.enter().await?;
            let wait = limits::MAKE_LOCK_TIME_MAX.as_millis();
            session.batch(format!("SET LOCAL lock_timeout = {wait}")).await?;
            session.long_batch(schema::create_index(&place.schema, table, index)).await?;
            Ok(())
        };
        let what = format!("build the index {} of table {} of", index.name, table.name);
        built.await.map_err(|failed| place.fault(&what, failed))
    }

    async fn attach(&mut self, copy: &ViewCopy) -> Result<Attached, StoreError> {
        assert!(!self.inside, "another view is attached before a transaction begins");
        let ViewCopy::Schema(source) = copy else {
            return Err(StoreError::Invalid(format!(
                "the view {} cannot read a view of another store: a copy is made within one store",
                self.place.id
            )));
        };
        let attached = self.attach_schema(source).await;
        if attached.is_err() {
            self.leave();
        }
        // What is wrong with the other one is not this one's damage.
        attached.map_err(|failed| super::view::fault(&self.place.id, "read another view into", failed))
    }

    async fn keep_segments(&mut self, _: &Table) -> Result<(), StoreError> {
        // They always do.
        Ok(())
    }

    async fn take_over_segments(&mut self, table: &Table, from: &Attached) -> Result<(), StoreError> {
        let place = Arc::clone(&self.place);
        let rows = RowSql::new(&place.schema, table);
        let done: Sent<()> = async { rows.take_over_segments(self.enter().await?, &from.schema).await }.await;
        done.map_err(|failed| place.fault(&format!("write to table {} of", table.name), failed))
    }

    async fn commit(&mut self, commit: &Commit) -> Result<(), CommitError> {
        assert!(!commit.moves.is_empty(), "a commit moves a token: without a move nothing would fence its rows");
        let mut landed = self.land(commit).await;
        if landed.is_err()
            && let Err(error) = self.rollback().await
        {
            tracing::debug!(%error, "the server rolls back by itself");
        }
        if let Err(NotMoved::Failed(failed)) = landed {
            landed = Err(match code(&failed).as_deref() {
                Some("40001") => self.overtaken(&commit.moves, failed).await,
                _ => NotMoved::Failed(failed),
            });
        }
        self.leave();
        landed.map_err(|not| match not {
            NotMoved::Refused(refused) => refused.into(),
            NotMoved::Failed(failed) => self.place.fault("commit to", failed).into(),
        })
    }

    async fn rollback(&mut self) -> Result<(), StoreError> {
        let mut session = self.session.take();
        self.leave();
        match &mut session {
            Some(session) => session.rollback().await.map_err(|error| self.place.fault("roll back in", error.into())),
            None => Ok(()),
        }
    }
}

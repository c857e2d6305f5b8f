//! A connection that one transaction after the other is done with.
//!
//! Anyone who gets no answer within [`SILENCE_TIME_MAX`](crate::limits::SILENCE_TIME_MAX) gets an error, except for statements that
//! may take as long as they take. A future that is dropped while a statement is under way closes the connection: the server sees that within
//! [`CLIENT_LOOK`](crate::limits::CLIENT_LOOK) and ends the statement and its transaction. So nothing continues that nobody waits for, and no
//! connection that is in the middle of something goes back to the pool.

use std::sync::Arc;

use dacapo_store::StoreError;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgRow, PgStatement, PgTypeInfo};
use sqlx::{AssertSqlSafe, Either, Executor, PgConnection, Postgres, SqlSafeStr, Statement};
use tokio::runtime::Handle;
use tokio::sync::OwnedSemaphorePermit;

use super::Home;
use crate::limits;

/// A connection of the pool.
pub(super) struct Session {
    home: Arc<Home>,
    /// Gone once a statement was cut off.
    connection: Option<PoolConnection<Postgres>>,
    /// How often another connection may yet be tried: until the first answer. The pool may have connections that a stop
    /// of the server ended, and what is sent first, such as `BEGIN`, does no harm when it is sent again.
    tries: u32,
    inside: bool,
    permit: Option<OwnedSemaphorePermit>,
}

impl Session {
    pub(super) async fn open(home: &Arc<Home>, tried: &str) -> Result<Self, StoreError> {
        let connection = Some(home.database.acquire(tried).await?);
        let tries = home.database.options().connections_max;
        Ok(Self { home: Arc::clone(home), connection, tries, inside: false, permit: None })
    }

    /// One of those that may be kept for reading at once.
    pub(super) async fn open_for_reading(home: &Arc<Home>, tried: &str) -> Result<Self, StoreError> {
        let permit = reader_permit(home, tried).await?;
        let mut session = Self::open(home, tried).await?;
        session.permit = Some(permit);
        Ok(session)
    }

    /// Begins a transaction with these statements, of which the first is `BEGIN`.
    pub(super) async fn begin(&mut self, statements: String) -> Result<(), sqlx::Error> {
        self.batch(statements).await?;
        self.inside = true;
        Ok(())
    }

    /// Commits the transaction. When that fails, it is unknown whether it was committed.
    pub(super) async fn commit(&mut self) -> Result<(), sqlx::Error> {
        self.commit_after(String::new()).await
    }

    /// Carries out statements, each of which ends in a semicolon, and commits, in one go: what they lock is not held while
    /// this node sleeps.
    pub(super) async fn commit_after(&mut self, statements: String) -> Result<(), sqlx::Error> {
        self.batch(statements + "COMMIT").await?;
        self.inside = false;
        Ok(())
    }

    /// Rolls the transaction back, if there is one. That of a connection that is closed ends by itself.
    pub(super) async fn rollback(&mut self) -> Result<(), sqlx::Error> {
        if self.inside && self.connection.is_some() {
            self.batch("ROLLBACK".to_owned()).await?;
            self.inside = false;
        }
        Ok(())
    }

    /// Carries out statements without parameters in one go, and returns the rows of all of them. Outside of a
    /// transaction they are one.
    pub(super) async fn batch(&mut self, statements: String) -> Result<Vec<PgRow>, sqlx::Error> {
        answered(self.long_batch(statements)).await
    }

    /// Statements without parameters that may take very long.
    pub(super) async fn long_batch(&mut self, statements: String) -> Result<Vec<PgRow>, sqlx::Error> {
        loop {
            let mut work = self.work()?;
            let rows = sqlx::raw_sql(AssertSqlSafe(statements.clone())).fetch_all(work.connection()).await;
            work.done();
            if !self.tries_another(&rows).await {
                return rows;
            }
        }
    }

    /// Returns the rows of a statement, which stays prepared.
    pub(super) async fn fetch(&mut self, sql: &str, arguments: PgArguments) -> Result<Vec<PgRow>, sqlx::Error> {
        self.run(sql, arguments).await.map(|(rows, _)| rows)
    }

    /// Returns the rows of a statement, which stays prepared and may take very long.
    pub(super) async fn long_fetch(&mut self, sql: &str, arguments: PgArguments) -> Result<Vec<PgRow>, sqlx::Error> {
        self.long_run(sql, arguments).await.map(|(rows, _)| rows)
    }

    /// Returns the rows of a statement, which stays prepared, and how many it changed.
    pub(super) async fn run(&mut self, sql: &str, arguments: PgArguments) -> Result<(Vec<PgRow>, u64), sqlx::Error> {
        answered(self.long_run(sql, arguments)).await
    }

    async fn long_run(&mut self, sql: &str, arguments: PgArguments) -> Result<(Vec<PgRow>, u64), sqlx::Error> {
        loop {
            let mut work = self.work()?;
            let query = sqlx::query_with(AssertSqlSafe(sql.to_owned()), arguments.clone());
            let done = collected(work.connection(), query, usize::MAX).await;
            work.done();
            if !self.tries_another(&done).await {
                return done;
            }
        }
    }

    /// What a statement has for parameters and columns.
    pub(super) async fn prepare(&mut self, sql: &str, types: &[PgTypeInfo]) -> Result<PgStatement, sqlx::Error> {
        answered(async {
            let mut work = self.work()?;
            let statement = work.connection().prepare_with(AssertSqlSafe(sql.to_owned()).into_sql_str(), types).await;
            work.done();
            statement
        })
        .await
    }

    /// At most `most` of the rows of what was prepared, and how many it gave or changed. It may take very long.
    pub(super) async fn run_prepared(
        &mut self,
        statement: &PgStatement,
        arguments: PgArguments,
        most: usize,
    ) -> Result<(Vec<PgRow>, u64), sqlx::Error> {
        let mut work = self.work()?;
        let done = collected(work.connection(), statement.query_with(arguments), most).await;
        work.done();
        done
    }

    /// Returns true if the first statement failed because its connection had ended before, and there is another to
    /// try.
    async fn tries_another<T>(&mut self, answer: &Result<T, sqlx::Error>) -> bool {
        let ended = match answer {
            Err(sqlx::Error::Io(_)) => true,
            Err(sqlx::Error::Database(error)) => error.code().is_some_and(|code| code.starts_with("57P")),
            _ => false,
        };
        let tries = std::mem::take(&mut self.tries);
        if !ended || tries == 0 {
            return false;
        }
        if let Some(ended) = self.connection.take() {
            drop(ended.detach());
        }
        match self.home.database.acquire("use the database").await {
            Ok(connection) => (self.connection, self.tries) = (Some(connection), tries - 1),
            // What is told is why the first one failed.
            Err(error) => tracing::debug!(%error, "there is no other connection"),
        }
        self.connection.is_some()
    }

    fn work(&mut self) -> Result<Work<'_>, sqlx::Error> {
        if self.connection.is_none() {
            let found = "an earlier statement was given up, and its transaction with it: begin another";
            return Err(sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::NotConnected, found)));
        }
        Ok(Work { session: self, done: false })
    }
}

/// Waits for an answer only so long: silence means that the server or the network is gone.
async fn answered<T>(statement: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    let silence = || {
        let found = format!("no answer within {:?}: check that the database runs", limits::SILENCE_TIME_MAX);
        sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, found))
    };
    tokio::time::timeout(limits::SILENCE_TIME_MAX, statement).await.unwrap_or_else(|_| Err(silence()))
}

async fn collected(
    connection: &mut PgConnection,
    query: sqlx::query::Query<'_, Postgres, PgArguments>,
    most: usize,
) -> Result<(Vec<PgRow>, u64), sqlx::Error> {
    use futures::TryStreamExt;

    let (mut rows, mut changed) = (Vec::new(), 0);
    let mut all = connection.fetch_many(query);
    while let Some(one) = all.try_next().await? {
        match one {
            Either::Left(done) => changed += done.rows_affected(),
            Either::Right(row) if rows.len() < most => rows.push(row),
            Either::Right(_) => {}
        }
    }
    Ok((rows, changed))
}

impl Drop for Session {
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        match Handle::try_current() {
            Ok(_) if !self.inside => drop(connection),
            Ok(runtime) => {
                let permit = self.permit.take();
                runtime.spawn(async move {
                    if let Err(error) = sqlx::raw_sql("ROLLBACK").execute(&mut *connection).await {
                        tracing::debug!(%error, "a connection is closed, since it cannot roll back");
                        drop(connection.detach());
                    }
                    drop(permit);
                });
            }
            // The pool takes connections back as a task.
            Err(_) => drop(connection.detach()),
        }
    }
}

/// A statement under way. Dropped before it is done, it closes the connection.
struct Work<'a> {
    session: &'a mut Session,
    done: bool,
}

impl Work<'_> {
    #[expect(clippy::expect_used, reason = "work is begun on a connection that is there")]
    fn connection(&mut self) -> &mut PgConnection {
        self.session.connection.as_mut().expect("work is begun on a connection that is there")
    }

    fn done(mut self) {
        self.done = true;
    }
}

impl Drop for Work<'_> {
    fn drop(&mut self) {
        if !self.done
            && let Some(connection) = self.session.connection.take()
        {
            drop(connection.detach());
        }
    }
}

/// Lets a reader in when there is room.
#[expect(clippy::expect_used, reason = "nobody closes the semaphore")]
async fn reader_permit(home: &Home, tried: &str) -> Result<OwnedSemaphorePermit, StoreError> {
    let readers = Arc::clone(&home.readers);
    let waited = tokio::time::timeout(limits::CONNECT_TIME_MAX, readers.acquire_owned()).await;
    match waited {
        Ok(permit) => Ok(permit.expect("nobody closes the semaphore")),
        Err(_) => Err(StoreError::unavailable(
            tried,
            "the number of states of views that are read at once is at its limit: keep them shorter, or allow more connections",
        )),
    }
}

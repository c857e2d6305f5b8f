//! The reader of a view: one state of it, however long the reader lives.
//!
//! The state is that of a transaction that cannot write. Its first statement fixes it. After a statement that is wrong
//! it continues from a savepoint, which changes nothing about the state.

use std::sync::Arc;

use async_trait::async_trait;
use dacapo_model::{Letter, Position, Token};
use dacapo_store::{FirstRows, StoreError, Table, Value, ViewReader};

use super::health::Reading;
use super::rows::{RowSql, Sent};
use super::session::Session;
use super::sql::Answer;
use super::view::Place;
use super::{letters, sql, tokens};
use crate::limits;

pub(super) struct Reader {
    place: Arc<Place>,
    session: Session,
    tokens: Vec<Token>,
}

impl Reader {
    pub(super) async fn open(place: Arc<Place>) -> Result<Self, StoreError> {
        let tried = format!("read the view {}", place.id);
        let mut session = Session::open_for_reading(&place.home, &tried).await?;
        let tokens = begin(&mut session, &place.schema).await.map_err(|failed| place.fault("read", failed))?;
        Ok(Self { place, session, tokens })
    }

    /// What came of a statement. When it failed, the transaction continues as before it.
    async fn done<T>(&mut self, result: Sent<T>) -> Sent<T> {
        if result.is_err() {
            // When this fails too, the connection is lost, and the next statement says so.
            drop(self.session.batch("ROLLBACK TO SAVEPOINT dacapo".to_owned()).await);
        }
        result
    }
}

impl Reader {
    async fn ask(&mut self, sql: &str, parameters: &[Value], most: usize) -> Result<Answer, StoreError> {
        sql::check_query(sql)?;
        let answer = sql::run(&mut self.session, &self.place.schema, sql, parameters, Some(most)).await;
        let answer = self.done(answer).await;
        answer.map_err(|failed| sql::wrong(&format!("the view {}", self.place.id), sql, false, failed))
    }
}

/// Returns a read of a table, which is noticed when it fails.
fn reading<'a>(place: &'a Place, table: &'a Table) -> (RowSql<'a>, Reading<'a>) {
    let rows = RowSql::new(&place.schema, table);
    let reading =
        Reading::new(&place.health, format!("read table {} of the view {}", table.name, place.id), rows.probe());
    (rows, reading)
}

async fn begin(session: &mut Session, schema: &str) -> Sent<Vec<Token>> {
    session
        .begin(format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL search_path = {schema}, pg_temp;
             SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = {idle};
             SET LOCAL client_connection_check_interval = {check}; SAVEPOINT dacapo",
            idle = limits::STATE_IDLE_TIME_MAX.as_millis(),
            check = limits::CLIENT_LOOK.as_millis(),
        ))
        .await?;
    tokens::read(session, schema).await
}

#[async_trait]
impl ViewReader for Reader {
    fn tokens(&self) -> &[Token] {
        &self.tokens
    }

    async fn get(&mut self, table: &Table, key: &[Value]) -> Result<Option<Vec<Value>>, StoreError> {
        let place = Arc::clone(&self.place);
        let (rows, reading) = reading(&place, table);
        let row = rows.load(&mut self.session, key).await;
        reading.done(self.done(row).await.map_err(|failed| place.fault("read", failed)))
    }

    async fn select(
        &mut self,
        table: &Table,
        columns: &[(usize, Value)],
        most: usize,
    ) -> Result<Vec<Vec<Value>>, StoreError> {
        let place = Arc::clone(&self.place);
        let (rows, reading) = reading(&place, table);
        let found = rows.select(&mut self.session, columns, most).await;
        reading.done(self.done(found).await.map_err(|failed| place.fault("read", failed)))
    }

    async fn page(
        &mut self,
        table: &Table,
        after: Option<&[Value]>,
        most: usize,
    ) -> Result<Vec<Vec<Value>>, StoreError> {
        let place = Arc::clone(&self.place);
        let (rows, reading) = reading(&place, table);
        let found = rows.page(&mut self.session, after, most).await;
        reading.done(self.done(found).await.map_err(|failed| place.fault("read", failed)))
    }

    async fn query(&mut self, sql: &str, parameters: &[Value]) -> Result<(Vec<String>, Vec<Vec<Value>>), StoreError> {
        let answer = self.ask(sql, parameters, usize::MAX).await?;
        Ok((answer.names, answer.rows))
    }

    async fn first_rows(&mut self, sql: &str, most: usize) -> Result<FirstRows, StoreError> {
        let Answer { names, rows, changed } = self.ask(sql, &[], most).await?;
        Ok(FirstRows { columns: names, rows, all: changed })
    }

    async fn letters(&mut self, after: Position, most: usize) -> Result<Vec<Letter>, StoreError> {
        let letters = letters::letters(&mut self.session, &self.place.schema, after, most).await;
        self.done(letters).await.map_err(|failed| self.place.fault("read the dead letters of", failed))
    }
}

//! The reader of a view: one state of it, however long the reader lives.

use std::sync::Arc;

use async_trait::async_trait;
use dacapo_model::{Letter, Position, Token};
use tokio::runtime::Handle;

use crate::error::StoreError;
use crate::sqlite::Db;
use crate::sqlite::rows::Answer;
use crate::sqlite::view::{Home, apart};
use crate::table::{Table, Value};
use crate::views::{FirstRows, ViewReader};

pub(super) struct Reader<H: Home> {
    home: Arc<H>,
    /// `None` while another thread works with it.
    db: Option<Db>,
    tokens: Vec<Token>,
}

impl<H: Home> Reader<H> {
    pub(super) async fn open(home: Arc<H>) -> Result<Self, StoreError> {
        // The first read of the transaction fixes the state that all later ones see.
        if let Some(mut db) = home.snapshot_now()
            && let Ok(tokens) = db.at_once(Db::tokens)
        {
            return Ok(Self { home, db: Some(db), tokens });
        }
        let asked = Arc::clone(&home);
        let (db, tokens) = apart::<H, _>(move || {
            let mut db = asked.snapshot()?;
            let tokens = db.tokens()?;
            Ok((db, tokens))
        })
        .await?;
        Ok(Self { home, db: Some(db), tokens })
    }

    fn db(&mut self) -> Result<&mut Db, StoreError> {
        self.db.as_mut().ok_or_else(lost)
    }

    /// Does work that may take long on a thread of its own.
    async fn apart<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Db) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        if H::INLINE || Handle::try_current().is_err() {
            return work(self.db()?);
        }
        let mut db = self.db.take().ok_or_else(lost)?;
        let task = tokio::task::spawn_blocking(move || {
            let result = work(&mut db);
            (db, result)
        });
        match task.await {
            Ok((db, result)) => {
                self.db = Some(db);
                result
            }
            Err(failed) => match failed.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(StoreError::unavailable("query a view", "the runtime is shutting down")),
            },
        }
    }
}

fn lost() -> StoreError {
    StoreError::unavailable("query a view", "an earlier query of this reader was cancelled: open another reader")
}

#[async_trait]
impl<H: Home> ViewReader for Reader<H> {
    fn tokens(&self) -> &[Token] {
        &self.tokens
    }

    async fn get(&mut self, table: &Table, key: &[Value]) -> Result<Option<Vec<Value>>, StoreError> {
        self.db()?.load(table, key)
    }

    async fn select(
        &mut self,
        table: &Table,
        columns: &[(usize, Value)],
        most: usize,
    ) -> Result<Vec<Vec<Value>>, StoreError> {
        let (table, columns) = (*table, columns.to_vec());
        self.apart(move |db| db.select(&table, &columns, most)).await
    }

    async fn page(
        &mut self,
        table: &Table,
        after: Option<&[Value]>,
        most: usize,
    ) -> Result<Vec<Vec<Value>>, StoreError> {
        let (table, after) = (*table, after.map(<[Value]>::to_vec));
        self.apart(move |db| db.page(&table, after.as_deref(), most)).await
    }

    async fn query(&mut self, sql: &str, parameters: &[Value]) -> Result<Answer, StoreError> {
        let (sql, parameters) = (sql.to_owned(), parameters.to_vec());
        self.apart(move |db| db.query(&sql, &parameters)).await
    }

    async fn first_rows(&mut self, sql: &str, most: usize) -> Result<FirstRows, StoreError> {
        let sql = sql.to_owned();
        self.apart(move |db| db.first_rows(&sql, &[], most)).await
    }

    async fn letters(&mut self, after: Position, most: usize) -> Result<Vec<Letter>, StoreError> {
        self.apart(move |db| db.letters(after, most)).await
    }
}

impl<H: Home> Drop for Reader<H> {
    fn drop(&mut self) {
        if let Some(db) = self.db.take() {
            self.home.give_back(db);
        }
    }
}

//! Connections, each lent for one answer.

use std::time::Duration;

use dacapo_store::StoreError;
use sqlx::pool::PoolConnection;
use sqlx::{PgConnection, Postgres};

use crate::fault::fault;
use crate::servers::Pool;

/// A connection that is lent. It goes back to the pool after a whole answer, and is closed otherwise: what is left of an
/// answer would be taken for the next caller's, and that caller would miss events without an error (I-3). The driver reads
/// over what is left of rows, but not over what is left of a `COPY`.
struct Lent(Option<PoolConnection<Postgres>>);

impl Lent {
    #[expect(clippy::expect_used, reason = "it is lent until it is given back")]
    fn connection(&mut self) -> &mut PgConnection {
        self.0.as_mut().expect("it is lent until it is given back")
    }

    fn give_back(mut self) {
        self.0.take();
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            drop(connection.detach());
        }
    }
}

/// Does something on a connection, within a time after which the connection is given up.
pub(super) async fn within<T>(
    pool: &Pool,
    time: Duration,
    tried: &str,
    act: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
) -> Result<T, StoreError> {
    let mut lent = Lent(Some(pool.acquire(tried).await?));
    match tokio::time::timeout(time, act(lent.connection())).await {
        Ok(Ok(done)) => {
            lent.give_back();
            Ok(done)
        }
        Ok(Err(error)) => Err(fault(tried, &error)),
        Err(_) => Err(StoreError::unavailable(tried, format!("the database does not answer within {time:?}"))),
    }
}

//! The servers of one database, of which one takes writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dacapo_store::StoreError;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use sqlx::{ConnectOptions, PgConnection, PgPool, Postgres};

use crate::fault::fault;
use crate::limits;

/// The servers that a URL names.
#[derive(Debug)]
pub(crate) struct Servers {
    list: Vec<PgConnectOptions>,
    /// Which of them was last seen to take writes: whoever finds another one finds it for all.
    primary: Arc<AtomicUsize>,
}

impl Servers {
    pub(crate) fn new(list: Vec<PgConnectOptions>) -> Self {
        assert!(!list.is_empty(), "a URL names at least one server");
        Self { list, primary: Arc::new(AtomicUsize::new(0)) }
    }

    /// The same servers with one more setting for each connection.
    pub(crate) fn with(&self, name: &str, value: &str) -> Self {
        let list = self.list.iter().map(|server| server.clone().options([(name, value)])).collect();
        Self { list, primary: Arc::clone(&self.primary) }
    }

    /// A connection to the server that takes writes. The last one that did is tried first.
    pub(crate) async fn connect(&self) -> Result<PgConnection, StoreError> {
        let first = self.primary();
        let mut failed = Vec::new();
        for index in (0..self.list.len()).map(|step| (first + step) % self.list.len()) {
            match connect(&self.list[index]).await {
                Ok(connection) => {
                    self.primary.store(index, Ordering::Relaxed);
                    return Ok(connection);
                }
                Err(error) => failed.push(error),
            }
        }
        if failed.len() == 1 {
            return Err(failed.remove(0));
        }
        let each: Vec<_> = failed.iter().map(StoreError::to_string).collect();
        Err(StoreError::unavailable("find a server that takes writes", each.join("; ")))
    }

    /// Where they are and which database is meant, for people: never with the password.
    pub(crate) fn description(&self) -> String {
        let servers: Vec<_> = self.list.iter().map(address).collect();
        let name = self.list[0].get_database().unwrap_or_else(|| self.list[0].get_username());
        format!("PostgreSQL at {}, database {name}", servers.join(","))
    }

    fn primary(&self) -> usize {
        self.primary.load(Ordering::Relaxed)
    }
}

/// Connections that are used again and again, opened as they are needed.
#[derive(Debug)]
pub(crate) struct Pool {
    servers: Arc<Servers>,
    /// The one of them that new connections go to.
    towards: AtomicUsize,
    pool: PgPool,
}

impl Pool {
    pub(crate) fn new(servers: Arc<Servers>, connections_max: u32) -> Self {
        let towards = servers.primary();
        let pool = PgPoolOptions::new()
            .max_connections(connections_max)
            .acquire_timeout(limits::CONNECT_TIME_MAX)
            // A statement finds out itself, and whoever tries again knows how.
            .test_before_acquire(false)
            .after_connect(|connection, _| Box::pin(takes_writes(connection)))
            .connect_lazy_with(servers.list[towards].clone());
        Self { servers, towards: AtomicUsize::new(towards), pool }
    }

    /// A connection to the server that takes writes.
    pub(crate) async fn acquire(&self, tried: &str) -> Result<PoolConnection<Postgres>, StoreError> {
        self.turn();
        match self.pool.acquire().await {
            Ok(connection) => Ok(connection),
            Err(error) if self.servers.list.len() == 1 || matches!(error, sqlx::Error::PoolClosed) => {
                Err(fault(tried, &error))
            }
            Err(_) => {
                // Another one may have taken over.
                drop(self.servers.connect().await?);
                self.turn();
                self.pool.acquire().await.map_err(|error| fault(tried, &error))
            }
        }
    }

    /// Has new connections go to the server that takes writes, those included that are being tried.
    fn turn(&self) {
        let primary = self.servers.primary();
        if self.towards.swap(primary, Ordering::Relaxed) != primary {
            self.pool.set_connect_options(self.servers.list[primary].clone());
        }
    }

    /// A connection that listens.
    pub(crate) async fn listener(&self) -> Result<PgListener, StoreError> {
        let tried = "listen for new events";
        // Finds the server.
        drop(self.acquire(tried).await?);
        PgListener::connect_with(&self.pool).await.map_err(|error| fault(tried, &error))
    }

    pub(crate) async fn close(&self) {
        self.pool.close().await;
    }
}

async fn connect(server: &PgConnectOptions) -> Result<PgConnection, StoreError> {
    let connected = async {
        let mut connection = server.connect().await?;
        takes_writes(&mut connection).await?;
        Ok(connection)
    };
    let tried = || format!("connect to {}", address(server));
    match tokio::time::timeout(limits::CONNECT_TIME_MAX, connected).await {
        Ok(connected) => connected.map_err(|error| fault(&tried(), &error)),
        Err(_) => Err(StoreError::unavailable(tried(), format!("no answer within {:?}", limits::CONNECT_TIME_MAX))),
    }
}

fn address(server: &PgConnectOptions) -> String {
    match server.get_socket() {
        Some(folder) => folder.display().to_string(),
        None => format!("{}:{}", server.get_host(), server.get_port()),
    }
}

/// Whether the server is one that only follows another.
async fn takes_writes(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let standby: bool = sqlx::query_scalar("SELECT pg_is_in_recovery()").fetch_one(connection).await?;
    if standby {
        let found = "the server is a standby, which takes no writes: name the primary in the URL too";
        return Err(sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::ConnectionRefused, found)));
    }
    Ok(())
}

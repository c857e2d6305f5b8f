//! The connections to one database.

use std::sync::atomic::{AtomicUsize, Ordering};

use dacapo_store::StoreError;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, PgConnection, PgPool, Postgres};

use crate::fault::fault;
use crate::options::{Options, servers};
use crate::{limits, migrate};

/// A database whose schema has the form that this program knows.
#[derive(Debug)]
pub struct Database {
    options: Options,
    servers: Vec<PgConnectOptions>,
    /// Which of the servers was last seen to take writes.
    primary: AtomicUsize,
    pool: PgPool,
}

impl Database {
    /// Finds the server that takes writes among those in `url`, makes the tables if they are not there, and opens
    /// connections as they are needed.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when no server answers or none takes writes, [`StoreError::Invalid`] when the URL,
    /// the options or the form of the tables cannot be used.
    pub async fn connect(url: &str, options: Options) -> Result<Self, StoreError> {
        let servers = servers(url, &options)?;
        let (primary, mut connection) = find_primary(&servers, 0).await?;
        check_server(&mut connection).await?;
        let migrated = migrate::migrate(&mut connection, &options.schema).await;
        let closed = connection.close().await;
        migrated?;
        closed.map_err(|error| fault("close a connection", &error))?;
        let pool = PgPoolOptions::new()
            .max_connections(options.connections_max)
            .acquire_timeout(limits::CONNECT_TIME_MAX)
            // A statement finds out itself, and whoever tries again knows how.
            .test_before_acquire(false)
            .after_connect(|connection, _| Box::pin(takes_writes(connection)))
            .connect_lazy_with(servers[primary].clone());
        Ok(Self { options, servers, primary: AtomicUsize::new(primary), pool })
    }

    /// The options it was opened with.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// A connection of the pool, to the server that takes writes.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when there is none within [`limits::CONNECT_TIME_MAX`].
    pub async fn acquire(&self, tried: &str) -> Result<PoolConnection<Postgres>, StoreError> {
        match self.pool.acquire().await {
            Ok(connection) => Ok(connection),
            Err(sqlx::Error::PoolClosed) => Err(fault(tried, &sqlx::Error::PoolClosed)),
            Err(error) if self.servers.len() == 1 => Err(fault(tried, &error)),
            Err(_) => {
                let (found, connection) = find_primary(&self.servers, self.primary.load(Ordering::Relaxed)).await?;
                drop(connection);
                self.primary.store(found, Ordering::Relaxed);
                self.pool.set_connect_options(self.servers[found].clone());
                self.pool.acquire().await.map_err(|error| fault(tried, &error))
            }
        }
    }

    /// Where it is, for people: never with the password.
    pub fn description(&self) -> String {
        let servers: Vec<_> = self.servers.iter().map(address).collect();
        let name = self.servers[0].get_database().unwrap_or_else(|| self.servers[0].get_username());
        format!("PostgreSQL at {}, database {name}, schema {}", servers.join(","), self.options.schema)
    }

    /// Closes every connection that nobody uses, and the others once they are given back.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// The first server that takes writes, beginning with the one at `first`.
async fn find_primary(servers: &[PgConnectOptions], first: usize) -> Result<(usize, PgConnection), StoreError> {
    let mut failed = Vec::new();
    for index in (0..servers.len()).map(|step| (first + step) % servers.len()) {
        let server = &servers[index];
        let connected = async {
            let mut connection = server.connect().await?;
            takes_writes(&mut connection).await?;
            Ok(connection)
        };
        let error = match tokio::time::timeout(limits::CONNECT_TIME_MAX, connected).await {
            Ok(Ok(connection)) => return Ok((index, connection)),
            Ok(Err(error)) => fault(&format!("connect to {}", address(server)), &error),
            Err(_) => {
                let found = format!("no answer within {:?}", limits::CONNECT_TIME_MAX);
                StoreError::unavailable(format!("connect to {}", address(server)), found)
            }
        };
        failed.push(error);
    }
    match failed.len() {
        1 => Err(failed.remove(0)),
        _ => {
            let each: Vec<_> = failed.iter().map(StoreError::to_string).collect();
            Err(StoreError::unavailable("find a server that takes writes", each.join("; ")))
        }
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

/// What the server must be.
async fn check_server(connection: &mut PgConnection) -> Result<(), StoreError> {
    let (version, encoding): (i32, String) =
        sqlx::query_as("SELECT current_setting('server_version_num')::int4, current_setting('server_encoding')")
            .fetch_one(connection)
            .await
            .map_err(|error| fault("ask the server what it is", &error))?;
    if version < limits::SERVER_VERSION_MIN {
        return Err(StoreError::Invalid(format!(
            "the server is PostgreSQL {}, at least {} is needed",
            version / 10_000,
            limits::SERVER_VERSION_MIN / 10_000
        )));
    }
    if encoding != "UTF8" {
        return Err(StoreError::Invalid(format!(
            "the database has the encoding {encoding}, which has no room for every name: make one with ENCODING 'UTF8'"
        )));
    }
    Ok(())
}

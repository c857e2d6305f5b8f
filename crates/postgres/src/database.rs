//! The connections of a node to one database.

use std::sync::Arc;

use dacapo_store::StoreError;
use sqlx::pool::PoolConnection;
use sqlx::{Connection, PgConnection, Postgres};

use crate::fault::fault;
use crate::options::{Options, servers};
use crate::servers::{Pool, Servers};
use crate::{limits, migrate, settings};

/// A database whose schema has the form that this program knows.
#[derive(Debug)]
pub struct Database {
    options: Options,
    servers: Arc<Servers>,
    pool: Pool,
    /// How connections are encrypted, for people; nothing on this machine.
    encryption: Option<String>,
    /// True if the pages of the server have checksums.
    checksums: bool,
}

impl Database {
    /// Finds the server that takes writes among those in `url`, makes the tables if they are not there, and opens
    /// connections as they are needed.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when no server answers or none takes writes, [`StoreError::Invalid`] when the URL,
    /// the options or the form of the tables cannot be used.
    pub async fn connect(url: &str, options: Options) -> Result<Self, StoreError> {
        let servers = Servers::new(servers(url, &options)?, &options.schema);
        let mut connection = servers.connect().await?;
        let checksums = check_server(&mut connection).await?;
        let encryption = servers.encryption(&mut connection).await?;
        let mut other = servers.connect().await?;
        let apart = settings::check_sessions(&mut connection, &mut other).await;
        other.close().await.map_err(|error| fault("close a connection", &error))?;
        apart?;
        let migrated = migrate::migrate(&mut connection, &options.schema).await;
        // With it goes the lock of the migration.
        let closed = connection.close().await;
        migrated?;
        closed.map_err(|error| fault("close a connection", &error))?;
        let servers = Arc::new(servers);
        let pool = Pool::new(Arc::clone(&servers), options.connections_max);
        Ok(Self { options, servers, pool, encryption, checksums })
    }

    /// The options it was opened with.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Returns a connection of the pool, to the server that takes writes. It is for `tried`, which errors name.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when there is none within [`limits::CONNECT_TIME_MAX`].
    pub async fn acquire(&self, tried: &str) -> Result<PoolConnection<Postgres>, StoreError> {
        self.pool.acquire(tried).await
    }

    /// Where it is, for people: never with the password.
    pub fn description(&self) -> String {
        let place = format!("{}, schema {}", self.servers.description(), self.options.schema);
        let encryption = self.encryption.iter().map(String::as_str);
        let checksums = (!self.checksums).then_some("no checksums of pages");
        [place.as_str()].into_iter().chain(encryption).chain(checksums).collect::<Vec<_>>().join(", ")
    }

    /// Closes every connection that nobody uses, and the others once they are given back.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    pub(crate) fn servers(&self) -> &Servers {
        &self.servers
    }
}

/// Checks that the server is one that can be used, and returns whether its pages have checksums.
async fn check_server(connection: &mut PgConnection) -> Result<bool, StoreError> {
    let ask = "SELECT current_setting('server_version_num')::int4, current_setting('server_encoding'), \
               current_setting('fsync') = 'on', current_setting('full_page_writes') = 'on', \
               current_setting('data_checksums') = 'on'";
    let (version, encoding, fsync, full_pages, checksums): (i32, String, bool, bool, bool) =
        sqlx::query_as(ask).fetch_one(connection).await.map_err(|error| fault("ask the server what it is", &error))?;
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
    if !fsync {
        tracing::warn!("the server runs with fsync off: what was acknowledged does not survive a power cut");
    }
    if fsync && !full_pages {
        tracing::warn!("the server runs with full_page_writes off: a power cut may damage what was acknowledged");
    }
    if !checksums {
        tracing::warn!(
            "the server runs with data_checksums off: damage of what it stores may be answered as if it were right. Stop the \
             server and enable them (pg_checksums --enable)"
        );
    }
    Ok(checksums)
}

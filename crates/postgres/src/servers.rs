//! The servers of one database, of which one takes writes.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use dacapo_model::Position;
use dacapo_store::StoreError;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions, PgSslMode};
use sqlx::{ConnectOptions, PgConnection, PgPool, Postgres};
use tokio::sync::watch;

use crate::fault::fault;
use crate::history::History;
use crate::limits;
use crate::options::APPLICATION_NAME;
use crate::settings::{self, Settings};

/// The servers that a URL names.
pub(crate) struct Servers {
    list: Vec<PgConnectOptions>,
    /// Which of them was last seen to take writes: the caller that finds another one finds it for all.
    primary: Arc<AtomicUsize>,
    settings: Settings,
    history: Arc<History>,
}

/// What the driver prints of its options has the password in it.
impl fmt::Debug for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Servers").field("at", &self.description()).finish_non_exhaustive()
    }
}

impl Servers {
    /// Returns the servers of the journal in `schema`.
    pub(crate) fn new(list: Vec<PgConnectOptions>, schema: &str) -> Self {
        assert!(!list.is_empty(), "a URL names at least one server");
        let settings = Settings::new(schema, list[0].get_application_name().unwrap_or(APPLICATION_NAME));
        Self { list, primary: Arc::new(AtomicUsize::new(0)), settings, history: Arc::default() }
    }

    /// The same servers with one more setting for each connection.
    pub(crate) fn with(&self, name: &str, value: &str) -> Self {
        let mut settings = self.settings.clone();
        settings.set(name, value);
        let (list, primary, history) = (self.list.clone(), Arc::clone(&self.primary), Arc::clone(&self.history));
        Self { list, primary, settings, history }
    }

    /// Returns the known history of the journal there.
    pub(crate) fn history(&self) -> &Arc<History> {
        &self.history
    }

    /// Returns a connection to the server that takes writes. The last one that did is tried first.
    pub(crate) async fn connect(&self) -> Result<PgConnection, StoreError> {
        self.history.holds()?;
        let first = self.primary();
        let mut failed = Vec::new();
        for index in (0..self.list.len()).map(|step| (first + step) % self.list.len()) {
            match self.connect_to(&self.list[index]).await {
                Ok(connection) => {
                    self.primary.store(index, Ordering::Relaxed);
                    self.history.holds()?;
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

    /// Their place and the database, for people; never with the password.
    pub(crate) fn description(&self) -> String {
        let servers: Vec<_> = self.list.iter().map(address).collect();
        let name = self.list[0].get_database().unwrap_or_else(|| self.list[0].get_username());
        format!("PostgreSQL at {}, database {name}", servers.join(","))
    }

    /// Which mode of TLS is asked for and what came of it on a connection, for people; nothing for a socket of this
    /// machine.
    pub(crate) async fn encryption(&self, connection: &mut PgConnection) -> Result<Option<String>, StoreError> {
        let server = &self.list[self.primary()];
        if server.get_socket().is_some() || server.get_host().starts_with('/') {
            return Ok(None);
        }
        let ask = "SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid() AND ssl";
        let version: Option<Option<String>> = sqlx::query_scalar(ask)
            .fetch_optional(connection)
            .await
            .map_err(|error| fault("ask how the connection is encrypted", &error))?;
        let found = match version {
            None => "not encrypted".to_owned(),
            Some(version) => version.unwrap_or_else(|| "encrypted".to_owned()),
        };
        Ok(Some(format!("TLS {}, {found}", mode(server.get_ssl_mode()))))
    }

    fn primary(&self) -> usize {
        self.primary.load(Ordering::Relaxed)
    }

    async fn connect_to(&self, server: &PgConnectOptions) -> Result<PgConnection, StoreError> {
        let tried = || format!("connect to {}", address(server));
        let connected = async {
            let mut connection = server.connect().await.map_err(|error| fault(&tried(), &error))?;
            let prepared = self.prepare(&mut connection).await;
            prepared.map_err(|error| unprepared(&error).unwrap_or_else(|| fault(&tried(), &error)))?;
            Ok(connection)
        };
        match tokio::time::timeout(limits::CONNECT_TIME_MAX, connected).await {
            Ok(connected) => connected,
            Err(_) => Err(StoreError::unavailable(tried(), format!("no answer within {:?}", limits::CONNECT_TIME_MAX))),
        }
    }

    /// The preparation of each new connection before its first use.
    async fn prepare(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        settings::take_time(connection).await?;
        takes_writes(connection).await?;
        self.settings.apply(connection).await?;
        self.history.check(connection, Position::START).await
    }
}

/// Connections that are used again and again, opened as they are needed.
#[derive(Debug)]
pub(crate) struct Pool {
    servers: Arc<Servers>,
    /// The one of them that new connections go to.
    towards: AtomicUsize,
    pool: PgPool,
    /// The reason why the last connection that was tried cannot be used, if that is not for its server to say.
    refused: Arc<watch::Sender<Option<String>>>,
    /// What the server said when the last new connection was prepared, if that failed. The pool tells nobody.
    said: Arc<Mutex<Option<StoreError>>>,
}

impl Pool {
    pub(crate) fn new(servers: Arc<Servers>, connections_max: u32) -> Self {
        let towards = servers.primary();
        let refused = Arc::new(watch::Sender::new(None));
        let said = Arc::new(Mutex::new(None));
        let (preparing, refusing, saying) = (Arc::clone(&servers), Arc::clone(&refused), Arc::clone(&said));
        let pool = PgPoolOptions::new()
            .max_connections(connections_max)
            .acquire_timeout(limits::CONNECT_TIME_MAX)
            // A statement finds out itself, and anyone who tries again knows how.
            .test_before_acquire(false)
            .after_connect(move |connection, _| {
                let (servers, refused, said) = (Arc::clone(&preparing), Arc::clone(&refusing), Arc::clone(&saying));
                Box::pin(async move {
                    let prepared = servers.prepare(connection).await;
                    // The pool tries again for as long as it may, and tells nobody why.
                    if let Err(sqlx::Error::Configuration(why)) = &prepared {
                        refused.send_replace(Some(why.to_string()));
                    }
                    *said.lock().unwrap_or_else(PoisonError::into_inner) = prepared.as_ref().err().and_then(unprepared);
                    prepared
                })
            })
            .connect_lazy_with(servers.list[towards].clone());
        Self { servers, towards: AtomicUsize::new(towards), pool, refused, said }
    }

    /// Returns what is known of a failure to get a connection.
    fn failed(&self, tried: &str, error: &sqlx::Error) -> StoreError {
        let said = || self.said.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let said = matches!(error, sqlx::Error::PoolTimedOut).then(said).flatten();
        said.unwrap_or_else(|| fault(tried, error))
    }

    /// Returns a connection to the server that takes writes.
    ///
    /// # Errors
    /// [`StoreError::JournalParted`] once the journal there is not the one that was known, [`StoreError::Invalid`] where a
    /// setting cannot be had, [`StoreError::Unavailable`] where there is no connection in time.
    pub(crate) async fn acquire(&self, tried: &str) -> Result<PoolConnection<Postgres>, StoreError> {
        let history = self.servers.history();
        history.holds()?;
        let mut refused = self.refused.subscribe();
        tokio::select! {
            biased;
            error = history.ended() => Err(error),
            _ = refused.changed() => {
                let why = refused.borrow().clone().unwrap_or_default();
                Err(StoreError::Invalid(format!("cannot {tried}: {why}")))
            }
            acquired = self.acquire_from_any(tried) => {
                let connection = acquired?;
                // A new one may have been the first to lead to another history.
                history.holds()?;
                Ok(connection)
            }
        }
    }

    async fn acquire_from_any(&self, tried: &str) -> Result<PoolConnection<Postgres>, StoreError> {
        self.turn();
        match self.pool.acquire().await {
            Ok(connection) => Ok(connection),
            Err(error) if self.servers.list.len() == 1 || matches!(error, sqlx::Error::PoolClosed) => {
                Err(self.failed(tried, &error))
            }
            Err(_) => {
                // Another one may have taken over.
                drop(self.servers.connect().await?);
                self.turn();
                self.pool.acquire().await.map_err(|error| self.failed(tried, &error))
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

    /// Returns a connection that listens.
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

fn mode(mode: PgSslMode) -> &'static str {
    match mode {
        PgSslMode::Disable => "disable",
        PgSslMode::Allow => "allow",
        PgSslMode::Prefer => "prefer",
        PgSslMode::Require => "require",
        PgSslMode::VerifyCa => "verify-ca",
        PgSslMode::VerifyFull => "verify-full",
    }
}

fn address(server: &PgConnectOptions) -> String {
    match server.get_socket() {
        Some(folder) => folder.display().to_string(),
        None => format!("{}:{}", server.get_host(), server.get_port()),
    }
}

/// Returns the failure of a statement that prepares a new connection: the server is there and has answered.
fn unprepared(error: &sqlx::Error) -> Option<StoreError> {
    matches!(error, sqlx::Error::Database(_)).then(|| fault("begin a session of the database", error))
}

/// Checks whether the server is one that only follows another.
async fn takes_writes(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let standby: bool = sqlx::query_scalar("SELECT pg_is_in_recovery()").fetch_one(connection).await?;
    if standby {
        let found = "the server is a standby, which takes no writes: name the primary in the URL too";
        return Err(sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::ConnectionRefused, found)));
    }
    Ok(())
}

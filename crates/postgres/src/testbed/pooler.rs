//! A throw-away PgBouncer before a server.

use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::mpsc::channel;
use std::thread::JoinHandle;

use rustix::process::{Pid, Signal, kill_process};

use super::{Server, as_user, other_user, own_folder, watch};

/// The line of its log with which it can be used.
const READY: &str = "process up";
/// Number of starts: its port may be taken in the moment between.
const START_TRIES: usize = 10;

/// A pooler that listens on a port of this machine.
pub struct Pooler {
    port: u16,
    pid: Pid,
    watcher: Option<JoinHandle<()>>,
    /// Its configuration lives as long as it does.
    _dir: tempfile::TempDir,
}

impl Pooler {
    /// Starts one that lends connections of `server` for as long as `mode` says: `session`, `transaction`, `statement`.
    /// Beside what it must know to find the server, its configuration is as it comes, and has these users.
    ///
    /// # Panics
    /// If PgBouncer is not installed or does not start.
    pub fn start(server: &Server, mode: &str, users: &[&str]) -> Self {
        let program = program().expect(
            "the program pgbouncer is neither in PATH nor in /usr/sbin, and the PostgreSQL store is tested through it: \
             install it (on Debian and Fedora the package pgbouncer)",
        );
        for _ in 0..START_TRIES {
            if let Some(pooler) = Self::try_start(&program, server, mode, users) {
                return pooler;
            }
        }
        panic!("PgBouncer does not start");
    }

    fn try_start(program: &Path, server: &Server, mode: &str, users: &[&str]) -> Option<Self> {
        let dir = own_folder();
        let free = TcpListener::bind(("127.0.0.1", 0)).expect("there is a free port");
        let port = free.local_addr().expect("a listener has an address").port();
        drop(free);
        // Tests make many databases: connections to those that are done with would use up what the server takes.
        let (folder, of_server) = (dir.path().display(), server.dir.path().display());
        let configuration = format!(
            "[databases]\n* = host={of_server}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = trust\nauth_file = {folder}/users\npool_mode = {mode}\n\
             default_pool_size = 150\nmax_client_conn = 1000\nserver_idle_timeout = 1\n"
        );
        let users: String = users.iter().map(|user| format!("\"{user}\" \"\"\n")).collect();
        let ini = dir.path().join("pgbouncer.ini");
        for (path, text) in [(&ini, configuration), (&dir.path().join("users"), users)] {
            std::fs::write(path, text).expect("a file can be written");
            if let Some((user, group)) = other_user() {
                chown(path, Some(user), Some(group)).expect("root may give a file away");
            }
        }
        let mut command = as_user(program);
        command.arg(&ini).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let (started, ready) = channel();
        // As for a server: the thread that started it may be one that ends with its test, which others outlast.
        let watcher = std::thread::spawn(move || {
            let child = command.spawn().expect("PgBouncer can be started");
            drop(watch(child, READY, |pid| started.send(pid).expect("it is waited for")));
        });
        match ready.recv() {
            Ok(pid) => Some(Self { port, pid, watcher: Some(watcher), _dir: dir }),
            Err(_) => {
                watcher.join().expect("the watcher does not panic");
                None
            }
        }
    }

    /// Returns the URL of a database for a user, through it.
    pub fn url_of(&self, user: &str, database: &str) -> String {
        format!("postgres://{user}@127.0.0.1:{}/{database}?sslmode=disable", self.port)
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        if let Err(error) = kill_process(self.pid, Signal::KILL) {
            tracing::warn!(%error, "PgBouncer ended by itself");
        }
        if self.watcher.take().is_some_and(|watcher| watcher.join().is_err()) {
            tracing::warn!("the watcher of PgBouncer panicked");
        }
    }
}

fn program() -> Option<PathBuf> {
    let in_path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = std::env::split_paths(&in_path).collect();
    places.push("/usr/sbin".into());
    places.into_iter().map(|place| place.join("pgbouncer")).find(|program| program.exists())
}

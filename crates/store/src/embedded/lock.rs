//! A data directory and the right to it: one process owns it, and the lock file says which one.
//!
//! The lock is advisory and of the operating system, so it ends with the process, however that ends. The
//! text in the file is for messages only.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::StoreError;

/// What this release writes into `DIR/format`, and the newest it reads.
const FORMAT: u32 = 2;

/// A data directory that this process owns. Clones share it; the directory is free for another process
/// when the last one is dropped.
#[derive(Clone, Debug)]
pub struct DataDir {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    // Held, never read: the lock is on the open file.
    _lock: File,
}

impl DataDir {
    /// Takes the directory at `path`, making it if it is not there.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when another process owns it (the message says which) or it cannot be
    /// made; [`StoreError::Invalid`] when a later release wrote it; [`StoreError::Corrupt`] when its
    /// format file is damaged.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref().to_owned();
        let tried = || format!("open the data directory {}", path.display());
        let failed = |error: io::Error| StoreError::unavailable(tried(), error);
        std::fs::create_dir_all(&path).map_err(failed)?;
        let lock_path = path.join("lock");
        let mut lock = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&lock_path);
        let lock = lock.as_mut().map_err(|error| StoreError::unavailable(tried(), &*error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StoreError::unavailable(tried(), owner(lock, &path))),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        check_format(&path)?;
        sign(lock).map_err(failed)?;
        let lock = lock.try_clone().map_err(failed)?;
        Ok(Self { inner: Arc::new(Inner { path, _lock: lock }) })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }
}

/// Writes who owns the directory into the lock file; the time of writing is the file's own.
fn sign(mut lock: &File) -> io::Result<()> {
    let command = std::env::args().collect::<Vec<_>>().join(" ");
    lock.set_len(0)?;
    lock.write_all(format!("{}\n{command}\n", std::process::id()).as_bytes())
}

/// Which process owns the directory, and what to do about it.
fn owner(mut lock: &File, path: &Path) -> String {
    let mut text = String::new();
    let read = lock.read_to_string(&mut text);
    let mut lines = text.lines();
    let process = match (read, lines.next(), lines.next()) {
        (Ok(_), Some(pid), Some(command)) => format!("process {pid} ({command})"),
        _ => "another process".to_owned(),
    };
    let since = lock.metadata().and_then(|metadata| metadata.modified());
    let since = since.ok().and_then(|since| jiff::Timestamp::try_from(since).ok());
    let since = since.map_or_else(String::new, |since| format!(" since {since:.0}"));
    format!("{process} has owned it{since}: stop that process, or use another directory than {}", path.display())
}

fn check_format(path: &Path) -> Result<(), StoreError> {
    let file = path.join("format");
    let failed = |error: io::Error| StoreError::unavailable(format!("use {}", file.display()), error);
    match std::fs::read_to_string(&file) {
        Ok(text) => match text.trim().strip_prefix("dacapo ").and_then(|version| version.parse::<u32>().ok()) {
            Some(FORMAT) => Ok(()),
            Some(1) => Err(StoreError::Invalid(format!(
                "{} has format 1, of builds before the first release; this release of dacapo knows format {FORMAT}: \
                 export its events with the build that wrote it and import them into a new directory",
                path.display()
            ))),
            Some(version) => Err(StoreError::Invalid(format!(
                "{} has format {version}, this release of dacapo knows format {FORMAT}: use the release \
                 that wrote it, or a later one",
                path.display()
            ))),
            None => Err(StoreError::corrupt(
                file.display(),
                format!("it reads {text:?} where \"dacapo {FORMAT}\" should be: restore the file from a backup"),
            )),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // First beside it, then in place, so that a crash never leaves half a file.
            let new = path.join("format.new");
            let mut out = File::create(&new).map_err(failed)?;
            out.write_all(format!("dacapo {FORMAT}\n").as_bytes()).map_err(failed)?;
            out.sync_all().map_err(failed)?;
            std::fs::rename(&new, &file).map_err(failed)?;
            // The directory itself may be new, too.
            for dir in [Some(path), path.canonicalize().map_err(failed)?.parent()].into_iter().flatten() {
                File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed)?;
            }
            Ok(())
        }
        Err(error) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_owner_and_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let owned = DataDir::open(dir.path()).unwrap();
        let clone = owned.clone();
        drop(owned);
        let error = DataDir::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        assert!(error.contains(" since 20") && error.contains("stop that process"), "{error}");
        drop(clone);
        DataDir::open(dir.path()).unwrap();
    }

    #[test]
    fn a_later_format_is_refused_and_a_damaged_one_is_named() {
        let dir = tempfile::tempdir().unwrap();
        drop(DataDir::open(dir.path()).unwrap());
        std::fs::write(dir.path().join("format"), "dacapo 3\n").unwrap();
        let error = DataDir::open(dir.path()).unwrap_err();
        assert!(matches!(&error, StoreError::Invalid(text) if text.contains("format 3")), "{error}");
        std::fs::write(dir.path().join("format"), "dacapo 1\n").unwrap();
        let error = DataDir::open(dir.path()).unwrap_err();
        assert!(matches!(&error, StoreError::Invalid(text) if text.contains("before the first release")), "{error}");
        std::fs::write(dir.path().join("format"), "da").unwrap();
        assert!(matches!(DataDir::open(dir.path()), Err(StoreError::Corrupt { .. })));
    }
}

//! A data directory and the right to it: one process owns it, and the lock file says which one.
//!
//! The lock is advisory and of the operating system, so it ends with the process, however that ends. It is on the
//! directory itself, which nobody can replace under the owner without replacing everything in it. The text in the
//! file `lock` is for messages only.

use std::fs::{File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use dacapo_model::JournalId;

use super::disk::{FILE_MODE, private_dir};
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
    // Held, never read: the lock is on the open directory.
    _lock: File,
    /// The journal that was begun here, as the format file says; `None` before there is one.
    journal: Mutex<Option<JournalId>>,
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
        private_dir(&path).map_err(failed)?;
        let lock = File::open(&path).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StoreError::unavailable(tried(), owner(&path))),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let (held, named) = (lock.metadata().map_err(failed)?, std::fs::metadata(&path).map_err(failed)?);
        if (held.dev(), held.ino()) != (named.dev(), named.ino()) {
            return Err(StoreError::unavailable(tried(), "it was replaced just now: try again"));
        }
        let journal = Mutex::new(check_format(&path)?);
        sign(&path).map_err(failed)?;
        Ok(Self { inner: Arc::new(Inner { path, _lock: lock, journal }) })
    }

    /// The journal that was begun here: it must be there from then on. `None` before there is one.
    pub fn journal(&self) -> Option<JournalId> {
        *self.inner.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes durably that the journal `id` was begun here, if none was before.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when it cannot be written.
    pub fn begin_journal(&self, id: JournalId) -> Result<(), StoreError> {
        let mut journal = self.inner.journal.lock().unwrap_or_else(PoisonError::into_inner);
        if journal.is_none() {
            write_format(&self.inner.path, Some(id))?;
            *journal = Some(id);
        }
        Ok(())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }
}

/// Writes who owns the directory into the lock file; the time of writing is the file's own. Nothing of the command line,
/// which may hold secrets.
fn sign(path: &Path) -> io::Result<()> {
    let mut lock =
        OpenOptions::new().write(true).create(true).truncate(true).mode(FILE_MODE).open(path.join("lock"))?;
    lock.set_permissions(Permissions::from_mode(FILE_MODE))?;
    lock.write_all(format!("{}\n", std::process::id()).as_bytes())
}

/// Which process owns the directory, and what to do about it.
fn owner(path: &Path) -> String {
    let lock = File::open(path.join("lock"));
    let mut text = String::new();
    let read = lock.as_ref().map(|mut lock| lock.read_to_string(&mut text));
    let process = match (read, text.lines().next()) {
        (Ok(Ok(_)), Some(pid)) => format!("process {pid}"),
        _ => "another process".to_owned(),
    };
    let since = lock.and_then(|lock| lock.metadata()).and_then(|metadata| metadata.modified());
    let since = since.ok().and_then(|since| jiff::Timestamp::try_from(since).ok());
    let since = since.map_or_else(String::new, |since| format!(" since {since:.0}"));
    format!("{process} has owned it{since}: stop that process, or use another directory than {}", path.display())
}

/// What the format file says after its first line, before the identity of the journal.
const JOURNAL: &str = "journal ";

/// Checks the format of the directory, a new one's being this release's, and tells which journal was begun in it.
fn check_format(path: &Path) -> Result<Option<JournalId>, StoreError> {
    let file = path.join("format");
    let text = match std::fs::read(&file) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // It is written before anything else, so what is here is of a form that nobody can tell any more.
            if path.join("journal").exists() {
                let found = format!(
                    "it is missing, and a journal is there: restore it from a backup, or write \"dacapo {FORMAT}\" into it \
                     if this release wrote the directory"
                );
                return Err(StoreError::corrupt(file.display(), found));
            }
            return write_format(path, None).map(|()| None);
        }
        Err(error) => return Err(StoreError::unavailable(format!("use {}", file.display()), error)),
    };
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    match first.strip_prefix("dacapo ").and_then(|version| version.parse::<u32>().ok()) {
        Some(FORMAT) => {}
        Some(1) => {
            return Err(StoreError::Invalid(format!(
                "{} has format 1, of builds before the first release; this release of dacapo knows format {FORMAT}: \
                 export its events with the build that wrote it and import them into a new directory",
                path.display()
            )));
        }
        Some(version) => {
            return Err(StoreError::Invalid(format!(
                "{} has format {version}, this release of dacapo knows format {FORMAT}: use the release \
                 that wrote it, or a later one",
                path.display()
            )));
        }
        None => return Err(bad_format(&file, first, &format!("dacapo {FORMAT}"))),
    }
    let Some(line) = lines.next() else { return Ok(None) };
    let id = line.strip_prefix(JOURNAL).and_then(|id| uuid::Uuid::try_parse(id).ok());
    let id = id.ok_or_else(|| bad_format(&file, line, "the identity of the journal"))?;
    Ok(Some(JournalId::from_bytes(id.into_bytes())))
}

fn bad_format(file: &Path, found: &str, wanted: &str) -> StoreError {
    StoreError::corrupt(
        file.display(),
        format!("it reads {found:?} where {wanted:?} should be: restore the file from a backup"),
    )
}

fn write_format(path: &Path, journal: Option<JournalId>) -> Result<(), StoreError> {
    let file = path.join("format");
    let failed = |error: io::Error| StoreError::unavailable(format!("use {}", file.display()), error);
    let journal = journal.map_or_else(String::new, |id| format!("{JOURNAL}{id}\n"));
    // First beside it, then in place, so that a crash never leaves half a file.
    let new = path.join("format.new");
    let mut options = OpenOptions::new();
    let mut out = options.write(true).create(true).truncate(true).mode(FILE_MODE).open(&new).map_err(failed)?;
    out.write_all(format!("dacapo {FORMAT}\n{journal}").as_bytes()).map_err(failed)?;
    out.sync_all().map_err(failed)?;
    std::fs::rename(&new, &file).map_err(failed)?;
    // The directory itself may be new, too.
    for dir in [Some(path), path.canonicalize().map_err(failed)?.parent()].into_iter().flatten() {
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed)?;
    }
    Ok(())
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

    /// Whatever is done to the files in it.
    #[test]
    fn a_removed_lock_file_gives_nobody_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let owned = DataDir::open(dir.path()).unwrap();
        std::fs::remove_file(dir.path().join("lock")).unwrap();
        let error = DataDir::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("another process has owned it"), "{error}");
        drop(owned);
        DataDir::open(dir.path()).unwrap();
    }

    #[test]
    fn what_is_stored_is_for_its_user_only() {
        let dir = tempfile::tempdir().unwrap();
        let (data, mode) =
            (dir.path().join("data"), |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777);
        let owned = DataDir::open(&data).unwrap();
        assert_eq!(mode(&data), 0o700);
        let options = crate::embedded::JournalOptions::default();
        let journal = crate::embedded::EmbeddedJournal::open(&owned, options).unwrap();
        assert_eq!(mode(&data.join("journal")), 0o700);
        for file in ["lock", "format", "journal/commit", "journal/chunk-00000000000000000001.log"] {
            assert_eq!(mode(&data.join(file)), 0o600, "{file}");
        }
        let text = std::fs::read_to_string(data.join("lock")).unwrap();
        assert_eq!(text, format!("{}\n", std::process::id()), "nothing of the command line");
        drop(journal);
    }

    #[test]
    fn a_format_that_is_gone_is_not_made_up() {
        let dir = tempfile::tempdir().unwrap();
        drop(DataDir::open(dir.path()).unwrap());
        std::fs::create_dir(dir.path().join("journal")).unwrap();
        std::fs::remove_file(dir.path().join("format")).unwrap();
        let error = DataDir::open(dir.path()).unwrap_err();
        assert!(matches!(&error, StoreError::Corrupt { place, .. } if place.ends_with("format")), "{error}");
        assert!(!dir.path().join("format").exists(), "nothing was written");
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

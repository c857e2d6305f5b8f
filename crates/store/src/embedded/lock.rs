//! A data directory and the right to use it: one process owns it, and the lock file names that process.
//!
//! The lock is an advisory lock of the operating system, so it ends with the process, even after a crash. It is on the
//! directory itself, which nobody can replace without replacing everything in it. The text in the file `lock` is for
//! messages only.

use std::fs::{File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use dacapo_model::JournalId;
use rustix::fs::OFlags;

use super::disk::{FILE_MODE, not_a_file, open_file, private_dir};
use crate::error::StoreError;
use crate::files::with_advice;

/// The format that this release writes into `DIR/format`. It is the newest that it reads.
const FORMAT: u32 = 2;

/// A data directory that this process owns. Clones share it. The directory is free for another process when the last
/// clone is dropped.
#[derive(Clone, Debug)]
pub struct DataDir {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    // Held, never read: the lock is on the open directory.
    _lock: File,
    /// The journal that was begun here, according to the format file; `None` if none was begun yet.
    journal: Mutex<Option<JournalId>>,
}

impl DataDir {
    /// Takes ownership of the directory at `path`, and makes it if it does not exist.
    ///
    /// # Errors
    /// [`StoreError::Owned`] if another process owns it (the message says which), [`StoreError::Unavailable`] if it
    /// cannot be made; [`StoreError::Invalid`] if a later release wrote it; [`StoreError::Corrupt`] if its format file
    /// is damaged.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref().to_owned();
        private_dir(&path).map_err(|error| StoreError::unavailable(tried(&path), with_advice(&error)))?;
        let lock = locked(&path, File::try_lock)?;
        let journal = match read_format(&path)? {
            Some(journal) => journal,
            None => {
                write_format(&path, None)?;
                None
            }
        };
        sign(&path).map_err(|error| file_error(&path.join("lock"), &error))?;
        Ok(Self { inner: Arc::new(Inner { path, _lock: lock, journal: Mutex::new(journal) }) })
    }

    /// Opens the directory at `path` only to look at it: nothing in it changes. Several processes may do that at the
    /// same time, but not while another process owns it.
    ///
    /// # Errors
    /// As [`open`](Self::open); [`StoreError::Invalid`] if it holds no data.
    pub fn look(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref().to_owned();
        let lock = locked(&path, File::try_lock_shared)?;
        let nothing = || StoreError::Invalid(format!("{} holds no data of dacapo", path.display()));
        let journal = Mutex::new(read_format(&path)?.ok_or_else(nothing)?);
        Ok(Self { inner: Arc::new(Inner { path, _lock: lock, journal }) })
    }

    /// Returns the journal that was begun here, and that must exist from then on. Returns `None` if none was begun yet.
    pub fn journal(&self) -> Option<JournalId> {
        *self.inner.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records durably that the journal `id` was begun here, if none was begun before.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if it cannot be written.
    pub fn begin_journal(&self, id: JournalId) -> Result<(), StoreError> {
        let mut journal = self.inner.journal.lock().unwrap_or_else(PoisonError::into_inner);
        if journal.is_none() {
            write_format(&self.inner.path, Some(id))?;
            *journal = Some(id);
        }
        Ok(())
    }

    /// Returns its path.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }
}

fn tried(path: &Path) -> String {
    format!("open the data directory {}", path.display())
}

/// Returns the open directory at `path`, locked by `lock`.
fn locked(path: &Path, lock: impl Fn(&File) -> Result<(), TryLockError>) -> Result<File, StoreError> {
    let failed = |error: io::Error| StoreError::unavailable(tried(path), with_advice(&error));
    let directory = OFlags::DIRECTORY.bits().cast_signed();
    let open = OpenOptions::new().read(true).custom_flags(directory).open(path).map_err(failed)?;
    match lock(&open) {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(not_ours(path, &open)),
        Err(TryLockError::Error(error)) => return Err(failed(error)),
    }
    let (held, named) = (open.metadata().map_err(failed)?, std::fs::metadata(path).map_err(failed)?);
    if (held.dev(), held.ino()) != (named.dev(), named.ino()) {
        return Err(StoreError::unavailable(tried(path), "it was replaced just now: retry"));
    }
    Ok(open)
}

/// Returns the error that a file beside the journal cannot be used.
fn file_error(file: &Path, error: &io::Error) -> StoreError {
    not_a_file(file, error)
        .unwrap_or_else(|| StoreError::unavailable(format!("use {}", file.display()), with_advice(error)))
}

/// Writes the owner into the lock file. The time is that of the file itself. Nothing of the command line is written,
/// since it may hold secrets.
fn sign(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(FILE_MODE);
    let mut lock = open_file(&options, &path.join("lock"))?;
    lock.set_permissions(Permissions::from_mode(FILE_MODE))?;
    lock.write_all(format!("{}\n", std::process::id()).as_bytes())
}

/// Returns the error that another process owns the directory, with its id and what to do.
fn not_ours(path: &Path, directory: &File) -> StoreError {
    // A process that only looks does not write to the file.
    if directory.try_lock_shared().is_ok() {
        let found = "another process looks at it now: retry when that has ended";
        return StoreError::unavailable(tried(path), found);
    }
    let lock = open_file(OpenOptions::new().read(true), &path.join("lock"));
    let mut text = String::new();
    let read = lock.as_ref().map(|mut lock| lock.read_to_string(&mut text));
    let process = match (read, text.lines().next()) {
        (Ok(Ok(_)), Some(pid)) => format!("process {pid}"),
        _ => "another process".to_owned(),
    };
    let since = lock.and_then(|lock| lock.metadata()).and_then(|metadata| metadata.modified());
    let since = since.ok().and_then(|since| jiff::Timestamp::try_from(since).ok());
    let since = since.map_or_else(String::new, |since| format!(" since {since:.0}"));
    let found =
        format!("{process} has owned it{since}: stop that process, or use another directory than {}", path.display());
    StoreError::Owned { tried: tried(path), found }
}

/// The text of the format file after its first line, before the identity of the journal.
const JOURNAL: &str = "journal ";

/// Checks the format of the directory, and returns the journal that was begun in it, if there is one; `None` for a new
/// directory.
fn read_format(path: &Path) -> Result<Option<Option<JournalId>>, StoreError> {
    let file = path.join("format");
    let mut bytes = Vec::new();
    let read = open_file(OpenOptions::new().read(true), &file).and_then(|mut file| file.read_to_end(&mut bytes));
    match read {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // The format file is written before anything else, so the form of the existing data is unknown.
            if path.join("journal").exists() {
                let found = format!(
                    "it is missing, and a journal is there: restore it from a backup, or write \"dacapo {FORMAT}\" into it \
                     if this release wrote the directory"
                );
                return Err(StoreError::corrupt(file.display(), found));
            }
            return Ok(None);
        }
        Err(error) => return Err(file_error(&file, &error)),
    }
    let text = String::from_utf8_lossy(&bytes);
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
    let Some(line) = lines.next() else { return Ok(Some(None)) };
    let id = line.strip_prefix(JOURNAL).and_then(|id| uuid::Uuid::try_parse(id).ok());
    let id = id.ok_or_else(|| bad_format(&file, line, "the identity of the journal"))?;
    Ok(Some(Some(JournalId::from_bytes(id.into_bytes()))))
}

fn bad_format(file: &Path, found: &str, wanted: &str) -> StoreError {
    StoreError::corrupt(
        file.display(),
        format!("it reads {found:?} where {wanted:?} should be: restore the file from a backup"),
    )
}

fn write_format(path: &Path, journal: Option<JournalId>) -> Result<(), StoreError> {
    let file = path.join("format");
    let failed = |error: io::Error| file_error(&file, &error);
    let journal = journal.map_or_else(String::new, |id| format!("{JOURNAL}{id}\n"));
    // It is written beside the file and then renamed, so that a crash never leaves half a file.
    let new = path.join("format.new");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(FILE_MODE);
    let mut out = open_file(&options, &new).map_err(|error| file_error(&new, &error))?;
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

//! The place of a view, and what is known of its health.

use std::collections::BTreeMap;
use std::ffi::c_int;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use rusqlite::{Error, ErrorCode, ffi};

use crate::error::StoreError;
use crate::files::with_advice;
use crate::limits;
use crate::sqlite::fault::fault;
use crate::sqlite::pages::{self, Unread};
use crate::sqlite::vfs::fails;
use crate::sqlite::view::locked;
use crate::sqlite::watch::Watch;
use crate::views::ViewHealth;

/// The place of a view. All users of the view in a process share it.
#[derive(Debug)]
pub(crate) struct Place {
    /// Its name in messages.
    pub(crate) name: String,
    /// True if the view was dropped.
    pub(crate) gone: AtomicBool,
    /// True if no file may grow, as on a full disk.
    pub(crate) full: Arc<AtomicBool>,
    /// True if it is only looked at.
    pub(crate) looks: bool,
    /// The first damage that was found.
    damaged: Mutex<Option<String>>,
    /// The failures of the last tries.
    failing: Mutex<BTreeMap<String, Failing>>,
    /// True if `failing` has an entry.
    is_failing: AtomicBool,
    /// True if a thread is reading again what could not be read.
    reading: AtomicBool,
    /// The file, for checks of its pages. It is closed with the last connection and not before: a process that closes a
    /// file releases all its locks on the file, including those of SQLite.
    file: Mutex<Option<Arc<File>>>,
    /// The watch of the files that the first connection opened.
    watch: OnceLock<Arc<Watch>>,
}

/// A failed use.
#[derive(Debug)]
struct Failing {
    error: String,
    /// The data that could not be read, if a read failed.
    unread: Option<Unread>,
}

impl Place {
    pub(crate) fn new(name: String) -> Arc<Self> {
        Self::on_disk(name, Arc::default())
    }

    /// Returns a place on a disk that reports when it is full.
    pub(crate) fn on_disk(name: String, full: Arc<AtomicBool>) -> Arc<Self> {
        Arc::new(Self::of(name, full, false))
    }

    /// Returns a place on a disk that is only read.
    pub(crate) fn to_look_at(name: String) -> Arc<Self> {
        Arc::new(Self::of(name, Arc::default(), true))
    }

    fn of(name: String, full: Arc<AtomicBool>, looks: bool) -> Self {
        let (gone, damaged, failing, is_failing, reading, file, watch) = Default::default();
        Self { name, gone, full, looks, damaged, failing, is_failing, reading, file, watch }
    }

    /// Returns the file of the view, which is at `path`.
    pub(crate) fn file(&self, path: &Path) -> io::Result<Arc<File>> {
        let mut file = locked(&self.file);
        match &*file {
            Some(file) => Ok(Arc::clone(file)),
            None => Ok(Arc::clone(file.insert(Arc::new(File::open(path)?)))),
        }
    }

    /// Returns the meaning of an error that occurred during `tried`. Damage is remembered as long as the view exists, a
    /// failure until the same use succeeds again.
    pub(crate) fn fault(&self, tried: &str, error: &Error) -> StoreError {
        let damage = is_of_page(error).then(pages::take_found).flatten();
        let unopened = pages::take_unopened();
        let fault = fault(&self.name, tried, error, damage.as_ref(), unopened.as_deref());
        // Damage of the view from which another one is copied is not damage of this one.
        if matches!(fault, StoreError::Corrupt { .. }) && damage.is_none_or(|damage| damage.is_of(&self.name)) {
            self.damaged(&fault);
        }
        let is_failing = matches!(
            error.sqlite_error_code(),
            Some(ErrorCode::SystemIoFailure | ErrorCode::DiskFull | ErrorCode::CannotOpen | ErrorCode::ReadOnly)
        );
        if matches!(fault, StoreError::Unavailable { .. }) && is_failing {
            let mut failing = locked(&self.failing);
            if failing.len() < limits::FAILED_READS_MAX || failing.contains_key(tried) {
                let unread = is_of_read(error).then(pages::take_unread).flatten();
                let unread = unread.filter(|unread| pages::is_of(&unread.file.to_string_lossy(), &self.name));
                failing.insert(tried.to_owned(), Failing { error: fault.to_string(), unread });
            }
            self.is_failing.store(true, Ordering::Release);
        }
        fault
    }

    /// Records damage. Only the first damage is reported.
    pub(crate) fn damaged(&self, found: &StoreError) {
        let mut damaged = locked(&self.damaged);
        if damaged.is_none() {
            tracing::error!(view = self.name, error = %found, "a view is damaged: rebuild its projection");
            *damaged = Some(found.to_string());
        }
    }

    /// Takes over the watch of the files that a connection has opened. All connections have the same files.
    pub(super) fn watch(&self, opened: Arc<Watch>) -> Result<(), StoreError> {
        // If the first connection opened another file, the directory no longer names that one.
        self.watch.get_or_init(|| opened);
        self.check_files()
    }

    /// Checks that no other program has removed, replaced or changed the files of the view. If one has, nothing is read
    /// from the view or written to it any more.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if one has, from then on; [`StoreError::Unavailable`] if the files cannot be looked at, or
    /// if the file of the view was removed, renamed or replaced: opened again, the view is what the directory names.
    pub(crate) fn check_files(&self) -> Result<(), StoreError> {
        let Some(watch) = self.watch.get() else { return Ok(()) };
        let changed = watch.changed().map_err(|error| {
            StoreError::unavailable(format!("look at the files of {}", self.name), with_advice(&error))
        })?;
        match changed {
            Some(changed) if changed.is_gone && !self.gone.load(Ordering::Acquire) => Err(StoreError::unavailable(
                format!("use {}", changed.file.display()),
                format!("{}: the view is opened again", changed.found),
            )),
            // The files of a dropped view are removed.
            Some(changed) if !self.gone.load(Ordering::Acquire) => {
                let found = StoreError::corrupt(
                    changed.file.display().to_string(),
                    format!(
                        "{}, so nothing is read from this view or written to it any more: stop the process and put back \
                         the file that was there, with its -wal and -moved, or rebuild the projection",
                        changed.found
                    ),
                );
                self.damaged(&found);
                Err(found)
            }
            _ => Ok(()),
        }
    }

    /// Records that `tried` has succeeded.
    pub(crate) fn well(&self, tried: impl FnOnce() -> String) {
        if self.is_failing.load(Ordering::Acquire) {
            self.forget(&tried());
        }
    }

    /// Records that a transaction was committed, so the view can be written to.
    pub(crate) fn written(&self) {
        if self.is_failing.load(Ordering::Acquire) {
            self.retain(|tried| tried.starts_with("read ") || tried.starts_with("carry out "));
        }
    }

    fn forget(&self, well: &str) {
        self.retain(|tried| tried != well);
    }

    /// Reads again what could not be read, unless a thread does so already. Nobody else may ever read that place again.
    /// `path` is that of the view's file.
    pub(crate) fn read_again(self: &Arc<Self>, path: &Path) {
        let is_unread = || locked(&self.failing).values().any(|failing| failing.unread.is_some());
        if !self.is_failing.load(Ordering::Acquire) || !is_unread() {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if !self.reading.swap(true, Ordering::AcqRel) {
            let (place, path) = (Arc::clone(self), path.to_owned());
            drop(runtime.spawn_blocking(move || {
                place.read_unread(&path);
                place.reading.store(false, Ordering::Release);
            }));
        }
    }

    fn read_unread(&self, path: &Path) {
        let unread = |(tried, failing): (&String, &Failing)| Some((tried.clone(), failing.unread.clone()?));
        let all: Vec<_> = locked(&self.failing).iter().filter_map(unread).collect();
        for (tried, unread) in all {
            // SQLite has no locks on a WAL, so closing the file releases none.
            let is_wal = unread.file.as_os_str().as_encoded_bytes().ends_with(b"-wal");
            let file = if is_wal { File::open(&unread.file).map(Arc::new) } else { self.file(path) };
            let mut bytes = vec![0; unread.length];
            let is_read = match file.and_then(|file| file.read_exact_at(&mut bytes, unread.at)) {
                Ok(()) => !fails::to_read(&unread.file),
                // A place that no longer exists is read by nobody.
                Err(error) => matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::NotFound),
            };
            let is_same = |failing: &Failing| failing.unread.as_ref() == Some(&unread);
            if is_read {
                self.retain_if(|other, failing| *other != tried || !is_same(failing));
            }
        }
    }

    fn retain(&self, fails: impl Fn(&str) -> bool) {
        self.retain_if(|tried, _| fails(tried));
    }

    fn retain_if(&self, fails: impl Fn(&str, &Failing) -> bool) {
        let mut failing = locked(&self.failing);
        failing.retain(|tried, failing| fails(tried, failing));
        self.is_failing.store(!failing.is_empty(), Ordering::Release);
    }

    /// Returns the health of the view, as far as it is known.
    pub(crate) fn health(&self) -> ViewHealth {
        let damaged = locked(&self.damaged).clone();
        ViewHealth { damaged, failing: locked(&self.failing).values().next().map(|failing| failing.error.clone()) }
    }
}

/// Returns true if the error, which has just occurred on this thread, is about a page that is not what was written.
fn is_of_page(error: &Error) -> bool {
    extended_code(error) == Some(ffi::SQLITE_IOERR_DATA)
}

/// Returns true if the error, which has just occurred on this thread, is that something could not be read.
fn is_of_read(error: &Error) -> bool {
    extended_code(error) == Some(ffi::SQLITE_IOERR_READ)
}

fn extended_code(error: &Error) -> Option<c_int> {
    match error {
        Error::SqliteFailure(failure, _) | Error::SqlInputError { error: failure, .. } => Some(failure.extended_code),
        _ => None,
    }
}

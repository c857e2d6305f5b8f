//! Where a view is kept, and what is known of how that is.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use rusqlite::{Error, ErrorCode, ffi};

use crate::error::StoreError;
use crate::sqlite::fault::fault;
use crate::sqlite::pages;
use crate::sqlite::view::locked;
use crate::views::ViewHealth;

/// How many things that fail are remembered.
const FAILING_MAX: usize = 64;

/// Where a view is kept. All of a process that use the view share it.
#[derive(Debug)]
pub(crate) struct Place {
    /// Its name in messages.
    pub(crate) name: String,
    /// Whether the view was dropped.
    pub(crate) gone: AtomicBool,
    /// Whether nothing may grow, as on a disk that is full.
    pub(crate) full: Arc<AtomicBool>,
    /// Whether it is only looked at.
    pub(crate) looks: bool,
    /// What was found damaged first.
    damaged: Mutex<Option<String>>,
    /// What failed when it was tried last, with the error.
    failing: Mutex<BTreeMap<String, String>>,
    /// Whether there is anything in there.
    is_failing: AtomicBool,
    /// The file, for whoever looks at its pages. It is closed with the last connection and not before: whoever closes a
    /// file gives up all locks that his process has on it, and with them those of SQLite.
    file: Mutex<Option<Arc<File>>>,
}

impl Place {
    pub(crate) fn new(name: String) -> Arc<Self> {
        Self::on_disk(name, Arc::default())
    }

    /// A place on a disk that tells when it is full.
    pub(crate) fn on_disk(name: String, full: Arc<AtomicBool>) -> Arc<Self> {
        Arc::new(Self::of(name, full, false))
    }

    /// A place on a disk that is only looked at.
    pub(crate) fn to_look_at(name: String) -> Arc<Self> {
        Arc::new(Self::of(name, Arc::default(), true))
    }

    fn of(name: String, full: Arc<AtomicBool>, looks: bool) -> Self {
        let (gone, damaged, failing, is_failing, file) = Default::default();
        Self { name, gone, full, looks, damaged, failing, is_failing, file }
    }

    /// The file at `path`, which is that of the view.
    pub(crate) fn file(&self, path: &Path) -> io::Result<Arc<File>> {
        let mut file = locked(&self.file);
        match &*file {
            Some(file) => Ok(Arc::clone(file)),
            None => Ok(Arc::clone(file.insert(Arc::new(File::open(path)?)))),
        }
    }

    /// What an error means that was met while doing what `tried` says. Damage is remembered for as long as the view is
    /// there; what fails, until it succeeds again.
    pub(crate) fn fault(&self, tried: &str, error: &Error) -> StoreError {
        let damage = is_of_page(error).then(pages::take_found).flatten();
        let fault = fault(&self.name, tried, error, damage.as_ref());
        // What another view is copied from is not this one.
        if matches!(fault, StoreError::Corrupt { .. }) && damage.is_none_or(|damage| damage.is_of(&self.name)) {
            self.damaged(&fault);
        }
        let is_failing = matches!(
            error.sqlite_error_code(),
            Some(ErrorCode::SystemIoFailure | ErrorCode::DiskFull | ErrorCode::CannotOpen | ErrorCode::ReadOnly)
        );
        if matches!(fault, StoreError::Unavailable { .. }) && is_failing {
            let mut failing = locked(&self.failing);
            if failing.len() < FAILING_MAX || failing.contains_key(tried) {
                failing.insert(tried.to_owned(), fault.to_string());
            }
            self.is_failing.store(true, Ordering::Release);
        }
        fault
    }

    /// Remembers damage, of which the first that was found is told.
    pub(crate) fn damaged(&self, found: &StoreError) {
        let mut damaged = locked(&self.damaged);
        if damaged.is_none() {
            tracing::error!(view = self.name, error = %found, "a view is damaged: rebuild its projection");
            *damaged = Some(found.to_string());
        }
    }

    /// What `tried` says went well.
    pub(crate) fn well(&self, tried: impl FnOnce() -> String) {
        if self.is_failing.load(Ordering::Acquire) {
            self.forget(&tried());
        }
    }

    /// A transaction was committed, so the view can be written.
    pub(crate) fn written(&self) {
        if self.is_failing.load(Ordering::Acquire) {
            self.retain(|tried| tried.starts_with("read ") || tried.starts_with("carry out "));
        }
    }

    fn forget(&self, well: &str) {
        self.retain(|tried| tried != well);
    }

    fn retain(&self, fails: impl Fn(&str) -> bool) {
        let mut failing = locked(&self.failing);
        failing.retain(|tried, _| fails(tried));
        self.is_failing.store(!failing.is_empty(), Ordering::Release);
    }

    /// How the view is, as far as that was noticed.
    pub(crate) fn health(&self) -> ViewHealth {
        let damaged = locked(&self.damaged).clone();
        ViewHealth { damaged, failing: locked(&self.failing).values().next().cloned() }
    }
}

/// Whether the error is one of a page that is not what was written, which this thread has just met.
fn is_of_page(error: &Error) -> bool {
    let failure = match error {
        Error::SqliteFailure(failure, _) | Error::SqlInputError { error: failure, .. } => failure,
        _ => return false,
    };
    failure.extended_code == ffi::SQLITE_IOERR_DATA
}

//! The check that the files of an open view are still those that this process has opened and written to.
//!
//! ```text
//!   open ─▶ identity of the file, and of the WAL
//!   pages are moved from the WAL ─▶ size and time of the file as this process left it
//!   each commit, each opened state, each second ─▶ the directory names the same files, and the file is as it was left
//! ```
//!
//! SQLite works with the open file, whatever the directory names, and keeps pages in memory as long as the WAL's index
//! shows no change. So it does not notice that the file was removed, replaced or overwritten. In WAL mode the file
//! changes only while pages are moved, which only this process may do. So any other size or time is the work of another
//! program.
//!
//! All connections of the process to one file share its watch.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};

use crate::sqlite::moved::beside;
use crate::sqlite::view::locked;

/// The watches of the process. One of an entry that is not used any more is removed with the next new one.
static WATCHES: Mutex<BTreeMap<Identity, Weak<Watch>>> = Mutex::new(BTreeMap::new());

/// The identity of a file, which does not depend on its names: its device and its inode.
type Identity = (u64, u64);

/// The files of an open view.
#[derive(Debug)]
pub(crate) struct Watch {
    path: PathBuf,
    wal_path: PathBuf,
    identity: Identity,
    known: Mutex<Known>,
}

/// What is known of the files.
#[derive(Debug)]
struct Known {
    left: Left,
    /// The number of this process's own writes to the file that are under way.
    writes: usize,
    /// The WAL, while a connection has it open.
    wal: Option<Identity>,
    /// The number of connections that have it open.
    wals: usize,
    /// The first change of a file by another program. It stays: what is in memory belongs to the earlier content.
    changed: Option<Changed>,
}

/// The state in which a write leaves a file.
#[derive(Debug, PartialEq, Eq)]
struct Left {
    bytes: u64,
    modified: (i64, i64),
}

/// A change of a file by another program.
#[derive(Clone, Debug)]
pub(crate) struct Changed {
    pub(crate) file: PathBuf,
    pub(crate) found: String,
    /// True if the directory names another file, or none: the open one is no longer the view. It may come back.
    pub(crate) is_gone: bool,
}

/// A write of this process to the file of a view, until it is dropped.
#[derive(Debug)]
pub(super) struct Writing(Arc<Watch>);

impl Drop for Writing {
    fn drop(&mut self) {
        self.0.written();
    }
}

impl Watch {
    /// Returns the watch of the file at `path`, which was just opened.
    pub(super) fn of(path: &Path) -> io::Result<Arc<Self>> {
        let mut watches = locked(&WATCHES);
        let file = std::fs::metadata(path)?;
        let identity = identity(&file);
        if let Some(watch) = watches.get(&identity).and_then(Weak::upgrade) {
            return Ok(watch);
        }
        watches.retain(|_, watch| watch.strong_count() > 0);
        let known = Known { left: Left::by(&file), writes: 0, wal: None, wals: 0, changed: None };
        let watch = Arc::new(Self {
            path: path.to_owned(),
            wal_path: beside(path, "-wal"),
            identity,
            known: Mutex::new(known),
        });
        watches.insert(identity, Arc::downgrade(&watch));
        Ok(watch)
    }

    /// Notes that a connection has opened the WAL.
    pub(super) fn wal_opened(&self) {
        let mut known = locked(&self.known);
        known.wals += 1;
        if known.wal.is_none() {
            // If it is gone already, the next check finds another one or none.
            known.wal = Some(std::fs::metadata(&self.wal_path).map_or((0, 0), |wal| identity(&wal)));
        }
    }

    /// Notes that a connection is about to close the WAL. The last one may remove it.
    pub(super) fn wal_closed(&self) {
        let mut known = locked(&self.known);
        known.wals = known.wals.saturating_sub(1);
        if known.wals == 0 {
            known.wal = None;
        }
    }

    /// Notes that this process writes to the file from now on.
    pub(super) fn write(self: &Arc<Self>) -> Writing {
        locked(&self.known).writes += 1;
        Writing(Arc::clone(self))
    }

    fn written(&self) {
        let mut known = locked(&self.known);
        known.writes -= 1;
        if known.writes == 0
            && let Ok(file) = std::fs::metadata(&self.path)
            && identity(&file) == self.identity
        {
            known.left = Left::by(&file);
        }
    }

    /// Returns the change that another program has made to the files, if there is one.
    ///
    /// # Errors
    /// The error of the operating system, if the files cannot be looked at.
    pub(crate) fn changed(&self) -> io::Result<Option<Changed>> {
        let mut known = locked(&self.known);
        if known.changed.is_none() {
            let found = self.look(&known)?;
            if found.as_ref().is_some_and(|changed| changed.is_gone) {
                return Ok(found);
            }
            known.changed = found;
        }
        Ok(known.changed.clone())
    }

    fn look(&self, known: &Known) -> io::Result<Option<Changed>> {
        let file = match named(&self.path, self.identity)? {
            Ok(file) => file,
            Err(changed) => return Ok(Some(Changed { is_gone: true, ..changed })),
        };
        let (left, now) = (&known.left, Left::by(&file));
        if known.writes == 0 && *left != now {
            let found = match left.bytes == now.bytes {
                true => "another program wrote to it while this process had it open".to_owned(),
                false => format!(
                    "another program wrote to it while this process had it open: it had {} bytes, and has {} now",
                    left.bytes, now.bytes
                ),
            };
            return Ok(Some(Changed { file: self.path.clone(), found, is_gone: false }));
        }
        match known.wal {
            Some(wal) => Ok(named(&self.wal_path, wal)?.err()),
            None => Ok(None),
        }
    }
}

/// Returns the file that `path` names, or the change if it is not this one.
fn named(path: &Path, expected: Identity) -> io::Result<Result<Metadata, Changed>> {
    let found = match std::fs::metadata(path) {
        Ok(file) if identity(&file) == expected => return Ok(Ok(file)),
        Ok(_) => "another file was put in its place while this process had it open",
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            "it was removed or renamed while this process had it open"
        }
        Err(error) => return Err(error),
    };
    Ok(Err(Changed { file: path.to_owned(), found: found.to_owned(), is_gone: false }))
}

fn identity(file: &Metadata) -> Identity {
    (file.dev(), file.ino())
}

impl Left {
    fn by(file: &Metadata) -> Self {
        Self { bytes: file.len(), modified: (file.mtime(), file.mtime_nsec()) }
    }
}

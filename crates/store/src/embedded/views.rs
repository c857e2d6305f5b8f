//! Views as SQLite files: `<dir>/<projection>/v2.1.db`, one for each version.
//!
//! Files are in WAL mode with `synchronous=NORMAL`: a commit does not wait for the disk. That is sufficient, because
//! the journal is the truth. Rows and tokens commit together (I-3), and WAL frames are checked and ordered. So a power
//! loss takes the last commits and leaves an earlier state that is whole, and the processor continues from its token. A
//! killed process loses nothing.
//!
//! Each page has a checksum, in the file and in the WAL, which is checked whenever the page is read. Nothing of a
//! damaged page is used. A note beside the file records the pages that were moved from the WAL into the file, so that a
//! WAL that was damaged after a kill is recognised, too.
//!
//! Pages are not mapped into memory, so that a read error of the disk is an error and not a signal.
//!
//! A reader that lives long prevents the reuse of the WAL, so the file grows during that time.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::disk::{FILE_MODE, other_than_a_file, private_dir};
use super::look;
use crate::blocking::blocking;
use crate::error::StoreError;
use crate::files::with_advice;
use crate::limits;
use crate::sqlite::fault::corrupt;
use crate::sqlite::moved::{self, beside};
use crate::sqlite::scrub::{self, Looked};
use crate::sqlite::view::{Desk, Home, SqliteView, locked};
use crate::sqlite::{Db, Place};
use crate::table::Table;
use crate::views::{View, ViewCopy, ViewHealth, Views};
use async_trait::async_trait;
use dacapo_model::{ProjectionName, SegmentCount, VersionId, ViewId};

/// The suffixes of the names of a view's files. The file itself comes first, since the others mean nothing without it.
const SUFFIXES: [&str; 6] = ["", "-wal", "-shm", "-journal", moved::NOTE, moved::NEW_NOTE];
/// The files of a view that SQLite opens.
const OPENED: [&str; 4] = ["", "-wal", "-shm", "-journal"];

/// Views in one folder, one file each. A process has one of these for each folder, since two share no locks except
/// SQLite's.
pub struct SqliteViews(Arc<Folder>);

struct Folder {
    dir: PathBuf,
    /// The open views, so that all users in the process share one gate for each view, until they are dropped.
    open: Mutex<HashMap<ViewId, Arc<FileView>>>,
    full: Arc<AtomicBool>,
    /// True if they are opened only to look at them.
    looks: bool,
}

type FileView = SqliteView<FileHome>;

/// The action if the file does not exist.
enum Absent {
    Make,
    Leave,
}

impl SqliteViews {
    /// Returns the views in `dir`, which is made if it does not exist.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if it cannot be made.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let dir = dir.into();
        make_dir(&dir)?;
        Ok(Self(Arc::new(Folder { dir, open: Mutex::default(), full: Arc::default(), looks: false })))
    }

    /// Returns the views in `dir` only to look at them: none is made, and no byte changes, not even of the files that
    /// SQLite keeps beside them.
    pub fn look(dir: impl Into<PathBuf>) -> Self {
        Self(Arc::new(Folder { dir: dir.into(), open: Mutex::default(), full: Arc::default(), looks: true }))
    }

    /// Prevents views from growing, as if the disk were full, or allows it again, from the next transaction of each
    /// view on.
    #[cfg(feature = "contract")]
    pub fn set_full(&self, full: bool) {
        self.0.full.store(full, Ordering::Release);
    }

    /// Makes all files of views unreadable from now on, as if the disk failed, or readable again.
    #[cfg(feature = "contract")]
    pub fn fail_reads(&self, fail: bool) {
        crate::sqlite::vfs::fails::set(&self.0.dir, fail);
    }

    /// Does work in the folder beside the runtime's workers, since files are opened and made, and another process may
    /// have their locks.
    async fn apart<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Folder) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let folder = Arc::clone(&self.0);
        blocking(move || work(&folder)).await
    }
}

impl Folder {
    fn path(&self, id: &ViewId) -> PathBuf {
        self.dir.join(id.projection.as_str()).join(format!("{}.db", id.version))
    }

    /// Returns the open view, or opens the file after `make` has confirmed that it contains a view. One lock is held
    /// from the first look to the last, since two callers that make the same file would remove each other's.
    fn shared(
        &self,
        id: &ViewId,
        absent: Absent,
        make: impl FnOnce(&mut Db) -> Result<bool, StoreError>,
    ) -> Result<Option<Arc<dyn View>>, StoreError> {
        let mut open = locked(&self.open);
        if let Some(view) = open.get(id).map(Arc::clone) {
            // Work on one view may wait for another process and must not block the others.
            drop(open);
            let made = match absent {
                Absent::Make => view.home().control(make)?,
                Absent::Leave => view.home().look(make)?,
            };
            return Ok(made.then_some(view as Arc<dyn View>));
        }
        let path = self.path(id);
        if !path.try_exists().map_err(|error| io_fault("look for", &path, &error))? {
            match absent {
                Absent::Leave => return Ok(None),
                Absent::Make if self.looks => {
                    let found = "it is not there, and the directory is only looked at";
                    return Err(StoreError::unavailable(format!("make {}", path.display()), found));
                }
                Absent::Make => make_file(&path)?,
            }
        }
        let name = path.display().to_string();
        let place = if self.looks { Place::to_look_at(name) } else { Place::on_disk(name, Arc::clone(&self.full)) };
        // This comes before SQLite opens anything and uses what is left of the WAL.
        is_whole(&path, &place).inspect_err(|error| {
            if matches!(error, StoreError::Corrupt { .. }) {
                place.damaged(error);
            }
        })?;
        let mut control = connect(&path, &place, limits::READER_CACHE_KIB)?;
        if !make(&mut control)? {
            return Ok(None);
        }
        let file = FileId::of(&path)?;
        let home = FileHome { path, file, place, control: Mutex::new(control), idle: Mutex::default() };
        let view = Arc::new(SqliteView::new(home));
        open.insert(id.clone(), Arc::clone(&view));
        Ok(Some(view))
    }
}

#[async_trait]
impl Views for SqliteViews {
    #[expect(clippy::expect_used, reason = "a view that was made is there")]
    async fn open(&self, id: &ViewId, tables: &[Table], segments: SegmentCount) -> Result<Arc<dyn View>, StoreError> {
        let (id, tables) = (id.clone(), tables.to_vec());
        let make = move |folder: &Folder| {
            folder.shared(&id, Absent::Make, |db| db.make(&id, &tables, segments).map(|()| true))
        };
        Ok(self.apart(make).await?.expect("a view that was made is there"))
    }

    async fn find(&self, id: &ViewId) -> Result<Option<Arc<dyn View>>, StoreError> {
        let id = id.clone();
        self.apart(move |folder| folder.shared(&id, Absent::Leave, |db| db.is_made(&id))).await
    }

    async fn is_gone(&self, id: &ViewId) -> Result<bool, StoreError> {
        let id = id.clone();
        self.apart(move |folder| folder.is_gone(&id)).await
    }

    async fn list(&self) -> Result<Vec<ViewId>, StoreError> {
        self.apart(Folder::list).await
    }

    fn has_pages(&self) -> bool {
        true
    }

    async fn drop_view(&self, id: &ViewId) -> Result<(), StoreError> {
        let id = id.clone();
        self.apart(move |folder| {
            let mut open = locked(&folder.open);
            if let Some(view) = open.remove(&id) {
                view.home().place.gone.store(true, Ordering::Release);
            }
            remove_files(&folder.path(&id))
        })
        .await
    }
}

impl Folder {
    /// Compares the file that is there with the one that is open. An open file can still be read and written after it
    /// was removed, so nothing else shows this.
    fn is_gone(&self, id: &ViewId) -> Result<bool, StoreError> {
        let found = FileId::of(&self.path(id))?;
        let mut open = locked(&self.open);
        let Some(view) = open.get(id) else { return Ok(found.is_none()) };
        if found.is_some() && found == view.home().file {
            return Ok(false);
        }
        view.home().place.gone.store(true, Ordering::Release);
        open.remove(id);
        Ok(true)
    }

    fn list(&self) -> Result<Vec<ViewId>, StoreError> {
        let mut views = Vec::new();
        for folder in names_in(&self.dir)? {
            let Ok(projection) = ProjectionName::new(&folder) else { continue };
            for file in names_in(&self.dir.join(&folder))? {
                let version = file.strip_suffix(".db").and_then(|version| version.parse::<VersionId>().ok());
                let Some(version) = version else { continue };
                let id = ViewId { projection: projection.clone(), version };
                // A view that cannot be read exists even so, and opening it reports the error.
                if self.shared(&id, Absent::Leave, |db| db.is_made(&id)).map_or(true, |found| found.is_some()) {
                    views.push(id);
                }
            }
        }
        views.sort();
        Ok(views)
    }
}

/// The identity of a file, which another file at its path does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileId {
    device: u64,
    number: u64,
}

impl FileId {
    /// Returns the identity of the file at `path`; `None` if there is none. The file is not opened: a process that closes
    /// a file releases SQLite's locks on it.
    fn of(path: &Path) -> Result<Option<Self>, StoreError> {
        match std::fs::metadata(path) {
            Ok(file) => Ok(Some(Self { device: file.dev(), number: file.ino() })),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_fault("look at", path, &error)),
        }
    }
}

/// A view in a file.
struct FileHome {
    path: PathBuf,
    /// The file that is open.
    file: Option<FileId>,
    place: Arc<Place>,
    /// For tokens, claims and holds.
    control: Mutex<Db>,
    /// Connections that readers have returned.
    idle: Mutex<Vec<Db>>,
}

impl Home for FileHome {
    type Desk = Db;
    const INLINE: bool = false;

    fn desk(self: &Arc<Self>) -> Result<Db, StoreError> {
        connect(&self.path, &self.place, limits::WRITER_CACHE_KIB)
    }

    fn control<T>(&self, act: impl FnOnce(&mut Db) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.place.check_files()?;
        act(&mut locked(&self.control))
    }

    fn look<T>(&self, act: impl FnOnce(&mut Db) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut db = self.snapshot()?;
        let seen = act(&mut db);
        self.give_back(db);
        seen
    }

    fn snapshot_now(&self) -> Option<Db> {
        self.place.check_files().ok()?;
        let mut db = locked(&self.idle).pop()?;
        db.tried("begin to read", |connection| connection.execute_batch("BEGIN")).ok()?;
        Some(db)
    }

    fn snapshot(&self) -> Result<Db, StoreError> {
        self.place.check_files()?;
        let idle = locked(&self.idle).pop();
        let mut db = match idle {
            Some(db) => db,
            None => {
                let mut db = connect(&self.path, &self.place, limits::READER_CACHE_KIB)?;
                db.tried("open the view", |connection| connection.pragma_update(None, "query_only", true))?;
                db
            }
        };
        db.tried("begin to read", |connection| connection.execute_batch("BEGIN"))?;
        Ok(db)
    }

    fn copy(&self) -> Result<ViewCopy, StoreError> {
        self.place.check_files()?;
        Ok(ViewCopy::File(self.path.clone()))
    }

    fn health(&self) -> ViewHealth {
        let health = self.place.health();
        if health.failing.is_some() {
            self.place.read_again(&self.path);
        }
        health
    }

    fn look_at_pages(&self, after: u64, most: u64) -> Result<Option<u64>, StoreError> {
        let looked = self.place.file(&self.path).and_then(|file| scrub::look(&file, &self.path, after, most));
        let Looked { next, damaged } = looked.map_err(|error| io_fault("look at the pages of", &self.path, &error))?;
        match damaged {
            // Damage of a view that was dropped meanwhile is not reported.
            Some(damage) if !self.place.gone.load(Ordering::Acquire) => {
                let found = StoreError::corrupt(
                    &damage.file,
                    format!("{damage}, which was found by looking at all pages; rebuild the projection"),
                );
                self.place.damaged(&found);
                Err(found)
            }
            _ => Ok(next),
        }
    }

    fn give_back(&self, mut db: Db) {
        // A connection that cannot even do this is closed, which ends its transaction as well.
        if db.rollback().is_ok() {
            let mut idle = locked(&self.idle);
            if idle.len() < limits::IDLE_READERS_MAX {
                idle.push(db);
            }
        }
    }
}

/// A writer of a file has its own connection, so what it reads outside a transaction is committed.
impl Desk for Db {
    fn read<T>(&mut self, act: impl FnOnce(&mut Db) -> Result<T, StoreError>) -> Result<T, StoreError> {
        act(self)
    }

    fn begin(&mut self) -> Result<(), StoreError> {
        Self::begin(self)
    }

    fn inside<T, E>(&mut self, act: impl FnOnce(&mut Db) -> Result<T, E>) -> Result<T, E> {
        act(self)
    }

    fn ended(&mut self) {}
}

/// Opens an existing file. It never creates one.
fn connect(path: &Path, place: &Arc<Place>, cache_kib: i64) -> Result<Db, StoreError> {
    if place.looks {
        return look::connect(path, place, cache_kib);
    }
    place.check_files()?;
    let mut db = Db::in_file(path, place)?;
    db.tried("open the view", |connection| {
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        connection.pragma_update(None, "cache_size", cache_kib)?;
        connection.pragma_update(None, "wal_autocheckpoint", limits::CHECKPOINT_PAGES)?;
        connection.pragma_update(None, "journal_size_limit", limits::WAL_BYTES_MAX)
    })?;
    Ok(db)
}

/// Checks that SQLite may open a view: that all of it are files, and that the WAL is whole as far as it is needed.
fn is_whole(path: &Path, place: &Place) -> Result<(), StoreError> {
    for suffix in OPENED {
        let path = beside(path, suffix);
        if let Some(other) = other_than_a_file(&path).map_err(|error| io_fault("look at", &path, &error))? {
            return Err(corrupt(&path.display().to_string(), &format!("{other} is there in place of the file")));
        }
    }
    let bytes = |path: &Path| match std::fs::metadata(path) {
        Ok(file) => Ok(file.len()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(0),
        Err(error) => Err(io_fault("look at", path, &error)),
    };
    // SQLite would remove the WAL of an empty file, and with it everything that is left of the view.
    let log = bytes(&beside(path, "-wal"))?;
    if log > 0 && bytes(path)? == 0 {
        let found = format!("it is empty, but {log} bytes of its WAL are left; rebuild the projection");
        return Err(corrupt(&path.display().to_string(), &found));
    }
    moved::look(path, place)
}

/// Makes an empty file for a view.
#[expect(clippy::expect_used, reason = "a view's file is in its projection's folder")]
fn make_file(path: &Path) -> Result<(), StoreError> {
    make_dir(path.parent().expect("a view's file is in its projection's folder"))?;
    // Files that an interrupted drop left beside it would be taken for those of the new file.
    remove_files(path)?;
    // SQLite gives the files that it makes beside it the same mode.
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(FILE_MODE);
    options.open(path).map(drop).map_err(|error| io_fault("make", path, &error))
}

/// Removes a view's files.
fn remove_files(path: &Path) -> Result<(), StoreError> {
    for suffix in SUFFIXES {
        let path = beside(path, suffix);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(io_fault("remove", &path, &error)),
            _ => {}
        }
    }
    Ok(())
}

fn make_dir(path: &Path) -> Result<(), StoreError> {
    private_dir(path).map_err(|error| io_fault("make", path, &error))
}

/// Returns the names in a folder, as far as they are UTF-8; none if it is a file or does not exist.
fn names_in(path: &Path) -> Result<Vec<String>, StoreError> {
    let fault = |error: std::io::Error| io_fault("list", path, &error);
    let entries = match std::fs::read_dir(path) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(Vec::new()),
        entries => entries.map_err(fault)?,
    };
    let names = entries.map(|entry| Ok(entry.map_err(fault)?.file_name().into_string().ok()));
    names.filter_map(Result::transpose).collect()
}

fn io_fault(act: &str, path: &Path, error: &std::io::Error) -> StoreError {
    StoreError::unavailable(format!("{act} {}", path.display()), with_advice(error))
}

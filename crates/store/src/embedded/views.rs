//! Views as SQLite files: `<dir>/<projection>/v2.1.db`, one a version.
//!
//! Files are in WAL mode with `synchronous=NORMAL`: a commit does not wait for the disk. That is enough,
//! because the journal is the truth. Rows and tokens commit together (I-3), and WAL frames are checked and
//! ordered, so a power loss takes the last commits and leaves an earlier state that is whole; the processor
//! continues from the token that it finds there. A killed process loses nothing.
//!
//! Each page has a checksum, which is looked at whenever the page is read, and so have those in the WAL. Nothing of a page
//! that is damaged is used. What was moved from the WAL into the file is noted beside it, so that a WAL that was damaged after
//! a kill is told as well.
//!
//! Pages are not mapped into memory: a read error of the disk is then an error and not a signal.
//!
//! A reader that lives long keeps the WAL from being reused, so the file beside it grows meanwhile.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
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

/// A suffix of the name of a view's file: itself first, since what is beside it is nothing without it.
const SUFFIXES: [&str; 6] = ["", "-wal", "-shm", "-journal", moved::NOTE, moved::NEW_NOTE];
/// The files of a view that SQLite opens.
const OPENED: [&str; 4] = ["", "-wal", "-shm", "-journal"];

/// Views in one folder, a file each. One process has one of these a folder: they share no locks but SQLite's.
pub struct SqliteViews(Arc<Folder>);

struct Folder {
    dir: PathBuf,
    /// The views that were opened, so that all of the process share one gate a view; until they are dropped.
    open: Mutex<HashMap<ViewId, Arc<FileView>>>,
    full: Arc<AtomicBool>,
    /// True if they are only looked at.
    looks: bool,
}

type FileView = SqliteView<FileHome>;

/// The reaction to a file that does not exist.
enum Absent {
    Make,
    Leave,
}

impl SqliteViews {
    /// Returns the views in `dir`, which is made if it is not there.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when it cannot be made.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let dir = dir.into();
        make_dir(&dir)?;
        Ok(Self(Arc::new(Folder { dir, open: Mutex::default(), full: Arc::default(), looks: false })))
    }

    /// Returns the views in `dir` only to look at them: none is made, and no byte changes, not even of what SQLite
    /// keeps beside them.
    pub fn look(dir: impl Into<PathBuf>) -> Self {
        Self(Arc::new(Folder { dir: dir.into(), open: Mutex::default(), full: Arc::default(), looks: true }))
    }

    /// From the next transaction of each view on, lets no view grow, as if the disk were full, or lets them grow again.
    #[cfg(feature = "contract")]
    pub fn set_full(&self, full: bool) {
        self.0.full.store(full, Ordering::Release);
    }

    /// From here on no file of a view can be read, as if the disk failed, or all can again.
    #[cfg(feature = "contract")]
    pub fn fail_reads(&self, fail: bool) {
        crate::sqlite::vfs::fails::set(&self.0.dir, fail);
    }

    /// Does something to the folder beside the runtime's workers: files are opened and made, and another process may have
    /// their locks.
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

    /// Returns the open view, or that of the file once `make` has said that there is a view in it. Under one lock
    /// from the first look to the last, since two that make the same file would remove each other's.
    fn shared(
        &self,
        id: &ViewId,
        absent: Absent,
        make: impl FnOnce(&mut Db) -> Result<bool, StoreError>,
    ) -> Result<Option<Arc<dyn View>>, StoreError> {
        let mut open = locked(&self.open);
        if let Some(view) = open.get(id).map(Arc::clone) {
            // What is done to one view, which may wait for another process, is nothing to the others.
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
        // Before SQLite opens anything, and takes up what is left of the WAL.
        is_whole(&path).inspect_err(|error| {
            if matches!(error, StoreError::Corrupt { .. }) {
                place.damaged(error);
            }
        })?;
        let mut control = connect(&path, &place, limits::READER_CACHE_KIB)?;
        if !make(&mut control)? {
            return Ok(None);
        }
        let view =
            Arc::new(SqliteView::new(FileHome { path, place, control: Mutex::new(control), idle: Mutex::default() }));
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
    fn list(&self) -> Result<Vec<ViewId>, StoreError> {
        let mut views = Vec::new();
        for folder in names_in(&self.dir)? {
            let Ok(projection) = ProjectionName::new(&folder) else { continue };
            for file in names_in(&self.dir.join(&folder))? {
                let version = file.strip_suffix(".db").and_then(|version| version.parse::<VersionId>().ok());
                let Some(version) = version else { continue };
                let id = ViewId { projection: projection.clone(), version };
                // One that cannot be read is there all the same, and opening it says what is wrong.
                if self.shared(&id, Absent::Leave, |db| db.is_made(&id)).map_or(true, |found| found.is_some()) {
                    views.push(id);
                }
            }
        }
        views.sort();
        Ok(views)
    }
}

/// A view in a file.
struct FileHome {
    path: PathBuf,
    place: Arc<Place>,
    /// For tokens, claims and holds.
    control: Mutex<Db>,
    /// Connections of readers that are done.
    idle: Mutex<Vec<Db>>,
}

impl Home for FileHome {
    type Desk = Db;
    const INLINE: bool = false;

    fn desk(self: &Arc<Self>) -> Result<Db, StoreError> {
        connect(&self.path, &self.place, limits::WRITER_CACHE_KIB)
    }

    fn control<T>(&self, act: impl FnOnce(&mut Db) -> Result<T, StoreError>) -> Result<T, StoreError> {
        act(&mut locked(&self.control))
    }

    fn look<T>(&self, act: impl FnOnce(&mut Db) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut db = self.snapshot()?;
        let seen = act(&mut db);
        self.give_back(db);
        seen
    }

    fn snapshot_now(&self) -> Option<Db> {
        let mut db = locked(&self.idle).pop()?;
        db.tried("begin to read", |connection| connection.execute_batch("BEGIN")).ok()?;
        Some(db)
    }

    fn snapshot(&self) -> Result<Db, StoreError> {
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
            // Of a view that was dropped meanwhile nothing is said.
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

/// A writer of a file has a connection of its own, so what it reads outside a transaction is committed.
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

/// Opens a file that is there: anyone who makes one does so knowingly.
fn connect(path: &Path, place: &Arc<Place>, cache_kib: i64) -> Result<Db, StoreError> {
    if place.looks {
        return look::connect(path, place, cache_kib);
    }
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

/// Checks whether SQLite may open a view: whether there is nothing but files, and the WAL as far as it is needed.
fn is_whole(path: &Path) -> Result<(), StoreError> {
    for suffix in OPENED {
        let path = beside(path, suffix);
        if let Some(other) = other_than_a_file(&path).map_err(|error| io_fault("look at", &path, &error))? {
            return Err(corrupt(&path.display().to_string(), &format!("{other} is there in place of the file")));
        }
    }
    moved::look(path)
}

/// Makes an empty file for a view.
#[expect(clippy::expect_used, reason = "a view's file is in its projection's folder")]
fn make_file(path: &Path) -> Result<(), StoreError> {
    make_dir(path.parent().expect("a view's file is in its projection's folder"))?;
    // What a drop that was cut short left beside the file would be taken for the new file's.
    remove_files(path)?;
    // What SQLite makes beside it gets the same mode.
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

/// Returns the names in a folder, as far as they are UTF-8; none if it is a file or not there.
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

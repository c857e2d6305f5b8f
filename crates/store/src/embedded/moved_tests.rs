//! A process that is killed while pages of a view are moved from the WAL into the file, and a WAL that is damaged before the
//! next start: every answer is right or the damage is told.

use std::cell::RefCell;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use dacapo_model::{MemberId, Position, ProjectionName, SegmentCount, VersionId, ViewId};
use tempfile::TempDir;

use super::SqliteViews;
use crate::error::StoreError;
use crate::sqlite::moved::{NEW_NOTE, NOTE, beside};
use crate::sqlite::{Db, Place, steps};
use crate::table::{Column, ColumnKind, Table, Value};
use crate::views::{Commit, View, Views};
use crate::{CommitError, of_none};

pub(super) const COUNTS: Table = Table {
    name: "counts",
    columns: &[
        Column { name: "id", kind: ColumnKind::Integer, optional: false },
        Column { name: "events", kind: ColumnKind::Integer, optional: false },
        Column { name: "text", kind: ColumnKind::Text, optional: false },
    ],
    key: &[0],
    indexes: &[],
};
/// Each has a page of its own.
pub(super) const ROWS: u64 = 8;
/// The number of events that are applied to what was opened, to see what comes of it.
const MORE: u64 = ROWS + 3;

pub(super) const WAL_HEADER_BYTES: u64 = 32;
const FRAME_BYTES: u64 = 24 + 4_096;

pub(super) fn id() -> ViewId {
    ViewId { projection: ProjectionName::new("counts").unwrap(), version: VersionId { code: 1, build: 1 } }
}

pub(super) fn file(dir: &Path) -> PathBuf {
    dir.join("counts/v1.1.db")
}

pub(super) fn row(id: u64, events: u64) -> Vec<Value> {
    let text = format!("row {id} ").repeat(400);
    vec![Value::Integer(id.cast_signed()), Value::Integer(events.cast_signed()), Value::Text(text)]
}

/// Returns the rows once all events through `position` were applied, each once: an event counts in one row.
pub(super) fn right(position: u64) -> Vec<Vec<Value>> {
    let events = |id| (1..=position).filter(|event| event % ROWS == id).count() as u64;
    (0..ROWS).filter(|id| events(*id) > 0).map(|id| row(id, events(id))).collect()
}

pub(super) async fn open(dir: &Path) -> Result<(SqliteViews, Arc<dyn View>), StoreError> {
    let views = SqliteViews::open(dir)?;
    let view = views.open(&id(), &[COUNTS], SegmentCount::ONE).await?;
    Ok((views, view))
}

/// Returns a view with every row in its file, and nothing in the WAL.
pub(super) async fn begun(dir: &Path) -> (SqliteViews, Arc<dyn View>) {
    let (views, view) = open(dir).await.unwrap();
    apply(&*view, ROWS + 4).await.unwrap();
    drop((view, views));
    open(dir).await.unwrap()
}

/// Applies the events through `through`, each in a commit of its own, and counts the ones before each on what it reads.
pub(super) async fn apply(view: &dyn View, through: u64) -> Result<(), StoreError> {
    let me = Some(MemberId::from_bytes([1; 16]));
    let seen = view.tokens().await?;
    let mut token = if seen[0].claimed_by == me { seen[0] } else { view.claim(me, &seen).await?[0] };
    let mut writer = view.writer().await?;
    while token.position.get() < through {
        let to = token.position.next();
        let id = to.get() % ROWS;
        let before = writer.load(&COUNTS, &[Value::Integer(id.cast_signed())]).await?;
        let events = match before.as_deref() {
            None => 0,
            Some([_, Value::Integer(events), _]) => events.cast_unsigned(),
            Some(other) => panic!("a row reads {other:?}"),
        };
        writer.put(&COUNTS, &mut of_none([row(id, events + 1)])).await?;
        writer.commit(&Commit::of([token.step(to, 1)])).await.map_err(|error| match error {
            CommitError::Store(error) => error,
            error => panic!("{error}"),
        })?;
        token.position = to;
    }
    Ok(())
}

pub(super) async fn rows(view: &dyn View) -> Result<(Position, Vec<Vec<Value>>), StoreError> {
    let mut reader = view.reader().await?;
    let position = reader.tokens()[0].position;
    Ok((position, reader.page(&COUNTS, None, usize::MAX).await?))
}

/// What a start on these files comes to: whether all was right, or whether damage was told.
pub(super) async fn start(dir: &Path) -> Result<(), String> {
    let tried = async {
        let (_views, view) = open(dir).await?;
        let (position, found) = rows(&*view).await?;
        let through = position.get() + MORE;
        let is_right = found == right(position.get());
        apply(&*view, through).await?;
        Ok::<_, StoreError>((is_right, rows(&*view).await? == (Position::new(through), right(through))))
    };
    match tried.await {
        Ok((true, true)) => Ok(()),
        Ok(found) => panic!("wrong rows, and no word of it: {found:?}"),
        Err(StoreError::Corrupt { place, found }) => {
            assert!(place.contains("counts/v1.1.db") && found.contains("rebuild"), "{place}: {found}");
            Err(found)
        }
        Err(error) => panic!("{error}"),
    }
}

/// Moves pages into the file, and has each step of it told on the way.
pub(super) fn move_pages(dir: &Path, told: impl FnMut(&Path, &'static str) + 'static) -> (i64, i64) {
    let path = file(dir);
    let mut db = Db::in_file(&path, &Place::new(path.display().to_string())).unwrap();
    steps::TOLD.set(Some(Box::new(told)));
    let moved = db.tried("move pages", |connection| {
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| Ok((row.get(1)?, row.get(2)?)))
    });
    steps::TOLD.set(None);
    moved.unwrap()
}

/// Returns the files as a process leaves them that is killed now.
pub(super) fn killed(dir: &Path) -> TempDir {
    let left = tempfile::tempdir().unwrap();
    std::fs::create_dir(left.path().join("counts")).unwrap();
    for suffix in ["", "-wal", NOTE, NEW_NOTE] {
        let from = beside(&file(dir), suffix);
        if from.is_file() {
            std::fs::copy(from, beside(&file(left.path()), suffix)).unwrap();
        }
    }
    left
}

/// What may happen to a WAL before the next start.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Harm {
    None,
    Removed,
    Header,
    /// A bit of the frame.
    Flipped(u64),
    /// In the middle of the frame.
    Cut(u64),
}

impl Harm {
    fn all(frames: u64) -> Vec<Self> {
        let mut all = vec![Self::None, Self::Removed, Self::Header];
        for frame in (0..frames).step_by(4) {
            all.extend([Self::Flipped(frame), Self::Cut(frame)]);
        }
        all
    }

    fn do_to(self, dir: &Path) {
        let wal = beside(&file(dir), "-wal");
        let open = || std::fs::OpenOptions::new().read(true).write(true).open(&wal).unwrap();
        let flip = |at| {
            let mut byte = [0];
            open().read_exact_at(&mut byte, at).unwrap();
            open().write_all_at(&[byte[0] ^ 4], at).unwrap();
        };
        match self {
            Self::None => {}
            Self::Removed => std::fs::remove_file(&wal).unwrap(),
            Self::Header => flip(17),
            Self::Flipped(frame) => flip(WAL_HEADER_BYTES + frame * FRAME_BYTES + 1_000),
            Self::Cut(frame) => open().set_len(WAL_HEADER_BYTES + frame * FRAME_BYTES + 1_000).unwrap(),
        }
    }
}

/// Starts on the files after each harm. Returns what was harmed and told.
async fn harmed(left: &Path) -> Vec<Harm> {
    let frames = std::fs::metadata(beside(&file(left), "-wal")).map_or(0, |wal| wal.len() / FRAME_BYTES);
    let mut told = Vec::new();
    for harm in Harm::all(frames) {
        let dir = killed(left);
        harm.do_to(dir.path());
        if let Err(found) = start(dir.path()).await {
            assert_ne!(harm, Harm::None, "nothing is wrong there: {found}");
            told.push(harm);
        }
    }
    told
}

#[tokio::test]
async fn killed_while_pages_are_moved_and_the_wal_is_harmed() {
    let dir = tempfile::tempdir().unwrap();
    let (_views, view) = begun(dir.path()).await;
    apply(&*view, 30).await.unwrap();

    let steps: Rc<RefCell<Vec<(&str, TempDir)>>> = Rc::default();
    let (told, to_copy) = (Rc::clone(&steps), dir.path().to_owned());
    move_pages(dir.path(), move |_, step| told.borrow_mut().push((step, killed(&to_copy))));
    let pages = steps.borrow().iter().filter(|(step, _)| *step == "page").count();
    assert!(pages as u64 > ROWS, "{pages} pages were moved");
    let all = {
        let wal = beside(&file(dir.path()), "-wal");
        Harm::all(std::fs::metadata(wal).unwrap().len() / FRAME_BYTES).len() - 1
    };
    let mut wrong = Vec::new();
    for (at, (step, left)) in steps.take().into_iter().enumerate() {
        let told = harmed(left.path()).await;
        let expected = match (at, step) {
            // Nothing is moved yet.
            (0, "note") => 0,
            // Once it is noted that all was moved, it is right without the WAL.
            (_, "noted") if at > 1 => all - 2,
            // Whatever is missing may have been moved.
            _ => all,
        };
        if told.len() != expected {
            wrong.push((at, step, told));
        }
    }
    assert!(wrong.is_empty(), "killed at these steps, these were told: {wrong:?}");
}

/// Old pages in a WAL hide newer ones of the file.
#[tokio::test]
async fn killed_after_all_pages_were_moved_and_the_wal_is_harmed() {
    let dir = tempfile::tempdir().unwrap();
    let (_views, view) = begun(dir.path()).await;
    apply(&*view, 30).await.unwrap();
    // It keeps the WAL from being begun again.
    let reader = view.reader().await.unwrap();
    let (in_wal, moved) = move_pages(dir.path(), |_, _| {});
    assert_eq!(in_wal, moved);
    apply(&*view, 34).await.unwrap();
    let left = killed(dir.path());
    let told = harmed(left.path()).await;
    assert!(told.contains(&Harm::Flipped(4)) && told.contains(&Harm::Cut(4)), "{told:?}");
    assert!(!told.contains(&Harm::Removed) && !told.contains(&Harm::Header), "{told:?}");
    // What came after it is applied again, and nothing is wrong with that.
    let last = (std::fs::metadata(beside(&file(left.path()), "-wal")).unwrap().len() / FRAME_BYTES - 1) / 4 * 4;
    assert!(last >= moved.cast_unsigned() && !told.contains(&Harm::Flipped(last)), "{told:?}");
    drop(reader);

    // A reader of an earlier state: the newest pages stay.
    let reader = view.reader().await.unwrap();
    apply(&*view, 40).await.unwrap();
    let (in_wal, moved) = move_pages(dir.path(), |_, _| {});
    assert!(moved < in_wal, "{moved} of {in_wal}");
    let left = killed(dir.path());
    let told = harmed(left.path()).await;
    assert!(told.contains(&Harm::Removed) && told.contains(&Harm::Header) && told.contains(&Harm::Cut(0)), "{told:?}");
    drop(reader);
}

/// The WAL was begun again, and has nothing of what was moved.
#[tokio::test]
async fn a_wal_that_was_begun_anew_may_be_lost() {
    let dir = tempfile::tempdir().unwrap();
    let (_views, view) = open(dir.path()).await.unwrap();
    apply(&*view, 30).await.unwrap();
    let (in_wal, moved) = move_pages(dir.path(), |_, _| {});
    assert_eq!(in_wal, moved);
    apply(&*view, 34).await.unwrap();
    assert_eq!(harmed(killed(dir.path()).path()).await, []);
}

#[tokio::test]
async fn a_view_that_is_closed_in_order_needs_no_wal() {
    let dir = tempfile::tempdir().unwrap();
    let (views, view) = open(dir.path()).await.unwrap();
    apply(&*view, 30).await.unwrap();
    drop((view, views));
    assert!(!beside(&file(dir.path()), "-wal").exists() && beside(&file(dir.path()), NOTE).exists());
    start(dir.path()).await.unwrap();
    // A view of an earlier build has no note.
    std::fs::remove_file(beside(&file(dir.path()), NOTE)).unwrap();
    start(dir.path()).await.unwrap();
    // And one that cannot be read tells nothing.
    std::fs::write(beside(&file(dir.path()), NOTE), b"").unwrap();
    start(dir.path()).await.unwrap_err();
    let views = SqliteViews::open(dir.path()).unwrap();
    views.drop_view(&id()).await.unwrap();
    assert_eq!(std::fs::read_dir(dir.path().join("counts")).unwrap().count(), 0, "a rebuild begins with nothing of it");
    drop(views);
    start(dir.path()).await.unwrap();
}

/// Who only looks is told as well, and changes nothing.
#[tokio::test]
async fn a_look_tells_that_a_wal_was_harmed_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (_views, view) = begun(dir.path()).await;
    apply(&*view, 30).await.unwrap();
    let left: Rc<RefCell<Option<TempDir>>> = Rc::default();
    let (told, to_copy) = (Rc::clone(&left), dir.path().to_owned());
    move_pages(dir.path(), move |_, step| {
        if step == "page" {
            *told.borrow_mut() = Some(killed(&to_copy));
        }
    });
    let left = left.take().unwrap();
    let looked = |dir: &Path| SqliteViews::look(dir);
    assert!(looked(left.path()).find(&id()).await.unwrap().is_some());
    std::fs::remove_file(beside(&file(left.path()), "-wal")).unwrap();
    let names = || {
        let names = std::fs::read_dir(left.path().join("counts")).unwrap();
        let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = names();
    let found = looked(left.path()).find(&id()).await.map(drop);
    assert!(matches!(found, Err(StoreError::Corrupt { .. })), "{found:?}");
    assert_eq!(names(), before);
}

/// SQLite removes the WAL of an empty file.
#[tokio::test]
async fn a_view_whose_file_was_emptied_is_damaged_and_keeps_its_wal() {
    let dir = tempfile::tempdir().unwrap();
    let (_views, view) = begun(dir.path()).await;
    apply(&*view, 30).await.unwrap();
    let left = killed(dir.path());
    std::fs::write(file(left.path()), b"").unwrap();
    let wal = || std::fs::metadata(beside(&file(left.path()), "-wal")).map(|wal| wal.len()).unwrap_or_default();
    let before = wal();
    assert!(before > 0, "there is something to lose");
    for views in [SqliteViews::look(left.path()), SqliteViews::open(left.path()).unwrap()] {
        let found = views.find(&id()).await.map(drop);
        assert!(matches!(found, Err(StoreError::Corrupt { .. })), "{found:?}");
        assert_eq!(wal(), before);
    }
}

#[tokio::test]
async fn where_nothing_can_be_noted_nothing_is_moved_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let (views, view) = begun(dir.path()).await;
    // In the place of the file that is written first.
    let in_the_way = beside(&file(dir.path()), NEW_NOTE);
    std::fs::create_dir(&in_the_way).unwrap();
    let before = std::fs::read(file(dir.path())).unwrap();
    apply(&*view, 20).await.unwrap();
    {
        let path = file(dir.path());
        let mut db = Db::in_file(&path, &Place::new(path.display().to_string())).unwrap();
        let moved = db.tried("move pages", |connection| {
            connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| row.get::<_, i64>(0))
        });
        assert!(matches!(moved, Err(StoreError::Unavailable { .. })), "{moved:?}");
    }
    apply(&*view, 22).await.unwrap();
    assert_eq!(view.health(), Default::default());
    drop((view, views));
    assert!(std::fs::read(file(dir.path())).unwrap() == before, "not a byte was written to the file");
    start(killed(dir.path()).path()).await.unwrap();
    std::fs::remove_dir(&in_the_way).unwrap();
    let (_views, view) = open(dir.path()).await.unwrap();
    assert_eq!(rows(&*view).await.unwrap(), (Position::new(22), right(22)));
    let (in_wal, moved) = move_pages(dir.path(), |_, _| {});
    assert!(in_wal > 0 && in_wal == moved, "{moved} of {in_wal}");
}

/// An old connection moves nothing any more, and above all notes nothing.
#[tokio::test]
async fn what_is_left_of_a_dropped_view_notes_nothing_beside_one_that_was_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (views, view) = open(dir.path()).await.unwrap();
    apply(&*view, 30).await.unwrap();
    let path = file(dir.path());
    let mut old = Db::in_file(&path, &Place::new(path.display().to_string())).unwrap();
    let checkpoint = |db: &mut Db| {
        db.tried("move pages", |connection| {
            connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| row.get::<_, i64>(0))
        })
    };
    old.tokens().unwrap();
    views.drop_view(&id()).await.unwrap();
    let anew = views.open(&id(), &[COUNTS], SegmentCount::ONE).await.unwrap();
    apply(&*anew, 3).await.unwrap();
    let noted = std::fs::read(beside(&path, NOTE)).unwrap();
    let moved = checkpoint(&mut old);
    assert!(matches!(moved, Err(StoreError::Unavailable { .. })), "{moved:?}");
    assert_eq!(std::fs::read(beside(&path, NOTE)).unwrap(), noted);
    drop((old, view));
    start(killed(dir.path()).path()).await.unwrap();
}

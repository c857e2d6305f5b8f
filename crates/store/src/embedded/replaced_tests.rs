//! Files of a view that another program removes, replaces or overwrites, under a running process and before a start: every
//! answer is right or the change is told.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;

use super::moved_tests::*;
use crate::error::StoreError;
use crate::sqlite::moved::{NOTE, beside};
use crate::table::Value;
use crate::views::{Commit, View};
use crate::{CommitError, of_none};

fn wal(dir: &Path) -> PathBuf {
    beside(&file(dir), "-wal")
}

/// Overwrites a file as a shell does: it stays the same file.
fn overwrite(path: &Path, from: &Path) {
    std::fs::write(path, std::fs::read(from).unwrap()).unwrap();
}

/// Puts a copy of a file in the place of another one.
fn replace(path: &Path, from: &Path) {
    let new = path.with_extension("new");
    std::fs::copy(from, &new).unwrap();
    std::fs::rename(new, path).unwrap();
}

/// Returns a view of the same shape with other rows, closed in order or as a killed process leaves it.
async fn another(through: u64, closed: bool) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let (views, view) = begun(dir.path()).await;
    apply(&*view, through).await.unwrap();
    let token = view.tokens().await.unwrap()[0];
    let mut writer = view.writer().await.unwrap();
    writer.put(&COUNTS, &mut of_none((0..ROWS).map(|id| row(id, 1_000)))).await.unwrap();
    writer.commit(&Commit::of([token.step(token.position, 0)])).await.unwrap();
    if !closed {
        return killed(dir.path());
    }
    drop((writer, view, views));
    dir
}

/// Returns an older copy of the file, and the running view, whose WAL has what came after it.
async fn running(dir: &Path) -> (TempDir, super::SqliteViews, Arc<dyn View>) {
    let (views, view) = begun(dir).await;
    let older = killed(dir);
    apply(&*view, 20).await.unwrap();
    drop((view, views));
    let (views, view) = open(dir).await.unwrap();
    apply(&*view, 30).await.unwrap();
    (older, views, view)
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Change {
    Nothing,
    OverwrittenByAnother,
    OverwrittenByAnOlderOne,
    ReplacedByAnother,
    Removed,
    Renamed,
    FolderRenamed,
    WalRemoved,
    WalReplaced,
}

impl Change {
    const ALL: [Self; 9] = [
        Self::Nothing,
        Self::OverwrittenByAnother,
        Self::OverwrittenByAnOlderOne,
        Self::ReplacedByAnother,
        Self::Removed,
        Self::Renamed,
        Self::FolderRenamed,
        Self::WalRemoved,
        Self::WalReplaced,
    ];

    fn make(self, dir: &Path, older: &Path, another: &Path) {
        let (file, wal) = (file(dir), wal(dir));
        match self {
            Self::Nothing => {}
            Self::OverwrittenByAnother => overwrite(&file, another),
            Self::OverwrittenByAnOlderOne => overwrite(&file, older),
            Self::ReplacedByAnother => replace(&file, another),
            Self::Removed => std::fs::remove_file(&file).unwrap(),
            Self::Renamed => std::fs::rename(&file, file.with_extension("old")).unwrap(),
            Self::FolderRenamed => std::fs::rename(dir.join("counts"), dir.join("old")).unwrap(),
            Self::WalRemoved => std::fs::remove_file(&wal).unwrap(),
            Self::WalReplaced => replace(&wal, &wal),
        }
    }

    fn told(self) -> &'static str {
        match self {
            Self::Nothing => "",
            Self::OverwrittenByAnother | Self::OverwrittenByAnOlderOne => "another program wrote to it",
            Self::ReplacedByAnother | Self::WalReplaced => "another file was put in its place",
            Self::Removed | Self::Renamed | Self::FolderRenamed | Self::WalRemoved => "it was removed or renamed",
        }
    }

    /// Returns true if the directory names another view, or none: then the view is opened again.
    fn is_gone(self) -> bool {
        matches!(self, Self::ReplacedByAnother | Self::Removed | Self::Renamed | Self::FolderRenamed)
    }

    /// Returns true if nothing right is left for the next start.
    fn is_told_at_a_start(self) -> bool {
        matches!(self, Self::OverwrittenByAnother | Self::OverwrittenByAnOlderOne | Self::ReplacedByAnother)
    }
}

#[tokio::test]
async fn a_change_under_a_running_view_is_told_before_the_next_state_and_the_next_commit() {
    let other = another(30, true).await;
    for change in Change::ALL {
        let dir = tempfile::tempdir().unwrap();
        let (older, views, view) = running(dir.path()).await;
        let token = view.tokens().await.unwrap()[0];
        // One has begun its transaction, and one has not.
        let [mut begun, mut later] = [view.writer().await.unwrap(), view.writer().await.unwrap()];
        begun.put(&COUNTS, &mut of_none([row(1, 77)])).await.unwrap();
        change.make(dir.path(), &file(older.path()), &file(other.path()));
        let left = std::fs::read(file(dir.path())).ok();

        let is_told = |what: &str, error: StoreError| {
            let (place, found, advice) = match error {
                StoreError::Unavailable { tried, found } if change.is_gone() => (tried, found, "is opened again"),
                StoreError::Corrupt { place, found } if !change.is_gone() => (place, found, "put back the file"),
                error => panic!("{change:?}: {what}: {error}"),
            };
            assert!(place.contains("counts/v1.1.db") && found.starts_with(change.told()), "{what}: {place}: {found}");
            assert!(found.contains(advice), "{found}");
        };
        let committed = begun.commit(&Commit::of([token.step(token.position.next(), 1)])).await;
        if change == Change::Nothing {
            committed.unwrap();
            assert_eq!(view.reader().await.unwrap().tokens()[0].position, token.position.next());
            assert_eq!(view.health(), Default::default());
            continue;
        }
        let Err(CommitError::Store(error)) = committed else { panic!("{change:?}: it was committed") };
        is_told("a commit", error);
        is_told("a first write", later.put(&COUNTS, &mut of_none([row(1, 77)])).await.unwrap_err());
        is_told("a state", view.reader().await.map(drop).unwrap_err());
        is_told("tokens", view.tokens().await.unwrap_err());
        is_told("the history", view.history().await.unwrap_err());
        is_told("a claim", view.claim(None, &[token]).await.unwrap_err());
        is_told("a writer", view.writer().await.map(drop).unwrap_err());
        is_told("a copy", view.copy().await.map(drop).unwrap_err());
        let damaged = view.health().damaged;
        assert!(damaged.map_or(change.is_gone(), |damage| damage.contains(change.told())), "{change:?}");
        // Nor is anything written when it is closed.
        drop((begun, later, view, views));
        assert!(std::fs::read(file(dir.path())).ok() == left, "{change:?}: the file was written to");
        assert_eq!(start(dir.path()).await.is_err(), change.is_told_at_a_start(), "{change:?}");
    }
}

/// Nobody else looks: the connection that has a state open moves no pages either.
#[tokio::test]
async fn no_page_is_moved_into_a_file_that_another_program_wrote_to() {
    let (dir, other) = (tempfile::tempdir().unwrap(), another(30, true).await);
    let (_older, _views, _view) = running(dir.path()).await;
    overwrite(&file(dir.path()), &file(other.path()));
    let refused = std::panic::catch_unwind(|| move_pages(dir.path(), |_, _| {}));
    assert!(refused.is_err(), "pages were moved");
    assert!(std::fs::read(file(dir.path())).unwrap() == std::fs::read(file(other.path())).unwrap());
}

/// What this process itself does to the file is no change.
#[tokio::test]
async fn pages_that_this_process_moves_are_no_change() {
    let dir = tempfile::tempdir().unwrap();
    let (_older, views, view) = running(dir.path()).await;
    let reader = view.reader().await.unwrap();
    for through in [35, 40, 45] {
        apply(&*view, through).await.unwrap();
        move_pages(dir.path(), |_, _| {});
        assert_eq!(view.tokens().await.unwrap()[0].position.get(), through);
    }
    drop(reader);
    apply(&*view, 50).await.unwrap();
    move_pages(dir.path(), |_, _| {});
    apply(&*view, 60).await.unwrap();
    assert_eq!(view.health(), Default::default());
    assert_eq!(rows(&*view).await.unwrap().1, right(60));
    drop((view, views));
    start(dir.path()).await.unwrap();
}

/// Frames at the same place have the same page, so only the salts tell them apart.
#[tokio::test]
async fn frames_of_another_wal_are_not_read() {
    let (dir, other) = (tempfile::tempdir().unwrap(), another(30, false).await);
    let (_views, view) = begun(dir.path()).await;
    apply(&*view, 30).await.unwrap();
    overwrite(&wal(dir.path()), &wal(other.path()));
    let found = rows(&*view).await;
    // What a connection has in memory is right; a new one reads the WAL.
    let views = super::SqliteViews::open(dir.path()).unwrap();
    let anew = crate::views::Views::find(&views, &id()).await;
    let read = match anew {
        Ok(anew) => rows(&*anew.unwrap()).await,
        Err(error) => Err(error),
    };
    assert!(matches!(read, Err(StoreError::Corrupt { .. })), "{read:?}");
    assert!(
        matches!(&found, Ok((_, found)) if *found == right(30)) || matches!(found, Err(StoreError::Corrupt { .. }))
    );
}

/// The files of a view as they were at several times, each left by a killed process.
struct Times {
    /// Nothing is in the WAL.
    closed: TempDir,
    /// Some is in the WAL, and nothing was moved from it.
    begun: TempDir,
    /// All of the WAL was moved.
    moved: TempDir,
    /// The WAL was begun again.
    again: TempDir,
}

async fn times() -> Times {
    let dir = tempfile::tempdir().unwrap();
    let (_views, view) = self::begun(dir.path()).await;
    let closed = killed(dir.path());
    apply(&*view, 20).await.unwrap();
    let begun = killed(dir.path());
    let (in_wal, pages) = move_pages(dir.path(), |_, _| {});
    assert_eq!(in_wal, pages);
    let moved = killed(dir.path());
    apply(&*view, 24).await.unwrap();
    Times { closed, begun, moved, again: killed(dir.path()) }
}

/// Returns the files of `of`, with the view's file of `with`.
fn file_of(of: &Path, with: &Path) -> TempDir {
    let dir = killed(of);
    overwrite(&file(dir.path()), &file(with));
    dir
}

/// Returns the files of `of`, with the WAL of `with`.
fn wal_of(of: &Path, with: &Path) -> TempDir {
    let dir = killed(of);
    overwrite(&wal(dir.path()), &wal(with));
    dir
}

#[tokio::test]
async fn a_start_on_a_wal_that_does_not_belong_to_the_file_is_told() {
    let Times { closed, begun, moved, again } = times().await;
    let [other, other_begun] = [another(30, true).await, another(30, false).await];
    for (at, whole) in [&closed, &begun, &moved, &again].into_iter().enumerate() {
        start(killed(whole.path()).path()).await.unwrap_or_else(|found| panic!("{at} is whole: {found}"));
    }
    for (at, with_wal) in [&begun, &moved, &again].into_iter().enumerate() {
        for with_file in [&other, &other_begun] {
            let found = start(file_of(with_wal.path(), with_file.path()).path()).await;
            found.expect_err(&format!("another view's file beside {at}"));
        }
        let found = start(wal_of(with_wal.path(), other_begun.path()).path()).await;
        found.expect_err(&format!("another view's WAL beside {at}"));
    }
    start(file_of(again.path(), closed.path()).path()).await.expect_err("an older file");
    start(file_of(begun.path(), moved.path()).path()).await.expect_err("a newer file");
    start(wal_of(again.path(), moved.path()).path()).await.expect_err("an older WAL");
    start(wal_of(closed.path(), again.path()).path()).await.expect_err("a newer WAL");
}

/// The node follows again from there.
#[tokio::test]
async fn an_older_file_without_a_wal_is_as_good_as_a_newer_one() {
    let Times { closed, again, .. } = times().await;
    let dir = file_of(again.path(), closed.path());
    std::fs::remove_file(wal(dir.path())).unwrap();
    start(dir.path()).await.unwrap();
}

/// A note of an earlier build has no stamp, and the one before it none at all.
#[tokio::test]
async fn files_of_earlier_builds_are_taken_up() {
    let Times { begun, moved, again, .. } = times().await;
    for left in [&begun, &moved, &again] {
        let dir = killed(left.path());
        std::fs::remove_file(beside(&file(dir.path()), NOTE)).unwrap();
        start(dir.path()).await.unwrap();
    }
    let dir = killed(again.path());
    let note = std::fs::read(beside(&file(moved.path()), NOTE)).unwrap();
    let mut note = note[..32].to_vec();
    note[28..].fill(0);
    note.extend(xxhash_rust::xxh3::xxh3_64(&note).to_le_bytes());
    std::fs::write(beside(&file(dir.path()), NOTE), note).unwrap();
    start(dir.path()).await.unwrap();
}

#[tokio::test]
async fn rows_of_another_view_are_other_rows() {
    let other = another(30, true).await;
    let (_views, view) = open(other.path()).await.unwrap();
    let (position, found) = rows(&*view).await.unwrap();
    assert_ne!(found, right(position.get()), "otherwise no test would see that it was taken for the view");
    assert!(matches!(&found[0][1], Value::Integer(1_000)));
}

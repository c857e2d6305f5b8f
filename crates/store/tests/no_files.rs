//! A process that may open no more files. The limit is that of the process, so this is the only test here.

use std::fs::File;
use std::sync::Arc;

use dacapo_model::{ProjectionName, SegmentCount, VersionId, ViewId};
use dacapo_store::embedded::SqliteViews;
use dacapo_store::{Column, ColumnKind, StoreError, SystemClock, Table, Value, View, Views};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const NOTES: Table = Table {
    name: "notes",
    columns: &[Column { name: "id", kind: ColumnKind::Integer, optional: false }],
    key: &[0],
    indexes: &[],
};
/// Room for the test runner and a few views.
const FILES_MAX: u64 = 64;

fn id(build: u32) -> ViewId {
    ViewId { projection: ProjectionName::new("notes").unwrap(), version: VersionId { code: 1, build } }
}

async fn open(views: &SqliteViews, build: u32) -> Result<Arc<dyn View>, StoreError> {
    views.open(&id(build), &[NOTES], SegmentCount::ONE).await
}

async fn read(view: &dyn View) -> Result<(), StoreError> {
    let mut reader = view.reader().await?;
    reader.get(&NOTES, &[Value::Integer(1)]).await.map(drop)
}

/// Takes all files that are left.
fn fill() -> Vec<File> {
    std::iter::from_fn(|| File::open("/dev/null").ok()).collect()
}

#[track_caller]
fn check<T>(tried: &str, found: Result<T, StoreError>) {
    let Err(StoreError::Unavailable { found, .. }) = found else { panic!("{tried}: it is unavailable") };
    let all = format!("all {FILES_MAX} files that this process may have open are in use");
    assert!(found.contains(&all) && found.contains("ulimit -n"), "{tried}: {found}");
    assert!(!found.contains("check that the file exists"), "{tried}: {found}");
}

#[tokio::test]
async fn each_use_that_needs_a_file_says_that_no_more_can_be_opened() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(FILES_MAX), maximum }).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let views = SqliteViews::open(directory.path()).unwrap();
    for build in 1..=3 {
        open(&views, build).await.unwrap();
    }
    drop(views);
    let views = SqliteViews::open(directory.path()).unwrap();
    let (first, second) = (open(&views, 1).await.unwrap(), open(&views, 2).await.unwrap());
    let mut writer = first.writer().await.unwrap();
    let mut full = fill();
    check("make a view", open(&views, 4).await);
    check("open a view", open(&views, 3).await);
    check("read", read(&*second).await);
    let copied = async { writer.attach(&second.copy().await?).await };
    check("copy", copied.await);
    // The file itself can be opened, and the WAL or its index beside it cannot.
    for free in 1..=2 {
        full.truncate(full.len() - 1);
        check(&format!("open a view with {free} files"), open(&views, 3).await);
    }
    check("open a directory", dacapo_store::Store::embedded(&directory.path().join("new"), Arc::new(SystemClock)));
    drop(full);
    open(&views, 4).await.unwrap();
    read(&*second).await.unwrap();
}

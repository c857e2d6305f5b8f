//! Bits that flip in the files of views: every answer is right or tells the damage.

use std::collections::BTreeMap;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dacapo_model::{Applied, MemberId, ProjectionName, SegmentCount, Token, TokenMove, VersionId, ViewId};
use dacapo_store::embedded::SqliteViews;
use dacapo_store::{Column, ColumnKind, Commit, Index, StoreError, Table, Value, View, Views, of_none};

const NOTES: Table = Table {
    name: "notes",
    columns: &[
        Column { name: "id", kind: ColumnKind::Integer, optional: false },
        Column { name: "owner", kind: ColumnKind::Text, optional: false },
        Column { name: "text", kind: ColumnKind::Text, optional: false },
    ],
    key: &[0],
    indexes: &[Index { name: "owner", columns: &[1], unique: false }],
};
/// Owners that rows share.
const OWNERS: i64 = 7;

fn id() -> ViewId {
    ViewId { projection: ProjectionName::new("notes").unwrap(), version: "v1.1".parse::<VersionId>().unwrap() }
}

/// A row whose text is short, but for some whose text is longer than a page.
fn row(id: i64) -> Vec<Value> {
    let text = format!("note {id} ").repeat(if id % 50 == 0 { 1_000 } else { 5 });
    vec![Value::Integer(id), Value::Text(format!("owner {}", id % OWNERS)), Value::Text(text)]
}

/// Puts rows, and commits them.
async fn put(view: &dyn View, rows: impl Iterator<Item = i64> + Send) {
    let me = MemberId::from_bytes([1; 16]);
    let seen = view.tokens().await.unwrap();
    let tokens = if seen[0].claimed_by == Some(me) { seen } else { view.claim(Some(me), &seen).await.unwrap() };
    let Token { segment, epoch, position, .. } = tokens[0];
    let mut writer = view.writer().await.unwrap();
    writer.put(&NOTES, &mut of_none(rows.map(row))).await.unwrap();
    let to = position.plus(1);
    let applied = Applied { after: position, events: 1 };
    let moves = vec![TokenMove { segment, epoch, from: position, to, applied, replay: None }];
    writer.commit(&Commit { moves, ..Commit::default() }).await.unwrap();
}

async fn open(dir: &Path) -> Result<(SqliteViews, Arc<dyn View>), StoreError> {
    let views = SqliteViews::open(dir)?;
    let view = views.open(&id(), &[NOTES], SegmentCount::ONE).await?;
    Ok((views, view))
}

/// What answers there are: how many were right, and how many told of damage. Any other one fails the test.
async fn ask(view: &dyn View, rows: i64, answers: &mut BTreeMap<&'static str, u32>) {
    let mut tell = |what: &str, found: Result<bool, StoreError>| match found {
        Ok(true) => *answers.entry("right").or_default() += 1,
        Ok(false) => panic!("a wrong answer to {what}, and no word of it"),
        Err(StoreError::Corrupt { .. }) => *answers.entry("told").or_default() += 1,
        Err(error) => panic!("{what}: {error}"),
    };
    let mut reader = match view.reader().await {
        Ok(reader) => reader,
        Err(error) => return tell("open a state", Err(error)),
    };
    for key in (1..=rows).step_by(3) {
        let found = reader.get(&NOTES, &[Value::Integer(key)]).await;
        tell("a row", found.map(|found| found == Some(row(key))));
    }
    for owner in 0..OWNERS {
        let name = Value::Text(format!("owner {owner}"));
        let found = reader.select(&NOTES, &[(1, name)], usize::MAX).await;
        let right: Vec<_> = (1..=rows).filter(|id| id % OWNERS == owner).map(row).collect();
        tell("rows of an owner", found.map(|found| found == right));
    }
    let found = reader.query("SELECT count(*), sum(length(text)) FROM notes", &[]).await;
    let length: i64 =
        (1..=rows).map(|id| if let Value::Text(text) = &row(id)[2] { text.len() as i64 } else { 0 }).sum();
    tell("a sum", found.map(|(_, found)| found == [[Value::Integer(rows), Value::Integer(length)]]));
}

/// Flips a bit as a disk does, which changes no time.
fn flip(path: &Path, bit: u64) {
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, bit / 8).unwrap();
    byte[0] ^= 1 << (bit % 8);
    file.write_all_at(&byte, bit / 8).unwrap();
    file.set_modified(modified).unwrap();
}

fn file(dir: &Path, suffix: &str) -> PathBuf {
    dir.join(format!("notes/v1.1.db{suffix}"))
}

/// Numbers that look like chance, the same in every run.
fn places(bits: u64) -> impl Iterator<Item = u64> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    std::iter::repeat_with(move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 16) % bits
    })
}

/// Whether a byte is of what is in the file, and not of the file itself.
fn is_of_content(byte: u64) -> bool {
    !matches!(byte, 18..20 | 24..32 | 40..44 | 92..100)
}

const ROWS: i64 = 700;

#[tokio::test]
async fn bits_that_flip_at_rest_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let (views, view) = open(dir.path()).await.unwrap();
    put(&*view, 1..=ROWS).await;
    drop((view, views));
    let path = file(dir.path(), "");
    assert!(!file(dir.path(), "-wal").exists(), "all is in the file");
    let bits = std::fs::metadata(&path).unwrap().len() * 8;
    let mut answers = BTreeMap::new();
    // The header, of which some bits say what the pages are like, and places anywhere.
    let header = [
        0,
        16 * 8,
        18 * 8,
        19 * 8,
        19 * 8 + 1,
        20 * 8 + 3,
        20 * 8,
        24 * 8,
        28 * 8 + 7,
        31 * 8 + 1,
        43 * 8,
        56 * 8,
        99 * 8,
    ];
    for bit in header.into_iter().chain(places(bits).take(100)) {
        flip(&path, bit);
        match open(dir.path()).await {
            Ok((_views, view)) => {
                ask(&*view, ROWS, &mut answers).await;
                if is_of_content(bit / 8) {
                    let told = view.look_at_pages(0, u64::MAX).await;
                    assert!(matches!(told, Err(StoreError::Corrupt { .. })), "bit {bit}: {told:?}");
                    assert!(view.health().damaged.is_some());
                }
            }
            // A file that says of itself that it has no checksums is told apart.
            Err(StoreError::Corrupt { .. } | StoreError::Invalid(_)) => *answers.entry("refused").or_default() += 1,
            Err(error) => panic!("bit {bit}: {error}"),
        }
        flip(&path, bit);
    }
    assert!(answers["right"] > 1_000 && answers["told"] > 30 && answers["refused"] > 3, "{answers:?}");
    let (_views, view) = open(dir.path()).await.unwrap();
    ask(&*view, ROWS, &mut BTreeMap::new()).await;
    assert_eq!(view.look_at_pages(0, u64::MAX).await.unwrap(), None);
    assert_eq!(view.health(), Default::default(), "nothing of it is left");
}

#[tokio::test]
async fn bits_that_flip_under_a_running_view_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let (views, view) = open(dir.path()).await.unwrap();
    put(&*view, 1..=ROWS / 2).await;
    drop((view, views));
    // The first half is in the file, the other one in the WAL.
    let (_views, view) = open(dir.path()).await.unwrap();
    put(&*view, ROWS / 2 + 1..=ROWS).await;
    for suffix in ["-wal", ""] {
        let path = file(dir.path(), suffix);
        let bits = std::fs::metadata(&path).unwrap().len() * 8;
        assert!(bits > 100_000, "{suffix} has {bits} bits");
        let mut answers = BTreeMap::new();
        for bit in places(bits).take(80) {
            flip(&path, bit);
            // What connections have in memory is right; a new one reads the file.
            let views = SqliteViews::open(dir.path()).unwrap();
            match views.open(&id(), &[NOTES], SegmentCount::ONE).await {
                Ok(view) => ask(&*view, ROWS, &mut answers).await,
                Err(StoreError::Corrupt { .. } | StoreError::Invalid(_)) => *answers.entry("told").or_default() += 1,
                Err(error) => panic!("bit {bit}: {error}"),
            }
            flip(&path, bit);
        }
        assert!(answers["told"] > 20, "{suffix}: {answers:?}");
    }
}

/// SQLite's own backup is how the files of views in use are copied.
#[tokio::test]
async fn a_backup_by_sqlite_has_sound_pages() {
    let dir = tempfile::tempdir().unwrap();
    let (views, view) = open(dir.path()).await.unwrap();
    put(&*view, 1..=ROWS / 2).await;
    drop((view, views));
    let (_views, view) = open(dir.path()).await.unwrap();
    put(&*view, ROWS / 2 + 1..=ROWS).await;
    let other = tempfile::tempdir().unwrap();
    std::fs::create_dir(other.path().join("notes")).unwrap();
    {
        let from = rusqlite::Connection::open(file(dir.path(), "")).unwrap();
        let mut to = rusqlite::Connection::open(file(other.path(), "")).unwrap();
        let backup = rusqlite::backup::Backup::new(&from, &mut to).unwrap();
        assert_eq!(backup.step(-1).unwrap(), rusqlite::backup::StepResult::Done);
    }
    let (_views, copied) = open(other.path()).await.unwrap();
    ask(&*copied, ROWS, &mut BTreeMap::new()).await;
    assert_eq!(copied.look_at_pages(0, u64::MAX).await.unwrap(), None);
    assert_eq!(copied.health(), Default::default());
}

/// When and how each file was changed last.
fn changes(dir: &Path) -> BTreeMap<PathBuf, (i64, i64, u64)> {
    let files = std::fs::read_dir(dir.join("notes")).unwrap().map(|entry| entry.unwrap());
    let change = |file: &std::fs::Metadata| (file.ctime(), file.ctime_nsec(), file.len());
    files.map(|file| (file.path(), change(&file.metadata().unwrap()))).collect()
}

#[tokio::test]
async fn who_only_looks_is_told_of_damage_and_touches_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let (views, view) = open(dir.path()).await.unwrap();
    put(&*view, 1..=ROWS / 2).await;
    drop((view, views));
    let (_views, view) = open(dir.path()).await.unwrap();
    put(&*view, ROWS / 2 + 1..=ROWS).await;
    let left = tempfile::tempdir().unwrap();
    std::fs::create_dir(left.path().join("notes")).unwrap();
    for has_wal in [true, false] {
        let (rows, suffixes) =
            if has_wal { (ROWS, &["", "-wal", "-moved"][..]) } else { (ROWS / 2, &["", "-moved"][..]) };
        for suffix in suffixes {
            std::fs::copy(file(dir.path(), suffix), file(left.path(), suffix)).unwrap();
        }
        let before = changes(left.path());
        assert_eq!(before.len(), suffixes.len());
        let path = file(left.path(), "");
        let mut answers = BTreeMap::new();
        {
            let view = SqliteViews::look(left.path()).find(&id()).await.unwrap().unwrap();
            ask(&*view, rows, &mut answers).await;
        }
        assert_eq!(changes(left.path()), before, "with a WAL: {has_wal}");
        assert_eq!(answers.keys().collect::<Vec<_>>(), [&"right"]);
        let bits = std::fs::metadata(&path).unwrap().len() * 8;
        for bit in places(bits).take(40) {
            flip(&path, bit);
            match SqliteViews::look(left.path()).find(&id()).await {
                Ok(view) => ask(&*view.unwrap(), rows, &mut answers).await,
                Err(StoreError::Corrupt { .. } | StoreError::Invalid(_)) => *answers.entry("told").or_default() += 1,
                Err(error) => panic!("bit {bit}: {error}"),
            }
            flip(&path, bit);
        }
        assert!(answers["told"] > 20, "with a WAL: {has_wal}: {answers:?}");
        if has_wal {
            std::fs::remove_file(file(left.path(), "-wal")).unwrap();
        }
    }
}

/// A program that ended without closing the file leaves a WAL, of which nothing that was committed is lost.
#[tokio::test]
async fn a_wal_that_is_left_behind_is_taken_up() {
    let dir = tempfile::tempdir().unwrap();
    let (_views, view) = open(dir.path()).await.unwrap();
    put(&*view, 1..=ROWS / 2).await;
    put(&*view, ROWS / 2 + 1..=ROWS).await;
    let other = tempfile::tempdir().unwrap();
    std::fs::create_dir(other.path().join("notes")).unwrap();
    for suffix in ["", "-wal"] {
        std::fs::copy(file(dir.path(), suffix), file(other.path(), suffix)).unwrap();
    }
    let (_views, taken_up) = open(other.path()).await.unwrap();
    ask(&*taken_up, ROWS, &mut BTreeMap::new()).await;
    assert_eq!(taken_up.health(), Default::default());
}

/// A file as earlier builds made it.
#[tokio::test]
async fn a_file_without_checksums_is_refused_and_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("notes")).unwrap();
    let plain = rusqlite::Connection::open(file(dir.path(), "")).unwrap();
    plain
        .execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE _dacapo_view (format INTEGER NOT NULL) STRICT")
        .unwrap();
    drop(plain);
    let Err(error) = open(dir.path()).await else { panic!("it must be refused") };
    let text = error.to_string();
    assert!(matches!(error, StoreError::Invalid(_)) && text.contains("have no checksums"), "{text}");
    assert!(text.contains("rebuild the projection"), "{text}");
}

/// What the disk could not read for a while is there all the same: it is no damage, and nobody need do anything.
#[tokio::test]
async fn what_could_not_be_read_for_a_while_is_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().canonicalize().unwrap();
    for moved in [false, true] {
        let (views, view) = open(&dir).await.unwrap();
        put(&*view, 1..=ROWS).await;
        if moved {
            // Closed, its pages are in the file and not in the WAL any more.
            drop((views, view));
        }
        let (views, view) = open(&dir).await.unwrap();
        // One that knows the tables already, and reads their pages only then.
        let mut reader = view.reader().await.unwrap();
        reader.query("SELECT id FROM notes WHERE id = 1", &[]).await.unwrap();
        views.fail_reads(true);
        let read = reader.query("SELECT count(*), sum(length(text)) FROM notes", &[]).await;
        assert!(matches!(read, Err(StoreError::Unavailable { .. })), "{read:?}");
        drop(reader);
        for _ in 0..3 {
            let read = async { view.reader().await?.query("SELECT count(*) FROM notes", &[]).await };
            let read = read.await;
            assert!(matches!(read, Err(StoreError::Unavailable { .. })), "{read:?}");
            let health = view.health();
            assert!(health.damaged.is_none() && health.failing.is_some(), "{health:?}");
        }
        views.fail_reads(false);
        // Looked for by anyone who asks how it is, since nobody may read that again.
        while view.health() != dacapo_store::ViewHealth::default() {
            tokio::task::yield_now().await;
        }
        let mut answers = BTreeMap::new();
        ask(&*view, ROWS, &mut answers).await;
        assert_eq!(answers.keys().collect::<Vec<_>>(), [&"right"]);
    }
}

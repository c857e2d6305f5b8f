//! Views written, read and locked through this VFS.

use std::path::Path;

use rusqlite::{Connection, ffi};

use super::steps;
use crate::error::StoreError;
use crate::sqlite::moved::beside;
use crate::sqlite::pages::{FRAME_BYTES, FRAME_HEADER_BYTES, WAL_HEADER_BYTES};
use crate::sqlite::{Db, Place};

fn open(path: &Path) -> Db {
    let mut db = Db::in_file(path, &Place::new(path.display().to_string())).unwrap();
    db.tried("set it up", |connection| {
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "wal_autocheckpoint", 0)?;
        // Pages that are written to leave memory again and again.
        connection.pragma_update(None, "cache_size", 8)
    })
    .unwrap();
    db
}

fn sums(connection: &Connection) -> rusqlite::Result<(i64, i64, String)> {
    let check = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    connection.query_row("SELECT count(*), sum(n) FROM t", [], |row| Ok((row.get(0)?, row.get(1)?, check)))
}

/// Then SQLite makes the checksums of frames again when the transaction is committed.
#[test]
fn pages_that_are_written_again_within_a_transaction_are_sound() {
    let dir = tempfile::tempdir().unwrap();
    let (path, wal) = (dir.path().join("a.db"), dir.path().join("a.db-wal"));
    std::fs::File::create(&path).unwrap();
    let mut db = open(&path);
    let mut expected = Vec::new();
    for round in 1..=4 {
        db.tried("write", |connection| {
            connection
                .execute_batch("BEGIN IMMEDIATE; CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, n, text)")?;
            for id in 0..600_i64 {
                let row = (id * 7919 % 600, id * round, "text ".repeat(20));
                connection.execute("INSERT OR REPLACE INTO t VALUES (?, ?, ?)", row)?;
            }
            for _ in 0..3 {
                connection.execute("UPDATE t SET n = n + 1, text = text || 'x' WHERE id % 3 = 0", [])?;
            }
            // What is taken back was written to the WAL as well.
            connection.execute_batch("SAVEPOINT s; UPDATE t SET n = 0; ROLLBACK TO s; COMMIT")
        })
        .unwrap();
        expected = vec![600, (0..600).map(|id| id * round).sum::<i64>() + 600];
        let seen = open(&path).tried("read", |connection| sums(connection)).unwrap();
        assert_eq!((vec![seen.0, seen.1], &*seen.2), (expected.clone(), "ok"), "another connection, round {round}");
    }
    // As a process leaves it that is killed: read by this build, and by any other SQLite.
    let left = tempfile::tempdir().unwrap();
    std::fs::copy(&path, left.path().join("a.db")).unwrap();
    std::fs::copy(&wal, left.path().join("a.db-wal")).unwrap();
    let seen = open(&left.path().join("a.db")).tried("read", |connection| sums(connection)).unwrap();
    assert_eq!((vec![seen.0, seen.1], &*seen.2), (expected.clone(), "ok"), "a WAL that was left");
    let plain = Connection::open(&path).unwrap();
    let seen = sums(&plain).unwrap();
    assert_eq!((vec![seen.0, seen.1], &*seen.2), (expected.clone(), "ok"), "another program");
    // It moves pages into the file, which stay sound.
    plain.execute_batch("PRAGMA wal_checkpoint(PASSIVE)").unwrap();
    drop((plain, db));
    let file = std::fs::File::open(&path).unwrap();
    let looked = crate::sqlite::scrub::look(&file, &path, 0, u64::MAX).unwrap();
    assert_eq!((looked.next, looked.damaged), (None, None));
    let seen = open(&path).tried("read", |connection| sums(connection)).unwrap();
    assert_eq!((vec![seen.0, seen.1], &*seen.2), (expected, "ok"), "what another program has moved");
}

/// What plain SQLite finds in the view at `path` as a killed process leaves it, with the WAL cut to `wal_bytes`.
fn left(path: &Path, wal_bytes: u64) -> (i64, i64, String) {
    let dir = tempfile::tempdir().unwrap();
    let (copy, wal) = (dir.path().join("a.db"), dir.path().join("a.db-wal"));
    std::fs::copy(path, &copy).unwrap();
    std::fs::copy(beside(path, "-wal"), &wal).unwrap();
    std::fs::OpenOptions::new().write(true).open(&wal).unwrap().set_len(wal_bytes).unwrap();
    sums(&Connection::open(&copy).unwrap()).unwrap()
}

/// The frame that was written last by a connection tells it what the checksum of the next one continues from, but only if it
/// is the last one still.
#[test]
fn connections_that_write_in_turns_leave_a_wal_that_is_taken_up() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    std::fs::File::create(&path).unwrap();
    let mut connections = [open(&path), open(&path)];
    let run = |db: &mut Db, sql: &str| db.tried("write", |connection| connection.execute_batch(sql)).unwrap();
    run(&mut connections[0], "CREATE TABLE t (id INTEGER PRIMARY KEY, n, text)");
    let change = |rows: i64| {
        format!(
            "WITH ids(id) AS (SELECT 0 UNION ALL SELECT id + 1 FROM ids WHERE id + 1 < {rows})
             INSERT INTO t SELECT id, 1, hex(zeroblob(500)) FROM ids WHERE true
             ON CONFLICT DO UPDATE SET n = n + 1, text = text || 'x';"
        )
    };
    let mut random = 1_u32;
    for round in 0..80 {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let pick = random >> 16;
        let db = &mut connections[usize::from(pick & 1 == 1)];
        let few = change(i64::from(pick >> 4) % 3 + 1);
        match pick >> 1 & 7 {
            // Frames after the last one that nobody reads.
            0 => run(db, &format!("BEGIN IMMEDIATE; {} ROLLBACK", change(90))),
            1 => run(db, &format!("BEGIN IMMEDIATE; {few} SAVEPOINT s; {} ROLLBACK TO s; {few} COMMIT", change(90))),
            // Pages that are written again, whose frames get their checksums at the end.
            2 => run(db, &format!("BEGIN IMMEDIATE; {} {} {few} COMMIT", change(90), change(60))),
            // After this the WAL may be begun again.
            3 => run(db, "PRAGMA wal_checkpoint(PASSIVE)"),
            _ => run(db, &few),
        }
        let seen = db.tried("read", |connection| sums(connection)).unwrap();
        let wal_bytes = std::fs::metadata(beside(&path, "-wal")).unwrap().len();
        assert_eq!(left(&path, wal_bytes), seen, "round {round}, step {}", pick >> 1 & 7);
    }
}

/// Where the other one wrote as many frames as had been taken back.
#[test]
fn a_frame_that_another_connection_wrote_anew_is_not_gone_on_from() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    std::fs::File::create(&path).unwrap();
    let (mut one, mut other) = (open(&path), open(&path));
    let run = |db: &mut Db, sql: &str| db.tried("write", |connection| connection.execute_batch(sql)).unwrap();
    run(&mut one, "CREATE TABLE t (id INTEGER PRIMARY KEY, n, text)");
    let rows = "WITH ids(id) AS (SELECT 0 UNION ALL SELECT id + 1 FROM ids WHERE id < 60)
                INSERT INTO t SELECT id, 0, hex(zeroblob(1500)) FROM ids;";
    run(&mut one, rows);
    let frames = || (std::fs::metadata(beside(&path, "-wal")).unwrap().len() - WAL_HEADER_BYTES) / FRAME_BYTES;
    let committed = frames();
    // Pages leave memory, and are written, before all is taken back.
    run(&mut one, "BEGIN IMMEDIATE; UPDATE t SET n = -1; ROLLBACK");
    let end = frames();
    for _ in committed..end {
        run(&mut other, "UPDATE t SET n = n + 1 WHERE id = 7");
    }
    assert!(committed + 10 < end && frames() == end, "{committed} {end} {}", frames());
    run(&mut one, "UPDATE t SET n = n + 1 WHERE id = 9");
    assert_eq!(frames(), end + 1, "it goes on where it had written last");
    let seen = one.tried("read", |connection| sums(connection)).unwrap();
    assert_eq!(left(&path, WAL_HEADER_BYTES + frames() * FRAME_BYTES), seen);
}

/// Killed within the writes of a commit, and when it has returned.
#[test]
fn a_frame_is_there_as_a_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    std::fs::File::create(&path).unwrap();
    let mut db = open(&path);
    let mut run = |sql: &str| {
        db.tried("write", |connection| connection.execute_batch(sql)).unwrap();
        let seen = db.tried("read", |connection| sums(connection)).unwrap();
        (seen, std::fs::metadata(beside(&path, "-wal")).unwrap().len())
    };
    let (mut before, mut end) = run("CREATE TABLE t (n, text); INSERT INTO t VALUES (1, 'a')");
    for n in 0..3 {
        let frame = FRAME_BYTES as usize;
        let (after, after_end) = run(&format!("INSERT INTO t VALUES ({n}, hex(zeroblob(3000)))"));
        assert!(after_end > end && (after_end - end).is_multiple_of(FRAME_BYTES), "{end} {after_end}");
        for cut in (end..after_end).step_by(frame).flat_map(|at| [0, 8, 24, 25, 4_000, 4_119].map(|more| at + more)) {
            assert_eq!(left(&path, cut), before, "cut at {cut}, between {end} and {after_end}");
        }
        assert_eq!(left(&path, after_end), after);
        (before, end) = (after, after_end);
    }
}

/// SQLite does not do that. If a later one does, a header that is kept until its page comes must not be lost.
#[test]
fn a_header_that_no_page_follows_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    std::fs::File::create(&path).unwrap();
    let mut db = open(&path);
    db.tried("write", |connection| {
        connection.execute_batch("CREATE TABLE t (n)")?;
        let mut wal: *mut ffi::sqlite3_file = std::ptr::null_mut();
        // SAFETY: the handle is open, and this control writes one pointer to a file that is open as long as that.
        let (one, other) = unsafe {
            let to = (&raw mut wal).cast();
            ffi::sqlite3_file_control(connection.handle(), c"main".as_ptr(), ffi::SQLITE_FCNTL_JOURNAL_POINTER, to);
            let write = (*(*wal).pMethods).xWrite.unwrap();
            let (header, behind) = ([1_u8; FRAME_HEADER_BYTES], (WAL_HEADER_BYTES + 100 * FRAME_BYTES) as i64);
            let header_at = |at| write(wal, header.as_ptr().cast(), header.len() as i32, at);
            (header_at(behind), header_at(behind + FRAME_BYTES as i64))
        };
        assert_eq!((one, other), (ffi::SQLITE_OK, ffi::SQLITE_IOERR_WRITE));
        Ok(())
    })
    .unwrap();
}

fn write(db: &mut Db) -> Result<(), StoreError> {
    db.tried("write", |connection| {
        connection.busy_timeout(std::time::Duration::ZERO)?;
        connection.execute_batch("CREATE TABLE IF NOT EXISTS t (n); INSERT INTO t VALUES (1)")
    })
}

/// The system may fail to give up a lock, and SQLite does not look at that.
#[test]
fn a_lock_that_could_not_be_given_up_is_nobody_s_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    std::fs::File::create(&path).unwrap();
    let (mut one, mut other) = (open(&path), open(&path));
    write(&mut one).unwrap();
    // For a moment.
    steps::UNLOCKS_THAT_FAIL.set(2);
    write(&mut one).unwrap();
    assert_eq!(steps::UNLOCKS_THAT_FAIL.get(), 0);
    write(&mut other).unwrap();
    // For longer: until the connection that has it is used again.
    let keep = |db: &mut Db| {
        steps::UNLOCKS_THAT_FAIL.set(usize::MAX);
        write(db).unwrap();
        steps::UNLOCKS_THAT_FAIL.set(0);
    };
    keep(&mut one);
    assert!(matches!(write(&mut other), Err(StoreError::Unavailable { .. })), "it has the lock");
    one.tried("read", |connection| connection.execute_batch("SELECT * FROM t")).unwrap();
    write(&mut other).unwrap();
    write(&mut one).unwrap();
    // Or closed.
    keep(&mut one);
    drop(one);
    write(&mut other).unwrap();
    write(&mut open(&path)).unwrap();
}

//! Views written, read and locked through this VFS.

use std::path::Path;

use rusqlite::Connection;

use super::steps;
use crate::error::StoreError;
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

/// Then SQLite makes the checksums of frames anew when the transaction is committed.
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
    assert_eq!((vec![seen.0, seen.1], &*seen.2), (expected.clone(), "ok"), "a WAL that was left behind");
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

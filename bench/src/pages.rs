//! What the checksums of the pages of views cost: the same statements on the same rows through the VFS of dacapo and
//! through SQLite's own, in turns.

use std::path::{Path, PathBuf};

use dacapo_store::embedded::SqliteViews;
use dacapo_store::{Column, ColumnKind, Table, Views};
use rusqlite::{Connection, OpenFlags};
use tokio::time::Instant;

use crate::bench::{Bench, Done};
use crate::pair::{a_second, in_turns};
use crate::report::Row;

pub(crate) const NAMES: &[&str] = &["pages-bulk", "pages-commits", "pages-reads", "pages-scan"];

const ROWS: Table = Table {
    name: "rows",
    columns: &[
        Column { name: "id", kind: ColumnKind::Integer, optional: false },
        Column { name: "text", kind: ColumnKind::Text, optional: false },
    ],
    key: &[0],
    indexes: &[],
};
/// How a view is opened to write and to read, in KiB of pages in memory.
const WRITER_CACHE_KIB: i64 = -65_536;
const READER_CACHE_KIB: i64 = -8_192;
const CHECKPOINT_PAGES: i64 = 8_192;
/// Commits and reads of one turn.
const COMMITS: usize = 5_000;
const READS: usize = 100_000;
const SCANS: usize = 5;

const FLOOR: &str = "the same through SQLite's own VFS, without checksums";
const FLOOR_OF_READS: &str = "the same file through SQLite's own VFS, without checksums";

/// A file with room for checksums, and through which VFS it is opened.
struct Side {
    path: PathBuf,
    vfs: &'static str,
}

impl Side {
    fn open(&self, cache_kib: i64) -> Done<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags_and_vfs(&self.path, flags, self.vfs)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        connection.pragma_update(None, "cache_size", cache_kib)?;
        connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
        Ok(connection)
    }

    /// Puts every row again in one transaction. Returns rows a second.
    fn bulk(&self, rows: usize, round: usize) -> Done<f64> {
        let mut connection = self.open(WRITER_CACHE_KIB)?;
        let begun = Instant::now();
        let transaction = connection.transaction()?;
        {
            let mut put = transaction.prepare("REPLACE INTO rows VALUES (?1, ?2)")?;
            for id in 0..rows {
                put.execute((id as i64, text(id, round)))?;
            }
        }
        transaction.commit()?;
        Ok(a_second(rows, begun.elapsed()))
    }

    /// Changes one row a transaction, here and there; transactions a second.
    fn commits(&self, rows: usize, seed: u64) -> Done<f64> {
        let connection = self.open(WRITER_CACHE_KIB)?;
        let mut put = connection.prepare("REPLACE INTO rows VALUES (?1, ?2)")?;
        let mut random = fastrand::Rng::with_seed(seed);
        let begun = Instant::now();
        for at in 0..COMMITS {
            let id = random.usize(..rows);
            put.execute((id as i64, text(id, at)))?;
        }
        Ok(a_second(COMMITS, begun.elapsed()))
    }

    /// Reads rows here and there by their keys; rows a second.
    fn reads(&self, rows: usize, seed: u64) -> Done<f64> {
        let connection = self.open(READER_CACHE_KIB)?;
        let mut get = connection.prepare("SELECT text FROM rows WHERE id = ?1")?;
        let mut random = fastrand::Rng::with_seed(seed);
        let begun = Instant::now();
        let mut bytes = 0;
        for _ in 0..READS {
            bytes += get.query_row([random.usize(..rows) as i64], |row| Ok(row.get_ref(0)?.as_str()?.len()))?;
        }
        std::hint::black_box(bytes);
        Ok(a_second(READS, begun.elapsed()))
    }

    /// Reads all rows, in their order; rows a second.
    fn scan(&self, rows: usize) -> Done<f64> {
        let connection = self.open(READER_CACHE_KIB)?;
        let mut all = connection.prepare("SELECT id, text FROM rows")?;
        let begun = Instant::now();
        let mut bytes = 0;
        for _ in 0..SCANS {
            let mut found = all.query([])?;
            while let Some(row) = found.next()? {
                bytes += row.get_ref(1)?.as_str()?.len();
            }
        }
        std::hint::black_box(bytes);
        Ok(a_second(rows * SCANS, begun.elapsed()))
    }
}

/// Some 200 bytes.
fn text(id: usize, round: usize) -> String {
    format!("account {id:08} after {round:08} changes; ").repeat(5)
}

/// Two files of one view: one through the VFS of dacapo, and one through SQLite's own.
async fn sides(dir: &Path) -> Done<(Side, Side)> {
    let id = dacapo::ViewId { projection: dacapo::ProjectionName::new("pages")?, version: "v1.1".parse()? };
    {
        let views = SqliteViews::open(dir)?;
        views.open(&id, &[ROWS], dacapo::options::SegmentCount::ONE).await?;
    }
    let checked = dir.join("pages/v1.1.db");
    let plain = dir.join("plain.db");
    std::fs::copy(&checked, &plain)?;
    Ok((Side { path: checked, vfs: "dacapo" }, Side { path: plain, vfs: "unix" }))
}

pub(crate) async fn rows(bench: &Bench) -> Done<Vec<Row>> {
    if !bench.wants_any(&[NAMES]) {
        return Ok(Vec::new());
    }
    let place = bench.place()?;
    let (checked, plain) = sides(place.path()).await?;
    let count = bench.sizes.accounts * 2;
    for side in [&checked, &plain] {
        side.bulk(count, 0)?;
    }
    // Two files may lie in the system's cache in different ways, which moves reads by as much as checksums cost.
    let same = Side { path: checked.path.clone(), vfs: plain.vfs };
    let repeats = bench.sizes.repeats * 3;
    let mut rows = Vec::new();
    if bench.begins("pages-bulk") {
        let (mut one, mut other) = (0, 0);
        let pair = in_turns(
            repeats,
            async || {
                one += 1;
                checked.bulk(count, one)
            },
            async || {
                other += 1;
                plain.bulk(count, other)
            },
        )
        .await?;
        let says = "The cost of sealing pages in bulk writes, including checkpoints.";
        let what = "rows put into a view in one transaction";
        rows.push(Row { name: "pages-bulk", what, unit: "rows/s", floor: FLOOR, ..Row::of(pair, 0.95, says) });
    }
    if bench.begins("pages-commits") {
        let pair = in_turns(repeats, async || checked.commits(count, 1), async || plain.commits(count, 1)).await?;
        let says = "The cost of sealing pages if each row is a transaction, including checkpoints.";
        let what = "rows put into a view, a transaction each";
        rows.push(Row { name: "pages-commits", what, unit: "commits/s", floor: FLOOR, ..Row::of(pair, 0.95, says) });
    }
    if bench.begins("pages-reads") {
        let pair = in_turns(repeats, async || checked.reads(count, 1), async || same.reads(count, 1)).await?;
        let says = "The cost of checking pages if most reads need one that SQLite does not have in memory.";
        let what = "rows of a view by their keys, here and there";
        rows.push(Row {
            name: "pages-reads",
            what,
            unit: "rows/s",
            floor: FLOOR_OF_READS,
            ..Row::of(pair, 0.95, says)
        });
    }
    if bench.begins("pages-scan") {
        let pair = in_turns(repeats, async || checked.scan(count), async || same.scan(count)).await?;
        let says = "The same, if every page is read once.";
        let what = "all rows of a view, in order";
        rows.push(Row { name: "pages-scan", what, unit: "rows/s", floor: FLOOR_OF_READS, ..Row::of(pair, 0.95, says) });
    }
    Ok(rows)
}

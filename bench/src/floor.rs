//! Floors made of the bare disk and the page cache.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Advice, fadvise};
use rustix::io::{Errno, ReadWriteFlags, preadv2};
use tokio::time::Instant;

use crate::bench::Done;

/// What one flush carries when nothing else is asked of it.
pub(crate) const PAGE_BYTES: usize = 4096;
const BLOCK_BYTES: usize = 1 << 20;
/// How long the kernel is asked to drop pages.
const COLD_TIME_MAX: Duration = Duration::from_secs(5);

/// A loop that appends a page and flushes it, for about `time`: how long each turn took.
pub(crate) fn flushes(file: &Path, time: Duration) -> Done<Vec<Duration>> {
    let mut file = File::create(file)?;
    let page = [0xA5; PAGE_BYTES];
    let mut turns = Vec::new();
    let begun = Instant::now();
    while begun.elapsed() < time {
        let turn = Instant::now();
        file.write_all(&page)?;
        file.sync_data()?;
        turns.push(turn.elapsed());
    }
    Ok(turns)
}

/// Writes blocks of these sizes to a file, and flushes each.
pub(crate) fn write_blocks(file: &Path, sizes: &[usize]) -> Done<Duration> {
    let mut file = File::create(file)?;
    let block = vec![0xA5; sizes.iter().copied().max().unwrap_or_default()];
    let begun = Instant::now();
    for size in sizes {
        file.write_all(&block[..*size])?;
        file.sync_data()?;
    }
    Ok(begun.elapsed())
}

/// Reads files from the page cache and checksums what they hold.
pub(crate) fn read_and_checksum(files: &[PathBuf]) -> Done<Duration> {
    let mut block = vec![0; BLOCK_BYTES];
    let mut sum = 0;
    let begun = Instant::now();
    for file in files {
        let file = File::open(file)?;
        let mut at = 0;
        loop {
            let read = file.read_at(&mut block, at)?;
            if read == 0 {
                break;
            }
            sum ^= crc32c::crc32c(&block[..read]);
            at += read as u64;
        }
    }
    std::hint::black_box(sum);
    Ok(begun.elapsed())
}

/// Reads `count` pages at random places of the files, one after the other.
pub(crate) fn read_pages(files: &[PathBuf], count: usize, random: &mut fastrand::Rng) -> Done<Duration> {
    let mut open = Vec::with_capacity(files.len());
    for file in files {
        let file = File::open(file)?;
        let pages = file.metadata()?.len() / PAGE_BYTES as u64;
        open.push((file, pages));
    }
    open.retain(|(_, pages)| *pages > 0);
    let mut page = [0; PAGE_BYTES];
    let begun = Instant::now();
    for _ in 0..count {
        let (file, pages) = &open[random.usize(..open.len())];
        file.read_exact_at(&mut page, random.u64(..*pages) * PAGE_BYTES as u64)?;
    }
    Ok(begun.elapsed())
}

/// Drops files from the page cache. The kernel keeps a page that is being read or written just then, so it is asked more
/// than once.
///
/// # Errors
/// When more than one sampled page in twenty is still there after [`COLD_TIME_MAX`]: then nothing read from them would
/// be cold.
pub(crate) async fn make_cold(files: &[PathBuf]) -> Done {
    let begun = Instant::now();
    loop {
        let (warm, sampled) = drop_pages(files)?;
        if warm * 20 <= sampled {
            return Ok(());
        }
        if begun.elapsed() > COLD_TIME_MAX {
            let found = format!("{warm} of {sampled} sampled pages stay in the page cache: nothing here is cold");
            return Err(found.into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Asks the kernel once to drop the pages, and returns how many of some are still there, and of how many.
fn drop_pages(files: &[PathBuf]) -> Done<(usize, usize)> {
    let (mut warm, mut sampled) = (0, 0);
    for path in files {
        let file = File::open(path)?;
        // What is not on the disk yet is not dropped.
        file.sync_all()?;
        fadvise(&file, 0, None, Advice::DontNeed)?;
        let pages = file.metadata()?.len() / PAGE_BYTES as u64;
        // Each sample may set off a read of what follows it, so they lie far apart, from the end to the beginning.
        for page in (0..pages).step_by(1024).collect::<Vec<_>>().into_iter().rev() {
            sampled += 1;
            warm += usize::from(is_cached(&file, page * PAGE_BYTES as u64)?);
        }
        fadvise(&file, 0, None, Advice::DontNeed)?;
    }
    Ok((warm, sampled))
}

/// Whether a byte can be read without waiting for the disk.
fn is_cached(file: &File, at: u64) -> Done<bool> {
    let mut byte = [0];
    match preadv2(file, &mut [std::io::IoSliceMut::new(&mut byte)], at, ReadWriteFlags::NOWAIT) {
        Ok(read) => Ok(read == 1),
        Err(Errno::AGAIN) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The files of a directory whose names end with one of these.
pub(crate) fn files(dir: &Path, ends: &[&str]) -> Done<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if ends.iter().any(|end| path.to_string_lossy().ends_with(end)) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

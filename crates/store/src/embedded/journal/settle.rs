//! The work before the first write to a journal that was opened. Opening itself changes no byte.
//!
//! ```text
//!   torn tail ─▶ kept beside: chunk-….cut-TIME, flushed ─▶ cut off, flushed
//!   chunk whose header is not whole ─▶ header, flushed
//!   commit ─▶ says that the journal is open, flushed
//! ```
//!
//! Each step can be repeated after a crash at any point.

use std::io;
use std::path::Path;

use dacapo_model::Timestamp;

use super::chunk::{self, Header};
use super::commit::{Commit, CommitFile};
use super::log::{Log, disk_error};
use crate::embedded::disk::DiskFile;
use crate::error::StoreError;

/// The work that is left.
pub(super) struct Unsettled {
    /// The header that the newest chunk needs.
    pub header: Option<Header>,
    /// The size of the newest chunk, if it has more bytes than belong to it.
    pub tail: Option<u64>,
    /// The file of commits, if there is one.
    pub commit: Option<CommitFile>,
}

impl Unsettled {
    /// Does the work, at the time `now`. `end` of `commit` is the end of the bytes that belong to the newest chunk,
    /// whose file is `file`.
    pub fn settle(
        &mut self,
        log: &Log,
        file: &dyn DiskFile,
        commit: &Commit,
        now: Timestamp,
    ) -> Result<CommitFile, StoreError> {
        let path = log.log_path(commit.chunk);
        let failed = |error: io::Error| disk_error("recover", &path, &error);
        if let Some(size) = self.tail {
            keep_beside(log, file, commit, size, now)?;
            file.set_len(commit.end).and_then(|()| file.sync_data()).map_err(failed)?;
            self.tail = None;
        }
        if let Some(header) = self.header {
            file.write_at(0, &header.encode()).and_then(|()| file.sync_data()).map_err(failed)?;
            file.set_len(commit.end).and_then(|()| file.sync_data()).map_err(failed)?;
            self.header = None;
        }
        let kept = match self.commit.take() {
            Some(kept) => kept,
            None => CommitFile::create(&*log.disk, &log.dir)
                .map_err(|error| disk_error("make", &super::commit::path(&log.dir), &error))?,
        };
        // Names are flushed first, so that a commit names only chunks that exist durably. The name of the commit file
        // itself follows.
        let names = || log.disk.sync_dir(&log.dir).map_err(|error| disk_error("flush", &log.dir, &error));
        let done = names().and_then(|()| kept.keep(commit)).and_then(|()| names());
        match done {
            Ok(()) => Ok(kept),
            Err(error) => {
                self.commit = Some(kept);
                Err(error)
            }
        }
    }
}

/// Copies the bytes of a chunk that do not belong to it to a separate file.
fn keep_beside(log: &Log, file: &dyn DiskFile, commit: &Commit, size: u64, now: Timestamp) -> Result<(), StoreError> {
    let path = log.log_path(commit.chunk);
    let (names, mut tail) = (log.disk.list(&log.dir), Vec::new());
    let names = names.map_err(|error| disk_error("list", &log.dir, &error))?;
    let len = size.saturating_sub(commit.end) as usize;
    file.read_at(commit.end, len, &mut tail).map_err(|error| disk_error("read", &path, &error))?;
    let stem = chunk::log_name(commit.chunk).replace(".log", "");
    let time = jiff::Timestamp::from_microsecond(now.micros()).unwrap_or_default().strftime("%Y%m%dT%H%M%SZ");
    let mut name = format!("{stem}.cut-{time}");
    for number in 2.. {
        if !names.contains(&name) {
            break;
        }
        name = format!("{stem}.cut-{time}-{number}");
    }
    let beside = log.dir.join(name);
    let copy = || -> io::Result<()> {
        let copy = log.disk.create(&beside)?;
        copy.write_at(0, &tail)?;
        copy.sync_data()?;
        log.disk.sync_dir(&log.dir)
    };
    copy().map_err(|error| disk_error("keep the torn end in", &beside, &error))?;
    told(&path, commit.end, size, &beside);
    Ok(())
}

fn told(path: &Path, from: u64, through: u64, beside: &Path) {
    tracing::warn!(
        file = %path.display(), from, through, kept = %beside.display(),
        "the unfinished write of the process that ended is cut off and kept in a file beside; it was never acknowledged"
    );
}

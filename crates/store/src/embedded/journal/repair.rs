//! Repair of a journal that opening refuses. It shows its steps, and carries them out only on request.
//!
//! A repair trusts the records as far as they are sound, and gives up the rest. It keeps every byte that it removes.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use dacapo_model::{JournalId, Position};

use super::JournalOptions;
use super::chunk::{self, HEADER_BYTES, Header};
use super::commit::{CommitFile, Kept};
use super::log::{Found, Log, corrupt_at, disk_error};
use super::open::{self, Believe};
use super::writer::{Start, Writer};
use crate::embedded::disk::Disk;
use crate::embedded::lock::DataDir;
use crate::error::StoreError;
use crate::limits;

/// The damage of a journal, and the repair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repair {
    /// The reason why opening refuses; `None` if it does not.
    pub problem: Option<String>,
    /// The steps of the repair, in order; empty if there is nothing to do.
    pub steps: Vec<RepairStep>,
}

/// One step of a repair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepairStep {
    /// The action.
    pub act: RepairAct,
    /// Its description, for people.
    pub text: String,
}

/// The action of a step of a repair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RepairAct {
    /// Copies the end of the newest chunk to a file beside it and cuts it off.
    CutOff,
    /// Writes the header of a chunk that has no events.
    WriteHeader,
    /// Records the end of the journal.
    WriteCommit,
    /// Gives up events that were acknowledged, or may have been. Later events get their positions.
    GiveUp {
        /// The last position before those events.
        after: Position,
        /// The last of those positions, if it is known.
        through: Option<Position>,
    },
}

impl RepairStep {
    fn new(act: RepairAct, text: impl Into<String>) -> Self {
        Self { act, text: text.into() }
    }
}

/// Returns the steps that a repair of the journal in `dir` needs, and carries them out if `apply` is set. Otherwise no
/// byte changes.
///
/// # Errors
/// [`StoreError::Corrupt`] if the existing files are not sufficient for a repair; [`StoreError::Unavailable`] if the
/// disk fails; [`StoreError::Invalid`] if there is no journal.
pub fn repair(dir: &DataDir, options: JournalOptions, apply: bool) -> Result<Repair, StoreError> {
    let path = dir.path().join("journal");
    super::check_there(dir, &*options.disk, &path)?;
    let names = options.disk.list(&path).map_err(|error| disk_error("list", &path, &error))?;
    if !names.iter().any(|name| chunk::parse_name(name, ".log").is_some()) {
        let acknowledged = CommitFile::read(&*options.disk, &path)?.and_then(|kept| kept.commit);
        return Err(match acknowledged {
            Some(commit) => StoreError::corrupt(
                path.display(),
                format!("no chunk is there, though `commit` notes that the journal ends with position {}", commit.head),
            ),
            None => StoreError::Invalid(format!("{} has no chunks: there is nothing to repair", path.display())),
        });
    }
    let believe = if apply { Believe::Evidence } else { Believe::Looking };
    let problem = match open::open(&*options.disk, &path, options.id, believe) {
        Ok((found, start)) => {
            super::check_same(dir, &path, found.id)?;
            read_sealed(&*options.disk, &path, &found)?;
            let steps = steps(&path, &found, &start).into_iter().map(|RepairStep { act, text }| {
                let by_itself = "it was never acknowledged; the next append also does this by itself";
                RepairStep::new(act, format!("{text} ({by_itself})"))
            });
            let steps = if start.unsettled.tail.is_some() { steps.collect() } else { vec![] };
            if apply && !steps.is_empty() {
                settle(&path, options, found, start)?;
            }
            return Ok(Repair { problem: None, steps });
        }
        Err(error @ StoreError::Corrupt { .. }) => error.to_string(),
        Err(error) => return Err(error),
    };
    let kept = CommitFile::read(&*options.disk, &path)?;
    let is_proved = kept.as_ref().is_some_and(Kept::proves);
    let acknowledged = kept.and_then(|kept| kept.commit).map(|commit| commit.head);
    let (found, start) = open::open(&*options.disk, &path, options.id, Believe::Records)?;
    super::check_same(dir, &path, found.id)?;
    read_sealed(&*options.disk, &path, &found)?;
    let mut steps = steps(&path, &found, &start);
    let (commit, head) = (path.join("commit"), found.head);
    let note = format!("note in {} that the journal ends with position {head}", commit.display());
    steps.push(RepairStep::new(RepairAct::WriteCommit, note));
    if let Some(through) = acknowledged.filter(|acknowledged| *acknowledged > head) {
        let text = format!(
            "GIVE UP the events at positions {} through {through}, which were acknowledged: other events get these \
             positions. A backup or a replicated journal may have them, so look there first; views and readers that saw \
             them must begin again",
            head.next()
        );
        steps.push(RepairStep::new(RepairAct::GiveUp { after: head, through: Some(through) }, text));
    }
    if !is_proved && start.unsettled.tail.is_some() {
        let after = acknowledged.unwrap_or_default().max(head);
        let text = format!(
            "GIVE UP whatever events after position {after} were acknowledged, which nothing tells any more: other events \
             get their positions. A backup or a replicated journal may have them, so look there first"
        );
        steps.push(RepairStep::new(RepairAct::GiveUp { after, through: None }, text));
    }
    if apply {
        settle(&path, options, found, start)?;
    }
    Ok(Repair { problem: Some(problem), steps })
}

/// Reads every record of the sealed chunks. Opening leaves that to the first read.
fn read_sealed(disk: &dyn Disk, dir: &Path, found: &Found) -> Result<(), StoreError> {
    for chunk in found.chunks.iter().rev().skip(1) {
        let path = dir.join(chunk::log_name(chunk.first));
        let failed = |error: std::io::Error| disk_error("read", &path, &error);
        let file = disk.open(&path).map_err(failed)?;
        let mut header = Vec::new();
        file.read_at(0, HEADER_BYTES as usize, &mut header).map_err(failed)?;
        let header = Header::decode(&header, chunk.first).map_err(|found| corrupt_at(&path, 0, &found))?;
        let scan = chunk::scan(&*file, &header, chunk.durable(), |_, _, _| true).map_err(failed)?;
        if let Some(problem) = scan.problem {
            return Err(corrupt_at(&path, scan.end, problem));
        }
    }
    Ok(())
}

fn steps(path: &Path, found: &Found, start: &Start) -> Vec<RepairStep> {
    let name = chunk::log_name(start.chunk.first);
    let file = path.join(&name);
    let mut steps = Vec::new();
    if let Some(size) = start.unsettled.tail {
        let end = start.chunk.durable();
        let stem = name.replace(".log", "");
        let text = format!(
            "copy bytes {end} through {size} of {} to {stem}.cut-TIME beside it, then cut them off; the last whole append \
             before them ends with position {}",
            file.display(),
            found.head
        );
        steps.push(RepairStep::new(RepairAct::CutOff, text));
    }
    if start.unsettled.header.is_some() {
        let text = format!("write the header of {}, which has no events", file.display());
        steps.push(RepairStep::new(RepairAct::WriteHeader, text));
    }
    steps
}

fn settle(path: &Path, options: JournalOptions, found: Found, start: Start) -> Result<(), StoreError> {
    let id: JournalId = found.id;
    let chunk_bytes = options.chunk_bytes.clamp(HEADER_BYTES, limits::CHUNK_BYTES_MAX);
    let log = Arc::new(Log::new(options.disk, path.to_owned(), found, options.index_cache_bytes));
    let (sealed, _none) = sync_channel(1);
    let mut writer = Writer::new(log, options.clock, chunk_bytes, start, sealed);
    writer.settle()?;
    writer.close();
    tracing::warn!(%id, journal = %path.display(), "the journal was repaired");
    Ok(())
}

//! Importing events from JSON lines, so that beginning again anywhere is safe.
//!
//! ```text
//!   reader ──▶ lines ──▶ parse, check, derive id ──▶ batches ──▶ append, skipping known ids
//!   └───────────── a thread of its own ───────────┘ bounded └──── one at a time, in order ────┘
//! ```
//!
//! The id of a line that names none is derived from the line's number and content, so the same file
//! imported twice writes nothing the second time, wherever the first time ended, and a file that has
//! grown continues where it ended. One batch is under way at a time: the journal has the events in the
//! order of the lines. The format is described in `docs/import.md`.
//!
//! This module never looks into the journal; what is known there is the journal's to tell.

mod batch;
mod line;
mod source;

use std::io::{self, Read, Write};
use std::time::Duration;

use dacapo_api::{Api, ApiError};
use serde::Serialize;
use tokio::sync::mpsc;

pub use crate::limits::LINE_BYTES_MAX;
pub use line::{Line, derived_id, line_of, parse};
pub use source::BadLine;

use batch::{Appender, Fate};
use source::Found;

use crate::limits;

/// The options of an import.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Most lines in one append.
    pub batch_lines_max: usize,
    /// Most bytes of lines in one append; a longer line goes alone.
    pub batch_bytes_max: usize,
    /// The time for which one append is tried again while the node is unavailable.
    pub retry_time_max: Duration,
    /// The pause before the second try; it doubles from try to try, to 5 s.
    pub retry_pause_min: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            batch_lines_max: limits::IMPORT_LINES_MAX,
            batch_bytes_max: limits::IMPORT_BYTES_MAX,
            retry_time_max: limits::IMPORT_TIME_MAX,
            retry_pause_min: limits::IMPORT_PAUSE_FIRST,
        }
    }
}

/// The progress of an import.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Lines that were looked at, blank ones left out.
    pub lines: u64,
    /// Events that were written. An event whose acknowledgement was lost counts as known.
    pub written: u64,
    /// Events that were in the journal already.
    pub known: u64,
    /// Bad lines that were skipped.
    pub bad: u64,
}

/// The reason why an import ended early. What came before is in the journal.
#[derive(Debug)]
pub enum ImportError {
    /// A line that is no event, and bad lines are not skipped. Nothing of it or after it was written.
    BadLine(BadLine),
    /// The node declined for a reason that lies in no line.
    Api {
        /// Its text.
        error: ApiError,
        /// The first line that is not in the journal, as far as is known.
        first_line: u64,
    },
    /// The source cannot be read.
    Read {
        /// The error.
        error: io::Error,
        /// The line that would have been read.
        line: u64,
    },
    /// Bad lines cannot be written down.
    Skip(io::Error),
}

/// An import that ended early, and what it had done until then.
#[derive(Debug)]
pub struct ImportFailure {
    /// Why.
    pub error: ImportError,
    /// The progress until then.
    pub summary: Summary,
}

/// Imports the lines of `source`, plain or gzip. Bad lines go to `skipped` if there is one, as JSON
/// lines, and end the import if there is none. `progress` is told after each batch.
///
/// # Errors
/// [`ImportFailure`], with the reason and what was done until then. Importing the same source again continues.
pub async fn import<'a>(
    api: &'a dyn Api,
    source: impl Read + Send + 'static,
    skipped: Option<&'a mut (dyn Write + Send)>,
    options: Options,
    mut progress: impl FnMut(Summary) + Send,
) -> Result<Summary, ImportFailure> {
    // Two batches wait at most: enough to keep both sides busy, and a bound on memory.
    let (batches, mut coming) = mpsc::channel(2);
    let reading = tokio::task::spawn_blocking(move || source::read_all(source, options, &batches));
    let mut run = Run { appender: Appender { api, options }, skipped, summary: Summary::default() };
    while let Some(found) = coming.recv().await {
        let done = run.take(found).await;
        progress(run.summary);
        if let Err(error) = done {
            // The reader ends by itself once nobody takes its batches. Standard input may never give it
            // another line, so it is not waited for.
            return Err(ImportFailure { error, summary: run.summary });
        }
    }
    if let Err(failure) = reading.await {
        std::panic::resume_unwind(failure.into_panic());
    }
    Ok(run.summary)
}

struct Run<'a> {
    appender: Appender<'a>,
    skipped: Option<&'a mut (dyn Write + Send)>,
    summary: Summary,
}

impl Run<'_> {
    async fn take(&mut self, found: Found) -> Result<(), ImportError> {
        match found {
            Found::Lines(lines) => self.append(lines).await,
            Found::Bad(bad) => {
                self.summary.lines += 1;
                self.skip(bad)
            }
            Found::Broken { error, line } => Err(ImportError::Read { error, line }),
        }
    }

    /// Appends a batch. One that is refused is halved until the line is found that is to blame; an append
    /// is all or nothing, so the order stays.
    async fn append(&mut self, lines: Vec<Line>) -> Result<(), ImportError> {
        let mut parts = vec![lines];
        while let Some(mut lines) = parts.pop() {
            match self.appender.append(&lines).await {
                Fate::Appended { written } => {
                    self.summary.lines += lines.len() as u64;
                    self.summary.written += written;
                    self.summary.known += (lines.len() as u64).saturating_sub(written);
                }
                Fate::Refused(_) if lines.len() > 1 => {
                    let second = lines.split_off(lines.len() / 2);
                    parts.extend([second, lines]);
                }
                Fate::Refused(error) => {
                    self.summary.lines += 1;
                    self.skip(BadLine::refused(&lines[0], &error))?;
                }
                Fate::Failed(error) => return Err(ImportError::Api { error, first_line: lines[0].number }),
            }
        }
        Ok(())
    }

    fn skip(&mut self, bad: BadLine) -> Result<(), ImportError> {
        let Some(skipped) = &mut self.skipped else { return Err(ImportError::BadLine(bad)) };
        #[derive(Serialize)]
        struct Form<'a> {
            line: u64,
            reason: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            text: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            bytes_hex: Option<String>,
            #[serde(skip_serializing_if = "std::ops::Not::not")]
            cut: bool,
        }
        // A line that is no UTF-8 cannot stand in JSON as it is.
        let text = std::str::from_utf8(&bad.text).ok();
        let bytes_hex = text.is_none().then(|| bad.text.iter().map(|byte| format!("{byte:02x}")).collect());
        let form = Form { line: bad.number, reason: &bad.reason, text, bytes_hex, cut: bad.cut };
        let mut json = serde_json::to_vec(&form).map_err(|error| ImportError::Skip(error.into()))?;
        json.push(b'\n');
        // Written through before anything after it is: a report must not have less than the journal.
        skipped.write_all(&json).and_then(|()| skipped.flush()).map_err(ImportError::Skip)?;
        self.summary.bad += 1;
        Ok(())
    }
}

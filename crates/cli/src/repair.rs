//! `dacapo repair`: the damage of the journal in a directory, the possible repair, and the repair itself.

use std::path::PathBuf;
use std::sync::Arc;

use dacapo_api::Problem;
use dacapo_store::embedded::{
    DataDir, Disk, FileDisk, JournalOptions, LookDisk, Repair, RepairAct, RepairStep, repair as repaired,
};
use dacapo_store::{StoreError, SystemClock};
use serde::Serialize;

use crate::error::CliError;
use crate::local;
use crate::output::Out;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The directory; no process may have it open
    #[arg(long = "data", visible_alias = "data-dir", value_name = "DIR")]
    pub data: PathBuf,
    /// Carry out the repair. Anything that is cut off is kept in a file beside it
    #[arg(long)]
    pub apply: bool,
    /// Print the answer as JSON
    #[arg(long)]
    pub json: bool,
}

/// `dacapo repair`.
pub(crate) fn repair(out: &mut Out, args: &Args) -> Result<(), CliError> {
    local::is_there(&args.data)?;
    // A command that only looks may have no right to write.
    let disk: Arc<dyn Disk> = if args.apply { Arc::new(FileDisk) } else { Arc::new(LookDisk) };
    let options = JournalOptions { clock: Arc::new(SystemClock), disk, ..JournalOptions::default() };
    let dir = if args.apply { DataDir::open(&args.data) } else { DataDir::look(&args.data) };
    let found = dir.and_then(|dir| repaired(&dir, options, args.apply)).map_err(refused)?;
    if args.json {
        out.json(&Form::new(&found, args.apply))?;
        return out.flush();
    }
    let problem = found.problem.map_or_else(|| "nothing is damaged".to_owned(), |problem| format!("found: {problem}"));
    let mut text = format!("{problem}\n");
    let would = if args.apply { "done:" } else { "would:" };
    for step in &found.steps {
        text.push_str(&format!("{would} {}\n", step.text));
    }
    if !args.apply && !found.steps.is_empty() {
        text.push_str("nothing was changed; copy the directory first, then add --apply to repair it\n");
    }
    out.text(&text)?;
    out.flush()
}

/// The findings and steps of a repair, as JSON.
#[derive(Serialize)]
struct Form<'a> {
    /// The reason why the journal is not opened as it is; `null` when it is.
    problem: Option<&'a str>,
    /// True if the steps were done.
    applied: bool,
    steps: Vec<StepForm<'a>>,
}

#[derive(Serialize)]
struct StepForm<'a> {
    kind: &'static str,
    /// For events that are given up: those after this position.
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<u64>,
    /// Through this position; absent if it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    through: Option<u64>,
    text: &'a str,
}

impl<'a> Form<'a> {
    fn new(found: &'a Repair, applied: bool) -> Self {
        let step = |step: &'a RepairStep| {
            let (kind, after, through) = match step.act {
                RepairAct::CutOff => ("cut_off", None, None),
                RepairAct::WriteHeader => ("write_header", None, None),
                RepairAct::WriteCommit => ("write_commit", None, None),
                RepairAct::GiveUp { after, through } => ("give_up", Some(after.get()), through.map(|end| end.get())),
            };
            StepForm { kind, after, through, text: &step.text }
        };
        Self { problem: found.problem.as_deref(), applied, steps: found.steps.iter().map(step).collect() }
    }
}

fn refused(error: StoreError) -> CliError {
    let error = match error {
        StoreError::Corrupt { place, found } => Problem::new("damaged", format!("{place} is damaged"))
            .found(found)
            .help("this cannot be repaired from the existing data: restore the named file from a backup")
            .corrupt(),
        error @ (StoreError::Unavailable { .. } | StoreError::Owned { .. }) => {
            Problem::new("cannot_repair", error).unavailable()
        }
        error => Problem::new("cannot_repair", error).invalid(),
    };
    error.into()
}

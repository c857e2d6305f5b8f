//! `dacapo repair`: what is wrong with the journal in a directory, what would be done about it, and doing it.

use std::sync::Arc;

use dacapo_api::Problem;
use dacapo_store::embedded::{DataDir, JournalOptions, repair as repaired};
use dacapo_store::{StoreError, SystemClock};

use crate::args::Repair as Args;
use crate::error::CliError;
use crate::output::Out;

/// `dacapo repair`.
pub(crate) fn repair(out: &mut Out, args: &Args) -> Result<(), CliError> {
    if !args.data.join("format").exists() {
        let problem = Problem::new("no_data", format!("{} holds no data of dacapo", args.data.display()));
        return Err(problem.help("see whether the path is right").not_found().into());
    }
    let options = JournalOptions { clock: Arc::new(SystemClock), ..JournalOptions::default() };
    let found = DataDir::open(&args.data).and_then(|dir| repaired(&dir, options, args.apply)).map_err(refused)?;
    let problem = found.problem.map_or_else(|| "nothing is damaged".to_owned(), |problem| format!("found: {problem}"));
    let mut text = format!("{problem}\n");
    let would = if args.apply { "done:" } else { "would:" };
    for step in &found.steps {
        text.push_str(&format!("{would} {step}\n"));
    }
    if !args.apply && !found.steps.is_empty() {
        text.push_str("nothing was changed; copy the directory first, then add --apply to do it\n");
    }
    out.text(&text)?;
    out.flush()
}

fn refused(error: StoreError) -> CliError {
    let error = match error {
        StoreError::Corrupt { place, found } => Problem::new("damaged", format!("{place} is damaged"))
            .found(found)
            .help("this cannot be repaired from what is there: restore the named file from a backup")
            .corrupt(),
        error @ StoreError::Unavailable { .. } => Problem::new("cannot_repair", error).unavailable(),
        error => Problem::new("cannot_repair", error).invalid(),
    };
    error.into()
}

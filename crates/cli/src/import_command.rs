//! `dacapo import`: the importer with a file, a progress bar and words around it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dacapo_api::{Api, Problem};
use dacapo_store::no_more_files;
use indicatif::ProgressBar;
use tokio::time::Instant;

use crate::args::Target;
use crate::connect;
use crate::error::CliError;
use crate::exit::Exit;
use crate::import::{ImportError, ImportFailure, Options, Summary, import as run};
use crate::local::Missing;
use crate::numbers::{count, counted, duration, per_second, rate};
use crate::output::Out;
use crate::progress;

#[derive(Debug, clap::Args)]
pub(crate) struct Import {
    /// The file, plain or gzip; - is standard input
    #[arg(default_value = "-")]
    pub file: PathBuf,
    /// Skip bad lines, and write them to this file with their numbers and the errors
    #[arg(long, value_name = "FILE")]
    pub skip_bad: Option<PathBuf>,
    /// Print the result, or the error, as one JSON object
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub target: Target,
}

/// `dacapo import`.
pub(crate) async fn import(out: &mut Out, args: Import) -> Result<(), CliError> {
    connect::with_node(&args.target.at, args.target.data.as_deref(), Missing::Make, |api| feed(out, api, &args)).await
}

async fn feed(out: &mut Out, api: Arc<dyn Api>, args: &Import) -> Result<(), CliError> {
    // A missing node is reported at once, and not after an append was retried for a minute.
    api.status().await?;
    let (source, bar) = source(&args.file)?;
    let mut skipped = args.skip_bad.as_deref().map(create).transpose()?;
    let skipped_to = skipped.as_mut().map(|file| file as &mut (dyn Write + Send));
    let started = Instant::now();
    let progress = {
        let bar = bar.clone();
        move |done: Summary| bar.set_message(under_way(done, &bar, started.elapsed()))
    };
    let imported = run(&*api, source, skipped_to, Options::default(), progress).await;
    bar.finish_and_clear();
    let (summary, failure) = match imported {
        Ok(summary) => (summary, None),
        Err(ImportFailure { error, summary }) => (summary, Some(failed(&error, args))),
    };
    if let Some(path) = &args.skip_bad {
        drop(skipped);
        tidy(path, summary.bad);
    }
    match args.json {
        true => out.json(&summary)?,
        false => out.line(words(summary, started.elapsed()))?,
    }
    out.flush()?;
    failure.map_or(Ok(()), Err)
}

/// Returns the bytes to import, and a bar that follows their reading.
fn source(path: &Path) -> Result<(Box<dyn Read + Send>, ProgressBar), CliError> {
    if path == Path::new("-") {
        let bar = progress::endless();
        return Ok((Box::new(bar.wrap_read(io::stdin())), bar));
    }
    let problem = |error: io::Error| {
        let problem = Problem::new("cannot_read", format!("cannot read {}: {error}", path.display()));
        let help = no_more_files(&error).unwrap_or_else(|| "name a file, or - for standard input".to_owned());
        problem.tried(format!("open {}", path.display())).found(error).help(help)
    };
    let file = File::open(path).map_err(problem)?;
    let metadata = file.metadata().map_err(problem)?;
    if metadata.is_dir() {
        return Err(problem(io::ErrorKind::IsADirectory.into()).into());
    }
    let bar = progress::told(metadata.len());
    bar.set_prefix("import");
    Ok((Box::new(bar.wrap_read(file)), bar))
}

/// Returns a place for bad lines, which is never one that holds something already.
fn create(path: &Path) -> Result<File, CliError> {
    let cannot = |error: io::Error, help: &str| {
        let problem = Problem::new("cannot_write", format!("cannot write bad lines to {}: {error}", path.display()));
        CliError::from(problem.help(no_more_files(&error).unwrap_or_else(|| help.to_owned())))
    };
    // For the user that runs the command, and for nobody else: bad lines contain events.
    match File::options().write(true).create_new(true).mode(0o600).open(path) {
        // A terminal, a pipe or /dev/null contains nothing that could be lost.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match path.metadata() {
            Ok(found) if !found.is_file() && !found.is_dir() => File::options()
                .write(true)
                .open(path)
                .map_err(|error| cannot(error, "name a file that can be written with --skip-bad")),
            _ => Err(cannot(error, "name a file with --skip-bad that does not exist yet: an existing file is kept")),
        },
        made => made.map_err(|error| cannot(error, "name a file that can be written with --skip-bad")),
    }
}

/// Removes the file for bad lines if there were none, so that the same command can be given again.
fn tidy(path: &Path, bad: u64) {
    let is_empty = path.metadata().is_ok_and(|found| found.is_file() && found.len() == 0);
    if bad == 0
        && is_empty
        && let Err(error) = std::fs::remove_file(path)
    {
        tracing::warn!(%error, path = %path.display(), "the empty file for bad lines cannot be removed");
    }
}

/// Returns the message of the bar: lines, their pace, and the remaining time of a file.
fn under_way(done: Summary, bar: &ProgressBar, elapsed: Duration) -> String {
    let speed = per_second(done.lines, elapsed).map(rate).unwrap_or_default();
    let left = bar.length().map(|_| format!("  {} left", duration(bar.eta().as_secs_f64()))).unwrap_or_default();
    format!("{}  {speed}{left}", counted(done.lines, "line"))
}

fn words(summary: Summary, elapsed: Duration) -> String {
    let Summary { lines, written, known, bad } = summary;
    let speed = per_second(lines, elapsed).filter(|_| lines > 0).map(|speed| format!(", {}", rate(speed)));
    format!(
        "{}: {} written, {} known already, {} bad{}",
        counted(lines, "line"),
        count(written),
        count(known),
        count(bad),
        speed.unwrap_or_default()
    )
}

fn failed(error: &ImportError, args: &Import) -> CliError {
    let exit = match error {
        ImportError::Api { error, .. } => Exit::of(error),
        ImportError::BadLine(_) | ImportError::Read { .. } | ImportError::Skip(_) => Exit::Failed,
    };
    CliError::Failed(Box::new(in_words(error, args)), exit)
}

fn in_words(error: &ImportError, args: &Import) -> Problem {
    let file = match args.file.to_string_lossy() {
        name if name == "-" => "standard input".into(),
        name => name,
    };
    let again = "import the same again to continue: events that are in the journal are not written twice";
    match error {
        ImportError::BadLine(bad) => {
            let problem = Problem::new("bad_line", format!("line {} is not an event: {}", bad.number, bad.reason));
            let help = "correct the line and import the same again, or skip bad lines with --skip-bad FILE";
            problem.tried(format!("import line {} of {file}", bad.number)).found(bad.beginning()).help(help)
        }
        ImportError::Api { error, first_line } => {
            let problem = error.problem().clone();
            let tried = format!("append from line {} of {file} on", count(*first_line));
            let help = problem.help.clone().map_or(again.to_owned(), |help| format!("{help}; then {again}"));
            problem.tried(tried).help(help)
        }
        ImportError::Read { error, line } => {
            let problem = Problem::new("cannot_read", format!("cannot read {file} at line {}: {error}", count(*line)));
            problem.help("check that the file is complete; the lines before it are imported")
        }
        ImportError::Skip(error) => {
            let problem = Problem::new("cannot_write", format!("cannot write a bad line to the file: {error}"));
            problem.help(format!("make sure that the disk has room; then {again}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn bad_lines_are_written_down_for_nobody_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bad.jsonl");
        create(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
}

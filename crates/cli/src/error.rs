//! How a command fails: what was tried, what was found, what to do next.

use std::io::{self, Write};
use std::process::ExitCode;

use dacapo_api::{ApiError, Problem};

/// Why a command ends early.
#[derive(Debug)]
pub(crate) enum CliError {
    /// It cannot do what was asked.
    Failed(Box<Problem>),
    /// Nobody reads what it writes any more, which is no failure.
    NobodyReads,
}

impl CliError {
    /// A failure, in words.
    pub fn new(message: impl ToString) -> Self {
        Problem::new("failed", message).into()
    }
}

impl From<Problem> for CliError {
    fn from(problem: Problem) -> Self {
        Self::Failed(Box::new(problem))
    }
}

impl From<ApiError> for CliError {
    fn from(error: ApiError) -> Self {
        error.problem().clone().into()
    }
}

/// Tells the user, and says how the process ends.
pub(crate) fn report(error: &CliError) -> ExitCode {
    let CliError::Failed(problem) = error else { return ExitCode::SUCCESS };
    // Where standard error cannot be written to, nobody is there to be told.
    let _ = write_problem(&mut io::stderr().lock(), problem);
    ExitCode::FAILURE
}

fn write_problem(to: &mut impl Write, problem: &Problem) -> io::Result<()> {
    writeln!(to, "dacapo: {}", problem.message)?;
    for (name, text) in [("tried", &problem.tried), ("found", &problem.found), ("help", &problem.help)] {
        // What the message says already is not said again.
        if let Some(text) = text.as_ref().filter(|text| !problem.message.contains(*text)) {
            writeln!(to, "{name:>7}: {text}")?;
        }
    }
    Ok(())
}

//! The failure of a command: the attempt, the finding, and the advice what to do next.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use dacapo_api::{ApiError, Problem};

use crate::exit::Exit;
use crate::output::{known_width, lines_of, narrow};
use crate::shown;

/// The reason why a command ends early.
#[derive(Debug)]
pub(crate) enum CliError {
    /// It cannot do what was requested.
    Failed(Box<Problem>, Exit),
    /// It has already printed everything.
    Told(Exit),
    /// Nobody reads its output any more, which is not a failure.
    NobodyReads,
}

impl CliError {
    /// Returns a failure, in words.
    pub fn new(message: impl ToString) -> Self {
        Problem::new("failed", message).into()
    }
}

impl From<Problem> for CliError {
    fn from(problem: Problem) -> Self {
        let exit = Exit::of_problem(&problem);
        Self::Failed(Box::new(problem), exit)
    }
}

impl From<ApiError> for CliError {
    fn from(error: ApiError) -> Self {
        let exit = Exit::of(&error);
        Self::Failed(Box::new(error.problem().clone()), exit)
    }
}

/// Tells the user, as JSON if that was requested, and returns how the process ends.
pub(crate) fn report(error: &CliError, json: bool) -> ExitCode {
    let (problem, exit) = match error {
        CliError::Failed(problem, exit) => (problem, *exit),
        CliError::Told(exit) => return (*exit).into(),
        CliError::NobodyReads => return ExitCode::SUCCESS,
    };
    let text = match serde_json::to_string(problem) {
        Ok(problem) if json => format!("{}\n", shown::json(&problem)),
        _ => page(problem),
    };
    // If standard error cannot be written to, there is nobody to tell.
    let _ = io::stderr().lock().write_all(text.as_bytes());
    exit.into()
}

/// Returns the problem in words: a line for each part, broken between words where a terminal has no more room.
fn page(problem: &Problem) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic).use_stderr();
    if io::stderr().is_terminal() {
        known_width(&mut table);
    }
    table.add_row(["dacapo:", &*shown::shown(&problem.message)]);
    for (name, text) in [("tried:", &problem.tried), ("found:", &problem.found), ("help:", &problem.help)] {
        // Text that is in the message already is not repeated.
        if let Some(text) = text.as_ref().filter(|text| !problem.message.contains(*text)) {
            table.add_row([name, &*shown::shown(text)]);
        }
    }
    narrow(&mut table, 0..=0, CellAlignment::Right);
    for column in table.column_iter_mut() {
        column.set_padding((0, 1));
    }
    shown::page(&lines_of(&table), io::stderr().is_terminal()).into_owned()
}

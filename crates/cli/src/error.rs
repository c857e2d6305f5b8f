//! How a command fails: what was tried, what was found, what to do next.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use dacapo_api::{ApiError, Problem};

use crate::exit::Exit;
use crate::output::{known_width, lines_of, narrow};
use crate::shown;

/// Why a command ends early.
#[derive(Debug)]
pub(crate) enum CliError {
    /// It cannot do what was asked.
    Failed(Box<Problem>, Exit),
    /// It has said all there is to say.
    Told(Exit),
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

/// Tells the user, as JSON where that was asked for, and says how the process ends.
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
    // Where standard error cannot be written to, nobody is there to be told.
    let _ = io::stderr().lock().write_all(text.as_bytes());
    exit.into()
}

/// The problem in words: a line for each part, broken between words where a terminal has no more room.
fn page(problem: &Problem) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic).use_stderr();
    if io::stderr().is_terminal() {
        known_width(&mut table);
    }
    table.add_row(["dacapo:", &*shown::shown(&problem.message)]);
    for (name, text) in [("tried:", &problem.tried), ("found:", &problem.found), ("help:", &problem.help)] {
        // What the message says already is not said again.
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

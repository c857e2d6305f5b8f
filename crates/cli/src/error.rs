//! How a command fails: what was tried, what was found, what to do next.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use dacapo_api::{ApiError, Problem};

use crate::output::{known_width, lines_of, narrow};
use crate::shown;

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
    let _ = io::stderr().lock().write_all(page(problem).as_bytes());
    ExitCode::FAILURE
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

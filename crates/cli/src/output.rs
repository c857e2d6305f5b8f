//! Standard output, and tables on it.

use std::io::{self, IsTerminal, Stdout, Write};
use std::ops::RangeInclusive;

use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Table, presets};
use serde::Serialize;

use crate::error::CliError;
use crate::shown;

/// The width of tables. This is the default if neither a terminal nor `COLUMNS` sets it.
const WIDTH_ELSEWHERE: u16 = 120;

/// Standard output, flushed at the end of each command and of each wait.
pub(crate) struct Out {
    to: io::BufWriter<Stdout>,
    terminal: bool,
}

impl Out {
    /// Standard output of this process.
    pub fn stdout() -> Self {
        let stdout = io::stdout();
        let terminal = stdout.is_terminal();
        Self { to: io::BufWriter::new(stdout), terminal }
    }

    /// Returns true if somebody looks at it.
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Writes a line, with control characters escaped.
    pub fn line(&mut self, text: impl std::fmt::Display) -> Result<(), CliError> {
        writeln!(self.to, "{}", shown::shown(&text.to_string())).map_err(of_output)
    }

    /// Writes a line of JSON. On a terminal, control characters in it are escaped; elsewhere it is written as it is.
    pub fn json_line(&mut self, json: &str) -> Result<(), CliError> {
        let json = if self.terminal { shown::json(json) } else { json.into() };
        writeln!(self.to, "{json}").map_err(of_output)
    }

    /// Writes a value as one line of JSON.
    pub fn json(&mut self, value: &impl Serialize) -> Result<(), CliError> {
        let json = serde_json::to_string(value).map_err(CliError::new)?;
        // Payloads are kept byte for byte. A line break in JSON can only be space between its parts.
        self.json_line(&if json.contains(['\n', '\r']) { json.replace(['\n', '\r'], " ") } else { json })
    }

    /// Writes a page, with control characters escaped, except line breaks and the colours of tables.
    pub fn text(&mut self, text: &str) -> Result<(), CliError> {
        self.to.write_all(shown::page(text, self.terminal).as_bytes()).map_err(of_output)
    }

    /// Writes a page on a terminal over the one before, or on an empty screen.
    pub fn screen(&mut self, page: &str, cleared: bool) -> Result<(), CliError> {
        let page = shown::page(page, self.terminal);
        // The screen is cleared once. After that each line is written over the one before, which does not flicker.
        let clear = if cleared { "\x1b[2J" } else { "" };
        write!(self.to, "{clear}\x1b[H{}\x1b[J", page.replace('\n', "\x1b[K\n")).map_err(of_output)
    }

    /// Flushes the output, so that the reader sees it.
    pub fn flush(&mut self) -> Result<(), CliError> {
        self.to.flush().map_err(of_output)
    }

    /// Returns a table for this output, without rows.
    pub fn table(&self, header: &[&str]) -> Table {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
        if !self.terminal {
            let columns = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
            table.force_no_tty().set_width(columns.filter(|columns| *columns > 0).unwrap_or(WIDTH_ELSEWHERE));
        }
        known_width(&mut table);
        table.set_header(header);
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        table
    }
}

/// A terminal that has no width, or that does not tell it, is taken for one of the usual width.
pub(crate) fn known_width(table: &mut Table) {
    if table.width().is_none_or(|width| width == 0) {
        table.set_width(WIDTH_ELSEWHERE);
    }
}

impl Drop for Out {
    fn drop(&mut self) {
        // Commands flush where it matters. What is left here could not be written before.
        let _ = self.to.flush();
    }
}

fn of_output(error: io::Error) -> CliError {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return CliError::NobodyReads;
    }
    CliError::new(format!("cannot write to standard output: {error}"))
}

/// Keeps these columns whole, since a number or a time in two parts is misread. Numbers are aligned to the right.
pub(crate) fn narrow(table: &mut Table, columns: RangeInclusive<usize>, alignment: CellAlignment) {
    for column in columns {
        let Some(column) = table.column_mut(column) else { continue };
        column.set_constraint(ColumnConstraint::ContentWidth).set_cell_alignment(alignment);
    }
}

/// Returns the lines of a table without the space at their ends.
pub(crate) fn lines_of(table: &Table) -> String {
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

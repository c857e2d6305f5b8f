//! What was measured, as a table, as JSON and as a part of a document.

use std::path::Path;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::bench::Done;
use crate::pair::Pair;

const BEGIN: &str = "<!-- measured: begin -->";
const END: &str = "<!-- measured: end -->";

/// One row. The ratio says how many times as good as the floor it is.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Row {
    /// What `--only` takes.
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    /// Of what was measured and of its floor.
    pub(crate) unit: &'static str,
    pub(crate) measured: f64,
    /// How the floor is made.
    pub(crate) floor: &'static str,
    pub(crate) floor_measured: Option<f64>,
    pub(crate) ratio: Option<f64>,
    /// What the ratio is to be at least.
    pub(crate) target: Option<f64>,
    /// What the row says, for the document.
    pub(crate) says: &'static str,
}

impl Row {
    /// A row of a pair, without its names.
    pub(crate) fn of(pair: Pair, target: f64, says: &'static str) -> Self {
        let (floor_measured, ratio, target) = (Some(pair.floor), Some(pair.ratio), Some(target));
        Self { measured: pair.measured, floor_measured, ratio, target, says, ..Self::default() }
    }

    fn verdict(&self) -> &'static str {
        match (self.ratio, self.target) {
            (Some(ratio), Some(target)) if ratio >= target => "ok",
            (Some(_), Some(_)) => "short",
            _ => "",
        }
    }

    fn cells(&self) -> [String; 7] {
        let with_unit = |value: f64| format!("{} {}", figure(value), self.unit);
        [
            self.what.into(),
            with_unit(self.measured),
            self.floor.into(),
            self.floor_measured.map(with_unit).unwrap_or_default(),
            self.ratio.map(figure).unwrap_or_default(),
            self.target.map(|target| format!("≥ {}", figure(target))).unwrap_or_default(),
            self.verdict().into(),
        ]
    }
}

const HEADINGS: [&str; 7] = ["what", "measured", "floor", "floor measured", "ratio", "target", ""];

/// Three digits that count, thousands apart.
fn figure(value: f64) -> String {
    if value.abs() < 100.0 {
        let digits = if value.abs() < 10.0 { 2 } else { 1 };
        return format!("{value:.digits$}");
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The rows for a terminal.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(HEADINGS);
    for row in rows {
        table.add_row(row.cells());
    }
    for column in [1, 3, 4, 5] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.to_string()
}

/// Puts the rows into a document, in place of what is between its marks.
pub(crate) fn write(document: &Path, machine: &[(&str, String)], rows: &[Row]) -> Done {
    let text = std::fs::read_to_string(document)?;
    let text = replaced(&text, &markdown(machine, rows))
        .ok_or_else(|| format!("{} lacks the lines {BEGIN} and {END}", document.display()))?;
    Ok(std::fs::write(document, text)?)
}

fn replaced(text: &str, part: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n\n{part}\n{END}{after}"))
}

fn markdown(machine: &[(&str, String)], rows: &[Row]) -> String {
    let mut lines: Vec<String> = machine.iter().map(|(name, value)| format!("- {name}: {value}")).collect();
    lines.push(String::new());
    lines.push(format!("| {} |", HEADINGS.join(" | ")));
    lines.push("|---|--:|---|--:|--:|--:|---|".into());
    lines.extend(rows.iter().map(|row| format!("| {} |", row.cells().join(" | "))));
    lines.push(String::new());
    lines.push("The rows, with the names that `--only` takes:\n".into());
    lines.extend(rows.chunk_by(|one, next| one.says == next.says).map(meaning));
    lines.push(String::new());
    lines.join("\n")
}

/// What rows say that say the same.
fn meaning(rows: &[Row]) -> String {
    let names: Vec<_> = rows.iter().map(|row| format!("*{}* (`{}`)", row.what, row.name)).collect();
    let says = rows.first().map_or("", |row| row.says);
    format!("- {}: {says}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_marks_is_replaced() {
        let text = format!("before\n{BEGIN}\nold\n{END}\nafter\n");
        assert_eq!(replaced(&text, "new\n").unwrap(), format!("before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"));
        assert_eq!(replaced("without marks", "new"), None);
    }

    #[test]
    fn figures_have_the_digits_that_count() {
        assert_eq!([0.333, 12.34, 123.4, 1_234_567.8].map(figure), ["0.33", "12.3", "123", "1,234,568"]);
    }

    #[test]
    fn rows_that_say_the_same_are_explained_once() {
        let row = |name, says| Row { name, what: name, says, ..Row::default() };
        let text = markdown(&[], &[row("a", "one"), row("b", "one"), row("c", "two")]);
        assert!(text.ends_with("- *a* (`a`), *b* (`b`): one\n- *c* (`c`): two\n"), "{text}");
    }

    #[test]
    fn a_row_without_a_target_has_no_verdict() {
        let row = |ratio, target| Row { ratio: Some(ratio), target, ..Row::default() }.verdict();
        assert_eq!([row(1.0, Some(0.5)), row(0.4, Some(0.5)), row(1.0, None)], ["ok", "short", ""]);
    }
}

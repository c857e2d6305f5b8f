//! Text for people. Nothing from outside reaches a terminal as a command to it.
//!
//! Payloads, errors, names, reasons and actors are somebody else's texts. A control character in one of them could move
//! the writing position, change what was written before or what the keyboard sends, and one that turns the direction of writing
//! makes a line say what it does not. All output goes through [`Out`](crate::output::Out), which has it escaped here.

use std::borrow::Cow;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use unicode_properties::{GeneralCategory, UnicodeGeneralCategory as _};

use crate::numbers::count;

/// Returns true if a character does something beyond being seen, or is not seen at all, or is something else on each
/// terminal.
fn acts(c: char) -> bool {
    use GeneralCategory::{Control, Format, LineSeparator, ParagraphSeparator, PrivateUse, Unassigned};
    if c.is_ascii() {
        return c.is_ascii_control();
    }
    matches!(c.general_category(), Control | Format | LineSeparator | ParagraphSeparator | PrivateUse | Unassigned)
}

/// Returns a text in one line, with what acts escaped as in `\u{1b}`.
pub(crate) fn shown(text: &str) -> Cow<'_, str> {
    escaped(text, |c| c.escape_default().to_string())
}

/// The same answer with all of its texts in one line and escaped, for a page that is made of them: a line break in one of
/// them would begin a line that looks like ours.
pub(crate) fn texts<T: Serialize + DeserializeOwned + Clone>(answer: &T) -> T {
    fn escape(value: &mut Value) {
        match value {
            Value::String(text) => *text = shown(text).into_owned(),
            Value::Array(items) => items.iter_mut().for_each(escape),
            Value::Object(fields) => fields.values_mut().for_each(escape),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
    let escaped = serde_json::to_value(answer).and_then(|mut value| {
        escape(&mut value);
        serde_json::from_value(value)
    });
    // Every answer can be written and read; and a page is escaped once more on its way out.
    escaped.unwrap_or_else(|_| answer.clone())
}

/// Returns a page, whose lines are kept. On a terminal the colours that tables have are kept too.
pub(crate) fn page(text: &str, colours: bool) -> Cow<'_, str> {
    if !text.chars().any(|c| acts(c) && c != '\n') {
        return Cow::Borrowed(text);
    }
    let mut page = String::with_capacity(text.len() + 16);
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let colour = if colours { colour(rest) } else { 0 };
        let (kept, next) = rest.split_at(if colour > 0 { colour } else { c.len_utf8() });
        rest = next;
        if colour > 0 || c == '\n' || !acts(c) { page.push_str(kept) } else { page.extend(c.escape_default()) }
    }
    Cow::Owned(page)
}

/// Returns the length of the command that the text begins with, if it only sets a colour or bold type, or ends them.
fn colour(text: &str) -> usize {
    let Some(command) = text.strip_prefix("\x1b[").and_then(|rest| Some(rest.split_once('m')?.0)) else { return 0 };
    let is_colour = match command.strip_prefix("38;5;") {
        Some(number) => number.parse::<u8>().is_ok(),
        None => matches!(command, "0" | "1" | "22" | "39"),
    };
    if is_colour { "\x1b[m".len() + command.len() } else { 0 }
}

/// JSON that says the same, with what acts escaped as JSON does. Except for a tab, it can only stand within strings.
pub(crate) fn json(json: &str) -> Cow<'_, str> {
    let escape = |c: char| {
        if c == '\t' {
            return " ".to_owned();
        }
        let mut units = [0; 2];
        c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")).collect()
    };
    escaped(json, escape)
}

fn escaped(text: &str, escape: impl Fn(char) -> String) -> Cow<'_, str> {
    if !text.contains(acts) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if acts(c) { shown.push_str(&escape(c)) } else { shown.push(c) }
    }
    Cow::Owned(shown)
}

/// Returns a text in one line of at most so many characters; what is cut says how much there is, and that `--json`
/// has it.
pub(crate) fn cut(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        None => shown(text).into_owned(),
        Some((end, _)) => format!("{}… ({} bytes, whole with --json)", shown(&text[..end]), count(text.len() as u64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_acts_on_a_terminal_is_seen_and_not_done() {
        assert_eq!(shown("\x1b]0;owned\x07 ana\n\u{9b}2J"), r"\u{1b}]0;owned\u{7} ana\n\u{9b}2J");
        assert_eq!(shown("\u{202e}gnp.exe"), r"\u{202e}gnp.exe");
        assert_eq!(shown("Ana Müller 😀 日本 e\u{301}"), "Ana Müller 😀 日本 e\u{301}");
        // What is not seen, what has no look of its own, and what nothing is known of.
        for unseen in ["\u{200b}", "\u{ad}", "\u{2060}", "\u{180e}", "\u{e0041}", "\u{2029}", "\u{e000}", "\u{378}"] {
            let code = format!("\\u{{{:x}}}", u32::from(unseen.chars().next().unwrap()));
            assert_eq!(shown(&format!("a{unseen}b")), format!("a{code}b"));
        }
        assert_eq!(json("\"\u{e0041}\""), r#""\udb40\udc41""#);
        let coloured = "a\x1b[38;5;9mb\x1b[0m\x1b[2Jc\x1b[8m\n";
        assert_eq!(page(coloured, true), "a\x1b[38;5;9mb\x1b[0m\\u{1b}[2Jc\\u{1b}[8m\n");
        assert_eq!(page(coloured, false), "a\\u{1b}[38;5;9mb\\u{1b}[0m\\u{1b}[2Jc\\u{1b}[8m\n");
        assert_eq!(json("\"\u{7f}\u{9b}\u{202e}é\""), r#""\u007f\u009b\u202eé""#);
        assert_eq!(cut("abcdef", 6), "abcdef");
        assert_eq!(cut("abc\x1bdef", 4), r"abc\u{1b}… (7 bytes, whole with --json)");
    }

    #[test]
    fn a_table_on_a_terminal_is_printed_with_all_its_styles() {
        let cell = |text| comfy_table::Cell::new(text).add_attribute(comfy_table::Attribute::Bold);
        let mut table = comfy_table::Table::new();
        table.enforce_styling().add_row([cell("balances"), cell("v1.1").fg(comfy_table::Color::Red)]);
        let table = table.to_string();
        assert!(table.contains("\x1b[1m"), "it has styles: {table:?}");
        assert_eq!(page(&table, true), table);
    }

    proptest! {
        #[test]
        fn nothing_that_acts_is_left(text in ".*", colours: bool) {
            let bad = |c: char| acts(c) && c != '\n';
            prop_assert!(!shown(&text).contains(acts));
            prop_assert!(!json(&text).contains(acts));
            let page = page(&text, colours).replace("\x1b[0m", "").replace("\x1b[39m", "");
            prop_assert!(colours || !page.contains(bad));
        }
    }
}

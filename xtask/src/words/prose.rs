//! The words of a document: what its readers read, without code, links and quotations in tables.

/// The columns of tables that quote what is not to be written.
const QUOTING: &[&str] = &["not", "before", "elsewhere"];

/// A word in lower case, or nothing where a phrase ends: at punctuation, at code, and at a blank line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word {
    /// From 1.
    pub(super) line: usize,
    pub(super) text: String,
}

/// Returns the cells of a row of a table; `None` for any other line.
pub(super) fn cells(line: &str) -> Option<Vec<&str>> {
    let row = line.trim().strip_prefix('|')?.strip_suffix('|')?;
    Some(row.split('|').map(str::trim).collect())
}

/// Returns the lines of a document with their numbers, without blocks of code and without columns that quote.
pub(super) fn lines(document: &str) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    let (mut is_code, mut quoting) = (false, None);
    for (number, line) in document.lines().enumerate().map(|(at, line)| (at + 1, line)) {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        if is_fence || is_code {
            lines.push((number, String::new()));
            continue;
        }
        let Some(cells) = cells(line) else {
            quoting = None;
            lines.push((number, line.to_owned()));
            continue;
        };
        let columns =
            quoting.get_or_insert_with(|| cells.iter().map(|cell| QUOTING.contains(cell)).collect::<Vec<_>>());
        let read = cells.iter().zip(columns.iter()).filter(|(_, quotes)| !**quotes);
        lines.push((number, read.map(|(cell, _)| *cell).collect::<Vec<_>>().join(" . ")));
    }
    lines
}

/// Returns the words of lines, each with the number of its line. Text between backticks is code.
pub(super) fn words(lines: &[(usize, String)]) -> Vec<Word> {
    let mut words: Vec<Word> = Vec::new();
    let mut is_code = false;
    for (line, text) in lines {
        if text.trim().is_empty() {
            // A backtick that nothing closes ends with its paragraph.
            is_code = false;
            words.push(Word { line: *line, text: String::new() });
        }
        for (at, piece) in without_links(text).split('`').enumerate() {
            if at > 0 {
                is_code = !is_code;
                words.push(Word { line: *line, text: String::new() });
            }
            if !is_code {
                words.extend(plain(piece).map(|text| Word { line: *line, text }));
            }
        }
    }
    words
}

/// Returns the words of a text without code, and nothing for each sign between them.
fn plain(text: &str) -> impl Iterator<Item = String> + '_ {
    let is_part = |c: char| c.is_alphanumeric() || "-/'’".contains(c);
    let pieces = text.split_whitespace().flat_map(move |piece| piece.split_inclusive(move |c: char| !is_part(c)));
    pieces.flat_map(move |piece| {
        let word = piece.trim_matches(|c: char| !c.is_alphanumeric());
        let sign = (piece.ends_with(|c: char| !is_part(c) && !"*_".contains(c))).then(String::new);
        (!word.is_empty()).then(|| word.to_lowercase()).into_iter().chain(sign)
    })
}

/// Returns the text without the targets of its links.
fn without_links(text: &str) -> String {
    let mut parts = text.split("](");
    let mut left = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        left.push(']');
        left.push_str(part.split_once(')').map_or(part, |(_, rest)| rest));
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(document: &str) -> String {
        let words: Vec<String> = words(&lines(document)).into_iter().map(|word| word.text).collect();
        words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn code_and_links_are_not_read() {
        assert_eq!(
            read("Use `no` and\n```sh\nno\n```\n[it](no.md#no), **all** `no\nno` of it."),
            "use and it all of it"
        );
        assert_eq!(read("one ` open\n\ntwo"), "one two", "up to the end of its paragraph");
    }

    #[test]
    fn columns_that_quote_are_not_read() {
        let table = "| word | elsewhere | not |\n|---|---|---|\n| yes | no | no |\n\n| a | b |\n|---|---|\n| c | d |\n";
        assert_eq!(read(table), "word yes a b c d");
    }

    #[test]
    fn a_phrase_ends_at_punctuation_and_goes_on_in_the_next_line() {
        let words = words(&lines("unless. Set\nit*s* so-so"));
        let texts: Vec<&str> = words.iter().map(|word| word.text.as_str()).collect();
        assert_eq!(texts, ["unless", "", "set", "it", "s", "so-so"]);
        assert_eq!(words[3].line, 2);
    }
}

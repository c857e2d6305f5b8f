//! Checks the words of documents and code against the glossary.
//!
//! The last column of a table in `docs/glossary.md` whose heading is `not` has the words that fail, and its first column
//! has what to write. Documents are read as prose: without code, and without the columns of tables that quote other
//! frameworks or bad examples. Of code the doc comments and the texts are read.
//!
//! ```text
//!   glossary ──▶ rules ──┐
//!   document ──▶ prose ──┼──▶ faults: path:line: write … for …
//!   source ────▶ texts ──┘
//! ```

mod prose;
mod texts;

use std::path::{Path, PathBuf};

use crate::docs::{files, read};
use prose::Word;

const GLOSSARY: &str = "docs/glossary.md";

/// What is read: documents, and folders of code.
const READ: &[&str] = &["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs", "crates", "examples", "bench"];

/// Phrases in which a word that fails means something else.
const ALLOWED: &[&str] = &[];

/// A word or a phrase that fails, and what to write.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    not: Vec<String>,
    write: String,
}

/// Returns the faults of all documents and sources.
pub(crate) fn check(root: &Path) -> Result<Vec<String>, String> {
    let rules = rules(&read(&root.join(GLOSSARY))?);
    if rules.is_empty() {
        return Err(format!("{GLOSSARY} has no table with a last column `not`"));
    }
    let mut faults = Vec::new();
    let mut paths: Vec<PathBuf> = READ
        .iter()
        .flat_map(|read| ["md", "rs"].map(|extension| files(&root.join(read), extension)).concat())
        .collect();
    paths.dedup();
    for path in paths {
        let name = path.strip_prefix(root).unwrap_or(&path).display().to_string();
        let text = read(&path)?;
        let words = match name.ends_with(".rs") {
            true if texts::is_test(&name) => continue,
            true => prose::words(&texts::of(&text).map_err(|error| format!("{name}: {error}"))?),
            false => prose::words(&prose::lines(&text)),
        };
        let found = against(&rules, &words).into_iter().chain(ungrouped(&words));
        faults.extend(found.into_iter().map(|(line, fault)| format!("{name}:{line}: {fault}")));
    }
    Ok(faults)
}

/// Returns the rules of a glossary.
fn rules(glossary: &str) -> Vec<Rule> {
    let mut rules = Vec::new();
    let mut inside = false;
    for line in glossary.lines() {
        let Some(cells) = prose::cells(line) else {
            inside = false;
            continue;
        };
        if cells.last() == Some(&"not") {
            inside = true;
        } else if let (true, [write, .., not]) = (inside, &cells[..]) {
            let each = not.split(',').map(str::trim).filter(|not| !not.is_empty() && !not.starts_with("---"));
            rules.extend(each.map(|not| Rule { not: split(not), write: (*write).to_owned() }));
        }
    }
    rules
}

fn split(phrase: &str) -> Vec<String> {
    phrase.split_whitespace().map(str::to_lowercase).collect()
}

/// Returns what is wrong with the words of one file, with its lines.
fn against(rules: &[Rule], words: &[Word]) -> Vec<(usize, String)> {
    let allowed: Vec<Vec<String>> = ALLOWED.iter().map(|phrase| split(phrase)).collect();
    let mut faults = Vec::new();
    for at in 0..words.len() {
        for rule in rules.iter().filter(|rule| begins(&words[at..], &rule.not)) {
            let end = at + rule.not.len();
            let is_allowed = |phrase: &Vec<String>| {
                (end.saturating_sub(phrase.len())..=at).any(|from| begins(&words[from..], phrase))
            };
            if !allowed.iter().any(is_allowed) {
                faults.push((words[at].line, format!("write {:?} for {:?}", rule.write, rule.not.join(" "))));
            }
        }
    }
    faults
}

/// Returns the numbers of five digits or more that nothing groups. Those of four may be years or ports.
fn ungrouped(words: &[Word]) -> Vec<(usize, String)> {
    let is_long = |word: &&Word| word.text.len() >= 5 && word.text.chars().all(|c| c.is_ascii_digit());
    words
        .iter()
        .filter(is_long)
        .map(|word| (word.line, format!("group the digits of {}, as in 48,210", word.text)))
        .collect()
}

/// Returns true if the words begin with the phrase; its last word may have a plural `s`.
fn begins(words: &[Word], phrase: &[String]) -> bool {
    let Some((last, first)) = phrase.split_last() else { return false };
    let is_last = |word: &Word| word.text == *last || word.text.strip_suffix('s') == Some(last);
    words.len() >= phrase.len()
        && first.iter().zip(words).all(|(wanted, word)| word.text == *wanted)
        && is_last(&words[first.len()])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn glossary() -> Vec<Rule> {
        rules(&read(&Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join(GLOSSARY)).unwrap())
    }

    fn found(document: &str) -> Vec<(usize, String)> {
        against(&glossary(), &prose::words(&prose::lines(document)))
    }

    #[test]
    fn each_rule_of_the_glossary_finds_its_word() {
        let rules = glossary();
        assert!(rules.len() > 30, "{rules:?}");
        for rule in &rules {
            let phrase = rule.not.join(" ");
            let planted = format!("A sentence\nwith {} in it.", phrase.to_uppercase().replace(' ', "\n"));
            let fault = (2, format!("write {:?} for {phrase:?}", rule.write));
            assert!(found(&planted).contains(&fault), "{phrase} is not found");
        }
    }

    #[test]
    fn the_words_that_readers_stumble_on_are_rules() {
        for phrase in ["behind", "whoever", "unless set", "for good", "comes to", "shard", "bookmark", "cut-over"] {
            assert!(glossary().iter().any(|rule| rule.not.join(" ") == phrase), "{phrase}");
        }
    }

    #[test]
    fn a_word_is_found_as_a_whole_and_in_the_plural() {
        assert_eq!(found("two shards").len(), 1);
        assert!(found("a shardless one, unless. Set it").is_empty());
    }

    #[test]
    fn a_word_of_doc_comments_and_of_texts_is_found_in_its_line() {
        let source =
            "/// Fine.\n/// It is behind.\nfn f() -> &'static str {\n    \"three behind\"\n}\nfn behind() {}\n";
        let lines: Vec<usize> =
            against(&glossary(), &prose::words(&texts::of(source).unwrap())).iter().map(|fault| fault.0).collect();
        assert_eq!(lines, [2, 4]);
    }

    #[test]
    fn digits_are_grouped() {
        let found = |document: &str| ungrouped(&prose::words(&prose::lines(document))).len();
        assert_eq!(found("a lag of 48210 positions\n\n| 100000 |"), 2);
        assert_eq!(found("48,210 in 2026, at port 7373, of `48210`, 01919c4e"), 0);
    }
}

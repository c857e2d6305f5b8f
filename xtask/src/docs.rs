//! Checks the documents against the code: each invariant is cited where it is kept, each crate is in the code map,
//! modules import only from below, no crate depends on an example, no source is too long, limits of time are in
//! `limits.rs`, the planted faults fit the code, each test that a promise names is there, links lead somewhere, and the
//! words are those of the glossary.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Done, directions, floors, lengths, limits, planted, words};

pub(crate) fn check(root: &Path) -> Done {
    let mut faults = Vec::new();
    let architecture = read(&root.join("docs/architecture.md"))?;
    let code = files(&root.join("crates"), "rs");
    let sources = code.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>()?;

    for number in invariants(&architecture) {
        if !sources.iter().any(|source| cites(source, number)) {
            faults.push(format!("docs/architecture.md: nothing in crates/ cites I-{number}"));
        }
    }
    for member in ["crates", "examples"].iter().flat_map(|folder| folders(&root.join(folder))) {
        let name = member.strip_prefix(root).unwrap_or(&member).display().to_string();
        if !architecture.contains(&format!("`{name}`")) {
            faults.push(format!("docs/architecture.md: the code map lacks `{name}`"));
        }
    }
    let paths = floors::sources(root, &code, &sources);
    for floors in floors::drawn(&architecture) {
        let inside = paths.iter().filter(|(path, _)| path.starts_with(floors.folder()));
        faults.extend(floors.faults(inside.map(|(path, text)| (path.as_path(), text.as_str()))));
    }
    faults.extend(limits::faults(paths.iter().map(|(path, text)| (path.as_path(), text.as_str()))));
    faults.extend(lengths::check(root)?);
    faults.extend(directions::check(root)?);
    faults.extend(planted::check(root)?);
    let guarantees = "docs/guarantees.md";
    for test in named_tests(&read(&root.join(guarantees))?) {
        if !sources.iter().any(|source| has_word(source, &test)) {
            faults.push(format!("{guarantees}: no test in crates/ is called {test}"));
        }
    }
    let documents: Vec<PathBuf> =
        files(root, "md").into_iter().filter(|path| !path.starts_with(root.join("target"))).collect();
    for path in &documents {
        let name = path.strip_prefix(root).unwrap_or(path).display().to_string();
        let dead = dead_links(path, &read(path)?);
        faults.extend(dead.into_iter().map(|link| format!("{name}: {link} leads nowhere")));
    }
    faults.extend(words::check(root)?);
    if faults.is_empty() { Ok(()) } else { Err(faults.join("\n")) }
}

/// Returns the tests that a document names: what stands between backticks and is a name of five words or more.
fn named_tests(text: &str) -> Vec<String> {
    let quoted = text.split('`').skip(1).step_by(2).filter_map(|quoted| quoted.rsplit("::").next());
    let is_name = |name: &&str| name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    quoted.filter(is_name).filter(|name| name.matches('_').count() >= 4).map(str::to_owned).collect()
}

/// Returns true if `source` has the whole word `name`: a function, or what a macro makes one of.
fn has_word(source: &str, name: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    source
        .match_indices(name)
        .any(|(at, _)| !source[..at].ends_with(is_part) && !source[at + name.len()..].starts_with(is_part))
}

/// Returns the numbers of the invariants that the document defines: lines that begin with `- **I-n`.
fn invariants(text: &str) -> Vec<u32> {
    let numbers = text.lines().filter_map(|line| line.strip_prefix("- **I-"));
    numbers.filter_map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()).collect()
}

fn cites(source: &str, number: u32) -> bool {
    let mark = format!("I-{number}");
    source.match_indices(&mark).any(|(at, _)| !source[at + mark.len()..].starts_with(|c: char| c.is_ascii_digit()))
}

/// Returns the relative links to files, or to headings of documents, that are not there.
fn dead_links(document: &Path, text: &str) -> Vec<String> {
    let folder = document.parent().unwrap_or(Path::new("."));
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let inside = targets.filter(|target| !target.contains("://") && !target.contains(' '));
    let is_dead = |target: &&str| {
        let (file, heading) = target.split_once('#').map_or((*target, None), |(file, heading)| (file, Some(heading)));
        let path = if file.is_empty() { document.to_owned() } else { folder.join(file) };
        let has = |heading| match file.is_empty() {
            true => has_heading(text, heading),
            false => std::fs::read_to_string(&path).is_ok_and(|text| has_heading(&text, heading)),
        };
        !path.exists() || heading.is_some_and(|heading| !has(heading))
    };
    inside.filter(is_dead).map(str::to_owned).collect()
}

/// Returns true if a document has a heading with this anchor: its words in lower case, joined by dashes.
fn has_heading(text: &str, anchor: &str) -> bool {
    let is_kept = |c: &char| c.is_alphanumeric() || "-_ ".contains(*c);
    let headings = text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let mut anchors = headings.map(|heading| heading.to_lowercase().chars().filter(is_kept).collect::<String>());
    anchors.any(|found| found.replace(' ', "-") == anchor)
}

pub(crate) fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// Returns the files of the tree that match a pattern of git, as paths from the root: those that git knows, and new
/// ones that it does not ignore.
pub(crate) fn tracked(root: &Path, pattern: &str) -> Result<Vec<String>, String> {
    let list = ["ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", pattern];
    let listed = Command::new("git").args(list).current_dir(root).output();
    let listed = listed.map_err(|error| format!("git ls-files: {error}"))?;
    let names = String::from_utf8_lossy(&listed.stdout);
    // Git lists a file until it hears that it was removed.
    let names: Vec<String> =
        names.split_terminator('\0').filter(|name| root.join(name).exists()).map(str::to_owned).collect();
    match listed.status.success() && !names.is_empty() {
        true => Ok(names),
        false => Err(format!("git ls-files names no files: {}", String::from_utf8_lossy(&listed.stderr))),
    }
}

/// Returns the files with an extension: the path itself, or those in its folders.
pub(crate) fn files(path: &Path, extension: &str) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let mut found = Vec::new();
    let mut open = vec![path.to_owned()];
    while let Some(folder) = open.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for path in entries.flatten().map(|entry| entry.path()) {
            let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
            let built = path.file_name().is_some_and(|name| name == "target");
            if path.is_dir() && !hidden && !built {
                open.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn folders(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invariant_is_cited_by_its_whole_number() {
        assert!(cites("// I-1", 1) && cites("(I-1)", 1));
        assert!(!cites("// I-12", 1));
        assert_eq!(invariants("- **I-1 Order.** text\n- **I-12 Gone.**\n"), [1, 12]);
    }

    #[test]
    fn a_document_names_tests_that_are_there() {
        let text = "`a::what_is_there_is_found`, `snake_case`, `What is it?`, `no_such_test_is_here`";
        assert_eq!(named_tests(text), ["what_is_there_is_found", "no_such_test_is_here"]);
        assert!(has_word("async fn what_is_there_is_found(", "what_is_there_is_found"));
        assert!(!has_word("fn what_is_there_is_found_twice()", "what_is_there_is_found"));
    }

    #[test]
    fn links_to_files_and_headings_that_are_there_pass() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/glossary.md");
        let text = "# Here I am: \u{e9}!\n[a](glossary.md) [b](https://x.org/y#z) [c](#here-i-am-\u{e9}) [d](glossary.md#the-journal)";
        assert!(dead_links(&here, text).is_empty(), "{:?}", dead_links(&here, text));
        let text = "[a](nowhere.md#part) [b](#here) [c](glossary.md#nowhere)";
        assert_eq!(dead_links(&here, text), ["nowhere.md#part", "#here", "glossary.md#nowhere"]);
    }
}

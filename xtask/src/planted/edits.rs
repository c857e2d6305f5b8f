//! Edits of files: how they are written, and how they are applied. `crates/sim/planted/README.md` describes the form.

use std::collections::BTreeMap;

/// A change of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Edit {
    /// The file that has the edit, as a path from the root.
    pub(super) of: String,
    /// The file that it changes, as a path from the root.
    pub(super) path: String,
    /// The lines that it replaces.
    pub(super) from: Vec<String>,
    pub(super) to: Vec<String>,
}

/// Returns the lines of the file `of` before its first edit, and its edits.
pub(super) fn parse<'a>(of: &str, text: &'a str) -> Result<(Vec<&'a str>, Vec<Edit>), String> {
    let (mut head, mut edits) = (Vec::new(), Vec::<Edit>::new());
    for line in text.lines() {
        if let Some(path) = line.strip_prefix("@@ ") {
            edits.push(Edit { of: of.to_owned(), path: path.to_owned(), from: vec![], to: vec![] });
            continue;
        }
        let Some(edit) = edits.last_mut() else {
            head.push(line);
            continue;
        };
        match line.split_at_checked(1) {
            Some((" ", line)) => {
                edit.from.push(line.to_owned());
                edit.to.push(line.to_owned());
            }
            Some(("-", line)) => edit.from.push(line.to_owned()),
            Some(("+", line)) => edit.to.push(line.to_owned()),
            _ if line.is_empty() => {}
            _ => return Err(format!("{of}: `{line}` begins with none of ` `, `-`, `+` and `@@ `")),
        }
    }
    match edits.iter().find(|edit| edit.from.is_empty() || edit.from == edit.to) {
        Some(edit) => Err(format!("{of}: its edit of {} has no line of today's code, or changes nothing", edit.path)),
        None if edits.is_empty() => Err(format!("{of}: it has no edit")),
        None => Ok((head, edits)),
    }
}

/// Returns a text with all these edits. Each finds its place in the text without the others, so their order does not matter.
///
/// # Errors
/// What is wrong with the edits: their lines are not in the text exactly once, or two of them share a line.
pub(super) fn apply(text: &str, edits: &[&Edit]) -> Result<String, Vec<String>> {
    let lines: Vec<&str> = text.lines().collect();
    let (mut placed, mut wrong) = (BTreeMap::<usize, &Edit>::new(), Vec::new());
    for edit in edits {
        match place(&lines, edit) {
            Ok(at) => {
                let shares =
                    |(other, with): &(&usize, &&Edit)| **other < at + edit.from.len() && at < **other + with.from.len();
                if let Some((_, other)) = placed.iter().find(shares) {
                    wrong.push(format!("{} and {} edit the same line of {}", other.of, edit.of, edit.path));
                }
                placed.insert(at, edit);
            }
            Err(text) => wrong.push(text),
        }
    }
    if !wrong.is_empty() {
        return Err(wrong);
    }
    let (mut edited, mut rest) = (Vec::new(), 0);
    for (at, edit) in placed {
        edited.extend_from_slice(&lines[rest..at]);
        edited.extend(edit.to.iter().map(String::as_str));
        rest = at + edit.from.len();
    }
    edited.extend_from_slice(&lines[rest..]);
    Ok(edited.join("\n") + "\n")
}

/// Returns the number of the first line that the edit replaces.
fn place(lines: &[&str], edit: &Edit) -> Result<usize, String> {
    let Edit { of, path, from, .. } = edit;
    let found = lines.windows(from.len()).enumerate().filter(|(_, lines)| from.iter().eq(lines.iter()));
    let found: Vec<usize> = found.map(|(at, _)| at).collect();
    match found[..] {
        [at] => Ok(at),
        _ => Err(format!(
            "{of}: these lines must be in {path} exactly once, but are there {} times. Change the edit so that it \
             breaks what the code does now:\n{}",
            found.len(),
            from.join("\n")
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "fn a() {\n    one();\n    two();\n    three();\n}\n";

    fn edits(text: &str) -> Vec<Edit> {
        parse("a.fault", text).unwrap().1
    }

    fn applied(edits: &[Edit]) -> Result<String, Vec<String>> {
        apply(TEXT, &edits.iter().collect::<Vec<_>>())
    }

    #[test]
    fn an_edit_keeps_removes_and_adds_lines() {
        let (head, edits) = parse("a.fault", "What.\n\n@@ a.rs\n     one();\n-    two();\n+    2();\n+\n").unwrap();
        assert_eq!(head, ["What.", ""]);
        assert_eq!((edits[0].path.as_str(), edits.len()), ("a.rs", 1));
        assert_eq!(applied(&edits).unwrap(), "fn a() {\n    one();\n    2();\n\n    three();\n}\n");
    }

    #[test]
    fn edits_of_neighbouring_lines_are_applied_in_any_order() {
        let mut edits = edits("@@ a.rs\n-    two();\n+    2();\n\n@@ a.rs\n-    one();\n+    1();\n");
        let expected = "fn a() {\n    1();\n    2();\n    three();\n}\n";
        assert_eq!(applied(&edits).unwrap(), expected);
        edits.reverse();
        assert_eq!(applied(&edits).unwrap(), expected);
    }

    #[test]
    fn edits_of_the_same_line_are_refused() {
        for second in ["-    two();\n+    zwei();\n", "     one();\n     two();\n+    zwei();\n"] {
            let edits = edits(&format!("@@ a.rs\n-    two();\n+    2();\n@@ a.rs\n{second}"));
            assert_eq!(applied(&edits).unwrap_err(), ["a.fault and a.fault edit the same line of a.rs"]);
        }
    }

    #[test]
    fn an_edit_whose_lines_are_not_there_once_is_refused_with_its_name_and_lines() {
        for (line, times) in [("    four();", 0), ("one();", 0), ("    one(", 0)] {
            let edits = edits(&format!("@@ a.rs\n-{line}\n+    x();\n"));
            let wrong = applied(&edits).unwrap_err().join("\n");
            assert!(wrong.starts_with("a.fault: ") && wrong.contains(&format!("there {times} times")), "{wrong}");
            assert!(wrong.ends_with(line), "{wrong}");
        }
        let edits = edits("@@ a.rs\n-    one();\n+    x();\n");
        let twice = apply(&format!("{TEXT}{TEXT}"), &[&edits[0]]).unwrap_err().join("\n");
        assert!(twice.contains("there 2 times"), "{twice}");
    }

    #[test]
    fn what_is_not_an_edit_is_refused() {
        for (text, why) in [
            ("What.\n", "it has no edit"),
            ("@@ a.rs\n+    x();\n", "has no line of today's code"),
            ("@@ a.rs\n     one();\n", "changes nothing"),
            ("@@ a.rs\n-    one();\nx();\n", "`x();` begins with none of"),
        ] {
            let error = parse("a.fault", text).unwrap_err();
            assert!(error.starts_with("a.fault: ") && error.contains(why), "{error}");
        }
    }
}

//! Checks that every limit of time stands in a `limits.rs`, where its reason and its relations to the others are.

use std::path::Path;

/// Returns the times that are constants elsewhere in the sources of the crates. Sources are paths from the root of the
/// repository and texts.
pub(crate) fn faults<'a>(sources: impl IntoIterator<Item = (&'a Path, &'a str)>) -> Vec<String> {
    let mut faults = Vec::new();
    for (path, text) in sources {
        let is_source = path.iter().any(|folder| folder == "src");
        if !is_source || path.file_name().is_some_and(|name| name == "limits.rs") {
            continue;
        }
        let path = path.display();
        let lines = text.lines().enumerate().filter_map(|(at, line)| Some((at + 1, time_in(line)?)));
        faults.extend(lines.map(|(line, name)| {
            format!(
                "{path}:{line}: `{name}` is a limit of time: move it to the `limits.rs` of its crate, with its reason and \
                 what must hold between it and other limits"
            )
        }));
    }
    faults
}

/// Returns the name of the constant in a line of code, if it is a time.
fn time_in(line: &str) -> Option<&str> {
    let code = line.split("//").next()?;
    let (before, declared) = code.split_once("const ")?;
    let is_whole = before.is_empty() || before.ends_with([' ', '{', ';']);
    let (name, rest) = declared.split_once(':')?;
    let kind = rest.split(['=', ';']).next()?.trim();
    let is_name = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    (is_whole && is_name && kind.rsplit("::").next() == Some("Duration")).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<String> {
        faults([(Path::new(path), text)])
    }

    #[test]
    fn a_time_outside_of_limits_is_named_with_its_place() {
        let faults =
            found("crates/a/src/b.rs", "use x;\n\npub(crate) const LOOK: Duration = Duration::from_millis(20);\n");
        assert!(
            matches!(&faults[..], [fault] if fault.starts_with("crates/a/src/b.rs:3: `LOOK`") && fault.contains("limits.rs")),
            "{faults:?}"
        );
        for line in
            ["    const A: std::time::Duration = B;", "trait T { const A: Duration; }", "pub const A: Duration = B;"]
        {
            assert_eq!(found("crates/a/src/tests.rs", line).len(), 1, "{line}");
        }
    }

    #[test]
    fn what_is_no_time_or_stands_in_limits_is_none() {
        for line in [
            "const A: u64 = 1;",
            "const fn longer(a: Duration, b: Duration) -> bool {",
            "// const A: Duration = B;",
            "fn f(a: *const T, b: Duration) {}",
            "const ALL: [Duration; 2] = [A, B];",
        ] {
            assert_eq!(found("crates/a/src/b.rs", line), [""; 0], "{line}");
        }
        let time = "const A: Duration = B;";
        assert_eq!(found("crates/a/src/limits.rs", time), [""; 0]);
        assert_eq!(found("crates/a/tests/b.rs", time), [""; 0], "a test outside of the sources has its own times");
    }
}

//! The texts of a source that people read: its doc comments and its string literals, without tests.

use proc_macro2::{Delimiter, Literal, TokenStream, TokenTree};

/// Returns true if a file has only tests.
pub(super) fn is_test(name: &str) -> bool {
    let parts = || name.split('/');
    let is_tests = |part: &str| part == "tests" || part == "tests.rs" || part.ends_with("_tests.rs");
    parts().any(is_tests)
}

/// Returns the lines of the doc comments and of the texts of a source, with their numbers.
pub(super) fn of(source: &str) -> Result<Vec<(usize, String)>, String> {
    let tokens: TokenStream = source.parse().map_err(|error| format!("it is no Rust: {error}"))?;
    let mut lines = Vec::new();
    gather(tokens, &mut lines);
    // Code in doc comments is none of their words.
    let mut is_code = false;
    lines.retain(|(_, text)| {
        let is_fence = text.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_fence && !is_code
    });
    Ok(lines)
}

fn gather(tokens: TokenStream, lines: &mut Vec<(usize, String)>) {
    let mut is_test = false;
    for token in tokens {
        match token {
            TokenTree::Literal(literal) => add(&literal, lines),
            // What follows `#[cfg(test)]` up to its braces is a test.
            TokenTree::Group(group) if group.delimiter() == Delimiter::Bracket => {
                is_test |= group.stream().to_string().replace(' ', "") == "cfg(test)";
                gather(group.stream(), lines);
            }
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace && is_test => is_test = false,
            TokenTree::Group(group) => gather(group.stream(), lines),
            TokenTree::Punct(punct) if punct.as_char() == ';' => is_test = false,
            TokenTree::Ident(_) | TokenTree::Punct(_) => {}
        }
    }
}

/// Adds the lines of a text. One word alone is a name, and SQL is no prose.
fn add(literal: &Literal, lines: &mut Vec<(usize, String)>) {
    let (text, first) = (literal.to_string(), literal.span().start().line);
    let is_text = text.starts_with(['"', 'r']) && text.ends_with(['"', '#']);
    let inside = text.trim_start_matches('r').trim_matches('#');
    let inside = inside.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or_default();
    let is_sql =
        ["SELECT ", "INSERT ", "UPDATE ", "DELETE ", "CREATE ", "ALTER "].iter().any(|verb| inside.contains(verb));
    if is_text && !is_sql && inside.trim().contains(' ') {
        let inside = inside.replace("\\n", " . ").replace('\\', " ");
        lines.extend(inside.lines().enumerate().map(|(at, line)| (first + at, line.to_owned())));
    } else if is_text {
        // A line of a doc comment that is blank, or that begins or ends a block of code.
        lines.push((first, if inside.trim_start().starts_with("```") { inside.to_owned() } else { String::new() }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doc_comments_and_texts_are_read_and_code_is_not() {
        let source = "//! The module here.\n\n/// A line of it.\n///\n/// ```text\n/// no words here\n/// ```\n/// A last one.\n\
                      fn name() { say(\"a text here\", \"name\", \"SELECT no sql\", 'c', b\"no bytes here\"); } // no comment\n";
        let lines = of(source).unwrap();
        let texts: Vec<(usize, &str)> =
            lines.iter().map(|(line, text)| (*line, text.trim())).filter(|line| !line.1.is_empty()).collect();
        assert_eq!(texts, [(1, "The module here."), (3, "A line of it."), (8, "A last one."), (9, "a text here")]);
    }

    #[test]
    fn tests_are_not_read() {
        let source = "#[cfg(test)]\nmod tests { const A: &str = \"no test here\"; }\nconst B: &str = \"this is read\";";
        assert_eq!(of(source).unwrap(), [(3, "this is read".to_owned())]);
        assert!(
            is_test("crates/a/tests/b.rs")
                && is_test("crates/a/src/c_tests.rs")
                && !is_test("crates/a/src/contests.rs")
        );
    }
}

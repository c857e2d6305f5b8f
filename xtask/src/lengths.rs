//! Checks that every source file can be taken in: none is longer than it may be.

use std::path::Path;

use crate::docs::{read, tracked};

/// Most lines of a source file, tests included.
const LINES_MAX: usize = 500;

/// Returns what is wrong with the lengths of the sources.
pub(crate) fn check(root: &Path) -> Result<Vec<String>, String> {
    let mut lengths = Vec::new();
    for name in tracked(root, "*.rs")? {
        lengths.push((read(&root.join(&name))?.lines().count(), name));
    }
    Ok(faults(&lengths))
}

/// Returns what is wrong with files of these lengths.
fn faults(lengths: &[(usize, String)]) -> Vec<String> {
    let too_long = lengths.iter().filter(|(lines, _)| *lines > LINES_MAX);
    let fault = |(lines, name): &(usize, String)| {
        format!("{name}: {lines} lines, at most {LINES_MAX} may be: split it by what a reader would look for")
    };
    too_long.map(fault).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_may_have_as_many_lines_as_the_limit_and_not_one_more() {
        let faults = |lines| faults(&[(lines, "a.rs".to_owned()), (1, "b.rs".to_owned())]);
        assert!(faults(LINES_MAX).is_empty());
        let faults = faults(LINES_MAX + 1);
        assert!(matches!(&faults[..], [fault] if fault.starts_with("a.rs: 501 lines")), "{faults:?}");
    }

    #[test]
    fn the_sources_that_git_knows_are_all_over_the_workspace() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let names = tracked(root, "*.rs").unwrap();
        for name in ["crates/dacapo/tests/failures.rs", "xtask/src/main.rs"] {
            assert!(names.iter().any(|known| known == name), "{name}");
        }
    }
}

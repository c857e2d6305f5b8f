//! Checks that every source file can be taken in: none is longer than it may be.

use std::path::Path;

use crate::docs::{read, tracked};

/// Most lines of a source file, tests included.
const LINES_MAX: usize = 500;

/// The files that are longer still. Nobody adds one: who makes a file short takes it off.
const STILL_LONG: &[&str] = &[
    "crates/dacapo/tests/verify.rs",
    "crates/postgres/tests/views.rs",
    "crates/store/src/contract/views.rs",
    "crates/store/src/embedded/journal/log.rs",
    "crates/store/tests/damage.rs",
];

/// What is wrong with the lengths of the sources.
pub(crate) fn check(root: &Path) -> Result<Vec<String>, String> {
    let mut lengths = Vec::new();
    for name in tracked(root, "*.rs")? {
        lengths.push((read(&root.join(&name))?.lines().count(), name));
    }
    Ok(faults(&lengths, STILL_LONG))
}

/// What is wrong with files of these lengths: one that is too long and not known for it, one that is known for it and not
/// too long any more.
fn faults(lengths: &[(usize, String)], still_long: &[&str]) -> Vec<String> {
    let is_known = |name: &str| still_long.contains(&name);
    let too_long = lengths.iter().filter(|(lines, name)| *lines > LINES_MAX && !is_known(name));
    let too_long = too_long.map(|(lines, name)| {
        format!("{name}: {lines} lines, at most {LINES_MAX} may be: split it by what a reader would look for")
    });
    let is_long = |known: &&str| lengths.iter().any(|(lines, name)| name == known && *lines > LINES_MAX);
    let short = still_long.iter().filter(|known| !is_long(known)).map(|known| {
        format!("xtask/src/lengths.rs: {known} has no more than {LINES_MAX} lines now: take it off the list")
    });
    too_long.chain(short).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(lengths: &[(usize, &str)], still_long: &[&str]) -> Vec<String> {
        faults(&lengths.iter().map(|(lines, name)| (*lines, (*name).to_owned())).collect::<Vec<_>>(), still_long)
    }

    #[test]
    fn a_source_may_have_as_many_lines_as_the_limit_and_not_one_more() {
        assert!(found(&[(LINES_MAX, "a.rs"), (1, "b.rs")], &[]).is_empty());
        let faults = found(&[(LINES_MAX + 1, "a.rs"), (1, "b.rs")], &[]);
        assert!(matches!(&faults[..], [fault] if fault.starts_with("a.rs: 501 lines")), "{faults:?}");
    }

    #[test]
    fn the_list_of_long_sources_only_shrinks() {
        let long = [(LINES_MAX + 1, "a.rs"), (LINES_MAX + 1, "b.rs")];
        assert!(found(&long, &["a.rs", "b.rs"]).is_empty());
        assert_eq!(found(&long, &["a.rs"]).len(), 1, "one that is not on it");
        for lengths in [&[(LINES_MAX, "a.rs")][..], &[]] {
            let faults = found(lengths, &["a.rs"]);
            assert!(matches!(&faults[..], [fault] if fault.contains("a.rs") && fault.contains("take it off")));
        }
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

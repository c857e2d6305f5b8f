//! Checks the subjects of the last commits, where the history is there.

use std::path::Path;
use std::process::Command;

use crate::Done;

/// Most characters of a subject.
const SUBJECT_MAX: usize = 72;

/// The number of commits that are read. A clone may have fewer, or none.
const COMMITS: &str = "20";

pub(crate) fn check(root: &Path) -> Done {
    let log = ["log", "--no-merges", "--max-count", COMMITS, "--format=%h %s"];
    let listed = Command::new("git").args(log).current_dir(root).output();
    let listed = listed.map_err(|error| format!("git log: {error}"))?;
    if !listed.status.success() {
        // An export of the sources has no history.
        return Ok(());
    }
    let faults = faults(&String::from_utf8_lossy(&listed.stdout));
    if faults.is_empty() { Ok(()) } else { Err(faults.join("\n")) }
}

/// Returns what is wrong with the subjects of a log whose lines are a hash and a subject.
fn faults(log: &str) -> Vec<String> {
    let commits = log.lines().filter_map(|line| line.split_once(' '));
    let fault = |(hash, subject): (&str, &str)| {
        let length = subject.chars().count();
        if is_unfinished(subject) {
            Some(format!("commit {hash}: {subject:?} is unfinished: say in the subject what it does"))
        } else if length > SUBJECT_MAX {
            Some(format!(
                "commit {hash}: its subject has {length} characters, at most {SUBJECT_MAX} may be: put the rest into the body"
            ))
        } else {
            None
        }
    };
    commits.filter_map(fault).collect()
}

/// Returns true if a subject is "wip", or is marked as to be changed before it is merged.
fn is_unfinished(subject: &str) -> bool {
    let subject = subject.trim().to_lowercase();
    let words = || subject.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    subject.starts_with("fixup!") || subject.starts_with("squash!") || words().any(|word| word == "wip")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_has_at_most_as_many_characters_as_the_limit() {
        let of = |length: usize| format!("a1b2 {}\n", "é".repeat(length));
        assert!(faults(&of(SUBJECT_MAX)).is_empty());
        assert!(matches!(&faults(&of(SUBJECT_MAX + 1))[..], [fault] if fault.contains("a1b2") && fault.contains("73")));
    }

    #[test]
    fn an_unfinished_commit_is_refused() {
        for subject in ["wip", "WIP: flip", "flip: wip", "fixup! flip: lift the hold"] {
            assert_eq!(faults(&format!("a1b2 {subject}")).len(), 1, "{subject}");
        }
        assert!(faults("a1b2 flip: wipe the hold\nc3d4 docs: add a glossary").is_empty());
    }

    #[test]
    fn a_folder_without_history_passes() {
        let folder = std::env::temp_dir();
        assert!(check(&folder).is_ok());
    }
}

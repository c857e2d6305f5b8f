//! Directories that are not what a command takes them for.

use super::setup::dir;
use crate::common::{dacapo, with_input};

/// A node on it would carry on what is there, and note that it was closed.
#[test]
fn a_demo_on_a_directory_that_is_not_empty_changes_no_byte() {
    let dir = dir();
    let run = |arguments: &[&str], input: &str| with_input(dacapo(arguments, "").current_dir(dir.path()), input);
    let imported = run(&["import", "--data", "d"], "{\"stream\":\"a-1\",\"type\":\"opened\",\"data\":1}\n");
    assert!(imported.status.success(), "{imported:?}");
    std::fs::create_dir(dir.path().join("other")).unwrap();
    std::fs::write(dir.path().join("other/notes"), "of somebody").unwrap();
    let files = |name: &str| {
        let mut found = std::collections::BTreeMap::new();
        let mut folders = vec![dir.path().join(name)];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).unwrap().map(Result::unwrap) {
                match entry.file_type().unwrap().is_dir() {
                    true => folders.push(entry.path()),
                    false => drop(found.insert(entry.path(), std::fs::read(entry.path()).unwrap())),
                }
            }
        }
        found
    };
    for name in ["d", "other"] {
        let before = files(name);
        let arguments = ["demo", "--data", name, "--events", "10", "--accounts", "5", "--listen", "127.0.0.1:0"];
        let output = run(&arguments, "");
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(3) && told.contains("is not empty"), "{told}");
        assert_eq!(files(name), before, "{name}");
    }
}

#[cfg(unix)]
#[test]
fn a_directory_that_may_not_be_looked_into_is_not_told_as_empty() {
    use std::os::unix::fs::symlink;
    let dir = dir();
    // Nobody may look through a link to itself, not even root.
    symlink("loop", dir.path().join("loop")).unwrap();
    for command in ["status", "streams"] {
        let output = dacapo(&[command, "--data", "loop"], "").current_dir(dir.path()).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(5) && told.contains("cannot read the directory loop"), "{told}");
        assert!(!told.contains("--at") && !told.contains("no data"), "{told}");
    }
}

#[test]
fn a_directory_without_its_format_is_damaged_and_not_empty() {
    let dir = dir();
    let run = |arguments: &[&str], input: &str| with_input(dacapo(arguments, "").current_dir(dir.path()), input);
    let imported = run(&["import", "--data", "d"], "{\"stream\":\"a-1\",\"type\":\"opened\",\"data\":1}\n");
    assert!(imported.status.success(), "{imported:?}");
    std::fs::remove_file(dir.path().join("d/format")).unwrap();
    for command in [&["status"][..], &["read"], &["repair"], &["repair", "--apply"]] {
        let output = run(&[command, &["--data", "d"]].concat(), "");
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(7) && told.contains("it is missing, and a journal is there"), "{told}");
    }
}

//! What is asked wrongly is told as that, and each kind of end has its exit code.

use dacapo_api::fake::Fault;
use dacapo_api::{FlipResponse, Problem, Status};

use super::setup::{built, replaying, served};
use crate::common::{Node, dacapo};

#[test]
fn wrong_usage_exits_with_2_and_a_missing_node_with_5() {
    let usage = dacapo(&["flip"], "http://127.0.0.1:1").output().unwrap();
    assert_eq!(usage.status.code(), Some(2));
    let missing = dacapo(&["status"], "http://127.0.0.1:1").output().unwrap();
    assert_eq!(missing.status.code(), Some(5));
    let text = String::from_utf8(missing.stderr).unwrap();
    for part in
        ["no node answers at http://127.0.0.1:1", "tried: GET http://127.0.0.1:1/v1/status", "found: ", "help: "]
    {
        assert!(text.contains(part), "{text}");
    }
}

/// What is wrong with the command line is told as that, before anything is opened or asked.
#[test]
fn a_value_that_can_never_work_is_told_as_usage() {
    let nowhere = "http://127.0.0.1:1";
    for args in [
        &["read", "--limit", "0"][..],
        &["read", "--type", ""],
        &["read", "--category", "a-1"],
        &["read", "--stream", "a-1", "--system"],
        &["streams", "--category", "a-1"],
        &["read", "--at", "nowhere"],
        &["append", "a-1", "--type", "t", "--data", "{"],
        &["append", "a-1", "--type", "t", "--data", "1", "--id", "7"],
        &["append", "", "--type", "t", "--data", "1"],
        &["flip", "Balances"],
        &["flip", "balances", "--version", "v02.1"],
        &["rollback", "balances", "--version", "2.1"],
        &["cleanup", "balances", "--version", "v+1.1"],
        &["pause", "balances", "--version", "1"],
        &["replay", "balances", "--from-time", "yesterday"],
        &["replay", "balances", "--from-event", "7"],
        &["letters", "balances", "--limit", "0"],
        &["letters", "set-aside", "balances", "--event", "0", "--reason", "r"],
        &["phases", "Balances"],
        &["serve", "--listen", "127.0.0.1:0", "--store", "http://x"],
        &["serve", "--listen", "127.0.0.1:0", "--store", "postgres://h/d", "--schema", "Of Mine"],
        &["serve", "--listen", "127.0.0.1:0", "--address", "foo"],
        &["serve", "--listen", "127.0.0.1:0", "--address", "http://"],
        &["serve", "--listen", "127.0.0.1:0", "--host", "a/b"],
        &["serve", "--listen", "127.0.0.1:0", "--address", "http://h/?x"],
        &["serve", "--listen", "127.0.0.1:0", "--address", "http://me@h"],
        &["serve", "--listen", "127.0.0.1:0", "--store", "postgres://h/d", "--connections", "1"],
        &["serve", "--listen", "127.0.0.1:0", "--store", "postgres://h/d", "--connections", "010"],
        &["serve", "--listen", "0.0.0.0:0"],
        &["serve", "--listen", "127.0.0.1:0", "--log", "loud"],
        &["demo", "--events", "0"],
        &["demo", "--events", "10", "--accounts", "20"],
        &["demo", "--accounts", "0"],
        &["demo", "--clients", "0"],
        &["demo", "--clients", "+1"],
        &["demo", "--events", "01"],
        &["read", "--limit", "01"],
        &["read", "--limit", "+1"],
        &["read", "--limit", " 1"],
        &["read", "--after", "007"],
        &["streams", "--limit", "01"],
        &["letters", "balances", "--limit", "1 "],
        &["letters", "balances", "--after", "+1"],
        &["letters", "retry", "balances", "--event", "01"],
        &["letters", "set-aside", "balances", "--event", "+1", "--reason", "r"],
        &["replay", "balances", "--from", "01"],
        &["rebuild", "balances", "--code", "+1"],
        &["append", "a-1", "--type", "t", "--data", "1", "--expect", "01"],
        &["append", "a-1", "--type", "t", "--data", "1", "--expect", "+1"],
        &["flip", "balances", "--key", ""],
        &["flip", "balances", "--key", &"k".repeat(256)],
        &["flip", "balances", "--actor", &"a".repeat(257)],
        &["flip", "balances", "--reason", &"r".repeat(4_097)],
        &["verify", "balances", "--waive", "--reason", " "],
        &["read", "--at", "http://h/?y"],
    ] {
        let output = dacapo(args, nowhere).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {told}");
        assert!(!told.contains("--at and its address"), "{args:?}: {told}");
    }
    let output = dacapo(&["serve", "--listen", "127.0.0.1:0", "--address", "foo"], "").output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("'foo'") && told.contains("--address") && told.contains("http://10.0.0.7:7373"), "{told}");
}

/// A file system may have such names, and a shell passes on any bytes.
#[test]
#[cfg(unix)]
fn what_is_not_utf_8_is_told_as_usage() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let odd = OsStr::from_bytes(b"\xff");
    let nowhere = "http://127.0.0.1:1";
    let lines: &[&[&str]] = &[
        &[],
        &["append", "a-1", "--type", "t", "--data"],
        &["status", "--at"],
        &["flip", "balances", "--actor"],
        &["serve", "--data"],
        &["serve", "--data", "x", "--store"],
        &["serve", "--store", "postgres://h/d", "--data"],
        &["serve", "--name"],
    ];
    let check = |command: &mut std::process::Command, what: &str| {
        let output = command.output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{what}: {told}");
        assert!(!told.contains("panicked") && told.contains("--help"), "{what}: {told}");
    };
    for args in lines.iter().filter(|args| **args != ["serve", "--data"]) {
        check(dacapo(args, nowhere).arg(odd), &format!("{args:?}"));
    }
    check(dacapo(&["flip", "balances", "--what"], nowhere).arg(odd), "beside an unknown option");
    for name in ["DACAPO_AT", "USER"] {
        check(dacapo(&["flip", "balances"], nowhere).env(name, odd), name);
    }
}

/// A script that gives a key learns as well that there was nothing.
#[test]
fn what_is_named_and_is_not_there_is_told_under_a_key_too() {
    let node = Node::start();
    node.fake.script().statuses.push_back(built("Serving", ""));
    for act in ["retry", "drop"] {
        for more in [&["--event", "7"][..], &["--event", "7", "--key", "k"], &["--stream", "a-1", "--key", "k"]] {
            let output = node.command(&[&["letters", act, "balances"], more].concat()).output().unwrap();
            let told = String::from_utf8(output.stderr).unwrap();
            assert!(output.status.code() == Some(4) && told.contains("set aside no such event"), "{more:?}: {told}");
        }
    }
}

/// Neither what is wrong with it nor where it stands shows a password.
#[test]
fn a_password_in_an_address_is_in_no_message() {
    let wrong = "me:s3cret@h:7373";
    let urls = [format!("http://{wrong}"), wrong.to_owned(), "http://h:7373/?s3cret".to_owned()];
    for url in &urls {
        for args in [
            &["status", "--at", url][..],
            &["status", url],
            &["flip", url],
            &["import", "x", url],
            &["serve", "--address", url],
            &["serve", "--listen", url],
            &["serve", "--host", url],
            &["serve", "--listen", "127.0.0.1:0", "--store", url],
        ] {
            let has_scheme = url.contains("://") && url.contains('@');
            if !has_scheme && !args.iter().any(|arg| matches!(*arg, "--at" | "--address" | "--store")) {
                // Nothing tells that it is an address.
                continue;
            }
            let output = dacapo(args, "http://127.0.0.1:1").output().unwrap();
            let told = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(2), "{args:?}: {told}");
            assert!(!told.contains("s3cret"), "{args:?}: {told}");
        }
        let output = dacapo(&["status"], url).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && !told.contains("s3cret"), "{told}");
    }
}

#[test]
fn an_empty_variable_is_one_that_is_not_there() {
    // The default is tried, where a node of somebody else may answer.
    let output = dacapo(&["status", "--json"], "").output().unwrap();
    assert_ne!(output.status.code(), Some(2), "{output:?}");
    let mut command = dacapo(&["serve", "--listen", "127.0.0.1:0"], "");
    let names = ["DACAPO_STORE", "DACAPO_SCHEMA", "DACAPO_NAME", "DACAPO_ADDRESS", "DACAPO_LOG"];
    let (mut child, _) = served(names.iter().fold(&mut command, |command, name| command.env(name, "")));
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn each_kind_of_end_has_its_own_exit_code() {
    let node = Node::start();
    let exit = |args: &[&str]| node.command(args).output().unwrap();
    node.fake.script().statuses.push_back(built("Serving", ""));
    assert_eq!(exit(&["status"]).status.code(), Some(0));
    let failed = exit(&["flip", "nothing", "--json"]);
    let problem: Problem = serde_json::from_slice(&failed.stderr).unwrap();
    assert_eq!((failed.status.code(), problem.code.as_str()), (Some(4), "no_such_projection"));
    let answer: FlipResponse = serde_json::from_slice(&exit(&["flip", "balances", "--json"]).stdout).unwrap();
    assert!(answer.flipped);
    let append = ["append", "a-1", "--type", "t", "--data", "1", "--json"];
    for (error, code) in [
        (Problem::new("wrong_revision", "m").refused(), 3),
        (Problem::new("unavailable", "m").unavailable(), 5),
        (Problem::new("corrupt", "m").corrupt(), 7),
        (Problem::new("too_large", "m").invalid(), 1),
    ] {
        node.fake.script().faults.push_back(Fault::Before(error.clone()));
        let failed = exit(&append);
        assert_eq!(failed.status.code(), Some(code), "{error:?}");
        assert_eq!(&serde_json::from_slice::<Problem>(&failed.stderr).unwrap(), error.problem());
    }
    let appended: serde_json::Value = serde_json::from_slice(&exit(&append).stdout).unwrap();
    assert_eq!(appended["written"], 1);
    node.fake.script().statuses = [replaying()].into();
    let shown = exit(&["status", "--json"]);
    assert_eq!((shown.status.code(), shown.stderr.is_empty()), (Some(8), true), "a version has failed");
    assert!(serde_json::from_slice::<Status>(&shown.stdout).is_ok());
}

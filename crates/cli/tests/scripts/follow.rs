//! Commands that continue until somebody ends them.

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use dacapo_api::FlipResponse;

use super::setup::{interrupt, replaying};
use crate::common::{Node, dacapo, with_input};

#[test]
fn output_that_nobody_reads_ends_the_command_in_silence() {
    let node = Node::start();
    let line = r#"{"stream":"account-1","type":"opened","data":"0123456789012345678901234567890123456789"}"#;
    let lines = format!("{line}\n").repeat(3_000);
    let imported = with_input(&mut node.command(&["import"]), &lines);
    assert!(imported.status.success(), "{imported:?}");
    let mut command = node.command(&["read", "--json"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut String::new()).unwrap();
    drop(stdout);
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!((child.wait().unwrap().code(), stderr.as_str()), (Some(0), ""));
}

#[test]
fn a_follower_sees_what_comes() {
    let node = Node::start();
    let mut child = node.command(&["read", "--follow", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for number in 1..=3 {
        let event = format!(r#"{{"n":{number}}}"#);
        let appended = node.command(&["append", "a-1", "--type", "t", "--data", &event]).output().unwrap();
        assert!(appended.status.success(), "{appended:?}");
        assert!(lines.next().unwrap().unwrap().contains(&event));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_follower_says_that_the_node_is_away_and_that_it_is_back() {
    let node = Node::start();
    let mut command = node.command(&["read", "--follow"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut events = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut notices = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut append = |node: &Node, data: &str| {
        let appended = node.command(&["append", "a-1", "--type", "t", "--data", data]).output().unwrap();
        assert!(appended.status.success(), "{appended:?}");
        assert!(events.next().unwrap().unwrap().contains(data));
    };
    append(&node, r#"{"n":1}"#);
    let stopped = node.stop();
    let notice = notices.next().unwrap().unwrap();
    assert!(notice.contains("; trying again"), "{notice}");
    let node = stopped.start();
    assert_eq!(notices.next().unwrap().unwrap(), "the node answers again");
    append(&node, r#"{"n":2}"#);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[cfg(unix)]
#[test]
fn watching_shows_the_status_again_and_ends_with_ctrl_c() {
    let node = Node::start();
    let mut child = node.command(&["status", "--watch"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let seen = lines.by_ref().filter(|line| line.as_ref().unwrap().starts_with("node-1")).take(2).count();
    assert_eq!(seen, 2);
    let killed = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn watching_waits_for_a_node_that_is_not_there_yet() {
    // Nobody listens there any more.
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut command = dacapo(&["status", "--watch"], &format!("http://{address}"));
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let waits = lines.map(|line| line.unwrap()).filter(|line| line.contains("asking again")).take(2).count();
    assert_eq!(waits, 2, "it would have ended");
    interrupt(&child);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn whoever_leaves_a_wait_is_told_that_it_goes_on() {
    let node = Node::start();
    node.fake.script().statuses.push_back(replaying());
    let waiting: FlipResponse = serde_json::from_str(
        r#"{"projection":"balances","kind":"flip","from":"v1.1","to":"v2.1","requested":8,"flipped":false}"#,
    )
    .unwrap();
    node.fake.script().flips.extend(vec![waiting; 1_000]);
    let child = node.command(&["flip", "balances", "--wait"]).stderr(Stdio::piped()).spawn().unwrap();
    // Asked again, it waits for the signal as well.
    while node.fake.script().asked.len() < 2 {
        std::thread::yield_now();
    }
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(
        told.contains("continues") && told.contains("`dacapo status`") && told.contains("`dacapo cancel`"),
        "{told}"
    );
}

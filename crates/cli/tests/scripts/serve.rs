//! What a node that the binary serves takes from outside: addresses, names, connections and probes.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;

use super::setup::{dir, interrupt, served};
use crate::common::dacapo;

#[test]
fn an_address_others_can_reach_needs_the_word() {
    let served = dacapo(&["serve", "--listen", "0.0.0.0:0"], "").output().unwrap();
    let text = String::from_utf8(served.stderr).unwrap();
    assert!(served.status.code() == Some(2) && text.contains("--allow-remote"), "{text}");
}

/// What is answered to `request` on a connection of its own.
fn answered(address: &str, request: &str) -> String {
    let mut connection = std::net::TcpStream::connect(address).unwrap();
    connection.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_node_is_asked_for_by_the_names_that_it_was_given() {
    let args = ["serve", "--listen", "127.0.0.1:0", "--host", "a.internal", "--host", "B.internal"];
    let (mut child, address) = served(dacapo(&args, "").args(["--address", "http://c.internal:80"]));
    for (host, status) in
        [("a.internal", 200), ("b.internal:1", 200), ("c.internal", 200), (&address, 200), ("d.internal", 403)]
    {
        let request = format!("GET /v1/status HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let answer = answered(&address, &request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{host}: {answer}");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let wrong = dacapo(&["serve", "--listen", "127.0.0.1:0", "--host", "http://a"], "").output().unwrap();
    let text = String::from_utf8(wrong.stderr).unwrap();
    assert!(wrong.status.code() == Some(2) && text.contains("is not the name of a host"), "{text}");
}

#[cfg(unix)]
#[test]
fn connections_that_ask_nothing_do_not_take_the_files_of_a_node() {
    let mut command = std::process::Command::new("sh");
    let serve = "ulimit -n 64 && exec \"$0\" serve --listen 127.0.0.1:0";
    let (mut child, address) = served(command.args(["-c", serve, env!("CARGO_BIN_EXE_dacapo")]));
    let silent: Vec<_> = (0..200).map(|_| std::net::TcpStream::connect(&address).unwrap()).collect();
    // Those that have to make room may not be gone yet on a busy machine; until then the node says that it is busy.
    let ask = || answered(&address, "GET /v1/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let mut answers = std::iter::repeat_with(ask).take(1_000);
    let answer = answers.find(|answer| !answer.starts_with("HTTP/1.1 503 ")).expect("it is busy for good");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    drop(silent);
    child.kill().unwrap();
    child.wait().unwrap();
}

/// `nohup` starts a program like this.
#[cfg(unix)]
#[test]
fn a_hang_up_that_is_ignored_stays_ignored() {
    let mut command = std::process::Command::new("sh");
    let serve = "trap '' HUP && exec \"$0\" serve --listen 127.0.0.1:0";
    let (mut child, address) = served(command.args(["-c", serve, env!("CARGO_BIN_EXE_dacapo")]));
    let sent = std::process::Command::new("kill").args(["-HUP", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let append = ["append", "a-1", "--type", "t", "--data", "1"];
    let appended = dacapo(&append, &format!("http://{address}")).output().unwrap();
    assert!(appended.status.success(), "{appended:?}");
    interrupt(&child);
    assert!(child.wait().unwrap().success());
}

/// Whatever has the files, a load balancer is told how the node is.
#[cfg(unix)]
#[test]
fn probes_are_answered_when_the_process_may_open_no_more_files() {
    let data = dir();
    let mut command = std::process::Command::new("sh");
    let serve = "ulimit -n 40 && exec \"$0\" serve --listen 127.0.0.1:0 --data \"$1\"";
    let args = ["-c", serve, env!("CARGO_BIN_EXE_dacapo"), data.path().to_str().unwrap()];
    let mut child = command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.strip_prefix("listening on http://").and_then(|rest| rest.split_once(',')).unwrap().0.to_owned();
    let waits = "GET /v1/events?types=rare&wait_ms=60000 HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let all: Vec<_> = (0..60).map(|_| std::net::TcpStream::connect(&address).unwrap()).collect();
    // Those for which there is no room are let go of while they ask.
    all.iter().for_each(|mut connection| drop(connection.write_all(waits.as_bytes())));
    for probe in ["livez", "readyz"] {
        let answer = answered(&address, &format!("GET /{probe} HTTP/1.1\r\nHost: n\r\nConnection: close\r\n\r\n"));
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let mut log = String::new();
    child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    assert!(log.contains("cannot accept another connection") && log.contains("ulimit -n"), "{log}");
    assert!(!log.contains('\x1b'), "no terminal is there to show colours: {log:?}");
    drop(all);
}

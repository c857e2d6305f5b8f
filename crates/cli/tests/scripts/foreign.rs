//! What others wrote: imported, converted, and shown without being obeyed.

use dacapo_api::fake::Fault;
use dacapo_api::{HistoryEntry, Problem};

use super::setup::{dir, replaying};
use crate::common::{Node, with_input};

#[test]
fn an_import_outlives_a_moment_without_the_node() {
    let (node, dir) = (Node::start(), dir());
    std::fs::write(dir.path().join("one.jsonl"), r#"{"stream":"account-1","type":"opened","data":{}}"#).unwrap();
    let gone = || Problem::new("unavailable", "the disk is full").unavailable();
    node.fake.script().faults.extend([Fault::Before(gone()), Fault::After(gone())]);
    let output = node.command(&["import", "one.jsonl"]).current_dir(dir.path()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(node.fake.script().events.len(), 1);
}

/// Each command of the page on conversions, as it stands there, on what these systems export.
#[cfg(unix)]
#[test]
fn what_other_systems_export_is_converted_as_the_docs_say() {
    let missing =
        "jq is missing, which the commands of docs/conversions.md are made of: install it (Debian: apt-get install jq)";
    let jq = std::process::Command::new("jq").arg("--version").output();
    assert!(jq.unwrap_or_else(|error| panic!("{missing}: {error}")).status.success(), "{missing}");
    let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let doc = std::fs::read_to_string(here.join("../../docs/conversions.md")).unwrap();
    let commands: Vec<&str> = doc.split("```sh\n").skip(1).map(|rest| rest.split_once("```").unwrap().0).collect();
    let (node, bin) = (Node::start(), dir());
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_dacapo"), bin.path().join("dacapo")).unwrap();
    let path = format!("{}:{}", bin.path().display(), std::env::var("PATH").unwrap());
    for command in &commands {
        let mut shell = std::process::Command::new("sh");
        let shell = shell.args(["-ec", command]).current_dir(here.join("tests/formats"));
        let output = shell.env("PATH", &path).env("DACAPO_AT", &node.url).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{command}: {output:?}");
    }
    let script = node.fake.script();
    let found: Vec<_> = script.events.iter().map(|event| (event.stream.as_str(), event.data.as_str())).collect();
    let xml = r#""<much wow=\"xml\"/>""#;
    let expected = [
        ("order-1", r#"{"amount": 5.00}"#),
        ("order-1", r#"{"paid":true}"#),
        ("Account-acc-1", r#"{"amount":5}"#),
        ("Account-acc-1", r#""<a>5.0</a>""#),
        ("Order-1", r#"{"id":1,"total":59.98}"#),
        ("cloud-order 7", xml),
        ("cloud-/mycontext", r#""AAECAw==""#),
        ("account-123", r#"{"amount":1}"#),
        ("account:command+position-123", r#"{"amount":1}"#),
    ];
    assert_eq!(found, expected);
    assert_eq!(script.events[4].id, "406c07f3-26f0-4eea-a50c-109940064b8f");
    assert_eq!(script.events[4].metadata.fields["time"], "2019-05-03T13:31:34.344Z");
    assert_eq!(commands.len(), 5);
}

/// What others wrote is seen, and nothing of it is done by the terminal.
#[test]
fn texts_of_others_reach_the_terminal_escaped() {
    let node = Node::start();
    let evil = "\x1b]0;owned\x07\u{9b}2J\u{202e}\r\nposition 9 forged";
    let entry = HistoryEntry {
        position: 7,
        time: "2026-03-01T12:00:00Z".into(),
        projection: "balances".into(),
        version: "v1.1".into(),
        event: "version_paused".into(),
        text: "v1.1 paused".into(),
        actor: Some(evil.into()),
        reason: Some(evil.into()),
        covers: None,
    };
    node.fake.script().history.push(entry);
    let mut evil_status = replaying();
    evil_status.projections[0].versions[1].waiting_on[0].text = evil.into();
    evil_status.node.name = evil.into();
    node.fake.script().statuses.push_back(evil_status);
    let event = format!(r#"{{"stream":"a-1","type":"t","data":"{}"}}"#, "\u{9b}2J\u{202e}\u{7f}");
    assert!(with_input(&mut node.command(&["import"]), &event).status.success());
    node.fake.script().faults.push_back(Fault::Before(Problem::new("failed", evil).help(evil).refused()));
    for args in [
        &["append", "a-1", "--type", "t", "--data", "1"][..],
        &["phases"],
        &["status"],
        &["read"],
        &["streams", "--category", evil],
    ] {
        let output = node.command(args).output().unwrap();
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        let acts = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!text.contains(acts), "{args:?}: {text:?}");
        assert!(!text.lines().any(|line| line.starts_with("position 9 forged")), "{args:?}: {text}");
    }
    // What is read by programs stays what it is.
    let json = String::from_utf8(node.command(&["read", "--json"]).output().unwrap().stdout).unwrap();
    assert!(json.contains('\u{9b}'), "{json}");
}

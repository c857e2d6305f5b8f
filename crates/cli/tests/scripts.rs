//! Scripts through the real binary, with golden output.

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;

use dacapo_api::fake::{Fault, node_status};
use dacapo_api::{
    EffectLetter, FlipResponse, HistoryEntry, Letter, Problem, ReplayResponse, Status, Verification, WaitingOn, Waiver,
};

use common::{Node, dacapo, with_input};

fn status(json: &str) -> Status {
    let projections = serde_json::from_str(json).unwrap();
    Status { projections, ..node_status(100_000) }
}

/// A rebuild in the middle: v1.1 serves, v2.1 replays.
fn replaying() -> Status {
    status(
        r#"[{"name":"balances","serving":"v1.1","versions":[
            {"version":"v1.1","phase":"Serving","since":"2026-03-01T10:00:00Z","carried":true,"covers":100000,"lag":0,
             "rollback_ready":false,"segments":[{"segment":0,"position":100000,"lag":0,"epoch":1,"held":false},
             {"segment":1,"position":100000,"lag":0,"epoch":1,"held":true}]},
            {"version":"v2.1","phase":"Initializing","stage":"Replaying","since":"2026-03-01T11:59:00Z","carried":true,
             "covers":51790,"lag":48210,"lag_seconds":184.2,"rate":212000.4,"arrivals":3000,
             "time_left":{"seconds":0.23,"basis":"the last 10 s"},
             "rollback_ready":false,"segments":[{"segment":0,"position":51790,"lag":48210,"epoch":1,"held":false}],
             "waiting_on":[{"kind":"segment","segment":0,"text":"segment 0 of v2.1, 48210 behind"}]}]},
          {"name":"loans","versions":[
            {"version":"v3.2","phase":"Failed","since":"2026-03-01T10:00:00Z","carried":false,"rollback_ready":false,
             "segments":[],"reason":"the handler refuses event 7: no amount"}]}]"#,
    )
}

/// A flip under way, and a version that stands by.
fn flipping() -> Status {
    status(
        r#"[{"name":"balances","serving":"v2.1",
            "flip":{"to":"v2.2","from":"v2.1","kind":"flip","requested":99990,"waiting_on":[
              {"kind":"segment","text":"segment 3 of v2.2, 7 behind"},{"kind":"code","text":"a node that carries v2.2"}]},
            "versions":[
            {"version":"v1.1","phase":"StandingBy","since":"2026-03-01T10:00:00Z","carried":true,"covers":100000,"lag":0,
             "rollback_ready":true,"segments":[{"segment":0,"position":100000,"lag":0,"epoch":1,"held":false}],
             "waiting_on":[{"kind":"stand_by","text":"the end of its stand-by in 3600 s"}]},
            {"version":"v1.2","phase":"StandingBy","since":"2026-03-01T10:00:00Z","carried":true,"covers":10,"lag":99990,
             "lag_seconds":66660,"rate":1.5,"no_time_left":"at this pace it never catches up: b",
             "stall":{"seconds":7,"text":"no progress for 7 s, it waits on the store: full","waiting_on":[
               {"kind":"store","text":"the store: full"}]},
             "waiting_on":[{"kind":"store","text":"the store: full"}],
             "rollback_ready":false,"rollback_not_ready":"segment 0 of v1.2, 99990 behind","segments":[]},
            {"version":"v2.1","phase":"Serving","since":"2026-03-01T10:00:00Z","carried":true,"rollback_ready":false,
             "segments":[],"lag":0},
            {"version":"v2.2","phase":"Initializing","stage":"Ready","since":"2026-03-01T10:00:00Z","carried":true,
             "rollback_ready":false,"segments":[],"lag":7}]}]"#,
    )
}

fn built(phase: &str, waiting: &str) -> Status {
    status(&format!(
        r#"[{{"name":"balances","versions":[{{"version":"v2.1","phase":"{phase}","since":"2026-03-01T10:00:00Z",
            "carried":true,"rollback_ready":false,"segments":[],"reason":null,"waiting_on":[{waiting}]}}]}}]"#
    ))
}

fn dir() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn events() {
    Node::start().script("events", dir().path());
}

#[test]
fn status_of_a_rebuild() {
    let node = Node::start();
    node.fake.script().statuses.push_back(replaying());
    node.script("status", dir().path());
}

#[test]
fn status_of_subscribers() {
    let node = Node::start();
    let subscribers = serde_json::from_str(
        r#"[{"name":"cache","position":100000,"lag":0,"failed":0},
            {"name":"push","position":98766,"lag":1234,"failed":2,
             "last_failure":{"position":98000,"error":"the client is gone"},
             "waiting_on":[{"kind":"store","text":"the store: cannot read"}]}]"#,
    );
    node.fake.script().statuses.push_back(Status { subscribers: subscribers.unwrap(), ..status("[]") });
    node.script("status_subscribers", dir().path());
}

#[test]
fn status_of_several_members() {
    let node = Node::start();
    let members = serde_json::from_str(
        r#"[{"id":"0a0b0c01","name":"one","address":"http://10.0.0.1:7373","ready":true,"carries":["balances v1"]},
            {"id":"0a0b0c02","name":"two","ready":true,"carries":["balances v1","balances v2"]},
            {"id":"0a0b0c03","name":"three","address":"http://10.0.0.3:7373","ready":false,"carries":[]}]"#,
    );
    let mut shared = replaying();
    for (version, owners) in [(0, ["0a0b0c01", "0a0b0c02"]), (1, ["0a0b0c02", ""])] {
        let segments = &mut shared.projections[0].versions[version].segments;
        segments.iter_mut().zip(owners).for_each(|(segment, owner)| segment.owner = Some(owner.to_owned()));
    }
    node.fake.script().statuses.push_back(Status { members: members.unwrap(), ..shared });
    node.script("status_members", dir().path());
}

#[test]
fn status_of_a_flip() {
    let node = Node::start();
    node.fake.script().statuses.push_back(flipping());
    node.script("status_flip", dir().path());
}

#[test]
fn operations() {
    let node = Node::start();
    let waiting: FlipResponse = serde_json::from_str(
        r#"{"projection":"balances","kind":"flip","from":"v1.1","to":"v2.1","requested":8,"flipped":false,
            "waiting_on":[{"kind":"segment","text":"segment 0 of v2.1, 48210 behind"}]}"#,
    )
    .unwrap();
    node.fake.script().statuses.push_back(replaying());
    node.fake.script().flips.extend([waiting.clone(), waiting.clone(), waiting]);
    let replaying: ReplayResponse = serde_json::from_str(
        r#"{"projection":"balances","version":"v1.1","requested":9,"ended":false,
            "waiting_on":[{"kind":"replay","text":"the end of the replay of v1.1, at position 11 of 99000"}]}"#,
    )
    .unwrap();
    node.fake.script().replays.extend([replaying.clone(), replaying]);
    let entries = [
        r#"{"position":1,"time":"2026-03-01T12:00:00Z","projection":"balances","version":"v1.1",
            "event":"version_scheduled","text":"v1.1 scheduled, 4 segments"}"#,
        r#"{"position":1204,"time":"2026-03-01T12:00:01.5Z","projection":"balances","version":"v1.1","event":"flipped",
            "text":"v1.1 serves, the first to do so; covers 1203","actor":"ana","reason":"first","covers":1203}"#,
    ];
    node.fake.script().history.extend(entries.map(|entry| serde_json::from_str::<HistoryEntry>(entry).unwrap()));
    node.script("operations", dir().path());
    let script = node.fake.script();
    assert_eq!(script.asked[0]["request"]["actor"], "ana");
    assert_eq!(script.asked[0]["request"]["reason"], "new fees");
    // Every try of the flip that was waited for carried one key and the version of the first answer.
    let (second, third) = (&script.asked[2]["request"], &script.asked[3]["request"]);
    assert_eq!(second["idempotency_key"], third["idempotency_key"]);
    assert_ne!(script.asked[1]["request"]["idempotency_key"], second["idempotency_key"]);
    assert_eq!(third["to"], "v2.1");
}

#[test]
fn a_flip_to_an_older_version_says_what_it_is() {
    let node = Node::start();
    node.fake.script().statuses.push_back(replaying());
    let back: FlipResponse = serde_json::from_str(
        r#"{"projection":"balances","kind":"rollback","from":"v2.1","to":"v1.1","requested":8,"flipped":true,
            "position":9,"covers":8,"pause_ms":12}"#,
    )
    .unwrap();
    node.fake.script().flips.push_back(back);
    node.script("flip_back", dir().path());
}

#[test]
fn a_flip_that_waits_for_somebody_says_so_at_once() {
    let node = Node::start();
    let answer = |rest: &str| {
        let text =
            format!(r#"{{"projection":"balances","kind":"flip","from":"v1.1","to":"v2.1","requested":8,{rest}}}"#);
        serde_json::from_str(&text).unwrap()
    };
    let paused = r#""flipped":false,"waiting_on":[{"kind":"paused","text":"the command to resume: it is paused"}]"#;
    let done = r#""flipped":true,"position":9,"covers":8"#;
    node.fake.script().statuses.push_back(replaying());
    node.fake.script().flips.extend([answer(paused), answer(paused), answer(done)]);
    node.script("flip_paused", dir().path());
}

#[test]
fn letters() {
    let node = Node::start();
    node.fake.script().statuses.push_back(replaying());
    let letter = |position: u64, rest: &str| {
        let event = format!(
            r#"{{"position":{position},"revision":{position},"id":"00000000-0000-7000-8000-000000000007",
                "stream":"account-1","type":"deposited","time":"2026-03-01T12:00:00Z","data":{{"amount":5}}}}"#
        );
        let text = format!(r#"{{"event":{event},"segment":0,"time":"2026-03-01T12:00:01Z",{rest}}}"#);
        serde_json::from_str::<Letter>(&text).unwrap()
    };
    node.fake.script().letters.extend([
        letter(7, r#""kind":"refused","error":"no fee is known for account-1","attempts":10"#),
        letter(8, r#""kind":"behind","first":7,"error":"no fee is known for account-1","attempts":0,"wish":"retry""#),
    ]);
    let effect = |number: u64, rest: &str| {
        let text = format!(
            r#"{{"number":{number},"key":"balances-7-0","position":7,"stream":"account-1","name":"mail",
                "data":{{"to":"ann"}},"attempts":3,"error":"no stamps",{rest}}}"#
        );
        serde_json::from_str::<EffectLetter>(&text).unwrap()
    };
    node.fake.script().effects.extend([
        effect(4, r#""state":"failing","time":"2026-03-01T12:00:09.5Z""#),
        effect(5, r#""state":"set_aside","time":"2026-03-01T12:00:01Z""#),
    ]);
    node.script("letters", dir().path());
    let script = node.fake.script();
    let of_effects = script.asked.iter().filter(|asked| asked["request"]["effects"] == true);
    assert_eq!(of_effects.map(|asked| &asked["call"]).collect::<Vec<_>>(), ["retry_letters", "drop_letters"]);
    let set_aside = script.asked.iter().find(|asked| asked["call"] == "set_aside").unwrap();
    assert_eq!(set_aside["request"]["reason"], "nobody knows this account");
    assert_eq!(script.asked[0]["request"]["position"], 7);
    assert_eq!(script.asked[0]["request"]["reason"], "the fees are known now");
    assert_eq!(script.asked[2]["call"], "drop_letters");
}

#[test]
fn a_rebuild_is_waited_for() {
    for (name, last) in [
        ("rebuild_serving", built("Serving", "")),
        ("rebuild_ready", built("Initializing", r#"{"kind":"flip_command","text":"the command to flip"}"#)),
        ("rebuild_failed", built("Failed", "")),
        (
            "rebuild_not_right",
            built(
                "Initializing",
                r#"{"kind":"verdict","text":"a verdict that lets v2.1 serve (rows: 12 rows differ)"}"#,
            ),
        ),
    ] {
        let node = Node::start();
        node.fake.script().statuses.extend([replaying(), replaying(), last]);
        node.script(name, dir().path());
    }
}

/// A verification that found rows wrong, as a node tells it.
fn not_right() -> Verification {
    serde_json::from_str(
        r#"{"projection":"balances","version":"v2.1","phase":"Initializing","verdict":"Fail","position":1300,
            "waiting_on":{"kind":"verdict","text":"a verdict that lets v2.1 serve (rows: 12 rows differ)"},
            "report":{"at":1204,"against":"v1.1","required":["counts","checks"],"summary":"rows: 12 rows differ",
              "parts":[
                {"part":"counts","outcome":"failed","looked_at":1200,"wrong":{"count":1,"letter":1},
                 "wrong_text":["1 segment miscounts","1 event set aside"],"notes":["3 events skipped, as the policy is"],
                 "findings":[
                   {"kind":"count","place":"segment 2","old":"400 events in the journal, of positions 1 through 1204",
                    "new":"399 events applied or set aside"},
                   {"kind":"letter","place":"segment 0","key":"event 17 of account-3","old":"deposited",
                    "new":"set aside after 5 tries: the amount is below zero"}]},
                {"part":"checks","outcome":"failed","looked_at":2,"wrong":{"check":2},"wrong_text":["2 checks failed"],
                 "findings":[
                   {"kind":"check","place":"no balance is below zero","old":"no row","new":"account account-9, balance -5"},
                   {"kind":"check","place":"the books are closed"}]},
                {"part":"rows","outcome":"failed","looked_at":40,"wrong":{"missing":1,"differs":12},
                 "wrong_text":["1 row missing","12 rows differ"],"notes":["column accounts.owner is new"],
                 "findings":[
                   {"kind":"missing","place":"accounts","key":"account-2","old":"balance 500, entries 1"},
                   {"kind":"differs","place":"accounts","key":"account-7","old":"balance 500, entries 3",
                    "new":"balance 1000, entries 3"}]},
                {"part":"answers","outcome":"not_done","why":"no query was put to both versions","looked_at":0}]}}"#,
    )
    .unwrap()
}

#[test]
fn verifications() {
    let node = Node::start();
    let verifying = r#"{"projection":"balances","version":"v2.1","phase":"Initializing","again":true,
        "waiting_on":{"kind":"verification","text":"the verification of v2.1: rows, 12000 rows so far"}}"#;
    let verifying: Verification = serde_json::from_str(verifying).unwrap();
    let waiver = Waiver { by: "ana".into(), why: "the new fees".into() };
    let waived = || Verification {
        verdict: Some("Waived".into()),
        waived: Some(waiver.clone()),
        waiting_on: None,
        ..not_right()
    };
    let mut passed = waived();
    (passed.verdict, passed.waived) = (Some("Pass".into()), None);
    let report = passed.report.as_mut().unwrap();
    report.summary.clear();
    report.parts.retain(|part| part.part == "answers");
    passed.live = serde_json::from_str(r#"{"part":"answers","outcome":"passed","looked_at":1500}"#).unwrap();
    node.fake.script().statuses.push_back(replaying());
    let failed = r#"{"projection":"balances","version":"v2.1","phase":"Failed"}"#;
    let failed: Verification = serde_json::from_str(failed).unwrap();
    let halting = |kind: &str, text: &str| {
        let waiting_on = serde_json::from_value(serde_json::json!({"kind": kind, "text": text})).unwrap();
        Verification { waiting_on: Some(waiting_on), halts: true, again: false, ..verifying.clone() }
    };
    let refuses = "the handler, which refuses event 7 in segment 2 (try 10): no fee is known for account-1";
    let behind: WaitingOn = serde_json::from_value(serde_json::json!({"kind": "copy", "text": "a copy"})).unwrap();
    let behind = Verification { waiting_on: Some(behind), ..verifying.clone() };
    let answers = [
        verifying.clone(),
        not_right(),
        waived(),
        not_right(),
        verifying.clone(),
        passed,
        verifying.clone(),
        failed,
        halting("handler", refuses),
        behind,
        halting("handler", refuses),
        halting("paused", "the command to resume: it is paused"),
    ];
    node.fake.script().verifications.extend(answers);
    node.script("verify", dir().path());
    let script = node.fake.script();
    let calls: Vec<_> = script.asked.iter().map(|asked| asked["call"].as_str().unwrap()).collect();
    assert_eq!(calls, ["waive", "verify"]);
    assert_eq!(script.asked[0]["request"]["reason"], "the new fees");
}

#[test]
fn imports() {
    let (node, dir) = (Node::start(), dir());
    let lines = [
        r#"{"stream":"account-1","type":"opened","data":{"limit":1.0},"time":"2011-09-30T22:38:44.546Z"}"#,
        "",
        r#"{"stream":"account-1","type":"deposited","data":5,"tags":["branch:7"]}"#,
        r#"{"stream":"account-2","type":"opened"}"#,
        r#"{"stream":"account-2","type":"opened","data":null}"#,
    ];
    std::fs::write(dir.path().join("events.jsonl"), lines.join("\n")).unwrap();
    node.script("import", dir.path());
}

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

#[test]
fn an_address_others_can_reach_needs_the_word() {
    let served = dacapo(&["serve", "--listen", "0.0.0.0:0"], "").output().unwrap();
    let text = String::from_utf8(served.stderr).unwrap();
    assert!(served.status.code() == Some(2) && text.contains("--allow-remote"), "{text}");
}

/// A node of this command line, and the address that it says it listens on.
fn served(command: &mut std::process::Command) -> (std::process::Child, String) {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.strip_prefix("listening on http://").and_then(|rest| rest.split_once(',')).unwrap().0.to_owned();
    (child, address)
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
    assert!(log.contains("cannot take another connection") && log.contains("ulimit -n"), "{log}");
    assert!(!log.contains('\x1b'), "no terminal is there to show colours: {log:?}");
    drop(all);
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
        &["flip", "balances", "--to", "v02.1"],
        &["rollback", "balances", "--to", "2.1"],
        &["cleanup", "balances", "v+1.1"],
        &["pause", "balances", "1"],
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

#[cfg(unix)]
#[test]
fn a_directory_that_may_not_be_looked_into_is_not_told_as_empty() {
    use std::os::unix::fs::symlink;
    let dir = dir();
    // Nobody may look through a link to itself, whoever runs the test.
    symlink("loop", dir.path().join("loop")).unwrap();
    for command in ["status", "streams"] {
        let output = dacapo(&[command, "--data", "loop"], "").current_dir(dir.path()).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(5) && told.contains("cannot look into loop"), "{told}");
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
    assert!(told.contains("goes on") && told.contains("`dacapo status`") && told.contains("`dacapo cancel`"), "{told}");
}

fn interrupt(child: &std::process::Child) {
    let sent = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

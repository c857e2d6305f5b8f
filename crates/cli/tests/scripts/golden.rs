//! Transcripts of commands, with golden output.

use dacapo_api::{
    EffectLetter, FlipResponse, HistoryEntry, Letter, ReplayResponse, Status, Verification, WaitingOn, Waiver,
};

use super::setup::{built, dir, flipping, replaying, status};
use crate::common::Node;

#[test]
fn events() {
    Node::start().script("events", dir().path());
}

#[test]
fn status_of_a_halt_names_the_commands_that_settle_it() {
    let node = Node::start();
    let mut halted = replaying();
    let reason = |json| serde_json::from_value::<WaitingOn>(json).unwrap();
    halted.projections[0].versions[0].waiting_on = vec![
        reason(serde_json::json!({"kind": "handler", "text": "the handler, which refuses event 7", "position": 7})),
        reason(serde_json::json!({"kind": "effect", "text": "an effect of event 6"})),
    ];
    node.fake.script().statuses.push_back(halted);
    node.script("status_halted", dir().path());
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
        segments.iter_mut().zip(owners).for_each(|(segment, owner)| segment.claimed_by = Some(owner.to_owned()));
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
            "waiting_on":[{"kind":"segment","text":"segment 0 of v2.1 (lag 48,210)"}]}"#,
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
            "text":"v1.1 serves, the first to do so; covers 1,203","actor":"ana","reason":"first","covers":1203}"#,
    ];
    node.fake.script().history.extend(entries.map(|entry| serde_json::from_str::<HistoryEntry>(entry).unwrap()));
    node.script("operations", dir().path());
    let long = HistoryEntry { reason: Some("r".repeat(4_000)), ..node.fake.script().history[0].clone() };
    node.fake.script().history = vec![long.clone()];
    let cut = node.command(&["phases"]).env("COLUMNS", "2000").output().unwrap();
    let cut = String::from_utf8(cut.stdout).unwrap();
    assert!(cut.contains("r… (4,000 bytes, whole with --json)") && cut.len() < 1_500, "{cut}");
    let whole = node.command(&["phases", "--json"]).output().unwrap();
    assert_eq!(serde_json::from_slice::<HistoryEntry>(&whole.stdout).unwrap(), long);
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
fn a_flip_that_waits_for_somebody_says_so_at_once() {
    let node = Node::start();
    let answer = |rest: &str| {
        let text =
            format!(r#"{{"projection":"balances","kind":"flip","from":"v1.1","to":"v2.1","requested":8,{rest}}}"#);
        serde_json::from_str(&text).unwrap()
    };
    let paused =
        r#""flipped":false,"waiting_on":[{"kind":"paused","text":"the command `resume`: the version is paused"}]"#;
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
        letter(8, r#""kind":"blocked","first":7,"error":"no fee is known for account-1","attempts":0,"wish":"retry""#),
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
        ("rebuild_ready", built("Initializing", r#"{"kind":"flip_command","text":"the command `flip`"}"#)),
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
        let waiting_on =
            serde_json::from_value(serde_json::json!({"kind": kind, "text": text, "position": 7})).unwrap();
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
        halting("paused", "the command `resume`: the version is paused"),
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

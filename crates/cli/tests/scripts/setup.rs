//! What a fake node answers, and nodes of the binary itself.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use dacapo_api::Status;
use dacapo_api::fake::node_status;

pub(super) fn status(json: &str) -> Status {
    let projections = serde_json::from_str(json).unwrap();
    Status { projections, ..node_status(100_000) }
}

/// A rebuild in the middle: v1.1 serves, v2.1 replays.
pub(super) fn replaying() -> Status {
    status(
        r#"[{"name":"balances","serving":"v1.1","versions":[
            {"version":"v1.1","phase":"Serving","since":"2026-03-01T10:00:00Z","carried":true,"covers":100000,"lag":0,
             "rollback_ready":false,"segments":[{"segment":0,"position":100000,"lag":0,"epoch":1,"held":false},
             {"segment":1,"position":100000,"lag":0,"epoch":1,"held":true}]},
            {"version":"v2.1","phase":"Initializing","stage":"Replaying","since":"2026-03-01T11:59:00Z","carried":true,
             "covers":51790,"lag":48210,"lag_seconds":184.2,"rate":212000.4,"arrivals":3000,
             "time_left":{"seconds":0.23,"basis":"the last 10 s"},
             "rollback_ready":false,"segments":[{"segment":0,"position":51790,"lag":48210,"epoch":1,"held":false}],
             "waiting_on":[{"kind":"segment","segment":0,"text":"segment 0 of v2.1 (lag 48,210)"}]}]},
          {"name":"loans","versions":[
            {"version":"v3.2","phase":"Failed","since":"2026-03-01T10:00:00Z","carried":false,"rollback_ready":false,
             "segments":[],"reason":"the handler refuses event 7: no amount"}]}]"#,
    )
}

/// A flip under way, and a version that stands by.
pub(super) fn flipping() -> Status {
    status(
        r#"[{"name":"balances","serving":"v2.1",
            "flip":{"to":"v2.2","from":"v2.1","kind":"flip","requested":99990,"waiting_on":[
              {"kind":"segment","text":"segment 3 of v2.2 (lag 7)"},{"kind":"code","text":"a node that carries v2.2"}]},
            "versions":[
            {"version":"v1.1","phase":"StandingBy","since":"2026-03-01T10:00:00Z","carried":true,"covers":100000,"lag":0,
             "rollback_ready":true,"segments":[{"segment":0,"position":100000,"lag":0,"epoch":1,"held":false}],
             "waiting_on":[{"kind":"stand_by","text":"the end of its stand-by, in 3600 s"}]},
            {"version":"v1.2","phase":"StandingBy","since":"2026-03-01T10:00:00Z","carried":true,"covers":10,"lag":99990,
             "lag_seconds":66660,"rate":1.5,"no_time_left":"at this pace it never catches up: b",
             "stall":{"seconds":7,"text":"no progress for 7 s, it waits on the store: full","waiting_on":[
               {"kind":"store","text":"the store: full"}]},
             "waiting_on":[{"kind":"store","text":"the store: full"}],
             "rollback_ready":false,"rollback_not_ready":"segment 0 of v1.2 (lag 99,990)","segments":[]},
            {"version":"v2.1","phase":"Serving","since":"2026-03-01T10:00:00Z","carried":true,"rollback_ready":false,
             "segments":[],"lag":0},
            {"version":"v2.2","phase":"Initializing","stage":"Ready","since":"2026-03-01T10:00:00Z","carried":true,
             "rollback_ready":false,"segments":[],"lag":7}]}]"#,
    )
}

pub(super) fn built(phase: &str, waiting: &str) -> Status {
    status(&format!(
        r#"[{{"name":"balances","versions":[{{"version":"v2.1","phase":"{phase}","since":"2026-03-01T10:00:00Z",
            "carried":true,"rollback_ready":false,"segments":[],"reason":null,"waiting_on":[{waiting}]}}]}}]"#
    ))
}

pub(super) fn dir() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// A node of this command line, and the address that it says it listens on.
pub(super) fn served(command: &mut std::process::Command) -> (std::process::Child, String) {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.strip_prefix("listening on http://").and_then(|rest| rest.split_once(',')).unwrap().0.to_owned();
    (child, address)
}

pub(super) fn interrupt(child: &std::process::Child) {
    let sent = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

//! The binary with real nodes: on a directory in its own process, served, and under the demo.

#![cfg(unix)]

mod common;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::Arc;

use dacapo_api::{Api, ApiError, ClientLimits, HttpClient, PhasesRequest, ReadRequest};
use dacapo_model::{
    CatalogEvent, CleanUpReason, EventId, ExpectedRevision, FlipPolicy, Metadata, NewEvent, ProjectionName,
    SegmentCount, ViewId,
};
use dacapo_postgres::testbed::Server;
use dacapo_store::{Append, Store, SystemClock, catalog_form};
use serde_json::{Value, json};

use common::{dacapo, script};

const NOWHERE: &str = "http://127.0.0.1:1";

/// A command that continues until it is asked to end. What it says is read line by line.
struct Running {
    process: Child,
    out: BufReader<ChildStdout>,
    err: BufReader<ChildStderr>,
}

impl Running {
    fn start(args: &[&str]) -> Self {
        let mut command = dacapo(args, NOWHERE);
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (out, err) = (process.stdout.take().unwrap(), process.stderr.take().unwrap());
        Self { process, out: BufReader::new(out), err: BufReader::new(err) }
    }

    /// The address that comes after `mark` in the first line with it.
    fn address(lines: &mut impl BufRead, mark: &str) -> String {
        let line = lines.lines().map(Result::unwrap).find(|line| line.contains(mark));
        let line = line.unwrap_or_else(|| panic!("it ended without a line with {mark:?}"));
        let (_, address) = line.split_once(mark).unwrap();
        let end = address.find([',', ' ']).unwrap_or(address.len());
        format!("http://{}", &address[..end])
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([name, &self.process.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// How it ended, with the rest of what it said on either output.
    fn end(mut self) -> (ExitStatus, String, String) {
        let (mut out, mut err) = (String::new(), String::new());
        self.err.read_to_string(&mut err).unwrap();
        self.out.read_to_string(&mut out).unwrap();
        (self.process.wait().unwrap(), out, err)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended, unless the test fails.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn output(args: &[&str], url: &str) -> String {
    let output = dacapo(args, url).output().unwrap();
    assert!(output.status.success(), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_directory_is_worked_on_without_a_server() {
    let dir = tempfile::tempdir().unwrap();
    let line =
        |stream: u32, n: u32| format!(r#"{{"stream":"account-{stream}","type":"deposited","data":{{"n":{n}}}}}"#);
    let lines: Vec<String> = (0..3_000).map(|n| line(n % 7, n)).collect();
    std::fs::write(dir.path().join("events.jsonl"), lines.join("\n")).unwrap();
    script("directory", dir.path(), NOWHERE);
}

/// Returns true if this process ignores a hang-up, as under `nohup`: what it starts ignores it, too. Only Linux tells.
fn ignores_hang_up() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_none_or(|mask| mask & 1 == 1)
}

#[test]
fn a_served_node_ends_in_order_when_it_is_asked_to() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let data = data.to_str().unwrap();
    let signals: &[&str] = if ignores_hang_up() { &["-INT", "-TERM"] } else { &["-INT", "-TERM", "-HUP"] };
    for (round, signal) in signals.iter().enumerate() {
        let mut node = Running::start(&["serve", "--data", data, "--listen", "127.0.0.1:0"]);
        let url = Running::address(&mut node.out, "listening on http://");
        let appended = output(&["append", "a-1", "--type", "t", "--data", "1"], &url);
        let position = round + 1;
        assert_eq!(appended, format!("a-1 revision {position} at position {position}\n"));
        let refused = dacapo(&["status", "--data", data], &url).output().unwrap();
        let refused = String::from_utf8(refused.stderr).unwrap();
        assert!(refused.contains(&format!("process {} has owned it", node.process.id())), "{refused}");

        node.signal(signal);
        let (ended, _, log) = node.end();
        assert!(ended.success(), "{signal}: {ended}, {log}");
        let read = output(&["read", "--data", data], NOWHERE);
        assert_eq!(read.lines().count(), position, "I-2: {read}");
    }
}

#[test]
fn repair_ends_with_the_number_of_what_it_met() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let repair = |wanted: i32| {
        let ended = dacapo(&["repair", "--data", data.to_str().unwrap()], NOWHERE).output().unwrap();
        assert_eq!(ended.status.code(), Some(wanted), "{ended:?}");
    };
    repair(4);
    let mut node = Running::start(&["serve", "--data", data.to_str().unwrap(), "--listen", "127.0.0.1:0"]);
    let url = Running::address(&mut node.out, "listening on http://");
    output(&["append", "a-1", "--type", "t", "--data", "1"], &url);
    repair(5);
    node.signal("-TERM");
    assert!(node.end().0.success());
    repair(0);
    // What was acknowledged cannot be made again from nothing.
    std::fs::remove_file(data.join("journal/chunk-00000000000000000001.log")).unwrap();
    repair(7);
}

/// Scripts read it.
#[test]
fn what_a_repair_would_do_is_told_as_json_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let data = data.to_str().unwrap();
    for _ in 0..2 {
        output(&["append", "a-1", "--type", "t", "--data", "1", "--data-dir", data], NOWHERE);
    }
    let repair = |apply: &[&str]| -> Value {
        let args = [&["repair", "--data", data, "--json"], apply].concat();
        serde_json::from_str(&output(&args, NOWHERE)).unwrap()
    };
    assert_eq!(repair(&[]), json!({ "problem": null, "applied": false, "steps": [] }));
    // The last event, which was acknowledged.
    let chunk = dir.path().join("data/journal/chunk-00000000000000000001.log");
    let mut bytes = std::fs::read(&chunk).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&chunk, bytes).unwrap();
    let before = files(dir.path());
    let shown = repair(&[]);
    assert_eq!(files(dir.path()), before);
    let kinds: Vec<&Value> = shown["steps"].as_array().unwrap().iter().map(|step| &step["kind"]).collect();
    assert_eq!(kinds, [&json!("cut_off"), &json!("write_commit"), &json!("give_up")]);
    let given_up = &shown["steps"][2];
    assert_eq!((&given_up["after"], &given_up["through"]), (&json!(1), &json!(2)));
    assert!(given_up["text"].as_str().is_some_and(|text| text.starts_with("GIVE UP")), "{shown}");
    assert!(shown["problem"].as_str().is_some_and(|problem| problem.contains("is damaged")), "{shown}");
    assert_eq!(repair(&["--apply"])["applied"], json!(true));
    assert_eq!(repair(&[])["problem"], json!(null));
    std::fs::remove_file(&chunk).unwrap();
    let ended = dacapo(&["repair", "--data", data, "--json"], NOWHERE).output().unwrap();
    let refused: Value = serde_json::from_slice(&ended.stderr).unwrap();
    assert_eq!((ended.status.code(), &refused["code"]), (Some(7), &json!("damaged")));
}

/// Every file in the directory, byte for byte.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        match entry.file_type().unwrap().is_dir() {
            true => files.extend(self::files(&entry.path())),
            false => drop(files.insert(entry.path(), std::fs::read(entry.path()).unwrap())),
        }
    }
    files
}

/// A directory with a rebuild under way whose view is another one's, and a clean-up that is due.
fn asked_for_much(data: &Path) {
    let store = Store::embedded(data, Arc::new(SystemClock)).unwrap();
    let view =
        |version: &str| ViewId { projection: ProjectionName::new("books").unwrap(), version: version.parse().unwrap() };
    let (one, two, three) = (view("v1.1"), view("v1.2"), view("v1.3"));
    let scheduled = |view: &ViewId| CatalogEvent::Scheduled {
        view: view.clone(),
        segments: SegmentCount::new(1).unwrap(),
        flip: FlipPolicy::WhenReady,
        fingerprint: "f".into(),
        reads: None,
        seed: None,
    };
    let initializing = |view: &ViewId| CatalogEvent::Initializing { view: view.clone() };
    let events = [
        scheduled(&one),
        initializing(&one),
        CatalogEvent::Failed { view: one.clone(), reason: "no".into() },
        scheduled(&two),
        initializing(&two),
        CatalogEvent::CleaningUp { view: two.clone(), reason: CleanUpReason::Asked },
        scheduled(&three),
        initializing(&three),
    ];
    let new = |(number, event): (usize, &CatalogEvent)| {
        let ((event_type, payload), id) =
            (catalog_form::encode(event), EventId::from_bytes((number as u128 + 1).to_be_bytes()));
        NewEvent { id, event_type, payload, metadata: Metadata::default(), tags: vec![] }
    };
    let events = events.iter().enumerate().map(new).collect();
    let append = Append::to_stream(catalog_form::stream(), ExpectedRevision::Any, events);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        store.journal.append(append).await.unwrap();
        for id in [&one, &two] {
            store.views.open(id, &[], SegmentCount::new(1).unwrap()).await.unwrap();
        }
        store.journal.close().await;
    });
    drop(store);
    let [ours, theirs] = ["v1.1", "v1.3"].map(|version| data.join(format!("views/books/{version}.db")));
    std::fs::copy(ours, theirs).unwrap();
}

#[test]
fn a_command_that_only_looks_changes_no_byte_of_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    asked_for_much(&data);
    let data = data.to_str().unwrap();
    output(
        &["append", "a-1", "--type", "t", "--data", "1", "--data-dir", dir.path().join("other").to_str().unwrap()],
        NOWHERE,
    );
    let before = files(dir.path());
    let commands: &[&[&str]] = &[
        &["status"],
        &["status", "--json"],
        &["read"],
        &["read", "--stream", "a-1"],
        &["streams"],
        &["phases"],
        &["phases", "books"],
        &["letters", "books"],
        &["letters", "books", "--version", "v1.2"],
        &["letters", "books", "--version", "v1.2", "--effects"],
        &["verify", "books"],
        &["verify", "books", "--version", "v1.3"],
        &["repair"],
        &["repair", "--json"],
    ];
    for command in commands {
        let looked = dacapo(&[command, &["--data", data][..]].concat(), NOWHERE).output().unwrap();
        let now = files(dir.path());
        let changed: Vec<_> = now.iter().filter(|(path, bytes)| before.get(*path) != Some(bytes)).collect();
        assert!(changed.is_empty() && now.len() == before.len(), "{command:?} changed {changed:?}: {looked:?}");
    }
    // What changes something carries on what was asked for.
    output(&["append", "a-1", "--type", "t", "--data", "1", "--data-dir", data], NOWHERE);
    let phases = output(&["phases", "--data", data], NOWHERE);
    assert!(phases.contains("view of v1.2 gone") && phases.contains("v1.3 failed"), "{phases}");
}

#[test]
fn a_reader_beyond_the_end_is_told_where_that_is() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut node = Running::start(&["serve", "--data", data.to_str().unwrap(), "--listen", "127.0.0.1:0"]);
    let url = Running::address(&mut node.out, "listening on http://");
    for _ in 0..29 {
        output(&["append", "a-1", "--type", "t", "--data", "1"], &url);
    }
    for args in [&["read", "--after", "100"][..], &["read", "--after", "100", "--follow"]] {
        let refused = dacapo(args, &url).output().unwrap();
        assert!(!refused.status.success() && refused.stdout.is_empty(), "{args:?}: {refused:?}");
        let said = String::from_utf8(refused.stderr).unwrap();
        assert!(said.contains("position 100 is not in the journal, which ends at position 29"), "{said}");
    }
    let refused = dacapo(&["read", "--after", "100", "--stream", "a-1"], &url).output().unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("revision 100 is not in stream a-1, which ends at revision 29"), "{said}");

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = HttpClient::new(&url, ClientLimits::default()).unwrap();
    let read = |after, stream: Option<&str>| {
        let request =
            ReadRequest { after, stream: stream.map(str::to_owned), wait_ms: Some(30_000), ..Default::default() };
        runtime.block_on(client.read(request))
    };
    let fields = |found: Result<(), ApiError>| match found {
        Err(ApiError::Refused(problem)) => Value::Object(problem.fields),
        other => panic!("{other:?}"),
    };
    assert_eq!(fields(read(100, None).map(drop)), json!({"after": 100, "head": 29}));
    assert_eq!(fields(read(30, Some("a-1")).map(drop)), json!({"stream": "a-1", "after": 30, "last": 29}));
    let phases = PhasesRequest { projection: None, after: 30, limit: None };
    assert_eq!(fields(runtime.block_on(client.phases(phases)).map(drop)), json!({"after": 30, "head": 29}));
    // At the end is not beyond it.
    let at_end = ReadRequest { after: 29, ..ReadRequest::default() };
    let answer = runtime.block_on(client.read(at_end)).unwrap();
    assert_eq!((answer.events.len(), answer.through, answer.head), (0, 29, 29));
}

#[test]
fn nodes_on_one_database_have_the_same_events_and_show_each_other() {
    let server = Server::shared();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let url = runtime.block_on(server.database());
    let serve = |more: &[&str]| {
        let own = ["serve", "--store", &url, "--schema", "of_two", "--listen", "127.0.0.1:0"];
        let mut node = Running::start(&[&own[..], more].concat());
        let at = Running::address(&mut node.out, "listening on http://");
        (node, at)
    };
    let (one, at_one) = serve(&["--name", "one", "--address", "http://one.internal:7373"]);
    let (two, at_two) = serve(&[]);
    let appended = output(&["append", "a-1", "--type", "t", "--data", "1"], &at_one);
    assert_eq!(appended, "a-1 revision 1 at position 1\n");
    let mut read = dacapo(&["read", "--follow"], &at_two).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(read.stdout.take().unwrap()).read_line(&mut line).unwrap();
    read.kill().unwrap();
    read.wait().unwrap();
    assert!(line.contains("a-1"), "{line}");
    // Anyone who came first learns of the other when it renews its lease.
    let shown = loop {
        let shown = output(&["status"], &at_one);
        if shown.contains(&at_two) {
            break shown;
        }
    };
    assert!(shown.contains("schema of_two") && shown.contains("http://one.internal:7373"), "{shown}");
    assert!(output(&["status"], &at_two).starts_with(&at_two), "without a name it is the address");
    for node in [one, two] {
        node.signal("-TERM");
        let (ended, _, log) = node.end();
        assert!(ended.success(), "{ended}, {log}");
    }
}

#[test]
fn a_database_that_is_not_there_is_told_with_what_to_do() {
    let nowhere = ["serve", "--store", "postgres://me:secret@127.0.0.1:1/none", "--listen", "127.0.0.1:0"];
    let refused = dacapo(&nowhere, NOWHERE).output().unwrap();
    let told = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(5), "{told}");
    assert!(told.contains("check that the server runs") && !told.contains("secret"), "{told}");
    let both = dacapo(&["serve", "--store", "postgres://one/db", "--data", "d"], NOWHERE).output().unwrap();
    assert_eq!(both.status.code(), Some(2));
}

#[test]
fn an_address_that_is_taken_is_told_before_the_directory_is_touched() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for command in ["serve", "demo"] {
        let args = [command, "--listen", &address, "--data", data.to_str().unwrap()];
        let refused = dacapo(&args, NOWHERE).output().unwrap();
        let text = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(5), "{text}");
        assert!(text.starts_with(&format!("dacapo: cannot listen on {address}: ")), "{text}");
        assert!(text.contains("--listen"), "{text}");
        assert!(!data.exists());
    }
}

fn demo(data: &Path, more: &[&str]) -> Running {
    let small = ["demo", "--events", "5000", "--accounts", "200", "--clients", "2", "--listen", "127.0.0.1:0"];
    Running::start(&[&small[..], &["--data", data.to_str().unwrap()], more].concat())
}

#[test]
fn the_demo_gives_its_account_and_stays_up_if_asked_to() {
    let dir = tempfile::tempdir().unwrap();
    let mut running = demo(dir.path(), &["--json", "--keep"]);
    let url = Running::address(&mut running.err, "it stays up until Ctrl-C: dacapo status --at http://");
    let status = output(&["status"], &url);
    assert!(status.starts_with("demo  dacapo ") && status.contains("balances    v2.1     Serving"), "{status}");
    let history = output(&["phases", "balances", "--json"], &url);
    for part in ["the demo flips", "the demo rolls back", "the demo is done with version 1", "view of v1.1 gone"] {
        assert!(history.contains(part), "{history}");
    }
    running.signal("-INT");
    let (ended, out, err) = running.end();
    assert!(ended.success(), "{ended}: {err}");
    assert!(err.contains("the data is kept in "), "{err}");

    let summary: serde_json::Map<String, Value> = serde_json::from_str(&out).unwrap();
    let mut keys: Vec<&str> = summary.keys().map(String::as_str).collect();
    keys.sort_unstable();
    let expected = "accounts append_per_s applied_twice events failed flip_pause_ms lost replay_per_s requests rollback_ms time_travel";
    assert_eq!(keys, expected.split(' ').collect::<Vec<_>>());
    for key in ["failed", "lost", "applied_twice", "time_travel"] {
        assert_eq!(summary[key], 0, "{key}: {out}");
    }
    assert_eq!(summary["accounts"], 200);
    for (key, least) in [("events", 5_000.0), ("requests", 1.0), ("append_per_s", 1.0), ("replay_per_s", 1.0)] {
        assert!(summary[key].as_f64().unwrap() >= least, "{key}: {out}");
    }
    assert!(summary["rollback_ms"].as_f64().unwrap() > 0.0 && summary["flip_pause_ms"].as_f64().unwrap() > 0.0);

    let again = demo(dir.path(), &[]).end();
    assert!(again.0.code() == Some(3) && again.2.contains("is not empty"), "{again:?}");
}

#[test]
fn the_demo_ends_in_order_when_it_is_broken_off() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let (path, address) = (data.to_str().unwrap(), "--at http://");
    let args = ["demo", "--events", "1000000000", "--data", path, "--listen", "127.0.0.1:0"];
    let mut running = Running::start(&args);
    let url = Running::address(&mut running.err, address);
    // It is in the middle of the fill.
    output(&["read", "--follow", "--limit", "5000"], &url);
    running.signal("-INT");
    let (ended, out, err) = running.end();
    assert_eq!((ended.code(), out.as_str()), (Some(1), ""), "{err}");
    assert!(err.contains("dacapo: the demo was ended before its audit"), "{err}");
    assert!(output(&["status", "--data", path], NOWHERE).contains("balances"));
    let again = demo(&data, &[]).end();
    assert!(again.0.code() == Some(3) && again.2.contains("is not empty"), "{again:?}");
}

#[test]
fn options_that_would_not_be_used_are_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let data = data.to_str().unwrap();
    let refused = |args: &[&str], store: Option<&str>| {
        let mut command = dacapo(args, NOWHERE);
        let output = command.envs(store.map(|url| ("DACAPO_STORE", url))).stdin(Stdio::null()).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    for args in [
        &["append", "a-1", "--type", "put", "--data", "{}", "--data-dir", data, "--at", NOWHERE][..],
        &["status", "--data", data, "--at", NOWHERE],
        &["letters", "retry", "totals", "--all", "--data", data, "--at", NOWHERE],
    ] {
        let told = refused(args, None);
        assert!(told.contains("--data") && told.contains("--at") && told.contains("only one"), "{args:?}: {told}");
    }
    // The payload of an event is called so too, and goes with an address.
    let mut append = dacapo(&["append", "a-1", "--type", "put", "--data", "{}", "--at", NOWHERE], NOWHERE);
    let append = append.stdin(Stdio::null()).output().unwrap();
    assert_eq!(append.status.code(), Some(5), "nobody answers there: {append:?}");
    let told = refused(&["serve", "--data", data, "--schema", "crm"], None);
    assert!(told.contains("--schema") && told.contains("without --store"), "{told}");
    let told = refused(&["serve", "--data", data], Some("postgres://me:s3cret@127.0.0.1:1/db"));
    assert!(told.contains("DACAPO_STORE") && !told.contains("s3cret"), "{told}");
    assert!(!Path::new(data).exists(), "nothing was made");
}

/// Another journal in the place of the one that was followed has other events at the same positions.
#[test]
fn a_follower_does_not_go_on_over_another_journal() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    for (name, events) in [("one", 2), ("two", 3)] {
        let line = |n: u32| format!(r#"{{"stream":"a-{n}","type":"put","data":{n}}}"#);
        std::fs::write(path("events"), (1..=events).map(line).collect::<Vec<_>>().join("\n")).unwrap();
        output(&["import", &path("events"), "--data", &path(name)], NOWHERE);
    }
    let mut one = Running::start(&["serve", "--data", &path("one"), "--listen", "127.0.0.1:0"]);
    let url = Running::address(&mut one.out, "listening on http://");
    let mut follow = Running::start(&["read", "--follow", "--at", &url]);
    for position in 1..=2 {
        let mut line = String::new();
        follow.out.read_line(&mut line).unwrap();
        assert!(line.starts_with(&format!("{position} ")), "{line}");
    }
    one.signal("-TERM");
    assert!(one.end().0.success());
    // Nobody answers for longer than it takes to ask.
    for _ in 0..3 {
        let asked = dacapo(&["status"], &url).stdin(Stdio::null()).output().unwrap();
        assert_eq!(asked.status.code(), Some(5));
    }
    let listen = url.trim_start_matches("http://").to_owned();
    let two = Running::start(&["serve", "--data", &path("two"), "--listen", &listen]);
    let (ended, rest, told) = follow.end();
    assert!(!ended.success() && told.contains("another journal now"), "{ended}: {told}");
    assert_eq!(rest, "");
    two.signal("-TERM");
    assert!(two.end().0.success());
}

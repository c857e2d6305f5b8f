//! The whole path on real input: import the log, serve version 1, rebuild to version 2 while the import
//! goes on, flip, and compare every total with those counted independently of this project.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use dacapo::options::{FlipPolicy, RowScope, SegmentCount};
use dacapo::rows::Value;
use dacapo::{Node, NodeBuilder, Options, Position, Reading};
use dacapo_api::{Api, ClientLimits, HttpClient};
use dacapo_cli::import;
use dacapo_example_loans::{LoansV1, LoansV2};
use dacapo_postgres::testbed::Server;
use dacapo_server::NodeApi;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};

/// Where the log lies beside a checkout, unless `DACAPO_LOANS` names a folder.
const BESIDE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data");
const LOG: &str = "loan-applications.jsonl.gz";
const EXPECTED: &str = "loan-applications.expected.json";

/// A log, gzipped, with the totals that its views must show.
struct Input {
    gzip: Vec<u8>,
    expected: Json,
}

impl Input {
    /// The real log where it is there, else a small one of the same shape.
    fn find() -> Self {
        let folder = std::env::var_os("DACAPO_LOANS").map_or_else(|| PathBuf::from(BESIDE), PathBuf::from);
        match Self::real(&folder) {
            Some(real) => real,
            None => {
                #[expect(clippy::print_stderr, reason = "whoever runs the tests should know what they ran on")]
                {
                    eprintln!("{} is not there: a small generated log takes its place", folder.join(LOG).display());
                }
                Self::generated()
            }
        }
    }

    fn real(folder: &Path) -> Option<Self> {
        let mut gzip = Vec::new();
        File::open(folder.join(LOG)).ok()?.read_to_end(&mut gzip).expect("the log can be read");
        let expected = File::open(folder.join(EXPECTED)).expect("the totals lie beside the log");
        Some(Self { gzip, expected: serde_json::from_reader(expected).expect("the totals are JSON") })
    }

    /// 300 applications, each going through some states, offers and work items.
    fn generated() -> Self {
        let mut lines = Vec::new();
        for step in 0..12_u64 {
            for id in (0..300_u64).filter(|id| step < 4 + id % 9) {
                let stream = format!("application-{}", 1_000 + id);
                let time = format!("2026-01-{:02}T10:{:02}:{:02}.000Z", step + 1, id / 60, id % 60);
                let (name, lifecycle) = match step {
                    0 => ("A_SUBMITTED", "COMPLETE"),
                    1 => ("A_PARTLYSUBMITTED", "COMPLETE"),
                    2 if id % 3 == 0 => ("A_DECLINED", "COMPLETE"),
                    2 => ("A_PREACCEPTED", "COMPLETE"),
                    3 | 7 => ("O_CREATED", "COMPLETE"),
                    4 => ("A_ACCEPTED", "COMPLETE"),
                    5 | 8 => ("W_Nabellen offertes", "START"),
                    6 | 9 => ("W_Nabellen offertes", "COMPLETE"),
                    10 => ("A_APPROVED", "COMPLETE"),
                    _ => ("A_ACTIVATED", "COMPLETE"),
                };
                let mut data = json!({ "lifecycle": lifecycle });
                if id % 5 != 0 {
                    data["resource"] = json!(format!("{}", 100 + id % 7));
                }
                if step == 0 {
                    data["amount_requested"] = json!(1_000 + 500 * id);
                }
                lines.push(json!({ "stream": stream, "type": name, "time": time, "data": data }));
            }
        }
        let expected = fold(&lines);
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        for line in &lines {
            std::io::Write::write_all(&mut gzip, format!("{line}\n").as_bytes()).expect("memory can be written");
        }
        Self { gzip: gzip.finish().expect("memory can be written"), expected }
    }

    fn source(&self) -> Cursor<Vec<u8>> {
        Cursor::new(self.gzip.clone())
    }

    /// The same, stopping in the middle until something is sent.
    fn source_in_halves(&self) -> (impl Read + Send + use<>, mpsc::Sender<()>) {
        let (first, second) = self.gzip.split_at(self.gzip.len() / 2);
        let (go_on, stopped) = mpsc::channel();
        let middle = Stop(Some(stopped));
        (Cursor::new(first.to_vec()).chain(middle).chain(Cursor::new(second.to_vec())), go_on)
    }
}

/// Nothing to read, and waits before it says so.
struct Stop(Option<mpsc::Receiver<()>>);

impl Read for Stop {
    fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
        if let Some(stopped) = self.0.take() {
            stopped.recv().expect("the test lets it go on");
        }
        Ok(0)
    }
}

/// The totals of a log, counted without the project.
fn fold(lines: &[Json]) -> Json {
    #[derive(Default)]
    struct Sums {
        state: String,
        amount: i64,
        events: i64,
        offers: i64,
    }
    let mut applications: BTreeMap<String, Sums> = BTreeMap::new();
    let mut resources: BTreeMap<String, i64> = BTreeMap::new();
    let mut kinds: BTreeMap<String, i64> = BTreeMap::new();
    for line in lines {
        let (stream, name) = (line["stream"].as_str().unwrap(), line["type"].as_str().unwrap());
        let sums = applications.entry(stream["application-".len()..].to_owned()).or_default();
        sums.events += 1;
        sums.offers += i64::from(name == "O_CREATED");
        sums.amount = line["data"]["amount_requested"].as_i64().unwrap_or(sums.amount);
        if name.starts_with("A_") {
            name.clone_into(&mut sums.state);
        }
        if let Some(resource) = line["data"]["resource"].as_str() {
            *resources.entry(resource.to_owned()).or_default() += 1;
        }
        let lifecycle = line["data"]["lifecycle"].as_str().unwrap_or_default();
        *kinds.entry(format!("{name}/{lifecycle}")).or_default() += 1;
    }
    let (mut counts, mut amounts): (BTreeMap<&str, i64>, BTreeMap<&str, i64>) = Default::default();
    let mut hash = Sha256::new();
    for (id, sums) in &applications {
        *counts.entry(&sums.state).or_default() += 1;
        *amounts.entry(&sums.state).or_default() += sums.amount;
        hash.update(format!("{id} {} {} {} {}\n", sums.state, sums.amount, sums.events, sums.offers));
    }
    json!({
        "events": lines.len(),
        "applications": applications.len(),
        "amount_requested_total": amounts.values().sum::<i64>(),
        "applications_by_last_A_state": counts,
        "amount_requested_by_last_A_state": amounts,
        "offers_created": applications.values().map(|sums| sums.offers).sum::<i64>(),
        "events_by_type_and_lifecycle": kinds,
        "events_by_resource": resources,
        "per_application_sha256": hex(&hash.finalize()),
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn options(flip: FlipPolicy) -> Options {
    Options { segments: SegmentCount::new(4).unwrap(), rows: RowScope::AcrossSegments, flip, ..Options::default() }
}

async fn import_all(api: &dyn Api, source: impl Read + Send + 'static) -> import::Summary {
    let options = import::Options { batch_lines_max: 200, ..import::Options::default() };
    let done = import::import(api, source, None, options, |_| {}).await;
    done.unwrap_or_else(|ended| panic!("the import ended early: {:?}", ended.error))
}

/// The rows of a query of two columns, a text and a number.
async fn pairs(reading: &mut Reading, sql: &str) -> Json {
    let (_, rows) = reading.view.query(sql, &[]).await.unwrap();
    let pair = |row: Vec<Value>| match <[Value; 2]>::try_from(row) {
        Ok([Value::Text(name), Value::Integer(number)]) => (name, Json::from(number)),
        other => panic!("{sql} gave {other:?}"),
    };
    Json::Object(rows.into_iter().map(pair).collect())
}

async fn check_states(reading: &mut Reading, expected: &Json) {
    let counts = pairs(reading, "SELECT state, applications FROM states WHERE applications <> 0").await;
    assert_eq!(counts, expected["applications_by_last_A_state"]);
    let amounts = pairs(reading, "SELECT state, amount_requested FROM states WHERE applications <> 0").await;
    assert_eq!(amounts, expected["amount_requested_by_last_A_state"]);
}

async fn check_version_2(reading: &mut Reading, expected: &Json) {
    let events = "SELECT event_type || '/' || lifecycle, events FROM kinds";
    assert_eq!(pairs(reading, events).await, expected["events_by_type_and_lifecycle"]);
    let resources = "SELECT resource, events FROM employees";
    assert_eq!(pairs(reading, resources).await, expected["events_by_resource"]);
    let sums = "SELECT 'events', sum(events) FROM applications UNION ALL \
                SELECT 'applications', count(*) FROM applications UNION ALL \
                SELECT 'amount_requested_total', sum(amount_requested) FROM applications UNION ALL \
                SELECT 'offers_created', sum(offers) FROM applications";
    let sums = pairs(reading, sums).await;
    for name in ["events", "applications", "amount_requested_total", "offers_created"] {
        assert_eq!(sums[name], expected[name], "{name}");
    }
    let line = "SELECT id || ' ' || state || ' ' || amount_requested || ' ' || events || ' ' || offers, 0 \
                FROM applications ORDER BY id";
    let (_, rows) = reading.view.query(line, &[]).await.unwrap();
    let mut hash = Sha256::new();
    for row in rows {
        let Value::Text(line) = &row[0] else { panic!("a line is text") };
        hash.update(format!("{line}\n"));
    }
    assert_eq!(hex(&hash.finalize()), expected["per_application_sha256"].as_str().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_real_log_gives_the_expected_totals_in_both_versions() {
    whole_path(Input::find()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generated_log_gives_the_expected_totals_in_both_versions() {
    whole_path(Input::generated()).await;
}

async fn whole_path(input: Input) {
    let expected = &input.expected;
    let events = expected["events"].as_u64().unwrap();
    let directory = tempfile::tempdir().unwrap();

    // Version 1 serves while the first half of the log comes in.
    let name = "loans".parse().unwrap();
    let version_1 = LoansV1 { options: options(FlipPolicy::WhenReady) };
    let node = Node::builder().data(directory.path()).projection(version_1).start().await.unwrap();
    let mut catalog = node.catalog();
    catalog.wait_for(|catalog| catalog.serving(&name).is_some()).await.unwrap();
    let api = NodeApi::new(node.clone(), "test");
    let (source, go_on) = input.source_in_halves();
    let importing = tokio::spawn({
        let api = api.clone();
        async move { import_all(&api, source).await }
    });
    let some = node.head().plus(400);
    node.journal().head().wait_for(|head| *head > some).await.unwrap();

    // Version 2 comes in the middle of it, and flips by itself.
    node.add_projection(LoansV2 { options: options(FlipPolicy::WhenReady) }).unwrap();
    let begun = catalog.wait_for(|catalog| catalog.projections[&name].versions.keys().any(|version| version.code == 2));
    begun.await.unwrap();
    go_on.send(()).unwrap();
    let imported = importing.await.unwrap();
    assert_eq!((imported.lines, imported.written, imported.known), (events, events, 0));

    let serves_2 = catalog.wait_for(|catalog| catalog.serving(&name).is_some_and(|version| version.code == 2));
    tokio::time::timeout(Duration::from_secs(120), serves_2).await.expect("version 2 serves").unwrap();
    let mut reading = node.read("loans", node.head()).await.unwrap();
    assert_eq!(reading.version.code, 2);
    check_states(&mut reading, expected).await;
    check_version_2(&mut reading, expected).await;
    drop(reading);

    // Importing again changes nothing.
    let again = import_all(&api, input.source()).await;
    assert_eq!((again.lines, again.written, again.known), (events, 0, events));

    // The way back: version 1 has followed all along.
    let back = node.projection(&name).unwrap().rollback().by("test").await.unwrap();
    back.done().within(Duration::from_secs(30)).await.unwrap();
    let mut reading = node.read("loans", node.head()).await.unwrap();
    assert_eq!(reading.version.code, 1);
    check_states(&mut reading, expected).await;
    drop(reading);

    // Nothing of it depends on the process.
    node.shutdown().await;
    let builder = Node::builder().data(directory.path());
    let builder = builder.projection(LoansV1 { options: options(FlipPolicy::WhenReady) });
    let node = builder.projection(LoansV2 { options: options(FlipPolicy::WhenReady) }).start().await.unwrap();
    let mut reading = node.read("loans", Position::START).await.unwrap();
    assert_eq!(reading.version.code, 1);
    check_states(&mut reading, expected).await;
    drop(reading);
    node.shutdown().await;
}

/// A node in a process of its own.
struct Process {
    child: Child,
    api: HttpClient,
}

impl Process {
    fn start(url: &str, versions: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_loans"))
            .args(["--listen", "127.0.0.1:0", "--versions", versions])
            .env("DACAPO_STORE", url)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        let line = log.find(|line| line.contains("listening on ")).expect("it listens");
        // Whoever logs needs a reader.
        std::thread::spawn(move || log.for_each(drop));
        let (_, at) = line.split_once("listening on ").unwrap();
        Self { child, api: HttpClient::new(at, ClientLimits::default()).unwrap() }
    }

    fn terminate(mut self) {
        let asked = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(asked.success());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended before.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Version 1 on three processes, a release with version 2 in the middle of the import, and the totals of both.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_processes_on_one_database_give_the_expected_totals() {
    let input = Input::find();
    let server = Server::shared();
    let url = server.database().await;
    let start = |versions: &'static str| Process::start(&url, versions);
    let (one, two, three) = (start("1"), start("1"), start("1"));
    let (source, go_on) = input.source_in_halves();
    let importing = tokio::spawn({
        let api = one.api.clone();
        async move { import_all(&api, source).await }
    });
    // Whatever is imported by then, the rest comes while the new version is built.
    let some = async {
        while one.api.status().await.unwrap().node.head < 400 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), some).await.expect("the import begins");
    two.terminate();
    three.terminate();
    let (two, three) = (start("1,2"), start("1,2"));
    go_on.send(()).unwrap();
    let imported = importing.await.unwrap();
    assert_eq!(imported.lines, input.expected["events"].as_u64().unwrap());
    one.terminate();
    let one = start("1,2");

    let options = dacapo_postgres::Options::default();
    let builder = Node::builder().store(dacapo_postgres::connect(&url, options).await.unwrap());
    let carry = |builder: NodeBuilder| {
        let options = || Options {
            segments: SegmentCount::new(4).unwrap(),
            rows: RowScope::AcrossSegments,
            ..Options::default()
        };
        builder.projection(LoansV1 { options: options() }).projection(LoansV2 { options: options() })
    };
    let node = carry(builder).start().await.unwrap();
    let name = "loans".parse().unwrap();
    let serves_2 = async {
        let mut catalog = node.catalog();
        catalog.wait_for(|catalog| catalog.serving(&name).is_some_and(|version| version.code == 2)).await.map(drop)
    };
    if tokio::time::timeout(Duration::from_secs(120), serves_2).await.is_err() {
        panic!("version 2 does not serve: {:#?}", node.projection(&name).unwrap().verification());
    }
    let mut reading = node.read("loans", node.head()).await.unwrap();
    check_states(&mut reading, &input.expected).await;
    check_version_2(&mut reading, &input.expected).await;
    drop(reading);
    let back = node.projection(&name).unwrap().rollback().by("test").await.unwrap();
    back.done().within(Duration::from_secs(30)).await.unwrap();
    let mut reading = node.read("loans", node.head()).await.unwrap();
    assert_eq!(reading.version.code, 1);
    check_states(&mut reading, &input.expected).await;
    drop(reading);
    node.shutdown().await;
    for process in [one, two, three] {
        process.terminate();
    }
}

//! What one door takes, the other takes: whatever a node accepts over HTTP comes out of an export and into another node
//! as it was, whichever stores the two have.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::sync::Arc;

use dacapo::journal::{Append, OnKnown, StreamEvent};
use dacapo::{Node, NodeBuilder};
use dacapo_api::{
    Api, ApiError, AppendRequest, ClientLimits, Event, HttpClient, Json, Metadata, NewEvent, ReadRequest,
};
use dacapo_cli::import::{Options, Summary, import, line_of};
use dacapo_model::{EventId, EventType, limits};
use dacapo_postgres::testbed::Server;
use dacapo_server::{Access, Hosts, NodeApi, bind, router, serve};
use proptest::prelude::*;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// A real node with its HTTP API.
pub struct Served {
    pub node: Node,
    pub url: String,
    client: HttpClient,
    /// Everything through here was looked at by earlier cases.
    through: u64,
    _data: Option<TempDir>,
}

impl Served {
    async fn start(node: Node, data: Option<TempDir>) -> Self {
        let listener = bind("127.0.0.1:0".parse().unwrap(), Access::Loopback).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = router(Arc::new(NodeApi::new(node.clone(), "n")), &Hosts::default());
        tokio::spawn(serve(listener, app, std::future::pending()));
        let client = HttpClient::new(&url, ClientLimits::default()).unwrap();
        Self { node, url, client, through: 0, _data: data }
    }

    pub async fn of_every_store(server: &Server, with: impl Fn(NodeBuilder) -> NodeBuilder) -> Vec<Self> {
        let dir = tempfile::tempdir().unwrap();
        let options = dacapo_postgres::Options::default();
        let database = server.database().await;
        let store = dacapo_postgres::connect(&database, options).await.unwrap();
        let nodes = [
            (with(Node::builder()).start().await.unwrap(), None),
            (with(Node::builder().data(dir.path())).start().await.unwrap(), Some(dir)),
            (with(Node::builder().store(store)).start().await.unwrap(), None),
        ];
        let mut served = vec![];
        for (node, data) in nodes {
            served.push(Self::start(node, data).await);
        }
        served
    }

    /// The events after those that were read before.
    async fn read_on(&mut self) -> Vec<Event> {
        let mut events = vec![];
        loop {
            let request = ReadRequest { after: self.through, ..ReadRequest::default() };
            let page = self.client.read(request).await.unwrap();
            let at_end = page.events.is_empty() && page.through >= page.head;
            events.extend(page.events);
            if at_end {
                return events;
            }
            self.through = page.through;
        }
    }

    async fn import(&self, events: &[Event]) -> (Summary, String) {
        let lines: Vec<String> = events.iter().map(|event| line_of(event).unwrap()).collect();
        assert!(lines.iter().all(|line| !line.contains(['\n', '\r'])));
        let mut bad = Vec::new();
        let source = Cursor::new(lines.join("\n").into_bytes());
        let done = import(&self.client, source, Some(&mut bad), Options::default(), |_| {}).await.unwrap();
        (done, String::from_utf8(bad).unwrap())
    }
}

fn any_text() -> impl Strategy<Value = String> {
    let parts = prop::sample::select(vec![
        "a",
        "Z-9",
        "é",
        "😀",
        "\u{2028}",
        "\u{feff}",
        "\"",
        "\\",
        "\\u0000",
        "\u{7f}",
        "\u{0}",
        "\n",
        "\t",
        " ",
        "$",
        "\u{1b}[31m",
        "%00",
        "&after=1",
    ]);
    prop::collection::vec(parts, 0..8).prop_map(|parts| parts.concat())
}

/// A name that may break a rule.
fn any_name() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => any_text().prop_map(|text| format!("n{}", text.replace(|c: char| c.is_control(), "-"))),
        1 => any_text(),
        1 => (500..520_usize).prop_map(|len| "x".repeat(len)),
        1 => (250..260_usize).prop_map(|len| "y".repeat(len)),
    ]
}

/// JSON as others write it: numbers that no type holds, halves of characters, doubled keys, line breaks, depth.
fn any_json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        prop::sample::select(vec![
            "null",
            "true",
            "0",
            "-0",
            "5.00",
            "1e999",
            "9007199254740993",
            "-1E-400",
            "123456789012345678901234567890.10",
            r#""\ud800""#,
            r#""\u0000""#,
            r#""\u00e9\ud83d\ude00""#,
            r#""\/""#,
            "[]",
            "{}",
            "{\n}",
            "[ \r\n\t]",
        ])
        .prop_map(str::to_owned),
        any_text().prop_map(|text| serde_json::to_string(&text).unwrap()),
        (1..3_000_usize).prop_map(|depth| format!("{}7{}", "[".repeat(depth), "]".repeat(depth))),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        let space = prop::sample::select(vec!["", " ", "\n", "\r\n", "\t"]);
        prop_oneof![
            (prop::collection::vec(inner.clone(), 0..4), space.clone())
                .prop_map(|(values, space)| format!("[{space}{}{space}]", values.join(&format!(",{space}")))),
            // The keys are few, so that some are there twice.
            (prop::collection::vec((0..3_u8, inner), 0..4), space).prop_map(|(pairs, space)| {
                let pairs: Vec<String> =
                    pairs.iter().map(|(key, value)| format!("\"k{key}\"{space}:{value}")).collect();
                format!("{{{space}{}}}", pairs.join(&format!("{space},")))
            }),
        ]
    })
}

fn any_metadata() -> impl Strategy<Value = Metadata> {
    let max = limits::METADATA_BYTES_MAX;
    let small = prop::collection::btree_map(any_text(), any_text(), 0..3);
    // Near the limit, on either side of it, in one byte or in six for each.
    let large = (max - 60..max + 20, any::<bool>()).prop_map(|(len, escaped)| {
        let text = if escaped { "\u{1}".repeat(len / 6) + &"z".repeat(len % 6) } else { "z".repeat(len) };
        BTreeMap::from([("x".to_owned(), text)])
    });
    let time = prop::option::weighted(0.3, prop::sample::select(vec!["2011-09-30T22:38:44.546Z", "yesterday", ""]));
    let fields = (prop_oneof![6 => small, 1 => large], time).prop_map(|(mut fields, time)| {
        fields.extend(time.map(|time| ("time".to_owned(), time.to_owned())));
        fields
    });
    let id = || prop::option::of(any::<[u8; 16]>().prop_map(|bytes| EventId::from_bytes(bytes).to_string()));
    (id(), id(), prop::option::of(any_text()), fields).prop_map(|(correlation, causation, actor, fields)| Metadata {
        correlation,
        causation,
        actor,
        fields,
    })
}

fn any_event() -> impl Strategy<Value = NewEvent> {
    let tags = prop::collection::vec(prop_oneof![9 => any_text(), 1 => Just("t".repeat(255))], 0..4);
    let tags = prop_oneof![8 => tags, 1 => Just(vec!["t".repeat(255); 16]), 1 => Just(vec![String::new(); 17])];
    (any_name(), any_name(), any_json(), any_metadata(), tags).prop_map(|(stream, event_type, data, metadata, tags)| {
        NewEvent { stream, id: None, event_type, data: Json::parse(&data).unwrap(), metadata, tags }
    })
}

/// As it comes out of the other node: at another place, and with the time of the first node among its fields unless it
/// had one.
fn elsewhere(event: &Event, there: &Event) -> Event {
    let mut metadata = event.metadata.clone();
    metadata.fields.entry("time".to_owned()).or_insert_with(|| event.time.clone());
    let (position, revision, time) = (there.position, there.revision, there.time.clone());
    Event { position, revision, time, metadata, ..event.clone() }
}

async fn round(served: &mut [Served], from: usize, events: Vec<NewEvent>) -> Result<(), TestCaseError> {
    let mut accepted = vec![];
    for event in events {
        let request = AppendRequest { events: vec![event.clone()], expected: vec![], on_known: Default::default() };
        match served[from].client.append(request).await {
            Ok(_) => accepted.push(event),
            Err(ApiError::Invalid(_)) => {}
            Err(other) => return Err(TestCaseError::fail(format!("{other:?} for {event:?}"))),
        }
    }
    let here = served[from].read_on().await;
    prop_assert_eq!(here.len(), accepted.len());
    for (read, event) in here.iter().zip(&accepted) {
        prop_assert_eq!((&read.stream, &read.event_type, &read.data), (&event.stream, &event.event_type, &event.data));
        prop_assert_eq!((&read.metadata, &read.tags), (&event.metadata, &event.tags));
    }
    let to = (from + 1) % served.len();
    let (done, bad) = served[to].import(&here).await;
    prop_assert_eq!((done.written, done.bad), (here.len() as u64, 0), "{}", bad);
    let there = served[to].read_on().await;
    prop_assert_eq!(there.len(), here.len());
    for (here, there) in here.iter().zip(&there) {
        prop_assert_eq!(there, &elsewhere(here, there));
    }
    // And back, where all of it is known.
    let (done, bad) = served[from].import(&there).await;
    prop_assert_eq!((done.known, done.bad), (here.len() as u64, 0), "{}", bad);
    Ok(())
}

#[test]
fn what_one_node_accepts_another_imports_as_it_is() {
    let runtime = Runtime::new().unwrap();
    let server = Server::shared();
    let mut served = runtime.block_on(Served::of_every_store(&server, |builder| builder));
    let config = ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let cell = std::cell::RefCell::new(&mut served);
    let tried = runner.run(&(0..3_usize, prop::collection::vec(any_event(), 1..12)), |(from, events)| {
        runtime.block_on(round(&mut cell.borrow_mut(), from, events))
    });
    if let Err(failed) = tried {
        panic!("{failed}");
    }
    for served in &served {
        runtime.block_on(served.node.shutdown());
    }
}

#[test]
fn the_library_takes_what_http_takes() {
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let node = Node::builder().start().await.unwrap();
        let append = |payload: &[u8]| {
            let event = dacapo::journal::NewEvent {
                id: node.new_id(),
                event_type: EventType::new("t").unwrap(),
                payload: payload.to_vec(),
                metadata: dacapo::Metadata::default(),
                tags: vec![],
            };
            let events = vec![StreamEvent { stream: "a-1".try_into().unwrap(), event }];
            node.append_batch(Append { events, expected: vec![], on_known: OnKnown::Recognise })
        };
        for payload in [&b"{"[..], b"", b"{} {}", b"\"\xff\"", b"nul", b"NaN"] {
            let error = append(payload).await.unwrap_err();
            assert!(matches!(error, dacapo::Error::Event(_)), "{error:?}");
        }
        append(b" {\"a\":1,\"a\" : 2}\n").await.unwrap();
        let events = NodeApi::new(node.clone(), "n").read(ReadRequest::default()).await.unwrap().events;
        assert_eq!(events.iter().map(|event| event.data.as_str()).collect::<Vec<_>>(), [r#"{"a":1,"a" : 2}"#]);
        node.shutdown().await;
    });
}

//! The importer against a journal in memory: importing again, from anywhere, changes nothing.

#[path = "import/edges.rs"]
mod edges;
#[path = "import/round_trip.rs"]
mod round_trip;

use std::io::{self, Cursor, Read, Write};
use std::time::Duration;

use dacapo_api::fake::{FakeApi, Fault};
use dacapo_api::{Event, Problem};
use dacapo_cli::import::{ImportError, ImportFailure, LINE_BYTES_MAX, Options, Summary, derived_id, import, parse};
use dacapo_model::{EventType, StreamName};
use proptest::prelude::*;

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(test)
}

fn options(batch_lines_max: usize) -> Options {
    let (retry_time_max, retry_pause_min) = (Duration::from_millis(200), Duration::from_millis(1));
    Options { batch_lines_max, retry_time_max, retry_pause_min, ..Options::default() }
}

async fn strict(api: &FakeApi, bytes: impl AsRef<[u8]>, batch: usize) -> Result<Summary, ImportFailure> {
    import(api, Cursor::new(bytes.as_ref().to_vec()), None, options(batch), |_| {}).await
}

async fn skipping(api: &FakeApi, bytes: &[u8], batch: usize) -> (Result<Summary, ImportFailure>, String) {
    let mut bad = Vec::new();
    let done = import(api, Cursor::new(bytes.to_vec()), Some(&mut bad), options(batch), |_| {}).await;
    (done, String::from_utf8(bad).unwrap())
}

fn data(api: &FakeApi) -> Vec<String> {
    api.script().events.iter().map(|event| event.data.as_str().to_owned()).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(bytes).unwrap();
    packed.finish().unwrap()
}

/// A line as a file may have it, and its data if it is good.
fn any_line() -> impl Strategy<Value = (String, Option<String>)> {
    let good = (0..4_u8, 0..1000_u32).prop_map(|(stream, n)| {
        (format!(r#"{{"stream":"account-{stream}","type":"deposited","data":{n}}}"#), Some(n.to_string()))
    });
    let timed = (0..1000_u32).prop_map(|n| {
        let line = format!(r#"{{"data":[{n}],"time":"2011-09-30T22:38:44.546Z","type":"t","stream":"loan-1"}}"#);
        (line, Some(format!("[{n}]")))
    });
    let bad = prop::sample::select(vec!["{", "null", r#"{"stream":"a-1","type":"t"}"#, "\u{1}"]);
    prop_oneof![
        8 => good,
        3 => timed,
        1 => Just((String::new(), None)),
        1 => bad.prop_map(|line| (line.to_owned(), None)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    /// However often it is broken off, in batches of any size, plain or packed: the journal has the good
    /// lines once, in their order.
    #[test]
    fn importing_in_pieces_and_again_is_importing_once(
        lines in prop::collection::vec(any_line(), 0..60),
        tries in prop::collection::vec((1..20_usize, 0..61_usize, any::<bool>(), 0..4_u8), 0..5),
        last_batch in 1..20_usize,
    ) {
        let text = |count: usize| lines.iter().take(count).map(|(line, _)| format!("{line}\n")).collect::<String>();
        let api = FakeApi::default();
        run(async {
            for (batch, lines_of_try, packed, fault) in tries {
                let gone = || Problem::new("unavailable", "gone").unavailable();
                match fault {
                    0 => api.script().faults.push_back(Fault::Before(gone())),
                    1 => api.script().faults.push_back(Fault::After(gone())),
                    2 => api.script().faults.push_back(Fault::After(Problem::new("c", "c").corrupt())),
                    _ => {}
                }
                let bytes = text(lines_of_try).into_bytes();
                let bytes = if packed { gzip(&bytes) } else { bytes };
                // A try may end early; that is what is tried.
                let _ = skipping(&api, &bytes, batch).await;
                api.script().faults.clear();
            }
            let (done, _) = skipping(&api, text(lines.len()).as_bytes(), last_batch).await;
            let done = done.unwrap();
            prop_assert_eq!(done.written + done.known + done.bad, done.lines);
            Ok(())
        })?;
        let good: Vec<String> = lines.iter().filter_map(|(_, data)| data.clone()).collect();
        prop_assert_eq!(data(&api), good);
    }
}

#[test]
fn the_derived_id_is_fixed() {
    let (stream, event_type) = (StreamName::new("application-173688").unwrap(), EventType::new("A_SUBMITTED").unwrap());
    let id = derived_id(1, &stream, &event_type, Some("2011-09-30T22:38:44.546Z"), r#"{"lifecycle":"COMPLETE"}"#);
    assert_eq!(id.to_string(), "1da398ad-b036-8a56-96a1-7bd38da7166b");
    let line = |number, text: &str| parse(number, text.as_bytes()).unwrap().event.id.unwrap();
    let text = r#"{"data":{"lifecycle":"COMPLETE"},"stream":"application-173688","type":"A_SUBMITTED","time":"2011-09-30T22:38:44.546Z"}"#;
    assert_eq!(line(1, text), id.to_string(), "neither the order of keys nor the file matters");
    assert_ne!(line(2, text), id.to_string(), "two equal lines are two events");
}

#[test]
fn what_a_line_must_not_be() {
    let long = "x".repeat(600);
    let tags = format!("[{}]", vec![r#""t""#; 17].join(","));
    for (line, reason) in [
        (r#"{"stream":"a-1","type":"t","data":1"#.to_owned(), "EOF while parsing an object, at byte 35 of the line"),
        (r#"{"stream":"a-1","type":"t","data":1} 2"#.to_owned(), "trailing characters"),
        (r#"{"stream":"a-1","type":"t","type":"u","data":1}"#.to_owned(), r#"the key "type" occurs twice"#),
        (
            r#"{"stream":"a-1","type":"t","data":1,"metadata":{"fields":{"x":"1","x":"1"}}}"#.to_owned(),
            r#"metadata.fields: the key "x" occurs twice"#,
        ),
        (r#"{"stream":"a-1","type":"t","data":1,"tag":"t"}"#.to_owned(), r#"the key "tag" is not known, did you mean "tags"?"#),
        (r#"{"stream":"a-1","type":"t","data":1,"metadata":{"userId":"t"}}"#.to_owned(), "metadata: the key \"userId\""),
        (r#"["order-17","placed",{"total":5}]"#.to_owned(), "an array, expected an object"),
        (r#"["8f14e45f-ceea-467f-9575-8d4c1a3b0f11","order-17","OrderPlaced"]"#.to_owned(), "an array, expected an object"),
        (
            r#"{"stream":"order-18","type":"placed","data":{},"metadata":["6b5ec3f0-0000-4000-8000-000000000001",null,"me",{}]}"#
                .to_owned(),
            "metadata: invalid type: an array, expected an object",
        ),
        (r#"{"stream":"a-1","type":"t","data_text":"{"}"#.to_owned(), "data_text is not JSON"),
        (r#"{"stream":"a-1","type":"t","data":1,"data_text":"2"}"#.to_owned(), "data and data_text differ"),
        (r#"{"stream":"a-1","type":"t","data":[1],"data_text":"[\n1]"}"#.to_owned(), "with a space for each line break"),
        (r#"{"stream":"a-1","type":"t","data":1,"time":"2024-03-01T10:15:30.123456"}"#.to_owned(), "end it with Z"),
        (r#"{"stream":"a-1","type":"t","data":1,"time":"2024-03-01 10:15:30Z"}"#.to_owned(), "RFC 3339"),
        (r#"{"stream":"a-1","type":"t"}"#.to_owned(), "missing field `data`"),
        (r#"{"stream":"","type":"t","data":1}"#.to_owned(), "it is empty"),
        (r#"{"stream":"$catalog","type":"t","data":1}"#.to_owned(), "dacapo's own"),
        (format!(r#"{{"stream":"{long}","type":"t","data":1}}"#), "600 bytes, at most 512 are allowed"),
        (format!(r#"{{"stream":"a-1","type":"{long}","data":1}}"#), "600 bytes, at most 255 are allowed"),
        (format!(r#"{{"stream":"a-1","type":"t","data":1,"tags":["{long}"]}}"#), "the size of a tag in bytes is 600, at most 255"),
        (format!(r#"{{"stream":"a-1","type":"t","data":1,"tags":{tags}}}"#), "the number of tags is 17, at most 16"),
        (r#"{"stream":"a-1","type":"t","data":1,"time":"yesterday"}"#.to_owned(), "RFC 3339"),
        (r#"{"stream":"a-1","type":"t","data":1,"id":"7"}"#.to_owned(), "a UUID"),
        (r#"{"stream":"a-1","type":"t","data":1,"metadata":{"causation":"7"}}"#.to_owned(), "a UUID"),
        ("[1]".to_owned(), "invalid type"),
    ] {
        let found = parse(1, line.as_bytes()).unwrap_err();
        assert!(found.contains(reason), "{found:?} does not say {reason:?}");
        assert!(!found.contains("line 1"), "{found:?} names a line of its own");
    }
    assert!(parse(1, b"{\"stream\":\"\xff\"").unwrap_err().contains("byte 12 of the line"));
}

#[test]
fn a_bad_line_ends_the_import_with_all_before_it_and_nothing_after_it() {
    let api = FakeApi::default();
    let line = |n: u32| format!("{{\"stream\":\"a-1\",\"type\":\"t\",\"data\":{n}}}\n");
    let text = [line(1), "\n".into(), line(2), "oops\n".into(), line(3)].concat();
    let ended = run(strict(&api, &text, 100)).unwrap_err();
    let ImportError::BadLine(bad) = &ended.error else { panic!("{ended:?}") };
    assert_eq!((bad.number, bad.beginning().as_str()), (4, "oops"));
    assert_eq!(ended.summary, Summary { lines: 3, written: 2, known: 0, bad: 0 });
    assert_eq!(data(&api), ["1", "2"]);
    let corrected = text.replace("oops", line(9).trim_end());
    assert_eq!(run(strict(&api, &corrected, 100)).unwrap(), Summary { lines: 4, written: 2, known: 2, bad: 0 });
    assert_eq!(data(&api), ["1", "2", "9", "3"]);
}

#[test]
fn bad_lines_are_written_down_as_they_are() {
    let api = FakeApi::default();
    let (done, bad) =
        run(skipping(&api, b"{\"a\": 1}\r\n\xff\n{\"stream\":\"a-1\",\"type\":\"t\",\"data\":1}\r\n", 10));
    assert_eq!(done.unwrap(), Summary { lines: 3, written: 1, known: 0, bad: 2 });
    let lines: Vec<serde_json::Value> = bad.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&lines[0]["line"], &lines[0]["text"]), (&1.into(), &r#"{"a": 1}"#.into()));
    assert_eq!((&lines[1]["line"], &lines[1]["bytes_hex"]), (&2.into(), &"ff".into()));
}

#[test]
fn a_line_that_the_node_refuses_is_found_among_its_batch() {
    let api = FakeApi::default();
    // The node refuses the whole batch, the first half, and the first line of it.
    let refusal = || Fault::Before(Problem::new("id_taken", "event id … is taken").refused());
    api.script().faults.extend([refusal(), refusal(), refusal()]);
    let text: String = (1..=4).map(|n| format!("{{\"stream\":\"a-1\",\"type\":\"t\",\"data\":{n}}}\n")).collect();
    let (done, bad) = run(skipping(&api, text.as_bytes(), 10));
    assert_eq!(done.unwrap(), Summary { lines: 4, written: 3, known: 0, bad: 1 });
    assert!(bad.contains("is taken") && bad.contains(r#""line":1"#), "{bad}");
    assert_eq!(data(&api), ["2", "3", "4"]);
    assert_eq!(api.script().appends, [4, 2, 1, 1, 2]);
}

#[test]
fn a_node_that_stays_away_is_given_up_on() {
    let api = FakeApi::default();
    let gone = || Fault::Before(Problem::new("unavailable", "the disk is full").unavailable());
    api.script().faults.extend(std::iter::repeat_with(gone).take(1000));
    let ended = run(strict(&api, r#"{"stream":"a-1","type":"t","data":1}"#, 10)).unwrap_err();
    assert!(matches!(ended.error, ImportError::Api { first_line: 1, .. }), "{ended:?}");
    assert!((3..20).contains(&api.script().appends.len()), "{:?}", api.script().appends.len());
}

#[test]
fn the_limits_of_lines_and_batches_hold() {
    let api = FakeApi::default();
    let line = |len: usize| format!("{{\"stream\":\"a-1\",\"type\":\"t\",\"data\":\"{}\"}}\n", "x".repeat(len));
    let text = [line(100), line(100), line(300), line(100)].concat();
    let small = Options { batch_bytes_max: 300, ..options(100) };
    run(import(&api, Cursor::new(text.into_bytes()), None, small, |_| {})).unwrap();
    assert_eq!(api.script().appends, [2, 1, 1]);
    let text = [line(10), line(LINE_BYTES_MAX), line(20)].concat();
    let (done, bad) = run(skipping(&api, text.as_bytes(), 10));
    assert_eq!(done.unwrap(), Summary { lines: 3, written: 2, known: 0, bad: 1 });
    assert!(bad.contains("\"cut\":true") && bad.contains("it is longer than"));
}

#[test]
fn what_was_read_can_be_imported_elsewhere() {
    let (here, there) = (FakeApi::default(), FakeApi::default());
    let text = r#"{"stream":"a-1","type":"t","data":{"x": 1.0},"time":"2011-09-30T22:38:44.546Z","tags":["b:1"],"metadata":{"actor":"ana"}}"#;
    run(strict(&here, text, 10)).unwrap();
    let exported = |api: &FakeApi| -> Vec<Event> { api.script().events.clone() };
    let lines: String = exported(&here).iter().map(|event| serde_json::to_string(event).unwrap() + "\n").collect();
    run(strict(&there, &lines, 10)).unwrap();
    assert_eq!(exported(&there), exported(&here));
}

/// Gives some bytes and then breaks.
struct Breaks(Cursor<Vec<u8>>);

impl Read for Breaks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(io::Error::other("the disk is gone")),
            read => Ok(read),
        }
    }
}

#[test]
fn a_source_that_breaks_is_imported_as_far_as_it_goes() {
    let api = FakeApi::default();
    let text = b"{\"stream\":\"a-1\",\"type\":\"t\",\"data\":1}\n{\"stream\":".to_vec();
    let ended = run(import(&api, Breaks(Cursor::new(text.clone())), None, options(10), |_| {})).unwrap_err();
    assert!(matches!(ended.error, ImportError::Read { line: 2, .. }), "{ended:?}");
    let mut packed = gzip(&text);
    packed.truncate(packed.len() - 6);
    let ended = run(strict(&api, &packed, 10)).unwrap_err();
    assert!(matches!(ended.error, ImportError::Read { .. }), "{ended:?}");
    assert_eq!(data(&api), ["1"]);
}

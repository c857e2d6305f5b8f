//! Reads that wait cost their own time, and no more of it than they must.

use dacapo::Node;
use dacapo_api::{Api, AppendRequest, Json, Metadata, NewEvent, OnKnown, ReadRequest, SetAsideRequest, StreamsRequest};
use dacapo_server::NodeApi;

async fn node() -> (Node, NodeApi) {
    let node = Node::builder().start().await.unwrap();
    (node.clone(), NodeApi::new(node, "test"))
}

async fn append(api: &NodeApi, stream: &str, event_type: &str, bytes: usize) -> u64 {
    let event = NewEvent {
        stream: stream.to_owned(),
        id: None,
        event_type: event_type.to_owned(),
        data: Json::parse(&format!("\"{}\"", "x".repeat(bytes))).unwrap(),
        metadata: Metadata::default(),
        tags: vec![],
    };
    let request = AppendRequest { events: vec![event], expected: vec![], on_known: OnKnown::Recognise };
    api.append(request).await.unwrap().position
}

fn waiting(types: &str, wait_ms: u64) -> ReadRequest {
    ReadRequest { types: vec![types.to_owned()], wait_ms: Some(wait_ms), ..ReadRequest::default() }
}

#[tokio::test]
async fn a_read_that_waits_looks_on_behind_much_that_it_does_not_want() {
    let (node, api) = node().await;
    for _ in 0..6 {
        append(&api, "a-1", "common", 1 << 20).await;
    }
    let rare = append(&api, "a-1", "rare", 1).await;
    append(&api, "a-1", "common", 1).await;
    let read = api.read(waiting("rare", 30_000)).await.unwrap();
    assert_eq!(read.events.iter().map(|event| event.position).collect::<Vec<_>>(), [rare]);
    assert!(read.through >= rare);
    // What is not there is looked for through the end, and the next call continues from there.
    let mut request = waiting("none", 1);
    while request.after <= rare {
        let read = api.read(request.clone()).await.unwrap();
        assert!(read.events.is_empty() && read.through > request.after, "{read:?}");
        request.after = read.through;
    }
    node.shutdown().await;
}

#[tokio::test]
async fn a_reader_of_a_stream_looks_on_behind_what_it_does_not_want() {
    let (node, api) = node().await;
    for _ in 0..3 {
        append(&api, "a-1", "common", 1).await;
    }
    append(&api, "a-1", "rare", 1).await;
    let of_stream =
        |wait_ms| ReadRequest { stream: Some("a-1".into()), limit: 2_u32.try_into().ok(), ..waiting("rare", wait_ms) };
    let read = api.read(of_stream(30_000)).await.unwrap();
    assert_eq!(read.events.iter().map(|event| event.revision).collect::<Vec<_>>(), [4]);
    // At the end it is woken by its own stream only.
    let request = ReadRequest { after: 4, ..of_stream(30_000) };
    let (read, appended) = tokio::join!(api.read(request), async {
        append(&api, "a-2", "rare", 1).await;
        append(&api, "a-1", "common", 1).await;
        append(&api, "a-1", "rare", 1).await
    });
    let read = read.unwrap();
    assert_eq!(read.events.iter().map(|event| event.position).collect::<Vec<_>>(), [appended]);
    node.shutdown().await;
}

#[tokio::test]
async fn an_answer_is_cut_at_its_limit_and_the_next_call_goes_on() {
    let (node, api) = node().await;
    let (mut found, mut request) =
        (Vec::new(), ReadRequest { limit: 2_u32.try_into().ok(), ..waiting("rare", 30_000) });
    let appends = async {
        for _ in 0..5 {
            append(&api, "a-1", "rare", 1).await;
        }
    };
    let reads = async {
        while found.len() < 5 {
            let read = api.read(request.clone()).await.unwrap();
            assert!((1..=2).contains(&read.events.len()), "{read:?}");
            found.extend(read.events.iter().map(|event| event.revision));
            request.after = read.through;
        }
    };
    tokio::join!(reads, appends);
    assert_eq!(found, [1, 2, 3, 4, 5]);
    node.shutdown().await;
}

/// A filter that no event can ever match would be waited for without success.
#[tokio::test]
async fn what_nothing_can_match_is_refused_by_name() {
    let (node, api) = node().await;
    append(&api, "a-1", "common", 1).await;
    let refused = async |request: ReadRequest| {
        let error = api.read(request.clone()).await.expect_err(&format!("{request:?}"));
        assert_eq!(error.http_status(), 422, "{error}");
        error.to_string()
    };
    let long = "x".repeat(1_000);
    for name in ["", "a\nb", &long] {
        let error = refused(ReadRequest { types: vec!["common".into(), name.into()], ..ReadRequest::default() }).await;
        assert!(error.contains("event type"), "{error}");
    }
    for name in ["", "a-1", "-", &long] {
        let error = refused(ReadRequest { categories: vec![name.into()], ..ReadRequest::default() }).await;
        assert!(error.contains("category"), "{error}");
        let streams = StreamsRequest { category: Some(name.into()), ..StreamsRequest::default() };
        assert_eq!(api.streams(streams).await.unwrap_err().http_status(), 422, "{name}");
    }
    for categories in [vec!["$d".into()], vec!["a".into(), "$catalog".into()]] {
        let error = refused(ReadRequest { categories, ..ReadRequest::default() }).await;
        assert!(error.contains("belongs to dacapo itself"), "{error}");
    }
    let of_stream = ReadRequest { stream: Some("a-1".into()), ..ReadRequest::default() };
    let error = refused(ReadRequest { categories: vec!["a".into()], ..of_stream.clone() }).await;
    assert!(error.contains("stream and categories"), "{error}");
    assert!(refused(ReadRequest { system: true, ..of_stream }).await.contains("stream and system"));
    // An event that is not in the journal is told as everywhere, with both places.
    let beyond = SetAsideRequest { version: None, position: 99, ..SetAsideRequest::default() };
    let error = api.set_aside("none", beyond).await.unwrap_err();
    let problem = error.problem();
    assert_eq!(problem.code, "beyond_head", "{error}");
    assert_eq!((problem.fields["after"].as_u64(), problem.fields["head"].as_u64()), (Some(99), Some(1)));
    node.shutdown().await;
}

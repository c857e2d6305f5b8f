//! A request that is not understood is refused by name, at every route.

use dacapo_api::Problem;
use dacapo_api::operations::{self, OPERATIONS, Operation, paths};
use serde_json::json;

use super::Served;

/// Every operation that takes a body, with the smallest body that is understood and a key of it that can be mistyped.
const BODIES: [(&str, &str, &str); 15] = [
    ("append", r#"{"events":[{"stream":"a-1","type":"t","data":{}}]}"#, "expected"),
    ("rebuild", r#"{"code":2}"#, "from_copy"),
    ("flip", r#"{"to":"v2.1"}"#, "wait_ms"),
    ("rollback", r#"{"to":"v1.1"}"#, "reason"),
    ("replay", r#"{"from":7}"#, "from_event"),
    ("clean_up", r#"{"actor":"ana"}"#, "reason"),
    ("verify", r#"{"actor":"ana"}"#, "version"),
    ("waive", r#"{"reason":"known"}"#, "version"),
    ("pause", r#"{"actor":"ana"}"#, "version"),
    ("resume", r#"{"actor":"ana"}"#, "version"),
    ("retry_letters", r#"{"position":7}"#, "stream"),
    ("drop_letters", r#"{"all":true}"#, "version"),
    ("set_aside", r#"{"position":7}"#, "version"),
    ("cancel", r#"{"what":"flip"}"#, "version"),
    ("flip", r#"{}"#, "idempotency_key"),
];

/// Where an operation is, with names in place of what is in braces.
fn path_of(operation: &Operation) -> String {
    operation.path.replace("{projection}", "balances").replace("{version}", "v1.1")
}

fn named(name: &str) -> &'static Operation {
    OPERATIONS.iter().find(|operation| operation.name == name).expect("an operation of this name")
}

async fn refused(request: reqwest::RequestBuilder, code: &str, name: &str) -> Problem {
    let answer = request.send().await.unwrap();
    let (status, body) = (answer.status().as_u16(), answer.text().await.unwrap());
    let problem: Problem = serde_json::from_str(&body).unwrap_or_else(|_| panic!("{name} answers {status}: {body}"));
    assert_eq!((status, problem.code.as_str()), (422, code), "{name}: {problem:?}");
    assert!(problem.message.contains(name), "{name} is not named: {problem:?}");
    problem
}

#[tokio::test]
async fn every_body_is_understood_or_refused_by_name() {
    for operation in OPERATIONS.iter().filter(|operation| operation.method == "POST") {
        assert!(BODIES.iter().any(|(name, ..)| *name == operation.name), "{} has no body here", operation.name);
    }
    let served = Served::start().await;
    for (name, body, known) in BODIES {
        let url = format!("{}{}", served.url, path_of(named(name)));
        let post = |body: String| served.http().post(&url).header("content-type", "application/json").body(body);
        let with = |more: String| {
            let open = body.strip_suffix('}').unwrap();
            let comma = if open == "{" { "" } else { "," };
            post(format!("{open}{comma}{more}}}"))
        };
        // A key that nothing is like, and one that is nearly another.
        refused(with(r#""zzz":1"#.into()), "unknown_key", "zzz").await;
        let slip = &known[..known.len() - 1];
        let problem = refused(with(format!(r#""{slip}":null"#)), "unknown_key", slip).await;
        assert_eq!(problem.fields["meant"], known, "{problem:?}");
        let nothing = if known == "from_copy" {
            "false"
        } else if known == "expected" {
            "[]"
        } else {
            "null"
        };
        let doubled = format!(r#""{known}":{nothing},"{known}":{nothing}"#);
        refused(with(doubled), "doubled_key", known).await;
        refused(with(format!(r#""{known}":{{"a":1}}"#)), "unprocessable", known).await;
        refused(post("[]".into()), "unprocessable", "an array").await;
        refused(post(r#"[null,null,null,"k"]"#.into()), "unprocessable", "an array").await;
        refused(post(body.into()).query(&[("wait", "1")]), "unknown_key", "wait").await;
    }
    assert!(served.fake.script().appends.is_empty() && served.fake.script().asked.is_empty());
    served.stop().await;
}

#[tokio::test]
async fn an_empty_idempotency_key_is_refused() {
    let served = Served::start().await;
    let url = format!("{}{}", served.url, paths::flip.replace("{projection}", "balances"));
    let post = |body: &'static str| served.http().post(&url).header("content-type", "application/json").body(body);
    for request in [post(r#"{"idempotency_key":""}"#), post("{}").header(operations::IDEMPOTENCY_KEY, "")] {
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 400);
        assert!(answer.text().await.unwrap().contains("the idempotency key is empty"));
    }
    assert!(served.fake.script().asked.is_empty());
    served.stop().await;
}

#[tokio::test]
async fn every_form_within_an_append_is_understood_or_refused_by_name() {
    let served = Served::start().await;
    let url = format!("{}{}", served.url, paths::read);
    let post = |body: String| served.http().post(&url).header("content-type", "application/json").body(body);
    let event = r#""stream":"a-1","type":"t","data":{}"#;
    for (body, code, at, named) in [
        (format!(r#"{{"events":[{{{event}}}],"expected_revision":41}}"#), "unknown_key", None, "\"expected\"?"),
        (format!(r#"{{"events":[{{{event},"expected":"no_stream"}}]}}"#), "unknown_key", Some("events[0]"), "expected"),
        (format!(r#"{{"events":[{{{event},"eventId":"x"}}]}}"#), "unknown_key", Some("events[0]"), "eventId"),
        (
            format!(r#"{{"events":[{{{event}}},{{{event},"metadata":{{"correlationId":"x"}}}}]}}"#),
            "unknown_key",
            Some("events[1].metadata"),
            "\"correlation\"?",
        ),
        (
            format!(r#"{{"events":[{{{event},"metadata":{{"fields":{{"a":"1","a":"2"}}}}}}]}}"#),
            "doubled_key",
            Some("events[0].metadata.fields"),
            "\"a\"",
        ),
        (format!(r#"{{"events":[{{{event},"data":1}}]}}"#), "doubled_key", Some("events[0]"), "\"data\""),
        (format!(r#"[[{{{event}}}]]"#), "unprocessable", None, "an array"),
        (r#"{"events":[["a-1",null,"t",{}]]}"#.into(), "unprocessable", Some("events[0]"), "an array"),
        (
            format!(r#"{{"events":[{{{event},"metadata":[null,null,"me",{{}}]}}]}}"#),
            "unprocessable",
            Some("events[0].metadata"),
            "an array",
        ),
        (
            format!(r#"{{"events":[{{{event}}}],"expected":[["a-1",1]]}}"#),
            "unprocessable",
            Some("expected[0]"),
            "array",
        ),
        (
            format!(r#"{{"events":[{{{event}}}],"expected":[{{"stream":"a-1","revision":-1}}]}}"#),
            "unprocessable",
            Some("expected[0].revision"),
            "revision",
        ),
        (format!(r#"{{"events":[{{{event}}}],"on_known":"Skip"}}"#), "unprocessable", Some("on_known"), "Skip"),
        (format!(r#"{{"events":[{{{event}}}],"on_known":null}}"#), "unprocessable", Some("on_known"), "`skip`"),
        (format!(r#"{{"events":[{{{event}}}],"on_known":true}}"#), "unprocessable", Some("on_known"), "`recognise`"),
        (format!(r#"{{"events":[{{{event}}}],"on_known":{{"skip":1}}}}"#), "unprocessable", Some("on_known"), "map"),
        (format!(r#"{{"events":[{{{event},"stream":1e999}}]}}"#), "doubled_key", Some("events[0]"), "stream"),
        (
            format!(r#"{{"events":[{{{event}}}],"expected":[{{"stream":"a-1","revision":1e999}}]}}"#),
            "unprocessable",
            Some("expected[0].revision"),
            "revision",
        ),
        (format!(r#"{{"events":[{{{event},"tags":{{}}}}]}}"#), "unprocessable", Some("events[0].tags"), "at most 16"),
    ] {
        let problem = refused(post(body), code, named).await;
        assert_eq!(problem.fields.get("at").cloned(), at.map(Into::into), "{problem:?}");
    }
    // What looks like a key of ours within a payload is the caller's, and so are its doubled keys.
    let payload = r#"{"expected":1,"expected":2,"events":[[]]}"#;
    let body = format!(r#"{{"events":[{{"stream":"a-1","type":"t","data":{payload},"tags":null,"metadata":null}}]}}"#);
    assert_eq!(post(body).send().await.unwrap().status().as_u16(), 200);
    assert_eq!(served.fake.script().events[0].data.as_str(), payload);
    // A key that nobody would look at promises what is not done.
    let keyed = post(json!({"events": []}).to_string()).header("idempotency-key", "k-1").send().await.unwrap();
    assert_eq!(keyed.status().as_u16(), 400);
    served.stop().await;
}

#[tokio::test]
async fn every_query_is_understood_or_refused_by_name() {
    let served = Served::start().await;
    for operation in OPERATIONS.iter().filter(|operation| operation.method == "GET") {
        let url = format!("{}{}", served.url, path_of(operation));
        refused(served.http().get(format!("{url}?zzz=secret")), "unknown_key", "zzz").await;
        for request in [served.http().get(&url).header("idempotency-key", "k-1"), served.http().get(&url).body("{}")] {
            assert_eq!(request.send().await.unwrap().status().as_u16(), 400, "{}", operation.name);
        }
        if operation.name == "status" {
            continue;
        }
        let problem = refused(served.http().get(format!("{url}?limits=1")), "unknown_key", "limits").await;
        assert!(!problem.message.contains("secret"), "{problem:?}");
    }
    let events = format!("{}{}", served.url, paths::read);
    refused(served.http().get(format!("{events}?after=1&after=2")), "doubled_key", "after").await;
    refused(served.http().get(format!("{events}?after=x")), "unprocessable", "after").await;
    refused(served.http().get(format!("{events}?after=18446744073709551616")), "unprocessable", "after").await;
    let read = served.http().get(format!("{events}?types=a&types=b")).send().await.unwrap();
    assert_eq!(read.status().as_u16(), 200, "what is many is repeated");
    served.stop().await;
}

/// What readers of queries take for something else, and a limit that asks for nothing.
#[tokio::test]
async fn a_query_that_can_be_read_in_several_ways_is_refused_by_name() {
    let served = Served::start().await;
    let url = |path: &str| format!("{}{}", served.url, path.replace("{projection}", "balances"));
    for path in [paths::read, paths::streams, paths::phases, paths::letters] {
        for beyond in ["0", "4294967296"] {
            let request = served.http().get(format!("{}?limit={beyond}", url(path)));
            let problem = refused(request, "unprocessable", "limit").await;
            assert!(problem.message.contains("a number between 1 and 4294967295"), "{}", problem.message);
        }
    }
    for odd in ["%ff", "%c3", "%c3&after=%a9", "a%zz", "a%4", "%", "a,b", "a,,b", ","] {
        let odd = format!("{}?types={odd}", url(paths::read));
        refused(served.http().get(odd), "unprocessable", "types").await;
    }
    refused(served.http().get(format!("{}?%ff=1", url(paths::read))), "unprocessable", "\u{fffd}").await;
    let read = served.http().get(format!("{}?types=a%2Cb&types=%c3%a9+%25", url(paths::read))).send().await;
    assert_eq!(read.unwrap().status().as_u16(), 200, "a comma and a % that are written so are part of a name");
    let scalars = [
        (paths::read, "after stream limit wait_ms system"),
        (paths::streams, "category after limit"),
        (paths::phases, "projection after limit"),
        (paths::letters, "version after limit effects"),
        (paths::verification, "version wait_ms"),
    ];
    for (path, names) in scalars {
        for name in names.split(' ') {
            let value = if matches!(name, "system" | "effects") { "true" } else { "1" };
            let twice = format!("{}?{name}={value}&{name}={value}", url(path));
            refused(served.http().get(twice), "doubled_key", name).await;
        }
    }
    served.stop().await;
}

/// A number has one form, and so have yes and no: every other reader of the same query must read the same.
#[tokio::test]
async fn a_number_in_a_query_is_written_in_one_way_or_refused_by_name() {
    let served = Served::start().await;
    let url = |path: &str| format!("{}{}", served.url, path.replace("{projection}", "balances"));
    let params = [
        (paths::read, "after limit wait_ms"),
        (paths::streams, "limit"),
        (paths::phases, "after limit"),
        (paths::letters, "after limit"),
        (paths::verification, "wait_ms"),
    ];
    for (path, names) in params {
        for name in names.split(' ') {
            for odd in [
                "01", "00", "007", "%2B1", "+1", "%201", "1%20", "1%0A", "-1", "1.0", "1e3", "0x1", "1_0", "%D9%A1", "",
            ] {
                refused(served.http().get(format!("{}?{name}={odd}", url(path))), "unprocessable", name).await;
            }
            refused(served.http().get(format!("{}?{name}", url(path))), "unprocessable", name).await;
            let plain = served.http().get(format!("{}?{name}=10", url(path))).send().await.unwrap();
            assert_ne!(plain.status().as_u16(), 422, "{path} {name}");
        }
    }
    for (path, name) in [(paths::read, "system"), (paths::letters, "effects")] {
        for odd in ["on", "1", "True", "yes", "%20true", ""] {
            refused(served.http().get(format!("{}?{name}={odd}", url(path))), "unprocessable", name).await;
        }
    }
    served.stop().await;
}

#[tokio::test]
async fn a_body_that_says_it_is_not_json_in_utf_8_is_refused_by_name() {
    let served = Served::start().await;
    let url = format!("{}{}", served.url, paths::read);
    let answer = async |headers: &[(&str, &str)]| {
        let post = served.http().post(&url).body(r#"{"events":[{"stream":"a-1","type":"t","data":{}}]}"#);
        let post = headers.iter().fold(post, |post, (name, value)| post.header(*name, *value));
        let answer = post.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let json = ("content-type", "application/json");
    for (header, named) in [
        (("content-encoding", "gzip"), "gzip"),
        (("content-type", "application/json"), "content-type"),
        (("content-encoding", "br, gzip"), "br, gzip"),
    ] {
        let (status, body) = answer(&[json, header]).await;
        assert!(status == 415 && body.contains("unsupported_media_type") && body.contains(named), "{header:?}: {body}");
    }
    for kind in ["application/json; charset=latin1", "application/json;charset=\"utf-16\"", "text/json", "json", ""] {
        let (status, body) = answer(&[("content-type", kind)]).await;
        let named = kind.rsplit(['=', '"']).find(|part| !part.is_empty()).unwrap_or("content-type");
        assert!(status == 415 && body.contains(named), "{kind}: {body}");
    }
    for kind in ["application/json; charset=UTF-8", "application/json;charset=\"utf-8\"", "Application/Cloud+JSON"] {
        let (status, body) = answer(&[("content-type", kind), ("content-encoding", "identity")]).await;
        assert_eq!(status, 200, "{kind}: {body}");
    }
    served.stop().await;
}

//! Numbers and texts from outside, at the edges of what anything can hold: refused or answered, never a panic, and the
//! same by every store.

use std::time::Duration;

use dacapo::{Event, HandlerError, Node, NodeBuilder, Projection, Recorded, Row, Table, View};
use dacapo_api::Problem;
use dacapo_api::operations::paths;
use dacapo_postgres::testbed::Server;
use tokio::runtime::Runtime;

use super::round_trip::Served;

#[derive(Clone, Debug, Event)]
enum Moved {
    #[event(name = "deposited")]
    Deposited { amount: i64 },
}

#[derive(Clone, Debug, Row)]
#[row(table = "accounts")]
struct Account {
    #[row(key)]
    account: String,
    balance: i64,
}

struct Balances;

impl Projection for Balances {
    const NAME: &'static str = "balances";
    const VERSION: u32 = 1;
    const TABLES: &'static [Table] = &[Account::TABLE];
    type Event = Moved;

    async fn apply(&self, event: &Recorded<'_, Moved>, view: &mut View) -> Result<(), HandlerError> {
        let Moved::Deposited { amount } = event.data;
        let empty = || Account { account: event.stream.to_owned(), balance: 0 };
        Ok(view.upsert(event.stream, empty, |account: &mut Account| account.balance += amount).await?)
    }
}

fn carrying(builder: NodeBuilder) -> NodeBuilder {
    builder.projection(Balances.code())
}

async fn serving(node: &Node) {
    let mut catalog = node.catalog();
    let served = catalog.wait_for(|catalog| catalog.projections.values().any(|state| state.serving.is_some()));
    tokio::time::timeout(Duration::from_secs(30), served).await.unwrap().unwrap();
}

/// What is asked, and the status and code of the answer.
fn asked() -> Vec<(&'static str, String, Option<String>)> {
    let of = |path: &str| path.replace("{projection}", "balances").replace("{version}", "v1.1");
    let mut asked = vec![];
    for number in ["9223372036854775807", "9223372036854775808", "18446744073709551615", "18446744073709551616", "-1"] {
        for path in [paths::read, paths::phases] {
            asked.push(("GET", format!("{path}?after={number}"), None));
        }
        asked.push(("GET", format!("{}?stream=a-1&after={number}", paths::read), None));
        asked.push(("GET", format!("{}?version=v1.1&after={number}", of(paths::letters)), None));
        asked.push(("GET", format!("{}?version=v1.1&after={number}&effects=true", of(paths::letters)), None));
        asked.push(("GET", format!("{}?version=v1.1&wait_ms={number}", of(paths::verification)), None));
        for path in [paths::retry_letters, paths::drop_letters] {
            asked.push(("POST", of(path), Some(format!(r#"{{"version":"v1.1","position":{number}}}"#))));
            let effects = format!(r#"{{"version":"v1.1","position":{number},"effects":true}}"#);
            asked.push(("POST", of(path), Some(effects)));
        }
        asked.push(("POST", of(paths::replay), Some(format!(r#"{{"from":{number}}}"#))));
        asked.push(("POST", of(paths::rebuild), Some(format!(r#"{{"code":{number}}}"#))));
        let event = r#"{"stream":"a-2","type":"t","data":1}"#;
        let expected = format!(r#"{{"events":[{event}],"expected":[{{"stream":"a-2","revision":{number}}}]}}"#);
        asked.push(("POST", paths::read.to_owned(), Some(expected)));
    }
    for version in ["v18446744073709551616.1", "v4294967295.4294967295", "v0.0", "v-1.1", "", "%00", "v1.1%1B[2J"] {
        asked.push(("GET", format!("{}?version={version}", of(paths::letters)), None));
    }
    for time in ["9999-12-31T23:59:59Z", "0000-01-01T00:00:00Z", "-000001-01-01T00:00:00Z", "1969-12-31T23:59:59Z"] {
        asked.push(("POST", of(paths::replay), Some(format!(r#"{{"from_time":"{time}"}}"#))));
    }
    asked
}

#[test]
fn numbers_at_the_edges_are_answered_or_refused_alike_by_every_store() {
    let runtime = Runtime::new().unwrap();
    let server = Server::shared();
    runtime.block_on(async {
        let served = Served::of_every_store(&server, carrying).await;
        for served in &served {
            serving(&served.node).await;
        }
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        for (method, path, body) in asked() {
            let mut answers = vec![];
            for served in &served {
                let url = format!("{}{path}", served.url);
                let request = match &body {
                    Some(body) => http.post(&url).header("content-type", "application/json").body(body.clone()),
                    None => http.get(&url),
                };
                let answer = request.timeout(Duration::from_secs(90)).send().await;
                let answer = answer.unwrap_or_else(|error| panic!("{method} {path} {body:?}: {error:?}"));
                let (status, text) = (answer.status().as_u16(), answer.text().await.unwrap());
                let code = serde_json::from_str::<Problem>(&text).map(|problem| problem.code).unwrap_or_default();
                assert!(status < 500, "{method} {path} {body:?} answers {status}: {text}");
                answers.push((status, code));
            }
            assert!(answers.windows(2).all(|two| two[0] == two[1]), "{method} {path} {body:?}: {answers:?}");
        }
        for served in &served {
            served.node.shutdown().await;
        }
    });
}

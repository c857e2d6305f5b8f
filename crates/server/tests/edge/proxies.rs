//! The configurations in docs/operating/proxies.md, run as they stand there.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use dacapo_api::fake::node_status;
use dacapo_api::{NodeStatus, Status};
use dacapo_server::{APPEND_BODY_BYTES_MAX, Bounds, Hosts, router};
use tokio::net::TcpListener;

use super::{Answer, Served, answer, get, sends};

const PAGE: &str = include_str!("../../../../docs/operating/proxies.md");
/// Long enough for a machine that has much to do.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// The block of the page in `language`.
fn block(language: &str) -> String {
    let (_, rest) = PAGE.split_once(&format!("```{language}\n")).expect("the page has it");
    rest.split_once("```").expect("it ends").0.to_owned()
}

/// A program that ends with this.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A port that is free, and most likely stays so until a program has it.
async fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string()
}

/// Two nodes that are asked for as bank.example. The second one is not ready.
async fn nodes() -> [Served; 2] {
    let hosts = Hosts::named(["bank.example"]).unwrap();
    let first = Served::start(Bounds::default(), |api| router(api, &hosts)).await;
    let second = Served::start(Bounds::default(), |api| router(api, &hosts)).await;
    first.fake.script().statuses.push_back(named("first", true));
    second.fake.script().statuses.push_back(named("second", false));
    [first, second]
}

fn named(name: &str, ready: bool) -> Status {
    let status = node_status(0);
    Status { node: NodeStatus { name: name.to_owned(), ready, ..status.node }, ..status }
}

fn replaced(text: &str, pairs: &[(&str, &str)]) -> String {
    pairs.iter().fold(text.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "the configuration has {from:?}");
        text.replace(from, to)
    })
}

/// Asks until the answer is what is waited for; the first ones may find that the proxy is not there yet.
async fn until(address: &str, host: &str, is_it: impl Fn(&Answer) -> bool) {
    let asking = async {
        loop {
            if let Ok(connection) = tokio::net::TcpStream::connect(address).await {
                drop(connection);
                let found = answer(sends(address, &get("/v1/status", host)).await).await;
                if is_it(&found) {
                    return;
                }
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(WAIT_MAX, asking).await.expect("the proxy comes to it");
}

fn start(program: &str, args: &[&str]) -> Program {
    // Debian keeps them where only root looks.
    let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new(program);
    command.args(args).env("PATH", path).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Program(command.spawn().unwrap_or_else(|error| panic!("{program} is needed, .ci/run installs it: {error}")))
}

#[tokio::test]
async fn haproxy_asks_whether_nodes_are_ready_and_goes_to_those() {
    let [first, second] = nodes().await;
    let dir = tempfile::tempdir().unwrap();
    let front = free_address().await;
    let pairs = [
        ("bind :8080", &*format!("bind {front}")),
        ("10.0.0.7:7373", &first.address),
        ("10.0.0.8:7373", &second.address),
        ("inter 1s", "inter 20ms"),
    ];
    let file = dir.path().join("haproxy.cfg");
    std::fs::write(&file, replaced(&block("haproxy"), &pairs)).unwrap();
    let _haproxy = start("haproxy", &["-db", "-f", file.to_str().unwrap()]);
    until(&front, "bank.example", |answer| answer.status == 200).await;
    // The one that is not ready is taken out permanently, and the other one never is.
    let mut in_a_row = 0;
    while in_a_row < 20 {
        let answer = answer(sends(&front, &get("/v1/status", "bank.example")).await).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        in_a_row = if answer.text.contains(r#""name":"first""#) { in_a_row + 1 } else { 0 };
    }
    // And the other way round.
    first.fake.script().statuses = [named("first", false)].into();
    second.fake.script().statuses = [named("second", true)].into();
    until(&front, "bank.example", |answer| answer.text.contains(r#""name":"second""#)).await;
    let refused = answer(sends(&front, &get("/v1/status", "rebound.example")).await).await;
    assert_eq!(refused.status, 403, "{refused:?}");
}

#[tokio::test]
async fn nginx_passes_the_name_on_and_answers_no_other() {
    let nodes = nodes().await;
    let dir = tempfile::tempdir().unwrap();
    let front = free_address().await;
    let pairs = [
        ("listen 8080", &*format!("listen {front}")),
        ("10.0.0.7:7373", &nodes[0].address),
        ("10.0.0.8:7373", &nodes[1].address),
        ("events {}", &in_directory(dir.path())),
        ("http {", &in_directory_http(dir.path())),
    ];
    let file = dir.path().join("nginx.conf");
    std::fs::write(&file, replaced(&block("nginx"), &pairs)).unwrap();
    let log = dir.path().join("error.log");
    let prefix = dir.path().to_str().unwrap();
    let _nginx = start("nginx", &["-p", prefix, "-e", log.to_str().unwrap(), "-c", file.to_str().unwrap()]);
    until(&front, "bank.example", |answer| answer.text.contains(r#""name":"first""#)).await;
    // An own page of that name is let in, others are not.
    let page =
        |origin: &str| get("/v1/status", "bank.example").replace("\r\n\r\n", &format!("\r\nOrigin: {origin}\r\n\r\n"));
    assert_eq!(answer(sends(&front, &page("https://bank.example")).await).await.status, 200);
    assert_eq!(answer(sends(&front, &page("https://evil.example")).await).await.status, 403);
    assert_eq!(answer(sends(&front, &get("/v1/status", "rebound.example")).await).await.status, 0);
    assert_eq!(answer(sends(&front, &get("/livez", "bank.example")).await).await.status, 200);
    // A large append comes through.
    let body = format!(r#"{{"events":[{{"stream":"a-1","type":"noted","data":"{}"}}]}}"#, "x".repeat(2 << 20));
    let request = format!(
        "POST /v1/events HTTP/1.1\r\nHost: bank.example\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let appended = answer(sends(&front, &request).await).await;
    assert_eq!(appended.status, 200, "{appended:?}");
    assert!(PAGE.contains(&format!("client_max_body_size {}m;", APPEND_BODY_BYTES_MAX >> 20)));
}

/// What keeps nginx, which may be root's, in a directory of its own and before this test's eyes.
fn in_directory(dir: &Path) -> String {
    format!("user root;\ndaemon off;\nmaster_process off;\npid {0}/nginx.pid;\nevents {{}}", dir.display())
}

fn in_directory_http(dir: &Path) -> String {
    let dir = dir.display();
    let kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let places: String = kinds.iter().map(|kind| format!("    {kind}_temp_path {dir}/{kind};\n")).collect();
    format!("http {{\n    access_log off;\n{places}")
}

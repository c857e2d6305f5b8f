//! A service in production, from its first release to the clean-up of the old version: through its own
//! HTTP routes and the real command line, with golden output.

mod common;

use std::io::{Read as _, Write as _};

use common::{Script, Service, WAIT_MAX, dacapo, http};
use tokio::sync::watch;

#[test]
fn a_rebuild_from_release_to_clean_up() {
    Script::run("rebuild");
}

#[test]
fn requests_of_the_service_and_what_they_are_told() {
    Script::run("requests");
}

#[test]
fn a_directory_has_one_process_and_another_one_gets_the_same_events() {
    Script::run("directory");
}

/// An event as its owner knows it: without its place in the one journal or the other, and without its time.
fn own(line: &str) -> serde_json::Value {
    let mut event: serde_json::Value = serde_json::from_str(line).unwrap();
    let fields = event.as_object_mut().unwrap();
    fields.remove("position").unwrap();
    let time = fields.remove("time").unwrap();
    let metadata = fields.entry("metadata").or_insert_with(|| serde_json::json!({}));
    let kept = metadata.as_object_mut().unwrap().remove("fields");
    let kept = kept.map_or(time, |fields| fields["time"].clone());
    metadata["time"] = kept;
    event
}

#[test]
fn what_is_read_and_imported_elsewhere_is_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(&dir.path().join("bank"), "2");
    for number in 0..100 {
        let account = number % 9;
        let data = format!(r#"{{"amount": {number}, "note": "é\\n\""}}"#);
        let event = format!("append account-{account} --type deposited --data '{data}' --tag t:{number} --actor ann");
        dacapo(&event, dir.path(), &service.url);
    }
    let read = dacapo("read --json", dir.path(), &service.url);
    dacapo("read --json | dacapo import --data copy", dir.path(), &service.url);
    let copied = dacapo("read --json --data copy", dir.path(), "");
    let (read, copied): (Vec<_>, Vec<_>) = (read.lines().map(own).collect(), copied.lines().map(own).collect());
    assert_eq!(read.len(), 100);
    assert_eq!(read, copied);
}

/// I-2 and I-3 through everything that lies between a client and the disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_was_acknowledged_is_lost_by_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("bank");
    let mut paid = [0_i64; 4];
    for _ in 0..3 {
        let service = Service::start(&data, "1,2");
        let (told, mut acknowledged) = watch::channel(0);
        let pay = |client| tokio::spawn(pay_in(service.url.clone(), client, told.clone()));
        let clients: Vec<_> = (0..paid.len()).map(pay).collect();
        tokio::time::timeout(WAIT_MAX, acknowledged.wait_for(|number| *number > 50)).await.unwrap().unwrap();
        tokio::task::spawn_blocking(move || service.kill()).await.unwrap();
        for (client, paying) in clients.into_iter().enumerate() {
            paid[client] += paying.await.unwrap();
        }
        let service = Service::start(&data, "1,2");
        for (client, paid) in paid.iter_mut().enumerate() {
            let (status, answer) = http(&service.url, &format!("GET /accounts/{client}")).await.unwrap();
            let there = if status == 200 { answer["balance"].as_i64().unwrap() } else { 0 };
            // What was under way when the process was killed may be there, and is nobody's loss.
            assert!((*paid..=*paid + 1).contains(&there), "I-2: {answer}, {paid} were acknowledged");
            *paid = there;
        }
        assert!(service.terminate().success());
    }
    assert!(paid.iter().sum::<i64>() > 150);
}

/// Pays in a cent at a time until the service is gone. Returns how many times that was acknowledged.
async fn pay_in(url: String, client: usize, told: watch::Sender<u64>) -> i64 {
    let opened = http(&url, &format!(r#"PUT /accounts/{client} {{"owner":"ann"}}"#)).await;
    if opened.is_err() {
        return 0;
    }
    for paid in 0.. {
        match http(&url, &format!(r#"POST /accounts/{client}/deposits {{"amount":1}}"#)).await {
            Ok((200, _)) => told.send_modify(|number| *number += 1),
            Ok(answer) => panic!("{answer:?}"),
            Err(_) => return paid,
        }
    }
    unreachable!("clients pay in until the service is gone")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_withdrawals_cannot_both_have_the_last_cent() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(&dir.path().join("bank"), "1");
    let url = &service.url;
    http(url, r#"PUT /accounts/1 {"owner":"ann"}"#).await.unwrap();
    http(url, r#"POST /accounts/1/deposits {"amount":5}"#).await.unwrap();
    let draw = || http(url, r#"POST /accounts/1/withdrawals {"amount":1}"#);
    let drawn = futures::future::join_all((0..8).map(|_| draw())).await;
    let mut statuses: Vec<u16> = drawn.into_iter().map(|drawn| drawn.unwrap().0).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 200, 200, 200, 409, 409, 409]);
}

#[test]
fn sigterm_under_traffic_ends_it_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(&dir.path().join("bank"), "1,2");
    let http = tokio::runtime::Runtime::new().unwrap();
    let (told, mut acknowledged) = watch::channel(0);
    let paying = http.spawn(pay_in(service.url.clone(), 1, told));
    let some = acknowledged.wait_for(|number| *number > 10);
    http.block_on(async { tokio::time::timeout(WAIT_MAX, some).await.unwrap().unwrap() });
    let log = dir.path().join("bank.log");
    assert!(service.terminate().success());
    assert!(std::fs::read_to_string(log).unwrap().contains("ended in order"));
    // Every request was answered before the end or not taken at all.
    let paid = http.block_on(paying).unwrap();
    let events = dacapo("read --data bank --type deposited", dir.path(), "");
    assert_eq!(i64::try_from(events.lines().count()).unwrap(), paid);
}

#[test]
fn the_routes_of_the_bank_answer_anyone_and_the_operations_do_not() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(&dir.path().join("bank"), "1");
    let address = service.url.strip_prefix("http://").unwrap();
    let status = |request: &str| {
        let mut connection = std::net::TcpStream::connect(address).unwrap();
        connection.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        answer.split(' ').nth(1).unwrap().to_owned()
    };
    let of_a_page = "Host: bank.example\r\nOrigin: https://shop.example\r\nConnection: close\r\n";
    let body = r#"{"owner":"ann"}"#;
    let length = body.len();
    let typed = format!("Content-Type: application/json\r\nContent-Length: {length}\r\n");
    assert_eq!(status(&format!("PUT /accounts/7 HTTP/1.1\r\n{of_a_page}{typed}\r\n{body}")), "201");
    assert_eq!(status(&format!("GET /accounts/7?after=1 HTTP/1.1\r\n{of_a_page}\r\n")), "200");
    assert_eq!(status(&format!("GET /v1/status HTTP/1.1\r\n{of_a_page}\r\n")), "403");
    assert_eq!(status("GET /readyz HTTP/1.0\r\n\r\n"), "200");
}

//! A service in production, from its first release to the clean-up of the old version: through its own
//! HTTP routes and the real command line, with golden output.

mod common;

use common::{Script, Service, dacapo, http, until};

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

/// I-2 and I-3 through everything that lies between a client and the disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_was_acknowledged_is_lost_by_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("bank");
    let mut paid = [0_i64; 4];
    for _ in 0..3 {
        let service = Service::start(&data, "1,2");
        let clients = (0..paid.len()).map(|client| tokio::spawn(pay_in(service.url.clone(), client)));
        let clients: Vec<_> = clients.collect();
        let url = service.url.clone();
        until("the clients pay in", || dacapo("status", dir.path(), &url).contains("balances").then_some(()));
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
    assert!(paid.iter().sum::<i64>() > 0);
}

/// Pays in a cent at a time until the service is gone. Returns how many times that was acknowledged.
async fn pay_in(url: String, client: usize) -> i64 {
    let opened = http(&url, &format!(r#"PUT /accounts/{client} {{"owner":"ann"}}"#)).await;
    if opened.is_err() {
        return 0;
    }
    for paid in 0.. {
        match http(&url, &format!(r#"POST /accounts/{client}/deposits {{"amount":1}}"#)).await {
            Ok((200, _)) => {}
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
    let paying = http.spawn(pay_in(service.url.clone(), 1));
    let url = service.url.clone();
    until("a deposit", || dacapo("read --type deposited", dir.path(), &url).contains("deposited").then_some(()));
    let log = dir.path().join("bank.log");
    assert!(service.terminate().success());
    assert!(std::fs::read_to_string(log).unwrap().contains("ended in order"));
    // Every request was answered before the end or not taken at all.
    let paid = http.block_on(paying).unwrap();
    let events = dacapo("read --data bank --type deposited", dir.path(), "");
    assert_eq!(i64::try_from(events.lines().count()).unwrap(), paid);
}

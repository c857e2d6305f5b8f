//! A rolling upgrade to code that reads one more event type and another form of one, under the same version number.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use dacapo::catalog::CodeMismatch;
use dacapo::journal::{Filter, Limit};
use dacapo::status::{Status, VersionStatus, WaitingOn};
use dacapo::{Answers, Error, Event, HandlerError, Node, Position, Projection, Query, ReadView};
use dacapo_postgres::testbed::Server;
use tokio::sync::{RwLock, watch};

use crate::common::money::{Balance, Balances, Money, New, Old, balances, put};
use crate::common::{WAIT_MAX, until, version};
use crate::node;

/// So many clients work at once, each on an account of its own.
const CLIENTS: usize = 4;
/// So many of their requests are waited for before a node goes or comes.
const BETWEEN: usize = 24;

fn v1(status: &Status) -> Option<&VersionStatus> {
    let found = status.projections.iter().find(|found| found.name == balances())?;
    found.versions.iter().find(|found| found.version == version("v1.1"))
}

/// Who has segments of the version.
fn owners(status: &Status) -> BTreeSet<&str> {
    let tokens = v1(status).map(|found| &found.tokens[..]).unwrap_or_default();
    let owner = |id| status.members.iter().find(|member| Some(member.id) == id);
    tokens.iter().map(|token| owner(token.claimed_by).map_or("nobody", |member| &member.name)).collect()
}

async fn owned_by(node: &Node, wanted: &[&str]) {
    let wanted: BTreeSet<&str> = wanted.iter().copied().collect();
    until(node, &format!("{wanted:?} have all of it"), |status| owners(status) == wanted).await;
}

/// Whether the node says that its code does not read what the version reads.
fn says_so(status: &Status) -> bool {
    let told = |reason: &WaitingOn| matches!(reason, WaitingOn::Reads { unlike: CodeMismatch::Missing(_), .. });
    v1(status).is_some_and(|found| found.waiting_on.iter().any(told))
}

/// The balance that the view shows once it covers `after`.
async fn shown(node: &Node, account: &str, after: Position) -> i64 {
    let reading = async {
        loop {
            match node.read("balances", after).await {
                // On a machine that is busy with something else.
                Err(Error::TimedOut { .. }) => {}
                reading => return reading.unwrap(),
            }
        }
    };
    let mut reading = tokio::time::timeout(WAIT_MAX, reading).await.expect("a version covers it");
    reading.view.get::<Balance>(account).await.unwrap().map_or(0, |row| row.balance)
}

/// I-3: the view is the fold of all of the journal.
async fn is_right(node: &Node) {
    let (head, mut after, mut wanted) = (node.head(), Position::START, BTreeMap::<String, i64>::new());
    while after < head {
        let batch = node.journal().read(after, &Filter::default(), Limit::events(1_000)).await.unwrap();
        for event in batch.iter().filter(|event| event.position <= head) {
            let data = New::decode(event.event_type, event.payload).unwrap().expect("the new code reads all of it");
            *wanted.entry(event.stream.to_owned()).or_default() += data.change();
        }
        after = batch.through;
    }
    let mut reading = node.read("balances", head).await.unwrap();
    let rows = reading.view.rows::<Balance>().load().await.unwrap();
    assert_eq!(rows.into_iter().map(|row| (row.account, row.balance)).collect::<BTreeMap<_, _>>(), wanted, "I-3");
}

/// What the view has of one account.
#[derive(Debug)]
struct BalanceOf(&'static str);

impl Query for BalanceOf {
    const PROJECTION: &'static str = "balances";
    type Answer = i64;
}

impl<E: Money> Answers<BalanceOf> for Balances<E> {
    async fn answer(&self, query: &BalanceOf, view: &mut ReadView) -> Result<i64, HandlerError> {
        Ok(view.get::<Balance>(query.0).await?.map_or(0, |row| row.balance))
    }
}

async fn started<E: Money>(url: &str, name: &str) -> Node {
    let code = Balances::<E>::default().answering::<BalanceOf>();
    node(url, name).await.projection(code).start().await.unwrap()
}

/// The nodes that clients reach, and whether each runs the new release.
type Reached = Arc<RwLock<Vec<(Node, bool)>>>;

/// Appends through any node what its release knows, and reads through any other one, until nobody counts any more.
async fn client(nodes: Reached, number: usize, requests: watch::Sender<usize>) {
    let account = format!("account-{number}");
    let (mut balance, mut at) = (0, number);
    while !requests.is_closed() {
        let nodes = nodes.read().await;
        let (node, is_new) = &nodes[at % nodes.len()];
        let position = match (is_new, at % 2) {
            (false, _) => {
                balance += 10;
                put(node, &account, Old::Deposited { amount: 10 }).await
            }
            (true, 0) => {
                balance += 7;
                put(node, &account, New::Deposited { cents: 700 }).await
            }
            (true, _) => {
                balance -= 3;
                put(node, &account, New::Withdrawn { amount: 3 }).await
            }
        };
        at += 1;
        let (node, _) = &nodes[(at + number) % nodes.len()];
        assert_eq!(shown(node, &account, position).await, balance, "of {account} at {position}");
        requests.send_modify(|requests| *requests += 1);
    }
}

// I-3, I-11
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nodes_are_replaced_one_by_one_while_what_old_ones_do_not_know_is_appended_and_read() {
    let server = Server::shared();
    let url = server.database().await;
    let names = ["old-1", "old-2", "old-3"];
    let mut old = vec![];
    for name in names {
        old.push(started::<Old>(&url, name).await);
    }
    owned_by(&old[0], &names).await;
    let nodes: Reached = Arc::new(RwLock::new(old.iter().map(|node| (node.clone(), false)).collect()));
    let (requests, mut count) = watch::channel(0);
    let clients: Vec<_> =
        (0..CLIENTS).map(|number| tokio::spawn(client(Arc::clone(&nodes), number, requests.clone()))).collect();
    let mut go_on = async || {
        let so_far = *count.borrow();
        let more = count.wait_for(|count| *count >= so_far + BETWEEN);
        tokio::time::timeout(WAIT_MAX, more).await.expect("clients go on").unwrap();
    };
    go_on().await;

    let mut new = vec![];
    for (number, old) in old.into_iter().enumerate() {
        let name = ["new-1", "new-2", "new-3"][number];
        new.push(started::<New>(&url, name).await);
        nodes.write().await.push((new[number].clone(), true));
        go_on().await;
        // Anyone who has the old program has given up what it had, and says why.
        owned_by(&old, &["new-1", "new-2", "new-3"][..=number]).await;
        until(&old, "it says that it does not read all", says_so).await;
        nodes.write().await.remove(0);
        old.shutdown().await;
        go_on().await;
    }
    drop(count);
    for client in clients {
        client.await.unwrap();
    }
    for node in &new {
        is_right(node).await;
        assert!(node.not_ready().is_empty());
    }
    for node in new {
        node.shutdown().await;
    }
}

// I-3, I-11
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_new_code_appends_while_only_old_nodes_are_left_waits_for_a_new_one() {
    let server = Server::shared();
    let url = server.database().await;
    let one = started::<Old>(&url, "old-1").await;
    let two = started::<Old>(&url, "old-2").await;
    owned_by(&one, &["old-1", "old-2"]).await;
    let new = started::<New>(&url, "new-1").await;
    owned_by(&one, &["new-1"]).await;
    let deposited = put(&two, "account-1", Old::Deposited { amount: 10 }).await;
    assert_eq!(shown(&one, "account-1", deposited).await, 10);
    new.shutdown().await;

    // A program without a projection.
    let writer = node(&url, "writer").await.start().await.unwrap();
    let withdrawn = put(&writer, "account-1", New::Withdrawn { amount: 3 }).await;
    let last = put(&writer, "account-1", New::Deposited { cents: 500 }).await;
    writer.shutdown().await;
    for old in [&one, &two] {
        let knows = |status: &Status| status.head >= withdrawn && says_so(status);
        let status = until(old, "it knows of the event, and says that it does not read all", knows).await;
        assert!(v1(&status).unwrap().tokens.iter().all(|token| !token.covers(withdrawn)), "I-3: it was not passed");
        // What it covers is still shown, what it does not cover is not, and the reason is told.
        assert_eq!(shown(old, "account-1", deposited).await, 10);
        let asked = old.ask(BalanceOf("account-1")).after(withdrawn).within(Duration::from_millis(20)).await;
        let Err(Error::TimedOut { waiting_on, .. }) = asked else { panic!("{asked:?}") };
        assert!(waiting_on.iter().any(|reason| matches!(reason, WaitingOn::Reads { .. })), "{waiting_on:?}");
    }
    let again = started::<New>(&url, "new-2").await;
    for node in [&one, &two, &again] {
        assert_eq!(shown(node, "account-1", last).await, 12);
    }
    is_right(&again).await;
    for node in [one, two, again] {
        node.shutdown().await;
    }
}

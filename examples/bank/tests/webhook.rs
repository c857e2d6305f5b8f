//! The reactor that posts to another service, which fails, times out, is away and comes back.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use dacapo::effects::EffectOptions;
use dacapo::status::{Status, WaitingOn};
use dacapo::{ExpectedRevision, Node, Options, Projection, VersionCode};
use dacapo_example_bank::AccountEvent;
use dacapo_example_bank::webhook::{IDEMPOTENCY_KEY, Movement, Webhooks};
use tokio::task::JoinHandle;

const WAIT_MAX: Duration = Duration::from_secs(60);

/// What the other service does with a post.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Mood {
    #[default]
    Takes,
    Fails,
    /// Takes it, and never answers.
    Hangs,
}

#[derive(Debug, Default)]
struct Books {
    mood: Mutex<Mood>,
    /// Every post: what it did with it, the key and the movement.
    posts: Mutex<Vec<(Mood, String, Movement)>>,
}

impl Books {
    fn posts(&self) -> Vec<(Mood, String, Movement)> {
        self.posts.lock().unwrap().clone()
    }

    fn set(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    /// The keys that it has taken, each once, in order, for each account.
    fn taken(&self) -> BTreeMap<String, Vec<String>> {
        let mut taken: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (mood, key, movement) in self.posts() {
            let keys = taken.entry(movement.account).or_default();
            if mood != Mood::Fails && !keys.contains(&key) {
                keys.push(key);
            }
        }
        taken
    }

    async fn until(&self, what: &str, enough: impl Fn(&Self) -> bool) {
        let waiting = async {
            while !enough(self) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(WAIT_MAX, waiting).await.unwrap_or_else(|_| panic!("never: {what}; {:?}", self.posts()));
    }
}

async fn take(State(books): State<Arc<Books>>, headers: HeaderMap, Json(movement): Json<Movement>) -> StatusCode {
    let key = headers[IDEMPOTENCY_KEY].to_str().unwrap().to_owned();
    let mood = *books.mood.lock().unwrap();
    books.posts.lock().unwrap().push((mood, key, movement));
    match mood {
        Mood::Takes => StatusCode::OK,
        Mood::Fails => StatusCode::INTERNAL_SERVER_ERROR,
        Mood::Hangs => std::future::pending().await,
    }
}

/// The other service, on `address`.
async fn serve(address: SocketAddr, books: &Arc<Books>) -> (SocketAddr, JoinHandle<()>) {
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    let routes = Router::new().route("/movements", post(take)).with_state(Arc::clone(books));
    (address, tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() }))
}

async fn bank(data: &Path, address: SocketAddr) -> Node {
    let effects = EffectOptions { retry_first: Duration::from_millis(10), ..EffectOptions::default() };
    let options = Options { effects, ..Options::default() };
    let webhooks = Webhooks::new(format!("http://{address}/movements"), Duration::from_millis(200), options).unwrap();
    let carried: VersionCode = webhooks.acting::<Movement>().into();
    let node = Node::builder().data(data).projection(carried).start().await.unwrap();
    let mut catalog = node.catalog();
    let serves = catalog.wait_for(|catalog| catalog.projections.values().any(|state| state.serving.is_some()));
    tokio::time::timeout(WAIT_MAX, serves).await.unwrap().unwrap();
    node
}

/// Pays into three accounts, and returns the keys under which that must be told, for each account.
async fn pay(node: &Node, keys: &mut BTreeMap<String, Vec<String>>) {
    for account in 0..3 {
        let account = format!("account-{account}");
        let paid = AccountEvent::Deposited { amount: 5, note: String::new() };
        let appended = node.append(account.as_str(), ExpectedRevision::Any, [paid]).await.unwrap();
        keys.entry(account).or_default().push(format!("webhooks-{}-0", appended.position));
    }
}

fn failing(status: &Status) -> Vec<String> {
    let versions = status.projections.iter().flat_map(|projection| &projection.versions);
    let waiting = versions.flat_map(|version| &version.waiting_on);
    waiting.filter(|reason| matches!(reason, WaitingOn::Effect { .. })).map(ToString::to_string).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_movement_is_told_at_least_once_in_order_and_under_its_key() {
    let directory = tempfile::tempdir().unwrap();
    let (books, mut keys) = (Arc::<Books>::default(), BTreeMap::new());
    let (address, server) = serve("127.0.0.1:0".parse().unwrap(), &books).await;
    let node = bank(directory.path(), address).await;
    pay(&node, &mut keys).await;
    books.until("all are taken", |books| books.taken() == keys).await;

    books.set(Mood::Fails);
    pay(&node, &mut keys).await;
    books.until("each is tried again", |books| books.posts().len() >= 9).await;

    books.set(Mood::Hangs);
    let before = books.posts().len();
    books.until("it is taken and not answered", |books| books.posts().len() > before).await;

    server.abort();
    assert!(server.await.unwrap_err().is_cancelled());
    pay(&node, &mut keys).await;
    let looking = async {
        loop {
            let failing = failing(&node.status().await.unwrap());
            if failing.iter().any(|text| text.contains("error sending request")) {
                return failing;
            }
            tokio::task::yield_now().await;
        }
    };
    let told = tokio::time::timeout(WAIT_MAX, looking).await.expect("the status says what fails");
    assert!(told.iter().all(|text| text.starts_with("an effect of event")), "{told:?}");

    // The bank is restarted, too, and what it owes is not forgotten.
    node.shutdown().await;
    drop(node);
    let node = bank(directory.path(), address).await;
    books.set(Mood::Takes);
    let (_, _server) = serve(address, &books).await;
    pay(&node, &mut keys).await;
    let done = |books: &Books| {
        let answered = books.posts().into_iter().filter(|(mood, ..)| *mood == Mood::Takes).map(|(_, key, _)| key);
        answered.collect::<BTreeSet<_>>().len() == keys.values().map(Vec::len).sum::<usize>()
    };
    books.until("everything is told", done).await;
    assert_eq!(books.taken(), keys, "each under its key, in the order of its account");
    let mut by_key: BTreeMap<String, Vec<Movement>> = BTreeMap::new();
    for (_, key, movement) in books.posts() {
        by_key.entry(key).or_default().push(movement);
    }
    assert!(by_key.values().any(|told| told.len() > 1), "at least once: some were told again");
    for (key, told) in by_key {
        assert!(told.windows(2).all(|pair| pair[0] == pair[1]), "{key} always means the same");
    }
    node.shutdown().await;
}

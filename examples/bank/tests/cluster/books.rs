//! Clients that keep books, and what must be true of the journal and of every view whatever happened.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dacapo::catalog::{Catalog, CatalogEvent};
use dacapo::journal::{EventId, Filter, Limit, Revision};
use dacapo::rows::Value;
use dacapo::store::{Journal, Store};
use dacapo::{Position, VersionId, ViewId};
use dacapo_store::catalog_form;
use serde_json::Value as Json;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::world::{WAIT_MAX, World, until};

/// How long a client waits for an answer: longer than a node may take to say that it cannot.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(15);
/// How long a client rests after it got none.
const REST: Duration = Duration::from_millis(50);

/// What clients know of what they paid in, by the note of the deposit.
#[derive(Default)]
pub struct Books {
    /// Positions of what was acknowledged.
    told: Mutex<HashMap<String, u64>>,
    /// What got no answer or one that leaves it open.
    open: Mutex<HashSet<String>>,
    /// How many deposits were acknowledged and how many answers read.
    pub done: watch::Sender<(u64, u64)>,
    stop: AtomicBool,
}

impl Books {
    /// A deposit that somebody else makes, whose outcome is known later.
    pub fn tries(&self, note: &str) {
        self.open.lock().unwrap().insert(note.to_owned());
    }

    /// It was acknowledged, at this position.
    pub fn was_told(&self, note: &str, position: u64) {
        self.told.lock().unwrap().insert(note.to_owned(), position);
    }
}

/// Clients that pay in and read until they are stopped.
pub struct Clients {
    pub books: Arc<Books>,
    tasks: Vec<JoinHandle<()>>,
}

impl Clients {
    pub fn start(world: &World, count: usize) -> Self {
        let books: Arc<Books> = Arc::default();
        let client = |number: usize| {
            let addresses = Arc::clone(&world.addresses);
            let http = reqwest::Client::builder().timeout(ANSWER_TIME_MAX).build().unwrap();
            Client { account: format!("of-{number}"), at: number, http, addresses, books: Arc::clone(&books) }
        };
        let tasks = (0..count).map(|number| tokio::spawn(client(number).run())).collect();
        Self { books, tasks }
    }

    /// Waits until so many more deposits were acknowledged and as many answers read.
    pub async fn get_on(&self, more: u64) {
        let mut done = self.books.done.subscribe();
        let (paid, read) = *done.borrow_and_update();
        let on = done.wait_for(|(now_paid, now_read)| *now_paid >= paid + more && *now_read >= read + more);
        tokio::time::timeout(WAIT_MAX, on).await.expect("clients get on").unwrap();
    }

    /// Waits until so many more requests had no answer, or the one that it cannot be done now.
    pub async fn are_refused(&self, more: usize) {
        let refused = || self.books.open.lock().unwrap().len();
        let before = refused();
        until("clients are refused", async || (refused() >= before + more).then_some(())).await;
    }

    pub async fn stop(self) -> Arc<Books> {
        self.books.stop.store(true, Ordering::SeqCst);
        for task in self.tasks {
            task.await.unwrap();
        }
        self.books
    }
}

struct Client {
    account: String,
    at: usize,
    http: reqwest::Client,
    addresses: Arc<Mutex<Vec<String>>>,
    books: Arc<Books>,
}

impl Client {
    async fn run(mut self) {
        let (mut number, mut paid, mut perhaps, mut covers, mut shown) = (0, 0, 0, 0, 0);
        let open = serde_json::json!({ "owner": "ann" });
        while !matches!(self.ask(reqwest::Method::PUT, "", Some(&open)).await, Some((201 | 409, _))) {
            if self.books.stop.load(Ordering::SeqCst) {
                return;
            }
            tokio::time::sleep(REST).await;
        }
        while !self.books.stop.load(Ordering::SeqCst) {
            number += 1;
            let (note, amount) = (format!("{}-{number}", self.account), 1 + number % 7);
            let deposit = serde_json::json!({ "amount": amount, "note": note });
            match self.ask(reqwest::Method::POST, "/deposits", Some(&deposit)).await {
                Some((200, answer)) => {
                    let position = answer["position"].as_u64().unwrap();
                    self.books.told.lock().unwrap().insert(note, position);
                    self.books.done.send_modify(|(paid, _)| *paid += 1);
                    paid += amount;
                    covers = covers.max(position);
                }
                _ => {
                    self.books.open.lock().unwrap().insert(note);
                    perhaps += amount;
                    tokio::time::sleep(REST).await;
                }
            }
            let path = format!("?after={covers}");
            let Some((200, answer)) = self.ask(reqwest::Method::GET, &path, None).await else {
                tokio::time::sleep(REST).await;
                continue;
            };
            let (balance, covered) = (answer["balance"].as_i64().unwrap(), answer["covers"].as_u64().unwrap());
            assert!((paid..=paid + perhaps).contains(&balance), "{answer}: {paid} paid, {perhaps} perhaps");
            assert!(covered >= covers && balance >= shown, "I-7: {answer} after {covers}, {shown} was shown");
            (covers, shown) = (covered, balance);
            self.books.done.send_modify(|(_, read)| *read += 1);
        }
    }

    /// Asks one node after the other. No answer, and one that it cannot be done now, is nothing.
    async fn ask(&mut self, method: reqwest::Method, path: &str, body: Option<&Json>) -> Option<(u16, Json)> {
        self.at += 1;
        let base = {
            let addresses = self.addresses.lock().unwrap();
            addresses.get(self.at % addresses.len().max(1))?.clone()
        };
        let request = self.http.request(method, format!("{base}/accounts/{}{path}", self.account));
        let request = body.into_iter().fold(request, |request, body| request.json(body));
        let answer = request.send().await.ok()?;
        let status = answer.status().as_u16();
        let body: Json = answer.json().await.ok()?;
        assert!(matches!(status, 200 | 201 | 409 | 503), "an honest answer: {status} {body}");
        Some((status, body))
    }
}

type Rows = BTreeMap<String, (i64, i64)>;

/// Holds everything against a plain fold of the journal, once nobody writes any more: what was acknowledged is there
/// once, one version serves at a time, and every row of every view is what its events make of it.
pub async fn check(world: &World, books: Arc<Books>) {
    let store = dacapo_postgres::connect(&world.url, dacapo_postgres::Options::default()).await.unwrap();
    let (rows, head) = check_journal(&*store.journal, &books).await;
    for (id, segments) in check_catalog(&*store.journal).await {
        check_view(&store, &id, segments, head, &rows).await;
    }
    store.journal.close().await;
}

/// I-1, I-2
async fn check_journal(journal: &dyn Journal, books: &Books) -> (Rows, Position) {
    let (told, open) = (books.told.lock().unwrap().clone(), books.open.lock().unwrap().clone());
    let (mut rows, mut after, mut ids) = (Rows::new(), Position::START, HashSet::<EventId>::new());
    let (mut found, mut revisions) = (HashMap::<String, u64>::new(), HashMap::<String, u64>::new());
    loop {
        let batch = journal.read(after, &Filter::everything(), Limit::events(10_000)).await.unwrap();
        for event in batch.iter() {
            after = after.plus(1);
            assert_eq!(event.position, after, "I-1");
            assert!(ids.insert(event.id), "I-2: {} is there twice", event.id);
            let revision = revisions.entry(event.stream.to_owned()).or_default();
            *revision += 1;
            assert_eq!(event.revision.get(), *revision);
            if event.stream.starts_with('$') {
                continue;
            }
            let data: Json = serde_json::from_slice(event.payload).unwrap();
            let row = rows.entry(event.stream.to_owned()).or_default();
            row.1 += 1;
            if event.event_type == "deposited" {
                row.0 += data["amount"].as_i64().unwrap();
                let note = data["note"].as_str().unwrap().to_owned();
                if note != "wait" {
                    assert!(told.contains_key(&note) || open.contains(&note), "{note} is nobody's");
                    assert_eq!(found.insert(note.clone(), after.get()), None, "I-2: {note} is there twice");
                }
            }
        }
        if batch.through <= after && batch.is_empty() {
            break;
        }
    }
    for (note, position) in &told {
        assert_eq!(found.get(note), Some(position), "I-2: {note} was acknowledged");
    }
    (rows, after)
}

/// I-5; the answer is the versions that are kept up to date, with their number of segments.
async fn check_catalog(journal: &dyn Journal) -> Vec<(ViewId, usize)> {
    let mut catalog = Catalog::default();
    let mut serving: Option<VersionId> = None;
    loop {
        let after = Revision::new(catalog.revision.get());
        let batch = journal.read_stream(&catalog_form::stream(), after, Limit::events(1_000)).await.unwrap();
        if batch.is_empty() {
            break;
        }
        for event in batch.iter() {
            let decoded = catalog_form::decode(event.event_type, event.payload).unwrap();
            if let CatalogEvent::Flipped { view, from, .. } = &decoded {
                assert_eq!(*from, serving, "I-5: at {}", event.position);
                serving = Some(view.version);
            }
            catalog.evolve(&decoded, event.position, event.recorded).unwrap();
        }
    }
    let applies = catalog.versions().filter(|(_, state)| state.phase.applies());
    applies.map(|(id, state)| (id, usize::from(state.segments.get()))).collect()
}

/// I-3
async fn check_view(store: &Store, id: &ViewId, segments: usize, head: Position, rows: &Rows) {
    let view = store.views.find(id).await.unwrap().unwrap_or_else(|| panic!("{id} has a view"));
    let mut reader = until(&format!("{id} at {head}"), async || {
        let reader = view.reader().await.unwrap();
        (reader.covers() >= head).then_some(reader)
    })
    .await;
    assert_eq!(reader.tokens().len(), segments);
    let balance = if id.version.code == 1 { "balance" } else { "deposited - withdrawn" };
    let (_, found) = reader.query(&format!("SELECT account, {balance}, entries FROM accounts"), &[]).await.unwrap();
    let row = |row: Vec<Value>| match &row[..] {
        [Value::Text(account), Value::Integer(balance), Value::Integer(entries)] => {
            (account.clone(), (*balance, *entries))
        }
        other => panic!("{other:?} is no row"),
    };
    let found: Rows = found.into_iter().map(row).collect();
    assert_eq!(found, *rows, "I-3: {id}");
}

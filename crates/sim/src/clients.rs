//! What clients do: appends, queries and operations, each chosen from a table of weighted actions.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use crate::books::{Memory, Outcome, Seen, Written};
use crate::http::{Response, call};
use crate::ledger::PROJECTIONS;
use crate::limits;
use crate::world::{World, locked};

/// An action of a client, and how often it is chosen relative to the others.
pub type Table<A> = &'static [(u32, A)];

pub fn choose<A: Copy>(chance: &mut fastrand::Rng, table: Table<A>) -> A {
    let sum: u32 = table.iter().map(|(weight, _)| weight).sum();
    let mut left = chance.u32(..sum);
    for (weight, action) in table {
        match left.checked_sub(*weight) {
            Some(rest) => left = rest,
            None => return *action,
        }
    }
    unreachable!("the weights are counted")
}

#[derive(Clone, Copy)]
enum Act {
    Append,
    AppendToMany,
    AppendExpecting,
    AskTotal,
    AskTotalAfter,
    AskTally,
    Rest,
}

const ACTS: Table<Act> = &[
    (20, Act::Append),
    (6, Act::AppendToMany),
    (14, Act::AppendExpecting),
    (16, Act::AskTotal),
    (16, Act::AskTotalAfter),
    (10, Act::AskTally),
    (4, Act::Rest),
];

struct Client {
    world: Arc<World>,
    number: usize,
    chance: fastrand::Rng,
    memory: Memory,
    /// The position of its last acknowledged append.
    appended: u64,
}

/// Returns a client that appends and asks for as long as it is stormy.
pub async fn run(world: Arc<World>, number: usize) -> turmoil::Result {
    let chance = world.chance(100 + number as u64);
    let mut client = Client { world, number, chance, memory: Memory::default(), appended: 0 };
    while *client.world.stormy.borrow() {
        match choose(&mut client.chance, ACTS) {
            Act::Append => client.append(1, None).await,
            Act::AppendToMany => client.append(3, None).await,
            Act::AppendExpecting => client.append_expecting().await,
            Act::AskTotal => client.ask(PROJECTIONS[0], 0).await,
            Act::AskTotalAfter => client.ask(PROJECTIONS[0], client.appended).await,
            Act::AskTally => client.ask(PROJECTIONS[1], 0).await,
            Act::Rest => tokio::time::sleep(Duration::from_millis(client.chance.u64(..1_000))).await,
        }
        tokio::time::sleep(Duration::from_millis(client.chance.u64(..80))).await;
    }
    Ok(())
}

impl Client {
    fn event(&mut self, stream: String) -> Written {
        let event_type = match self.chance.u8(..10) {
            0 => "noted",
            1..=3 => "taken",
            4..=6 if self.world.upgrade.is_done() => "given",
            _ => "added",
        };
        Written { id: self.world.new_id(), stream, event_type, amount: self.chance.i64(1..1_000) }
    }

    fn ledger(&mut self) -> String {
        format!("ledger-{}", self.chance.usize(..limits::LEDGERS))
    }

    async fn append_expecting(&mut self) {
        let stream = self.ledger();
        let Some(response) = self.get("/v1/streams?category=ledger&limit=100").await.filter(Response::is_ok) else {
            return;
        };
        let found = response.body["streams"].as_array().into_iter().flatten();
        let found = found.filter(|found| found["name"] == stream.as_str());
        let revision = found.filter_map(|found| found["revision"].as_u64()).next();
        let demand = revision.map_or(json!("no_stream"), |revision| json!(revision));
        self.append(1, Some((stream, demand))).await;
    }

    /// Appends up to `most` events, and tries again under the same ids until it is told what came of it.
    async fn append(&mut self, most: usize, expected: Option<(String, Value)>) {
        let count = self.chance.usize(1..=most);
        let events: Vec<Written> = (0..count)
            .map(|_| {
                let stream = expected.as_ref().map_or_else(|| self.ledger(), |(stream, _)| stream.clone());
                self.event(stream)
            })
            .collect();
        let form = |event: &Written| {
            json!({
                "stream": event.stream, "id": hyphenated(event.id), "type": event.event_type,
                "data": { "amount": event.amount },
            })
        };
        let expected: Vec<Value> =
            expected.iter().map(|(stream, demand)| json!({ "stream": stream, "revision": demand })).collect();
        let body = json!({ "events": events.iter().map(form).collect::<Vec<_>>(), "expected": expected });
        let mut outcome = Outcome::Unknown;
        for attempt in 0..limits::CLIENT_TRIES_MAX {
            let Some(response) = self.post("/v1/events", &body).await else {
                tokio::time::sleep(Duration::from_millis(self.chance.u64(10..400) << attempt.min(3))).await;
                continue;
            };
            if response.is_ok() {
                let (position, revision) = (response.number("position"), response.number("revision"));
                outcome = Outcome::Acknowledged { position, revision };
                self.appended = position;
                break;
            }
            if response.is_refused() {
                if response.code() != "wrong_revision" {
                    self.world.violated(format!("I-2: an append was declined: {}", response.body));
                }
                outcome = Outcome::Refused;
                break;
            }
        }
        self.world.note(format!("client {} append of {count}: {outcome:?}", self.number));
        locked(&self.world.books).appends.push((events, outcome));
    }

    async fn ask(&mut self, projection: &'static str, after: u64) {
        let ledger = (projection == PROJECTIONS[0]).then(|| self.ledger());
        // Half of the time it asks for what it was shown, as one does that goes from node to node.
        let after = if self.chance.bool() { after.max(self.memory.covers(projection)) } else { after };
        let path = match &ledger {
            Some(ledger) => format!("/totals/{ledger}?after={after}"),
            None => format!("/tally?after={after}"),
        };
        let Some(response) = self.get(&path).await.filter(Response::is_ok) else { return };
        let number = |field: &str| response.body[field].as_i64().unwrap_or_default();
        let version = response.body["version"].as_str().unwrap_or_default().to_owned();
        let covers = response.number("covers");
        let (sum, events, digest) = (number("sum"), number("events"), number("digest"));
        let at = self.world.now();
        let seen = Seen { at, client: self.number, projection, ledger, version, covers, sum, events, digest };
        self.world.note(format!("{seen:?}"));
        self.memory.check(&self.world, &seen, after);
        locked(&self.world.books).seen.push(seen);
    }

    async fn get(&self, path: &str) -> Option<Response> {
        request(&self.world, Method::GET, path, None).await
    }

    async fn post(&self, path: &str, body: &Value) -> Option<Response> {
        request(&self.world, Method::POST, path, Some(body)).await.filter(|response| response.status < 500)
    }
}

/// Returns the answer of some node, if it comes in time.
pub async fn request(world: &World, method: Method, path: &str, body: Option<&Value>) -> Option<Response> {
    request_of(world.host(), method, path, body).await
}

/// Returns the answer of this node, if it comes in time.
pub async fn request_of(host: &str, method: Method, path: &str, body: Option<&Value>) -> Option<Response> {
    tokio::time::timeout(limits::CLIENT_TIME_MAX, call(host, method, path, body)).await.ok()?.ok()
}

fn hyphenated(id: [u8; 16]) -> String {
    let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

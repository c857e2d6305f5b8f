//! What operators do: rebuilds, flips, rollbacks, clean-ups, and looking at the status.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dacapo::ViewId;
use dacapo::status::Token;
use dacapo_store::Views as _;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use http::Method;
use serde_json::{Value, json};

use crate::books::Alarms;
use crate::check;
use crate::clients::{choose, request, request_of};
use crate::http::Response;
use crate::ledger::PROJECTIONS;
use crate::limits;
use crate::world::{HOSTS, World, locked};

#[derive(Clone, Copy)]
enum Act {
    Rebuild,
    Verify,
    Flip,
    Rollback,
    CleanUp,
    Replay,
    Pause,
    Resume,
    Waive,
    ListLetters,
    RetryLetters,
    DropLetters,
    SetAside,
    CancelFlip,
    CancelRebuild,
    CancelCleanUp,
    CancelReplay,
    RetryEffects,
    DropEffects,
}

const ACTS: &[(u32, Act)] = &[
    (4, Act::Rebuild),
    (4, Act::Verify),
    (8, Act::Flip),
    (8, Act::Rollback),
    (3, Act::CleanUp),
    (14, Act::Replay),
    (3, Act::Pause),
    (5, Act::Resume),
    (3, Act::Waive),
    (8, Act::ListLetters),
    (14, Act::RetryLetters),
    (3, Act::DropLetters),
    (4, Act::SetAside),
    (2, Act::CancelFlip),
    (1, Act::CancelRebuild),
    (3, Act::CancelCleanUp),
    (4, Act::CancelReplay),
    (4, Act::RetryEffects),
    (2, Act::DropEffects),
];

/// Somebody who looks at the status of all nodes for as long as it is stormy, whatever is done meanwhile.
pub async fn look_on(world: Arc<World>, looks: Arc<Mutex<Looks>>) -> turmoil::Result {
    let mut chance = world.chance(201);
    while *world.stormy.borrow() {
        Looks::look(&looks, &world).await;
        tokio::time::sleep(Duration::from_millis(chance.u64(50..700))).await;
    }
    Ok(())
}

/// Returns an operator who operates for as long as it is stormy, on what was seen at `looks`.
pub async fn run(world: Arc<World>, looks: Arc<Mutex<Looks>>) -> turmoil::Result {
    let mut chance = world.chance(200);
    let mut requests = 0;
    while *world.stormy.borrow() {
        let projection = *chance.choice(&PROJECTIONS).expect("there are some");
        let act = choose(&mut chance, ACTS);
        requests += 1;
        let asked =
            json!({ "actor": "operator", "reason": "the seed says so", "idempotency_key": format!("{requests}") });
        let body = |field: &str, value: Value| {
            let mut body = asked.clone();
            body[field] = value;
            body
        };
        match act {
            Act::Rebuild => {
                let mut rebuild = body("from_copy", json!(chance.bool()));
                // Somebody wants it, whatever is ready.
                rebuild["discard"] = json!(true);
                ask(&world, &mut chance, projection, "rebuild", &rebuild).await;
            }
            Act::Verify => ask(&world, &mut chance, projection, "verification", &asked).await,
            Act::Flip => {
                let wait = body("wait_ms", json!(chance.u64(..1_500)));
                ask(&world, &mut chance, projection, "flip", &wait).await;
            }
            Act::Rollback => {
                let wait = body("wait_ms", json!(chance.u64(..1_500)));
                ask(&world, &mut chance, projection, "rollback", &wait).await;
            }
            Act::CleanUp => {
                let Some(version) = locked(&looks).any_version(projection, &mut chance) else { continue };
                ask(&world, &mut chance, projection, &format!("versions/{version}/clean-up"), &asked).await;
            }
            Act::Replay => {
                let mut replay = body("wait_ms", json!(chance.u64(..1_500)));
                if chance.bool() {
                    replay["from_start"] = json!(true);
                } else {
                    replay["from"] = json!(chance.u64(1..200));
                }
                let version = locked(&looks).any_version(projection, &mut chance);
                if let Some(version) = version.filter(|_| chance.bool()) {
                    replay["version"] = json!(version);
                }
                ask(&world, &mut chance, projection, "replay", &replay).await;
            }
            Act::Pause | Act::Resume => {
                let Some(version) = locked(&looks).any_version(projection, &mut chance) else { continue };
                let what = if matches!(act, Act::Pause) { "pause" } else { "resume" };
                ask(&world, &mut chance, projection, what, &body("version", json!(version))).await;
            }
            Act::Waive => ask(&world, &mut chance, projection, "verification/waive", &asked).await,
            Act::ListLetters => {
                let Some(version) = locked(&looks).any_version(projection, &mut chance) else { continue };
                Looks::list_letters(&looks, &world, projection, version).await;
            }
            Act::SetAside => {
                let Some((version, position)) = locked(&looks).any_halt(projection, &mut chance) else { continue };
                let mut halt = body("version", json!(version));
                halt["position"] = json!(position);
                ask(&world, &mut chance, projection, "letters/set-aside", &halt).await;
            }
            Act::CancelFlip => ask(&world, &mut chance, projection, "cancel", &body("what", json!("flip"))).await,
            Act::CancelRebuild => ask(&world, &mut chance, projection, "cancel", &body("what", json!("rebuild"))).await,
            Act::CancelCleanUp => {
                ask(&world, &mut chance, projection, "cancel", &body("what", json!("clean_up"))).await;
            }
            Act::CancelReplay => ask(&world, &mut chance, projection, "cancel", &body("what", json!("replay"))).await,
            Act::RetryEffects | Act::DropEffects => {
                let Some(version) = locked(&looks).any_version(projection, &mut chance) else { continue };
                let Some((position, stream)) = any_effect(&world, projection, &version, &mut chance).await else {
                    continue;
                };
                let mut which = body("version", json!(version));
                which["effects"] = json!(true);
                match chance.u8(..3) {
                    0 => which["position"] = json!(position),
                    1 => which["stream"] = json!(stream),
                    _ => which["all"] = json!(true),
                }
                let what = if matches!(act, Act::RetryEffects) { "letters/retry" } else { "letters/drop" };
                ask(&world, &mut chance, projection, what, &which).await;
            }
            Act::RetryLetters | Act::DropLetters => {
                let Some((version, position, stream)) = locked(&looks).any_letter(projection, &mut chance) else {
                    continue;
                };
                let mut which = body("version", json!(version));
                match chance.u8(..3) {
                    0 => which["position"] = json!(position),
                    1 => which["stream"] = json!(stream),
                    _ => which["all"] = json!(true),
                }
                let what = if matches!(act, Act::RetryLetters) { "letters/retry" } else { "letters/drop" };
                ask(&world, &mut chance, projection, what, &which).await;
            }
        }
        tokio::time::sleep(Duration::from_millis(chance.u64(50..500))).await;
    }
    Ok(())
}

/// One of the effects of a version that do not come about: the position and stream of its event.
async fn any_effect(
    world: &World,
    projection: &str,
    version: &str,
    chance: &mut fastrand::Rng,
) -> Option<(u64, String)> {
    let path = format!("/v1/projections/{projection}/letters?version={version}&effects=true&limit=1000");
    let listed = request(world, Method::GET, &path, None).await.filter(Response::is_ok)?;
    let effects = listed.body["effects"].as_array()?;
    let found = chance.choice(effects)?;
    Some((found["position"].as_u64()?, found["stream"].as_str()?.to_owned()))
}

/// Asks for a change, and again under the same key until there is an answer.
async fn ask(world: &World, chance: &mut fastrand::Rng, projection: &str, what: &str, body: &Value) {
    let path = format!("/v1/projections/{projection}/{what}");
    for _ in 0..4 {
        let response = request(world, Method::POST, &path, Some(body)).await;
        if let Some(response) = response.filter(|response| response.status < 500) {
            let found = if response.is_ok() { "done" } else { response.code() };
            world.note(format!("operator {what} {projection}: {found}"));
            return;
        }
        tokio::time::sleep(Duration::from_millis(chance.u64(50..500))).await;
    }
    world.note(format!("operator {what} {projection}: no answer"));
}

/// An event at which a segment halts: view, segment and position.
type Halt = (ViewId, u16, u64);

/// Which segments halt, as the disk has it.
async fn halting(world: &World) -> Vec<Halt> {
    let mut halting = vec![];
    for view in world.disk.views.list().await.unwrap_or_default() {
        let Ok(Some(found)) = world.disk.views.find(&view).await else { continue };
        let tokens = found.tokens().await.unwrap_or_default();
        for refusal in found.refusals().await.unwrap_or_default() {
            let halts = |token: &Token| token.segment == refusal.segment && !token.covers(refusal.position);
            if tokens.iter().any(halts) {
                halting.push((view.clone(), refusal.segment.get(), refusal.position.get()));
            }
        }
    }
    halting
}

/// Where something stood, and since when.
struct Stood {
    at: Value,
    since: Duration,
}

/// The operator's view of the status.
#[derive(Default)]
pub struct Looks {
    versions: BTreeMap<String, Vec<String>>,
    /// Dead letters that were listed last, by projection: version, position and stream of each.
    letters: BTreeMap<String, Vec<(String, u64, String)>>,
    /// Events at which segments were seen to halt last, by projection: version and position of each.
    halts: BTreeMap<String, Vec<(String, u64)>>,
    /// Events at which segments halt as the disk has it: since when they were seen to.
    refused: BTreeMap<Halt, Duration>,
    /// By slot of the node that said so.
    stood: BTreeMap<(usize, String), Stood>,
}

impl Looks {
    fn any_version(&self, projection: &str, chance: &mut fastrand::Rng) -> Option<String> {
        chance.choice(self.versions.get(projection)?).cloned()
    }

    fn any_halt(&self, projection: &str, chance: &mut fastrand::Rng) -> Option<(String, u64)> {
        chance.choice(self.halts.get(projection)?).cloned()
    }

    fn any_letter(&self, projection: &str, chance: &mut fastrand::Rng) -> Option<(String, u64, String)> {
        chance.choice(self.letters.get(projection)?).cloned()
    }

    /// Lists the dead letters of a version: events of the journal, in order, each with what was said of it.
    async fn list_letters(looks: &Mutex<Self>, world: &World, projection: &str, version: String) {
        let path = format!("/v1/projections/{projection}/letters?version={version}&limit=1000");
        let Some(response) = request(world, Method::GET, &path, None).await.filter(Response::is_ok) else { return };
        let mut listed: Vec<(String, u64, String)> = vec![];
        for letter in response.body["letters"].as_array().into_iter().flatten() {
            let position = letter["event"]["position"].as_u64().unwrap_or_default();
            let stream = letter["event"]["stream"].as_str().unwrap_or_default().to_owned();
            let in_order = listed.last().is_none_or(|(_, before, _)| *before < position);
            if !in_order || letter["error"].as_str().is_none_or(str::is_empty) {
                world.violated(format!(
                    "I-11: {projection} {version} lists a dead letter out of order or mute: {letter}"
                ));
            }
            listed.push((version.clone(), position, stream));
        }
        // Letters of other versions are known as well.
        let known = &mut locked(looks).letters;
        let known = known.entry(projection.to_owned()).or_default();
        known.retain(|(of, ..)| *of != version);
        known.extend(listed);
    }

    /// Looks at the status of every node that runs: whatever stands still says why (I-11).
    pub async fn look(looks: &Mutex<Self>, world: &World) {
        let halts = halting(world).await;
        locked(looks).look_at_halting(world, halts);
        let running = world.running();
        let ask = |slot: usize| async move { (slot, request_of(HOSTS[slot], Method::GET, "/v1/status", None).await) };
        let mut answers: FuturesUnordered<_> = running.into_iter().map(ask).collect();
        // Each when it comes: a node that does not answer must not make the others' answers old.
        while let Some((slot, status)) = answers.next().await {
            // One that does not hear from the disk knows of nothing that it could tell.
            match status.filter(|status| status.is_ok() && world.disk.heard_since(slot).is_some()) {
                Some(status) => {
                    // What was passed while the answer was on its way need not be in it.
                    let halts = halting(world).await;
                    let mut looks = locked(looks);
                    looks.refused.retain(|halt, _| halts.contains(halt));
                    looks.look_at(world, slot, &status.body);
                }
                None => locked(looks).forget(slot),
            }
        }
    }

    fn look_at_halting(&mut self, world: &World, halting: Vec<Halt>) {
        let since = |halt: &Halt| self.refused.get(halt).copied().unwrap_or(world.now());
        self.refused = halting.into_iter().map(|halt| (halt.clone(), since(&halt))).collect();
    }

    /// Anyone who applies a version, or sees somebody else do it, tells the events at which it has halted for a while.
    fn check_halts(&self, world: &World, slot: usize, name: &str, version: &Value) {
        // Anyone who cannot look, or applies nothing at all, tells that instead.
        let reasons = version["waiting_on"].as_array().map(Vec::as_slice).unwrap_or_default();
        let other = ["paused", "store", "code", "reads", "lease", "parted", "unowned", "hold", "batch", "busy"];
        if reasons.iter().any(|reason| other.iter().any(|kind| reason["kind"] == *kind))
            || !version["age_seconds"].is_null()
        {
            return;
        }
        let heard = world.disk.heard_since(slot).unwrap_or(world.now());
        for ((view, segment, position), since) in &self.refused {
            let is_of = view.projection.as_str() == name && version["version"] == view.version.to_string().as_str();
            let applies = ["Initializing", "Serving", "StandingBy"].iter().any(|phase| version["phase"] == *phase);
            let told = reasons.iter().any(|reason| {
                (reason["kind"] == "handler" || reason["kind"] == "letters") && reason["position"] == *position
            });
            let time = world.now().saturating_sub((*since).max(heard));
            if is_of && applies && !told && time > limits::SILENT_TIME_MAX {
                world.violated(format!(
                    "I-11: {view} halts in segment {segment} at {position} for {:.1} s, and {} does not say so: {}",
                    time.as_secs_f64(),
                    HOSTS[slot],
                    version["waiting_on"]
                ));
            }
        }
    }

    fn forget(&mut self, slot: usize) {
        self.stood.retain(|(of, _), _| *of != slot);
    }

    fn look_at(&mut self, world: &World, slot: usize, status: &Value) {
        let uptime = Duration::from_secs(status["node"]["uptime_seconds"].as_u64().unwrap_or_default());
        // A node that has just come up has not had the time to say anything.
        if uptime < limits::SILENT_TIME_MAX {
            self.forget(slot);
        }
        let (mut alarms, parted) = (BTreeMap::new(), world.disk.parted());
        for projection in status["projections"].as_array().into_iter().flatten() {
            let name = projection["name"].as_str().unwrap_or_default();
            let flip = &projection["flip"];
            let at = json!([flip["to"], flip["requested"]]);
            self.stands(world, (slot, format!("the flip of {name}")), at, !flip.is_null(), &flip["waiting_on"]);
            let versions = projection["versions"].as_array().into_iter().flatten();
            let (mut names, mut halts) = (vec![], vec![]);
            for version in versions {
                let (text, phase) = (version["version"].as_str().unwrap_or_default(), &version["phase"]);
                names.push(text.to_owned());
                let reasons = version["waiting_on"].as_array().into_iter().flatten();
                let handlers = reasons.clone().filter(|reason| reason["kind"] == "handler");
                halts.extend(handlers.filter_map(|at| Some((text.to_owned(), at["position"].as_u64()?))));
                let since = parted
                    .iter()
                    .find(|(view, _)| view.projection.as_str() == name && view.version.to_string() == text);
                // Of another history, its rows are wrong indeed.
                for accused in reasons.filter(|reason| reason["kind"] == "rows" && since.is_none()) {
                    world.violated(format!("I-3: {name} {text}: {}", accused["text"]));
                }
                if let Some((_, since)) = since.filter(|_| uptime >= limits::SILENT_TIME_MAX) {
                    check_parted(world, slot, *since, name, version);
                } else if uptime >= limits::SILENT_TIME_MAX {
                    self.check_halts(world, slot, name, version);
                }
                let lags = version["lag"].as_u64().unwrap_or_default() > 0 || phase == "Scheduled";
                let (at, reasons) = (json!([phase, version["covers"], version["stage"]]), &version["waiting_on"]);
                self.stands(world, (slot, format!("{name} {text}")), at, lags, reasons);
                let is_alarm = |reason: &Value| reason["kind"] == "unowned" || reason["kind"] == "store";
                let told = reasons.as_array().is_some_and(|reasons| reasons.iter().any(is_alarm));
                alarms.insert((name.to_owned(), text.to_owned()), told);
                if phase == "StandingBy" && version["rollback_ready"] != true && version["rollback_not_ready"].is_null()
                {
                    world.violated(format!("I-8: {name} {text} is not ready for a rollback and does not say why"));
                }
            }
            self.versions.insert(name.to_owned(), names);
            self.halts.insert(name.to_owned(), halts);
        }
        locked(&world.books).alarms.push(Alarms { at: world.now(), slot, versions: alarms });
    }

    fn stands(&mut self, world: &World, what: (usize, String), at: Value, waits: bool, reasons: &Value) {
        let now = world.now();
        let before = self.stood.get(&what).filter(|before| before.at == at && waits);
        let since = before.map_or(now, |before| before.since);
        let since = since.max(world.disk.heard_since(what.0).unwrap_or(now));
        let silent = reasons.as_array().is_none_or(Vec::is_empty);
        let still = if at[0] == "Scheduled" { limits::SILENT_SCHEDULED_TIME_MAX } else { limits::SILENT_TIME_MAX };
        if waits && silent && now - since > still {
            world.violated(format!(
                "I-11: {} stands at {at} without a reason for {:.1} s, says {}",
                what.1,
                (now - since).as_secs_f64(),
                HOSTS[what.0]
            ));
        }
        self.stood.insert(what, Stood { at, since: if silent { since } else { now } });
    }
}

/// A view of another history is told as one, or why it could not be looked at.
fn check_parted(world: &World, slot: usize, since: Duration, name: &str, version: &Value) {
    let reasons = version["waiting_on"].as_array().map(Vec::as_slice).unwrap_or_default();
    let told = ["parted", "store", "lease"].iter().any(|kind| reasons.iter().any(|reason| reason["kind"] == *kind));
    let applies = ["Initializing", "Serving", "StandingBy"].iter().any(|phase| version["phase"] == *phase);
    let heard = world.disk.heard_since(slot).unwrap_or(world.now());
    if applies && !told && world.now() > since.max(heard) + limits::SILENT_TIME_MAX && version["age_seconds"].is_null()
    {
        world.violated(format!(
            "parted: {name} {} is of another history since {:.3} s, and {} does not say so: {}",
            version["version"],
            since.as_secs_f64(),
            HOSTS[slot],
            version["waiting_on"]
        ));
    }
}

/// Returns true if somebody has everything applied that was set aside, once it is calm.
pub fn mops_up(world: &World) -> bool {
    world.chance(300).bool()
}

/// Does what somebody always does in the end: resumes what is paused, answers for a version that is other than the one
/// before because events were set aside, and has those applied, in half of the seeds all.
pub async fn bring_right(world: &World) {
    let paused = check::paused(world).into_iter().map(|of| (of, "resume"));
    let waived = check::to_waive(world).into_iter().map(|of| (of, "verification/waive"));
    for projection in check::in_vain(world) {
        let body = json!({ "actor": "operator", "reason": "its view is of another history", "what": "flip" });
        drop(request(world, Method::POST, &format!("/v1/projections/{projection}/cancel"), Some(&body)).await);
    }
    let (rebuilt, flipped) = check::to_replace(world);
    for projection in rebuilt {
        let body = json!({ "actor": "operator", "reason": "its view is of another history", "discard": true });
        drop(request(world, Method::POST, &format!("/v1/projections/{projection}/rebuild"), Some(&body)).await);
    }
    for projection in check::waiting_for_a_flip(world).into_iter().chain(flipped) {
        let body = json!({ "actor": "operator", "reason": "it is calm" });
        drop(request(world, Method::POST, &format!("/v1/projections/{projection}/flip"), Some(&body)).await);
    }
    for (projection, version) in check::with_effects(world) {
        let body = json!({
            "actor": "operator", "reason": "it is calm", "version": version, "effects": true, "all": true,
        });
        drop(request(world, Method::POST, &format!("/v1/projections/{projection}/letters/retry"), Some(&body)).await);
    }
    let retried = check::with_letters(world, mops_up(world)).into_iter().map(|of| (of, "letters/retry"));
    for ((projection, version), what) in paused.chain(waived).chain(retried) {
        let mut body = json!({ "actor": "operator", "reason": "it is calm", "version": version });
        if what == "letters/retry" {
            body["all"] = json!(true);
        }
        drop(request(world, Method::POST, &format!("/v1/projections/{projection}/{what}"), Some(&body)).await);
    }
}

/// Rolls back where a version stands by: it was kept up to date for this (I-8).
pub async fn roll_back_at_once(world: &World) {
    for projection in PROJECTIONS {
        let stands_by = check::standing_by(world, projection);
        let Some(to) = stands_by.into_iter().next() else { continue };
        let body = json!({ "actor": "operator", "to": to, "wait_ms": 1_500 });
        let what = if check::serving(world, projection).is_some_and(|serving| check::is_below(&to, &serving)) {
            "rollback"
        } else {
            "flip"
        };
        let answer = request(world, Method::POST, &format!("/v1/projections/{projection}/{what}"), Some(&body)).await;
        let flipped = answer.as_ref().is_some_and(|answer| answer.is_ok() && answer.body["flipped"] == true);
        if !flipped && check::standing_by(world, projection).contains(&to) {
            let found = answer.map(|answer| answer.body).unwrap_or_default();
            world.violated(format!(
                "I-8: {projection} {to} stands by and a {what} to it did not happen at once: {found}"
            ));
        }
    }
}

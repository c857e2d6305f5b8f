//! I-3, I-7 and I-11: every view holds what is made of exactly the events through its tokens that were not set aside,
//! and so does every answer.

use std::collections::BTreeMap;

use dacapo::rows::Value;
use dacapo::status::Token;
use dacapo::{Position, ViewId};
use dacapo_store::{ViewReader, Views};
use futures::FutureExt;

use super::catalog::Fold;
use super::held::{Held, Holdings, Known, Row, segment_of};
use super::journal::{Record, records};
use crate::books::Seen;
use crate::ledger::{ALL, PROJECTIONS};
use crate::operator::mops_up;
use crate::world::{World, locked};

/// I-3, for every view there is, whatever its phase.
pub fn views(world: &World) {
    let records = records(world);
    check(world, &records, &Holdings::of(world, &records));
}

/// I-3 and I-11: rows, letters and counts are what they must be.
pub fn check(world: &World, records: &[Record], holdings: &Holdings<'_>) {
    let none = Held::default();
    let parted = world.disk.parted();
    let ids = world.disk.views.list().now_or_never().into_iter().flatten().flatten();
    for id in ids.filter(|id| !parted.contains_key(id)) {
        let Some(Ok(Some(view))) = world.disk.views.find(&id).now_or_never() else { continue };
        let Some(Ok(mut reader)) = view.reader().now_or_never() else {
            world.violated(format!("I-3: {id} cannot be read"));
            continue;
        };
        let held = holdings.views.get(&id).unwrap_or(&none);
        let at: Vec<u64> = reader.tokens().iter().map(|token| token.position.get()).collect();
        match rows(&mut *reader) {
            Ok(found) if found == held.rows => {}
            Ok(found) => {
                let differs = held.rows.keys().chain(found.keys()).find(|key| held.rows.get(*key) != found.get(*key));
                let key = differs.expect("they differ");
                world.violated(format!(
                    "I-3: {id} at {at:?} has {:?} for {key}, made of what landed is {:?}",
                    found.get(key),
                    held.rows.get(key)
                ));
            }
            Err(error) => world.violated(format!("I-3: {id}: {error}")),
        }
        check_events(world, records, &id, reader.tokens(), held);
        let Some(Ok(letters)) = view.letters(Position::START, usize::MAX).now_or_never() else {
            world.violated(format!("I-11: the dead letters of {id} cannot be read"));
            continue;
        };
        let letters: BTreeMap<u64, _> =
            letters.iter().map(|letter| (letter.position.get(), (letter.kind, letter.wish))).collect();
        let expected = held.letters.iter().map(|(position, aside)| (*position, (aside.kind, aside.wish))).collect();
        if letters != expected {
            world.violated(format!("I-11: {id} at {at:?} has the letters {letters:?}, landed have {expected:?}"));
        }
    }
}

/// Every event through the tokens is in the rows, or has a dead letter, or was given up; and all of them are counted.
fn check_events(world: &World, records: &[Record], id: &ViewId, tokens: &[Token], held: &Held) {
    let mut counts = vec![0_u64; tokens.len()];
    for record in records.iter().filter(|record| record.change().is_some()) {
        let position = record.position;
        let token = &tokens[segment_of(&record.stream, tokens.len())];
        if position > token.position.get() {
            continue;
        }
        counts[usize::from(token.segment.get())] += u64::from(position > token.applied.after.get());
        let known = held.applied.contains(&position) || held.given_up.contains(&position);
        if !known && !held.letters.contains_key(&position) {
            world.violated(format!("I-11: {id} has passed {position}, neither applied it nor set it aside"));
        }
    }
    let counted: Vec<u64> = tokens.iter().map(|token| token.applied.events).collect();
    if counted != counts {
        world.violated(format!("I-3: {id} has counted {counted:?} events, the journal has {counts:?}"));
    }
}

fn rows(reader: &mut dyn ViewReader) -> Result<BTreeMap<String, Row>, String> {
    let query = reader.query("SELECT ledger, sum, events, digest FROM totals", &[]).now_or_never();
    let (_, rows) = query.ok_or("it waits")?.map_err(|error| error.to_string())?;
    let row = |row: Vec<Value>| match <[Value; 4]>::try_from(row) {
        Ok([Value::Text(key), Value::Integer(sum), Value::Integer(events), Value::Integer(digest)]) => {
            Ok((key, (sum, events, digest)))
        }
        other => Err(format!("a row is {other:?}")),
    };
    rows.into_iter().map(row).collect()
}

/// I-8 and more: versions that follow and do not cover the head, and holds that nobody lifts.
pub fn behind(world: &World, fold: &Fold, head: u64) -> Vec<String> {
    let mut behind = vec![];
    let Some(Ok(ids)) = world.disk.views.list().now_or_never() else { return vec!["views cannot be listed".into()] };
    let parted = world.disk.parted();
    for id in ids.into_iter().filter(|id| !parted.contains_key(id)) {
        let phase = fold.phase(id.projection.as_str(), &id.version.to_string());
        let Some(Ok(Some(view))) = world.disk.views.find(&id).now_or_never() else { continue };
        let Some(Ok(tokens)) = view.tokens().now_or_never() else { continue };
        let letters = view.letters(Position::START, usize::MAX).now_or_never();
        let applies = matches!(phase, "Initializing" | "Serving" | "StandingBy");
        for letter in letters.into_iter().flatten().flatten().filter(|_| applies) {
            if let Some(wish) = letter.wish {
                behind
                    .push(format!("event {} is set aside in {id}, {phase}, and {wish:?} is not done", letter.position));
            } else if mops_up(world) {
                behind.push(format!("event {} is set aside in {id}, {phase}", letter.position));
            }
        }
        for token in tokens.iter().filter(|_| applies) {
            if token.position.get() < head {
                behind.push(format!("segment {} of {id}, {phase}, is at {} of {head}", token.segment, token.position));
            }
            if let Some(mark) = token.held_for {
                behind.push(format!("segment {} of {id}, {phase}, is held for {mark}", token.segment));
            }
        }
    }
    behind
}

/// I-3 and I-7: an answer is what its version had when it covered what the answer says, and readers were with that
/// version there.
pub fn check_seen(world: &World, records: &[Record], holdings: &Holdings<'_>) {
    let served = PROJECTIONS.map(|projection| (projection, Readers::of(records, projection)));
    let served: BTreeMap<&str, Readers<'_>> = served.into();
    for seen in &locked(&world.books).seen {
        // What is seen of another history is looked at apart.
        if world.disk.parted_at(seen.projection, &seen.version).is_some_and(|parted| parted <= seen.at) {
            continue;
        }
        let row = (seen.sum, seen.events, seen.digest);
        let of = (seen.projection.to_owned(), seen.version.clone());
        match holdings.knows(&of, seen.ledger.as_deref().unwrap_or(ALL), row, seen.covers) {
            Known::Yes => {}
            Known::NotCovering => {
                world.violated(format!("I-7: {} did not cover {} with this row: {seen:?}", seen.version, seen.covers));
            }
            Known::NoSuchRow => world.violated(format!("I-3: an answer is no state that ever was: {seen:?}")),
        }
        if !served[seen.projection].may_be(seen) {
            world.violated(format!("I-7: another version serves at {}: {seen:?}", seen.covers));
        }
    }
}

/// A move of readers.
struct Flip<'a> {
    at: u64,
    version: &'a str,
    covers: u64,
}

/// With which version of a projection readers are, by the catalog.
struct Readers<'a> {
    flips: Vec<Flip<'a>>,
}

impl<'a> Readers<'a> {
    fn of(records: &'a [Record], projection: &str) -> Self {
        let flips = records.iter().filter(|record| record.stream == "$catalog" && record.event_type == "flipped");
        let of = flips.filter(|record| record.data["projection"] == projection);
        let flip = |record: &'a Record| Flip {
            at: record.position,
            version: record.data["version"].as_str().unwrap_or_default(),
            covers: record.data["covers"].as_u64().unwrap_or_default(),
        };
        Self { flips: of.map(flip).collect() }
    }

    /// Returns true if an answer may be of this version, whichever node gave it. The catalog through what the answer
    /// covers says which one serves. The next one may answer as well from what it covered when readers were moved to
    /// it, since its flip lies after that.
    fn may_be(&self, seen: &Seen) -> bool {
        let next = self.flips.iter().position(|flip| flip.at > seen.covers).unwrap_or(self.flips.len());
        let serves = self.flips[..next].last().is_some_and(|flip| flip.version == seen.version);
        let serves_next = |flip: &Flip<'_>| flip.version == seen.version && flip.covers <= seen.covers;
        serves || self.flips.get(next).is_some_and(serves_next)
    }
}

//! I-3 and I-7: every view is the fold of exactly the events through its tokens, and so is every answer.

use std::collections::{BTreeMap, BTreeSet};

use dacapo::{Position, Value};
use dacapo_store::{ViewReader, Views};
use futures::FutureExt;

use super::catalog::Fold;
use super::journal::{Record, records};
use crate::ledger::PROJECTIONS;
use crate::world::{World, locked};

/// Sum, number of events, digest.
type Row = (i64, i64, i64);

fn apply(row: &mut Row, record: &Record) {
    if let Some(change) = record.change() {
        row.0 += change;
        row.1 += 1;
        row.2 = row.2.wrapping_mul(31).wrapping_add(record.position as i64);
    }
}

/// The segment of a stream among `count`: the high part of its hash times the count.
fn segment_of(stream: &str, count: usize) -> usize {
    let hash = u128::from(xxhash_rust::xxh3::xxh3_64(stream.as_bytes()));
    if count == 1 { 0 } else { ((hash * count as u128) >> 64) as usize }
}

/// How far a view is, segment by segment.
struct Through {
    /// Through where its rows are filled.
    rows: Vec<u64>,
    tokens: Vec<u64>,
    /// The position behind which it counts.
    counted_after: Vec<u64>,
}

/// What a view must hold that is so far, and how many events each segment took up behind the position from which it
/// counts.
fn expected(
    projection: &str,
    through: &Through,
    letters: &BTreeSet<u64>,
    records: &[Record],
) -> (BTreeMap<String, Row>, Vec<u64>) {
    let mut rows: BTreeMap<String, Row> = BTreeMap::new();
    let mut counts = vec![0; through.tokens.len()];
    for record in records.iter().filter(|record| record.change().is_some()) {
        let segment = segment_of(&record.stream, through.tokens.len());
        let counted = through.counted_after[segment] + 1..=through.tokens[segment];
        counts[segment] += u64::from(counted.contains(&record.position));
        if record.position <= through.rows[segment] {
            if letters.contains(&record.position) {
                continue;
            }
            let key = if projection == "tally" { "all" } else { record.stream.as_str() };
            apply(rows.entry(key.to_owned()).or_default(), record);
        }
    }
    (rows, counts)
}

/// I-3, for every view there is, whatever its phase.
pub fn views(world: &World) {
    let records = records(world);
    let fold = Fold::of(&records);
    let Some(Ok(ids)) = world.disk.views.list().now_or_never() else { return };
    for id in ids {
        let Some(Ok(Some(view))) = world.disk.views.find(&id).now_or_never() else { continue };
        let Some(Ok(mut reader)) = view.reader().now_or_never() else {
            world.violated(format!("I-3: {id} cannot be read"));
            continue;
        };
        let tokens: Vec<u64> = reader.tokens().iter().map(|token| token.position.get()).collect();
        let counted: Vec<u64> = reader.tokens().iter().map(|token| token.applied.events).collect();
        let counted_after: Vec<u64> = reader.tokens().iter().map(|token| token.applied.after.get()).collect();
        let Some(Ok(letters)) = view.letters(Position::START, usize::MAX).now_or_never() else {
            world.violated(format!("I-3: the dead letters of {id} cannot be read"));
            continue;
        };
        // I-11: no event is left out that has no dead letter.
        let letters = letters.iter().map(|letter| letter.position.get()).collect();
        // A replay that keeps rows leaves in them what was there before.
        let kept = reader.tokens().iter().map(|token| match token.replay {
            Some(mark) if fold.asked_replay(mark.request.get()).is_some_and(|replay| !replay.resets) => {
                token.position.max(mark.through).get()
            }
            _ => token.position.get(),
        });
        let through = Through { rows: kept.collect(), tokens: tokens.clone(), counted_after };
        let (expected, counts) = expected(id.projection.as_str(), &through, &letters, &records);
        match rows(&mut *reader) {
            Ok(found) if found == expected => {}
            Ok(found) => {
                let differs = expected.keys().chain(found.keys()).find(|key| expected.get(*key) != found.get(*key));
                let key = differs.expect("they differ");
                world.violated(format!(
                    "I-3: {id} at {tokens:?} has {:?} for {key}, the journal {:?}",
                    found.get(key),
                    expected.get(key)
                ));
            }
            Err(error) => world.violated(format!("I-3: {id}: {error}")),
        }
        if counted != counts {
            world.violated(format!(
                "I-3: {id} at {tokens:?} has counted {counted:?} events, the journal has {counts:?}"
            ));
        }
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
    for id in ids {
        let phase = fold.phase(id.projection.as_str(), &id.version.to_string());
        let Some(Ok(Some(view))) = world.disk.views.find(&id).now_or_never() else { continue };
        let Some(Ok(tokens)) = view.tokens().now_or_never() else { continue };
        for token in tokens.iter().filter(|_| matches!(phase, "Initializing" | "Serving" | "StandingBy")) {
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

/// I-7: an answer shows a stream as it was after one of its events, and none of those it covers is missing.
pub fn check_seen(world: &World, records: &[Record]) {
    let mut histories: BTreeMap<Option<&str>, Vec<(u64, Row)>> = BTreeMap::new();
    for record in records.iter().filter(|record| record.change().is_some()) {
        for key in [None, Some(record.stream.as_str())] {
            let history = histories.entry(key).or_default();
            let mut row = history.last().map(|(_, row)| *row).unwrap_or_default();
            apply(&mut row, record);
            history.push((record.position, row));
        }
    }
    let none = vec![];
    let aside: BTreeMap<&str, _> = PROJECTIONS.map(|projection| (projection, world.disk.set_aside(projection))).into();
    // For each version that serves no more the position of the last flip away from it.
    let mut left: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for record in records.iter().filter(|record| record.stream == "$catalog" && record.event_type == "flipped") {
        let field = |name: &str| record.data[name].as_str().unwrap_or_default();
        left.remove(&(field("projection"), field("version")));
        left.insert((field("projection"), field("from")), record.position);
    }
    for seen in &locked(&world.books).seen {
        // The old version moves on only once readers have left it, so none of its answers can cover the flip.
        if let Some(left) = left.get(&(seen.projection, seen.version.as_str()))
            && seen.covers >= *left
        {
            world.violated(format!("I-7: readers left {} at {left}, and it answered: {seen:?}", seen.version));
        }
        let history = histories.get(&seen.ledger.as_deref()).unwrap_or(&none);
        let shown = match usize::try_from(seen.events) {
            Ok(0) => Some((0, Row::default())),
            Ok(events) => history.get(events - 1).copied(),
            Err(_) => None,
        };
        if shown.map(|(_, row)| row) != Some((seen.sum, seen.events, seen.digest)) {
            world.violated(format!("I-3: an answer is no state that ever was: {seen:?}, the journal has {shown:?}"));
        }
        let aside = aside[seen.projection].get(&seen.version);
        let is_aside = |position: &u64| aside.is_some_and(|aside| aside.contains(position));
        let covered = history.iter().filter(|(position, _)| *position <= seen.covers && !is_aside(position));
        let covered = covered.count() as i64;
        if seen.events < covered {
            world.violated(format!("I-7: an answer covers {} and lacks events through there: {seen:?}", seen.covers));
        }
    }
}

//! What views must hold: made of the journal and of the commits that landed, event by event and letter by letter.
//!
//! ```text
//!   an event that a token passes ──────┬──────────────────▶ in the rows
//!                                      └▶ letter ─┬─ retry ──▲
//!                                                 ├─ drop ───▶ given up
//!                                                 └─ replay ─▶ comes again
//! ```
//!
//! On the way it tells what must not be (I-11): a letter that the policy does not allow or that nobody wished away, an
//! event that was applied before one that it has to wait for.

mod taking;

use std::collections::{BTreeMap, BTreeSet};

use dacapo::ViewId;
use dacapo::journal::StreamName;
use dacapo::operate::{LetterKind, WhichLetters, Wish};
use dacapo_model::{Letter, TokenMove};
use dacapo_store::Commit;

use super::catalog::{Following, Verdict, Version, code_of};
use super::journal::Record;
use super::landed::text;
use crate::disk::Landed;
use crate::ledger::{ALL, rules};
use crate::world::World;
use taking::Taking;

/// Sum, number of events, digest.
pub type Row = (i64, i64, i64);

/// The known facts of a dead letter.
#[derive(Clone, Debug)]
pub struct Aside {
    pub kind: LetterKind,
    pub wish: Option<Wish>,
    stream: StreamName,
    /// Everything that was ever wished for it.
    wished: Vec<Wish>,
}

impl Aside {
    fn new(letter: &Letter) -> Self {
        let Letter { kind, wish, ref stream, .. } = *letter;
        Self { kind, wish, stream: stream.clone(), wished: wish.into_iter().collect() }
    }

    fn blocks(&self) -> bool {
        self.kind != LetterKind::Skipped
    }
}

/// The progress of a segment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Place {
    pub at: u64,
    /// Where it was when it went back for the last replay.
    pub was: u64,
    /// The position of that replay's request.
    replay: u64,
    counted_after: u64,
}

impl Place {
    pub fn replays(&self) -> bool {
        self.at < self.was
    }
}

/// The contents that a view must have.
#[derive(Clone, Debug, Default)]
pub struct Held {
    pub places: Vec<Place>,
    pub rows: BTreeMap<String, Row>,
    pub letters: BTreeMap<u64, Aside>,
    pub applied: BTreeSet<u64>,
    /// Events that it goes without, since somebody wanted that.
    pub given_up: BTreeSet<u64>,
    /// The same, also when they have come again since: nobody owes their effects any more.
    once_given_up: BTreeSet<u64>,
    /// The copy that it is being filled from.
    copy: Option<usize>,
}

/// What a version has shown over time, by what had landed.
#[derive(Default)]
struct Shown {
    covers: Vec<(usize, Option<u64>)>,
    rows: BTreeMap<String, Vec<(usize, Row)>>,
}

/// The kind of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// The version had this row, and covered that position then.
    Yes,
    /// It had this row, but never when it covered that position.
    NotCovering,
    /// It never had this row.
    NoSuchRow,
}

/// Every view, by what has landed.
pub struct Holdings<'a> {
    world: &'a World,
    records: &'a [Record],
    catalog: Following<'a>,
    pub views: BTreeMap<ViewId, Held>,
    copies: BTreeMap<usize, Held>,
    shown: BTreeMap<Version, Shown>,
    /// Projections of which events were ever set aside.
    troubled: BTreeSet<String>,
    moment: usize,
    pub faults: Vec<String>,
}

/// Returns the segment of a stream among `count`: the high part of its hash times the count.
pub fn segment_of(stream: &str, count: usize) -> usize {
    let hash = u128::from(xxhash_rust::xxh3::xxh3_64(stream.as_bytes()));
    if count == 1 { 0 } else { ((hash * count as u128) >> 64) as usize }
}

fn apply(row: &mut Row, record: &Record) {
    if let Some(change) = record.change() {
        row.0 += change;
        row.1 += 1;
        row.2 = row.2.wrapping_mul(31).wrapping_add(record.position as i64);
    }
}

impl Held {
    /// Returns the first event of a stream that later ones wait for.
    fn first_of(&self, stream: &str) -> Option<u64> {
        let mut of = self.letters.iter().filter(|(_, letter)| letter.stream.as_str() == stream && letter.blocks());
        of.next().map(|(position, _)| *position)
    }

    /// Adds an event to its row, unless it is there already and comes again.
    fn add(&mut self, projection: &str, record: &Record) {
        self.given_up.remove(&record.position);
        if self.applied.insert(record.position) {
            let key = if projection == "tally" { ALL } else { record.stream.as_str() };
            apply(self.rows.entry(key.to_owned()).or_default(), record);
        }
    }
}

impl<'a> Holdings<'a> {
    /// After everything that has landed.
    pub fn of(world: &'a World, records: &'a [Record]) -> Self {
        let mut all = Self {
            world,
            records,
            catalog: Following::new(records),
            views: BTreeMap::new(),
            copies: BTreeMap::new(),
            shown: BTreeMap::new(),
            troubled: BTreeSet::new(),
            moment: 0,
            faults: vec![],
        };
        for landed in world.disk.landed() {
            all.moment += 1;
            all.land(&landed);
        }
        all
    }

    fn land(&mut self, landed: &Landed) {
        match landed {
            Landed::Appended { through } => {
                while let Some(record) = self.catalog.next(*through) {
                    self.check_verdict(record);
                    self.catalog.fold.add(record);
                }
            }
            Landed::Made { view, .. } => {
                self.views.insert(view.clone(), Held::default());
                self.note(view);
            }
            Landed::Dropped { view } => drop(self.views.remove(view)),
            Landed::Claimed { view, epochs, .. } => {
                let Some(held) = self.views.get_mut(view) else { return };
                held.places.resize(epochs.len(), Place::default());
                self.note(view);
            }
            Landed::Committed { view, commit, wrote, .. } => {
                // One that is gone is what the checkers of I-4 and I-12 tell.
                let Some(mut held) = self.views.remove(view) else { return };
                self.commit(view, &mut held, commit, *wrote);
                self.views.insert(view.clone(), held);
                self.note(view);
            }
            Landed::Wished { view, which, wish } => {
                for (position, letter) in self.views.get_mut(view).into_iter().flat_map(|held| &mut held.letters) {
                    let meant = match which {
                        WhichLetters::One(one) => one.get() == *position,
                        WhichLetters::Stream(stream) => *stream == letter.stream,
                        WhichLetters::All => true,
                    };
                    if meant {
                        letter.wish = *wish;
                        letter.wished.extend(*wish);
                    }
                }
            }
            Landed::Copied { view, copy } => drop(self.copies.insert(*copy, self.views[view].clone())),
            Landed::Attached { view, copy } => {
                if let Some(held) = self.views.get_mut(view) {
                    held.copy = Some(*copy);
                }
            }
            Landed::Flipped { .. } | Landed::Renewed { .. } | Landed::Left { .. } | Landed::Way { .. } => {}
            Landed::EffectsDropped { .. } | Landed::EffectsAside { .. } | Landed::Parted { .. } => {}
        }
    }

    /// What the version of a view shows from here on.
    fn note(&mut self, view: &ViewId) {
        let (held, shown) = (&self.views[view], self.shown.entry(text(view)).or_default());
        let covered = |place: &Place| {
            let replay = self.catalog.fold.asked_replay(place.replay).filter(|_| place.replays());
            match replay {
                Some(replay) if replay.resets => None,
                Some(_) => Some(place.was),
                None => Some(place.at),
            }
        };
        let covers = held.places.iter().map(covered).collect::<Option<Vec<_>>>();
        let covers = covers.map(|covers| covers.into_iter().min().unwrap_or_default());
        if shown.covers.last().is_none_or(|(_, last)| *last != covers) {
            shown.covers.push((self.moment, covers));
        }
        let gone = shown.rows.keys().filter(|key| !held.rows.contains_key(*key)).cloned();
        let gone: Vec<String> = gone.collect();
        let now = held.rows.iter().map(|(key, row)| (key.clone(), *row));
        for (key, row) in now.chain(gone.into_iter().map(|key| (key, Row::default()))) {
            let states = shown.rows.entry(key).or_default();
            if states.last().is_none_or(|(_, last)| *last != row) {
                states.push((self.moment, row));
            }
        }
    }

    /// Checks whether a version ever had this row, and covered this position then.
    pub fn knows(&self, of: &Version, key: &str, row: Row, covers: u64) -> Known {
        let Some(shown) = self.shown.get(of) else { return Known::NoSuchRow };
        // Before its first event, a row is not there.
        let mut states = vec![(0, Row::default())];
        states.extend(shown.rows.get(key).into_iter().flatten());
        let until = |moments: &[(usize, Row)], at: usize| moments.get(at + 1).map_or(usize::MAX, |(next, _)| *next);
        let mut found = Known::NoSuchRow;
        for at in (0..states.len()).filter(|at| states[*at].1 == row) {
            found = Known::NotCovering;
            let (since, until) = (states[at].0, until(&states, at));
            for (nth, (began, covered)) in shown.covers.iter().enumerate() {
                let ended = shown.covers.get(nth + 1).map_or(usize::MAX, |(next, _)| *next);
                if *covered == Some(covers) && *began < until && ended > since {
                    return Known::Yes;
                }
            }
        }
        found
    }

    /// Returns true if an event was never applied in a version, or was given up there once, so that its effects are
    /// not owed.
    pub fn is_unspoken(&self, projection: &str, version: &str, position: u64) -> bool {
        let view = self.views.iter().find(|(view, _)| {
            let (of, is) = text(view);
            of == projection && is == version
        });
        view.is_some_and(|(_, held)| held.letters.contains_key(&position) || held.once_given_up.contains(&position))
    }

    /// What is done to the rows of a view as a whole is done under the claims of all its segments.
    fn check_whole(&mut self, view: &ViewId, held: &Held, commit: &Commit) {
        let (moved, all) = (commit.moves.len(), held.places.len());
        if moved != all {
            self.faults
                .push(format!("I-3: all rows of {view} were made again by one that has {moved} of {all} segments"));
        }
    }

    fn commit(&mut self, view: &ViewId, held: &mut Held, commit: &Commit, wrote: bool) {
        let (projection, version) = text(view);
        let place = |moved: &TokenMove| held.places.get(usize::from(moved.segment.get())).copied().unwrap_or_default();
        let replays = |moved: &TokenMove| moved.replay.map_or(0, |mark| mark.request.get()) > place(moved).replay;
        let is_copy = |moved: &TokenMove| moved.applied.after.get() > place(moved).counted_after;
        let leaves = |moved: &TokenMove| {
            let Place { was, replay, .. } = place(moved);
            let there = moved.to.get() == was && moved.applied.after.get() == was;
            place(moved).replays() && there && self.catalog.fold.is_cancelled(replay)
        };
        if commit.moves.iter().any(replays) {
            self.go_back(view, held, commit);
        } else if commit.moves.iter().any(leaves) {
            self.leave(view, held, commit);
        } else if commit.moves.iter().any(is_copy) {
            self.check_whole(view, held, commit);
            let copy = held.copy.and_then(|copy| self.copies.get(&copy));
            match copy {
                Some(copy) => (held.rows, held.applied) = (copy.rows.clone(), copy.applied.clone()),
                None => self.faults.push(format!("I-3: {view} was filled from no copy")),
            }
            held.given_up = copy.map(|copy| copy.given_up.clone()).unwrap_or_default();
            if let Some(copy) = copy.filter(|copy| !copy.letters.is_empty()) {
                let aside: Vec<&u64> = copy.letters.keys().collect();
                self.faults.push(format!("I-3: {view} was filled from a view that has set {aside:?} aside"));
            }
        } else {
            let rules = rules(self.world, &projection, code_of(&version));
            let phase = self.catalog.fold.phase(&projection, &version);
            let fold = &self.catalog.fold;
            let mut taking = Taking { view, rules, phase, fold, held, faults: &mut self.faults };
            for moved in &commit.moves {
                let events = &self.records[moved.from.get() as usize..moved.to.get() as usize];
                taking.take_up(moved, events, commit);
            }
            taking.tried_again(commit);
            for position in &commit.settled {
                taking.settle(&self.records[position.get() as usize - 1], wrote);
            }
            if !held.letters.is_empty() {
                self.troubled.insert(projection);
            }
        }
        for moved in &commit.moves {
            if let Some(place) = held.places.get_mut(usize::from(moved.segment.get())) {
                let (replay, was) = moved.replay.map_or((0, 0), |mark| (mark.request.get(), mark.through.get()));
                *place = Place { at: moved.to.get(), was, replay, counted_after: moved.applied.after.get() };
            }
        }
    }

    /// A replay begins: what was set aside after where it begins comes again.
    fn go_back(&mut self, view: &ViewId, held: &mut Held, commit: &Commit) {
        let asked = commit.moves.iter().find_map(|moved| self.catalog.fold.asked_replay(moved.replay?.request.get()));
        if asked.is_some_and(|asked| asked.resets) {
            self.check_whole(view, held, commit);
            held.rows.clear();
            held.applied.clear();
        }
        let segments = held.places.len();
        let back = |stream: &str| {
            let segment = segment_of(stream, segments);
            commit.moves.iter().find(|moved| usize::from(moved.segment.get()) == segment).map(|moved| moved.to.get())
        };
        let again = |(position, letter): (&u64, &Aside)| {
            back(letter.stream.as_str()).is_some_and(|to| *position > to).then_some(*position)
        };
        let again: BTreeSet<u64> = held.letters.iter().filter_map(again).collect();
        let settled: BTreeSet<u64> = commit.settled.iter().map(|position| position.get()).collect();
        if again != settled {
            self.faults
                .push(format!("I-11: {view} replays, {again:?} were set aside after there, gone are {settled:?}"));
        }
        held.letters.retain(|position, _| !settled.contains(position));
    }

    /// A replay that was cancelled is left: what was set aside when it began, and it has not reached, is set aside again.
    fn leave(&mut self, view: &ViewId, held: &mut Held, commit: &Commit) {
        let segments = held.places.len();
        for moved in &commit.moves {
            let segment = usize::from(moved.segment.get());
            let events = &self.records[moved.from.get() as usize..moved.to.get() as usize];
            let ours = |record: &&Record| record.change().is_some() && segment_of(&record.stream, segments) == segment;
            for Record { position, .. } in events.iter().filter(ours) {
                let is_done = held.applied.contains(position) || held.given_up.contains(position);
                let letter = commit.letters.iter().find(|letter| letter.position.get() == *position);
                match letter {
                    Some(letter) if !is_done => drop(held.letters.insert(*position, Aside::new(letter))),
                    None if is_done => {}
                    _ => self.faults.push(format!(
                        "I-11: {view} has left a replay before {position}, done is {is_done}, set aside {letter:?}"
                    )),
                }
            }
        }
        if !held.letters.is_empty() {
            self.troubled.insert(view.projection.to_string());
        }
    }

    /// A version is found wrong only where events were set aside. What is flipped to because it was found right has set
    /// none aside that was not to be skipped.
    fn check_verdict(&mut self, record: &Record) {
        let field = |name: &str| record.data[name].as_str().unwrap_or_default().to_owned();
        let of = (field("projection"), field("version"));
        let (projection, version) = &of;
        // In the moment before it is noticed, rows of another history may be those that serve.
        let parted = self.world.disk.parted().keys().any(|view| view.projection.as_str() == projection);
        if record.event_type == "version-verified"
            && field("verdict") == "Fail"
            && !self.troubled.contains(projection)
            && !parted
        {
            self.faults.push(format!(
                "verification: {projection} {version} was found wrong at {}, and nothing was ever set aside: {}",
                record.position, record.data["report"]
            ));
        }
        let built = self.catalog.fold.phase(projection, version) == "Initializing";
        let passed = self.catalog.fold.verdict(&of) == Some(Verdict::Pass);
        let allowed = || rules(self.world, projection, code_of(version)).letters_allowed;
        if record.event_type == "flipped" && built && passed && !allowed() {
            let covers = record.data["covers"].as_u64().unwrap_or_default();
            let held = self.views.iter().find(|(view, _)| text(view) == of).map(|(_, held)| held);
            let aside = held.into_iter().flat_map(|held| held.letters.range(..=covers));
            if let Some((aside, _)) = aside.into_iter().find(|(_, letter)| letter.blocks()) {
                self.faults.push(format!(
                    "I-6: flipped to {projection} {version} at {} on the word that it lacks nothing, and event {aside} \
                     is set aside in it",
                    record.position
                ));
            }
        }
    }
}

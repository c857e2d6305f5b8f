//! I-9: the effects of a stream are made in the order of its events, also where one version speaks for the earlier ones
//! and another one for the later ones.
//!
//! ```text
//!   events of a stream    q ─────────── p
//!   who speaks            one ─ flip ─▶ other
//!   made first            q             p      never the other way round, unless
//!                                              - q is set aside in `one`, or its effect is or was dropped
//!                                              - `one` was not to be waited for, at some time between flip and p
//! ```
//!
//! Looked at is when each effect was made first: tries that come again, after an answer that was lost, say nothing. A
//! version that was left is not waited for while it halts in the segment of the stream, is paused, has not moved for ten
//! seconds, does not apply events any more, or has its code on no live node. That excuses only what it had yet to
//! pass: what lay in its outbox for long is made before, whatever it waits on.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dacapo::ViewId;
use dacapo_model::{Member, MemberId};

use super::catalog::{Following, Version};
use super::effects::{Kept, Served, aside_and_dropped, kept};
use super::held::segment_of;
use super::journal::Record;
use super::landed::text;
use crate::disk::Landed;
use crate::effects::Made;
use crate::ledger::{PROJECTIONS, makes_past_effects};
use crate::limits;
use crate::world::World;

/// Every pair of effects of a stream that two versions made in the other order has an excuse.
pub fn check(world: &World, records: &[Record]) {
    let served = PROJECTIONS.map(|projection| (projection, Served::of(records, projection)));
    let served: BTreeMap<&str, Served> = served.into();
    let (kept, (aside, dropped)) = (kept(world), aside_and_dropped(world));
    let (excuses, parted) = (Excuses::of(world, records), world.disk.parted());
    let mut streams: BTreeMap<(String, String), Vec<Made>> = BTreeMap::new();
    let mut known = BTreeSet::new();
    for made in world.receiver.made() {
        if known.insert((made.key.projection.to_string(), made.key.position, made.key.ordinal)) {
            streams.entry((made.key.projection.to_string(), made.told.stream.clone())).or_default().push(made);
        }
    }
    for ((projection, stream), made) in &streams {
        let (served, past) = (&served[projection.as_str()], makes_past_effects(world, projection));
        let set_aside = world.disk.set_aside(projection);
        for (nth, earlier) in made.iter().enumerate() {
            let q = earlier.key.position.get();
            let (Some(one), Some(left)) = (served.voice(q, past), served.left(q)) else { continue };
            let Some(Kept { view, at: kept, .. }) = kept.get(&earlier.told.run) else { continue };
            let name = (view.clone(), q, earlier.key.ordinal);
            let is_aside = parted.contains_key(view)
                || aside.contains(&name)
                || dropped.contains(&name)
                || set_aside.get(one).is_some_and(|aside| aside.contains(&q));
            let comes_later = |later: &&Made| {
                let p = later.key.position.get();
                p > q && served.voice(p, past) != Some(one)
            };
            let has_no_excuse = |later: &&Made| {
                *kept + limits::LOOKED_TIME_MAX < later.at
                    || !excuses.has(view, stream, excuses.appended(left)..later.at)
            };
            let mut before = made[..nth].iter().filter(comes_later).filter(has_no_excuse);
            if let Some(later) = before.next().filter(|_| !is_aside) {
                world.violated(format!(
                    "I-9: the effect {} of {stream} was made at {:.3} s, and only then, at {:.3} s, {} by {view}, which was \
                     to be waited for and has kept it since {:.3} s",
                    later.key,
                    later.at.as_secs_f64(),
                    earlier.at.as_secs_f64(),
                    earlier.key,
                    kept.as_secs_f64()
                ));
            }
        }
    }
}

/// Times at which something was so: since when, and until when.
#[derive(Default)]
struct Times {
    over: Vec<(Duration, Duration)>,
    since: Option<Duration>,
}

impl Times {
    fn set(&mut self, now: Duration, is_so: bool) {
        match (self.since, is_so) {
            (None, true) => self.since = Some(now),
            (Some(since), false) => {
                self.over.push((since, now));
                self.since = None;
            }
            _ => {}
        }
    }

    fn meet(&self, time: &std::ops::Range<Duration>) -> bool {
        let meets = |(since, until): &(Duration, Duration)| *since <= time.end && *until >= time.start;
        self.over.iter().any(meets) || self.since.is_some_and(|since| since <= time.end)
    }
}

/// The progress of a view, and the time since which it has not changed.
struct Come {
    positions: Vec<u64>,
    moved: Duration,
}

/// When versions were not to be waited for.
struct Excuses {
    /// As a whole.
    versions: BTreeMap<Version, Times>,
    /// In a segment, because it halts there.
    segments: BTreeMap<(ViewId, usize), Times>,
    come: BTreeMap<ViewId, Come>,
    /// Until when each position was appended.
    appended: Vec<(u64, Duration)>,
}

impl Excuses {
    fn of(world: &World, records: &[Record]) -> Self {
        let (versions, segments, come, appended) = Default::default();
        let mut all = Self { versions, segments, come, appended };
        let mut catalog = Following::new(records);
        let mut leases: BTreeMap<MemberId, (Member, Duration)> = BTreeMap::new();
        let mut halts: BTreeMap<(ViewId, usize), u64> = BTreeMap::new();
        for (now, landed) in world.disk.landed_at() {
            match &*landed {
                Landed::Appended { through } => {
                    while let Some(record) = catalog.next(*through) {
                        catalog.fold.add(record);
                    }
                    all.appended.push((*through, now));
                }
                Landed::Renewed { member, lease, .. } => {
                    leases.insert(member.id, (member.clone(), now + *lease));
                }
                Landed::Left { member } => drop(leases.remove(member)),
                Landed::Made { view, .. } | Landed::Dropped { view } => drop(all.come.remove(view)),
                Landed::Claimed { view, epochs, .. } => {
                    let none = || Come { positions: vec![0; epochs.len()], moved: now };
                    all.come.entry(view.clone()).or_insert_with(none);
                }
                Landed::Committed { view, commit, .. } => {
                    let Some(come) = all.come.get_mut(view) else { continue };
                    let covers = |come: &Come| come.positions.iter().min().copied();
                    let before = covers(come);
                    for moved in &commit.moves {
                        let segment = usize::from(moved.segment.get());
                        come.positions[segment] = moved.to.get();
                        if halts.get(&(view.clone(), segment)).is_some_and(|halt| *halt <= moved.to.get()) {
                            halts.remove(&(view.clone(), segment));
                        }
                    }
                    if covers(come) != before {
                        come.moved = now;
                    }
                    for refusal in &commit.refused {
                        halts.insert((view.clone(), usize::from(refusal.segment.get())), refusal.position.get());
                    }
                    for segment in 0..come.positions.len() {
                        let of = (view.clone(), segment);
                        let halts = halts.contains_key(&of);
                        all.segments.entry(of).or_default().set(now, halts);
                    }
                }
                _ => {}
            }
            let paused = catalog.fold.paused();
            for (view, come) in &all.come {
                let of = text(view);
                let applies = matches!(catalog.fold.phase(&of.0, &of.1), "Initializing" | "Serving" | "StandingBy");
                let has_code = leases.values().any(|(member, until)| *until > now && member.has_code_of(view));
                let goes_on = applies && !paused.contains(&of) && has_code && now < come.moved + limits::STILL_TIME_MAX;
                all.versions.entry(of).or_default().set(now, !goes_on);
            }
        }
        all
    }

    /// When a position was appended.
    fn appended(&self, position: u64) -> Duration {
        let at = self.appended.partition_point(|(through, _)| *through < position);
        self.appended.get(at).map_or(Duration::MAX, |(_, at)| *at)
    }

    /// Returns true if the version of a view was not to be waited for in a stream at some time within these.
    fn has(&self, view: &ViewId, stream: &str, time: std::ops::Range<Duration>) -> bool {
        let count = self.come.get(view).map_or(0, |come| come.positions.len());
        // One that is gone has no outbox any more.
        let is_gone = count == 0;
        let halts = || self.segments.get(&(view.clone(), segment_of(stream, count)));
        is_gone
            || self.versions.get(&text(view)).is_some_and(|times| times.meet(&time))
            || halts().is_some_and(|times| times.meet(&time))
    }
}

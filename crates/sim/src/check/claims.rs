//! I-10: who has which segment, by what landed: leases, claims, and what nodes told.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dacapo::ViewId;
use dacapo_model::{Member, MemberId};
use dacapo_store::{Members, Views};
use futures::FutureExt;

use super::catalog::{Fold, Following};
use super::journal::Record;
use super::landed::text;
use crate::books::Alarms;
use crate::disk::{Claim, Landed};
use crate::limits;
use crate::world::{World, locked};

/// A lease.
struct Lease {
    member: Member,
    /// Since when it has never ended.
    since: Duration,
    until: Duration,
    slot: usize,
}

/// The owner of a segment, and the time since it has it.
type Owner = Option<(MemberId, Duration)>;

/// A segment that nobody live has although somebody could: since when, and whom that was told of.
struct Unowned {
    since: Duration,
    told: bool,
}

struct History<'a> {
    world: &'a World,
    catalog: Following<'a>,
    now: Duration,
    leases: BTreeMap<MemberId, Lease>,
    runs: BTreeMap<u64, MemberId>,
    owners: BTreeMap<ViewId, Vec<Owner>>,
    unowned: BTreeMap<(ViewId, usize), Unowned>,
    /// Views of another history, which nobody is to have.
    parted: BTreeSet<ViewId>,
    /// Since when the way of a node to the disk is good, or of all; none while it is not.
    ways: BTreeMap<Option<usize>, Option<Duration>>,
}

/// Leases, claims and alarms, held against each other.
pub fn check(world: &World, records: &[Record]) {
    let mut history = History {
        world,
        catalog: Following::new(records),
        now: Duration::ZERO,
        leases: BTreeMap::new(),
        runs: BTreeMap::new(),
        owners: BTreeMap::new(),
        unowned: BTreeMap::new(),
        parted: BTreeSet::new(),
        ways: BTreeMap::new(),
    };
    let (alarms, mut next) = (&locked(&world.books).alarms, 0);
    for (now, landed) in world.disk.landed_at() {
        while history.now + limits::CLAIMS_LOOK <= now {
            history.now += limits::CLAIMS_LOOK;
            history.look();
            while let Some(alarm) = alarms.get(next).filter(|alarm| alarm.at <= history.now) {
                history.check_alarm(alarm);
                next += 1;
            }
        }
        history.land(now, &landed);
    }
}

impl History<'_> {
    fn land(&mut self, now: Duration, landed: &Landed) {
        match landed {
            Landed::Appended { through } => {
                while let Some(record) = self.catalog.next(*through) {
                    self.catalog.fold.add(record);
                }
            }
            Landed::Renewed { slot, run, member, lease } => {
                self.runs.insert(*run, member.id);
                let before = self.leases.get(&member.id).filter(|before| before.until > now);
                let since = before.map_or(now, |before| before.since);
                let lease = Lease { member: member.clone(), since, until: now + *lease, slot: *slot };
                self.leases.insert(member.id, lease);
            }
            Landed::Left { member } => drop(self.leases.remove(member)),
            Landed::Claimed { view, segments, epochs, run, claim } => {
                self.claimed(now, view, segments, epochs.len(), (*run, *claim));
            }
            Landed::Made { view, .. } | Landed::Dropped { view } => drop(self.owners.remove(view)),
            Landed::Parted { view } => drop(self.parted.insert(view.clone())),
            Landed::Way { slot, good } => drop(self.ways.insert(*slot, good.then_some(now))),
            Landed::Committed { .. }
            | Landed::Flipped { .. }
            | Landed::Wished { .. }
            | Landed::Copied { .. }
            | Landed::EffectsDropped { .. }
            | Landed::EffectsAside { .. }
            | Landed::Attached { .. } => {}
        }
    }

    /// A segment is taken only from a member whose lease has ended since it claimed it, and let go of only by its own.
    fn claimed(
        &mut self,
        now: Duration,
        view: &ViewId,
        segments: &BTreeMap<usize, u64>,
        count: usize,
        (run, claim): (u64, Claim),
    ) {
        let owners = self.owners.entry(view.clone()).or_insert_with(|| vec![None; count]);
        let by = match claim {
            Claim::By(member) => Some(member),
            Claim::Released => self.runs.get(&run).copied(),
            Claim::Revoked => None,
        };
        for segment in segments.keys() {
            let owner = owners[*segment];
            let kept = owner.filter(|(owner, claimed)| {
                let lease = self.leases.get(owner).filter(|lease| lease.until > now);
                Some(*owner) != by && lease.is_some_and(|lease| lease.since <= *claimed)
            });
            if let (Some((owner, since)), false) = (kept, claim == Claim::Revoked) {
                self.world.violated(format!(
                    "I-10: segment {segment} of {view} was taken at {:.3} s by {by:?} ({claim:?}) from {owner:?}, which has \
                     it since {:.3} s and whose lease never ended",
                    now.as_secs_f64(),
                    since.as_secs_f64()
                ));
            }
            owners[*segment] = match claim {
                Claim::By(member) => Some((member, now)),
                Claim::Released | Claim::Revoked => None,
            };
        }
    }

    fn is_live(&self, member: MemberId) -> bool {
        self.leases.get(&member).is_some_and(|lease| lease.until > self.now)
    }

    /// Returns the members that are alive and can be given a version.
    fn capable(&self, view: &ViewId) -> impl Iterator<Item = &Lease> {
        self.leases.values().filter(|lease| lease.until > self.now && lease.member.is_capable(view))
    }

    fn good_since(&self, slot: Option<usize>) -> Option<Duration> {
        self.ways.get(&slot).copied().unwrap_or(Some(Duration::ZERO))
    }

    /// Every segment of a version that applies is a live member's within two lease times, if one is capable, and nothing
    /// is in its way to the disk.
    fn look(&mut self) {
        let applies = |view: &&ViewId| {
            let (projection, version) = text(view);
            if self.parted.contains(*view) {
                return false;
            }
            matches!(self.catalog.fold.phase(&projection, &version), "Initializing" | "Serving" | "StandingBy")
        };
        let views: Vec<ViewId> = self.owners.keys().filter(applies).cloned().collect();
        let mut still = BTreeSet::new();
        for view in views {
            if self.capable(&view).next().is_none() {
                continue;
            }
            let owned = |owner: &Owner| owner.is_some_and(|(member, _)| self.is_live(member));
            let unowned: Vec<usize> =
                (0..self.owners[&view].len()).filter(|segment| !owned(&self.owners[&view][*segment])).collect();
            for segment in unowned {
                still.insert((view.clone(), segment));
                let since = self.unowned.get(&(view.clone(), segment)).map_or(self.now, |unowned| unowned.since);
                let fine = |lease: &Lease| {
                    let good = self.good_since(None).max(self.good_since(Some(lease.slot)));
                    let all_good = self.good_since(None).is_some() && self.good_since(Some(lease.slot)).is_some();
                    good.filter(|_| all_good).map(|good| good.max(since).max(lease.since))
                };
                // Every one of them must be well: which one it is for is not told here.
                let fine = self.capable(&view).map(fine).collect::<Option<Vec<_>>>();
                let waited = fine.and_then(|fine| fine.into_iter().max()).map(|fine| self.now - fine);
                let late =
                    waited.is_some_and(|waited| waited > dacapo::limits::UNOWNED_TIME_MAX + limits::CLAIMS_SLACK);
                let entry = self.unowned.entry((view.clone(), segment)).or_insert(Unowned { since, told: false });
                if late && !entry.told {
                    entry.told = true;
                    self.world.violated(format!(
                        "I-10: segment {segment} of {view} is unclaimed since {:.3} s, at {:.3} s, and members that could \
                         have it are well",
                        since.as_secs_f64(),
                        self.now.as_secs_f64()
                    ));
                }
            }
        }
        self.unowned.retain(|segment, _| still.contains(segment));
    }

    /// Anyone who has seen for two lease times that a segment is nobody's says so.
    fn check_alarm(&self, alarm: &Alarms) {
        let late = |since: Duration| alarm.at > since + dacapo::limits::UNOWNED_TIME_MAX + limits::CLAIMS_SLACK;
        let lease = self.leases.values().find(|lease| lease.slot == alarm.slot && lease.until > self.now);
        let good = self.good_since(Some(alarm.slot)).zip(lease).map(|(good, lease)| good.max(lease.since));
        let Some(well_since) = good.filter(|since| late(*since)) else { return };
        for ((view, segment), unowned) in self.unowned.iter().filter(|(_, unowned)| late(unowned.since.max(well_since)))
        {
            if alarm.versions.get(&text(view)) == Some(&false) {
                self.world.violated(format!(
                    "I-10: segment {segment} of {view} is unclaimed since {:.3} s, and the node in slot {} did not say so at \
                     {:.3} s",
                    unowned.since.as_secs_f64(),
                    alarm.slot,
                    alarm.at.as_secs_f64()
                ));
            }
        }
    }
}

/// Segments that are not where they should be once all is calm: with members that are alive and capable, and spread so
/// that none has two more than another.
pub fn missing(world: &World, fold: &Fold) -> Vec<String> {
    let mut missing = vec![];
    let parted = world.disk.parted();
    let Some(Ok(live)) = world.disk.members.live().now_or_never() else { return vec!["who lives is not known".into()] };
    for id in world.disk.views.list().now_or_never().into_iter().flatten().flatten() {
        let phase = fold.phase(id.projection.as_str(), &id.version.to_string());
        if !matches!(phase, "Initializing" | "Serving" | "StandingBy") || parted.contains_key(&id) {
            continue;
        }
        let Some(Ok(Some(view))) = world.disk.views.find(&id).now_or_never() else { continue };
        let Some(Ok(tokens)) = view.tokens().now_or_never() else { continue };
        let capable = live.iter().filter(|member| member.is_capable(&id));
        let mut shares: BTreeMap<MemberId, usize> = capable.map(|member| (member.id, 0)).collect();
        for token in tokens {
            match token.claimed_by.and_then(|owner| shares.get_mut(&owner)) {
                Some(share) => *share += 1,
                None => {
                    missing.push(format!("segment {} of {id}, {phase}, is {:?}'s", token.segment, token.claimed_by))
                }
            }
        }
        let (fewest, most) = (shares.values().min(), shares.values().max());
        if most.zip(fewest).is_none_or(|(most, fewest)| most - fewest > 1) {
            missing.push(format!("the segments of {id}, {phase}, are spread like {shares:?}"));
        }
    }
    missing
}

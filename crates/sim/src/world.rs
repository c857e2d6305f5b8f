//! The world outside the nodes: what a crash does not take with it.
//!
//! It holds the disk, the program that is deployed, what troubles handlers, what clients have seen and the trace. It
//! is handed to hosts and clients, which all run on one thread, in one order.

use std::collections::BTreeMap;
use std::hash::Hasher;
use std::ops::{Range, RangeInclusive};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dacapo::journal::{EventId, Timestamp};
use dacapo::world::{Clock, Ids, Probe, Step};
use tokio::sync::watch;

use crate::books::Books;
use crate::disk::Disk;
use crate::effects::Receiver;
use crate::trouble::Troubles;
use crate::upgrade::Upgrade;

/// One simulated world.
pub struct World {
    pub seed: u64,
    pub disk: Disk,
    pub troubles: Troubles,
    pub receiver: Receiver,
    pub books: Mutex<Books>,
    /// The number of hosts for nodes, the first ones of [`HOSTS`].
    pub nodes: usize,
    /// For each slot the code versions of each projection that the program which is deployed there carries.
    pub deployed: [watch::Sender<Program>; HOSTS.len()],
    pub upgrade: Upgrade,
    /// For each slot whether its node has the program of the first release.
    pub knows_fewer: Mutex<[bool; HOSTS.len()]>,
    /// For each slot whether its node runs, or is about to.
    up: Mutex<[bool; HOSTS.len()]>,
    /// For each slot the last run of its node.
    runs: Mutex<(u64, [u64; HOSTS.len()])>,
    /// For each slot whether its node is asked to end in order.
    pub ending: [watch::Sender<bool>; HOSTS.len()],
    /// Which node a request goes to.
    balancer: Mutex<fastrand::Rng>,
    /// True if clients still make changes.
    pub stormy: watch::Sender<bool>,
    trace: Mutex<Trace>,
    violations: Mutex<Vec<String>>,
    ids: AtomicU64,
    /// The number of effects that handlers have emitted, kept or not.
    emitted: AtomicU64,
}

#[derive(Default)]
struct Trace {
    lines: Vec<String>,
    hash: xxhash_rust::xxh3::Xxh3,
    now: Duration,
}

/// The code versions of each projection that a program carries.
pub type Program = BTreeMap<&'static str, RangeInclusive<u32>>;

impl World {
    pub fn new(seed: u64, nodes: usize, deployed: &Program) -> Arc<Self> {
        Arc::new_cyclic(|world| Self {
            seed,
            nodes,
            disk: Disk::new(seed, world.clone()),
            troubles: Troubles::default(),
            receiver: Receiver::new(seed),
            books: Mutex::default(),
            deployed: std::array::from_fn(|_| watch::Sender::new(deployed.clone())),
            upgrade: Upgrade::new(part(seed, 7_000), nodes, deployed),
            knows_fewer: Mutex::default(),
            up: Mutex::default(),
            runs: Mutex::default(),
            ending: std::array::from_fn(|_| watch::Sender::new(false)),
            balancer: Mutex::new(fastrand::Rng::with_seed(seed ^ 0xBA1A)),
            stormy: watch::Sender::new(true),
            trace: Mutex::default(),
            violations: Mutex::default(),
            ids: AtomicU64::new(1),
            emitted: AtomicU64::new(0),
        })
    }

    /// Chance that belongs to one part of the world, so that a change of another part does not change it.
    pub fn chance(&self, part: u64) -> fastrand::Rng {
        self::part(self.seed, part)
    }

    /// Returns the simulated time since the beginning.
    pub fn now(&self) -> Duration {
        turmoil::sim_elapsed().unwrap_or_else(|| locked(&self.trace).now)
    }

    /// The time for anyone who looks from outside of every host.
    pub fn set_now(&self, now: Duration) {
        locked(&self.trace).now = now;
    }

    /// Notes what happens.
    pub fn note(&self, what: impl AsRef<str>) {
        let now = self.now();
        let line = format!("{:>10.3} {}", now.as_secs_f64(), what.as_ref());
        let mut trace = locked(&self.trace);
        trace.hash.write(line.as_bytes());
        trace.hash.write_u8(0);
        trace.lines.push(line);
    }

    /// Notes that an invariant does not hold.
    pub fn violated(&self, what: impl AsRef<str>) {
        let what = what.as_ref();
        self.note(format!("VIOLATED {what}"));
        locked(&self.violations).push(what.to_owned());
    }

    pub fn violations(&self) -> Vec<String> {
        locked(&self.violations).clone()
    }

    /// Returns the log of the run, and a hash of it with its times.
    pub fn trace(&self) -> (Vec<String>, u64) {
        let trace = locked(&self.trace);
        (trace.lines.clone(), trace.hash.digest())
    }

    /// Returns a run of the node in `slot` begins: its number.
    pub fn begin_run(&self, slot: usize) -> u64 {
        let (last, runs) = &mut *locked(&self.runs);
        *last += 1;
        runs[slot] = *last;
        *last
    }

    /// Returns true if a run of a node continues.
    pub fn goes_on(&self, run: u64) -> bool {
        (0..self.nodes).any(|slot| self.is_up(slot) && locked(&self.runs).1[slot] == run)
    }

    pub fn is_up(&self, slot: usize) -> bool {
        locked(&self.up)[slot]
    }

    pub fn set_up(&self, slot: usize, up: bool) {
        locked(&self.up)[slot] = up;
    }

    /// Returns the slots whose nodes run, or are about to.
    pub fn running(&self) -> Vec<usize> {
        (0..self.nodes).filter(|slot| self.is_up(*slot)).collect()
    }

    /// Returns the host that a request goes to: any node that runs, and now and then one that does not.
    pub fn host(&self) -> &'static str {
        let (running, mut balancer) = (self.running(), locked(&self.balancer));
        match balancer.choice(&running) {
            Some(slot) if !*self.stormy.borrow() || balancer.u8(..10) > 0 => HOSTS[*slot],
            _ => HOSTS[balancer.usize(..self.nodes)],
        }
    }

    /// Returns a number that no other effect has.
    pub fn next_emitted(&self) -> u64 {
        self.emitted.fetch_add(1, Ordering::SeqCst)
    }

    /// Returns a fresh id, which no other node nor client has.
    pub fn new_id(&self) -> [u8; 16] {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&(self.seed | 1 << 63).to_be_bytes());
        id[8..].copy_from_slice(&self.ids.fetch_add(1, Ordering::SeqCst).to_be_bytes());
        id
    }
}

fn part(seed: u64, part: u64) -> fastrand::Rng {
    fastrand::Rng::with_seed(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ part.wrapping_mul(0xD1B5_4A32_D192_ED03))
}

/// The hosts that nodes may run on.
pub const HOSTS: [&str; 5] = ["node-0", "node-1", "node-2", "node-3", "node-4"];

/// Largest difference between the clock of a node and that of the disk, in microseconds.
const SKEW: i64 = 3_600_000_000;

/// How far somebody sets the clock of a node forward: two days, in microseconds.
const SET: i64 = 172_800_000_000;

/// The simulated time, as the clock of a node or of the disk.
pub struct SimClock {
    /// How far it is ahead of the disk's, in microseconds.
    ahead: i64,
    /// While it is set forward, in microseconds since the beginning.
    set: Range<i64>,
}

impl SimClock {
    /// The clock of the disk.
    pub const DISK: Self = Self { ahead: 0, set: 0..0 };

    /// That of the node in `slot`: in half of the seeds each may be an hour ahead or slow. Half of all are set forward,
    /// and back again.
    pub fn of(world: &World, slot: usize) -> Self {
        let skewed = world.chance(6_000).bool();
        let mut chance = world.chance(6_001 + slot as u64);
        let ahead = if skewed { [0, SKEW, -SKEW][chance.usize(..3)] } else { 0 };
        let mut chance = world.chance(6_101 + slot as u64);
        let from = chance.i64(1_000_000..30_000_000);
        let set = if chance.bool() { from..from + chance.i64(1_000..10_000_000) } else { 0..0 };
        Self { ahead, set }
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        let elapsed = turmoil::sim_elapsed().unwrap_or_default();
        let elapsed = i64::try_from(elapsed.as_micros()).expect("a simulation is short");
        // It begins late enough that a clock that is slow is not before all time.
        let set = if self.set.contains(&elapsed) { SET } else { 0 };
        Timestamp::from_micros(2 * SKEW + elapsed + self.ahead + set)
    }
}

pub struct SimIds(pub Arc<World>);

impl Ids for SimIds {
    fn next(&self) -> EventId {
        EventId::from_bytes(self.0.new_id())
    }
}

/// Notes the steps of flips and clean-ups.
pub struct Steps(pub Arc<World>, pub &'static str);

impl Probe for Steps {
    fn completed(&self, step: Step) {
        self.0.note(format!("{} {step:?}", self.1));
    }
}

/// Locks what is only ever used by one thread.
pub fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

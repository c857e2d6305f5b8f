//! The world outside the nodes: what a crash does not take with it.
//!
//! It holds the disk, the program that is deployed, what troubles handlers, what clients have seen and the trace. It
//! is handed to hosts and clients, which all run on one thread, in one order.

use std::collections::BTreeMap;
use std::hash::Hasher;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dacapo::{Clock, EventId, Ids, Probe, Step, Timestamp};
use tokio::sync::watch;

use crate::books::Books;
use crate::disk::Disk;
use crate::effects::Receiver;
use crate::trouble::Troubles;

/// One simulated world.
pub struct World {
    pub seed: u64,
    pub disk: Disk,
    pub troubles: Troubles,
    pub receiver: Receiver,
    pub books: Mutex<Books>,
    /// The highest code version of each projection that the deployed program carries.
    pub deployed: watch::Sender<BTreeMap<&'static str, u32>>,
    /// The slot of the node that clients talk to.
    pub active: AtomicUsize,
    /// For each run of a node where the journal ended when it began.
    runs: Mutex<Vec<u64>>,
    /// For each slot whether its node is asked to end in order.
    pub ending: [watch::Sender<bool>; 2],
    /// Whether clients still make changes.
    pub stormy: watch::Sender<bool>,
    trace: Mutex<Trace>,
    violations: Mutex<Vec<String>>,
    ids: AtomicU64,
    /// How many effects handlers have emitted, kept or not.
    emitted: AtomicU64,
}

#[derive(Default)]
struct Trace {
    lines: Vec<String>,
    hash: xxhash_rust::xxh3::Xxh3,
    now: Duration,
}

impl World {
    pub fn new(seed: u64, deployed: BTreeMap<&'static str, u32>) -> Arc<Self> {
        Arc::new_cyclic(|world| Self {
            seed,
            disk: Disk::new(seed, world.clone()),
            troubles: Troubles::default(),
            receiver: Receiver::new(seed),
            books: Mutex::default(),
            deployed: watch::Sender::new(deployed),
            active: AtomicUsize::new(0),
            runs: Mutex::default(),
            ending: [watch::Sender::new(false), watch::Sender::new(false)],
            stormy: watch::Sender::new(true),
            trace: Mutex::default(),
            violations: Mutex::default(),
            ids: AtomicU64::new(1),
            emitted: AtomicU64::new(0),
        })
    }

    /// Chance that belongs to one part of the world, so that a change of another part does not change it.
    pub fn chance(&self, part: u64) -> fastrand::Rng {
        fastrand::Rng::with_seed(
            self.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ part.wrapping_mul(0xD1B5_4A32_D192_ED03),
        )
    }

    /// The simulated time since the beginning.
    pub fn now(&self) -> Duration {
        turmoil::sim_elapsed().unwrap_or_else(|| locked(&self.trace).now)
    }

    /// The time for whoever looks from outside of every host.
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

    /// What happened, and a hash of all of it with its times.
    pub fn trace(&self) -> (Vec<String>, u64) {
        let trace = locked(&self.trace);
        (trace.lines.clone(), trace.hash.digest())
    }

    /// A run of a node begins: its number.
    pub fn begin_run(&self) -> u64 {
        let mut runs = locked(&self.runs);
        runs.push(self.disk.head());
        runs.len() as u64 - 1
    }

    /// Where the journal ended when a run of a node began.
    pub fn began_at(&self, run: u64) -> u64 {
        locked(&self.runs)[run as usize]
    }

    /// The name of the host that clients talk to.
    pub fn host(&self) -> &'static str {
        HOSTS[self.active.load(Ordering::SeqCst)]
    }

    /// A number that no other effect has.
    pub fn next_emitted(&self) -> u64 {
        self.emitted.fetch_add(1, Ordering::SeqCst)
    }

    /// A fresh id, which no other node nor client has.
    pub fn new_id(&self) -> [u8; 16] {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.ids.fetch_add(1, Ordering::SeqCst).to_be_bytes());
        id[8..].copy_from_slice(&(self.seed | 1 << 63).to_be_bytes());
        id
    }
}

/// The hosts that nodes run on.
pub const HOSTS: [&str; 2] = ["node-0", "node-1"];

/// The simulated time, as the clock of a node or of the disk.
pub struct SimClock;

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        let elapsed = turmoil::sim_elapsed().unwrap_or_default();
        Timestamp::from_micros(i64::try_from(elapsed.as_micros()).expect("a simulation is short"))
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

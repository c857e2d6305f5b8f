//! One run: a storm of some seconds, a calm in which everything has to come right, then the checks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::Method;
use turmoil::Sim;

use crate::clients::{choose, request};
use crate::disk::Weather;
use crate::ledger::{CODE_MAX, PROJECTIONS};
use crate::operator::Looks;
use crate::trouble::{Kind, ResetTrouble, Trouble};
use crate::world::{HOSTS, World};
use crate::{check, clients, node, operator};

/// How long one step of the simulation is.
const TICK: Duration = Duration::from_millis(2);
/// How long it may take after the storm until everything has come right. A handler's retries are up to 30 s apart.
const CALM_MAX: Duration = Duration::from_secs(90);
/// How many clients append and ask.
const CLIENTS: usize = 4;

/// What happens to nodes, disk, network and handlers, and how often relative to the others.
#[derive(Clone, Copy)]
enum Act {
    Crash,
    EndInOrder,
    TakeOver,
    Disk,
    Handlers,
    Resets,
    Cut,
    HoldMessages,
    Deploy,
}

const ACTS: &[(u32, Act)] = &[
    (10, Act::Crash),
    (4, Act::EndInOrder),
    (8, Act::TakeOver),
    (16, Act::Disk),
    (14, Act::Handlers),
    (6, Act::Resets),
    (8, Act::Cut),
    (6, Act::HoldMessages),
    (12, Act::Deploy),
];

/// Something that is due later.
#[derive(Clone, Copy, Debug)]
enum Later {
    Bounce(usize),
    Crash(usize),
    ClearDisk,
    Mend(usize),
    Release(usize),
}

struct Run<'a> {
    world: Arc<World>,
    sim: Sim<'a>,
    chance: fastrand::Rng,
    later: Vec<(Duration, Later)>,
    next: Duration,
    storm: Duration,
    /// Whether the node in each slot runs, or is about to.
    up: [bool; 2],
}

fn client(number: usize) -> String {
    format!("client-{number}")
}

/// Runs the world of `seed`.
pub fn run(seed: u64) -> Arc<World> {
    let mut chance = fastrand::Rng::with_seed(seed);
    let deployed = PROJECTIONS.map(|projection| (projection, chance.u32(1..=2)));
    let world = World::new(seed, BTreeMap::from(deployed));
    let mut builder = turmoil::Builder::new();
    builder
        .rng_seed(seed)
        .enable_random_order()
        .tick_duration(TICK)
        .simulation_duration(Duration::from_secs(600))
        .max_message_latency(Duration::from_millis(chance.u64(2..40)));
    let mut sim = builder.build();
    for (slot, host) in HOSTS.into_iter().enumerate() {
        let world = Arc::clone(&world);
        sim.host(host, move || node::run(Arc::clone(&world), slot));
    }
    sim.crash(HOSTS[1]);
    for number in 0..CLIENTS {
        sim.client(client(number), clients::run(Arc::clone(&world), number));
    }
    sim.client("operator", operator::run(Arc::clone(&world)));
    sim.client("watch", watch(Arc::clone(&world)));
    let storm = Duration::from_secs(chance.u64(10..=40));
    let mut run =
        Run { world: Arc::clone(&world), sim, chance, later: vec![], next: Duration::ZERO, storm, up: [true, false] };
    run.go_on();
    check::all(&world);
    world
}

/// Waits for the calm, and then until everything has come right.
async fn watch(world: Arc<World>) -> turmoil::Result {
    let mut stormy = world.stormy.subscribe();
    // The sender lasts as long as the world.
    let _ = stormy.wait_for(|stormy| !stormy).await;
    let deadline = world.now() + CALM_MAX;
    let mut looks = Looks::default();
    loop {
        operator::bring_right(&world).await;
        looks.look(&world).await;
        let missing = check::missing(&world);
        if missing.is_empty() {
            world.note("everything has come right");
            break;
        }
        if world.now() > deadline {
            for missing in missing {
                world.violated(format!("I-11: after {} s of calm {missing}", CALM_MAX.as_secs()));
            }
            let status = request(&world, Method::GET, "/v1/status", None).await;
            world.note(format!("status {}", status.map(|status| status.body).unwrap_or_default()));
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    operator::roll_back_at_once(&world).await;
    Ok(())
}

impl Run<'_> {
    fn go_on(&mut self) {
        loop {
            match self.sim.step() {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => {
                    self.world.violated(format!("the simulation ended early: {error}"));
                    return;
                }
            }
            let now = self.sim.elapsed();
            self.world.set_now(now);
            self.carry_out_due(now);
            if *self.world.stormy.borrow() && now >= self.next {
                if now >= self.storm {
                    self.calm();
                } else {
                    self.act(now);
                    check::views(&self.world);
                    self.next = now + Duration::from_millis(self.chance.u64(50..1_200));
                }
            }
        }
    }

    fn active(&self) -> usize {
        self.world.active.load(Ordering::SeqCst)
    }

    fn later(&mut self, now: Duration, millis: std::ops::Range<u64>, what: Later) {
        self.later.push((now + Duration::from_millis(self.chance.u64(millis)), what));
    }

    fn carry_out_due(&mut self, now: Duration) {
        let due: Vec<Later> = self.later.extract_if(.., |(due, _)| *due <= now).map(|(_, what)| what).collect();
        for what in due {
            self.carry_out(what);
        }
    }

    fn carry_out(&mut self, what: Later) {
        self.world.note(format!("world {what:?}"));
        match what {
            Later::Bounce(slot) => self.bounce(slot),
            Later::Crash(slot) => self.crash(slot),
            Later::ClearDisk => self.world.disk.set_weather(Weather::default()),
            Later::Mend(number) => HOSTS.iter().for_each(|host| self.sim.repair(client(number), *host)),
            Later::Release(number) => HOSTS.iter().for_each(|host| self.sim.release(client(number), *host)),
        }
    }

    fn bounce(&mut self, slot: usize) {
        self.world.ending[slot].send_replace(false);
        self.sim.bounce(HOSTS[slot]);
        self.up[slot] = true;
    }

    fn crash(&mut self, slot: usize) {
        self.sim.crash(HOSTS[slot]);
        self.up[slot] = false;
    }

    fn act(&mut self, now: Duration) {
        let act = choose(&mut self.chance, ACTS);
        let slot = self.active();
        match act {
            Act::Crash if self.up[slot] => {
                self.world.note(format!("world crashes {}", HOSTS[slot]));
                self.crash(slot);
                self.later(now, 20..1_500, Later::Bounce(slot));
            }
            Act::EndInOrder if self.up[slot] && !*self.world.ending[slot].borrow() => {
                self.world.ending[slot].send_replace(true);
                self.later(now, 500..4_000, Later::Bounce(slot));
            }
            Act::TakeOver if self.up[slot] && !self.up[1 - slot] => self.take_over(now, slot),
            Act::Disk => {
                let weather = Weather {
                    delay_max: Duration::from_millis(self.chance.u64(0..60)),
                    failing: self.chance.u8(0..25),
                    losing: self.chance.u8(0..25),
                    stalling: self.chance.u8(0..6),
                };
                self.world.note(format!("world {weather:?}"));
                self.world.disk.set_weather(weather);
                self.later(now, 200..2_500, Later::ClearDisk);
            }
            Act::Handlers => {
                let modulus = self.chance.u64(1..40);
                let kind = [Kind::Refuses, Kind::Panics, Kind::Waits][self.chance.usize(..3)];
                // A handler that waits without end is not seen yet: only so long that nobody would look for a reason.
                let longest = if kind == Kind::Waits { 2_000 } else { 9_000 };
                let trouble = Trouble {
                    kind,
                    modulus,
                    rest: self.chance.u64(..modulus),
                    code: self.chance.bool().then(|| self.chance.u32(1..=CODE_MAX)),
                    until: now + Duration::from_millis(self.chance.u64(50..longest)),
                };
                self.world.note(format!("world {trouble:?}"));
                self.world.troubles.add(trouble);
            }
            Act::Resets => {
                let kind = [Kind::Refuses, Kind::Panics, Kind::Waits][self.chance.usize(..3)];
                let longest = if kind == Kind::Waits { 2_000 } else { 9_000 };
                let until = now + Duration::from_millis(self.chance.u64(50..longest));
                let trouble = ResetTrouble { kind, until };
                self.world.note(format!("world {trouble:?}"));
                self.world.troubles.set_resets(trouble);
            }
            Act::Cut | Act::HoldMessages => {
                let number = self.chance.usize(..CLIENTS);
                let holds = matches!(act, Act::HoldMessages);
                self.world
                    .note(format!("world {} client-{number}", if holds { "holds messages of" } else { "cuts off" }));
                for host in HOSTS {
                    if holds { self.sim.hold(client(number), host) } else { self.sim.partition(client(number), host) }
                }
                let what = if holds { Later::Release(number) } else { Later::Mend(number) };
                self.later(now, 100..2_000, what);
            }
            Act::Deploy => {
                let projection = *self.chance.choice(&PROJECTIONS).expect("there are some");
                let mut deployed = self.world.deployed.borrow().clone();
                let code = deployed.get_mut(projection).expect("every projection is deployed");
                if *code < CODE_MAX {
                    *code += 1;
                    self.world.note(format!("world deploys {projection} v{code}"));
                    self.world.deployed.send_replace(deployed);
                }
            }
            _ => {}
        }
    }

    /// Another process takes over while the old one still runs, and does not know: nobody talks to it any more, but
    /// it goes on writing for as long as it lives. Epochs are what keeps it out (I-4).
    fn take_over(&mut self, now: Duration, old: usize) {
        let new = 1 - old;
        self.world.note(format!("world lets {} take over, {} lingers", HOSTS[new], HOSTS[old]));
        for number in 0..CLIENTS {
            self.sim.partition(client(number), HOSTS[old]);
        }
        self.sim.partition("operator", HOSTS[old]);
        self.world.active.store(new, Ordering::SeqCst);
        for number in 0..CLIENTS {
            self.sim.repair(client(number), HOSTS[new]);
        }
        self.sim.repair("operator", HOSTS[new]);
        self.bounce(new);
        // Whatever was planned for the old one must not bring it back.
        self.later.retain(|(_, what)| !matches!(what, Later::Bounce(slot) if *slot == old));
        self.later(now, 100..3_000, Later::Crash(old));
    }

    /// The storm is over: everything is mended, and one node runs.
    fn calm(&mut self) {
        self.world.note("world is calm");
        for (_, what) in std::mem::take(&mut self.later) {
            self.carry_out(what);
        }
        let slot = self.active();
        if !self.up[slot] || *self.world.ending[slot].borrow() {
            self.bounce(slot);
        }
        if self.up[1 - slot] {
            self.crash(1 - slot);
        }
        self.world.disk.set_weather(Weather::default());
        self.world.troubles.clear();
        self.world.stormy.send_replace(false);
    }
}

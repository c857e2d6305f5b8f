//! One run: a storm of some seconds, a calm in which everything has to come right, then the checks.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Method;
use turmoil::Sim;

use crate::clients::{choose, request};
use crate::disk::{Before, Kind, Link, Weather};
use crate::ledger::{CODE_MAX, PROJECTIONS};
use crate::limits;
use crate::operator::Looks;
use crate::trouble::{self, ResetTrouble, Trouble};
use crate::world::{HOSTS, World, locked};
use crate::{check, clients, node, operator};

/// What happens to nodes, disk, network and handlers, and how often relative to the others.
#[derive(Clone, Copy)]
enum Act {
    Crash,
    EndInOrder,
    Join,
    Pause,
    CutOff,
    Strand,
    Disk,
    Handlers,
    Resets,
    Cut,
    HoldMessages,
    Deploy,
}

const ACTS: &[(u32, Act)] = &[
    (10, Act::Crash),
    (5, Act::EndInOrder),
    (8, Act::Join),
    (12, Act::Pause),
    (16, Act::CutOff),
    (3, Act::Strand),
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
    Link(usize),
    Wake(usize),
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
    /// The time at which the upgrade begins, until it does.
    upgrade: Option<Duration>,
    /// From when on a view that serves or stands by is to be one of another history; in some of the seeds, and once.
    parts: Option<Duration>,
}

fn client(number: usize) -> String {
    format!("client-{number}")
}

/// Runs the world of `seed`.
pub fn run(seed: u64) -> Arc<World> {
    let mut chance = fastrand::Rng::with_seed(seed);
    let deployed = PROJECTIONS.map(|projection| (projection, 1..=chance.u32(1..=2)));
    let nodes = chance.usize(1..=HOSTS.len());
    let world = World::new(seed, nodes, &BTreeMap::from(deployed));
    let mut builder = turmoil::Builder::new();
    builder
        .rng_seed(seed)
        .enable_random_order()
        .tick_duration(limits::TICK)
        .simulation_duration(Duration::from_secs(600))
        .max_message_latency(Duration::from_millis(chance.u64(2..40)));
    let mut sim = builder.build();
    let at_first = chance.usize(1..=nodes);
    for (slot, host) in HOSTS[..nodes].iter().enumerate() {
        let of_host = Arc::clone(&world);
        sim.host(*host, move || node::run(Arc::clone(&of_host), slot));
        world.set_up(slot, slot < at_first);
        if slot >= at_first {
            sim.crash(*host);
        }
    }
    for number in 0..limits::CLIENTS {
        sim.client(client(number), clients::run(Arc::clone(&world), number));
    }
    let looks = Arc::<Mutex<Looks>>::default();
    sim.client("operator", operator::run(Arc::clone(&world), Arc::clone(&looks)));
    sim.client("lookout", operator::look_on(Arc::clone(&world), looks));
    sim.client("watch", watch(Arc::clone(&world)));
    let storm = Duration::from_secs(chance.u64(10..=40));
    let (next, upgrade) = (Duration::ZERO, world.upgrade.at());
    let mut parts = world.chance(8_000);
    let parts = (parts.u8(..4) == 0).then(|| Duration::from_millis(parts.u64(3_000..20_000)));
    let mut run = Run { world: Arc::clone(&world), sim, chance, later: vec![], next, storm, upgrade, parts };
    run.go_on();
    check::all(&world);
    world
}

/// Waits for the calm, and then until everything has come right.
async fn watch(world: Arc<World>) -> turmoil::Result {
    let mut stormy = world.stormy.subscribe();
    // The sender lasts as long as the world.
    let _ = stormy.wait_for(|stormy| !stormy).await;
    let deadline = world.now() + limits::CALM_MAX;
    let looks = Mutex::default();
    loop {
        operator::bring_right(&world).await;
        Looks::look(&looks, &world).await;
        let missing = check::missing(&world);
        if missing.is_empty() {
            world.note("everything has come right");
            break;
        }
        if world.now() > deadline {
            for missing in missing {
                world.violated(format!("I-11: after {} s of calm {missing}", limits::CALM_MAX.as_secs()));
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
            for slot in self.world.disk.take_paused() {
                self.pause(now, slot);
            }
            self.begin_upgrade(now);
            self.part(now);
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

    /// Starts one node again with the program of the second release, once it is time.
    fn begin_upgrade(&mut self, now: Duration) {
        if self.upgrade.take_if(|at| *at <= now).is_none() {
            return;
        }
        if let Some(slot) = self.world.running().last().copied() {
            self.crash(slot);
            self.bounce(slot);
        }
    }

    /// Makes a view one of another history, once it is time and one serves.
    fn part(&mut self, now: Duration) {
        let is_due = self.parts.is_some_and(|at| at <= now) && *self.world.stormy.borrow();
        if is_due && check::serving_views(&self.world).iter().any(|view| self.world.disk.part(view)) {
            self.parts = None;
        } else if is_due {
            self.parts = Some(now + Duration::from_millis(200));
        }
    }

    /// Returns the names of all who talk to nodes.
    fn talkers() -> impl Iterator<Item = String> {
        (0..limits::CLIENTS).map(client).chain(["operator", "lookout", "watch"].map(str::to_owned))
    }

    fn hosts(&self) -> &'static [&'static str] {
        &HOSTS[..self.world.nodes]
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
            Later::Link(slot) => self.world.disk.set_link(slot, Link::Good),
            Later::Wake(slot) => {
                self.world.disk.set_link(slot, Link::Good);
                Self::talkers().for_each(|talker| self.sim.release(talker, HOSTS[slot]));
            }
            Later::ClearDisk => self.world.disk.set_weather(Weather::default()),
            Later::Mend(number) => self.hosts().iter().for_each(|host| self.sim.repair(client(number), *host)),
            Later::Release(number) => self.hosts().iter().for_each(|host| self.sim.release(client(number), *host)),
        }
    }

    /// Starts the node in `slot`, with all code that is deployed there or only the newer of it.
    fn bounce(&mut self, slot: usize) {
        self.world.ending[slot].send_replace(false);
        // During an upgrade the new program has all code of the old one.
        let drops_old = self.chance.u8(..4) == 0 && !self.world.upgrade.is_there();
        let chance = &mut self.chance;
        self.world.deployed[slot].send_modify(|program| {
            for codes in program.values_mut() {
                let first = if drops_old { chance.u32(1..=*codes.end()) } else { 1 };
                *codes = first..=*codes.end();
            }
        });
        self.sim.bounce(HOSTS[slot]);
        self.world.set_up(slot, true);
    }

    fn crash(&mut self, slot: usize) {
        self.world.note(format!("world crashes {}", HOSTS[slot]));
        self.sim.crash(HOSTS[slot]);
        self.world.set_up(slot, false);
    }

    /// Returns a slot, of those whose nodes run or of the others.
    fn slot(&mut self, up: bool) -> Option<usize> {
        let slots: Vec<usize> = (0..self.world.nodes).filter(|slot| self.world.is_up(*slot) == up).collect();
        self.chance.choice(&slots).copied()
    }

    fn act(&mut self, now: Duration) {
        let act = choose(&mut self.chance, ACTS);
        match act {
            Act::Crash => {
                let Some(slot) = self.slot(true) else { return };
                self.crash(slot);
                // In the end at least one comes back; of several it may be that one does not.
                if self.world.running().is_empty() || self.chance.u8(..3) > 0 {
                    self.later(now, 20..6_000, Later::Bounce(slot));
                }
            }
            Act::EndInOrder => {
                let Some(slot) = self.slot(true).filter(|slot| !*self.world.ending[*slot].borrow()) else { return };
                self.world.ending[slot].send_replace(true);
                self.later(now, 500..8_000, Later::Bounce(slot));
            }
            Act::Join => {
                let Some(slot) = self.slot(false) else { return };
                self.bounce(slot);
            }
            Act::Pause => {
                let Some(slot) = self.slot(true) else { return };
                // At any time, or between a look and what follows from it.
                match self.chance.u8(..4) {
                    0 => self.world.disk.pause_before(slot, Some(Before::Claim)),
                    1 => self.world.disk.pause_before(slot, Some(Before::Read)),
                    _ => self.pause(now, slot),
                }
            }
            Act::CutOff => {
                let Some(slot) = self.slot(true) else { return };
                let kind = [None, Some(Kind::Lease), Some(Kind::Journal), Some(Kind::Views)][self.chance.usize(..4)];
                self.cut_off(now, slot, kind, 100..10_000);
            }
            Act::Strand => self.strand(now),
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
                let kind =
                    [trouble::Kind::Refuses, trouble::Kind::Panics, trouble::Kind::Waits][self.chance.usize(..3)];
                // A handler that waits without end is not seen yet: only so long that nobody would look for a reason.
                let longest = if kind == trouble::Kind::Waits { 2_000 } else { 9_000 };
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
                let kind =
                    [trouble::Kind::Refuses, trouble::Kind::Panics, trouble::Kind::Waits][self.chance.usize(..3)];
                let longest = if kind == trouble::Kind::Waits { 2_000 } else { 9_000 };
                let until = now + Duration::from_millis(self.chance.u64(50..longest));
                let trouble = ResetTrouble { kind, until };
                self.world.note(format!("world {trouble:?}"));
                self.world.troubles.set_resets(trouble);
            }
            Act::Cut | Act::HoldMessages => {
                let number = self.chance.usize(..limits::CLIENTS);
                let holds = matches!(act, Act::HoldMessages);
                self.world
                    .note(format!("world {} client-{number}", if holds { "holds messages of" } else { "cuts off" }));
                for host in self.hosts() {
                    if holds { self.sim.hold(client(number), *host) } else { self.sim.partition(client(number), *host) }
                }
                let what = if holds { Later::Release(number) } else { Later::Mend(number) };
                self.later(now, 100..2_000, what);
            }
            Act::Deploy => {
                let projection = *self.chance.choice(&PROJECTIONS).expect("there are some");
                let slot = self.chance.usize(..self.world.nodes);
                let mut program = self.world.deployed[slot].borrow().clone();
                let codes = program.get_mut(projection).expect("every projection is deployed");
                if *codes.end() < CODE_MAX {
                    *codes = *codes.start()..=codes.end() + 1;
                    self.world.note(format!("world deploys {projection} v{} on {}", codes.end(), HOSTS[slot]));
                    self.world.deployed[slot].send_replace(program);
                }
            }
        }
    }

    /// Nothing that the node in `slot` does gets anywhere, and nobody's words get there.
    fn pause(&mut self, now: Duration, slot: usize) {
        self.world.note(format!("world pauses {}", HOSTS[slot]));
        self.world.disk.set_link(slot, Link::Hangs(None));
        Self::talkers().for_each(|talker| self.sim.hold(talker, HOSTS[slot]));
        self.later(now, 100..10_000, Later::Wake(slot));
    }

    fn cut_off(&mut self, now: Duration, slot: usize, kind: Option<Kind>, millis: std::ops::Range<u64>) {
        if self.world.disk.link(slot) != Link::Good {
            return;
        }
        let link = if self.chance.bool() { Link::Hangs(kind) } else { Link::Fails(kind) };
        self.world.note(format!("world cuts {} off from the disk: {link:?}", HOSTS[slot]));
        self.world.disk.set_link(slot, link);
        self.later(now, millis, Later::Link(slot));
    }

    /// One node crashes, and of the others only one sees what it had: they have a lease and reach no view.
    fn strand(&mut self, now: Duration) {
        let mut running = self.world.running();
        if running.len() < 3 {
            return;
        }
        self.chance.shuffle(&mut running);
        self.crash(running[0]);
        self.later(now, 12_000..16_000, Later::Bounce(running[0]));
        for slot in &running[2..] {
            self.cut_off(now, *slot, Some(Kind::Views), 11_000..14_000);
        }
    }

    /// The storm is over: everything is mended, and at least one node runs. One of them carries all the code there is.
    fn calm(&mut self) {
        self.world.note("world is calm");
        for (_, what) in std::mem::take(&mut self.later) {
            self.carry_out(what);
        }
        for slot in 0..self.world.nodes {
            self.world.disk.pause_before(slot, None);
            if *self.world.ending[slot].borrow() {
                self.bounce(slot);
            }
        }
        // The upgrade comes to its end.
        for slot in self.world.running() {
            if locked(&self.world.knows_fewer)[slot] {
                self.crash(slot);
                self.bounce(slot);
            }
        }
        if self.world.running().is_empty() {
            self.bounce(0);
        }
        let newest = |projection| {
            let programs = self.world.deployed.iter().map(|program| *program.borrow()[projection].end());
            (projection, 1..=programs.max().expect("there are slots"))
        };
        let all = PROJECTIONS.map(newest).into();
        self.world.deployed[self.world.running()[0]].send_replace(all);
        self.world.disk.set_weather(Weather::default());
        self.world.troubles.clear();
        self.world.stormy.send_replace(false);
    }
}

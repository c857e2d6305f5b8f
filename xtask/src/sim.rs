//! Runs the simulator: many seeds, one to look at, or the planted faults. One process runs one seed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::planted::{self, Fault, SEEDS as NOTED};
use crate::{Done, cargo, registry, root, say, target};

/// How many seeds are run, from 1 on.
const SEEDS: u64 = 300;
/// How many of them CI runs; what a change breaks shows mostly in the first few.
const CI_SEEDS: u64 = 80;
/// Of so many seeds one is run twice, and both runs must have done the same at the same times.
const TWICE: u64 = 10;
/// Within so many seeds CI finds each planted fault, should the noted one not find it any more: what is changed elsewhere
/// changes what happens in a seed.
const NOTED_SEEDS_MAX: u64 = 100;
/// Within so many seeds each planted fault is found.
const PLANTED_SEEDS_MAX: u64 = 300;
/// No seed takes that long; one that does waits for something that will not happen.
const SEED_SECONDS_MAX: &str = "120";

pub(crate) const USAGE: &str =
    "usage: cargo xtask sim [--seeds N] [--from S] | --seed S [--fault F] | --planted | --noted

  --seeds N   run N seeds (300)
  --from S    the first of them (1)
  --seed S    run one seed and print all that happened in it
  --fault F   with the planted fault `crates/sim/planted/F.fault`
  --planted   plant one fault after the other and see the checkers find it; what is found by another seed
              than `crates/sim/planted-seeds.txt` says is written there
  --noted     plant each fault with the seed that is written there, and with few others, as `cargo xtask ci` does";

/// The simulator's program, and how it is built.
const PROGRAM: &str = "dacapo-sim";
const BUILD: [&str; 5] = ["build", "--quiet", "--locked", "--package", PROGRAM];

/// What one run printed.
struct Run {
    seed: u64,
    output: Output,
}

impl Run {
    fn text(&self) -> String {
        let printed = [&self.output.stdout[..], &self.output.stderr[..]].concat();
        let mut text = String::from_utf8_lossy(&printed).into_owned();
        if text.is_empty() {
            text = format!("it did not end within {SEED_SECONDS_MAX} s");
        }
        text
    }

    /// Returns the hash of its trace.
    fn trace(&self) -> Option<String> {
        let text = self.text();
        let line = text.lines().find(|line| line.starts_with("seed "))?;
        line.split(' ').nth(3).map(str::to_owned)
    }

    /// Returns true if it was ended because it took too long: `timeout` exits with 124 then.
    fn is_cut_off(&self) -> bool {
        self.output.status.code() == Some(124)
    }

    fn violates(&self, invariants: &[String]) -> Option<String> {
        let text = self.text();
        let of =
            |line: &&str| invariants.iter().any(|invariant| line.trim_start().starts_with(&format!("{invariant}:")));
        text.lines().find(of).map(|line| line.trim().to_owned())
    }
}

pub(crate) fn run(arguments: &[String]) -> Done {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse::<u64>().map_err(|_| USAGE.to_owned());
    match arguments[..] {
        [] => seeds(1, SEEDS),
        ["--seeds", count] => seeds(1, number(count)?),
        ["--seeds", count, "--from", first] | ["--from", first, "--seeds", count] => {
            seeds(number(first)?, number(count)?)
        }
        ["--from", first] => seeds(number(first)?, SEEDS),
        ["--seed", seed] => one(&build()?, number(seed)?, None),
        ["--seed", seed, "--fault", name] => one_planted(number(seed)?, name),
        ["--planted"] => planted(),
        ["--noted"] => noted(),
        _ => Err(USAGE.to_owned()),
    }
}

/// Runs all that CI runs of it.
pub(crate) fn ci() -> Done {
    seeds(1, CI_SEEDS)?;
    noted()
}

fn build() -> Result<PathBuf, String> {
    cargo(&BUILD, &[])?;
    Ok(target()?.join("debug").join(PROGRAM))
}

/// Builds one program with all faults, from a copy of the tree. In the folder of the plain one, cargo would take the
/// crates of the copy for those of the tree, since it knows both by their paths from the root of their workspace. The
/// crates of the registry are the same in both, so the copy gets those that the plain program was built with.
fn build_planted(faults: &[Fault]) -> Result<PathBuf, String> {
    let plain = build()?;
    let planted = target()?.join("planted");
    let (tree, built) = (planted.join("tree"), planted.join("target"));
    planted::plant(&root(), faults, &tree)?;
    let debug = built.join("debug");
    plain.parent().map_or(Ok(()), |from| registry::share(from, &debug))?;
    let manifest = format!("--manifest-path={}", tree.join("Cargo.toml").display());
    let folder = format!("--target-dir={}", built.display());
    cargo(&[&BUILD[..], &[&manifest, &folder]].concat(), &[])?;
    Ok(debug.join(PROGRAM))
}

fn simulate(program: &Path, seed: u64, fault: Option<&str>, arguments: &[&str]) -> Result<Run, String> {
    let mut command = Command::new("timeout");
    command.arg(SEED_SECONDS_MAX).arg(program).args(["--seed", &seed.to_string()]).args(arguments);
    command.envs(fault.map(|fault| (planted::ACTIVE, fault)));
    let output = command.output().map_err(|error| format!("`{command:?}` did not start: {error}"))?;
    Ok(Run { seed, output })
}

fn one(program: &Path, seed: u64, fault: Option<&str>) -> Done {
    let run = simulate(program, seed, fault, &["--trace"])?;
    say(&run.text());
    if run.output.status.success() { Ok(()) } else { Err(format!("seed {seed} found something")) }
}

fn one_planted(seed: u64, name: &str) -> Done {
    let faults = planted::faults(&root())?;
    if !faults.iter().any(|fault| fault.name == name) {
        let names: Vec<&str> = faults.iter().map(|fault| fault.name.as_str()).collect();
        return Err(format!("there is no fault `{name}`; there are {}", names.join(", ")));
    }
    one(&build_planted(&faults)?, seed, Some(name))
}

#[expect(clippy::disallowed_methods, reason = "how long it took is told to whoever waits")]
fn seeds(first: u64, count: u64) -> Done {
    let program = build()?;
    let started = Instant::now();
    let failed: Mutex<Vec<String>> = Mutex::default();
    let fail = |text: String| failed.lock().unwrap_or_else(PoisonError::into_inner).push(text);
    in_parallel(first, count, |seed| match simulate(&program, seed, None, &[]) {
        Ok(run) if run.output.status.success() => {
            if seed.is_multiple_of(TWICE)
                && let Some(fault) = differs(&program, &run)
            {
                fail(fault);
            }
        }
        Ok(run) => fail(run.text()),
        Err(error) => fail(error),
    });
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    let time = Duration::from_secs(started.elapsed().as_secs());
    say(&format!("{count} seeds in {} s, {} found something", time.as_secs(), failed.len()));
    if failed.is_empty() {
        return Ok(());
    }
    Err(format!("{}\n\nlook at one with `cargo xtask sim --seed S`", failed.join("\n")))
}

/// Runs the seed again: the same must happen at the same times.
fn differs(program: &Path, first: &Run) -> Option<String> {
    let again = match simulate(program, first.seed, None, &[]) {
        Ok(again) => again,
        Err(error) => return Some(error),
    };
    let (one, other) = (first.trace(), again.trace());
    (one.is_none() || one != other)
        .then(|| format!("seed {} is not deterministic: its traces are {one:?} and {other:?}", first.seed))
}

/// Plants each fault with the seed that is noted for it, and where that does not find it with the first few.
fn noted() -> Done {
    let faults = planted::faults(&root())?;
    let (_, missed) = find_all(&faults, NOTED_SEEDS_MAX)?;
    if missed.is_empty() {
        say(&format!("all {} planted faults found", faults.len()));
        return Ok(());
    }
    Err(format!(
        "{}\n\nrun `cargo xtask sim --planted`: it looks further for a seed that finds it, and notes it in {NOTED}. If \
         there is none, a checker has become blind, or the simulated world does not come there any more.",
        missed.join("\n")
    ))
}

/// Plants each fault, with one seed after the other until one finds it, and notes by which seed each was found.
fn planted() -> Done {
    let (found, missed) = find_all(&planted::faults(&root())?, PLANTED_SEEDS_MAX)?;
    // What was found is noted, whatever was not.
    planted::note(&root(), &found)?;
    if missed.is_empty() { Ok(()) } else { Err(missed.join("\n")) }
}

/// Plants one fault after the other. Returns by which seed each was found, and which were not found within `most` seeds.
fn find_all(faults: &[Fault], most: u64) -> Result<(BTreeMap<String, u64>, Vec<String>), String> {
    let (program, noted) = (build_planted(faults)?, planted::seeds(&root())?);
    let (found, missed): (Mutex<BTreeMap<_, _>>, Mutex<Vec<_>>) = Default::default();
    in_parallel(0, faults.len() as u64, |number| {
        let fault = &faults[number as usize];
        match find(&program, fault, noted.get(&fault.name).copied(), most) {
            Ok(seed) => {
                found.lock().unwrap_or_else(PoisonError::into_inner).insert(fault.name.clone(), seed);
            }
            Err(text) => missed.lock().unwrap_or_else(PoisonError::into_inner).push(text),
        }
    });
    let found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok((found, missed.into_inner().unwrap_or_else(PoisonError::into_inner)))
}

/// Runs seeds with a planted fault, `first` before all others, until one finds what the fault breaks.
fn find(program: &Path, fault: &Fault, first: Option<u64>, most: u64) -> Result<u64, String> {
    let Fault { name, breaks, .. } = fault;
    for seed in first.into_iter().chain((1..=most).filter(|seed| Some(*seed) != first)) {
        let run = simulate(program, seed, Some(name), &[])?;
        if let Some(text) = run.violates(breaks) {
            say(&format!("{name}: found by seed {seed}: {text}"));
            return Ok(seed);
        }
        if run.is_cut_off() {
            say(&format!("{name}: seed {seed} did not end within {SEED_SECONDS_MAX} s, so it says nothing"));
        }
    }
    Err(format!("{name}: planted and not found within {most} seeds"))
}

/// Does `work` for each of `count` numbers from `first` on, on every core.
fn in_parallel(first: u64, count: u64, work: impl Fn(u64) + Sync) {
    let next = AtomicU64::new(first);
    let worker = || {
        loop {
            let number = next.fetch_add(1, Ordering::SeqCst);
            if number >= first + count {
                return;
            }
            work(number);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(worker);
        }
    });
}

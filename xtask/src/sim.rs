//! Runs the simulator: many seeds, one to look at, or the planted faults. One process runs one seed.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::{Done, cargo, root, say};

/// How many seeds are run, from 1 on.
const SEEDS: u64 = 300;
/// How many of them CI runs; what a change breaks shows mostly in the first few.
const CI_SEEDS: u64 = 80;
/// Of so many seeds one is run twice, and both runs must have done the same at the same times.
const TWICE: u64 = 10;
/// By which seed each planted fault was found last: the first one to try.
const FOUND: &str = "crates/sim/planted-seeds.txt";
/// Within so many seeds CI finds each planted fault, should the noted one not find it any more: what is changed elsewhere
/// changes what happens in a seed.
const NOTED_SEEDS_MAX: u64 = 100;
/// Within so many seeds each planted fault is found.
const PLANTED_SEEDS_MAX: u64 = 300;
/// No seed takes that long; one that does waits for something that will not happen.
const SEED_SECONDS_MAX: &str = "120";

pub(crate) const USAGE: &str = "usage: cargo xtask sim [--seeds N] [--from S] | --seed S | --planted | --noted

  --seeds N   run N seeds (300)
  --from S    the first of them (1)
  --seed S    run one seed and print all that happened in it
  --planted   plant one fault after the other and see the checkers find it; what is found by another seed
              than `crates/sim/planted-seeds.txt` says is written there
  --noted     plant each fault with the seed that is written there, and with few others, as `cargo xtask ci` does";

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

    /// The hash of its trace.
    fn trace(&self) -> Option<String> {
        let text = self.text();
        let line = text.lines().find(|line| line.starts_with("seed "))?;
        line.split(' ').nth(3).map(str::to_owned)
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
        ["--seed", seed] => one(number(seed)?),
        ["--planted"] => planted(),
        ["--noted"] => noted(),
        _ => Err(USAGE.to_owned()),
    }
}

/// All that CI runs of it.
pub(crate) fn ci() -> Done {
    seeds(1, CI_SEEDS)?;
    noted()
}

/// One program for all: the faults that can be planted change nothing before one is chosen.
fn build() -> Result<PathBuf, String> {
    cargo(&["build", "--quiet", "--locked", "--package", "dacapo-sim", "--features", "planted"], &[])?;
    let own = std::env::current_exe().map_err(|error| format!("where is this program? {error}"))?;
    Ok(own.with_file_name("dacapo-sim"))
}

fn simulate(program: &Path, seed: u64, arguments: &[&str]) -> Result<Run, String> {
    let mut command = Command::new("timeout");
    command.arg(SEED_SECONDS_MAX).arg(program).args(["--seed", &seed.to_string()]).args(arguments);
    let output = command.output().map_err(|error| format!("`{command:?}` did not start: {error}"))?;
    Ok(Run { seed, output })
}

fn one(seed: u64) -> Done {
    let program = build()?;
    let run = simulate(&program, seed, &["--trace"])?;
    say(&run.text());
    if run.output.status.success() { Ok(()) } else { Err(format!("seed {seed} found something")) }
}

#[expect(clippy::disallowed_methods, reason = "how long it took is told to whoever waits")]
fn seeds(first: u64, count: u64) -> Done {
    let program = build()?;
    let started = Instant::now();
    let failed: Mutex<Vec<String>> = Mutex::default();
    let fail = |text: String| failed.lock().unwrap_or_else(PoisonError::into_inner).push(text);
    in_parallel(first, count, |seed| match simulate(&program, seed, &[]) {
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
    let again = match simulate(program, first.seed, &[]) {
        Ok(again) => again,
        Err(error) => return Some(error),
    };
    let (one, other) = (first.trace(), again.trace());
    (one.is_none() || one != other)
        .then(|| format!("seed {} is not deterministic: its traces are {one:?} and {other:?}", first.seed))
}

/// The faults that `program` can plant, each with the invariants of which one must be found broken.
fn faults(program: &Path) -> Result<Vec<(String, Vec<String>)>, String> {
    let listed = Command::new(program).args(["--seed", "1", "--plant", "list"]).output();
    let listed = listed.map_err(|error| format!("{} did not start: {error}", program.display()))?;
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let words = listed.lines().map(|line| line.split_whitespace().map(str::to_owned));
    let faults: Vec<_> = words.filter_map(|mut words| Some((words.next()?, words.collect()))).collect();
    if faults.is_empty() {
        return Err(format!("{} knows of no faults to plant: is it another program?", program.display()));
    }
    Ok(faults)
}

/// What [`FOUND`] says.
fn found() -> Result<String, String> {
    let path = root().join(FOUND);
    std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))
}

/// Plants each fault with the seed that is noted for it, and where that does not find it with the first few.
fn noted() -> Done {
    let program = build()?;
    let (faults, lines) = (faults(&program)?, found()?);
    let missed: Mutex<Vec<String>> = Mutex::default();
    let miss = |text: String| missed.lock().unwrap_or_else(PoisonError::into_inner).push(text);
    in_parallel(0, faults.len() as u64, |number| {
        let (fault, breaks) = &faults[number as usize];
        if let Err(text) = find(&program, fault, breaks, found_by(&lines, fault), NOTED_SEEDS_MAX) {
            miss(text);
        }
    });
    let missed = missed.into_inner().unwrap_or_else(PoisonError::into_inner);
    if missed.is_empty() {
        say(&format!("all {} planted faults found", faults.len()));
        return Ok(());
    }
    Err(format!(
        "{}\n\nrun `cargo xtask sim --planted`: it looks further for a seed that finds it, and notes it in {FOUND}. If \
         there is none, a checker has become blind, or the simulated world does not come there any more.",
        missed.join("\n")
    ))
}

/// Plants each fault, with one seed after the other until one finds it, and notes by which seed each was found.
fn planted() -> Done {
    let program = build()?;
    let (faults, before) = (faults(&program)?, found()?);
    let (found, missed): (Mutex<Vec<_>>, Mutex<Vec<String>>) = Default::default();
    in_parallel(0, faults.len() as u64, |number| {
        let (fault, breaks) = &faults[number as usize];
        match find(&program, fault, breaks, found_by(&before, fault), PLANTED_SEEDS_MAX) {
            Ok(seed) => found.lock().unwrap_or_else(PoisonError::into_inner).push((number, seed)),
            Err(text) => missed.lock().unwrap_or_else(PoisonError::into_inner).push(text),
        }
    });
    let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.sort_unstable();
    // What was found is noted, whatever was not.
    let after: String = found.iter().map(|(number, seed)| format!("{} {seed}\n", faults[*number as usize].0)).collect();
    if after != before {
        let path = root().join(FOUND);
        std::fs::write(&path, after).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    let missed = missed.into_inner().unwrap_or_else(PoisonError::into_inner);
    if missed.is_empty() { Ok(()) } else { Err(missed.join("\n")) }
}

/// The seed by which `fault` was found last, as the lines of [`FOUND`] say.
fn found_by(lines: &str, fault: &str) -> Option<u64> {
    lines.lines().find_map(|line| line.strip_prefix(fault)?.strip_prefix(' ')?.parse().ok())
}

/// Runs seeds with a planted fault, `first` before all others, until one finds what the fault breaks.
fn find(program: &Path, fault: &str, breaks: &[String], first: Option<u64>, most: u64) -> Result<u64, String> {
    for seed in first.into_iter().chain((1..=most).filter(|seed| Some(*seed) != first)) {
        if let Some(text) = simulate(program, seed, &["--plant", fault])?.violates(breaks) {
            say(&format!("{fault}: found by seed {seed}: {text}"));
            return Ok(seed);
        }
    }
    Err(format!("{fault}: planted and not found within {most} seeds"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_has_its_own_seed() {
        let lines = "i-1-hole 3\ni-1-hole-twice 56\n";
        assert_eq!(found_by(lines, "i-1-hole"), Some(3));
        assert_eq!(found_by(lines, "i-1-hole-twice"), Some(56));
        assert_eq!(found_by(lines, "i-2-twice"), None);
    }
}

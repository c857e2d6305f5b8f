//! Checks and chores: `cargo xtask ci` runs all that a change must pass.

mod api;
mod commits;
mod directions;
mod docs;
mod features;
mod floors;
mod lengths;
mod limits;
mod planted;
mod readme;
mod registry;
mod sim;
mod words;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

const USAGE: &str = "usage: cargo xtask <chore>

  ci      everything below but the last, in order
  fmt     check the format
  lint    clippy with warnings denied
  test    all tests, also those of the documentation
  doc     build the documentation with warnings denied
  docs    check the documents against the code, their words, the lengths of sources, and the planted faults
  commits check the subjects of the last commits
  api     the lists of the public API in docs/public-api against the sources; `--write` rewrites them
  features the crates without SQLite, for programs on another store
  bench   the benchmarks at small sizes, so that they keep working
  readme  run the commands of the README
  sim     the simulator: 300 seeds (in `ci` 80, and each planted fault once); `cargo xtask sim --help` tells more
  chaos   clusters of real processes in their long forms, which `ci` has short; a name picks one test";

/// The result of a chore; the text says what to mend.
type Done = Result<(), String>;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned());
    let chore = args.next().unwrap_or_default();
    let args: Vec<String> = args.collect();
    let done = match chore.as_str() {
        "ci" => ci(),
        "fmt" => fmt(),
        "lint" => lint(),
        "test" => test(),
        "doc" => doc(),
        "docs" => docs::check(&root()).and_then(|()| api::check(&root())),
        "api" => api::run(&root(), &args),
        "commits" => commits::check(&root()),
        "features" => features::check(),
        "bench" => bench(),
        "readme" => readme::run(&root()),
        "chaos" => chaos(&args),
        "sim" => sim::run(&args),
        _ => Err(USAGE.to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            say(&text);
            ExitCode::FAILURE
        }
    }
}

fn ci() -> Done {
    fmt()?;
    docs::check(&root())?;
    api::check(&root())?;
    commits::check(&root())?;
    lint()?;
    features::check()?;
    test()?;
    doc()?;
    sim::ci()?;
    bench()?;
    readme::run(&root())
}

fn fmt() -> Done {
    cargo(&["fmt", "--all", "--check"], &[])
}

fn lint() -> Done {
    cargo(&["clippy", "--workspace", "--all-targets", "--all-features", "--locked", "--", "-D", "warnings"], &[])
}

fn test() -> Done {
    cargo(&["test", "--workspace", "--all-features", "--locked"], &[])
}

/// One test after the other: what they ask of the time is not meant for a machine that is busy with another of them.
fn chaos(names: &[String]) -> Done {
    let test = ["test", "--package", "dacapo-example-bank", "--all-features", "--locked", "--test", "cluster"];
    let names = names.iter().map(String::as_str);
    let arguments: Vec<&str> =
        test.into_iter().chain(["--"]).chain(names).chain(["--test-threads=1", "--nocapture"]).collect();
    cargo(&arguments, &[("CHAOS", "long")])
}

fn doc() -> Done {
    let deny = [("RUSTDOCFLAGS", "-D warnings")];
    cargo(&["doc", "--workspace", "--all-features", "--no-deps", "--locked"], &deny)
}

/// Built as the tests are, so that nothing is compiled for it alone: its figures say nothing here.
fn bench() -> Done {
    let build = ["build", "--workspace", "--all-features", "--locked", "--tests", "--bin", "dacapo-bench"];
    cargo(&build, &[])?;
    let mut quick = Command::new(target()?.join("debug/dacapo-bench"));
    quick.arg("--quick").current_dir(root());
    run(quick, "dacapo-bench --quick")
}

fn cargo(arguments: &[&str], environment: &[(&str, &str)]) -> Done {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(arguments).envs(environment.iter().copied()).current_dir(root());
    run(command, &format!("cargo {}", arguments.join(" ")))
}

/// Returns the processor time of the commands that have ended, in seconds; `None` if the system does not tell it.
fn processor_seconds() -> Option<u64> {
    // `cutime` and `cstime` of proc(5), in hundredths of a second on every Linux.
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
    let ticks: u64 = fields.get(13)?.parse::<u64>().ok()? + fields.get(14)?.parse::<u64>().ok()?;
    Some(ticks / 100)
}

/// Runs a command with its output shown, and prints the time that it took.
#[expect(clippy::disallowed_methods, reason = "how long it took is told to whoever waits")]
fn run(mut command: Command, shown: &str) -> Done {
    say(&format!("── {shown}"));
    let (started, before) = (Instant::now(), processor_seconds());
    let status = command.status();
    if let (Some(before), Some(after)) = (before, processor_seconds()) {
        let wall = started.elapsed().as_secs();
        say(&format!("── took {wall} s, and {} s of processor time: {shown}", after - before));
    }
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("`{shown}` ended with {status}")),
        Err(error) => Err(format!("`{shown}` did not start: {error}")),
    }
}

/// Returns the root of the workspace.
fn root() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("xtask lies in the workspace").to_owned()
}

/// Returns the folder of all that cargo builds here. This program is in a folder of it.
fn target() -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|error| format!("where is this program? {error}"))?;
    own.ancestors().nth(2).map(Path::to_owned).ok_or_else(|| format!("{} is in no folder of cargo's", own.display()))
}

#[expect(clippy::print_stderr, reason = "a chore talks to whoever runs it")]
fn say(text: &str) {
    eprintln!("{text}");
}

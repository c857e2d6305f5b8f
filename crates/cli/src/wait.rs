//! Waiting for a rebuild or a flip, and showing how it goes. Whoever stops waiting stops nothing: what
//! was asked for is in the catalog.

use std::collections::BTreeSet;
use std::future::Future;
use std::time::Duration;

use dacapo_api::{
    Api, ApiError, FlipRequest, FlipResponse, Problem, ReplayRequest, ReplayResponse, Status, VersionStatus, WaitingOn,
};
use indicatif::ProgressBar;

use crate::error::CliError;
use crate::numbers::{count, duration, rate};
use crate::progress;

const POLL_PAUSE: Duration = Duration::from_millis(250);
const FLIP_WAIT_MS: u64 = 1_000;
const FLIP_WAIT_FIRST_MS: u64 = 250;
/// How many calls in a row may fail while waiting: a node may be restarted meanwhile.
const TRIES_MAX: u32 = 60;

/// Where readers are moved.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Direction {
    Flip,
    Rollback,
}

impl Direction {
    /// Asks for it once.
    pub async fn ask(self, api: &dyn Api, projection: &str, request: FlipRequest) -> Result<FlipResponse, ApiError> {
        match self {
            Self::Flip => api.flip(projection, request).await,
            Self::Rollback => api.rollback(projection, request).await,
        }
    }
}

/// Waits, unless the user leaves with Ctrl-C: what was asked for goes on all the same, of which they are told. `local`:
/// it is done by a node in this process, and goes on with the next one.
pub(crate) async fn or_left<T>(
    waiting: impl Future<Output = Result<T, CliError>>,
    what: &str,
    local: bool,
) -> Result<T, CliError> {
    tokio::select! {
        biased;
        done = waiting => done,
        _ = tokio::signal::ctrl_c() => {
            let goes_on = if local { "goes on when a node has this directory open" } else { "goes on" };
            let problem = Problem::new("left", format!("nobody waits any more; {what} {goes_on}"));
            Err(problem.help("`dacapo status` shows how far it is, `dacapo cancel` gives it up").into())
        }
    }
}

/// Asks for a flip until it has happened. Each try carries the key of the first, so only one is made.
pub(crate) async fn until_flipped(
    api: &dyn Api,
    projection: &str,
    direction: Direction,
    mut request: FlipRequest,
) -> Result<FlipResponse, CliError> {
    let bar = progress::endless();
    bar.enable_steady_tick(POLL_PAUSE);
    // What it waits on is told soon; from then on each answer may take its time.
    request.wait_ms = Some(FLIP_WAIT_FIRST_MS);
    let (mut asked, mut told) = (false, Told::default());
    let mut failures = 0;
    loop {
        match direction.ask(api, projection, request.clone()).await {
            Ok(answer) if answer.flipped => return Ok(answer),
            Ok(answer) => {
                if let Some(reason) = answer.waiting_on.iter().find(|reason| reason.kind == "verdict") {
                    return Err(not_right(projection, &answer.to, &reason.text).into());
                }
                (asked, failures) = (true, 0);
                let reasons: Vec<&str> = answer.waiting_on.iter().map(|reason| reason.text.as_str()).collect();
                progress::say(&bar, &format!("{} to {}: waits on {}", answer.kind, answer.to, reasons.join("; ")));
                told.of(&bar, projection, &answer.to, &answer.waiting_on);
                (request.to, request.wait_ms) = (Some(answer.to), Some(FLIP_WAIT_MS));
            }
            Err(error) => {
                failures += 1;
                if !asked || !error.is_transient() || failures >= TRIES_MAX {
                    return Err(error.into());
                }
                progress::say(&bar, &format!("{error}; asking again"));
            }
        }
        // A node that answers at once must not be asked in a circle.
        tokio::time::sleep(POLL_PAUSE).await;
    }
}

/// What somebody can do about something that does not come by itself; nothing for what does.
pub(crate) fn help(projection: &str, version: &str, kind: &str) -> Option<String> {
    Some(match kind {
        "paused" => format!("`dacapo resume {projection} {version}`"),
        "letters" => format!(
            "see `dacapo letters {projection} --version {version}`, then retry or drop some; where the code is wrong, fix \
             it, raise its version and start the node with it"
        ),
        "code" => format!("start the node with that code; or `dacapo rebuild {projection}` with the code that it has"),
        "seed" => format!("do what it says; or `dacapo rebuild {projection}`, which reads the past instead"),
        "handler" | "reset" => format!(
            "once what was down is up again, `dacapo resume {projection} {version}`; where the code is wrong, fix it, \
             raise its version and start the node with it"
        ),
        _ => return None,
    })
}

/// The kinds of reasons that were told already.
#[derive(Default)]
struct Told(BTreeSet<String>);

impl Told {
    /// Tells, once each, what does not come by itself and what somebody can do about it. A line of its own stays to be
    /// read, also where there is no terminal.
    fn of(&mut self, bar: &ProgressBar, projection: &str, version: &str, reasons: &[WaitingOn]) {
        for reason in reasons {
            let Some(help) = help(projection, version, &reason.kind) else { continue };
            if self.0.insert(reason.kind.clone()) {
                progress::line(bar, &format!("{projection} {version} waits on {}; {help}", reason.text));
            }
        }
    }
}

/// Asks for a replay until it has ended. Each try carries the key of the first, so only one is made.
pub(crate) async fn until_replayed(
    api: &dyn Api,
    projection: &str,
    mut request: ReplayRequest,
) -> Result<ReplayResponse, CliError> {
    let bar = progress::endless();
    bar.enable_steady_tick(POLL_PAUSE);
    request.wait_ms = Some(FLIP_WAIT_MS);
    let (mut asked, mut failures) = (false, 0);
    loop {
        match api.replay(projection, request.clone()).await {
            Ok(answer) if answer.ended => return Ok(answer),
            Ok(answer) => {
                (asked, failures) = (true, 0);
                let reasons: Vec<&str> = answer.waiting_on.iter().map(|reason| reason.text.as_str()).collect();
                progress::say(&bar, &format!("replay of {}: waits on {}", answer.version, reasons.join("; ")));
            }
            Err(error) => {
                failures += 1;
                if !asked || !error.is_transient() || failures >= TRIES_MAX {
                    return Err(error.into());
                }
                progress::say(&bar, &format!("{error}; asking again"));
            }
        }
        tokio::time::sleep(POLL_PAUSE).await;
    }
}

/// Waits until a version serves, or is ready and waits for the command to flip, and tells which.
pub(crate) async fn until_built(api: &dyn Api, projection: &str, version: &str) -> Result<String, CliError> {
    let bar = progress::told(0);
    let mut failures = 0;
    loop {
        match api.status().await {
            Ok(status) => {
                failures = 0;
                let found = version_in(&status, projection, version)?;
                show(&bar, &status, found);
                if let Some(end) = end(projection, found)? {
                    bar.finish_and_clear();
                    return Ok(end);
                }
            }
            Err(error) => {
                failures += 1;
                if !error.is_transient() || failures >= TRIES_MAX {
                    return Err(error.into());
                }
                progress::say(&bar, &format!("{error}; asking again"));
            }
        }
        tokio::time::sleep(POLL_PAUSE).await;
    }
}

fn version_in<'a>(status: &'a Status, projection: &str, version: &str) -> Result<&'a VersionStatus, CliError> {
    let found = status.projections.iter().find(|found| found.name == projection);
    let found = found.and_then(|found| found.versions.iter().find(|found| found.version == version));
    found.ok_or_else(|| {
        let problem = Problem::new("version_gone", format!("{projection} {version} is gone"));
        let help = format!("`dacapo phases {projection}` tells what happened to it");
        problem.tried(format!("wait until {version} is built")).help(help).into()
    })
}

fn show(bar: &ProgressBar, status: &Status, version: &VersionStatus) {
    bar.set_length(status.node.head);
    // What is applied and not committed yet, of a batch that takes long, counts as well.
    bar.set_position(version.reached.or(version.covers).unwrap_or(0));
    let stage = version.stage.as_ref().unwrap_or(&version.phase);
    bar.set_prefix(format!("{} {stage}", version.version));
    let mut parts = vec![];
    parts.extend(version.lag.filter(|lag| *lag > 0).map(|lag| format!("{} behind", count(lag))));
    parts.extend(version.rate.map(rate));
    match (&version.stall, version.waiting_on.first(), &version.time_left) {
        (Some(stall), ..) => parts.push(stall.text.clone()),
        (None, Some(reason), _) => parts.push(format!("waits on {}", reason.text)),
        (None, None, Some(left)) => parts.push(format!("{} left", duration(left.seconds))),
        (None, None, None) => parts.extend(version.no_time_left.clone()),
    }
    progress::say(bar, &parts.join(", "));
}

/// A version that somebody must do something about before readers can move to it.
fn not_right(projection: &str, version: &str, waits_on: &str) -> Problem {
    let message = format!("{projection} {version} was not found right, so readers do not move to it");
    let found = format!("it waits on {waits_on}");
    Problem::new("not_right", message).found(found).help(format!("`dacapo verify {projection}` shows what was found"))
}

/// What to say once there is nothing more to wait for.
fn end(projection: &str, version: &VersionStatus) -> Result<Option<String>, CliError> {
    let name = &version.version;
    let for_command = version.waiting_on.iter().any(|reason| reason.kind == "flip_command");
    match version.phase.as_str() {
        "Serving" => Ok(Some(format!("{projection}: {name} serves"))),
        "Scheduled" | "Initializing" if for_command => {
            Ok(Some(format!("{projection}: {name} is ready; `dacapo flip {projection}` moves readers to it")))
        }
        "Scheduled" | "Initializing" => match version.waiting_on.iter().find(|reason| reason.kind == "verdict") {
            Some(reason) => Err(not_right(projection, name, &reason.text).into()),
            None => Ok(None),
        },
        phase => {
            let problem = Problem::new("not_built", format!("{projection} {name} will not serve: it is {phase}"));
            let mut problem = problem.tried(format!("wait until {name} is built"));
            problem.found = version.reason.clone();
            Err(problem.help(format!("`dacapo phases {projection}` tells what happened to it")).into())
        }
    }
}

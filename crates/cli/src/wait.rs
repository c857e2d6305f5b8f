//! Waiting for a rebuild or a flip, with its progress. The end of the wait stops nothing: the request is in the
//! catalog.

use std::collections::BTreeSet;
use std::future::Future;

use dacapo_api::{
    Api, ApiError, FlipRequest, FlipResponse, Problem, ReplayRequest, ReplayResponse, Status, VersionStatus, WaitingOn,
};
use indicatif::ProgressBar;

use crate::error::CliError;
use crate::limits;
use crate::numbers::{count, duration, rate};
use crate::progress;

/// The direction in which readers are moved.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Direction {
    Flip,
    Rollback,
}

impl Direction {
    /// Requests it once.
    pub async fn ask(self, api: &dyn Api, projection: &str, request: FlipRequest) -> Result<FlipResponse, ApiError> {
        match self {
            Self::Flip => api.flip(projection, request).await,
            Self::Rollback => api.rollback(projection, request).await,
        }
    }
}

/// Waits until the end, or until the user leaves with Ctrl-C. The request then continues, and the user is told so.
/// `local`: a node in this process carries it out, and the next one continues it.
pub(crate) async fn or_left<T>(
    waiting: impl Future<Output = Result<T, CliError>>,
    what: &str,
    local: bool,
) -> Result<T, CliError> {
    tokio::select! {
        biased;
        done = waiting => done,
        _ = tokio::signal::ctrl_c() => {
            let goes_on = if local { "continues when a node has this directory open" } else { "continues" };
            let problem = Problem::new("left", format!("the wait has ended; {what} {goes_on}"));
            Err(problem.help("`dacapo status` shows its progress, `dacapo cancel` cancels it").into())
        }
    }
}

/// Calls the flip until it has happened. Each try carries the key of the first, so only one flip is made.
pub(crate) async fn until_flipped(
    api: &dyn Api,
    projection: &str,
    direction: Direction,
    mut request: FlipRequest,
) -> Result<FlipResponse, CliError> {
    let bar = progress::endless();
    bar.enable_steady_tick(limits::POLL_PAUSE);
    // The first answer with its reasons comes soon. From then on each answer may take its time.
    request.wait_ms = Some(limits::WAIT_FIRST_MS);
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
                (request.to, request.wait_ms) = (Some(answer.to), Some(limits::WAIT_MS));
            }
            Err(error) => {
                failures += 1;
                if !asked || !error.is_transient() || failures >= limits::CALLS_FAILED_MAX {
                    return Err(error.into());
                }
                progress::say(&bar, &format!("{error}; asking again"));
            }
        }
        // A node that answers at once must not be asked in a loop.
        tokio::time::sleep(limits::POLL_PAUSE).await;
    }
}

/// Returns the advice for an operator about a reason; `None` if it passes by itself or its text has the advice.
pub(crate) fn help(projection: &str, version: &str, reason: &WaitingOn) -> Option<String> {
    Some(match reason.kind.as_str() {
        "paused" => format!("`dacapo resume {projection} --version {version}`"),
        "letters" => format!(
            "see `dacapo letters {projection} --version {version}`, then retry or drop some; where the code is wrong, fix \
             it, raise its version and start the node with it"
        ),
        "code" => format!("start the node with that code; or `dacapo rebuild {projection}` with the code that it has"),
        "seed" => format!("correct the cause; or `dacapo rebuild {projection}`, which reads the past instead"),
        "handler" => {
            let event = reason.fields.get("position").map_or("N".to_owned(), ToString::to_string);
            format!(
                "{}; where the event is wrong, `dacapo letters set-aside {projection} --version {version} --event {event} \
                 --reason …`",
                repaired(projection, version)
            )
        }
        "reset" => repaired(projection, version),
        _ => return None,
    })
}

/// Returns what an operator can do if code of the version fails.
pub(crate) fn repaired(projection: &str, version: &str) -> String {
    format!(
        "once what was down is up again, `dacapo resume {projection} --version {version}`; where the code is wrong, fix it, raise \
         its version and start the node with it"
    )
}

/// The kinds of reasons that were printed already.
#[derive(Default)]
struct Told(BTreeSet<String>);

impl Told {
    /// Prints, once for each kind, the reasons that do not pass by themselves and what an operator can do about them.
    /// A line of its own stays visible, also without a terminal.
    fn of(&mut self, bar: &ProgressBar, projection: &str, version: &str, reasons: &[WaitingOn]) {
        for reason in reasons {
            let Some(help) = help(projection, version, reason) else { continue };
            if self.0.insert(reason.kind.clone()) {
                progress::line(bar, &format!("{projection} {version} waits on {}; {help}", reason.text));
            }
        }
    }
}

/// Calls the replay until it has ended. Each try carries the key of the first, so only one replay is made.
pub(crate) async fn until_replayed(
    api: &dyn Api,
    projection: &str,
    mut request: ReplayRequest,
) -> Result<ReplayResponse, CliError> {
    let bar = progress::endless();
    bar.enable_steady_tick(limits::POLL_PAUSE);
    request.wait_ms = Some(limits::WAIT_MS);
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
                if !asked || !error.is_transient() || failures >= limits::CALLS_FAILED_MAX {
                    return Err(error.into());
                }
                progress::say(&bar, &format!("{error}; asking again"));
            }
        }
        tokio::time::sleep(limits::POLL_PAUSE).await;
    }
}

/// Waits until a version serves, or is ready and waits for the command `flip`, and returns the text about it.
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
                if !error.is_transient() || failures >= limits::CALLS_FAILED_MAX {
                    return Err(error.into());
                }
                progress::say(&bar, &format!("{error}; asking again"));
            }
        }
        tokio::time::sleep(limits::POLL_PAUSE).await;
    }
}

fn version_in<'a>(status: &'a Status, projection: &str, version: &str) -> Result<&'a VersionStatus, CliError> {
    let found = status.projections.iter().find(|found| found.name == projection);
    let found = found.and_then(|found| found.versions.iter().find(|found| found.version == version));
    found.ok_or_else(|| {
        let problem = Problem::new("version_gone", format!("{projection} {version} is gone"));
        let help = format!("`dacapo phases {projection}` shows its history");
        problem.tried(format!("wait until {version} is built")).help(help).into()
    })
}

fn show(bar: &ProgressBar, status: &Status, version: &VersionStatus) {
    bar.set_length(status.node.head);
    // Events that are applied and not committed yet, in a batch that takes long, count as well.
    bar.set_position(version.reached.or(version.covers).unwrap_or(0));
    let stage = version.stage.as_ref().unwrap_or(&version.phase);
    bar.set_prefix(format!("{} {stage}", version.version));
    let mut parts = vec![];
    parts.extend(version.lag.filter(|lag| *lag > 0).map(|lag| format!("lag {}", count(lag))));
    parts.extend(version.rate.map(rate));
    match (&version.stall, version.waiting_on.first(), &version.time_left) {
        (Some(stall), ..) => parts.push(stall.text.clone()),
        (None, Some(reason), _) => parts.push(format!("waits on {}", reason.text)),
        (None, None, Some(left)) => parts.push(format!("{} left", duration(left.seconds))),
        (None, None, None) => parts.extend(version.no_time_left.clone()),
    }
    progress::say(bar, &parts.join(", "));
}

/// Returns the error about a version that needs an operator before readers can move to it.
fn not_right(projection: &str, version: &str, waits_on: &str) -> Problem {
    let message = format!("{projection} {version} did not pass its verification, so readers do not move to it");
    let found = format!("it waits on {waits_on}");
    Problem::new("not_right", message).found(found).help(format!("`dacapo verify {projection}` shows the report"))
}

/// Returns the text for the end of the wait.
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
            Err(problem.help(format!("`dacapo phases {projection}` shows its history")).into())
        }
    }
}

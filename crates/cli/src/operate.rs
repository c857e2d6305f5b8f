//! Commands that operate projections.

use clap::Subcommand;
use dacapo::world::{Ids, SystemIds};
use dacapo_api::{Asked, CancelRequest, CleanUpRequest, FlipRequest, FlipResponse, RebuildRequest, ReplayRequest};

use crate::args::{Target, Who};
use crate::error::CliError;
use crate::numbers::count;
use crate::output::Out;
use crate::wait::{self, Direction};
use crate::{connect, given};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Build a new version of a projection beside the serving one
    Rebuild(Rebuild),
    /// Move readers to a later version
    Flip(Flip),
    /// Move readers back to the version that served before
    #[command(mut_arg("version", |arg| arg.help("Back to this version, such as v1.1. Default: the one that served last")))]
    Rollback(Flip),
    /// Replay past events through a version again, in its own view, if its projection supports it
    Replay(Replay),
    /// Drop the view of a version that does not serve
    Cleanup(Cleanup),
    /// Cancel a request that has not happened yet: a flip, a rebuild, a clean-up, a replay in place
    Cancel(Cancel),
}

impl Command {
    /// Returns true if the answer, and any error, is to be JSON.
    pub fn says_json(&self) -> bool {
        match self {
            Self::Rebuild(args) => args.who.json,
            Self::Flip(args) | Self::Rollback(args) => args.who.json,
            Self::Replay(args) => args.who.json,
            Self::Cleanup(args) => args.who.json,
            Self::Cancel(args) => args.who.json,
        }
    }

    /// Carries it out.
    pub async fn run(self, out: &mut Out) -> Result<(), CliError> {
        match self {
            Self::Rebuild(args) => rebuild(out, args).await,
            Self::Flip(args) => move_readers(out, args, Direction::Flip).await,
            Self::Rollback(args) => move_readers(out, args, Direction::Rollback).await,
            Self::Replay(args) => replay(out, args).await,
            Self::Cleanup(args) => clean_up(out, args).await,
            Self::Cancel(args) => cancel(out, args).await,
        }
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct Rebuild {
    /// The projection
    #[arg(value_parser = given::projection)]
    pub projection: String,
    /// The code version. Default: the newest that is carried
    #[arg(long, value_name = "N", value_parser = given::number::<u32>)]
    pub code: Option<u32>,
    /// Begin as a copy of the view that serves, as the code says, and read only later events
    #[arg(long)]
    pub from_copy: bool,
    /// Replace a version that is ready and only needs a flip
    #[arg(long)]
    pub discard: bool,
    /// Wait until the new version serves, or is ready and waits for the command `flip`
    #[arg(long)]
    pub wait: bool,
    #[command(flatten)]
    pub who: Who,
    #[command(flatten)]
    pub target: Target,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Flip {
    /// The projection
    #[arg(value_parser = given::projection)]
    pub projection: String,
    /// The version to serve, such as v2.1. Default: the newest above the serving one
    #[arg(long, alias = "to", value_name = "VERSION", value_parser = given::version)]
    pub version: Option<String>,
    /// Wait until it has happened
    #[arg(long)]
    pub wait: bool,
    #[command(flatten)]
    pub who: Who,
    #[command(flatten)]
    pub target: Target,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Replay {
    /// The projection
    #[arg(value_parser = given::projection)]
    pub projection: String,
    #[command(flatten)]
    pub from: ReplayFrom,
    /// The version, such as v1.1. Default: the one that serves
    #[arg(long, alias = "of", value_name = "VERSION", value_parser = given::version)]
    pub version: Option<String>,
    /// Wait for its end
    #[arg(long)]
    pub wait: bool,
    #[command(flatten)]
    pub who: Who,
    #[command(flatten)]
    pub target: Target,
}

/// The beginning of a replay. The event that it names is replayed too.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub(crate) struct ReplayFrom {
    /// Begin with the event at this position
    #[arg(long = "from", value_name = "POSITION", value_parser = given::number::<u64>)]
    pub position: Option<u64>,
    /// Begin with the first event recorded at this time or later, such as 2026-03-01T12:00:00Z
    #[arg(long = "from-time", value_name = "TIME", value_parser = given::time)]
    pub time: Option<String>,
    /// Begin with this event
    #[arg(long = "from-event", value_name = "UUID", value_parser = given::event_id)]
    pub event: Option<String>,
    /// Begin with the first event of the journal
    #[arg(long = "from-start")]
    pub start: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Cleanup {
    /// The projection
    #[arg(value_parser = given::projection)]
    pub projection: String,
    /// The version, such as v1.1
    #[arg(long, value_name = "VERSION", value_parser = given::version)]
    pub version: String,
    #[command(flatten)]
    pub who: Who,
    #[command(flatten)]
    pub target: Target,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Cancel {
    /// The projection
    #[arg(value_parser = given::projection)]
    pub projection: String,
    /// The change to cancel. Default: the only one that can be cancelled
    pub what: Option<CancelWhat>,
    /// The version, such as v2.1. Default: the only one for which it can be cancelled
    #[arg(long, value_name = "VERSION", value_parser = given::version)]
    pub version: Option<String>,
    #[command(flatten)]
    pub who: Who,
    #[command(flatten)]
    pub target: Target,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum CancelWhat {
    /// The requested flip
    Flip,
    /// The building of a version that has not served; its view is dropped
    Rebuild,
    /// The clean-up of a version whose view is not being dropped yet
    Cleanup,
    /// The replay in place
    Replay,
}

/// Returns the place of a request in the catalog, in words. It has none if nothing had to change.
pub(crate) fn when(requested: Option<u64>) -> String {
    requested.map_or_else(|| " already".to_owned(), |position| format!(" at position {}", count(position)))
}

/// `dacapo rebuild`.
async fn rebuild(out: &mut Out, args: Rebuild) -> Result<(), CliError> {
    let json = args.who.json;
    let request =
        RebuildRequest { code: args.code, from_copy: args.from_copy, discard: args.discard, asked: asked(args.who) };
    let (projection, wait, local) = (args.projection, args.wait, args.target.data.is_some());
    connect::with(&args.target, |api| async move {
        let built = api.rebuild(&projection, request).await?;
        if json {
            out.json(&built)?;
        } else {
            out.line(format_args!("{projection} {} scheduled{}", built.version, when(built.requested)))?;
            for version in &built.discards {
                out.line(format_args!("{projection} {version} is discarded: the new version replaces it"))?;
            }
        }
        out.flush()?;
        if !wait {
            return Ok(());
        }
        let what = format!("the rebuild of {projection} {}", built.version);
        let end = wait::or_left(wait::until_built(&*api, &projection, &built.version), &what, local).await?;
        if !json {
            out.line(end)?;
        }
        out.flush()
    })
    .await
}

/// `dacapo flip` and `dacapo rollback`.
async fn move_readers(out: &mut Out, args: Flip, direction: Direction) -> Result<(), CliError> {
    let json = args.who.json;
    let request = FlipRequest { to: args.version, wait_ms: None, asked: asked(args.who) };
    let (projection, wait, local) = (args.projection, args.wait, args.target.data.is_some());
    connect::with(&args.target, |api| async move {
        let answer = if wait {
            let what = format!("the request for {projection}");
            let flipped = wait::until_flipped(&*api, &projection, direction, request);
            wait::or_left(flipped, &what, local).await?
        } else {
            direction.ask(&*api, &projection, request).await?
        };
        if json {
            out.json(&answer)?;
            return out.flush();
        }
        out.text(&outcome(&answer))?;
        out.flush()
    })
    .await
}

/// Returns the result of a flip, in words.
fn outcome(answer: &FlipResponse) -> String {
    let FlipResponse { projection, kind, to, requested, waiting_on, .. } = answer;
    if !answer.flipped {
        let mut text = format!("{projection}: {kind} to {to} requested at position {}\n", count(*requested));
        waiting_on.iter().for_each(|reason| text.push_str(&format!("  waits on {}\n", reason.text)));
        return text;
    }
    let mut text = format!("{projection}: {to} serves");
    if let Some(position) = answer.position {
        text.push_str(&format!(" since position {}", count(position)));
    }
    if let Some(covers) = answer.covers {
        text.push_str(&format!(", it covers {}", count(covers)));
    }
    if let (Some(from), Some(pause)) = (&answer.from, answer.pause_ms) {
        let pause = if pause == 0 { "less than 1 ms".to_owned() } else { format!("{pause} ms") };
        text.push_str(&format!("; {from} was held for {pause}"));
    }
    text.push('\n');
    text
}

/// `dacapo replay`.
async fn replay(out: &mut Out, args: Replay) -> Result<(), CliError> {
    let ReplayFrom { position, time, event, start } = args.from;
    let json = args.who.json;
    let request = ReplayRequest {
        version: args.version,
        from: position,
        from_time: time,
        from_event: event,
        from_start: start,
        wait_ms: None,
        asked: asked(args.who),
    };
    let (projection, wait, local) = (args.projection, args.wait, args.target.data.is_some());
    connect::with(&args.target, |api| async move {
        let answer = match wait {
            true => {
                let what = format!("the replay of {projection}");
                wait::or_left(wait::until_replayed(&*api, &projection, request), &what, local).await?
            }
            false => api.replay(&projection, request).await?,
        };
        if json {
            out.json(&answer)?;
            return out.flush();
        }
        let (version, requested) = (&answer.version, when(answer.requested));
        match answer.position {
            Some(ended) => {
                let ended = count(ended);
                out.line(format_args!("{projection}: the replay of {version} ended at position {ended}"))?;
            }
            None => {
                out.line(format_args!("{projection}: replay of {version} requested{requested}"))?;
                answer.waiting_on.iter().try_for_each(|reason| out.line(format_args!("  waits on {}", reason.text)))?;
            }
        }
        out.flush()
    })
    .await
}

/// `dacapo cleanup`.
async fn clean_up(out: &mut Out, args: Cleanup) -> Result<(), CliError> {
    let json = args.who.json;
    let request = CleanUpRequest { asked: asked(args.who) };
    let (projection, version) = (args.projection, args.version);
    connect::with(&args.target, |api| async move {
        let answer = api.clean_up(&projection, &version, request).await?;
        if json {
            out.json(&answer)?;
            return out.flush();
        }
        out.line(format_args!("{projection} {}: clean-up requested{}", answer.version, when(answer.requested)))?;
        out.flush()
    })
    .await
}

/// `dacapo cancel`.
async fn cancel(out: &mut Out, args: Cancel) -> Result<(), CliError> {
    let what = args.what.map(|what| match what {
        CancelWhat::Flip => "flip",
        CancelWhat::Rebuild => "rebuild",
        CancelWhat::Cleanup => "clean_up",
        CancelWhat::Replay => "replay",
    });
    let json = args.who.json;
    let request = CancelRequest { what: what.map(str::to_owned), version: args.version, asked: asked(args.who) };
    let projection = args.projection;
    connect::with(&args.target, |api| async move {
        let answer = api.cancel(&projection, request).await?;
        if json {
            out.json(&answer)?;
            return out.flush();
        }
        let what = match answer.what.as_str() {
            "flip" => "flip to",
            "rebuild" => "rebuild of",
            "clean_up" => "clean-up of",
            "replay" => "replay of",
            other => other,
        };
        let version = &answer.version;
        out.line(match answer.requested {
            Some(position) => format!("{projection}: {what} {version} cancelled at position {}", count(position)),
            None => format!("{projection}: {what} {version} had already been cancelled"),
        })?;
        out.flush()
    })
    .await
}

/// Returns a time in RFC 3339 without its fraction, for which a table has no room.
pub(crate) fn to_the_second(time: &str) -> String {
    match time.split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => time.to_owned(),
    }
}

/// Returns the caller and the reason, with a key that makes a retry safe.
pub(crate) fn asked(who: Who) -> Asked {
    let key = who.key.unwrap_or_else(|| SystemIds.next().to_string());
    Asked { actor: who.actor, reason: who.reason, idempotency_key: Some(key) }
}

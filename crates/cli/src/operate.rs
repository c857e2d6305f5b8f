//! Commands that operate projections.

use std::sync::Arc;

use comfy_table::CellAlignment;
use dacapo::world::{Ids, SystemIds};
use dacapo_api::{
    Api, Asked, CleanUpRequest, FlipRequest, FlipResponse, HistoryEntry, PhasesRequest, RebuildRequest, ReplayRequest,
};

use crate::args::{Target, Who};
use crate::error::CliError;
use crate::numbers::count;
use crate::output::{Out, lines_of, narrow};
use crate::shown::shown;
use crate::wait::{self, Direction};
use crate::{connect, given};

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
pub(crate) struct Phases {
    /// Only this projection
    #[arg(value_parser = given::projection)]
    pub projection: Option<String>,
    /// Print one JSON object a line
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub target: Target,
}

/// Returns the place of a request in the catalog, in words. It has none if nothing had to change.
pub(crate) fn when(requested: Option<u64>) -> String {
    requested.map_or_else(|| " already".to_owned(), |position| format!(" at position {}", count(position)))
}

/// `dacapo rebuild`.
pub(crate) async fn rebuild(out: &mut Out, args: Rebuild) -> Result<(), CliError> {
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

/// `dacapo flip`.
pub(crate) async fn flip(out: &mut Out, args: Flip) -> Result<(), CliError> {
    move_readers(out, args, Direction::Flip).await
}

/// `dacapo rollback`.
pub(crate) async fn rollback(out: &mut Out, args: Flip) -> Result<(), CliError> {
    move_readers(out, args, Direction::Rollback).await
}

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
pub(crate) async fn replay(out: &mut Out, args: Replay) -> Result<(), CliError> {
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
pub(crate) async fn clean_up(out: &mut Out, args: Cleanup) -> Result<(), CliError> {
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

/// `dacapo phases`.
pub(crate) async fn phases(out: &mut Out, args: Phases) -> Result<(), CliError> {
    let (named, projection, json) = (args.projection.is_some(), args.projection, args.json);
    connect::look(&args.target, |api| async move {
        let history = whole_history(api, projection).await?;
        if json {
            history.iter().try_for_each(|entry| out.json(entry))?;
            return out.flush();
        }
        if history.is_empty() {
            out.line("nothing has happened yet")?;
            return out.flush();
        }
        out.text(&happened(out, history, named))?;
        out.flush()
    })
    .await
}

/// Returns the history as a table; the projection is left out where it was named.
fn happened(out: &Out, history: Vec<HistoryEntry>, named: bool) -> String {
    let mut header = vec!["POSITION", "TIME", "PROJECTION", "WHAT HAPPENED", "ACTOR", "REASON"];
    header.retain(|column| !named || *column != "PROJECTION");
    let mut table = out.table(&header);
    narrow(&mut table, 0..=0, CellAlignment::Right);
    narrow(&mut table, 1..=1, CellAlignment::Left);
    for entry in history {
        let mut row = vec![count(entry.position), to_the_second(&entry.time)];
        row.extend((!named).then_some(entry.projection));
        let theirs = [entry.text, entry.actor.unwrap_or_default(), entry.reason.unwrap_or_default()];
        row.extend(theirs.map(|text| shown(&text).into_owned()));
        table.add_row(row);
    }
    lines_of(&table)
}

/// Returns a time in RFC 3339 without its fraction, for which a table has no room.
pub(crate) fn to_the_second(time: &str) -> String {
    match time.split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => time.to_owned(),
    }
}

async fn whole_history(api: Arc<dyn Api>, projection: Option<String>) -> Result<Vec<HistoryEntry>, CliError> {
    let mut history = vec![];
    let mut request = PhasesRequest { projection, after: 0, limit: None };
    loop {
        let page = api.phases(request.clone()).await?;
        let moved = page.through > request.after;
        history.extend(page.history);
        if !page.more || !moved {
            return Ok(history);
        }
        request.after = page.through;
    }
}

/// Returns the caller and the reason, with a key that makes a retry safe.
pub(crate) fn asked(who: Who) -> Asked {
    let key = who.key.unwrap_or_else(|| SystemIds.next().to_string());
    Asked { actor: who.actor, reason: who.reason, idempotency_key: Some(key) }
}

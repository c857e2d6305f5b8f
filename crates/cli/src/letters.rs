//! `dacapo letters`, `pause` and `resume`: the treatment of events that handlers refuse.

use std::num::NonZeroU32;

use clap::Subcommand;
use comfy_table::CellAlignment;
use dacapo_api::{
    Letter, LettersRequest, LettersResponse, PauseRequest, Problem, SetAsideRequest, SettleRequest, SettleResponse,
};

use crate::args::{Target, Who};
use crate::error::CliError;
use crate::limits;
use crate::numbers::{count, counted};
use crate::operate::{asked, to_the_second, when};
use crate::output::{Out, lines_of, narrow};
use crate::shown::cut;
use crate::{connect, effects, given};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Stop applying events to a version until it is resumed
    Pause(Pause),
    /// Apply events to a version again, and retry at once what its handler refused
    #[command(mut_arg("version", |arg| arg.help("The version, such as v1.1; where absent, the one that is paused")))]
    Resume(Pause),
    /// List the events that a version has set aside, or effects that fail; retry or drop them
    #[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
    Letters(Letters),
}

impl Command {
    /// Returns true if the answer, and any error, is to be JSON.
    pub fn says_json(&self) -> bool {
        match self {
            Self::Pause(args) | Self::Resume(args) => args.who.json,
            Self::Letters(args) => match &args.settle {
                Some(Settle::Retry(args) | Settle::Drop(args)) => args.who.json,
                Some(Settle::SetAside(args)) => args.who.json,
                None => args.list.json,
            },
        }
    }

    /// Carries it out.
    pub async fn run(self, out: &mut Out) -> Result<(), CliError> {
        match self {
            Self::Pause(args) => order(out, args, true).await,
            Self::Resume(args) => order(out, args, false).await,
            Self::Letters(args) => letters(out, args).await,
        }
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct Pause {
    /// The projection
    #[arg(value_parser = given::projection)]
    pub projection: String,
    /// The version, such as v1.1. Default: the only one there is
    #[arg(long, value_name = "VERSION", value_parser = given::version)]
    pub version: Option<String>,
    #[command(flatten)]
    pub who: Who,
    #[command(flatten)]
    pub target: Target,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Letters {
    #[command(subcommand)]
    pub settle: Option<Settle>,
    #[command(flatten)]
    pub list: ListLetters,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Settle {
    /// Hand events that were set aside to the handler again, in the order of their streams
    Retry(SettleLetters),
    /// Drop events that were set aside: the view does without them
    Drop(SettleLetters),
    /// Set aside the event at which a segment halts, so that the segment continues
    #[command(mut_arg("reason", |arg| arg.required(true)))]
    SetAside(SetAside),
}

#[derive(Debug, clap::Args)]
pub(crate) struct ListLetters {
    /// The projection
    #[arg(required = true, value_parser = given::projection)]
    pub projection: Option<String>,
    /// The version, such as v1.1. Default: the only one that has any
    #[arg(long, value_name = "VERSION", value_parser = given::version)]
    pub version: Option<String>,
    /// List failed effects instead of events
    #[arg(long)]
    pub effects: bool,
    /// Only events after this position; for effects, only those after this number
    #[arg(long, value_name = "N", value_parser = given::number::<u64>)]
    pub after: Option<u64>,
    /// Most letters to list
    #[arg(long, value_name = "N", value_parser = given::number::<NonZeroU32>)]
    pub limit: Option<NonZeroU32>,
    /// Print one JSON object a line
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub target: Target,
}

#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("which").required(true).args(["event", "stream", "all"])))]
pub(crate) struct SettleLetters {
    /// The projection
    #[arg(value_parser = given::projection)]
    pub projection: String,
    /// The version, such as v1.1. Default: the only one that has any
    #[arg(long, value_name = "VERSION", value_parser = given::version)]
    pub version: Option<String>,
    /// The event at this position
    #[arg(long, value_name = "N", value_parser = given::within(1..=u64::MAX))]
    pub event: Option<u64>,
    /// The events of this stream
    #[arg(long, value_name = "STREAM", value_parser = given::stream)]
    pub stream: Option<String>,
    /// All events
    #[arg(long)]
    pub all: bool,
    /// Failed effects instead of events
    #[arg(long)]
    pub effects: bool,
    #[command(flatten)]
    pub who: Who,
    #[command(flatten)]
    pub target: Target,
}

#[derive(Debug, clap::Args)]
pub(crate) struct SetAside {
    /// The projection
    #[arg(value_parser = given::projection)]
    pub projection: String,
    /// The version, such as v1.1. Default: the only one that halts there
    #[arg(long, value_name = "VERSION", value_parser = given::version)]
    pub version: Option<String>,
    /// The event at this position
    #[arg(long, value_name = "N", value_parser = given::within(1..=u64::MAX))]
    pub event: u64,
    #[command(flatten)]
    pub who: Who,
    #[command(flatten)]
    pub target: Target,
}

/// `dacapo pause` and `dacapo resume`.
async fn order(out: &mut Out, args: Pause, pause: bool) -> Result<(), CliError> {
    let json = args.who.json;
    let request = PauseRequest { version: args.version, asked: asked(args.who) };
    let projection = args.projection;
    connect::with(&args.target, |api| async move {
        let answer = match pause {
            true => api.pause(&projection, request).await?,
            false => api.resume(&projection, request).await?,
        };
        if json {
            out.json(&answer)?;
            return out.flush();
        }
        let done = if pause { "paused" } else { "resumed" };
        out.line(format_args!("{projection} {}: {done}{}", answer.version, when(answer.requested)))?;
        out.flush()
    })
    .await
}

/// `dacapo letters`.
async fn letters(out: &mut Out, args: Letters) -> Result<(), CliError> {
    match args.settle {
        Some(Settle::Retry(args)) => settle(out, args, true).await,
        Some(Settle::Drop(args)) => settle(out, args, false).await,
        Some(Settle::SetAside(args)) => set_aside(out, args).await,
        None => list(out, args.list).await,
    }
}

async fn list(out: &mut Out, args: ListLetters) -> Result<(), CliError> {
    let ListLetters { projection, version, effects, after, limit, json, target } = args;
    // The parser does not accept the command without one.
    let projection = projection.unwrap_or_default();
    let named = version.is_some();
    let request = LettersRequest { version, after: after.unwrap_or(0), limit, effects };
    connect::look(&target, |api| async move {
        let answer = api.letters(&projection, request).await?;
        if json {
            answer.letters.iter().try_for_each(|letter| out.json(letter))?;
            answer.effects.iter().try_for_each(|effect| out.json(effect))?;
            return out.flush();
        }
        let text = if effects { effects::page(out, &answer) } else { page(out, &answer, named) };
        out.text(&text)?;
        out.flush()
    })
    .await
}

fn page(out: &Out, answer: &LettersResponse, named: bool) -> String {
    let LettersResponse { projection, version, letters, more, .. } = answer;
    let Some(last) = letters.last() else {
        // Where no version was named, one with letters would have been listed.
        let of = if named { format!("{projection} {version}") } else { projection.clone() };
        return format!("{of} has set no event aside\n");
    };
    let mut table = out.table(&["POSITION", "TIME", "STREAM", "TYPE", "WHY", "TRIES", "ERROR", "DATA"]);
    narrow(&mut table, 0..=0, CellAlignment::Right);
    narrow(&mut table, 1..=4, CellAlignment::Left);
    narrow(&mut table, 5..=5, CellAlignment::Right);
    for letter in letters {
        let event = &letter.event;
        let (position, time) = (count(event.position), to_the_second(&letter.time));
        let (stream, event_type) = (event.stream.clone(), event.event_type.clone());
        let (tries, error) = (letter.attempts.to_string(), cut(&letter.error, limits::CELL_CHARS_MAX));
        let data = cut(&event.data.as_str().replace(['\n', '\r'], " "), limits::CELL_CHARS_MAX);
        table.add_row([position, time, stream, event_type, why(letter), tries, error, data]);
    }
    let mut page = format!("{projection} {version}\n\n{}", lines_of(&table));
    if *more {
        let after = last.event.position;
        page.push_str(&format!("\nmore: dacapo letters {projection} --version {version} --after {after}\n"));
    }
    page
}

fn why(letter: &Letter) -> String {
    let kind = match letter.first {
        Some(first) => format!("{} by {}", letter.kind, count(first)),
        None => letter.kind.clone(),
    };
    match &letter.wish {
        Some(wish) => format!("{kind}; {wish}"),
        None => kind,
    }
}

async fn settle(out: &mut Out, args: SettleLetters, retry: bool) -> Result<(), CliError> {
    let SettleLetters { projection, version, event, stream, all, effects, who, target } = args;
    let json = who.json;
    let named = event.is_some() || stream.is_some();
    let request = SettleRequest { version, position: event, stream, all, effects, asked: asked(who) };
    connect::with(&target, |api| async move {
        let answer = match retry {
            true => api.retry_letters(&projection, request).await?,
            false => api.drop_letters(&projection, request).await?,
        };
        if named && answer.letters == Some(0) {
            return Err(nothing_such(&projection, &answer.version, effects));
        }
        if json {
            out.json(&answer)?;
            return out.flush();
        }
        out.line(settled(&answer, effects, retry))?;
        out.flush()
    })
    .await
}

/// Returns the error that the named event or stream has nothing to settle.
fn nothing_such(projection: &str, version: &str, effects: bool) -> CliError {
    let (has, option) =
        if effects { ("has no such failed effect", " --effects") } else { ("has set aside no such event", "") };
    let problem = Problem::new("no_such_letter", format!("{projection} {version} {has}"));
    let help = format!("`dacapo letters {projection} --version {version}{option}` lists what there is");
    problem.help(help).not_found().into()
}

fn settled(answer: &SettleResponse, effects: bool, retry: bool) -> String {
    let SettleResponse { projection, version, letters, requested } = answer;
    let done = match (retry, effects) {
        (true, true) => "will be retried now",
        (true, false) => "will be retried",
        (false, true) => "dropped",
        (false, false) => "will be dropped",
    };
    match (letters, effects) {
        (None, _) => format!("{projection} {version}: requested already{}", when(*requested)),
        (Some(0), true) => format!("{projection} {version} has no such failed effect"),
        (Some(0), false) => format!("{projection} {version} has set aside no such event"),
        (Some(letters), true) => format!("{projection} {version}: {} {done}", counted(*letters, "effect")),
        (Some(letters), false) => format!(
            "{projection} {version}: {} {done}; `dacapo letters {projection} --version {version}` lists the rest",
            counted(*letters, "event")
        ),
    }
}

/// `dacapo letters set-aside`.
async fn set_aside(out: &mut Out, args: SetAside) -> Result<(), CliError> {
    let json = args.who.json;
    let request = SetAsideRequest { version: args.version, position: args.event, asked: asked(args.who) };
    let projection = args.projection;
    connect::with(&args.target, |api| async move {
        let answer = api.set_aside(&projection, request).await?;
        if json {
            out.json(&answer)?;
            return out.flush();
        }
        let (version, event) = (&answer.version, count(answer.position));
        out.line(match answer.requested {
            Some(_) => format!(
                "{projection} {version}: event {event} to be set aside, should it be refused once more; `dacapo letters \
                 {projection} --version {version}` tells when it is"
            ),
            None => format!("{projection} {version}: event {event} is already set aside, or about to be"),
        })?;
        out.flush()
    })
    .await
}

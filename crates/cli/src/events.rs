//! Commands on events and streams.

use std::io::{self, Read as _, Write as _};
use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Subcommand;
use comfy_table::CellAlignment;
use dacapo::world::{Ids, SystemIds};
use dacapo_api::{
    Api, ApiError, AppendRequest, Event, Expected, Json, Metadata, NewEvent, OnKnown, Problem, ReadRequest,
    ReadResponse, RevisionDemand, StreamsRequest,
};
use dacapo_model::limits::PAYLOAD_BYTES_MAX;

use crate::args::{At, Target};
use crate::error::CliError;
use crate::import::line_of;
use crate::limits;
use crate::local::Missing;
use crate::numbers::{count, counted};
use crate::output::{Out, lines_of, narrow};
use crate::shown::{cut, shown};
use crate::{connect, given};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Append one event to a stream
    Append(Append),
    /// Read events
    Read(Read),
    /// List streams
    Streams(Streams),
}

impl Command {
    /// Returns true if the answer, and any error, is to be JSON.
    pub fn says_json(&self) -> bool {
        match self {
            Self::Append(args) => args.json,
            Self::Read(args) => args.json,
            Self::Streams(args) => args.json,
        }
    }

    /// Carries it out.
    pub async fn run(self, out: &mut Out) -> Result<(), CliError> {
        match self {
            Self::Append(args) => append(out, args).await,
            Self::Read(args) => read(out, args).await,
            Self::Streams(args) => streams(out, args).await,
        }
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct Append {
    /// The stream
    #[arg(value_parser = given::stream)]
    pub stream: String,
    /// The type of the event
    #[arg(long = "type", value_name = "TYPE", value_parser = given::event_type)]
    pub event_type: String,
    /// The event's payload. Default: read from standard input
    // Here `--data` is not the directory, as it is in other commands.
    #[arg(id = "payload", long = "data", value_name = "JSON", value_parser = given::json)]
    pub data: Option<String>,
    /// The last revision that the stream must have: any, no-stream, exists or a number
    #[arg(long, value_name = "REVISION", default_value = "any", value_parser = demand)]
    pub expect: RevisionDemand,
    /// The event's id; a second append of the same id writes nothing
    #[arg(long, value_name = "UUID", value_parser = given::event_id)]
    pub id: Option<String>,
    /// A tag; may be given several times
    #[arg(long = "tag", value_name = "TAG")]
    pub tags: Vec<String>,
    /// The person or program that appends; kept in the event's metadata
    #[arg(long, value_name = "NAME")]
    pub actor: Option<String>,
    #[command(flatten)]
    pub at: At,
    /// Open this directory in this process instead; no other process may have it open
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Print the answer, or the error, as one JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Read {
    /// Only events after this position or, with --stream, after this revision
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = given::number::<u64>)]
    pub after: u64,
    /// Only events of this stream
    #[arg(long, conflicts_with_all = ["categories", "system"], value_parser = given::stream)]
    pub stream: Option<String>,
    /// Only streams of this category, such as `account` of account-17; may be given several times
    #[arg(long = "category", value_name = "CATEGORY", conflicts_with = "system", value_parser = given::category)]
    pub categories: Vec<String>,
    /// Only events of this type; may be given several times
    #[arg(long = "type", value_name = "TYPE", value_parser = given::event_type)]
    pub types: Vec<String>,
    /// Most events to read
    #[arg(long, value_name = "N", value_parser = given::number::<NonZeroU64>)]
    pub limit: Option<NonZeroU64>,
    /// Include dacapo's own events
    #[arg(long)]
    pub system: bool,
    /// Wait for more events at the end
    #[arg(long, short)]
    pub follow: bool,
    /// Print one JSON object a line, as `import` reads them
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub target: Target,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Streams {
    /// Only streams of this category
    #[arg(long, value_parser = given::category)]
    pub category: Option<String>,
    /// Only streams after this name
    #[arg(long, value_name = "NAME", value_parser = given::stream)]
    pub after: Option<String>,
    /// Most streams to list
    #[arg(long, value_name = "N", value_parser = given::number::<NonZeroU64>)]
    pub limit: Option<NonZeroU64>,
    /// Print one JSON object a line
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub target: Target,
}

fn demand(text: &str) -> Result<RevisionDemand, String> {
    match text {
        "any" => Ok(RevisionDemand::Any),
        "no-stream" => Ok(RevisionDemand::NoStream),
        "exists" => Ok(RevisionDemand::Exists),
        number => match given::number(number) {
            Ok(revision) => Ok(RevisionDemand::Exact(revision)),
            Err(_) => Err("write any, no-stream, exists or a number".to_owned()),
        },
    }
}

/// `dacapo append`.
async fn append(out: &mut Out, args: Append) -> Result<(), CliError> {
    let data = match &args.data {
        Some(data) => data.clone(),
        None => tokio::task::spawn_blocking(payload_from_stdin).await.map_err(CliError::new)??,
    };
    let data = Json::parse(&data).map_err(|error| {
        let problem = Problem::new("bad_data", format!("the event's data is not JSON: {error}"));
        problem.help("give one JSON value with --data or on standard input")
    })?;
    // With an id of its own, the event is recognised in a retry, wherever that comes from.
    let id = args.id.clone().unwrap_or_else(|| SystemIds.next().to_string());
    let event = NewEvent {
        stream: args.stream.clone(),
        id: Some(id),
        event_type: args.event_type.clone(),
        data,
        metadata: Metadata { actor: args.actor.clone(), ..Metadata::default() },
        tags: args.tags.clone(),
    };
    let expected = vec![Expected { stream: args.stream.clone(), revision: args.expect }];
    let request = AppendRequest { events: vec![event], expected, on_known: OnKnown::Recognise };
    let ask = |api: Arc<dyn Api>| async move { Ok(api.append(request).await?) };
    let appended = connect::with_node(&args.at, args.data_dir.as_deref(), Missing::Make, ask).await?;
    if args.json {
        out.json(&appended)?;
        return out.flush();
    }
    let note = if appended.written == 0 { ", where it already was" } else { "" };
    let (position, revision) = (count(appended.position), count(appended.revision));
    out.line(format_args!("{} revision {revision} at position {position}{note}", args.stream))?;
    out.flush()
}

fn payload_from_stdin() -> Result<String, CliError> {
    let mut data = String::new();
    let most = PAYLOAD_BYTES_MAX as u64 + 1;
    let read = std::io::stdin().lock().take(most).read_to_string(&mut data);
    read.map_err(|error| CliError::new(format!("cannot read the event's data from standard input: {error}")))?;
    if data.len() > PAYLOAD_BYTES_MAX {
        return Err(CliError::new(format!("the event's data is larger than {} bytes", PAYLOAD_BYTES_MAX)));
    }
    Ok(data)
}

/// `dacapo read`.
async fn read(out: &mut Out, args: Read) -> Result<(), CliError> {
    connect::look(&args.target, |api| pages(out, api, &args)).await
}

async fn pages(out: &mut Out, api: Arc<dyn Api>, args: &Read) -> Result<(), CliError> {
    let mut request = ReadRequest {
        after: args.after,
        stream: args.stream.clone(),
        categories: args.categories.clone(),
        types: args.types.clone(),
        limit: NonZeroU32::new(limits::PAGE_EVENTS),
        wait_ms: None,
        system: args.system,
    };
    let (mut left, mut journal) = (args.limit.map_or(u64::MAX, NonZeroU64::get), None);
    // A follower that never reached a node has the wrong address.
    let mut tries_max = 1;
    while left > 0 {
        request.limit = page(left);
        let read = patient(&*api, &request, tries_max).await?;
        if args.follow {
            tries_max = limits::FOLLOW_TRIES_MAX;
        }
        same_journal(&mut journal, read.journal.as_deref(), request.after)?;
        for event in &read.events {
            if args.json {
                out.json_line(&line_of(event).map_err(CliError::new)?)?
            } else {
                out.line(one_line(event, out.is_terminal()))?
            }
        }
        out.flush()?;
        left -= (read.events.len() as u64).min(left);
        let stuck = read.through <= request.after;
        // Of a stream, what follows may be wanted although nothing of this was.
        let at_head = read.events.is_empty() && (stuck || (request.stream.is_none() && read.through >= read.head));
        if at_head && !args.follow {
            break;
        }
        request.wait_ms = (args.follow && at_head).then(|| millis(limits::FOLLOW_WAIT));
        request.after = read.through.max(request.after);
    }
    Ok(())
}

/// Checks that a node still has the journal that was read before: one that was put in its place has other events at the
/// same positions.
fn same_journal(known: &mut Option<String>, found: Option<&str>, after: u64) -> Result<(), CliError> {
    match (&known, found) {
        (Some(known), Some(found)) if known != found => {
            let text =
                format!("the node has another journal now: {known} was read through {after}, but this is {found}");
            let problem = Problem::new("other_journal", text);
            let help = "positions of one journal mean nothing in another: read this one from its start, or ask the node that \
                        has the first one";
            Err(problem.help(help).into())
        }
        (None, Some(found)) => {
            *known = Some(found.to_owned());
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Returns the number of events to request at once when this many are wanted.
fn page(left: u64) -> Option<NonZeroU32> {
    NonZeroU32::new(u32::try_from(left).map_or(limits::PAGE_EVENTS, |left| left.min(limits::PAGE_EVENTS)))
}

/// Reads, and tries again for a while when the node is away: a follower outlives its restart. It says so when the node
/// goes and when it is back.
async fn patient(api: &dyn Api, request: &ReadRequest, tries_max: u32) -> Result<ReadResponse, ApiError> {
    let (mut request, mut tries) = (request.clone(), 1);
    loop {
        match api.read(request.clone()).await {
            Err(error) if error.is_transient() && tries < tries_max => {
                if tries == 1 {
                    notice(&format!("{error}; trying again"));
                }
                tries += 1;
                // The first answer shows that the node is back, so it must not wait for events.
                request.wait_ms = None;
                tokio::time::sleep(limits::FOLLOW_PAUSE).await;
            }
            answer => {
                if tries > 1 && answer.is_ok() {
                    notice("the node answers again");
                }
                return answer;
            }
        }
    }
}

/// Writes a line on standard error, where it is not mixed with the events.
fn notice(line: &str) {
    // If standard error cannot be written to, there is nobody to tell.
    let _ = writeln!(io::stderr().lock(), "{}", shown(line));
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Returns the event in a line, which on a terminal is no longer than helps.
fn one_line(event: &Event, terminal: bool) -> String {
    let Event { position, time, stream, revision, event_type, data, .. } = event;
    let data = data.as_str().replace(['\n', '\r'], " ");
    let data = if terminal { cut(&data, limits::DATA_CHARS_MAX) } else { data };
    format!("{position}  {time}  {stream} {revision}  {event_type}  {data}")
}

/// `dacapo streams`.
async fn streams(out: &mut Out, args: Streams) -> Result<(), CliError> {
    connect::look(&args.target, |api| list(out, api, &args)).await
}

async fn list(out: &mut Out, api: Arc<dyn Api>, args: &Streams) -> Result<(), CliError> {
    let (category, mut after) = (args.category.clone(), args.after.clone());
    let (mut left, mut listed) = (args.limit.map_or(u64::MAX, NonZeroU64::get), 0);
    let mut more = true;
    while more && left > 0 {
        let request = StreamsRequest { category: category.clone(), after: after.clone(), limit: page(left) };
        let answer = api.streams(request).await?;
        let mut table = out.table(&["STREAM", "EVENTS", "LAST POSITION"]);
        narrow(&mut table, 1..=2, CellAlignment::Right);
        for stream in &answer.streams {
            if args.json {
                out.json(stream)?;
            }
            table.add_row([stream.name.clone(), count(stream.revision), count(stream.last)]);
        }
        if !args.json && !answer.streams.is_empty() {
            out.text(&lines_of(&table))?;
        }
        out.flush()?;
        let found = answer.streams.len() as u64;
        (listed, left) = (listed + found, left - found.min(left));
        more = answer.more && found > 0;
        after = answer.streams.last().map(|stream| stream.name.clone());
    }
    if !args.json {
        let rest = if more { "; there are more" } else { "" };
        out.line(format_args!("{}{rest}", counted(listed, "stream")))?;
    }
    out.flush()
}

//! `dacapo status`: one row for each version, with the reasons that it waits on.

use std::sync::Arc;

use comfy_table::{Attribute, Cell, CellAlignment, Color};
use dacapo_api::{Api, MemberStatus, ProjectionStatus, Status, SubscriberStatus, VersionStatus, WaitingOn};

use crate::args::Target;
use crate::connect;
use crate::error::CliError;
use crate::exit::{Exit, needs_somebody};
use crate::limits;
use crate::numbers::{count, counted, duration, rate};
use crate::output::{Out, lines_of, narrow};
use crate::shown::texts;
use crate::wait;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Show it again every second, until Ctrl-C
    #[arg(long, short, conflicts_with = "json")]
    pub watch: bool,
    /// Print it as JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub target: Target,
}

/// `dacapo status`.
pub(crate) async fn status(out: &mut Out, args: Args) -> Result<(), CliError> {
    connect::look(&args.target, |api| async {
        if args.watch {
            tokio::select! {
                watched = watch(out, api) => watched,
                _ = tokio::signal::ctrl_c() => Ok(()),
            }
        } else {
            let status = api.status().await?;
            if args.json {
                out.json(&status)?
            } else {
                out.text(&page(out, &texts(&status)))?
            }
            out.flush()?;
            if needs_somebody(&status, args.target.data.is_some()) {
                Err(CliError::Told(Exit::NeedsSomebody))
            } else {
                Ok(())
            }
        }
    })
    .await
}

/// Shows the status again and again; on a terminal, over the one before. If the node does not answer, it waits, and
/// its last answer stays visible.
async fn watch(out: &mut Out, api: Arc<dyn Api>) -> Result<(), CliError> {
    let (mut shown, mut last) = (false, None);
    loop {
        let page = match api.status().await {
            Ok(status) => last.insert(page(out, &texts(&status))).clone(),
            Err(error) if error.is_transient() => match &last {
                // Elsewhere the last state is in the output already.
                Some(last) if out.is_terminal() => format!("{error}; asking again. The last state:\n\n{last}"),
                _ => format!("{error}; asking again\n"),
            },
            Err(error) => return Err(error.into()),
        };
        if out.is_terminal() {
            out.screen(&page, !shown)?;
        } else {
            out.text(&page)?;
        }
        out.flush()?;
        shown = true;
        tokio::time::sleep(limits::WATCH_PAUSE).await;
    }
}

/// Returns the whole status in words and a table.
fn page(out: &Out, status: &Status) -> String {
    let node = &status.node;
    let mut page = format!(
        "{}  dacapo {}, pid {}, up {}, {}\njournal head {}\n",
        node.name,
        node.release,
        node.pid,
        duration(u32::try_from(node.uptime_seconds).map_or(f64::from(u32::MAX), f64::from)),
        node.store,
        count(node.head),
    );
    if !node.ready {
        let reasons: Vec<&str> = node.waiting_on.iter().map(|reason| reason.text.as_str()).collect();
        let waits =
            if reasons.is_empty() { "gives no reason".to_owned() } else { format!("waits on {}", reasons.join("; ")) };
        page.push_str(&format!("not ready, {waits}\n"));
    }
    node.warnings.iter().for_each(|warning| page.push_str(&format!("warning: {warning}\n")));
    if status.projections.is_empty() {
        page.push_str("\nno projections\n");
        page.push_str(&members(out, status));
        status.subscribers.iter().for_each(|found| page.push_str(&format!("{}\n", subscriber(found))));
        return page;
    }
    let header = ["PROJECTION", "VERSION", "PHASE", "SEGMENTS", "LAG", "RATE", "TIME LEFT"];
    let mut table = out.table(&header);
    for projection in &status.projections {
        for (index, version) in projection.versions.iter().enumerate() {
            table.add_row(row(projection, version, index == 0));
        }
        if projection.versions.is_empty() {
            table.add_row([projection.name.as_str(), "none"]);
        }
    }
    narrow(&mut table, 3..=6, CellAlignment::Right);
    page.push('\n');
    page.push_str(&lines_of(&table));
    page.push_str(&members(out, status));
    let mut notes: Vec<String> = status.projections.iter().flat_map(notes).collect();
    notes.extend(status.subscribers.iter().map(subscriber));
    if !notes.is_empty() {
        page.push_str(&format!("\n{}\n", notes.join("\n")));
    }
    page
}

/// Returns a table of the nodes that are alive, with the segments that each has; nothing where there is only one.
fn members(out: &Out, status: &Status) -> String {
    if status.members.len() < 2 {
        return String::new();
    }
    let mut table = out.table(&["MEMBER", "ADDRESS", "READY", "CARRIES", "SEGMENTS"]);
    for member in &status.members {
        let ready = if member.ready { Cell::new("yes") } else { Cell::new("no").fg(Color::Red) };
        let address = member.address.as_deref().unwrap_or_default();
        let name = Cell::new(&member.name).add_attribute(Attribute::Bold);
        let carries = Cell::new(member.carries.join(", "));
        table.add_row([name, Cell::new(address), ready, carries, Cell::new(shares(status, member))]);
    }
    format!("\n{}", lines_of(&table))
}

/// Returns the number of segments that a member has of each version: `balances v1.1 5, v2.1 3`.
fn shares(status: &Status, member: &MemberStatus) -> String {
    let of_projection = |projection: &ProjectionStatus| {
        let share = |version: &VersionStatus| {
            let owned =
                version.segments.iter().filter(|segment| segment.claimed_by.as_ref() == Some(&member.id)).count();
            (owned > 0).then(|| format!("{} {owned}", version.version))
        };
        let shares: Vec<String> = projection.versions.iter().filter_map(share).collect();
        (!shares.is_empty()).then(|| format!("{} {}", projection.name, shares.join(", ")))
    };
    status.projections.iter().filter_map(of_projection).collect::<Vec<_>>().join("; ")
}

fn row(projection: &ProjectionStatus, version: &VersionStatus, first: bool) -> Vec<Cell> {
    let name = if first { projection.name.as_str() } else { "" };
    vec![
        Cell::new(name).add_attribute(Attribute::Bold),
        Cell::new(&version.version),
        phase(version),
        Cell::new(segments(version)),
        Cell::new(version.lag.map(count).unwrap_or_default()),
        Cell::new(version.rate.map(rate).unwrap_or_default()),
        Cell::new(version.time_left.as_ref().map(|left| duration(left.seconds)).unwrap_or_default()),
    ]
}

fn phase(version: &VersionStatus) -> Cell {
    let text = match &version.stage {
        Some(stage) => format!("{}, {stage}", version.phase),
        None => version.phase.clone(),
    };
    let cell = Cell::new(text);
    match version.phase.as_str() {
        "Serving" => cell.fg(Color::Green),
        "Initializing" => cell.fg(Color::Cyan),
        "Failed" => cell.fg(Color::Red),
        _ => cell,
    }
}

fn segments(version: &VersionStatus) -> String {
    let held = version.segments.iter().filter(|segment| segment.held).count();
    match (version.segments.len(), held) {
        (0, _) => String::new(),
        (all, 0) => all.to_string(),
        (all, held) => format!("{all}, {held} held"),
    }
}

/// Returns the state of a subscriber, in a line.
fn subscriber(subscriber: &SubscriberStatus) -> String {
    let SubscriberStatus { name, lag, failed, last_failure, waiting_on, .. } = subscriber;
    let lag = if *lag == 0 { "is at the head".to_owned() } else { format!("has a lag of {}", count(*lag)) };
    let mut text = format!("subscriber {name} {lag}");
    if let Some(failure) = last_failure {
        let (failed, position, error) = (count(*failed), count(failure.position), &failure.error);
        text.push_str(&format!(", {failed} failed, last event {position}: {error}"));
    }
    waiting_on.iter().for_each(|reason| text.push_str(&format!("; waits on {}", reason.text)));
    text
}

/// Returns the lag of a version in time, and its remaining time with its basis.
fn lag(version: &VersionStatus) -> Option<String> {
    let age = duration(version.lag_seconds?);
    match (&version.time_left, &version.no_time_left) {
        (Some(left), _) => Some(format!("a lag of {age}; {} left, by {}", duration(left.seconds), left.basis)),
        (None, Some(why)) => Some(format!("a lag of {age}; {why}")),
        (None, None) => None,
    }
}

/// Returns true if a version is above the one that serves.
fn is_newer(version: &VersionStatus, projection: &ProjectionStatus) -> bool {
    let number = |text: &str| dacapo_api::parse_version(text).ok();
    let serving = projection.serving.as_deref().and_then(number);
    serving.zip(number(&version.version)).is_some_and(|(serving, version)| version > serving)
}

/// Returns the reasons of one kind that a version waits on.
fn reasons_of<'a>(version: &'a VersionStatus, kind: &'a str) -> impl Iterator<Item = &'a WaitingOn> {
    version.waiting_on.iter().filter(move |reason| reason.kind == kind)
}

/// Returns the notes for which a table has no room: reasons to wait, and reasons of states.
fn notes(projection: &ProjectionStatus) -> Vec<String> {
    let mut notes = vec![];
    for version in &projection.versions {
        let name = format!("{} {}", projection.name, version.version);
        notes.extend(version.reason.iter().map(|reason| format!("{name}: {reason}")));
        let old = version.age_seconds.map(duration);
        notes.extend(old.map(|age| format!("{name}: state of {age} ago, since its view does not answer now")));
        let told = version.stall.as_ref().map_or(&[][..], |stall| &stall.waiting_on);
        notes.extend(version.stall.iter().map(|stall| format!("{name}: {}", stall.text)));
        let others = version.waiting_on.iter().filter(|reason| !told.contains(reason));
        notes.extend(others.map(|reason| format!("{name} waits on {}", reason.text)));
        let refused = reasons_of(version, "handler").filter(|_| version.needs_somebody != Some(false));
        let helps = refused.filter_map(|reason| wait::help(&projection.name, &version.version, reason));
        notes.extend(helps.map(|help| format!("{name}: {help}")));
        notes.extend(lag(version).map(|lag| format!("{name} has {lag}")));
        let told = version.waiting_on.iter().any(|reason| reason.kind == "code");
        if !version.carried && !told {
            notes.push(format!("{name}: this node does not carry its code"));
        }
        if version.letters > 0 {
            let (events, of) = (counted(version.letters, "event"), &version.version);
            let list = format!("`dacapo letters {} --version {of}` lists them", projection.name);
            notes.push(format!("{name}: {events} set aside; {list}"));
        }
        if version.effects_aside > 0 {
            let (effects, of) = (counted(version.effects_aside, "effect"), &version.version);
            let list = format!("`dacapo letters {} --effects --version {of}` lists them", projection.name);
            notes.push(format!("{name}: {effects} set aside; {list}"));
        } else if version.waiting_on.iter().any(|reason| reason.kind == "effect" || reason.kind == "effects") {
            let (project, of) = (&projection.name, &version.version);
            notes.push(format!(
                "{name}: `dacapo letters {project} --effects --version {of}` lists the effects; `dacapo letters \
                 retry {project} --effects …` or `dacapo letters drop {project} --effects …` settles them"
            ));
        }
        if version.phase == "StandingBy" {
            let newer = is_newer(version, projection);
            let what = if newer { "flip" } else { "rollback" };
            notes.push(match &version.rollback_not_ready {
                _ if version.rollback_ready => {
                    let (project, of, back) = (&projection.name, &version.version, if newer { "" } else { " back" });
                    format!(
                        "{name}: ready for a {what}; `dacapo {what} {project} --version {of}` moves readers{back} to it"
                    )
                }
                Some(why) => format!("{name}: not ready for a {what}, it waits on {why}"),
                None => format!("{name}: not ready for a {what}, it gives no reason"),
            });
        }
    }
    if let Some(flip) = &projection.flip {
        let from = flip.from.as_ref().map(|from| format!(" from {from}")).unwrap_or_default();
        let requested = count(flip.requested);
        let name = format!("{}: {}{from} to {}", projection.name, flip.kind, flip.to);
        notes.push(format!("{name} under way, requested at {requested}"));
        notes.extend(flip.waiting_on.iter().map(|reason| format!("  waits on {}", reason.text)));
    }
    notes
}

//! `dacapo verify`: the report on a version before readers move to it.

use std::sync::Arc;

use comfy_table::{Cell, CellAlignment, Color};
use dacapo_api::{Api, Finding, PartReport, Problem, Report, Verification, VerificationRequest, VerifyRequest};

use crate::args::{Target, Who};
use crate::error::CliError;
use crate::limits;
use crate::numbers::{count, counted};
use crate::operate::asked;
use crate::output::{Out, lines_of, narrow};
use crate::shown::texts;
use crate::{connect, given, progress, wait};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The projection
    #[arg(value_parser = given::projection)]
    pub projection: String,
    /// The version, such as v2.1. Default: the newest that is being built or was verified
    #[arg(long, value_name = "VERSION", value_parser = given::version)]
    pub version: Option<String>,
    /// Verify it again; until that is done the verdict does not count
    #[arg(long)]
    pub again: bool,
    /// Waive the verdict of a version that did not pass; --reason is kept with it
    #[arg(long, requires = "reason", conflicts_with = "again")]
    pub waive: bool,
    /// Wait until it is verified
    #[arg(long)]
    pub wait: bool,
    #[command(flatten)]
    pub who: Who,
    #[command(flatten)]
    pub target: Target,
}

/// `dacapo verify`.
pub(crate) async fn verify(out: &mut Out, args: Args) -> Result<(), CliError> {
    let Args { projection, version, again, waive, wait, who, target } = args;
    let (json, changes) = (who.json, again || waive);
    if waive && who.reason.as_ref().is_some_and(|reason| reason.trim().is_empty()) {
        return Err(Problem::new("usage", "--reason is empty: give the reason why the verdict is waived").into());
    }
    let ask = |api: Arc<dyn Api>| async move {
        let mut request = VerificationRequest { version, wait_ms: None };
        if changes {
            let ask = VerifyRequest { version: request.version.take(), asked: asked(who) };
            let asked = match waive {
                true => api.waive(&projection, ask).await?,
                false => api.verify(&projection, ask).await?,
            };
            let what = if waive { "the verdict is waived" } else { "another verification requested" };
            let text = match asked.requested {
                Some(position) => format!("{projection} {}: {what} at position {}", asked.version, count(position)),
                None => format!("{projection} {}: the requested state exists already", asked.version),
            };
            if !json {
                out.line(text)?;
                out.flush()?;
            }
            request.version = Some(asked.version);
        }
        let found = match wait {
            true => until_verified(&*api, &projection, request).await?,
            false => api.verification(&projection, request).await?,
        };
        match json {
            true => out.json(&found)?,
            false => out.text(&page(out, &texts(&found)))?,
        }
        out.flush()?;
        if wait && found.halts {
            return Err(halts(&found).into());
        }
        judge(&found)
    };
    if changes { connect::with(&target, ask).await } else { connect::look(&target, ask).await }
}

/// Asks until there is a verdict, or until an operator is needed for one.
async fn until_verified(
    api: &dyn Api,
    projection: &str,
    mut request: VerificationRequest,
) -> Result<Verification, CliError> {
    let bar = progress::endless();
    bar.enable_steady_tick(limits::POLL_PAUSE);
    request.wait_ms = Some(limits::WAIT_MS);
    loop {
        let found = api.verification(projection, request.clone()).await?;
        let built = matches!(&*found.phase, "Scheduled" | "Initializing");
        if built && (found.verdict.is_none() || found.again) && !found.halts {
            let reason = found.waiting_on.as_ref().map_or("it to be built", |reason| reason.text.as_str());
            progress::say(&bar, &format!("{}: waits on {reason}", found.version));
            request.version = Some(found.version);
            // A node that answers at once must not be asked in a loop.
            tokio::time::sleep(limits::POLL_PAUSE).await;
            continue;
        }
        bar.finish_and_clear();
        return Ok(found);
    }
}

/// Returns the error about a version that gets no verdict by itself, with what to do about it.
fn halts(found: &Verification) -> Problem {
    let Verification { projection, version, waiting_on, .. } = found;
    let help = waiting_on.as_ref().and_then(|reason| wait::help(projection, version, reason));
    let help = help.unwrap_or_else(|| wait::repaired(projection, version));
    let problem = Problem::new("halts", format!("{projection} {version} gets no verdict by itself"));
    let problem = problem.tried(format!("wait until {version} is verified")).help(help);
    match waiting_on {
        Some(reason) => problem.found(format!("it waits on {}", reason.text)),
        None => problem,
    }
}

/// Fails if the version did not pass and nobody has waived the verdict, and if it will
/// never be verified.
fn judge(found: &Verification) -> Result<(), CliError> {
    if found.verdict.is_none() && !matches!(&*found.phase, "Scheduled" | "Initializing") {
        let Verification { projection, version, phase, .. } = found;
        let problem = Problem::new("not_built", format!("{projection} {version} will not be verified: it is {phase}"));
        return Err(problem.help(format!("`dacapo phases {projection}` shows its history")).into());
    }
    if found.again || found.verdict.as_deref() != Some("Fail") {
        return Ok(());
    }
    let Verification { projection, version, .. } = found;
    let problem = Problem::new("not_right", format!("{projection} {version} did not pass its verification"));
    let help = format!(
        "fix the code, raise its version and start the node with it; or declare what differs by intent and \
         `dacapo verify {projection} --again`; or answer for it with `dacapo verify {projection} --waive --reason WHY`"
    );
    Err(problem.help(help).into())
}

fn page(out: &Out, found: &Verification) -> String {
    let Verification { projection, version, phase, .. } = found;
    let mut page = format!("{projection} {version}: {}", found.verdict.as_deref().unwrap_or("no verdict yet"));
    if let Some(report) = &found.report {
        page.push_str(&format!(", at position {}", count(report.at)));
        if let Some(against) = &report.against {
            page.push_str(&format!(", compared with {against}"));
        }
    }
    page.push('\n');
    if let Some(waived) = &found.waived {
        page.push_str(&format!("{} waived the verdict: {}\n", waived.by, waived.why));
    }
    if found.again {
        page.push_str("it is to be verified again; until then the verdict does not count\n");
    }
    match found.waiting_on.as_ref().filter(|reason| reason.kind != "verdict") {
        Some(reason) => page.push_str(&format!("{phase}, waits on {}\n", reason.text)),
        None if found.report.is_none() => page.push_str(&format!("{phase}\n")),
        None => {}
    }
    if let Some(report) = &found.report {
        page.push_str(&parts(out, report));
        page.extend(report.parts.iter().map(findings));
        page.push_str(&notes(report));
    }
    if let Some(live) = found.live.as_ref().filter(|live| live.looked_at > 0) {
        let wrong = if live.wrong_text.is_empty() { "none differs".to_owned() } else { live.wrong_text.join(", ") };
        page.push_str(&format!("\nlive queries so far: {}, {wrong}\n", counted(live.looked_at, "answer")));
    }
    page
}

/// Returns a row for each part.
fn parts(out: &Out, report: &Report) -> String {
    let mut table = out.table(&["PART", "", "OUTCOME", "LOOKED AT", "FOUND"]);
    for part in &report.parts {
        let outcome = Cell::new(part.outcome.replace('_', " "));
        let outcome = match part.outcome.as_str() {
            "passed" => outcome.fg(Color::Green),
            "failed" => outcome.fg(Color::Red),
            _ => outcome.fg(Color::Yellow),
        };
        let required = if report.required.contains(&part.part) { "required" } else { "" };
        let found = part.why.clone().unwrap_or_else(|| part.wrong_text.join(", "));
        let looked_at = if part.outcome == "not_done" { String::new() } else { looked_at(part) };
        table.add_row([Cell::new(&part.part), Cell::new(required), outcome, Cell::new(looked_at), Cell::new(found)]);
    }
    narrow(&mut table, 0..=2, CellAlignment::Left);
    narrow(&mut table, 3..=3, CellAlignment::Right);
    format!("\n{}", lines_of(&table))
}

/// `1,204 events`, in the unit of the part.
fn looked_at(part: &PartReport) -> String {
    match part.part.as_str() {
        "counts" => counted(part.looked_at, "event"),
        "checks" => counted(part.looked_at, "check"),
        "rows" | "fold" => counted(part.looked_at, "row"),
        "answers" => counted(part.looked_at, "answer"),
        _ => count(part.looked_at),
    }
}

/// Returns the findings of a part, each with the old and the new value.
fn findings(part: &PartReport) -> String {
    if part.findings.is_empty() {
        return String::new();
    }
    let mut text = format!("\n{}\n", part.part);
    for finding in &part.findings {
        let Finding { kind, place, key, old, new } = finding;
        let key = key.as_ref().map(|key| format!(" {key}")).unwrap_or_default();
        let folded = part.part == "fold";
        let (was, is) = match kind.as_str() {
            "count" | "letter" => ("journal", "view"),
            "check" => ("expected", "found"),
            _ if folded => ("fold", "view"),
            _ => ("old", "new"),
        };
        text.push_str(&format!("  {place}{key}: {}\n", words(kind, folded)));
        let width = was.len().max(is.len());
        for (side, row) in [(was, old), (is, new)] {
            text.extend(row.as_ref().map(|row| format!("    {side:width$}  {row}\n")));
        }
    }
    let told = part.findings.len() as u64;
    let all: u64 = part.wrong.values().sum();
    if all > told {
        text.push_str(&format!("  and {} more\n", count(all - told)));
    }
    text
}

/// Returns a kind of finding in words.
fn words(kind: &str, folded: bool) -> &str {
    match kind {
        "missing" if folded => "missing in the view",
        "extra" if folded => "not in the fold of past events",
        "count" => "some events were not processed",
        "letter" => "set aside",
        "check" => "not so",
        "missing" => "missing in the new version",
        "extra" => "not in the old version",
        other => other,
    }
}

fn notes(report: &Report) -> String {
    let notes = report.parts.iter().flat_map(|part| part.notes.iter().map(move |note| (&part.part, note)));
    let lines: Vec<String> = notes.map(|(part, note)| format!("{part}: {note}\n")).collect();
    if lines.is_empty() { String::new() } else { format!("\n{}", lines.concat()) }
}

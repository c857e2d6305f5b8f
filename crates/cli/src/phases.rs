//! `dacapo phases`: the changes of versions.

use std::sync::Arc;

use comfy_table::CellAlignment;
use dacapo_api::{Api, HistoryEntry, PhasesRequest};

use crate::args::Target;
use crate::error::CliError;
use crate::numbers::count;
use crate::operate::to_the_second;
use crate::output::{Out, lines_of, narrow};
use crate::shown::cut;
use crate::{connect, given, limits};

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
        row.extend(theirs.map(|text| cut(&text, limits::CELL_CHARS_MAX)));
        table.add_row(row);
    }
    lines_of(&table)
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

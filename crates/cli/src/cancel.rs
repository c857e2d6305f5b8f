//! `dacapo cancel` and `dacapo letters set-aside`.

use dacapo_api::{CancelRequest, SetAsideRequest};

use crate::args::{Target, Who};
use crate::error::CliError;
use crate::numbers::count;
use crate::operate::asked;
use crate::output::Out;
use crate::{connect, given};

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

/// `dacapo cancel`.
pub(crate) async fn cancel(out: &mut Out, args: Cancel) -> Result<(), CliError> {
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

/// `dacapo letters set-aside`.
pub(crate) async fn set_aside(out: &mut Out, args: SetAside) -> Result<(), CliError> {
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

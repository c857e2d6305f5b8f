//! The steps of the demo, one after the other, each with a bar while it lasts and a line once it is done.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::bank::{BalanceOf, BalancesV1, BalancesV2};
use crate::limits;
use dacapo::catalog::{Phase, RequestedBy, Stage};
use dacapo::operate::{FlipReport, ProjectionHandle};
use dacapo::options::{FlipPolicy, SegmentCount};
use dacapo::status::WaitingOn;
use dacapo::verify::Part;
use dacapo::{Node, Options, Position, Projection, ProjectionName, VersionCode, VersionId};
use dacapo_api::{ApiError, Problem};
use dacapo_server::{Access, Hosts, NodeApi};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::books::Books;
use super::report::{Summary, millis};
use super::traffic::{Counted, Traffic};
use super::{DemoArgs, audit, fill};
use crate::local;
use crate::numbers::{count, counted, duration, per_second, rate};
use crate::progress;

/// The default address of the demo.
const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7373);

const V1: VersionId = VersionId { code: 1, build: 1 };
const V2: VersionId = VersionId { code: 2, build: 1 };

/// Refuses a directory that holds anything, before anything in it is opened: a node would carry on what is there.
pub(super) fn is_new_or_empty(directory: &Path) -> Result<(), ApiError> {
    match std::fs::read_dir(directory).and_then(|mut entries| entries.next().transpose()) {
        Ok(None) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Ok(Some(entry)) => {
            let found = format!("{} is there", entry.file_name().to_string_lossy());
            let problem = Problem::new("not_empty", format!("{} is not empty", directory.display())).found(found);
            Err(problem.help("the demo would mix what is there with its own: choose another directory").refused())
        }
        Err(error) => {
            let problem =
                Problem::new("unavailable", format!("cannot read the directory {}: {error}", directory.display()));
            Err(problem.found(error).help("name a directory that is new or empty").unavailable())
        }
    }
}

/// A node with a bank, and the API beside it for anyone who looks on.
pub(super) struct Demo {
    args: DemoArgs,
    node: Node,
    projection: ProjectionName,
    address: SocketAddr,
    stop_serving: oneshot::Sender<()>,
    serving: JoinHandle<Result<(), ApiError>>,
}

impl Demo {
    pub(super) async fn start(args: &DemoArgs, directory: &Path) -> Result<Self, ApiError> {
        let listener = listen(args.listen).await?;
        let address = listener.local_addr().map_err(|error| ApiError::unavailable("learn the address", error))?;
        let node = local::start(Some(directory)).await?;
        // Somebody may have been faster. Nothing is carried before this, so nothing has been written.
        if node.head() > Position::START {
            let found = counted(node.head().get(), "event");
            node.shutdown().await;
            let problem = Problem::new("not_empty", format!("{} holds {found} already", directory.display()));
            return Err(problem.help("the demo would mix them with its own: choose another directory").refused());
        }
        node.add_projection(version_1()).map_err(failed)?;
        let router = dacapo_server::router(Arc::new(NodeApi::new(node.clone(), "demo")), &Hosts::default());
        let (stop_serving, stopped) = oneshot::channel();
        let stopped = async move {
            // Dropping the sender stops it as well.
            let _ = stopped.await;
        };
        let serving = tokio::spawn(dacapo_server::serve(listener, router, stopped));
        let projection = ProjectionName::new("balances").map_err(ApiError::from)?;
        say("look on from another terminal:");
        say_more(&format!("dacapo status --watch --at http://{address}"));
        Ok(Self { args: args.clone(), node, projection, address, stop_serving, serving })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets go of everything in order: requests first, then the node.
    pub(super) async fn end(self) -> Result<(), ApiError> {
        // It has stopped by itself if nobody listens.
        let _ = self.stop_serving.send(());
        let served = self.serving.await.map_err(|error| ApiError::unavailable("serve the API", error));
        self.node.shutdown().await;
        served?
    }

    /// Returns the whole path, and its result.
    pub(super) async fn run(&self) -> Result<Summary, ApiError> {
        let (books, append_per_s) = self.fill().await?;
        self.until(V1, "version 1 catches up", |phase, _| phase == Phase::Serving).await?;
        say("version 1 serves");

        let traffic = Traffic::start(&self.node, books, self.args.clients);
        say(&format!("{} append and read from here on", counted(self.args.clients.into(), "client")));
        tokio::time::sleep(limits::DEMO_SERVE_TIME).await;
        let replay_per_s = self.rebuild().await?;
        let first = self.flip().await?;
        tokio::time::sleep(limits::DEMO_SERVE_TIME).await;
        let (back, rollback) = self.roll_back().await?;
        tokio::time::sleep(limits::DEMO_SERVE_TIME).await;
        let second = self.flip().await?;
        tokio::time::sleep(limits::DEMO_SERVE_TIME).await;
        self.clean_up().await?;
        let (books, counted) = traffic.stop().await;

        let pauses = [first, back, second].into_iter().filter_map(|report| report.pause);
        let longest = pauses.max().unwrap_or_default();
        self.sum_up(books, counted, append_per_s, replay_per_s, longest, rollback).await
    }

    async fn fill(&self) -> Result<(Vec<Books>, f64), ApiError> {
        let DemoArgs { events, accounts, clients, .. } = self.args;
        let bar = progress::counting(events, "fill the bank");
        let started = Instant::now();
        let books = fill::fill(&self.node, events, accounts, &bar).await.map_err(failed)?;
        let per_s = per_second(events, started.elapsed()).unwrap_or_default();
        bar.finish_and_clear();
        let (events, accounts) = (counted(events, "event"), counted(accounts, "account"));
        say(&format!("filled with {events} in {accounts}, {}", rate(per_s)));
        Ok((books.split(clients), per_s))
    }

    /// Brings in version 2, and waits until it could be flipped to. Returns positions replayed a second.
    async fn rebuild(&self) -> Result<f64, ApiError> {
        let head = self.node.head().get();
        self.node.add_projection(version_2()).map_err(failed)?;
        // The rate is that of the past: what was in the journal when the rebuild began.
        let took = self.until(V2, "version 2 replays", |_, stage| stage > Some(Stage::Replaying)).await?;
        let per_s = per_second(head, took).unwrap_or_default();
        let passed = format!("{:.1} s", took.as_secs_f64());
        say(&format!("version 2 replayed {} beside it in {passed}, {}", counted(head, "event"), rate(per_s)));
        self.until(V2, "version 2 catches up", |_, stage| stage == Some(Stage::Ready)).await?;
        self.tell_what_was_found()?;
        say("version 2 waits for the command to flip");
        Ok(per_s)
    }

    /// Tells what was looked at before readers may move to version 2.
    fn tell_what_was_found(&self) -> Result<(), ApiError> {
        let found = self.projection()?.version(V2).verification().map_err(failed)?;
        let Some(verified) = found.verified else { return Ok(()) };
        let looked_at = |part: Part| {
            let mut parts = verified.report.parts.iter();
            parts.find(|found| found.part == part).map_or(0, |found| found.looked_at)
        };
        let (events, rows) = (counted(looked_at(Part::Counts), "event"), counted(looked_at(Part::Rows), "row"));
        say(&format!("verified at position {}: {}", count(verified.report.at.get()), verified.verdict.as_str()));
        say_more(&format!("{events} counted again, {rows} compared with version 1 under traffic"));
        Ok(())
    }

    fn projection(&self) -> Result<ProjectionHandle, ApiError> {
        self.node.projection(&self.projection).map_err(failed)
    }

    async fn flip(&self) -> Result<FlipReport, ApiError> {
        let requested = self.projection()?.flip().requested_by(asked("the demo flips")).await.map_err(failed)?;
        let report = requested.done().within(limits::DEMO_STEP_TIME_MAX).await.map_err(failed)?;
        say(&format!("flipped to {}: processors held for {}", report.to, millis(report.pause)));
        Ok(report)
    }

    async fn roll_back(&self) -> Result<(FlipReport, Duration), ApiError> {
        let started = Instant::now();
        let asked = asked("the demo rolls back");
        let requested = self.projection()?.rollback().requested_by(asked).await.map_err(failed)?;
        let report = requested.done().within(limits::DEMO_STEP_TIME_MAX).await.map_err(failed)?;
        let took = started.elapsed();
        say(&format!("rolled back to {} in {}", report.to, millis(Some(took))));
        Ok((report, took))
    }

    async fn clean_up(&self) -> Result<(), ApiError> {
        let version_1 = self.projection()?.version(V1);
        let clean_up = version_1.clean_up().requested_by(asked("the demo is done with version 1"));
        let requested = clean_up.await.map_err(failed)?;
        requested.done().within(limits::DEMO_STEP_TIME_MAX).await.map_err(failed)?;
        say("cleaned up version 1");
        Ok(())
    }

    async fn sum_up(
        &self,
        books: Vec<Books>,
        counted: Counted,
        append_per_s: f64,
        replay_per_s: f64,
        flip_pause: Duration,
        rollback: Duration,
    ) -> Result<Summary, ApiError> {
        let bar = progress::counting(self.node.head().get(), "audit the journal");
        let found = audit::audit(&self.node, &books, &bar).await.map_err(failed)?;
        bar.finish_and_clear();
        say("audited: every balance compared with a plain fold of the journal");
        Ok(Summary {
            events: found.events,
            accounts: found.accounts,
            append_per_s,
            replay_per_s,
            flip_pause_ms: flip_pause.as_secs_f64() * 1e3,
            rollback_ms: rollback.as_secs_f64() * 1e3,
            counted: Counted {
                lost: counted.lost + found.lost,
                applied_twice: counted.applied_twice + found.applied_twice,
                ..counted
            },
        })
    }

    /// Shows how `version` gets on until it is as `wanted`. Returns how long that took.
    async fn until(
        &self,
        version: VersionId,
        title: &'static str,
        wanted: impl Fn(Phase, Option<Stage>) -> bool,
    ) -> Result<Duration, ApiError> {
        let bar = progress::told(self.node.head().get());
        bar.set_prefix(title);
        let started = Instant::now();
        loop {
            let status = self.node.status().await.map_err(failed)?;
            let mut versions = status.projections.iter().flat_map(|projection| &projection.versions);
            if let Some(found) = versions.find(|found| found.version == version) {
                if wanted(found.phase, found.stage) {
                    bar.finish_and_clear();
                    return Ok(started.elapsed());
                }
                let is_wrong = found.waiting_on.iter().any(|reason| matches!(reason, WaitingOn::Verdict { .. }));
                if found.phase == Phase::Failed || is_wrong || started.elapsed() > limits::DEMO_STEP_TIME_MAX {
                    let waiting: Vec<_> = found.waiting_on.iter().map(ToString::to_string).collect();
                    let found = format!("{version} is {} and waits on {}", found.phase, waiting.join("; "));
                    return Err(ApiError::unavailable(format!("continue: {title}"), found));
                }
                bar.set_length(status.head.get());
                bar.set_position(found.covers.get());
                let left = found
                    .time_left
                    .and_then(Result::ok)
                    .map(|left| format!("  {} left", duration(left.left.as_secs_f64())));
                let pace = found.rate.map(rate).unwrap_or_default();
                bar.set_message(format!("{}  {pace}{}", count(found.covers.get()), left.unwrap_or_default()));
            }
            tokio::time::sleep(limits::DEMO_LOOK).await;
        }
    }
}

/// Returns the address that was asked for; without one the usual one or, if another demo has it, any.
async fn listen(asked: Option<SocketAddr>) -> Result<TcpListener, ApiError> {
    match dacapo_server::bind(asked.unwrap_or(LISTEN), Access::Loopback).await {
        Err(_) if asked.is_none() => dacapo_server::bind(SocketAddr::new(LISTEN.ip(), 0), Access::Loopback).await,
        listener => listener,
    }
}

/// Tells how the demo gets on.
#[expect(clippy::print_stderr, reason = "the progress of the demo is for people who watch, apart from the summary")]
pub(super) fn say(text: &str) {
    eprintln!("• {text}");
}

#[expect(clippy::print_stderr, reason = "see `say`")]
fn say_more(text: &str) {
    eprintln!("    {text}");
}

fn version_1() -> VersionCode {
    BalancesV1 { options: options() }.answering::<BalanceOf>().into()
}

fn version_2() -> VersionCode {
    BalancesV2 { options: options() }.answering::<BalanceOf>().into()
}

fn options() -> Options {
    #[expect(clippy::expect_used, reason = "a number of this file")]
    let segments = SegmentCount::new(4).expect("four is in range");
    Options { segments, flip: FlipPolicy::OnCommand, ..Options::default() }
}

fn asked(reason: &str) -> RequestedBy {
    RequestedBy::by("demo").because(reason)
}

fn failed(error: dacapo::Error) -> ApiError {
    ApiError::unavailable("continue the demo", error)
}

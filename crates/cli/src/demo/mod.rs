//! `dacapo demo`: the whole path in one process, under traffic, and an account of it at the end.
//!
//! ```text
//!   fill ─▶ version 1 serves ─▶ clients begin ─▶ rebuild version 2 ─▶ flip ─▶ roll back ─▶ flip ─▶ clean up ─▶ audit
//!                               └──────────── append and read, and keep their own books ────────────────────┘
//! ```
//!
//! What it reports of losses is found without the machinery that it reports on: every client knows what
//! it appended and was shown, and at the end every balance is compared with a plain fold of the journal.

mod audit;
mod books;
mod fill;
mod report;
mod traffic;

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dacapo::{Asked, Carried, FlipPolicy, FlipReport, Node, Options, Phase, ProjectionName, Stage, VersionId, ViewId};
use dacapo_api::{ApiError, Problem};
use dacapo_example_bank::{BalanceOf, BalancesV1, BalancesV2};
use dacapo_server::{Access, NodeApi};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::Instant;

use crate::error::CliError;
use crate::output::Out;
use books::Books;
use report::Summary;
use traffic::{Counted, Traffic};

/// How long clients go on between two moves of readers, so that each version really serves.
const SERVE_TIME: Duration = Duration::from_millis(1_500);
/// The longest that one step of the life of a version may take before the demo gives up.
const STEP_TIME_MAX: Duration = Duration::from_secs(4 * 60 * 60);

/// See the whole path in one command: fill, rebuild under traffic, flip, roll back, flip again, clean up.
///
/// A bank is filled with events, and version 1 of a view of its balances serves. Then clients append and read
/// without a pause while version 2, of another shape, is built from the past, flipped to, rolled back from,
/// flipped to again, and version 1 is cleaned up. Every client keeps its own books, and at the end every balance
/// is compared with a plain fold of the journal. Anything lost, applied twice or shown out of order ends it with
/// exit code 1.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct DemoArgs {
    /// How many events the bank is filled with.
    #[arg(long, default_value_t = 1_000_000, value_name = "N")]
    events: u64,
    /// Over how many accounts.
    #[arg(long, default_value_t = 100_000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    accounts: u64,
    /// How many clients append and read meanwhile, each as fast as it is answered.
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    clients: u16,
    /// Keep the data in this directory, which must not hold events yet.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Stay up at the end, to look around with `dacapo status`, until Ctrl-C.
    #[arg(long)]
    keep: bool,
    /// The address on which `dacapo status` finds the demo while it runs.
    #[arg(long, default_value = "127.0.0.1:7373", value_name = "ADDR")]
    listen: SocketAddr,
    /// Print the summary as one JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs the demo; what is not as it must be at its end is an error.
pub(crate) async fn demo(out: &mut Out, args: DemoArgs) -> Result<(), CliError> {
    if args.events < args.accounts {
        let message = format!("{} events cannot open {} accounts", args.events, args.accounts);
        return Err(Problem::new("bad_arguments", message).help("raise --events or lower --accounts").into());
    }
    let temporary = args.data.is_none().then(tempfile::tempdir).transpose();
    let temporary = temporary.map_err(|error| ApiError::unavailable("make a temporary directory", error))?;
    let directory = match (&args.data, &temporary) {
        (Some(directory), _) => directory.as_path(),
        (None, Some(temporary)) => temporary.path(),
        (None, None) => unreachable!("without --data there is a temporary directory"),
    };
    let demo = Demo::start(&args, directory).await?;
    let summary = demo.run().await;
    let summary = match summary {
        Ok(summary) => summary,
        Err(error) => {
            demo.node.shutdown().await;
            return Err(error.into());
        }
    };
    out.text(&if args.json { report::json(&summary) } else { report::table(&summary) })?;
    out.flush()?;
    if args.keep {
        demo.say(&format!("it stays up: try `dacapo status --at http://{}`; Ctrl-C ends it", demo.address));
        tokio::signal::ctrl_c().await.map_err(|error| ApiError::unavailable("wait for Ctrl-C", error))?;
    }
    demo.node.shutdown().await;
    if let Some(directory) = &args.data {
        demo.say(&format!("the data is kept in {}", directory.display()));
    }
    if summary.is_good() { Ok(()) } else { Err(report::fault(&summary).into()) }
}

struct Demo {
    args: DemoArgs,
    node: Node,
    projection: ProjectionName,
    address: SocketAddr,
    /// Serves the API for as long as this is there.
    _serving: tokio::sync::watch::Sender<()>,
}

impl Demo {
    async fn start(args: &DemoArgs, directory: &Path) -> Result<Self, ApiError> {
        let node = Node::builder().data(directory).carry(version_1()).start().await;
        let node = node.map_err(|error| ApiError::unavailable("start a node", error))?;
        if node
            .journal()
            .read(dacapo::Position::START, &dacapo::Filter::default(), dacapo::Limit::events(1))
            .await
            .is_ok_and(|batch| !batch.is_empty())
        {
            node.shutdown().await;
            let message =
                format!("{} holds events already, which the demo would mix with its own", directory.display());
            return Err(Problem::new("not_empty", message).help("choose another directory for --data").refused());
        }
        let listener = match dacapo_server::bind(args.listen, Access::Loopback).await {
            Ok(listener) => listener,
            // Another demo may be running; any port does.
            Err(_) => dacapo_server::bind(SocketAddr::from(([127, 0, 0, 1], 0)), Access::Loopback).await?,
        };
        let address = listener.local_addr().map_err(|error| ApiError::unavailable("learn the address", error))?;
        let router = dacapo_server::router(Arc::new(NodeApi::new(node.clone(), "demo")));
        let (serving, mut stopped) = tokio::sync::watch::channel(());
        let shutdown = async move {
            // The sender is dropped with the demo.
            while stopped.changed().await.is_ok() {}
        };
        tokio::spawn(dacapo_server::serve(listener, router, Access::Loopback, shutdown));
        let projection = ProjectionName::new("balances").map_err(ApiError::from)?;
        let demo = Self { args: args.clone(), node, projection, address, _serving: serving };
        demo.say(&format!("watch it from another terminal: dacapo status --watch --at http://{address}"));
        Ok(demo)
    }

    async fn run(&self) -> Result<Summary, ApiError> {
        let (books, append_per_s) = self.fill().await?;
        self.until(VersionId { code: 1, build: 1 }, "version 1 catches up", |phase, _| phase == Phase::Serving).await?;

        let traffic = Traffic::start(&self.node, books, self.args.clients);
        self.say(&format!("{} clients append and read from here on", self.args.clients));
        tokio::time::sleep(SERVE_TIME).await;
        let replay_per_s = self.rebuild().await?;
        let first = self.flip().await?;
        tokio::time::sleep(SERVE_TIME).await;
        let (back, rollback) = self.roll_back().await?;
        tokio::time::sleep(SERVE_TIME).await;
        let second = self.flip().await?;
        tokio::time::sleep(SERVE_TIME).await;
        self.clean_up().await?;
        let (books, counted) = traffic.stop().await;

        let pauses = [first, back, second].into_iter().filter_map(|report| report.pause);
        let longest = pauses.max().unwrap_or_default();
        self.sum_up(books, counted, append_per_s, replay_per_s, longest, rollback).await
    }

    async fn fill(&self) -> Result<(Vec<Books>, f64), ApiError> {
        let bar = self.bar(self.args.events, "fill the bank");
        let started = Instant::now();
        let books = fill::fill(&self.node, self.args.events, self.args.accounts, &bar).await.map_err(failed)?;
        let rate = self.args.events as f64 / started.elapsed().as_secs_f64();
        self.done(
            &bar,
            &format!(
                "filled: {} events in {} accounts",
                report::grouped(self.args.events),
                report::grouped(self.args.accounts)
            ),
        );
        Ok((books.split(self.args.clients), rate))
    }

    /// Brings in version 2, and waits until it could be flipped to. Returns positions replayed a second.
    async fn rebuild(&self) -> Result<f64, ApiError> {
        let head = self.node.head();
        let started = Instant::now();
        self.node.carry(version_2()).map_err(failed)?;
        let version = VersionId { code: 2, build: 1 };
        // The rate is that of the past: what was in the journal when the rebuild began.
        self.until(version, "rebuild as version 2", |_, stage| stage > Some(Stage::Replaying)).await?;
        let rate = head.get() as f64 / started.elapsed().as_secs_f64();
        self.until(version, "version 2 catches up", |_, stage| stage == Some(Stage::Ready)).await?;
        Ok(rate)
    }

    async fn flip(&self) -> Result<FlipReport, ApiError> {
        let requested = self.node.flip(&self.projection, None, asked("the demo flips")).await.map_err(failed)?;
        let report = self.node.flipped(&requested, STEP_TIME_MAX).await.map_err(failed)?;
        self.say(&format!("flipped to {}: appliers held for {}", report.to, report::millis(report.pause)));
        Ok(report)
    }

    async fn roll_back(&self) -> Result<(FlipReport, Duration), ApiError> {
        let started = Instant::now();
        let requested =
            self.node.rollback(&self.projection, None, asked("the demo rolls back")).await.map_err(failed)?;
        let report = self.node.flipped(&requested, STEP_TIME_MAX).await.map_err(failed)?;
        let took = started.elapsed();
        self.say(&format!("rolled back to {} in {}", report.to, report::millis(Some(took))));
        Ok((report, took))
    }

    async fn clean_up(&self) -> Result<(), ApiError> {
        let view = ViewId { projection: self.projection.clone(), version: VersionId { code: 1, build: 1 } };
        self.node.clean_up(&view, asked("the demo is done with version 1")).await.map_err(failed)?;
        let mut catalog = self.node.catalog();
        let gone = |catalog: &Arc<dacapo::Catalog>| {
            catalog.version(&view).is_some_and(|version| version.phase == Phase::Obsolete)
        };
        let waited = tokio::time::timeout(STEP_TIME_MAX, catalog.wait_for(gone)).await;
        waited
            .map_err(|_| ApiError::unavailable("clean up version 1", "it took too long"))?
            .map_err(|error| ApiError::unavailable("clean up version 1", error))?;
        self.say("cleaned up version 1");
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
        let bar = self.bar(self.node.head().get(), "audit: fold the journal");
        let found = audit::audit(&self.node, &books, &bar).await.map_err(failed)?;
        self.done(&bar, "audited: every balance compared with a plain fold of the journal");
        Ok(Summary {
            events: found.events,
            accounts: found.accounts,
            append_per_s,
            replay_per_s,
            flip_pause_ms: flip_pause.as_secs_f64() * 1e3,
            rollback_ms: rollback.as_secs_f64() * 1e3,
            requests: counted.requests,
            failed: counted.failed,
            lost: counted.lost + found.lost,
            applied_twice: counted.applied_twice + found.applied_twice,
            time_travel: counted.time_travel,
            first_failure: counted.first_failure,
            append_times: counted.append_times,
            read_times: counted.read_times,
        })
    }

    /// Shows how `version` gets on until it is as `wanted`.
    async fn until(
        &self,
        version: VersionId,
        title: &str,
        wanted: impl Fn(Phase, Option<Stage>) -> bool,
    ) -> Result<(), ApiError> {
        let bar = self.bar(self.node.head().get(), title);
        let deadline = Instant::now() + STEP_TIME_MAX;
        loop {
            let status = self.node.status().await.map_err(failed)?;
            let versions = status.projections.iter().flat_map(|projection| &projection.versions);
            if let Some(found) = versions.into_iter().find(|found| found.version == version) {
                bar.set_length(status.head.get());
                bar.set_position(found.covers.get());
                if wanted(found.phase, found.stage) {
                    self.done(&bar, &format!("{title}: done in {:.1} s", bar.elapsed().as_secs_f64()));
                    return Ok(());
                }
                if found.phase == Phase::Failed || Instant::now() > deadline {
                    let waiting: Vec<_> = found.waiting_on.iter().map(ToString::to_string).collect();
                    return Err(ApiError::unavailable(
                        title,
                        format!("{} waits on {}", found.version, waiting.join("; ")),
                    ));
                }
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }

    fn bar(&self, length: u64, title: &str) -> ProgressBar {
        let shown = std::io::stderr().is_terminal();
        let target = if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let style =
            ProgressStyle::with_template("{msg:24} {bar:32} {percent:>3} %  {human_pos}  {per_sec}  {eta} left");
        let style = style.expect("the template is well formed").progress_chars("━╸ ");
        ProgressBar::with_draw_target(Some(length), target).with_style(style).with_message(title.to_owned())
    }

    fn done(&self, bar: &ProgressBar, text: &str) {
        bar.finish_and_clear();
        self.say(text);
    }

    #[expect(clippy::print_stderr, reason = "how the demo gets on is for whoever watches, apart from the summary")]
    fn say(&self, text: &str) {
        eprintln!("• {text}");
    }
}

fn version_1() -> Carried {
    Carried::version(BalancesV1 { options: options() }).answers::<BalanceOf>().into()
}

fn version_2() -> Carried {
    Carried::version(BalancesV2 { options: options() }).answers::<BalanceOf>().into()
}

fn options() -> Options {
    let segments = dacapo::SegmentCount::new(4).expect("four is in range");
    Options { segments, flip: FlipPolicy::OnCommand, ..Options::default() }
}

fn asked(reason: &str) -> Asked {
    Asked::by("demo").because(reason)
}

fn failed(error: dacapo::Error) -> ApiError {
    ApiError::unavailable("go on with the demo", error)
}

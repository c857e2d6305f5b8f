//! A service on dacapo: accounts over HTTP, with the API of dacapo beside them, so that the command
//! line `dacapo` operates the same process.
//!
//! ```sh
//! cargo run -p dacapo-example-bank -- --data /tmp/bank --versions 1
//! curl -X PUT  http://127.0.0.1:8080/accounts/17 --json '{"owner":"ann"}'
//! curl         http://127.0.0.1:8080/accounts/17/deposits --json '{"amount":500}'
//! dacapo status --at http://127.0.0.1:8080
//! ```
//!
//! A new release of the service carries the version that serves and the next one: `--versions 1,2`. The
//! new version is built beside the old one, and `dacapo flip balances` moves the readers to it.

mod failure;

use std::error::Error;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use clap::Parser;
use dacapo::{
    AppendRefused, Appended, Carried, ExpectedRevision, FlipPolicy, Node, Options, Position, Revision, Verify,
};
use dacapo_example_bank::webhook::{Movement, Webhooks};
use dacapo_example_bank::{AccountEvent, BalanceOf, BalancesV1, BalancesV2};
use dacapo_server::{Access, NodeApi};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::failure::Failure;

/// How long the receiver of a movement may take to answer.
const WEBHOOK_PATIENCE: Duration = Duration::from_secs(10);
/// How often a withdrawal is decided anew when others were faster.
const TRIES_MAX: u32 = 10;

/// A bank: accounts over HTTP, on dacapo.
#[derive(Parser)]
#[command(max_term_width = 100)]
struct Args {
    /// Where to keep everything
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The address to listen on
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// The versions of the view of balances that this release carries
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "1,2",
          value_parser = clap::value_parser!(u32).range(1..=2))]
    versions: Vec<u32>,
    /// Tell every movement of money to this address, by POST
    #[arg(long, value_name = "URL")]
    webhook: Option<String>,
}

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<(), Box<dyn Error>> {
    let end = dacapo_server::asked_to_end()?;
    let listener = dacapo_server::bind(args.listen, Access::Loopback).await?;
    // One in twenty of the questions to the version that serves is put to the next one as well.
    let verify = Verify { shadow_share: 0.05, ..Verify::default() };
    let options = Options { flip: FlipPolicy::OnCommand, verify, ..Options::default() };
    let mut builder = Node::builder().data(&args.data);
    for version in &args.versions {
        let options = options.clone();
        let carried: Carried = match version {
            1 => Carried::version(BalancesV1 { options }).answers::<BalanceOf>().into(),
            _ => Carried::version(BalancesV2 { options }).shadows::<BalanceOf>().into(),
        };
        builder = builder.carry(carried);
    }
    if let Some(url) = &args.webhook {
        let webhooks = Webhooks::new(url, WEBHOOK_PATIENCE, Options::default())?;
        builder = builder.carry(Carried::version(webhooks).acts::<Movement>());
    }
    let node = builder.start().await?;
    let operations = dacapo_server::router(Arc::new(NodeApi::new(node.clone(), "bank")));
    let app = routes(node.clone()).merge(operations);
    tracing::info!("listening on http://{}", listener.local_addr()?);
    let served = dacapo_server::serve(listener, app, Access::Loopback, end).await;
    // Requests have ended before the node does.
    node.shutdown().await;
    tracing::info!("ended in order");
    Ok(served?)
}

fn routes(node: Node) -> Router {
    Router::new()
        .route("/accounts/{number}", get(balance).put(open))
        .route("/accounts/{number}/deposits", post(deposit))
        .route("/accounts/{number}/withdrawals", post(withdraw))
        .with_state(node)
}

#[derive(Deserialize)]
struct Owner {
    owner: String,
}

#[derive(Deserialize)]
struct Money {
    /// In cents.
    amount: NonZeroU32,
    #[serde(default)]
    note: String,
}

#[derive(Deserialize)]
struct After {
    /// The position of an append whose effect the answer shall show.
    #[serde(default)]
    after: u64,
}

type Body<T> = Result<Json<T>, JsonRejection>;

async fn open(State(node): State<Node>, Path(number): Path<String>, body: Body<Owner>) -> Result<Response, Failure> {
    let (account, Owner { owner }) = (stream(&number), body?.0);
    match node.append(account.as_str(), ExpectedRevision::NoStream, [AccountEvent::Opened { owner }]).await {
        Err(error) if was_slower(&error) => {
            Err(Failure::new(StatusCode::CONFLICT, "open", "is open already", &account))
        }
        appended => Ok((StatusCode::CREATED, appended_at(&account, appended?)).into_response()),
    }
}

async fn deposit(State(node): State<Node>, Path(number): Path<String>, body: Body<Money>) -> Result<Response, Failure> {
    let (account, Money { amount, note }) = (stream(&number), body?.0);
    let deposited = AccountEvent::Deposited { amount: amount.get().into(), note };
    match node.append(account.as_str(), ExpectedRevision::Exists, [deposited]).await {
        Err(error) if was_slower(&error) => Err(Failure::no_account(&account)),
        appended => Ok(appended_at(&account, appended?).into_response()),
    }
}

/// Draws what is there: the balance that was looked at is that of the revision the append expects, so
/// two withdrawals at once cannot both have the last cent.
async fn withdraw(
    State(node): State<Node>,
    Path(number): Path<String>,
    body: Body<Money>,
) -> Result<Response, Failure> {
    let (account, Money { amount, note }) = (stream(&number), body?.0);
    let amount = i64::from(amount.get());
    for _ in 0..TRIES_MAX {
        let found = node.ask(BalanceOf { account: account.clone() }).after(node.head()).await?;
        let found = found.value.ok_or_else(|| Failure::no_account(&account))?;
        if found.balance < amount {
            let has = format!("has {}, which is less than {amount}", found.balance);
            return Err(Failure::new(StatusCode::CONFLICT, "not_enough", &has, &account));
        }
        let looked_at = ExpectedRevision::Exact(Revision::new(found.entries.unsigned_abs()));
        let withdrawn = AccountEvent::Withdrawn { amount, note: note.clone() };
        match node.append(account.as_str(), looked_at, [withdrawn]).await {
            Err(error) if was_slower(&error) => {}
            appended => return Ok(appended_at(&account, appended?).into_response()),
        }
    }
    Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "is written to by many: try again", &account))
}

async fn balance(
    State(node): State<Node>,
    Path(number): Path<String>,
    query: Result<Query<After>, QueryRejection>,
) -> Result<Response, Failure> {
    let (account, After { after }) = (stream(&number), query?.0);
    let answer = node.ask(BalanceOf { account: account.clone() }).after(Position::new(after)).await?;
    let found = answer.value.ok_or_else(|| Failure::no_account(&account))?;
    let (version, covers) = (answer.version.to_string(), answer.covers.get());
    Ok(Json(json!({ "account": account, "balance": found.balance, "version": version, "covers": covers }))
        .into_response())
}

fn stream(number: &str) -> String {
    format!("account-{number}")
}

fn appended_at(account: &str, appended: Appended) -> Json<Value> {
    Json(json!({ "account": account, "position": appended.position.get() }))
}

fn was_slower(error: &dacapo::Error) -> bool {
    matches!(error, dacapo::Error::Append(AppendRefused::WrongRevision { .. }))
}

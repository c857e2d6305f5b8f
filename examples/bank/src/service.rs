//! The service: routes of its own, with the API of dacapo beside them, on a directory or on a database that it shares
//! with other nodes.

mod failure;

use std::error::Error;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use dacapo::journal::{Appended, Revision};
use dacapo::options::{FlipPolicy, SegmentCount};
use dacapo::verify::Verify;
use dacapo::{ExpectedRevision, Node, NodeBuilder, Options, Position, Projection, VersionCode};
use dacapo_server::{Access, Hosts, NodeApi};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::webhook::{Movement, Webhooks};
use crate::{AccountEvent, BalanceOf, BalancesV1, BalancesV2};
use failure::Failure;

/// How long the receiver of a movement may take to answer.
const WEBHOOK_PATIENCE: Duration = Duration::from_secs(10);
/// How often a withdrawal is decided again after others were faster.
const TRIES_MAX: u32 = 10;

/// What a node of the service is told on its command line.
#[derive(Clone, Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("place").required(true).args(["data", "store"])))]
pub struct Settings {
    /// Keep everything in this directory
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Keep everything in this PostgreSQL database, which other nodes share: postgres://user@host/name. With a
    /// password in it, set DACAPO_STORE instead: what is on a command line can be seen
    #[arg(long, value_name = "URL", env = "DACAPO_STORE", hide_env_values = true)]
    pub store: Option<String>,
    /// The schema in that database
    #[arg(long, value_name = "NAME", env = "DACAPO_SCHEMA", default_value = "dacapo")]
    pub schema: String,
    /// What people call this node; the address it listens on when absent
    #[arg(long, value_name = "NAME", env = "DACAPO_NAME")]
    pub name: Option<String>,
    /// Where others reach this node; the address it listens on when absent
    #[arg(long, value_name = "URL", env = "DACAPO_ADDRESS")]
    pub address: Option<String>,
    /// The address to listen on
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// A name under which a proxy asks for the operations of dacapo; may be given several times
    #[arg(long = "host", value_name = "NAME")]
    pub hosts: Vec<String>,
    /// The versions of the view of balances that this release carries
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "1,2",
          value_parser = clap::value_parser!(u32).range(1..=2))]
    pub versions: Vec<u32>,
    /// Into how many segments a new build of the view is cut, which nodes share among them
    #[arg(long, value_name = "N", default_value = "1", value_parser = segments)]
    pub segments: SegmentCount,
    /// Tell every movement of money to this address, by POST
    #[arg(long, value_name = "URL")]
    pub webhook: Option<String>,
}

fn segments(text: &str) -> Result<SegmentCount, String> {
    let count: u16 = text.parse().map_err(|error| format!("{error}"))?;
    SegmentCount::new(count).map_err(|error| error.to_string())
}

impl Settings {
    /// How the versions are built and run.
    pub fn options(&self) -> Options {
        // One in twenty of the questions to the version that serves is put to the next one as well.
        let verify = Verify { shadow_share: 0.05, ..Verify::default() };
        Options { flip: FlipPolicy::OnCommand, verify, segments: self.segments, ..Options::default() }
    }

    /// The versions that this release carries.
    pub fn carried(&self) -> impl Iterator<Item = VersionCode> + '_ {
        self.versions.iter().map(|version| {
            let options = self.options();
            match version {
                1 => BalancesV1 { options }.answering::<BalanceOf>().into(),
                _ => BalancesV2 { options }.shadowing::<BalanceOf>().into(),
            }
        })
    }

    async fn place(&self) -> Result<NodeBuilder, Box<dyn Error>> {
        let builder = Node::builder();
        match (&self.store, &self.data) {
            (Some(url), _) => {
                // Nodes that lost the database at the same moment do not all come back at the same moment.
                let seed = RandomState::new().hash_one("pauses");
                let options = dacapo_postgres::Options { schema: self.schema.clone(), seed, ..Default::default() };
                Ok(builder.store(dacapo_postgres::connect(url, options).await?))
            }
            (None, Some(data)) => Ok(builder.data(data)),
            (None, None) => Ok(builder),
        }
    }
}

/// Runs a node of the service until it is asked to end. `carry` gives it what it carries.
///
/// # Errors
/// What keeps it from starting or from serving.
pub async fn run(args: Settings, carry: impl FnOnce(NodeBuilder) -> NodeBuilder) -> Result<(), Box<dyn Error>> {
    let end = dacapo_server::asked_to_end()?;
    let listener = dacapo_server::bind(args.listen, Access::Loopback).await?;
    let at = format!("http://{}", listener.local_addr()?);
    let name = args.name.clone().unwrap_or_else(|| if args.store.is_some() { at.clone() } else { "bank".to_owned() });
    let builder = args.place().await?.name(&name).address(args.address.as_ref().unwrap_or(&at));
    let mut builder = carry(builder);
    if let Some(url) = &args.webhook {
        let webhooks = Webhooks::new(url, WEBHOOK_PATIENCE, Options::default())?;
        builder = builder.projection(webhooks.acting::<Movement>());
    }
    let node = builder.start().await?;
    let api = Arc::new(NodeApi::new(node.clone(), name));
    // The operations are guarded, the routes of the bank are not: whoever may use those is for the bank to say.
    let app = routes(node.clone()).merge(dacapo_server::router(api, &Hosts::named(&args.hosts)?));
    tracing::info!("listening on {at}");
    let served = dacapo_server::serve(listener, app, end).await;
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
        Err(error) if error.is_wrong_revision() => {
            Err(Failure::new(StatusCode::CONFLICT, "open", "is open already", &account))
        }
        appended => Ok((StatusCode::CREATED, appended_at(&account, appended?)).into_response()),
    }
}

async fn deposit(State(node): State<Node>, Path(number): Path<String>, body: Body<Money>) -> Result<Response, Failure> {
    let (account, Money { amount, note }) = (stream(&number), body?.0);
    let deposited = AccountEvent::Deposited { amount: amount.get().into(), note };
    match node.append(account.as_str(), ExpectedRevision::Exists, [deposited]).await {
        Err(error) if error.is_wrong_revision() => Err(Failure::no_account(&account)),
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
            Err(error) if error.is_wrong_revision() => {}
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

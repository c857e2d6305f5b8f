//! A simulated host that runs a node: the product's own code, with its own HTTP API.

use std::net::Ipv4Addr;
use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use dacapo::world::Offload;
use dacapo::{Answered, Node, Position};
use dacapo_server::NodeApi;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::http::{Listening, PORT};
use crate::ledger::{self, TheTally, TotalOf, carried};
use crate::limits;
use crate::world::{HOSTS, Program, SimClock, SimIds, Steps, World, locked};

/// Returns the program of the host in `slot`, from its start to its crash.
pub async fn run(world: Arc<World>, slot: usize) -> turmoil::Result {
    let name = HOSTS[slot];
    world.note(format!("{name} comes up"));
    let listener = turmoil::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).await?;
    // What is deployed from here on is carried from the start, or told.
    let mut deployed = world.deployed[slot].subscribe();
    let node = loop {
        let run = world.begin_run(slot);
        match start(&world, slot, run).await {
            Ok(node) => break node,
            Err(error) => world.note(format!("{name} does not start: {error}")),
        }
        tokio::time::sleep(limits::START_REST).await;
    };
    world.note(format!("{name} runs"));
    let operations = dacapo_server::router(Arc::new(NodeApi::new(node.clone(), name)), &dacapo_server::Hosts::any());
    let app = routes(node.clone()).merge(operations);
    let mut ending = world.ending[slot].subscribe();
    let end = async move {
        // The sender lasts as long as the world.
        let _ = ending.wait_for(|ending| *ending).await;
    };
    let deploying = async {
        loop {
            if deployed.changed().await.is_err() {
                return;
            }
            let program = deployed.borrow_and_update().clone();
            let knows_fewer = locked(&world.knows_fewer)[slot];
            for (projection, code) in codes(&program) {
                // Of the first release, what is carried may not be what its number stands for any more.
                if knows_fewer && world.upgrade.is_of_first(projection, code) {
                    continue;
                }
                // Carrying what is carried already is carrying it.
                if let Err(error) = node.add_projection(carried(&world, projection, code, false)) {
                    world.violated(format!("{name} cannot carry {projection} v{code}: {error}"));
                }
            }
        }
    };
    let serving = axum::serve(Listening(listener), app);
    tokio::select! {
        () = end => {}
        served = async { serving.await } => served?,
        () = deploying => {}
    }
    world.note(format!("{name} ends in order"));
    node.shutdown().await;
    world.note(format!("{name} has ended"));
    std::future::pending().await
}

async fn start(world: &Arc<World>, slot: usize, run: u64) -> Result<Node, dacapo::StartError> {
    let mut builder = Node::builder()
        .store(crate::disk::open(world, slot, run))
        .name(HOSTS[slot])
        .clock(Arc::new(SimClock::of(world, slot)))
        .ids(Arc::new(SimIds(Arc::clone(world))))
        .probe(Arc::new(Steps(Arc::clone(world), HOSTS[slot])))
        .offload(Offload::Inline);
    let program = world.deployed[slot].borrow().clone();
    let knows_fewer = world.upgrade.is_before(world.now());
    locked(&world.knows_fewer)[slot] = knows_fewer;
    for (projection, code) in codes(&program) {
        let fewer = knows_fewer && world.upgrade.is_of_first(projection, code);
        builder = builder.projection(carried(world, projection, code, fewer));
    }
    let node = builder.start().await?;
    if !knows_fewer {
        world.upgrade.look(&node.catalog().borrow());
    }
    Ok(node)
}

/// Returns every code version in a program.
fn codes(program: &Program) -> impl Iterator<Item = (&'static str, u32)> {
    program.iter().flat_map(|(projection, codes)| codes.clone().map(|code| (*projection, code)))
}

#[derive(Deserialize)]
struct After {
    #[serde(default)]
    after: u64,
}

type Answer = Result<Json<Value>, (StatusCode, Json<Value>)>;

fn routes(node: Node) -> Router {
    Router::new().route("/totals/{ledger}", get(total)).route("/tally", get(tally)).with_state(node)
}

async fn total(State(node): State<Node>, Path(ledger): Path<String>, Query(query): Query<After>) -> Answer {
    answer(node.ask(TotalOf(ledger)).after(Position::new(query.after)).within(limits::QUERY_TIME_MAX).await)
}

async fn tally(State(node): State<Node>, Query(query): Query<After>) -> Answer {
    answer(node.ask(TheTally).after(Position::new(query.after)).within(limits::QUERY_TIME_MAX).await)
}

fn answer(answered: Result<Answered<ledger::Answer>, dacapo::Error>) -> Answer {
    match answered {
        Ok(Answered { value: (sum, events, digest), version, covers }) => Ok(Json(json!({
            "sum": sum, "events": events, "digest": digest, "version": version.to_string(), "covers": covers.get(),
        }))),
        Err(error) => Err((StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "code": error.to_string() })))),
    }
}

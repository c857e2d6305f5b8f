//! Clocks that somebody sets while a node runs: no stand-by ends by that.

use std::sync::Arc;
use std::time::Duration;

use dacapo::catalog::Phase;
use dacapo::world::Clock;
use dacapo::{Node, Options};

use crate::common::*;
use crate::marks::planned;

const DAY: Duration = Duration::from_secs(86_400);

/// A node whose version 2 is ready.
async fn node(directory: &std::path::Path, clock: &Arc<ManualClock>) -> Node {
    let options = Options { stand_by: DAY, ..options() };
    let builder = Node::builder().data(directory).clock(Arc::clone(clock) as Arc<dyn Clock>);
    let builder = builder.projection(carry_v1(TotalsV1 { options: options.clone(), ..v1() }));
    let node = builder.start().await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    node.add_projection(carry_v2(TotalsV2 { options, ..v2() })).unwrap();
    ready_or_past(&node, "v2.1").await;
    node
}

// I-8
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_set_forward_and_back_ends_no_stand_by() {
    let (directory, clock) = (tempfile::tempdir().unwrap(), Arc::new(ManualClock::default()));
    let node = node(directory.path(), &clock).await;
    flip(&node).await;
    phase(&node, "v1.1", Phase::StandingBy).await;
    let right = clock.now();

    clock.set(right.plus(2 * DAY));
    planned::<1>(&node).await;
    phase(&node, "v1.1", Phase::StandingBy).await;
    clock.set(right);
    planned::<2>(&node).await;
    phase(&node, "v1.1", Phase::StandingBy).await;
    roll_back(&node).await;
    phase(&node, "v2.1", Phase::StandingBy).await;
    check_serving(&node).await;

    // The next one begins under a clock that is ahead, and lasts as long as any.
    clock.set(right.plus(2 * DAY));
    ready_and_flip(&node, "v2.1").await;
    clock.set(right);
    // The node counts from when it sees that.
    planned::<3>(&node).await;
    clock.advance(DAY - Duration::from_secs(1));
    planned::<4>(&node).await;
    phase(&node, "v1.1", Phase::StandingBy).await;
    clock.advance(Duration::from_secs(1));
    phase(&node, "v1.1", Phase::Obsolete).await;
    node.shutdown().await;
}

// I-8
#[tokio::test(flavor = "multi_thread")]
async fn a_stand_by_lasts_as_long_on_a_node_that_began_with_a_clock_that_was_ahead() {
    let (directory, clock) = (tempfile::tempdir().unwrap(), Arc::new(ManualClock::default()));
    let first = node(directory.path(), &clock).await;
    first.shutdown().await;
    let right = clock.now();

    clock.set(right.plus(2 * DAY));
    let second = node(directory.path(), &clock).await;
    clock.set(right);
    flip(&second).await;
    planned::<1>(&second).await;
    phase(&second, "v1.1", Phase::StandingBy).await;
    second.shutdown().await;

    // After a restart the clock counts.
    clock.set(right.plus(2 * DAY));
    let options = Options { stand_by: DAY, ..options() };
    let third = Node::builder().data(directory.path()).clock(clock as Arc<dyn Clock>);
    let third = third.projection(carry_v2(TotalsV2 { options, ..v2() })).start().await.unwrap();
    phase(&third, "v1.1", Phase::Obsolete).await;
    third.shutdown().await;
}

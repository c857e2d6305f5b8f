//! The clock of one of two nodes is set while both run.

use std::sync::Arc;
use std::time::Duration;

use dacapo::catalog::Phase;
use dacapo::world::{Clock, SystemClock};

use super::setup::*;
use crate::common::*;
use crate::marks::planned;

const DAY: Duration = Duration::from_secs(86_400);

// I-8
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_clock_of_one_node_that_is_set_forward_and_back_ends_no_stand_by() {
    let (store, clock) = (Shared::new(), Arc::new(ManualClock::default()));
    let right = SystemClock.now();
    clock.set(right);
    let one = store.node("one").projection(first()).start().await.unwrap();
    phase(&one, "v1.1", Phase::Serving).await;
    one.add_projection(second()).unwrap();
    let two = store.another().node("two").clock(Arc::clone(&clock) as Arc<dyn Clock>);
    let two = two.projection(first()).projection(second()).start().await.unwrap();
    ready_and_flip(&one, "v2.1").await;
    phase(&two, "v1.1", Phase::StandingBy).await;

    clock.set(right.plus(2 * DAY));
    planned::<1>(&two).await;
    phase(&one, "v1.1", Phase::StandingBy).await;
    clock.set(right);
    planned::<2>(&two).await;
    phase(&one, "v1.1", Phase::StandingBy).await;
    roll_back(&two).await;
    phase(&one, "v2.1", Phase::StandingBy).await;
    check_serving(&one).await;
    two.shutdown().await;
    one.shutdown().await;
}

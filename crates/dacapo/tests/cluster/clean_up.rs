//! Views go on every node, also on one that hears of it late.

use std::sync::Arc;
use std::time::Duration;

use dacapo::catalog::Phase;
use dacapo_testkit::{Call, Fault, Faults};
use tokio::sync::watch;

use super::setup::*;
use crate::common::*;

// I-12
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_that_hears_of_a_clean_up_only_once_it_is_over_lets_go_of_the_view_as_well() {
    let store = Shared::new();
    let one = store.node("one").projection(first()).start().await.unwrap();
    let late = store.another();
    let two = late.node("two").projection(first()).start().await.unwrap();
    phase(&two, "v1.1", Phase::Serving).await;
    one.add_projection(second()).unwrap();
    ready_and_flip(&one, "v2.1").await;
    phase(&one, "v1.1", Phase::StandingBy).await;
    let held = Arc::downgrade(&store.store.views.find(&view("v1.1")).await.unwrap().unwrap());
    late.hears.send_replace(false);
    one.version(view("v1.1")).clean_up().by("test").await.unwrap();
    phase(&one, "v1.1", Phase::Obsolete).await;
    late.hears.send_replace(true);
    until(&two, "the view is let go of", |_| held.upgrade().is_none()).await;
    two.shutdown().await;
    one.shutdown().await;
}

// I-12
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_view_that_a_late_node_makes_again_goes_however_often_the_store_fails() {
    let store = Shared::new();
    let one = store.node("one").projection(first()).start().await.unwrap();
    phase(&one, "v1.1", Phase::Serving).await;
    one.add_projection(second()).unwrap();
    ready_and_flip(&one, "v2.1").await;
    phase(&one, "v1.1", Phase::StandingBy).await;
    // A node that is about to open the first version while another one cleans that up.
    let faults = Faults::default();
    faults.always(Fault::Waits, |call| matches!(call, Call::Open(id) if **id == view("v1.1")));
    let two = tokio::spawn(store.another().node_with(&faults, "two").projection(first()).projection(second()).start());
    met(&faults).await;
    one.version(view("v1.1")).clean_up().by("test").await.unwrap();
    phase(&one, "v1.1", Phase::Obsolete).await;
    // From here on it makes the view again, and cannot drop it for a while.
    let (drops, mut dropped) = watch::channel(0);
    faults.plan(move |call| match call {
        Call::Drop(id) if **id == view("v1.1") => {
            drops.send_modify(|times| *times += 1);
            (*drops.borrow() < 4).then_some(Fault::Fails)
        }
        _ => None,
    });
    let two = two.await.unwrap().unwrap();
    tokio::time::timeout(WAIT_MAX, dropped.wait_for(|times| *times == 4)).await.unwrap().unwrap();
    let goes = async {
        while store.store.views.find(&view("v1.1")).await.unwrap().is_some() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(WAIT_MAX, goes).await.expect("I-12");
    check_serving(&two).await;
    two.shutdown().await;
    one.shutdown().await;
}

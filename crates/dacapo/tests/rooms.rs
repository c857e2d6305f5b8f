//! Rows that events of one segment write only: what counts is whose a row is, whatever is in memory.

#[path = "common/rooms.rs"]
mod rooms;

use std::sync::Arc;

use dacapo::store::{Journal, Store};
use dacapo::world::SystemClock;
use rooms::{a_copy_refuses_what_its_source_refuses, same_wherever_batches_end};

/// A journal in memory that a node which ends does not close, so that another one goes on with it.
struct KeptOpen {
    inner: Arc<dyn Journal>,
}

dacapo_store::delegate! {
    impl Journal for KeptOpen {
        id;
        mark;
        append;
        read;
        read_stream;
        stream_revision;
        streams;
        head;
        health;
        { async fn close(&self) {} }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn random_events_come_to_the_same_wherever_batches_end_in_memory() {
    same_wherever_batches_end(0..4, 120, async || {
        let store = Store::memory(Arc::new(SystemClock));
        let store = Store { journal: Arc::new(KeptOpen { inner: Arc::clone(&store.journal) }), ..store };
        async move || store.clone()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn random_events_come_to_the_same_wherever_batches_end_on_disk() {
    let mut directories = vec![];
    same_wherever_batches_end(4..6, 120, async || {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_owned();
        directories.push(directory);
        async move || Store::embedded(&path, Arc::new(SystemClock)).unwrap()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_refuses_what_its_source_refuses_on_every_store() {
    let directory = tempfile::tempdir().unwrap();
    a_copy_refuses_what_its_source_refuses(Store::memory(Arc::new(SystemClock))).await;
    a_copy_refuses_what_its_source_refuses(Store::embedded(directory.path(), Arc::new(SystemClock)).unwrap()).await;
}

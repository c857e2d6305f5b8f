//! Effects that the code of their version acts on no more.

use std::sync::Arc;

use dacapo::catalog::Phase;
use dacapo::effects::EffectFailure;
use dacapo::operate::WhichLetters;
use dacapo::status::{Status, VersionStatus, WaitingOn};
use dacapo::{Node, VersionCode};

use super::letters::{patient, until_listed};
use super::office::*;
use crate::common::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn effects_that_nothing_acts_on_any_more_are_told_until_somebody_drops_them() {
    let directory = tempfile::tempdir().unwrap();
    let office: Arc<Office> = Arc::default();
    office.fail.lock().unwrap().insert("ledger-1".into());
    let version_1 = || patient::<1>(&office, EffectFailure::Halt);
    let acts = Node::builder().data(directory.path()).projection(carry(version_1())).start().await.unwrap();
    phase(&acts, "v1.1", Phase::Serving).await;
    let position = add(&acts, "ledger-1", 1).await;
    until_listed(&acts, "v1.1", &[(position.get(), false)]).await;
    acts.shutdown().await;

    let node = Node::builder().data(directory.path()).projection(VersionCode::new(version_1()));
    let node = node.projection(carry(notices::<2>(&office))).start().await.unwrap();
    let left = WaitingOn::Acts { pending: 1 };
    let of = |status: &Status| status.projections[0].versions.iter().find(|it| it.version == version("v1.1")).cloned();
    let told = |found: &VersionStatus| found.waiting_on.contains(&left) && found.needs_somebody == Some(true);
    until(&node, "it says so", |status| of(status).is_some_and(|found| told(&found))).await;
    ready(&node, "v2.1").await;
    flip(&node).await;
    node.version(view("v1.1")).clean_up().by("ana").await.unwrap();
    let cleaned = |found: VersionStatus| found.phase == Phase::CleaningUp && told(&found);
    until(&node, "its clean-up waits and says for what", |status| of(status).is_some_and(cleaned)).await;
    assert_eq!(node.version(view("v1.1")).drop_effects(WhichLetters::All).by("ana").await.unwrap().letters, Some(1));
    phase(&node, "v1.1", Phase::Obsolete).await;
    node.shutdown().await;
}

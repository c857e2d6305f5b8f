//! Copies in a process that is killed.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;

use dacapo::{Node, Position, Row};
use dacapo_testkit::{Call, Fault, Faults};

use super::setup::*;
use crate::common::*;

/// The directory of a child process, and the call at which it dies.
const CHILD: &str = "DACAPO_SEED_CHILD";

/// Not a test: what the child does, if this process is one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Ok(told) = std::env::var(CHILD) else { return };
    let (die_at, directory) = told.split_once(':').unwrap();
    let (die_at, faults) = (die_at.to_owned(), Faults::default());
    faults.plan(move |call| {
        let of_new = |id: &dacapo::ViewId| id.version == version("v2.1");
        let dies = match call {
            Call::Attach(id) => die_at == "attach" && of_new(id),
            Call::Index(id) => die_at == "index" && of_new(id),
            Call::Commit(id) => die_at == "commit" && of_new(id),
            _ => false,
        };
        if dies {
            std::process::abort();
        }
        None::<Fault>
    });
    let node = Node::builder().store(faults.over(&embedded(Path::new(directory)))).projection(carry_v1(v1()));
    let _node = node.projection(carry_v2(copying(by_sql()))).start().await.unwrap();
    std::future::pending::<()>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_may_be_killed_while_it_copies() {
    for die_at in ["attach", "index", "commit"] {
        let directory = tempfile::tempdir().unwrap();
        serving(embedded(directory.path())).await.shutdown().await;
        let died = Command::new(std::env::current_exe().unwrap())
            .args(["kill::child", "--exact"])
            .env(CHILD, format!("{die_at}:{}", directory.path().display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(!died.success(), "{die_at}: it was to die");
        let store = embedded(directory.path());
        let left = store.views.find(&view("v2.1")).await.unwrap().unwrap();
        assert!(left.tokens().await.unwrap().iter().all(|token| token.position == Position::START), "{die_at}");
        let rows = left.reader().await.unwrap().select(&TotalWithLast::TABLE, &[], 10).await.unwrap();
        assert_eq!(rows.len(), 0, "{die_at}: rows come with their tokens");
        drop(left);
        let version_2 = copying(by_sql());
        let node = Node::builder().store(store).projection(carry_v1(v1())).projection(carry_v2(version_2.clone()));
        let node = node.start().await.unwrap();
        check_copied(&node, "v2.1").await;
        assert_eq!(version_2.behaviour.applied.load(Ordering::SeqCst), 0, "{die_at}");
        node.shutdown().await;
    }
}

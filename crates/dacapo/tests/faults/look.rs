//! A node that only looks.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::common::*;
use super::setup::store;
use dacapo::catalog::Phase;
use dacapo::journal::{Filter, Limit};
use dacapo::{Node, Position};
use dacapo_testkit::{Call, Fault, Faults};

/// Every file in the directory, byte for byte.
fn files(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(directory).unwrap().map(Result::unwrap) {
        match entry.file_type().unwrap().is_dir() {
            true => files.extend(self::files(&entry.path())),
            false => drop(files.insert(entry.path(), std::fs::read(entry.path()).unwrap())),
        }
    }
    files
}

/// A version serves, one is being built, and one is being cleaned up, as when a process ends in the middle. Returns the
/// node, and the last position that the first one covers.
async fn in_the_middle(directory: &Path) -> (Node, Position) {
    let faults = Faults::default();
    let builder = Node::builder().store(faults.over(&store(directory)));
    let node = Scenario::on(builder).serving(v1()).added("ledger-1", 5).building(v2().held()).start().await;
    faults.always(Fault::Fails, |call| matches!(call, Call::Drop(_)));
    node.projection(totals()).unwrap().rebuild().code(2).by("test").await.unwrap();
    phase(&node, "v2.1", Phase::CleaningUp).await;
    phase(&node, "v2.2", Phase::Initializing).await;
    let last = add(&node, "ledger-1", 6).await;
    ask(&node, "ledger-1", last).await;
    (node, last)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_only_looks_changes_no_byte_and_carries_nothing_on() {
    let [closed, killed] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let (node, last) = in_the_middle(closed.path()).await;
    for part in ["", "journal", "views/totals"] {
        let to = killed.path().join(part);
        std::fs::create_dir_all(&to).unwrap();
        let is_file = |entry: &std::fs::DirEntry| entry.file_type().unwrap().is_file();
        for entry in std::fs::read_dir(closed.path().join(part)).unwrap().map(Result::unwrap).filter(is_file) {
            match std::fs::copy(entry.path(), to.join(entry.file_name())) {
                // What the node has just put in the place of another file has no name of its own any more.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                copied => drop(copied.unwrap()),
            }
        }
    }
    node.shutdown().await;
    drop(node);
    // The last connection to a view takes the file away.
    let log = |version: &str| closed.path().join(format!("views/totals/{version}.db-wal"));
    let is_open = || ["v1.1", "v2.1", "v2.2"].map(log).iter().any(|log| log.exists());
    let all_closed = async {
        while is_open() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), all_closed).await.expect("every view is closed");
    assert!(killed.path().join("views/totals/v1.1.db-wal").exists(), "it was open");
    // What does not belong to the version that is being built.
    let [ours, theirs] = ["v1.1", "v2.2"].map(|version| closed.path().join(format!("views/totals/{version}.db")));
    std::fs::copy(ours, theirs).unwrap();

    for directory in [closed.path(), killed.path()] {
        let before = files(directory);
        let look = || Node::builder().data(directory).looks().start();
        let node = look().await.unwrap();
        let status = node.status().await.unwrap();
        let phases: Vec<_> = status.projections[0].versions.iter().map(|found| found.phase).collect();
        assert_eq!(phases, [Phase::Serving, Phase::CleaningUp, Phase::Initializing]);
        assert!(status.projections[0].versions[0].covers >= last, "{status:?}");
        assert!(node.history().await.unwrap().len() > 5);
        assert_eq!(node.version(view("v1.1")).letters().limit(10).await.unwrap().len(), 0);
        let events = node.journal().read(Position::START, &Filter::default(), Limit::events(10)).await.unwrap();
        assert_eq!(events.len(), 2);
        let append = node.append("ledger-1", dacapo::ExpectedRevision::Any, [added(1)]).await.unwrap_err();
        assert!(append.to_string().contains("only to look at it"), "{append}");
        assert!(node.version(view("v1.1")).pause().by("test").await.is_err());
        // Several may look, and nobody may change it meanwhile.
        let other = look().await.unwrap();
        let owner = Node::builder().data(directory).start().await.err().unwrap();
        assert!(owner.to_string().contains("another process looks at it"), "{owner}");
        other.shutdown().await;
        node.shutdown().await;
        drop((node, other));
        let after = files(directory);
        let changed: Vec<_> = after.iter().filter(|(path, bytes)| before.get(*path) != Some(bytes)).collect();
        assert_eq!(changed.iter().map(|(path, _)| path).collect::<Vec<_>>(), Vec::<&&PathBuf>::new());
        assert_eq!(after.len(), before.len());
        // Who may change it carries it on.
        let node = Node::builder().data(directory).start().await.unwrap();
        phase(&node, "v2.1", Phase::Obsolete).await;
        node.shutdown().await;
    }
}

//! A shutdown in which nothing ends by itself.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dacapo::catalog::Phase;
use dacapo::store::{Store, StoreError};
use dacapo::subscribe::Subscriber;
use dacapo::world::SystemClock;
use dacapo::{HandlerError, Node, Recorded, limits};
use dacapo_model::{Member, MemberId};
use dacapo_store::Members;
use tokio::time::Instant;

use super::office::*;
use crate::common::*;

/// Members that nobody can leave.
struct Stuck(Arc<dyn Members>);

#[async_trait]
impl Members for Stuck {
    async fn renew(&self, member: &Member, lease: Duration) -> Result<Vec<Member>, StoreError> {
        self.0.renew(member, lease).await
    }

    async fn leave(&self, _: MemberId) -> Result<(), StoreError> {
        std::future::pending().await
    }

    async fn live(&self) -> Result<Vec<Member>, StoreError> {
        self.0.live().await
    }
}

/// A subscriber that never returns.
struct Hangs;

impl Subscriber for Hangs {
    const NAME: &'static str = "hangs";
    type Event = LedgerEvent;

    async fn receive(&self, _: &Recorded<'_, LedgerEvent>) -> Result<(), HandlerError> {
        std::future::pending().await
    }
}

/// A handler, an effect, a subscriber and the store all hang.
#[tokio::test]
async fn a_shutdown_in_which_nothing_ends_is_over_in_its_time() {
    let office: Arc<Office> = Arc::default();
    office.hang.lock().unwrap().insert("ledger-1".into());
    let store = Store::memory(Arc::new(SystemClock));
    let members = Arc::new(Stuck(Arc::clone(&store.members)));
    let store = Store { members, ..store };
    let node = Node::builder().store(store).projection(carry(notices::<1>(&office))).subscriber(Hangs);
    let node = node.start().await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    add(&node, "ledger-1", 5).await;
    let tried = async {
        while office.tried().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(WAIT_MAX, tried).await.expect("an effect is under way");
    office.lags.send_replace(true);
    add(&node, "ledger-2", 5).await;
    // From here on nothing but a deadline ends a wait.
    tokio::time::pause();
    let begun = Instant::now();
    tokio::time::timeout(2 * limits::SHUTDOWN_TIME_MAX, node.shutdown()).await.expect("it ends");
    // A timer is exact to a millisecond.
    assert!(begun.elapsed().as_secs() <= limits::SHUTDOWN_TIME_MAX.as_secs(), "{:?}", begun.elapsed());
    assert!(office.made().is_empty());
}

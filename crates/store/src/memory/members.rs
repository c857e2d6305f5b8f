//! The members of a store that only one process uses, with one node or several.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use dacapo_model::{Member, MemberId, Timestamp};

use crate::clock::Clock;
use crate::error::StoreError;
use crate::members::Members;

/// Members that last as long as this value.
pub struct MemoryMembers {
    clock: Arc<dyn Clock>,
    /// The members, each with the end of its lease.
    known: Mutex<BTreeMap<MemberId, (Member, Timestamp)>>,
}

impl MemoryMembers {
    /// Returns an empty list of members. Leases are by `clock`.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, known: Mutex::default() }
    }

    /// Returns the members whose lease has not ended, and forgets the others.
    fn known(&self) -> MutexGuard<'_, BTreeMap<MemberId, (Member, Timestamp)>> {
        let now = self.clock.now();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, (_, end)| *end > now);
        known
    }
}

#[async_trait]
impl Members for MemoryMembers {
    async fn renew(&self, member: &Member, lease: Duration) -> Result<Vec<Member>, StoreError> {
        let mut known = self.known();
        known.insert(member.id, (member.clone(), self.clock.now().plus(lease)));
        Ok(known.values().map(|(member, _)| member.clone()).collect())
    }

    async fn leave(&self, id: MemberId) -> Result<(), StoreError> {
        self.known().remove(&id);
        Ok(())
    }

    async fn live(&self) -> Result<Vec<Member>, StoreError> {
        Ok(self.known().values().map(|(member, _)| member.clone()).collect())
    }
}

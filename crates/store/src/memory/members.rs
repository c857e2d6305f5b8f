//! The members of a store that one process has, or several nodes of one process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use dacapo_model::{Member, MemberId, Timestamp};

use crate::clock::Clock;
use crate::error::StoreError;
use crate::members::Members;

/// Members that are known as long as this value.
pub struct MemoryMembers {
    clock: Arc<dyn Clock>,
    /// Each with the end of its lease.
    known: Mutex<BTreeMap<MemberId, (Member, Timestamp)>>,
}

impl MemoryMembers {
    /// No members yet; leases are by `clock`.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, known: Mutex::default() }
    }

    /// Returns those whose lease has not ended; the others are forgotten.
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

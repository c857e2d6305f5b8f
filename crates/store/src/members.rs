//! Members: which nodes share the store and are alive.

use std::time::Duration;

use async_trait::async_trait;
use dacapo_model::{Member, MemberId, Timestamp};

use crate::error::StoreError;

/// The nodes that share a store. Each has a lease, by the store's own clock: whatever the clocks of the nodes say, all of
/// them agree on who is alive. A lease decides who is given work, never whose write lands; that is the epoch's to say
/// (I-4).
#[async_trait]
pub trait Members: Send + Sync + 'static {
    /// Gives `member` a lease for this long from now, in place of the one it has, keeps what it says of itself, and
    /// returns every member that has a lease, in the order of ids.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be written; then the earlier lease runs on.
    async fn renew(&self, member: &Member, lease: Duration) -> Result<Vec<Member>, StoreError>;

    /// Ends the lease of a member at once, if it has one: others need not wait for its end.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be written.
    async fn leave(&self, id: MemberId) -> Result<(), StoreError>;

    /// Every member that has a lease, in the order of ids.
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be read.
    async fn live(&self) -> Result<Vec<Member>, StoreError>;

    /// The time by the clock that all members share; `None` where that is the one each of them has anyway.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    async fn now(&self) -> Result<Option<Timestamp>, StoreError> {
        Ok(None)
    }
}

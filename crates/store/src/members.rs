//! Members: the live nodes that share the store.

use std::time::Duration;

use async_trait::async_trait;
use dacapo_model::{Member, MemberId, Timestamp};

use crate::error::StoreError;

/// The nodes that share a store. Each has a lease, by the store's own clock. So all nodes agree on which of them are
/// alive, whatever their own clocks show. A lease decides which node is given work, never whose write lands: the
/// epoch decides that (I-4).
#[async_trait]
pub trait Members: Send + Sync + 'static {
    /// Gives `member` a lease for this time from now, replacing its present one, stores its description, and returns
    /// every member that has a lease, in the order of ids.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be written. The earlier lease then stays.
    async fn renew(&self, member: &Member, lease: Duration) -> Result<Vec<Member>, StoreError>;

    /// Ends the lease of a member at once, if it has one, so that others need not wait for its end.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be written.
    async fn leave(&self, id: MemberId) -> Result<(), StoreError>;

    /// Returns every member that has a lease, in the order of ids.
    ///
    /// # Errors
    /// [`StoreError`] if they cannot be read.
    async fn live(&self) -> Result<Vec<Member>, StoreError>;

    /// Returns the time of the clock that all members share; `None` if each member's own clock is that clock.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be read.
    async fn now(&self) -> Result<Option<Timestamp>, StoreError> {
        Ok(None)
    }
}

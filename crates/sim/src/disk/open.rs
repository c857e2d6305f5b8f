//! A store as one run of a node opens it: every call goes the way to the disk, and what lands there is logged.

mod views;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use dacapo::Position;
use dacapo::journal::{Append, Appended, EventBatch, Filter, Limit, Revision, StreamEvent, StreamName, Timestamp};
use dacapo::store::{Journal, Store, StoreError};
use dacapo_model::{JournalId, Mark, Member, MemberId};
use dacapo_store::{AppendError, Clock, Members, StreamInfo, Views};
use tokio::sync::watch;

use self::views::SimViews;
use super::{Before, Disk, Head, Kind, Landed};
use crate::world::{SimClock, World, locked};

/// The disk as one run of a node opens it.
pub fn open(world: &Arc<World>, slot: usize, run: u64) -> Store {
    let head = *world.disk.journal.head().borrow();
    let (sender, last) = watch::channel(head);
    let sender = Arc::new(Mutex::new(Some(sender)));
    locked(&world.disk.inside).heads.push((slot, Arc::downgrade(&sender)));
    let way = Way { world: Arc::clone(world), slot, run };
    Store {
        journal: Arc::new(SimJournal { way: way.clone(), sender, last }),
        views: Arc::new(SimViews { way: way.clone() }),
        members: Arc::new(SimMembers { way }),
        shared: true,
        description: "a simulated disk".to_owned(),
    }
}

/// The way to the disk of one run of the node in a slot.
#[derive(Clone)]
struct Way {
    world: Arc<World>,
    slot: usize,
    run: u64,
}

impl Way {
    fn disk(&self) -> &Disk {
        &self.world.disk
    }

    async fn meet<T, E: From<StoreError>>(
        &self,
        what: &'static str,
        act: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        self.disk().meet((self.slot, Kind::Views), what, act).await
    }

    async fn meet_journal<T, E: From<StoreError>>(
        &self,
        what: &'static str,
        act: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        self.disk().meet((self.slot, Kind::Journal), what, act).await
    }

    async fn meet_for_lease<T>(
        &self,
        what: &'static str,
        act: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        self.disk().meet((self.slot, Kind::Lease), what, act).await
    }
}

struct SimJournal {
    way: Way,
    /// Gone once this run has closed it.
    sender: Arc<Head>,
    last: watch::Receiver<Position>,
}

impl SimJournal {
    async fn write(&self, append: Append) -> Result<Appended, AppendError> {
        let disk = self.way.disk();
        let flips = is_flip(&append);
        if flips {
            disk.linger().await;
        }
        let appended = disk.journal.append(append).await?;
        if appended.written > 0 {
            let through = appended.position.get();
            if flips {
                let mut tokens = BTreeMap::new();
                for id in disk.views.list().await.unwrap_or_default() {
                    let Ok(Some(view)) = disk.views.find(&id).await else { continue };
                    let positions = view.tokens().await.unwrap_or_default();
                    tokens.insert(id, positions.iter().map(|token| token.position.get()).collect());
                }
                disk.land(Landed::Flipped { at: through, tokens });
            }
            disk.land(Landed::Appended { through });
            disk.tell_head();
        }
        Ok(appended)
    }
}

/// Whether it moves readers.
fn is_flip(append: &Append) -> bool {
    let flips = |event: &StreamEvent| event.stream.is_system() && event.event.event_type.as_str() == "flipped";
    append.events.iter().any(flips)
}

#[async_trait]
impl Journal for SimJournal {
    fn id(&self) -> JournalId {
        self.way.disk().journal.id()
    }

    async fn mark(&self, through: Position) -> Result<Mark, StoreError> {
        let disk = self.way.disk();
        self.way.meet_journal("look at the history", disk.journal.mark(through)).await
    }

    async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        if locked(&self.sender).is_none() {
            return Err(StoreError::unavailable("append", "the journal is closed").into());
        }
        self.way.meet_journal("append", self.write(append)).await
    }

    async fn read(&self, after: Position, filter: &Filter, limit: Limit) -> Result<EventBatch, StoreError> {
        let disk = self.way.disk();
        disk.about_to(self.way.slot, Before::Read);
        self.way.meet_journal("read", disk.journal.read(after, filter, limit)).await
    }

    async fn read_stream(&self, stream: &StreamName, after: Revision, limit: Limit) -> Result<EventBatch, StoreError> {
        let disk = self.way.disk();
        self.way.meet_journal("read a stream", disk.journal.read_stream(stream, after, limit)).await
    }

    async fn stream_revision(&self, stream: &StreamName) -> Result<Revision, StoreError> {
        let disk = self.way.disk();
        self.way.meet_journal("look at a stream", disk.journal.stream_revision(stream)).await
    }

    async fn streams(
        &self,
        category: Option<&str>,
        after: Option<&StreamName>,
        most: usize,
    ) -> Result<Vec<StreamInfo>, StoreError> {
        let disk = self.way.disk();
        self.way.meet_journal("list streams", disk.journal.streams(category, after, most)).await
    }

    fn head(&self) -> watch::Receiver<Position> {
        let mut head = self.last.clone();
        head.mark_unchanged();
        head
    }

    async fn close(&self) {
        drop(locked(&self.sender).take());
    }
}

struct SimMembers {
    way: Way,
}

#[async_trait]
impl Members for SimMembers {
    async fn renew(&self, member: &Member, lease: Duration) -> Result<Vec<Member>, StoreError> {
        let disk = self.way.disk();
        let act = async {
            let live = disk.members.renew(member, lease).await?;
            let (Way { slot, run, .. }, member) = (&self.way, member.clone());
            disk.land(Landed::Renewed { slot: *slot, run: *run, member, lease });
            Ok(live)
        };
        self.way.meet_for_lease("renew a lease", act).await
    }

    /// What may happen to a call happens to the renewal that follows.
    async fn now(&self) -> Result<Option<Timestamp>, StoreError> {
        Ok(Some(SimClock::DISK.now()))
    }

    async fn leave(&self, id: MemberId) -> Result<(), StoreError> {
        let disk = self.way.disk();
        let act = async {
            disk.members.leave(id).await?;
            disk.land(Landed::Left { member: id });
            Ok(())
        };
        self.way.meet_for_lease("leave", act).await
    }

    async fn live(&self) -> Result<Vec<Member>, StoreError> {
        self.way.meet_for_lease("look for members", self.way.disk().members.live()).await
    }
}

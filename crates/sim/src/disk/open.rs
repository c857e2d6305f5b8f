//! A store as one run of a node opens it: every call goes the way to the disk, and what lands there is logged.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use dacapo::{
    Append, Appended, EventBatch, Filter, Index, Journal, Limit, Position, Revision, SegmentCount, Store, StoreError,
    StreamEvent, StreamName, Table, Timestamp, Token, Value, ViewId,
};
use dacapo_model::{Letter, Member, MemberId, PendingEffect, Refusal, Settled, Wish};
use dacapo_store::{
    AppendError, Attached, Commit, CommitError, Members, Outbox, StreamInfo, View, ViewCopy, ViewReader, ViewWriter,
    Views, WhichLetters,
};
use tokio::sync::watch;

use super::Landed;
use crate::world::{World, locked};

/// The disk as one run of a node opens it.
pub fn open(world: &Arc<World>, slot: usize, run: u64) -> Store {
    let head = *world.disk.journal.head().borrow();
    let (sender, last) = watch::channel(head);
    let sender = Arc::new(Mutex::new(Some(sender)));
    locked(&world.disk.inside).heads.push(Arc::downgrade(&sender));
    Store {
        journal: Arc::new(SimJournal { world: Arc::clone(world), run, sender, last }),
        views: Arc::new(SimViews { world: Arc::clone(world), slot }),
        members: Arc::new(SimMembers { world: Arc::clone(world) }),
        shared: true,
        description: "a simulated disk".to_owned(),
    }
}

struct SimJournal {
    world: Arc<World>,
    run: u64,
    /// Gone once this run has closed it.
    sender: Arc<Mutex<Option<watch::Sender<Position>>>>,
    last: watch::Receiver<Position>,
}

impl SimJournal {
    async fn write(&self, append: Append) -> Result<Appended, AppendError> {
        let disk = &self.world.disk;
        let is_flip = |event: &StreamEvent| event.stream.is_system() && event.event.event_type.as_str() == "flipped";
        let flips = append.events.iter().any(is_flip);
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
                disk.land(Landed::Flipped { at: through, run: self.run, tokens });
            }
            disk.land(Landed::Appended { through });
            disk.tell_head();
        }
        Ok(appended)
    }
}

#[async_trait]
impl Journal for SimJournal {
    async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        if locked(&self.sender).is_none() {
            return Err(StoreError::unavailable("append", "the journal is closed").into());
        }
        self.world.disk.meet("append", self.write(append)).await
    }

    async fn read(&self, after: Position, filter: &Filter, limit: Limit) -> Result<EventBatch, StoreError> {
        let disk = &self.world.disk;
        disk.meet("read", disk.journal.read(after, filter, limit)).await
    }

    async fn read_stream(&self, stream: &StreamName, after: Revision, limit: Limit) -> Result<EventBatch, StoreError> {
        let disk = &self.world.disk;
        disk.meet("read a stream", disk.journal.read_stream(stream, after, limit)).await
    }

    async fn stream_revision(&self, stream: &StreamName) -> Result<Revision, StoreError> {
        let disk = &self.world.disk;
        disk.meet("look at a stream", disk.journal.stream_revision(stream)).await
    }

    async fn streams(
        &self,
        category: Option<&str>,
        after: Option<&StreamName>,
        most: usize,
    ) -> Result<Vec<StreamInfo>, StoreError> {
        let disk = &self.world.disk;
        disk.meet("list streams", disk.journal.streams(category, after, most)).await
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

struct SimViews {
    world: Arc<World>,
    slot: usize,
}

impl SimViews {
    fn wrap(&self, id: &ViewId, inner: Arc<dyn View>) -> Arc<dyn View> {
        Arc::new(SimView { id: id.clone(), inner, world: Arc::clone(&self.world) })
    }
}

#[async_trait]
impl Views for SimViews {
    async fn open(&self, id: &ViewId, tables: &[Table], segments: SegmentCount) -> Result<Arc<dyn View>, StoreError> {
        let disk = &self.world.disk;
        let make = async {
            let is_new = disk.views.find(id).await?.is_none();
            let view = disk.views.open(id, tables, segments).await?;
            if is_new {
                let lingering = self.world.active.load(Ordering::SeqCst) != self.slot;
                disk.land(Landed::Made { view: id.clone(), lingering });
            }
            Ok::<_, StoreError>(view)
        };
        Ok(self.wrap(id, disk.meet("open a view", make).await?))
    }

    async fn find(&self, id: &ViewId) -> Result<Option<Arc<dyn View>>, StoreError> {
        let disk = &self.world.disk;
        let found = disk.meet("find a view", disk.views.find(id)).await?;
        Ok(found.map(|view| self.wrap(id, view)))
    }

    async fn list(&self) -> Result<Vec<ViewId>, StoreError> {
        let disk = &self.world.disk;
        disk.meet("list views", disk.views.list()).await
    }

    async fn drop_view(&self, id: &ViewId) -> Result<(), StoreError> {
        let disk = &self.world.disk;
        let act = async {
            let was_there = disk.views.find(id).await?.is_some();
            disk.views.drop_view(id).await?;
            if was_there {
                disk.land(Landed::Dropped { view: id.clone() });
            }
            Ok::<_, StoreError>(())
        };
        disk.meet("drop a view", act).await
    }
}

struct SimView {
    id: ViewId,
    inner: Arc<dyn View>,
    world: Arc<World>,
}

impl SimView {
    /// Notes that segments were claimed, or taken from everybody.
    async fn claimed(&self, segments: Vec<usize>, revoked: bool) -> Result<(), StoreError> {
        let epochs = self.inner.tokens().await?.iter().map(|token| token.epoch.get()).collect();
        self.world.disk.land(Landed::Claimed { view: self.id.clone(), segments, epochs, revoked });
        Ok(())
    }
}

struct SimMembers {
    world: Arc<World>,
}

#[async_trait]
impl Members for SimMembers {
    async fn renew(&self, member: &Member, lease: Duration) -> Result<Vec<Member>, StoreError> {
        let disk = &self.world.disk;
        disk.meet("renew a lease", disk.members.renew(member, lease)).await
    }

    async fn leave(&self, id: MemberId) -> Result<(), StoreError> {
        let disk = &self.world.disk;
        disk.meet("leave", disk.members.leave(id)).await
    }

    async fn live(&self) -> Result<Vec<Member>, StoreError> {
        let disk = &self.world.disk;
        disk.meet("look for members", disk.members.live()).await
    }
}

#[async_trait]
impl View for SimView {
    async fn tokens(&self) -> Result<Vec<Token>, StoreError> {
        self.world.disk.meet("read tokens", self.inner.tokens()).await
    }

    async fn claim(&self, by: Option<MemberId>, seen: &[Token]) -> Result<Vec<Token>, StoreError> {
        let disk = &self.world.disk;
        let act = async {
            let tokens = self.inner.claim(by, seen).await?;
            let segments = tokens.iter().map(|token| usize::from(token.segment.get())).collect();
            self.claimed(segments, false).await?;
            Ok::<_, StoreError>(tokens)
        };
        disk.meet("claim", act).await
    }

    async fn revoke(&self) -> Result<(), StoreError> {
        let act = async {
            self.inner.revoke().await?;
            let segments = self.inner.tokens().await?.len();
            self.claimed((0..segments).collect(), true).await
        };
        self.world.disk.meet("revoke", act).await
    }

    async fn cap(&self, at: Option<Position>) -> Result<Vec<Token>, StoreError> {
        self.world.disk.meet("cap", self.inner.cap(at)).await
    }

    async fn hold(&self, mark: Position) -> Result<Vec<Token>, StoreError> {
        self.world.disk.meet("hold", self.inner.hold(mark)).await
    }

    async fn lift(&self, mark: Position) -> Result<(), StoreError> {
        self.world.disk.meet("lift", self.inner.lift(mark)).await
    }

    async fn refusals(&self) -> Result<Vec<Refusal>, StoreError> {
        self.world.disk.meet("read refusals", self.inner.refusals()).await
    }

    async fn letters(&self, after: Position, most: usize) -> Result<Vec<Letter>, StoreError> {
        self.world.disk.meet("read dead letters", self.inner.letters(after, most)).await
    }

    async fn wish(&self, which: &WhichLetters, wish: Option<Wish>) -> Result<u64, StoreError> {
        let disk = &self.world.disk;
        let act = async {
            let wished = self.inner.wish(which, wish).await?;
            disk.land(Landed::Wished { view: self.id.clone(), which: which.clone(), wish });
            Ok::<_, StoreError>(wished)
        };
        disk.meet("record a wish", act).await
    }

    async fn unspoken(&self) -> Result<Vec<Position>, StoreError> {
        self.world.disk.meet("read what was not applied", self.inner.unspoken()).await
    }

    async fn effects_due(
        &self,
        now: Timestamp,
        longest: Duration,
        most: usize,
    ) -> Result<Vec<PendingEffect>, StoreError> {
        self.world.disk.meet("read effects", self.inner.effects_due(now, longest, most)).await
    }

    async fn first_effect(&self, stream: &StreamName) -> Result<Option<Position>, StoreError> {
        self.world.disk.meet("look for an effect", self.inner.first_effect(stream)).await
    }

    async fn outbox(&self, most: usize) -> Result<Outbox, StoreError> {
        self.world.disk.meet("look at the outbox", self.inner.outbox(most)).await
    }

    async fn settle_effects(&self, settled: &[(u64, Settled)]) -> Result<(), StoreError> {
        if !settled.is_empty() {
            self.world.note(format!("settles effects of {}: {settled:?}", self.id));
        }
        self.world.disk.meet("settle effects", self.inner.settle_effects(settled)).await
    }

    async fn missing_indexes(&self, tables: &[Table]) -> Result<Vec<(usize, usize)>, StoreError> {
        self.world.disk.meet("look for indexes", self.inner.missing_indexes(tables)).await
    }

    async fn copy(&self) -> Result<ViewCopy, StoreError> {
        let disk = &self.world.disk;
        let act = async {
            let copy = self.inner.copy().await?;
            disk.copied(&self.id, &copy);
            Ok::<_, StoreError>(copy)
        };
        disk.meet("copy a view", act).await
    }

    async fn writer(&self) -> Result<Box<dyn ViewWriter>, StoreError> {
        let inner = self.world.disk.meet("open a writer", self.inner.writer()).await?;
        Ok(Box::new(SimWriter { id: self.id.clone(), inner, world: Arc::clone(&self.world), wrote: false }))
    }

    async fn reader(&self) -> Result<Box<dyn ViewReader>, StoreError> {
        self.world.disk.meet("open a reader", self.inner.reader()).await
    }
}

struct SimWriter {
    id: ViewId,
    inner: Box<dyn ViewWriter>,
    world: Arc<World>,
    /// Whether rows were written in the transaction under way.
    wrote: bool,
}

#[async_trait]
impl ViewWriter for SimWriter {
    async fn load(&mut self, table: &Table, key: &[Value]) -> Result<Option<Vec<Value>>, StoreError> {
        self.world.disk.meet("load a row", self.inner.load(table, key)).await
    }

    async fn put(
        &mut self,
        table: &Table,
        rows: &mut (dyn Iterator<Item = Vec<Value>> + Send),
    ) -> Result<(), StoreError> {
        let wrote = &mut self.wrote;
        let mut rows = rows.inspect(|_| *wrote = true);
        self.world.disk.meet("write rows", self.inner.put(table, &mut rows)).await
    }

    async fn delete(
        &mut self,
        table: &Table,
        keys: &mut (dyn Iterator<Item = Vec<Value>> + Send),
    ) -> Result<(), StoreError> {
        self.world.disk.meet("delete rows", self.inner.delete(table, keys)).await
    }

    async fn execute(&mut self, sql: &str, parameters: &[Value]) -> Result<u64, StoreError> {
        self.world.disk.meet("execute", self.inner.execute(sql, parameters)).await
    }

    async fn query(&mut self, sql: &str, parameters: &[Value]) -> Result<Vec<Vec<Value>>, StoreError> {
        self.world.disk.meet("query", self.inner.query(sql, parameters)).await
    }

    async fn index(&mut self, table: &Table, index: &Index) -> Result<(), StoreError> {
        self.world.disk.meet("build an index", self.inner.index(table, index)).await
    }

    async fn attach(&mut self, copy: &ViewCopy) -> Result<Attached, StoreError> {
        let disk = &self.world.disk;
        let (id, inner) = (&self.id, &mut self.inner);
        let act = async {
            let attached = inner.attach(copy).await?;
            disk.land(Landed::Attached { view: id.clone(), copy: disk.number_of(copy) });
            Ok::<_, StoreError>(attached)
        };
        disk.meet("attach a view", act).await
    }

    async fn commit(&mut self, commit: &Commit) -> Result<(), CommitError> {
        let disk = &self.world.disk;
        let (id, inner, wrote) = (&self.id, &mut self.inner, &mut self.wrote);
        let act = async {
            inner.commit(commit).await?;
            disk.land(Landed::Committed { view: id.clone(), commit: commit.clone(), wrote: std::mem::take(wrote) });
            Ok(())
        };
        let result = disk.meet("commit", act).await;
        if matches!(result, Err(CommitError::Store(_))) {
            // A commit that failed is rolled back.
            self.rollback().await?;
        }
        result
    }

    async fn rollback(&mut self) -> Result<(), StoreError> {
        self.wrote = false;
        self.inner.rollback().await
    }
}

//! A store as one run of a node opens it: every call goes the way to the disk, and what lands there is logged.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use dacapo::{
    Append, Appended, EventBatch, Filter, Index, Journal, Limit, Position, Revision, Segment, SegmentCount, Store,
    StoreError, StreamEvent, StreamName, Table, Timestamp, Token, Value, ViewId,
};
use dacapo_model::{
    BegunEffect, EffectLetter, EffectsClaim, Epoch, JournalId, Letter, Mark, Member, MemberId, PendingEffect, Refusal,
    Settled, Wish,
};
use dacapo_store::{
    AppendError, Attached, Commit, CommitError, Members, OfSegment, Outbox, StreamInfo, View, ViewCopy, ViewHistory,
    ViewReader, ViewWriter, Views, WhichEffects, WhichLetters,
};
use tokio::sync::watch;

use super::{Back, Before, Claim, Disk, Head, Kind, Landed};
use crate::world::{World, locked};

/// How long the disk keeps a transaction for a node that it does not hear of. More than a call takes on a bad way.
const SILENT_MAX: Duration = Duration::from_millis(1_500);
/// What it says then.
const ENDED: &str = "the disk has ended the transaction (simulated)";

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

struct SimViews {
    way: Way,
}

impl SimViews {
    fn wrap(&self, id: &ViewId, inner: Arc<dyn View>) -> Arc<dyn View> {
        Arc::new(SimView { id: id.clone(), inner, way: self.way.clone() })
    }
}

#[async_trait]
impl Views for SimViews {
    async fn open(&self, id: &ViewId, tables: &[Table], segments: SegmentCount) -> Result<Arc<dyn View>, StoreError> {
        let disk = self.way.disk();
        let make = async {
            let is_new = disk.views.find(id).await?.is_none();
            let view = disk.views.open(id, tables, segments).await?;
            if is_new {
                disk.land(Landed::Made { view: id.clone(), run: self.way.run });
            }
            Ok::<_, StoreError>(view)
        };
        Ok(self.wrap(id, self.way.meet("open a view", make).await?))
    }

    async fn find(&self, id: &ViewId) -> Result<Option<Arc<dyn View>>, StoreError> {
        let disk = self.way.disk();
        let found = self.way.meet("find a view", disk.views.find(id)).await?;
        Ok(found.map(|view| self.wrap(id, view)))
    }

    async fn list(&self) -> Result<Vec<ViewId>, StoreError> {
        let disk = self.way.disk();
        self.way.meet("list views", disk.views.list()).await
    }

    async fn drop_view(&self, id: &ViewId) -> Result<(), StoreError> {
        let disk = self.way.disk();
        let act = async {
            let was_there = disk.views.find(id).await?.is_some();
            disk.views.drop_view(id).await?;
            if was_there {
                disk.land(Landed::Dropped { view: id.clone() });
            }
            Ok::<_, StoreError>(())
        };
        self.way.meet("drop a view", act).await
    }
}

struct SimView {
    id: ViewId,
    inner: Arc<dyn View>,
    way: Way,
}

/// Whether a view that was opened is still there: one that was dropped can be neither written nor read any more, also
/// when there is another one of its name.
async fn is_there(way: &Way, id: &ViewId, view: &Arc<dyn View>) -> bool {
    let found = way.disk().views.find(id).await;
    found.ok().flatten().is_some_and(|found| Arc::ptr_eq(&found, view))
}

fn gone(what: &str) -> StoreError {
    StoreError::unavailable(what, "the view was dropped (simulated)")
}

impl SimView {
    async fn meet<T>(
        &self,
        what: &'static str,
        act: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let act = async { if is_there(&self.way, &self.id, &self.inner).await { act.await } else { Err(gone(what)) } };
        self.way.meet(what, act).await
    }

    /// Notes that segments were claimed, or taken from everybody.
    async fn claimed(&self, segments: BTreeMap<usize, u64>, claim: Claim) -> Result<(), StoreError> {
        let epochs = self.inner.tokens().await?.iter().map(|token| token.epoch.get()).collect();
        let (view, run) = (self.id.clone(), self.way.run);
        self.way.disk().land(Landed::Claimed { view, segments, epochs, run, claim });
        Ok(())
    }
}

/// Every effect that the view still owes, those included that are set aside.
async fn outbox_of(view: &Arc<dyn View>) -> Result<Vec<EffectLetter>, StoreError> {
    view.effect_letters(0, usize::MAX, true).await
}

fn number(letter: &EffectLetter) -> u64 {
    letter.pending.number
}

/// Of which event an effect is, and which one of that.
fn place(letter: &EffectLetter) -> (u64, u32) {
    (letter.pending.effect.position.get(), letter.pending.effect.ordinal)
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

#[async_trait]
impl View for SimView {
    async fn tokens(&self) -> Result<Vec<Token>, StoreError> {
        self.meet("read tokens", self.inner.tokens()).await
    }

    async fn history(&self) -> Result<Option<ViewHistory>, StoreError> {
        self.meet("read the history of a view", self.inner.history()).await
    }

    async fn claim(&self, by: Option<MemberId>, seen: &[Token]) -> Result<Vec<Token>, StoreError> {
        self.way.disk().about_to(self.way.slot, Before::Claim);
        let act = async {
            self.way.disk().linger().await;
            let tokens = self.inner.claim(by, seen).await?;
            let was_claimed = |seen: &&Token| tokens.iter().any(|token| token.segment == seen.segment);
            let segments = seen.iter().filter(was_claimed);
            let segments = segments.map(|seen| (usize::from(seen.segment.get()), seen.epoch.get())).collect();
            self.claimed(segments, by.map_or(Claim::Released, Claim::By)).await?;
            Ok::<_, StoreError>(tokens)
        };
        self.meet("claim", act).await
    }

    async fn revoke(&self) -> Result<(), StoreError> {
        let act = async {
            self.inner.revoke().await?;
            let tokens = self.inner.tokens().await?;
            let segments = tokens.iter().map(|token| (usize::from(token.segment.get()), token.epoch.get() - 1));
            self.claimed(segments.collect(), Claim::Revoked).await
        };
        self.meet("revoke", act).await
    }

    async fn cap(&self, at: Option<Position>) -> Result<Vec<Token>, StoreError> {
        self.meet("cap", self.inner.cap(at)).await
    }

    async fn hold(&self, mark: Position) -> Result<Vec<Token>, StoreError> {
        self.meet("hold", self.inner.hold(mark)).await
    }

    async fn lift(&self, mark: Position) -> Result<(), StoreError> {
        self.meet("lift", self.inner.lift(mark)).await
    }

    async fn refusals(&self) -> Result<Vec<Refusal>, StoreError> {
        self.meet("read refusals", self.inner.refusals()).await
    }

    async fn letters(&self, after: Position, most: usize) -> Result<Vec<Letter>, StoreError> {
        self.meet("read dead letters", self.inner.letters(after, most)).await
    }

    async fn wish(&self, which: &WhichLetters, wish: Option<Wish>) -> Result<u64, StoreError> {
        let disk = self.way.disk();
        let act = async {
            let wished = self.inner.wish(which, wish).await?;
            disk.land(Landed::Wished { view: self.id.clone(), which: which.clone(), wish });
            Ok::<_, StoreError>(wished)
        };
        self.meet("record a wish", act).await
    }

    async fn unspoken(&self) -> Result<Vec<Position>, StoreError> {
        self.meet("read what was not applied", self.inner.unspoken()).await
    }

    async fn effects_due(
        &self,
        now: Timestamp,
        longest: Duration,
        most: usize,
    ) -> Result<Vec<PendingEffect>, StoreError> {
        self.meet("read effects", self.inner.effects_due(now, longest, most)).await
    }

    async fn first_effect(&self, stream: &StreamName, after: Position) -> Result<Option<Position>, StoreError> {
        self.meet("look for an effect", self.inner.first_effect(stream, after)).await
    }

    async fn outbox(&self, most: usize) -> Result<Outbox, StoreError> {
        self.meet("look at the outbox", self.inner.outbox(most)).await
    }

    async fn effect_letters(&self, after: u64, most: usize, untried: bool) -> Result<Vec<EffectLetter>, StoreError> {
        self.meet("read effects that do not come about", self.inner.effect_letters(after, most, untried)).await
    }

    async fn decide_effects(&self, which: &WhichEffects, wish: Wish) -> Result<u64, StoreError> {
        let act = async {
            let before = outbox_of(&self.inner).await?;
            let decided = self.inner.decide_effects(which, wish).await?;
            let after = outbox_of(&self.inner).await?;
            let gone = before.into_iter().filter(|letter| !after.iter().any(|kept| number(kept) == number(letter)));
            let effects: Vec<_> = gone.map(|letter| place(&letter)).collect();
            if !effects.is_empty() {
                self.way.disk().land(Landed::EffectsDropped { view: self.id.clone(), effects });
            }
            Ok::<_, StoreError>(decided)
        };
        self.meet("decide about effects", act).await
    }

    async fn effects_claim(&self) -> Result<EffectsClaim, StoreError> {
        self.meet("read who makes effects", self.inner.effects_claim()).await
    }

    async fn claim_effects(&self, by: Option<MemberId>, seen: Epoch) -> Result<Option<Epoch>, StoreError> {
        self.meet("claim effects", self.inner.claim_effects(by, seen)).await
    }

    async fn begin_effects(
        &self,
        claim: EffectsClaim,
        numbers: &[u64],
    ) -> Result<Option<Vec<BegunEffect>>, StoreError> {
        self.meet("begin effects", self.inner.begin_effects(claim, numbers)).await
    }

    async fn settle_effects(&self, epoch: Epoch, settled: &[(u64, Settled)]) -> Result<(), StoreError> {
        if !settled.is_empty() {
            self.way.world.note(format!("settles effects of {}: {settled:?}", self.id));
        }
        let act = async {
            self.inner.settle_effects(epoch, settled).await?;
            let is_aside = |found: &&EffectLetter| {
                let of = |(of, settled): &(u64, Settled)| {
                    *of == number(found) && matches!(settled, Settled::SetAside { .. })
                };
                settled.iter().any(of)
            };
            let effects: Vec<_> = outbox_of(&self.inner).await?.iter().filter(is_aside).map(place).collect();
            if !effects.is_empty() {
                self.way.disk().land(Landed::EffectsAside { view: self.id.clone(), effects });
            }
            Ok::<_, StoreError>(())
        };
        self.meet("settle effects", act).await
    }

    async fn missing_indexes(&self, tables: &[Table]) -> Result<Vec<(usize, usize)>, StoreError> {
        self.meet("look for indexes", self.inner.missing_indexes(tables)).await
    }

    async fn copy(&self) -> Result<ViewCopy, StoreError> {
        let disk = self.way.disk();
        let act = async {
            let copy = self.inner.copy().await?;
            disk.copied(&self.id, &copy);
            Ok::<_, StoreError>(copy)
        };
        self.meet("copy a view", act).await
    }

    async fn writer(&self) -> Result<Box<dyn ViewWriter>, StoreError> {
        let inner = self.meet("open a writer", self.inner.writer()).await?;
        let view = Arc::clone(&self.inner);
        Ok(Box::new(SimWriter { id: self.id.clone(), view, inner, way: self.way.clone(), wrote: false, ended: false }))
    }

    async fn reader(&self) -> Result<Box<dyn ViewReader>, StoreError> {
        self.meet("open a reader", self.inner.reader()).await
    }
}

struct SimWriter {
    id: ViewId,
    view: Arc<dyn View>,
    inner: Box<dyn ViewWriter>,
    way: Way,
    /// Whether rows were written in the transaction under way.
    wrote: bool,
    /// Whether the disk has ended that transaction.
    ended: bool,
}

impl SimWriter {
    async fn there(&mut self, what: &'static str) -> Result<Back, StoreError> {
        if self.ended {
            return Err(StoreError::unavailable(what, ENDED));
        }
        let way = (self.way.slot, Kind::Views);
        match tokio::time::timeout(SILENT_MAX, self.way.disk().there(way, what)).await {
            Ok(Ok(_)) if !is_there(&self.way, &self.id, &self.view).await => Err(gone(what)),
            Ok(back) => back,
            Err(_) => Err(self.end().await),
        }
    }

    async fn back<T, E: From<StoreError>>(&mut self, back: Back, done: Result<T, E>) -> Result<T, E> {
        let way = (self.way.slot, Kind::Views);
        match tokio::time::timeout(SILENT_MAX, self.way.disk().pass(way, back.time)).await {
            Ok(_) => self.way.disk().back(way, Back { time: Duration::ZERO, ..back }, done).await,
            Err(_) => Err(self.end().await.into()),
        }
    }

    /// The disk ends the transaction of a node that it has not heard of for long, as servers do, so that the others can go
    /// on. The node is told once it is back.
    async fn end(&mut self) -> StoreError {
        (self.wrote, self.ended) = (false, true);
        let ended = self.inner.rollback().await.err();
        // However it is then.
        self.way.disk().pass((self.way.slot, Kind::Views), Duration::ZERO).await.ok();
        ended.unwrap_or_else(|| StoreError::unavailable("write a view", ENDED))
    }
}

#[async_trait]
impl ViewWriter for SimWriter {
    async fn load(&mut self, table: &Table, key: &[Value]) -> Result<Option<Vec<Value>>, StoreError> {
        let back = self.there("load a row").await?;
        let done = self.inner.load(table, key).await;
        self.back(back, done).await
    }

    async fn load_of(&mut self, table: &Table, key: &[Value]) -> Result<Option<OfSegment>, StoreError> {
        let back = self.there("load a row").await?;
        let done = self.inner.load_of(table, key).await;
        self.back(back, done).await
    }

    async fn segments_of(&mut self, table: &Table, keys: &[Vec<Value>]) -> Result<Vec<(usize, Segment)>, StoreError> {
        let back = self.there("look up whose rows are").await?;
        let done = self.inner.segments_of(table, keys).await;
        self.back(back, done).await
    }

    async fn rows_with(
        &mut self,
        table: &Table,
        index: &Index,
        values: &[Vec<Value>],
    ) -> Result<Vec<(usize, Vec<Value>)>, StoreError> {
        let back = self.there("look rows up").await?;
        let done = self.inner.rows_with(table, index, values).await;
        self.back(back, done).await
    }

    async fn put(
        &mut self,
        table: &Table,
        rows: &mut (dyn Iterator<Item = OfSegment> + Send),
    ) -> Result<(), StoreError> {
        let back = self.there("write rows").await?;
        let wrote = &mut self.wrote;
        let mut rows = rows.inspect(|_| *wrote = true);
        let done = self.inner.put(table, &mut rows).await;
        self.back(back, done).await
    }

    async fn delete(
        &mut self,
        table: &Table,
        keys: &mut (dyn Iterator<Item = OfSegment> + Send),
    ) -> Result<(), StoreError> {
        let back = self.there("delete rows").await?;
        let done = self.inner.delete(table, keys).await;
        self.back(back, done).await
    }

    async fn execute(&mut self, sql: &str, parameters: &[Value]) -> Result<u64, StoreError> {
        let back = self.there("execute").await?;
        let done = self.inner.execute(sql, parameters).await;
        self.back(back, done).await
    }

    async fn query(&mut self, sql: &str, parameters: &[Value]) -> Result<Vec<Vec<Value>>, StoreError> {
        let back = self.there("query").await?;
        let done = self.inner.query(sql, parameters).await;
        self.back(back, done).await
    }

    async fn index(&mut self, table: &Table, index: &Index) -> Result<(), StoreError> {
        let back = self.there("build an index").await?;
        let done = self.inner.index(table, index).await;
        self.back(back, done).await
    }

    async fn attach(&mut self, copy: &ViewCopy) -> Result<Attached, StoreError> {
        let back = self.there("attach a view").await?;
        let done = self.inner.attach(copy).await;
        if done.is_ok() {
            let disk = self.way.disk();
            disk.land(Landed::Attached { view: self.id.clone(), copy: disk.number_of(copy) });
        }
        self.back(back, done).await
    }

    async fn keep_segments(&mut self, table: &Table) -> Result<(), StoreError> {
        self.inner.keep_segments(table).await
    }

    async fn take_over_segments(&mut self, table: &Table, from: &Attached) -> Result<(), StoreError> {
        let back = self.there("take over whose rows are").await?;
        let done = self.inner.take_over_segments(table, from).await;
        self.back(back, done).await
    }

    async fn commit(&mut self, commit: &Commit) -> Result<(), CommitError> {
        let result = match self.there("commit").await {
            Ok(back) => {
                let done = self.inner.commit(commit).await;
                if done.is_ok() {
                    let (slot, view, commit) = (self.way.slot, self.id.clone(), commit.clone());
                    let wrote = std::mem::take(&mut self.wrote);
                    self.way.disk().land(Landed::Committed { slot, view, commit, wrote });
                }
                self.back(back, done).await
            }
            Err(error) => Err(error.into()),
        };
        if matches!(result, Err(CommitError::Store(_))) {
            // A commit that failed is rolled back.
            self.rollback().await?;
        }
        result
    }

    async fn rollback(&mut self) -> Result<(), StoreError> {
        (self.wrote, self.ended) = (false, false);
        self.inner.rollback().await
    }
}

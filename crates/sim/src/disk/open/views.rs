//! The views of a store as one run of a node opens them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dacapo::options::SegmentCount;
use dacapo::status::Token;
use dacapo::store::StoreError;
use dacapo::{Table, ViewId};
use dacapo_model::{EffectLetter, EffectOutcome, EffectsClaim, MemberId, Wish};
use dacapo_store::{
    Attached, Commit, CommitError, OfSegment, View, ViewCopy, ViewWriter, Views, WhichEffects, WhichLetters,
};

use super::Way;
use crate::disk::{Back, Before, Claim, Kind, Landed};
use crate::limits;

/// What it says then.
const ENDED: &str = "the disk has ended the transaction (simulated)";

pub(super) struct SimViews {
    pub(super) way: Way,
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

    async fn is_gone(&self, id: &ViewId) -> Result<bool, StoreError> {
        self.way.disk().views.is_gone(id).await
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

impl SimView {
    async fn claim_and_note(&self, by: Option<MemberId>, seen: &[Token]) -> Result<Vec<Token>, StoreError> {
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

    async fn revoke_and_note(&self) -> Result<(), StoreError> {
        let act = async {
            self.inner.revoke().await?;
            let tokens = self.inner.tokens().await?;
            let segments = tokens.iter().map(|token| (usize::from(token.segment.get()), token.epoch.get() - 1));
            self.claimed(segments.collect(), Claim::Revoked).await
        };
        self.meet("revoke", act).await
    }

    async fn wish_and_note(&self, which: &WhichLetters, wish: Option<Wish>) -> Result<u64, StoreError> {
        let disk = self.way.disk();
        let act = async {
            let wished = self.inner.wish(which, wish).await?;
            disk.land(Landed::Wished { view: self.id.clone(), which: which.clone(), wish });
            Ok::<_, StoreError>(wished)
        };
        self.meet("record a wish", act).await
    }

    async fn decide_and_note(&self, which: &WhichEffects, wish: Wish) -> Result<u64, StoreError> {
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

    async fn settle_and_note(&self, claim: EffectsClaim, settled: &[(u64, EffectOutcome)]) -> Result<(), StoreError> {
        if !settled.is_empty() {
            self.way.world.note(format!("settles effects of {}: {settled:?}", self.id));
        }
        let act = async {
            self.inner.settle_effects(claim, settled).await?;
            let is_aside = |found: &&EffectLetter| {
                let of = |(of, settled): &(u64, EffectOutcome)| {
                    *of == number(found) && matches!(settled, EffectOutcome::SetAside { .. })
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

    async fn copy_and_note(&self) -> Result<ViewCopy, StoreError> {
        let disk = self.way.disk();
        let act = async {
            let copy = self.inner.copy().await?;
            disk.copied(&self.id, &copy);
            Ok::<_, StoreError>(copy)
        };
        self.meet("copy a view", act).await
    }

    async fn open_writer(&self) -> Result<Box<dyn ViewWriter>, StoreError> {
        let inner = self.meet("open a writer", self.inner.writer()).await?;
        let view = Arc::clone(&self.inner);
        Ok(Box::new(SimWriter { id: self.id.clone(), view, inner, way: self.way.clone(), wrote: false, ended: false }))
    }
}

/// A call that goes the way to the disk and back, and does nothing else there.
macro_rules! meet {
    ($self:ident, $call:expr, $what:literal) => {
        $self.meet($what, $call).await
    };
}

dacapo_store::delegate! {
    impl ViewTokens for SimView {
        tokens by meet("read tokens");
        history by meet("read the history of a view");
        claim => claim_and_note;
        revoke => revoke_and_note;
        cap by meet("cap");
        hold by meet("hold");
        lift by meet("lift");
    }
}

dacapo_store::delegate! {
    impl ViewLetters for SimView {
        refusals by meet("read refusals");
        letters by meet("read dead letters");
        wish => wish_and_note;
        unspoken by meet("read the events that were not applied");
    }
}

dacapo_store::delegate! {
    impl ViewOutbox for SimView {
        effects_due by meet("read effects");
        first_effect by meet("look for an effect");
        outbox by meet("look at the outbox");
        effect_letters by meet("read the failed effects");
        decide_effects => decide_and_note;
        effects_claim by meet("read who makes effects");
        claim_effects by meet("claim effects");
        begin_effects by meet("begin effects");
        settle_effects => settle_and_note;
    }
}

dacapo_store::delegate! {
    impl ViewRows for SimView {
        missing_indexes by meet("look for indexes");
        copy => copy_and_note;
        writer => open_writer;
        reader by meet("open a reader");
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
        match tokio::time::timeout(limits::SILENCE_TIME_MAX, self.way.disk().there(way, what)).await {
            Ok(Ok(_)) if !is_there(&self.way, &self.id, &self.view).await => Err(gone(what)),
            Ok(back) => back,
            Err(_) => Err(self.end().await),
        }
    }

    async fn back<T, E: From<StoreError>>(&mut self, back: Back, done: Result<T, E>) -> Result<T, E> {
        let way = (self.way.slot, Kind::Views);
        match tokio::time::timeout(limits::SILENCE_TIME_MAX, self.way.disk().pass(way, back.time)).await {
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

impl SimWriter {
    async fn put_and_note(
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

    async fn attach_and_note(&mut self, copy: &ViewCopy) -> Result<Attached, StoreError> {
        let back = self.there("attach a view").await?;
        let done = self.inner.attach(copy).await;
        if done.is_ok() {
            let disk = self.way.disk();
            disk.land(Landed::Attached { view: self.id.clone(), copy: disk.number_of(copy) });
        }
        self.back(back, done).await
    }

    async fn commit_and_note(&mut self, commit: &Commit) -> Result<(), CommitError> {
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
            self.roll_back().await?;
        }
        result
    }

    async fn roll_back(&mut self) -> Result<(), StoreError> {
        (self.wrote, self.ended) = (false, false);
        self.inner.rollback().await
    }
}

/// A call of a transaction that the disk may have ended meanwhile.
macro_rules! there {
    ($self:ident, $call:expr, $what:literal) => {{
        let back = $self.there($what).await?;
        let done = $call.await;
        $self.back(back, done).await
    }};
}

dacapo_store::delegate! {
    impl ViewWriter for SimWriter {
        load by there("load a row");
        load_of by there("load a row");
        segments_of by there("look up whose rows are");
        rows_with by there("look rows up");
        put => put_and_note;
        delete by there("delete rows");
        execute by there("execute");
        query by there("query");
        index by there("build an index");
        attach => attach_and_note;
        keep_segments;
        take_over_segments by there("take over whose rows are");
        commit => commit_and_note;
        rollback => roll_back;
    }
}

//! Views that go wrong.

use std::sync::Arc;

use async_trait::async_trait;
use dacapo::options::SegmentCount;
use dacapo::status::Token;
use dacapo::store::StoreError;
use dacapo::{Position, ProjectionName, Table, ViewId};
use dacapo_store::{Commit, CommitError, View, ViewHealth, ViewReader, ViewWriter, Views};

use super::{Call, Fault, Faults, REASON, act_with};

pub(super) struct FaultyViews {
    pub(super) inner: Arc<dyn Views>,
    pub(super) faults: Faults,
}

impl FaultyViews {
    fn wrap(&self, id: &ViewId, inner: Arc<dyn View>) -> Arc<dyn View> {
        Arc::new(FaultyView { id: id.clone(), inner, faults: self.faults.clone() })
    }
}

#[async_trait]
impl Views for FaultyViews {
    async fn open(&self, id: &ViewId, tables: &[Table], segments: SegmentCount) -> Result<Arc<dyn View>, StoreError> {
        let view = self.faults.meet(Call::Open(id), self.inner.open(id, tables, segments)).await?;
        Ok(self.wrap(id, view))
    }

    async fn find(&self, id: &ViewId) -> Result<Option<Arc<dyn View>>, StoreError> {
        let view = self.faults.meet(Call::Find(id), self.inner.find(id)).await?;
        Ok(view.map(|view| self.wrap(id, view)))
    }

    async fn is_gone(&self, id: &ViewId) -> Result<bool, StoreError> {
        self.inner.is_gone(id).await
    }

    async fn list(&self) -> Result<Vec<ViewId>, StoreError> {
        self.faults.meet(Call::List, self.inner.list()).await
    }

    fn check_names(&self, known: &[&ProjectionName], new: &[&ProjectionName]) -> Result<(), StoreError> {
        self.inner.check_names(known, new)
    }

    async fn drop_view(&self, id: &ViewId) -> Result<(), StoreError> {
        self.faults.meet(Call::Drop(id), self.inner.drop_view(id)).await
    }

    fn has_pages(&self) -> bool {
        self.inner.has_pages()
    }

    async fn publish(&self, serving: &ViewId, flip: Position) -> Result<(), StoreError> {
        self.faults.meet(Call::Publish(serving), self.inner.publish(serving, flip)).await
    }
}

/// A call about a view that may go wrong.
macro_rules! meet {
    ($self:ident, $call:expr, $which:path) => {
        $self.faults.meet($which(&$self.id), $call).await
    };
}

struct FaultyView {
    id: ViewId,
    inner: Arc<dyn View>,
    faults: Faults,
}

impl FaultyView {
    async fn cap_at(&self, at: Option<Position>) -> Result<Vec<Token>, StoreError> {
        self.faults.meet(Call::Cap(&self.id, at), self.inner.cap(at)).await
    }

    async fn open_writer(&self) -> Result<Box<dyn ViewWriter>, StoreError> {
        let inner = meet!(self, self.inner.writer(), Call::Writer)?;
        Ok(Box::new(FaultyWriter { id: self.id.clone(), inner, faults: self.faults.clone() }))
    }

    async fn open_reader(&self) -> Result<Box<dyn ViewReader>, StoreError> {
        let call = Call::Reader(&self.id);
        let fault = self.faults.of_in_time(&call).await;
        let inner = act_with(fault, &call, self.inner.reader()).await?;
        let mut tokens = inner.tokens().to_vec();
        if fault == Some(Fault::Stale) {
            tokens.iter_mut().for_each(|token| token.position = Position::START);
        }
        Ok(Box::new(FaultyReader { id: self.id.clone(), inner, tokens, faults: self.faults.clone() }))
    }

    fn told(&self) -> ViewHealth {
        let told = self.inner.health();
        match self.faults.of(&Call::ViewHealth(&self.id)) {
            Some(Fault::Damaged) => ViewHealth { damaged: Some(REASON.into()), ..told },
            Some(Fault::Fails) => ViewHealth { failing: Some(REASON.into()), ..told },
            _ => told,
        }
    }
}

dacapo_store::delegate! {
    impl ViewTokens for FaultyView {
        tokens by meet(Call::Tokens);
        history by meet(Call::History);
        claim by meet(Call::Claim);
        revoke by meet(Call::Revoke);
        cap => cap_at;
        hold by meet(Call::Hold);
        lift by meet(Call::Lift);
    }
}

dacapo_store::delegate! {
    impl ViewLetters for FaultyView {
        refusals by meet(Call::Refusals);
        letters by meet(Call::Letters);
        wish by meet(Call::Wish);
        unspoken by meet(Call::Unspoken);
    }
}

dacapo_store::delegate! {
    impl ViewOutbox for FaultyView {
        effects_due by meet(Call::Outbox);
        first_effect by meet(Call::Outbox);
        outbox by meet(Call::Outbox);
        effect_letters by meet(Call::Outbox);
        decide_effects by meet(Call::DecideEffects);
        effects_claim by meet(Call::Outbox);
        claim_effects by meet(Call::ClaimEffects);
        begin_effects by meet(Call::BeginEffects);
        settle_effects by meet(Call::SettleEffects);
    }
}

dacapo_store::delegate! {
    impl ViewRows for FaultyView {
        missing_indexes by meet(Call::MissingIndexes);
        { fn health(&self) -> ViewHealth { self.told() } }
        look_at_pages by meet(Call::Pages);
        copy by meet(Call::Copy);
        writer => open_writer;
        reader => open_reader;
    }
}

struct FaultyReader {
    id: ViewId,
    inner: Box<dyn ViewReader>,
    tokens: Vec<Token>,
    faults: Faults,
}

dacapo_store::delegate! {
    impl ViewReader for FaultyReader {
        { fn tokens(&self) -> &[Token] { &self.tokens } }
        get by meet(Call::Query);
        select by meet(Call::Query);
        page by meet(Call::Query);
        query by meet(Call::Query);
        first_rows by meet(Call::Query);
        letters by meet(Call::Query);
    }
}

struct FaultyWriter {
    id: ViewId,
    inner: Box<dyn ViewWriter>,
    faults: Faults,
}

impl FaultyWriter {
    async fn commit_or_roll_back(&mut self, commit: &Commit) -> Result<(), CommitError> {
        let result = meet!(self, self.inner.commit(commit), Call::Commit);
        if matches!(result, Err(CommitError::Store(_))) {
            // A commit that failed is rolled back.
            self.inner.rollback().await?;
        }
        result
    }
}

dacapo_store::delegate! {
    impl ViewWriter for FaultyWriter {
        load by meet(Call::Load);
        load_of by meet(Call::Load);
        segments_of by meet(Call::Load);
        is_empty by meet(Call::Load);
        rows_with by meet(Call::Load);
        put by meet(Call::Write);
        delete by meet(Call::Write);
        execute by meet(Call::Write);
        query by meet(Call::Load);
        index by meet(Call::Index);
        attach by meet(Call::Attach);
        keep_segments by meet(Call::Write);
        take_over_segments by meet(Call::Write);
        commit => commit_or_roll_back;
        rollback;
    }
}

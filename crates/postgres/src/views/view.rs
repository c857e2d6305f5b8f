//! One view, as one node has it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dacapo_model::{
    BegunEffect, EffectLetter, EffectOutcome, EffectsClaim, Letter, MemberId, PendingEffect, Position, Refusal,
    StreamName, Timestamp, Token, ViewId, Wish,
};
use dacapo_store::{
    Outbox, StoreError, Table, ViewCopy, ViewHealth, ViewHistory, ViewLetters, ViewOutbox, ViewReader, ViewRows,
    ViewTokens, ViewWriter, WhichEffects, WhichLetters,
};
use sqlx::Row;
use sqlx::postgres::PgArguments;

use super::health::Health;
use super::names::index_name;
use super::reader::Reader;
use super::rows::{Failed, Sent};
use super::session::Session;
use super::value::added;
use super::writer::Writer;
use super::{Home, begun, code, history, letters, outbox, tokens};
use crate::limits;

/// A view. Nothing of it is kept here: every node has one of these, and they share only the database.
pub(super) struct PgView {
    place: Arc<Place>,
}

/// Where a view is.
pub(super) struct Place {
    pub(super) home: Arc<Home>,
    pub(super) id: ViewId,
    /// The quoted name of its schema.
    pub(super) schema: String,
    pub(super) health: Health,
}

impl Place {
    /// What went wrong with this view when something was tried.
    pub(super) fn fault(&self, tried: &str, failed: Failed) -> StoreError {
        let error = fault(&self.id, tried, failed);
        self.health.heed(&error);
        error
    }
}

impl PgView {
    pub(super) fn new(home: Arc<Home>, id: &ViewId, schema: String) -> Self {
        Self { place: Arc::new(Place { home, id: id.clone(), schema, health: Health::default() }) }
    }

    /// Returns a connection for something short.
    async fn session(&self, tried: &str) -> Result<Session, StoreError> {
        Session::open(&self.place.home, &format!("{tried} the view {}", self.place.id)).await
    }

    /// Tries what could not be read, if anything could not.
    async fn try_again(&self) {
        for probe in self.place.health.due() {
            let tried = "read a table of";
            let tried_again = async {
                let mut session = self.session(tried).await?;
                let lock = limits::PROBE_LOCK_TIME_MAX.as_millis();
                session.batch(format!("SET LOCAL lock_timeout = {lock}; {probe}")).await?;
                Ok(())
            };
            let read = tried_again.await.map_err(|failed| self.place.fault(tried, failed));
            self.place.health.read(&probe, read.as_ref().err());
        }
    }

    async fn mark(&self, tried: &str, change: &str) -> Result<Vec<Token>, StoreError> {
        let mut session = self.session(tried).await?;
        let marked = tokens::mark(&mut session, &self.place.schema, change).await;
        marked.map_err(|failed| self.place.fault(tried, failed))
    }
}

/// Something short that is done on a connection of its own: what is tried, and what to call with what.
macro_rules! control {
    ($view:ident, $tried:literal, $act:path $(, $argument:expr)*) => {{
        let mut session = $view.session($tried).await?;
        let done = $act(&mut session, &$view.place.schema $(, $argument)*).await;
        done.map_err(|failed| $view.place.fault($tried, failed))
    }};
}

#[async_trait]
impl ViewTokens for PgView {
    async fn tokens(&self) -> Result<Vec<Token>, StoreError> {
        let tokens = control!(self, "read the tokens of", tokens::read)?;
        tokens::places(&self.place.schema).iter().for_each(|place| self.place.health.is_sound(place));
        self.try_again().await;
        Ok(tokens)
    }

    async fn history(&self) -> Result<Option<ViewHistory>, StoreError> {
        control!(self, "read the history of", history::read)
    }

    async fn claim(&self, by: Option<MemberId>, seen: &[Token]) -> Result<Vec<Token>, StoreError> {
        if seen.is_empty() {
            return Ok(vec![]);
        }
        let tried = "claim the segments of";
        let mut session = self.session(tried).await?;
        let claimed = tokens::change(&mut session, &self.place.schema, &tokens::claim(by, seen)).await;
        claimed.map_err(|failed| self.place.fault(tried, failed))
    }

    async fn revoke(&self) -> Result<(), StoreError> {
        self.mark("revoke the claims of", &tokens::revoke()).await.map(drop)
    }

    async fn cap(&self, at: Option<Position>) -> Result<Vec<Token>, StoreError> {
        self.mark("cap the tokens of", &tokens::cap(at)).await
    }

    async fn hold(&self, mark: Position) -> Result<Vec<Token>, StoreError> {
        self.mark("hold the tokens of", &tokens::hold(mark)).await
    }

    async fn lift(&self, mark: Position) -> Result<(), StoreError> {
        self.mark("lift the hold of", &tokens::lift(mark)).await.map(drop)
    }
}

#[async_trait]
impl ViewLetters for PgView {
    async fn refusals(&self) -> Result<Vec<Refusal>, StoreError> {
        control!(self, "read the refusals of", letters::refusals)
    }

    async fn letters(&self, after: Position, most: usize) -> Result<Vec<Letter>, StoreError> {
        control!(self, "read the dead letters of", letters::letters, after, most)
    }

    async fn wish(&self, which: &WhichLetters, wish: Option<Wish>) -> Result<u64, StoreError> {
        control!(self, "record the decision about dead letters of", letters::wish, which, wish)
    }

    async fn unspoken(&self) -> Result<Vec<Position>, StoreError> {
        control!(self, "read the events that were not applied of", letters::unspoken)
    }
}

#[async_trait]
impl ViewOutbox for PgView {
    async fn effects_due(
        &self,
        now: Timestamp,
        longest: Duration,
        most: usize,
    ) -> Result<Vec<PendingEffect>, StoreError> {
        control!(self, "read the effects that are due of", outbox::due, (now, longest), most)
    }

    async fn first_effect(&self, stream: &StreamName, after: Position) -> Result<Option<Position>, StoreError> {
        control!(self, "look for an effect of", outbox::first, stream, after)
    }

    async fn outbox(&self, most: usize) -> Result<Outbox, StoreError> {
        control!(self, "look at the outbox of", outbox::whole, most)
    }

    async fn effect_letters(&self, after: u64, most: usize, untried: bool) -> Result<Vec<EffectLetter>, StoreError> {
        control!(self, "read the failed effects of", outbox::letters, after, most, untried)
    }

    async fn decide_effects(&self, which: &WhichEffects, wish: Wish) -> Result<u64, StoreError> {
        control!(self, "decide about effects of", decide, which, wish)
    }

    async fn effects_claim(&self) -> Result<EffectsClaim, StoreError> {
        control!(self, "read who makes the effects of", begun::claim)
    }

    async fn claim_effects(&self, seen: EffectsClaim, next: EffectsClaim) -> Result<bool, StoreError> {
        control!(self, "claim the effects of", claim_effects, seen, next)
    }

    async fn begin_effects(
        &self,
        claim: EffectsClaim,
        numbers: &[u64],
    ) -> Result<Option<Vec<BegunEffect>>, StoreError> {
        control!(self, "record which effects are begun of", begin_effects, claim, numbers)
    }

    async fn settle_effects(&self, claim: EffectsClaim, settled: &[(u64, EffectOutcome)]) -> Result<(), StoreError> {
        control!(self, "record the results of effects of", settle, claim, settled)
    }
}

#[async_trait]
impl ViewRows for PgView {
    fn health(&self) -> ViewHealth {
        self.place.health.told()
    }

    async fn missing_indexes(&self, tables: &[Table]) -> Result<Vec<(usize, usize)>, StoreError> {
        let there = control!(self, "look for the indexes of", indexes)?;
        let all =
            tables.iter().enumerate().flat_map(|(at, table)| (0..table.indexes.len()).map(move |index| (at, index)));
        Ok(all.filter(|(at, index)| !there.contains(&index_name(&tables[*at], &tables[*at].indexes[*index]))).collect())
    }

    async fn copy(&self) -> Result<ViewCopy, StoreError> {
        Ok(ViewCopy::Schema(self.place.schema.clone()))
    }

    async fn writer(&self) -> Result<Box<dyn ViewWriter>, StoreError> {
        Ok(Box::new(Writer::new(Arc::clone(&self.place))))
    }

    async fn reader(&self) -> Result<Box<dyn ViewReader>, StoreError> {
        Ok(Box::new(Reader::open(Arc::clone(&self.place)).await?))
    }
}

async fn claim_effects(session: &mut Session, schema: &str, seen: EffectsClaim, next: EffectsClaim) -> Sent<bool> {
    session.begin("BEGIN".to_owned()).await?;
    let claimed = begun::replace(session, schema, seen, next).await?;
    session.commit().await?;
    Ok(claimed)
}

async fn begin_effects(
    session: &mut Session,
    schema: &str,
    claim: EffectsClaim,
    numbers: &[u64],
) -> Sent<Option<Vec<BegunEffect>>> {
    session.begin("BEGIN".to_owned()).await?;
    let begun = begun::begin(session, schema, claim, numbers).await?;
    session.commit().await?;
    Ok(begun)
}

async fn settle(
    session: &mut Session,
    schema: &str,
    claim: EffectsClaim,
    settled: &[(u64, EffectOutcome)],
) -> Sent<()> {
    session.begin("BEGIN".to_owned()).await?;
    outbox::settle(session, schema, claim, settled).await?;
    Ok(session.commit().await?)
}

async fn decide(session: &mut Session, schema: &str, which: &WhichEffects, wish: Wish) -> Sent<u64> {
    session.begin("BEGIN".to_owned()).await?;
    let decided = outbox::decide(session, schema, which, wish).await?;
    session.commit().await?;
    Ok(decided)
}

/// Returns the names of the indexes that are there.
async fn indexes(session: &mut Session, schema: &str) -> Sent<Vec<String>> {
    let mut arguments = PgArguments::default();
    added(&mut arguments, schema.to_owned())?;
    let sql = "SELECT relname::text FROM pg_class WHERE relnamespace = to_regnamespace($1) AND relkind = 'i'";
    let rows = session.fetch(sql, arguments).await?;
    Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
}

/// What went wrong with the view of `id` when something was tried, with statements of this store alone.
pub(super) fn fault(id: &ViewId, tried: &str, failed: Failed) -> StoreError {
    match failed {
        Failed::Here(error) => error,
        Failed::There(error) => crate::fault::fault_of_rows(&format!("{tried} the view {id}"), &error),
    }
}

/// Returns true if a schema or table was not there.
pub(super) fn is_gone(failed: &Failed) -> bool {
    matches!(code(failed).as_deref(), Some("3F000" | "42P01"))
}

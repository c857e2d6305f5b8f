//! Fills a new view from another one, as one transaction under the claim: rows, indexes, and every token from the start
//! to the copied one's place (I-3, I-4). A process that is killed in the middle begins again. After the commit the
//! tokens are not at the start any more.

use std::ops::ControlFlow::{Break, Continue};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use dacapo_model::copy::is_complete;
use dacapo_model::{Applied, Position, Token, TokenMove, WaitingOn, limits};
use dacapo_store::{Commit, StoreError};
use futures::FutureExt;

use super::Prepared;
use crate::code::{HandlerError, Seed, SeedFrom, statements};
use crate::panics::{chain, panic_text};
use crate::processor::land::Transaction;
use crate::processor::rows::Rows;
use crate::processor::run::Run;
use crate::processor::sink::Sink;
use crate::processor::tries::Tried;
use crate::processor::{Next, unavailable};
use crate::view::{ReadView, ViewError};

pub(in crate::processor) fn reason(tried: &Tried, from: &SeedFrom) -> WaitingOn {
    WaitingOn::Seed { source: from.id.version, attempts: tried.attempts, error: tried.error.clone() }
}

/// The view is filled, and every token moves from the start to the copied one's place.
struct Copy {
    from: SeedFrom,
}

impl Transaction<Rows> for Copy {
    async fn make(&mut self, run: &mut Run<'_, Rows>) -> Result<Next<Option<Commit>>, StoreError> {
        let assignment = run.assignment;
        let waiting = WaitingOn::Copy { of: self.from.id.version };
        assignment.progress.send_modify(|progress| progress.waiting_on = vec![waiting]);
        let filled = match assignment.unless_called_off(run.fill(&self.from)).await {
            Continue(filled) => filled,
            Break(end) => return Ok(Break(end)),
        };
        if run.sink.view.wants_indexes() {
            run.sink.wants_indexes = true;
            run.sink.rollback().await?;
            return Ok(Continue(None));
        }
        let error = match filled {
            Ok(tokens) => return Ok(Continue(Some(Commit::of(run.segments.jump(&tokens))))),
            Err(error) => match error.downcast::<ViewError>() {
                Ok(error) if error.is_passing() => return Err(unavailable(*error)),
                Ok(error) => error.to_string(),
                Err(error) => chain(&*error),
            },
        };
        run.sink.rollback().await?;
        let (retry, now) = (assignment.options.retry, assignment.steady.now());
        let tried = Tried::again(run.sink.failed_seed.as_ref(), error, retry, now);
        let Tried { attempts, error, .. } = &tried;
        tracing::warn!(view = %assignment.id, source = %self.from.id, attempts, error, "it cannot begin as a copy");
        run.sink.failed_seed = Some(tried);
        Ok(Continue(None))
    }
}

impl Run<'_, Rows> {
    /// Fills the view, if it should begin as a copy and has not begun. A failure is retried later, and nothing else is
    /// done before.
    pub(super) async fn begin_as_copy(&mut self) -> Result<Next<Prepared>, StoreError> {
        let Some(from) = self.sink.seed.clone() else { return Ok(Continue(Prepared::Ready)) };
        let head = *self.head.borrow_and_update();
        if self.assignment.is_barred(head).await? {
            return self.wait_anew().await;
        }
        // The progress knows the segments of other members. The claim knows this run's own as they are stored, also after
        // a standby without the last claims took over, whose epochs are lower than those that were seen.
        let is_new = |tokens: &[Token]| tokens.iter().all(Token::is_new);
        if !is_new(self.segments.tokens()) || !is_new(&self.assignment.progress.borrow().tokens) {
            self.sink.seed = None;
            return Ok(Continue(Prepared::Anew));
        }
        // Without all segments, another member makes the copy, or this one once the others have released theirs.
        let rests = |tried: &Tried| tried.rests(self.looked);
        if !self.segments.is_whole() || self.sink.failed_seed.as_ref().is_some_and(rests) {
            return self.wait_anew().await;
        }
        match self.land(&mut Copy { from: from.clone() }).await? {
            Break(end) => return Ok(Break(end)),
            Continue(None) => {}
            Continue(Some(_)) => {
                tracing::info!(view = %self.assignment.id, source = %from.id, "it begins as a copy");
                self.sink.view.indexed();
                (self.sink.seed, self.sink.failed_seed, self.sink.index_at) = (None, None, None);
                self.moves_on();
                self.report();
            }
        }
        Ok(Continue(Prepared::Anew))
    }

    /// Writes the rows in a transaction, and returns the tokens that belong to them.
    async fn fill(&mut self, from: &SeedFrom) -> Result<Vec<Token>, HandlerError> {
        let stored = Arc::clone(&self.sink.stored);
        let carried = &stored.carried;
        let tokens = match &carried.options.seed {
            Seed::Never => return Err("the code does not say how to begin as a copy: set `seed` in its options".into()),
            Seed::Columns => self.fill_by_sql(from, &statements(carried.tables, from.tables)?).await?,
            Seed::Sql(statements) => self.fill_by_sql(from, statements).await?,
            Seed::Migrate => {
                let mut reader = from.view.reader().await?;
                let tokens = reader.tokens().to_vec();
                is_complete(&tokens, reader.letters(Position::START, limits::LETTERS_MAX).await?.len() as u64)?;
                let mut source = ReadView::new(reader);
                let migrated =
                    AssertUnwindSafe(carried.handlers.migrate(&mut source, &mut self.sink.view)).catch_unwind();
                match migrated.await {
                    Ok(migrated) => migrated?,
                    Err(panic) => return Err(format!("it panicked: {}", panic_text(&*panic)).into()),
                }
                tokens
            }
        };
        self.sink.view.index_all().await?;
        Ok(tokens)
    }

    async fn fill_by_sql(&mut self, from: &SeedFrom, statements: &[String]) -> Result<Vec<Token>, HandlerError> {
        let attached = self.sink.view.attach(&from.view.copy().await?).await?;
        is_complete(&attached.tokens, attached.letters)?;
        for statement in statements {
            self.sink.view.fill(&statement.replace("{source}", &attached.schema)).await?;
        }
        if self.sink.stored.carried.options.seed == Seed::Columns {
            // Only these rows are known to be the same as in the other view.
            self.sink.view.take_over_segments(&attached).await?;
        }
        Ok(attached.tokens)
    }
}

impl crate::processor::segments::Segments {
    /// Returns the moves from the start to the places of these tokens. Nobody has counted the covered events here.
    fn jump(&self, to: &[Token]) -> Vec<TokenMove> {
        let moves = self.still().into_iter().zip(to);
        moves
            .map(|(still, to)| TokenMove {
                to: to.position,
                applied: Applied { after: to.position, events: 0 },
                ..still
            })
            .collect()
    }
}

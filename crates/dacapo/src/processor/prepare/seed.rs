//! Fills a new view from another one's, as one transaction under the claim: rows, indexes, and every token from the
//! start to where the copied one was (I-3, I-4). Whoever is killed in the middle begins again; whoever is done finds
//! tokens that are not at the start.

use std::ops::ControlFlow::{Break, Continue};
use std::panic::AssertUnwindSafe;

use dacapo_model::{Applied, Position, Token, TokenMove, WaitingOn, limits};
use dacapo_store::{Commit, StoreError};
use futures::FutureExt;

use crate::code::{HandlerError, Seed, SeedFrom, lacks, statements};
use crate::panics::{chain, panic_text};
use crate::processor::batch::Committed;
use crate::processor::run::Run;
use crate::processor::tries::Tried;
use crate::processor::{Next, unavailable};
use crate::view::{ReadView, ViewError};

pub(in crate::processor) fn reason(tried: &Tried, from: &SeedFrom) -> WaitingOn {
    WaitingOn::Seed { source: from.id.version, attempts: tried.attempts, error: tried.error.clone() }
}

impl Run<'_> {
    /// Fills the view, which is to begin as a copy, unless it has begun. What fails is tried again later, and nothing else
    /// is done before.
    pub(in crate::processor) async fn begin_as_copy(&mut self, from: &SeedFrom) -> Result<Next, StoreError> {
        if !self.assignment.progress.borrow().tokens.iter().all(Token::is_new) {
            self.seed = None;
            return Ok(Continue(()));
        }
        if !self.segments.is_whole() {
            // Another member makes it, or this one once the others have let go.
            return Ok(self.wait().await);
        }
        if self.failed_seed.as_ref().is_some_and(|tried| tried.rests(self.looked)) {
            return Ok(self.wait().await);
        }
        let assignment = self.assignment;
        let waiting = WaitingOn::Copy { of: from.id.version };
        assignment.progress.send_modify(|progress| progress.waiting_on = vec![waiting]);
        let filled = match assignment.unless_called_off(self.fill(from)).await {
            Continue(filled) => filled,
            Break(end) => return Ok(Break(end)),
        };
        if self.view.wants_indexes() {
            return self.index_first().await;
        }
        let error = match filled {
            Ok(tokens) => return self.land_copy(from, &tokens).await,
            Err(error) => match error.downcast::<ViewError>() {
                Ok(error) if error.is_passing() => return Err(unavailable(*error)),
                Ok(error) => error.to_string(),
                Err(error) => chain(&*error),
            },
        };
        self.view.rollback().await.map_err(unavailable)?;
        let (retry, now) = (assignment.carried.options.retry, assignment.clock.now());
        let tried = Tried::again(self.failed_seed.as_ref(), error, retry, now);
        let Tried { attempts, error, .. } = &tried;
        tracing::warn!(view = %assignment.id, source = %from.id, attempts, error, "it cannot begin as a copy");
        self.failed_seed = Some(tried);
        Ok(Continue(()))
    }

    async fn land_copy(&mut self, from: &SeedFrom, tokens: &[Token]) -> Result<Next, StoreError> {
        match self.land(&Commit::of(self.segments.jump(tokens))).await? {
            Committed::Done => {
                tracing::info!(view = %self.assignment.id, source = %from.id, "it begins as a copy");
                self.view.indexed();
                (self.seed, self.failed_seed, self.index_at, self.has_moved) = (None, None, None, true);
                self.report();
            }
            Committed::ApplyAgain | Committed::Capped(_) => {}
            Committed::Wrong(error) => return Err(unavailable(error)),
            Committed::Ended(ended) => return Ok(Break(Some(ended))),
        }
        Ok(Continue(()))
    }

    /// Writes the rows in a transaction, and returns the tokens that they are of.
    async fn fill(&mut self, from: &SeedFrom) -> Result<Vec<Token>, HandlerError> {
        let carried = &self.assignment.carried;
        let tokens = match &carried.options.seed {
            Seed::Never => return Err("the code does not say how to begin as a copy: set `seed` in its options".into()),
            Seed::Columns => self.fill_by_sql(from, &statements(carried.tables, from.tables)?).await?,
            Seed::Sql(statements) => self.fill_by_sql(from, statements).await?,
            Seed::Migrate => {
                let mut reader = from.view.reader().await?;
                let tokens = reader.tokens().to_vec();
                complete(&tokens, reader.letters(Position::START, limits::LETTERS_MAX).await?.len() as u64)?;
                let mut source = ReadView::new(reader);
                let migrated = AssertUnwindSafe(carried.handlers.migrate(&mut source, &mut self.view)).catch_unwind();
                match migrated.await {
                    Ok(migrated) => migrated?,
                    Err(panic) => return Err(format!("it panicked: {}", panic_text(&*panic)).into()),
                }
                tokens
            }
        };
        self.view.index_all().await?;
        Ok(tokens)
    }

    async fn fill_by_sql(&mut self, from: &SeedFrom, statements: &[String]) -> Result<Vec<Token>, HandlerError> {
        let attached = self.view.attach(&from.view.copy().await?).await?;
        complete(&attached.tokens, attached.letters)?;
        for statement in statements {
            self.view.fill(&statement.replace("{source}", &attached.schema)).await?;
        }
        if self.assignment.carried.options.seed == Seed::Columns {
            // Only of these it is known that they are what the same rows were.
            self.view.take_over_segments(&attached).await?;
        }
        Ok(attached.tokens)
    }
}

/// Whether the rows are of every event through the tokens.
fn complete(tokens: &[Token], letters: u64) -> Result<(), HandlerError> {
    if letters > 0 {
        return Err(lacks(letters).into());
    }
    match tokens.iter().find(|token| token.replays()) {
        Some(token) => Err(format!("a replay of its segment {} is under way: wait for its end", token.segment).into()),
        None => Ok(()),
    }
}

impl crate::processor::segments::Segments {
    /// The moves from the start to where these tokens are. What they cover was counted by nobody here.
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

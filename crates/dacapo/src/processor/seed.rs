//! Fills a new view from another one's, as one transaction under the claim: rows, indexes, and every token from the
//! start to where the copied one was (I-3, I-4). Whoever is killed in the middle begins again; whoever is done finds
//! tokens that are not at the start.

use std::panic::AssertUnwindSafe;

use dacapo_model::{Applied, Position, Token, TokenMove, WaitingOn};
use dacapo_store::{Commit, StoreError};
use futures::FutureExt;

use super::{Committed, Ended, Run, unavailable};
use crate::projection::{HandlerError, chain, panic_text};
use crate::seed::{Seed, SeedFrom, statements};
use crate::view::{ReadView, ViewError};

impl Run<'_> {
    /// Fills the view if it is to begin as a copy and has not begun, or tells how the run ended meanwhile.
    pub(super) async fn seed(&mut self) -> Result<Option<Ended>, StoreError> {
        let assignment = self.assignment;
        let Some(from) = &assignment.beginning.seed else { return Ok(None) };
        let mut attempts = 0;
        while self.segments.all_at(Position::START) {
            let (mut stop, of) = (assignment.stop.clone(), from.id.version);
            let waiting = WaitingOn::Copy { of };
            assignment.progress.send_modify(|progress| progress.waiting_on = vec![waiting]);
            let filled = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return Ok(Some(Ended::Stopped)),
                filled = self.fill(from) => filled,
            };
            let error = match filled {
                Ok(tokens) => {
                    let moves = self.segments.jump(&tokens);
                    // Nothing was ever appended to it, so there is nothing to copy.
                    let empty = moves.iter().all(|asked| asked.to == Position::START);
                    match self.land(&Commit::of(moves)).await? {
                        Committed::Done if empty => return Ok(None),
                        Committed::Done => self.begun_as_copy(from),
                        Committed::ApplyAgain => {}
                        Committed::Wrong(error) => return Err(unavailable(error)),
                        Committed::Stopped => return Ok(Some(Ended::Stopped)),
                        Committed::Fenced(refused) => return Ok(Some(Ended::Fenced(refused))),
                    }
                    continue;
                }
                Err(error) => match error.downcast::<ViewError>() {
                    Ok(error) if error.is_passing() => return Err(unavailable(*error)),
                    Ok(error) => error.to_string(),
                    Err(error) => chain(&*error),
                },
            };
            self.view.rollback().await.map_err(unavailable)?;
            attempts += 1;
            tracing::warn!(view = %assignment.id, source = %from.id, attempts, error, "it cannot begin as a copy");
            let waiting = WaitingOn::Seed { source: of, attempts, error };
            assignment.progress.send_modify(|progress| progress.waiting_on = vec![waiting]);
            if assignment.stopped_within(assignment.carried.options.retry.wait(attempts)).await {
                return Ok(Some(Ended::Stopped));
            }
        }
        Ok(None)
    }

    fn begun_as_copy(&mut self, from: &SeedFrom) {
        tracing::info!(view = %self.assignment.id, source = %from.id, "it begins as a copy");
        (self.index_at, self.has_moved) = (None, true);
        self.report();
    }

    /// Writes the rows in a transaction, and returns the tokens that they are of.
    async fn fill(&mut self, from: &SeedFrom) -> Result<Vec<Token>, HandlerError> {
        let carried = &self.assignment.carried;
        let tokens = match &carried.options.seed {
            Seed::Never => return Err("the code does not say how to begin as a copy: set `seed` in its options".into()),
            Seed::Columns => self.fill_by_sql(from, &statements(carried.tables, from.tables)?).await?,
            Seed::Sql(statements) => self.fill_by_sql(from, statements).await?,
            Seed::Migrate => {
                let letters = async || Ok::<_, HandlerError>(from.view.letters(Position::START, 1).await?.len());
                let before = letters().await?;
                let reader = from.view.reader().await?;
                let tokens = reader.tokens().to_vec();
                complete(&tokens, (before + letters().await?) as u64)?;
                let mut source = ReadView::new(reader);
                let migrated = AssertUnwindSafe(carried.handlers.migrate(&mut source, &mut self.view)).catch_unwind();
                match migrated.await {
                    Ok(migrated) => migrated?,
                    Err(panic) => return Err(format!("it panicked: {}", panic_text(&*panic)).into()),
                }
                tokens
            }
        };
        self.view.finish_indexes().await?;
        Ok(tokens)
    }

    async fn fill_by_sql(&mut self, from: &SeedFrom, statements: &[String]) -> Result<Vec<Token>, HandlerError> {
        let attached = self.view.attach(&from.view.copy().await?).await?;
        complete(&attached.tokens, attached.letters)?;
        for statement in statements {
            self.view.fill(&statement.replace("{source}", &attached.schema)).await?;
        }
        Ok(attached.tokens)
    }
}

/// Whether the rows are of every event through the tokens.
fn complete(tokens: &[Token], letters: u64) -> Result<(), HandlerError> {
    if letters > 0 {
        return Err("its rows lack events that are set aside: retry or drop its dead letters first".into());
    }
    match tokens.iter().find(|token| token.replays()) {
        Some(token) => Err(format!("a replay of its segment {} is under way: wait for its end", token.segment).into()),
        None => Ok(()),
    }
}

impl super::segments::Segments {
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

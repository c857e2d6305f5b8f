//! What a node knows of the history of its journal, and whether the database still has it.
//!
//! ```text
//!   appends, notifications, looks at the head ─▶ marks ─┬─ each new connection ─┐
//!                                                       └─ each look at the head ─┴▶ the same? ─ no ─▶ lost permanently
//! ```
//!
//! A server that took over without the last events, or a backup that was restored under a running node, may have other
//! events at positions that were seen here. Whatever this node knows and shows is of the events that are gone, so it
//! stops: no connection is lent any more, nothing is appended, no lease is renewed. Only a start again, which reads
//! everything that is there, ends that.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use dacapo_model::{JournalId, Mark, Parted, Position};
use dacapo_store::StoreError;
use sqlx::{AssertSqlSafe, PgConnection, Row as _};
use tokio::sync::watch;
use uuid::Uuid;

use crate::limits;

/// The history as far as it is known here.
#[derive(Debug)]
pub(crate) struct History {
    known: Mutex<Known>,
    /// The reason why it is not the one that is in the database.
    lost: watch::Sender<Option<Parted>>,
}

#[derive(Debug, Default)]
struct Known {
    journal: Option<JournalId>,
    /// In the order of positions, with their numbers: the last ones each, those before the fewer the older they are.
    marks: VecDeque<(u64, Mark)>,
    learned: u64,
}

impl Default for History {
    fn default() -> Self {
        Self { known: Mutex::default(), lost: watch::Sender::new(None) }
    }
}

impl History {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The journal that the database has, which is the one that it must have from now on.
    pub(crate) fn is_of(&self, journal: JournalId) {
        self.known().journal.get_or_insert(journal);
    }

    /// A mark that was seen in the database, after it was committed.
    pub(crate) fn learn(&self, mark: Mark) {
        let mut known = self.known();
        if known.marks.back().is_some_and(|(_, last)| last.position >= mark.position) || mark == Mark::START {
            return;
        }
        known.learned += 1;
        let learned = known.learned;
        known.marks.push_back((learned, mark));
        if known.marks.len() > limits::KNOWN_MARKS_MAX {
            // Each second one of those that are twice as old.
            let age_max = |number: u64| 16_u64 << number.trailing_zeros().min(58);
            known.marks.retain(|(number, _)| learned - number < age_max(*number));
        }
    }

    /// Returns the last mark that is known.
    pub(crate) fn last(&self) -> Mark {
        self.known().marks.back().map_or(Mark::START, |(_, mark)| *mark)
    }

    /// How it is not the one in the database any more, if so.
    pub(crate) fn parted(&self) -> Option<Parted> {
        *self.lost.borrow()
    }

    /// Refuses once the history is not the one in the database.
    pub(crate) fn holds(&self) -> Result<(), StoreError> {
        self.parted().map_or(Ok(()), |parted| Err(StoreError::JournalParted(parted)))
    }

    /// Tells when the history turns out not to be the one in the database.
    #[expect(clippy::expect_used, reason = "the sender is in this value; it was waited for")]
    pub(crate) async fn ended(&self) -> StoreError {
        let mut lost = self.lost.subscribe();
        let found = *lost.wait_for(Option::is_some).await.expect("the sender is in this value");
        StoreError::JournalParted(found.expect("it was waited for"))
    }

    /// Checks whether the database of a connection has the history that is known, events through `seen` included.
    pub(crate) async fn check(&self, connection: &mut PgConnection, seen: Position) -> Result<(), sqlx::Error> {
        let journal = self.known().journal;
        let Some(journal) = journal else { return Ok(()) };
        let last = self.last();
        let sql = format!(
            "SELECT (SELECT journal::text FROM sequencer), coalesce((SELECT max(position) FROM events), 0), \
             EXISTS (SELECT FROM events WHERE position = {} AND digest = decode('{:016x}', 'hex'))",
            last.position, last.digest
        );
        let row = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_one(&mut *connection).await?;
        let (is, head): (Option<String>, i64) = (row.try_get(0)?, row.try_get(1)?);
        let (head, same): (_, bool) = (Position::new(head.cast_unsigned()), row.try_get(2)?);
        let is = is.map(|is| Uuid::parse_str(&is)).transpose().map_err(|error| sqlx::Error::Decode(error.into()))?;
        match is.map(|is| JournalId::from_bytes(is.into_bytes())) {
            Some(found) if found != journal => {
                self.lose(Parted::Journal { made_from: journal, found }, "another database was put in its place");
            }
            _ if head >= seen.max(last.position) && (same || last == Mark::START) => return Ok(()),
            _ => {
                let seen = seen.max(last.position);
                let parted = self.parting(connection, head, seen).await?;
                self.lose(parted, &said(head, seen));
            }
        }
        Ok(())
    }

    /// Where the history that is known and the one in the database part.
    async fn parting(
        &self,
        connection: &mut PgConnection,
        head: Position,
        seen: Position,
    ) -> Result<Parted, sqlx::Error> {
        let marks: Vec<Mark> = self.known().marks.iter().map(|(_, mark)| *mark).collect();
        let agreed = if marks.is_empty() {
            Position::START
        } else {
            let list = |part: &dyn Fn(&Mark) -> String| marks.iter().map(part).collect::<Vec<_>>().join(",");
            let sql = format!(
                "SELECT coalesce(max(position), 0) FROM events JOIN unnest('{{{}}}'::bigint[], '{{{}}}'::text[]) \
                 AS known (position, hex) USING (position) WHERE digest = decode(hex, 'hex')",
                list(&|mark| mark.position.to_string()),
                list(&|mark| format!("{:016x}", mark.digest))
            );
            let agreed: i64 = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_one(connection).await?.try_get(0)?;
            Position::new(agreed.cast_unsigned())
        };
        let next = marks.iter().map(|mark| mark.position).find(|position| *position > agreed).unwrap_or(seen);
        Ok(Parted::History { same_through: agreed, differs_at: next.min(head.next()).max(agreed.next()) })
    }

    fn lose(&self, parted: Parted, found: &str) {
        self.lost.send_if_modified(|lost| {
            let first = lost.is_none();
            if first {
                tracing::error!(
                    %parted,
                    found,
                    "the journal in the database is not the one that this node knows: it stops serving. Put that back, or \
                     start every node again to continue with the present data"
                );
                *lost = Some(parted);
            }
            first
        });
    }
}

/// Returns the error about a journal that ends at `head`, of which events through `seen` were known.
fn said(head: Position, seen: Position) -> String {
    match head < seen {
        true => format!("it ends at {head}, but events through {seen} were there"),
        false => format!("it has other events through {seen} than were there"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_marks_are_known_and_of_older_ones_some() {
        let history = History::default();
        let mark = |number| Mark { position: Position::new(number), digest: number };
        (1..=10_000).for_each(|number| history.learn(mark(number)));
        history.learn(mark(7));
        let marks: Vec<u64> = history.known().marks.iter().map(|(_, mark)| mark.position.get()).collect();
        assert!(marks.len() <= limits::KNOWN_MARKS_MAX && marks.is_sorted());
        assert_eq!(history.last(), mark(10_000));
        assert!((9_990..=10_000).all(|number| marks.contains(&number)), "{marks:?}");
        assert!(marks[0] < 2_000, "{marks:?}");
        let mut gaps = marks.windows(2).map(|pair| (pair[1] - pair[0], 10_000 - pair[0]));
        assert!(gaps.all(|(gap, age)| gap <= age / 4 + 1), "{marks:?}");
    }
}

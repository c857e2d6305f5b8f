//! The token table: the one statement that moves a token, and those that claim, hold and lift.

use dacapo_model::{MemberId, Position, Token, TokenMove};
use rusqlite::{Connection, OptionalExtension, Row};

use crate::error::{CommitError, StoreError};
use crate::sqlite::Db;
use crate::sqlite::fault::corrupt;
use crate::view_form::{TokenForm, Wrong, count, epoch_number, number, tokens};
use crate::views::{Attached, Commit};

impl Db {
    /// Returns every token, in the order of segments.
    pub(crate) fn tokens(&mut self) -> Result<Vec<Token>, StoreError> {
        let stored = self.tried("read the tokens", |connection| read_all(connection, ""))?;
        self.checked(stored)
    }

    /// Returns the facts about the attached view.
    pub(crate) fn attached(&mut self) -> Result<Attached, StoreError> {
        let letters = self.tried("count the dead letters of the view to copy", |connection| {
            connection.query_row("SELECT count(*) FROM source._dacapo_letters", [], |row| row.get::<_, i64>(0))
        })?;
        Ok(Attached { schema: "source".into(), tokens: self.source_tokens()?, letters: letters.unsigned_abs() })
    }

    fn source_tokens(&mut self) -> Result<Vec<Token>, StoreError> {
        let (stored, segments) =
            self.tried("read the tokens of the view to copy", |connection| read_all(connection, "source."))?;
        // Then the other view is damaged, not this one.
        tokens(stored, &segments)
            .map_err(|Wrong { table, found }| corrupt(&format!("{table} of the view to copy"), &found))
    }

    /// Gives the next epoch to each token that still has the epoch that was seen (I-4).
    pub(crate) fn claim(&mut self, by: Option<MemberId>, seen: &[Token]) -> Result<Vec<Token>, StoreError> {
        let owner = by.map(MemberId::bytes);
        let claim = "UPDATE _dacapo_tokens SET epoch = epoch + 1, owner = ?3 WHERE segment = ?1 AND epoch = ?2";
        let mut claimed = std::collections::BTreeSet::new();
        let tokens = self.mark("claim the segments", |transaction| {
            let mut statement = transaction.prepare_cached(claim)?;
            for token in seen {
                let segment = token.segment.get();
                if statement.execute((segment, epoch_number(token.epoch), owner.as_ref().map(<[u8; 16]>::as_slice)))?
                    > 0
                {
                    claimed.insert(token.segment);
                }
            }
            Ok(())
        })?;
        Ok(tokens.into_iter().filter(|token| claimed.contains(&token.segment)).collect())
    }

    /// Gives every token the next epoch, and no owner (I-4).
    pub(crate) fn revoke(&mut self) -> Result<(), StoreError> {
        let revoke = "UPDATE _dacapo_tokens SET epoch = epoch + 1, owner = NULL";
        self.mark("revoke the claims", |transaction| transaction.execute(revoke, []).map(drop)).map(drop)
    }

    /// Marks every token as held, except where a later mark holds it.
    pub(crate) fn hold(&mut self, mark: Position) -> Result<Vec<Token>, StoreError> {
        let hold = "UPDATE _dacapo_tokens SET held_for = ?1 WHERE held_for IS NULL OR held_for < ?1";
        self.mark("hold the tokens", |transaction| transaction.execute(hold, [number(mark)]).map(drop))
    }

    /// Lifts this mark and earlier ones.
    pub(crate) fn lift(&mut self, mark: Position) -> Result<(), StoreError> {
        let lift = "UPDATE _dacapo_tokens SET held_for = NULL WHERE held_for <= ?1";
        self.mark("lift the hold", |transaction| transaction.execute(lift, [number(mark)]).map(drop)).map(drop)
    }

    /// Lets no token move past `at`.
    pub(crate) fn cap(&mut self, at: Option<Position>) -> Result<Vec<Token>, StoreError> {
        let cap = "UPDATE _dacapo_tokens SET cap = ?1";
        self.mark("cap the tokens", |transaction| transaction.execute(cap, [at.map(number)]).map(drop))
    }

    /// Changes tokens in a transaction of its own, and returns all of them as they are then.
    fn mark(
        &mut self,
        what: &str,
        change: impl FnOnce(&Connection) -> rusqlite::Result<()>,
    ) -> Result<Vec<Token>, StoreError> {
        let stored = self.tried(what, |connection| {
            let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            change(&transaction)?;
            let stored = read_all(&transaction, "")?;
            transaction.commit()?;
            Ok(stored)
        })?;
        self.checked(stored)
    }

    fn checked(&self, (stored, segments): Stored) -> Result<Vec<Token>, StoreError> {
        tokens(stored, &segments).map_err(|Wrong { table, found }| {
            let damage = corrupt(&format!("{table} of {}", self.place()), &found);
            self.found_damaged(&damage);
            damage
        })
    }

    /// Moves the tokens and commits the open transaction (I-3). If a move is refused, the whole transaction is rolled
    /// back.
    pub(crate) fn commit(&mut self, commit: &Commit) -> Result<(), CommitError> {
        let moves = &commit.moves;
        assert!(!moves.is_empty(), "a commit moves a token: without a move nothing would fence its rows");
        assert!(self.in_transaction(), "a commit ends a transaction");
        let result = moves
            .iter()
            .try_for_each(|asked| self.move_token(*asked))
            .and_then(|()| Ok(self.keep(commit)?))
            .and_then(|()| Ok(self.check_files()?))
            .and_then(|()| Ok(self.tried("commit", |connection| connection.execute_batch("COMMIT"))?))
            .inspect(|()| self.committed());
        if result.is_err() {
            self.rollback()?;
        }
        result
    }

    /// The one place where a token moves. The statement demands what [`Token::moved`] demands (I-4).
    fn move_token(&mut self, asked: TokenMove) -> Result<(), CommitError> {
        let (segment, epoch, from, to) =
            (asked.segment.get(), epoch_number(asked.epoch), number(asked.from), number(asked.to));
        let (after, events) = (number(asked.applied.after), count(asked.applied.events));
        let (request, through) =
            (asked.replay.map(|mark| number(mark.request)), asked.replay.map(|mark| number(mark.through)));
        let changed = self.tried("move a token", |connection| {
            connection
                .prepare_cached(
                    "UPDATE _dacapo_tokens
                     SET position = ?4, counted_after = ?5, counted = ?6, replay_request = ?7, replay_through = ?8
                     WHERE segment = ?1 AND epoch = ?2 AND position = ?3 AND held_for IS NULL
                       AND (cap IS NULL OR ?4 <= cap OR ?4 <= ?3)
                       AND (?7 IS replay_request AND ?8 IS replay_through AND ?4 >= ?3
                            OR ?7 > coalesce(replay_request, -1) AND ?8 >= max(?3, coalesce(replay_through, 0)))",
                )?
                .execute((segment, epoch, from, to, after, events, request, through))
        })?;
        if changed == 1 {
            return Ok(());
        }
        let stored = self.tried("read a token", |connection| {
            connection.query_row(&format!("{READ} WHERE segment = ?1"), [segment], form).optional()
        })?;
        let Some(stored) = stored else {
            // Reports damage if the segment is lost, and an invalid call if it never existed.
            self.tokens()?;
            return Err(StoreError::Invalid(format!("{} has no segment {segment}", self.place())).into());
        };
        let token = stored.token().map_err(|found| StoreError::corrupt(self.place(), found))?;
        match token.moved(asked) {
            Err(refused) => Err(refused.into()),
            // The statement and the rule in the model refuse the same moves: another program has written to the view.
            Ok(_) => Err(StoreError::unavailable("move a token", "it was changed meanwhile from outside").into()),
        }
    }
}

const READ: &str = "SELECT segment, epoch, position, owner, held_for, cap, counted_after, counted, replay_request,
                           replay_through
                    FROM _dacapo_tokens";

fn form(row: &Row<'_>) -> rusqlite::Result<TokenForm> {
    Ok(TokenForm {
        segment: row.get(0)?,
        epoch: row.get(1)?,
        position: row.get(2)?,
        claimed_by: row.get(3)?,
        held_for: row.get(4)?,
        cap: row.get(5)?,
        counted_after: row.get(6)?,
        counted: row.get(7)?,
        replay_request: row.get(8)?,
        replay_through: row.get(9)?,
    })
}

/// The tokens of a view, and how many segments it says that it has.
type Stored = (Vec<TokenForm>, Vec<i64>);

fn read_all(connection: &Connection, schema: &str) -> rusqlite::Result<Stored> {
    let read = READ.replace("_dacapo_tokens", &format!("{schema}_dacapo_tokens"));
    let stored: rusqlite::Result<_> =
        connection.prepare_cached(&format!("{read} ORDER BY segment"))?.query_map([], form)?.collect();
    let segments = format!("SELECT segments FROM {schema}_dacapo_view");
    let segments: rusqlite::Result<_> =
        connection.prepare_cached(&segments)?.query_map([], |row| row.get::<_, i64>(0))?.collect();
    Ok((stored?, segments?))
}

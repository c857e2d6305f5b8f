//! The table of tokens: the one statement that moves tokens, and those that claim, hold and lift.
//!
//! A commit locks its own tokens, in the order of segments, and moves them at the end of its transaction. Who claims,
//! holds or lifts locks the whole table, so it waits for commits that are under way, and for nothing that has only
//! written rows: such a transaction finds the new epoch or the mark when it reaches its tokens.

use std::borrow::Cow;

use dacapo_model::{MemberId, Position, Token, TokenMove};
use dacapo_store::view_form::{self, TOKENS, TokenForm, VIEW, Wrong, count, epoch_number, number};
use dacapo_store::{Commit, StoreError};
use sqlx::Row;
use sqlx::postgres::{PgArguments, PgRow};

use super::rows::Sent;
use super::session::Session;
use super::value::added;
use crate::limits;

const COLUMNS: &str =
    "segment, epoch, position, owner, held_for, cap, counted_after, counted, replay_request, replay_through";

/// Returns every token of the view in a schema, in the order of segments.
pub(super) async fn read(session: &mut Session, schema: &str) -> Sent<Vec<Token>> {
    let rows = session.fetch(&read_sql(schema), PgArguments::default()).await?;
    all(rows, schema)
}

/// With each token goes how many there are; a view without any has one row that is nothing but that.
fn read_sql(schema: &str) -> String {
    format!(
        "SELECT {COLUMNS}, (SELECT array_agg(segments) FROM {schema}._dacapo_view)
         FROM (VALUES (true)) AS one LEFT JOIN {schema}._dacapo_tokens ON true ORDER BY segment"
    )
}

/// Gives the tokens that are still of the epochs that were seen the next one, and an owner (I-4).
pub(super) fn claim(by: Option<MemberId>, seen: &[Token]) -> String {
    let owner = by.map_or("NULL".to_owned(), |by| format!("decode('{}', 'hex')", hex(by)));
    let pair = |token: &Token| format!("({}, {})", token.segment, epoch_number(token.epoch));
    let pairs = seen.iter().map(pair).collect::<Vec<_>>().join(", ");
    format!("SET epoch = epoch + 1, owner = {owner} WHERE (segment, epoch) IN ({pairs})")
}

fn hex(id: MemberId) -> String {
    id.bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Gives every token the next epoch, and no owner (I-4).
pub(super) fn revoke() -> String {
    "SET epoch = epoch + 1, owner = NULL".to_owned()
}

/// Lets no token move past `at`.
pub(super) fn cap(at: Option<Position>) -> String {
    let at = at.map_or("NULL".to_owned(), |at| number(at).to_string());
    format!("SET cap = {at}")
}

/// Marks every token as held, except where a later mark holds it.
pub(super) fn hold(mark: Position) -> String {
    let mark = number(mark);
    format!("SET held_for = {mark} WHERE held_for IS NULL OR held_for < {mark}")
}

/// Lifts this mark and earlier ones.
pub(super) fn lift(mark: Position) -> String {
    format!("SET held_for = NULL WHERE held_for <= {}", number(mark))
}

/// Changes marks while nothing moves, and returns the tokens as they are then.
pub(super) async fn mark(session: &mut Session, schema: &str, change: &str) -> Sent<Vec<Token>> {
    let read = read_sql(schema);
    all(still(session, schema, &format!("UPDATE {schema}._dacapo_tokens {change}; {read}")).await?, schema)
}

/// Changes epochs while nothing moves, and returns the tokens that were changed, in the order of segments.
pub(super) async fn change(session: &mut Session, schema: &str, change: &str) -> Sent<Vec<Token>> {
    let changed = format!("UPDATE {schema}._dacapo_tokens {change} RETURNING {COLUMNS}");
    let mut tokens = tokens(&still(session, schema, &changed).await?, schema)?;
    tokens.sort_unstable_by_key(|token| token.segment);
    Ok(tokens)
}

/// Does something while nothing moves. One batch is one transaction.
async fn still(session: &mut Session, schema: &str, statements: &str) -> Sent<Vec<PgRow>> {
    let batch = format!(
        "SET LOCAL client_connection_check_interval = {check};
         LOCK TABLE {schema}._dacapo_tokens IN SHARE ROW EXCLUSIVE MODE; {statements}",
        check = limits::CLIENT_LOOK.as_millis()
    );
    Ok(session.batch(batch).await?)
}

/// What a statement that moves tokens found: each token as it was, and whether it moved.
pub(super) struct Found {
    pub(super) token: Token,
    pub(super) moved: bool,
}

/// The one place where tokens move. The statement demands what [`Token::moved`] demands (I-4), of tokens that it has
/// locked, so what it says is true until the transaction ends. With a token go the refusals that it now covers, and the
/// events to be spoken for that it covers and that have no letter after this commit.
pub(super) async fn move_tokens(session: &mut Session, schema: &str, commit: &Commit) -> Sent<Vec<Found>> {
    let moves = &commit.moves;
    let sql = format!(
        "WITH asked AS (
             SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[],
                                  $7::bigint[], $8::bigint[])
                      AS asked (segment, epoch, started, target, after, events, request, through)
         ), stored AS MATERIALIZED (
             SELECT {COLUMNS} FROM {schema}._dacapo_tokens WHERE segment = ANY ($1) ORDER BY segment FOR UPDATE
         ), moved AS (
             UPDATE {schema}._dacapo_tokens AS token
             SET position = asked.target, counted_after = asked.after, counted = asked.events,
                 replay_request = asked.request, replay_through = asked.through
             FROM stored JOIN asked USING (segment)
             WHERE token.segment = asked.segment AND stored.epoch = asked.epoch AND stored.position = asked.started
               AND stored.held_for IS NULL
               AND (stored.cap IS NULL OR asked.target <= stored.cap OR asked.target <= asked.started)
               AND (asked.request IS NOT DISTINCT FROM stored.replay_request
                      AND asked.through IS NOT DISTINCT FROM stored.replay_through AND asked.target >= asked.started
                    OR asked.request > coalesce(stored.replay_request, -1)
                      AND asked.through >= greatest(asked.started, coalesce(stored.replay_through, 0)))
             RETURNING token.segment, token.position
         ), applied AS (
             DELETE FROM {schema}._dacapo_refusals AS refusal USING moved
             WHERE refusal.segment = moved.segment AND refusal.position <= moved.position
         ), spoken AS (
             DELETE FROM {schema}._dacapo_unspoken AS unspoken USING moved
             WHERE unspoken.segment = moved.segment AND unspoken.position <= moved.position
               AND unspoken.position <> ALL ($9)
               AND NOT EXISTS (SELECT FROM {schema}._dacapo_letters AS letter
                               WHERE letter.position = unspoken.position AND letter.position <> ALL ($10))
         )
         SELECT stored.*, moved.segment IS NOT NULL FROM stored LEFT JOIN moved USING (segment) ORDER BY segment"
    );
    let mut arguments = PgArguments::default();
    let mut array = |of: &dyn Fn(&TokenMove) -> Option<i64>| {
        added(&mut arguments, moves.iter().map(of).collect::<Vec<Option<i64>>>())
    };
    array(&|asked| Some(asked.segment.get().into()))?;
    array(&|asked| Some(epoch_number(asked.epoch)))?;
    array(&|asked| Some(number(asked.from)))?;
    array(&|asked| Some(number(asked.to)))?;
    array(&|asked| Some(number(asked.applied.after)))?;
    array(&|asked| Some(count(asked.applied.events)))?;
    array(&|asked| asked.replay.map(|mark| number(mark.request)))?;
    array(&|asked| asked.replay.map(|mark| number(mark.through)))?;
    added(&mut arguments, commit.letters.iter().map(|letter| number(letter.position)).collect::<Vec<_>>())?;
    added(&mut arguments, commit.settled.iter().map(|settled| number(*settled)).collect::<Vec<_>>())?;
    let rows = session.fetch(&sql, arguments).await?;
    let moved = rows.iter().map(|row| row.try_get(10)).collect::<Result<Vec<bool>, _>>()?;
    let tokens = tokens(&rows, schema)?;
    Ok(tokens.into_iter().zip(moved).map(|(token, moved)| Found { token, moved }).collect())
}

/// Returns all tokens of a view, each of whose segments has one.
fn all(rows: Vec<PgRow>, schema: &str) -> Sent<Vec<Token>> {
    let segments = rows.first().map(|row| row.try_get::<Option<Vec<i64>>, _>(10)).transpose()?.flatten();
    let is_token = |row: &&PgRow| row.try_get::<Option<i64>, _>(0).is_ok_and(|segment| segment.is_some());
    let stored = rows.iter().filter(is_token).map(form).collect::<Sent<Vec<_>>>()?;
    Ok(view_form::tokens(stored, &segments.unwrap_or_default()).map_err(|wrong| damaged(schema, &wrong))?)
}

/// Returns the tokens in these rows.
fn tokens(rows: &[PgRow], schema: &str) -> Sent<Vec<Token>> {
    let wrong = |found| damaged(schema, &Wrong { table: TOKENS, found });
    rows.iter().map(|row| Ok(form(row)?.token().map_err(wrong)?)).collect()
}

fn form(row: &PgRow) -> Sent<TokenForm> {
    Ok(TokenForm {
        segment: row.try_get(0)?,
        epoch: row.try_get(1)?,
        position: row.try_get(2)?,
        claimed_by: row.try_get(3)?,
        held_for: row.try_get(4)?,
        cap: row.try_get(5)?,
        counted_after: row.try_get(6)?,
        counted: row.try_get(7)?,
        replay_request: row.try_get(8)?,
        replay_through: row.try_get(9)?,
    })
}

/// Damage, with what heals it.
fn damaged(schema: &str, Wrong { table, found }: &Wrong) -> StoreError {
    let advice = "put the rows back, or rebuild the projection, since everything in it comes from the journal";
    StoreError::corrupt(format!("{schema}.{table}"), format!("{found}; {advice}"))
}

/// Text that somebody else wrote, without the one character that PostgreSQL has no text with.
pub(super) fn storable(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{fffd}")) } else { Cow::Borrowed(text) }
}

/// Returns the names of the tables in messages that are as they should be once all tokens were read.
pub(super) fn places(schema: &str) -> [String; 2] {
    [VIEW, TOKENS].map(|table| format!("{schema}.{table}"))
}

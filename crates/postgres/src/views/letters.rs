//! What a view keeps of events that its handler refuses: tries, dead letters and what shall be done with those.

use dacapo_model::{Letter, Position, Refusal, Wish};
use dacapo_store::view_form::{LetterForm, RefusalForm, at, kind_form, number, wish_name};
use dacapo_store::{Commit, StoreError, WhichLetters};
use sqlx::Row;
use sqlx::postgres::{PgArguments, PgRow};

use super::rows::Sent;
use super::session::Session;
use super::tokens::storable;
use super::value::added;

/// Writes what a commit keeps beside rows, tokens and effects, in the open transaction, whose tokens have moved.
pub(super) async fn keep(session: &mut Session, schema: &str, commit: &Commit) -> Sent<()> {
    if !commit.refused.is_empty() {
        keep_refusals(session, schema, &commit.refused).await?;
    }
    if !commit.letters.is_empty() {
        keep_letters(session, schema, &commit.letters).await?;
    }
    if !commit.settled.is_empty() {
        let sql = format!("DELETE FROM {schema}._dacapo_letters WHERE position = ANY ($1)");
        let mut arguments = PgArguments::default();
        added(&mut arguments, commit.settled.iter().map(|it| number(*it)).collect::<Vec<_>>())?;
        session.run(&sql, arguments).await?;
    }
    if !commit.unspoken.is_empty() {
        let sql = format!(
            "INSERT INTO {schema}._dacapo_unspoken (position, segment)
             SELECT asked.position, asked.segment FROM unnest($1::bigint[], $2::bigint[]) AS asked (position, segment)
             JOIN {schema}._dacapo_tokens AS token ON token.segment = asked.segment
             WHERE token.position < asked.position
                OR EXISTS (SELECT FROM {schema}._dacapo_letters AS letter WHERE letter.position = asked.position)
             ON CONFLICT (position) DO NOTHING"
        );
        let mut arguments = PgArguments::default();
        added(&mut arguments, commit.unspoken.iter().map(|(_, it)| number(*it)).collect::<Vec<_>>())?;
        added(&mut arguments, commit.unspoken.iter().map(|(it, _)| i64::from(it.get())).collect::<Vec<_>>())?;
        session.run(&sql, arguments).await?;
    }
    Ok(())
}

async fn keep_refusals(session: &mut Session, schema: &str, refused: &[Refusal]) -> Sent<()> {
    let sql = format!(
        "INSERT INTO {schema}._dacapo_refusals (segment, position, attempts, error, since, due)
         SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[], $5::bigint[], $6::bigint[])
         ON CONFLICT (segment) DO UPDATE SET position = excluded.position, attempts = excluded.attempts,
             error = excluded.error, since = excluded.since, due = excluded.due"
    );
    let mut arguments = PgArguments::default();
    added(&mut arguments, refused.iter().map(|it| i64::from(it.segment.get())).collect::<Vec<_>>())?;
    added(&mut arguments, refused.iter().map(|it| number(it.position)).collect::<Vec<_>>())?;
    added(&mut arguments, refused.iter().map(|it| i64::from(it.attempts)).collect::<Vec<_>>())?;
    added(&mut arguments, refused.iter().map(|it| storable(&it.error)).collect::<Vec<_>>())?;
    added(&mut arguments, refused.iter().map(|it| it.since.micros()).collect::<Vec<_>>())?;
    added(&mut arguments, refused.iter().map(|it| it.due.micros()).collect::<Vec<_>>())?;
    session.run(&sql, arguments).await?;
    Ok(())
}

async fn keep_letters(session: &mut Session, schema: &str, letters: &[Letter]) -> Sent<()> {
    let sql = format!(
        "INSERT INTO {schema}._dacapo_letters AS kept
             (position, segment, stream, event_type, kind, first, error, attempts, recorded, wish)
         SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::text[],
                              $8::bigint[], $9::bigint[], $10::text[])
         ON CONFLICT (position) DO UPDATE SET segment = excluded.segment, stream = excluded.stream,
             event_type = excluded.event_type, kind = excluded.kind, first = excluded.first, error = excluded.error,
             attempts = excluded.attempts, recorded = excluded.recorded,
             -- Anyone who tried the event again need not know that it was given up meanwhile.
             wish = CASE WHEN kept.wish = 'drop' THEN 'drop' ELSE excluded.wish END"
    );
    let mut arguments = PgArguments::default();
    added(&mut arguments, letters.iter().map(|it| number(it.position)).collect::<Vec<_>>())?;
    added(&mut arguments, letters.iter().map(|it| i64::from(it.segment.get())).collect::<Vec<_>>())?;
    added(&mut arguments, letters.iter().map(|it| it.stream.as_str()).collect::<Vec<_>>())?;
    added(&mut arguments, letters.iter().map(|it| it.event_type.as_str()).collect::<Vec<_>>())?;
    added(&mut arguments, letters.iter().map(|it| kind_form(it.kind).0).collect::<Vec<_>>())?;
    added(&mut arguments, letters.iter().map(|it| kind_form(it.kind).1.map(number)).collect::<Vec<_>>())?;
    added(&mut arguments, letters.iter().map(|it| storable(&it.error)).collect::<Vec<_>>())?;
    added(&mut arguments, letters.iter().map(|it| i64::from(it.attempts)).collect::<Vec<_>>())?;
    added(&mut arguments, letters.iter().map(|it| it.recorded.micros()).collect::<Vec<_>>())?;
    added(&mut arguments, letters.iter().map(|it| it.wish.map(wish_name)).collect::<Vec<_>>())?;
    session.run(&sql, arguments).await?;
    Ok(())
}

/// Returns the refusals, in the order of segments.
pub(super) async fn refusals(session: &mut Session, schema: &str) -> Sent<Vec<Refusal>> {
    let sql = format!(
        "SELECT segment, position, attempts, error, since, due FROM {schema}._dacapo_refusals ORDER BY segment"
    );
    let refusal = |row: PgRow| -> Sent<Refusal> {
        let form = RefusalForm {
            segment: row.try_get(0)?,
            position: row.try_get(1)?,
            attempts: row.try_get(2)?,
            error: row.try_get(3)?,
            since: row.try_get(4)?,
            due: row.try_get(5)?,
        };
        let damaged = |found| StoreError::corrupt(format!("{schema}._dacapo_refusals"), found);
        Ok(form.refusal().map_err(damaged)?)
    };
    session.fetch(&sql, PgArguments::default()).await?.into_iter().map(refusal).collect()
}

/// Returns the letters after `after`, in order, at most `most`.
pub(super) async fn letters(session: &mut Session, schema: &str, after: Position, most: usize) -> Sent<Vec<Letter>> {
    let sql = format!(
        "SELECT position, segment, stream, event_type, kind, first, error, attempts, recorded, wish
         FROM {schema}._dacapo_letters WHERE position > $1 ORDER BY position LIMIT $2"
    );
    let letter = |row: PgRow| -> Sent<Letter> {
        let form = LetterForm {
            position: row.try_get(0)?,
            segment: row.try_get(1)?,
            stream: row.try_get(2)?,
            event_type: row.try_get(3)?,
            kind: row.try_get(4)?,
            first: row.try_get(5)?,
            error: row.try_get(6)?,
            attempts: row.try_get(7)?,
            recorded: row.try_get(8)?,
            wish: row.try_get(9)?,
        };
        let damaged = |found| StoreError::corrupt(format!("{schema}._dacapo_letters"), found);
        Ok(form.letter().map_err(damaged)?)
    };
    let mut arguments = PgArguments::default();
    added(&mut arguments, number(after))?;
    added(&mut arguments, i64::try_from(most).unwrap_or(i64::MAX))?;
    session.fetch(&sql, arguments).await?.into_iter().map(letter).collect()
}

/// Returns the number of letters.
pub(super) async fn letter_count(session: &mut Session, schema: &str) -> Sent<u64> {
    let sql = format!("SELECT count(*) FROM {schema}._dacapo_letters");
    let rows = session.fetch(&sql, PgArguments::default()).await?;
    Ok(rows[0].try_get::<i64, _>(0)?.unsigned_abs())
}

/// Records a wish for letters, and returns how many there are.
pub(super) async fn wish(session: &mut Session, schema: &str, which: &WhichLetters, wish: Option<Wish>) -> Sent<u64> {
    let mut arguments = PgArguments::default();
    added(&mut arguments, wish.map(wish_name))?;
    let of = match which {
        WhichLetters::All => "",
        WhichLetters::One(position) => {
            added(&mut arguments, number(*position))?;
            "WHERE position = $2"
        }
        WhichLetters::Stream(stream) => {
            added(&mut arguments, stream.as_str())?;
            "WHERE stream = $2"
        }
    };
    let sql = format!("UPDATE {schema}._dacapo_letters SET wish = $1 {of}");
    Ok(session.run(&sql, arguments).await?.1)
}

/// Returns the events that have yet to speak.
pub(super) async fn unspoken(session: &mut Session, schema: &str) -> Sent<Vec<Position>> {
    let sql = format!("SELECT position FROM {schema}._dacapo_unspoken ORDER BY position");
    let position = |row: PgRow| -> Sent<Position> {
        let damaged = |found| StoreError::corrupt(format!("{schema}._dacapo_unspoken"), found);
        Ok(at(row.try_get(0)?).map_err(damaged)?)
    };
    session.fetch(&sql, PgArguments::default()).await?.into_iter().map(position).collect()
}

//! SQL as it comes from handlers and queries.

use dacapo_store::shape::RESERVED;
use dacapo_store::{StoreError, Value};
use sqlx::error::BoxDynError;
use sqlx::{Column, Either, Statement};

use super::rows::{Failed, Sent};
use super::session::Session;
use super::value::{arguments, from_query, tagged, types};
use crate::fault::fault_of_call;

/// What a statement that writes may begin with. Others end the transaction or change how the connection works.
const WRITES: &[&str] =
    &["insert", "update", "delete", "merge", "with", "truncate", "create", "alter", "drop", "comment", "analyze"];
/// What a query may begin with. The server sees whether it writes.
const READS: &[&str] = &["select", "with", "values", "table", "explain", "show"];

/// Rows of a query with the names of its columns, and how many rows a statement gave or changed.
pub(super) struct Answer {
    pub(super) names: Vec<String>,
    pub(super) rows: Vec<Vec<Value>>,
    pub(super) changed: u64,
}

/// Refuses a statement that is not for handlers.
pub(super) fn check_write(sql: &str) -> Result<(), StoreError> {
    if sql.to_ascii_lowercase().contains(RESERVED) {
        return Err(StoreError::Invalid(format!("handlers may not use tables that begin with {RESERVED}: {sql}")));
    }
    if WRITES.contains(&first_word(sql).as_str()) {
        return Ok(());
    }
    Err(StoreError::Invalid(format!("this statement writes no rows, so it is a query or not allowed: {sql}")))
}

/// Refuses a statement that is no query.
pub(super) fn check_query(sql: &str) -> Result<(), StoreError> {
    if READS.contains(&first_word(sql).as_str()) { Ok(()) } else { Err(no_query(sql)) }
}

fn no_query(sql: &str) -> StoreError {
    StoreError::Invalid(format!("this statement is not a query: a query returns rows and writes none: {sql}"))
}

/// Returns the first word of a statement, after comments and brackets.
fn first_word(sql: &str) -> String {
    let mut rest = sql;
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == '(');
        if let Some(comment) = rest.strip_prefix("--") {
            rest = comment.split_once('\n').map_or("", |(_, rest)| rest);
        } else if let Some(comment) = rest.strip_prefix("/*") {
            // One within another ends too early; then no word that is allowed follows.
            rest = comment.split_once("*/").map_or("", |(_, rest)| rest);
        } else {
            break;
        }
    }
    rest.chars().take_while(char::is_ascii_alphabetic).map(|c| c.to_ascii_lowercase()).collect()
}

/// Carries out one statement, which writes, or is a query of which so many rows are wanted at most. It is prepared under the name of its schema, since names in it mean that schema's tables.
pub(super) async fn run(
    session: &mut Session,
    schema: &str,
    sql: &str,
    parameters: &[Value],
    reads: Option<usize>,
) -> Sent<Answer> {
    let text = tagged(&format!("/*{schema}*/ {sql}"), parameters);
    let arguments = arguments(parameters)?;
    let statement = session.prepare(&text, &types(parameters)).await?;
    let asked = match statement.parameters() {
        Some(Either::Left(types)) => types.len(),
        Some(Either::Right(count)) => count,
        None => 0,
    };
    if asked != parameters.len() {
        let given = parameters.len();
        let why = format!("the statement has {asked} parameters and got {given}, as $1, $2 and so on: {sql}");
        return Err(StoreError::Invalid(why).into());
    }
    let names: Vec<String> = statement.columns().iter().map(|column| column.name().to_owned()).collect();
    if reads.is_some() && names.is_empty() {
        return Err(no_query(sql).into());
    }
    let (rows, changed) = session.run_prepared(&statement, arguments, reads.unwrap_or_default()).await?;
    if reads.is_none() {
        return Ok(Answer { names, rows: vec![], changed });
    }
    let value = |row, at| {
        from_query(row, at).map_err(|error: BoxDynError| {
            StoreError::Invalid(format!("cannot read column {} of {sql:?}: {error}", names[at]))
        })
    };
    let rows: Result<Vec<Vec<Value>>, StoreError> =
        rows.iter().map(|row| (0..names.len()).map(|at| value(row, at)).collect()).collect();
    Ok(Answer { rows: rows?, names, changed })
}

/// What went wrong with a statement that came from outside, and that may write if `writes` is set. That a right is missing
/// is never its fault: anyone who took the right away can give it back.
pub(super) fn wrong(place: &str, sql: &str, writes: bool, failed: Failed) -> StoreError {
    let tried = format!("carry out {sql:?} in {place}");
    match failed {
        Failed::Here(error) => error,
        // A query that writes; or what cannot be done in a transaction. One that may write finds a server that does not.
        Failed::There(sqlx::Error::Database(error))
            if error.code().is_some_and(|code| code == "25001" || code == "25006" && !writes) =>
        {
            StoreError::Invalid(format!("cannot {tried}: {error}"))
        }
        Failed::There(error) => match fault_of_call(&tried, &error) {
            StoreError::Invalid(why) if sql.contains('?') => {
                StoreError::Invalid(format!("{why}; parameters are $1, $2 and so on"))
            }
            error => error,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_tells_what_a_statement_is() {
        for sql in ["select 1", " (\n(SELECT 1) UNION SELECT 2)", "-- one\n/* two */ WITH a AS (SELECT 1) TABLE a"] {
            check_query(sql).unwrap();
        }
        for sql in
            ["", "COMMIT", "-- select", "/* /* */ */ COMMIT", "selection", "BEGIN; SELECT 1", "DO $$ $$", "SET a TO 1"]
        {
            check_query(sql).unwrap_err();
            check_write(sql).unwrap_err();
        }
        check_write("INSERT INTO a VALUES (1)").unwrap();
        check_write("UPDATE _Dacapo_tokens SET position = 1").unwrap_err();
    }
}

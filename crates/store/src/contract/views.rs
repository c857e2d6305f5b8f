//! The checks of [`Views`].
//!
//! [`views_contract!`](crate::views_contract) makes a test of each function.

use std::sync::Arc;
use std::time::Duration;

use dacapo_model::{
    Applied, EffectOutcome, EffectsClaim, Epoch, EventType, JournalId, Letter, LetterKind, Mark, MemberId, NewEffect,
    Position, ProjectionName, Refusal, ReplayMark, SegmentCount, StreamName, Timestamp, Token, TokenMove, TokenRefused,
    VersionId, ViewId, Wish, limits,
};

use crate::{
    Column, ColumnKind, Commit, CommitError, FirstRows, Index, NewMark, Outbox, StoreError, Table, Value, View,
    ViewHistory, ViewWriter, Views, WhichEffects, WhichLetters, key_order, of_none,
};

mod effects;
mod holds;
mod isolation;
mod letters;
mod marks;
mod outbox;
mod rows;
mod schema;
mod segments;
mod sql;
mod tokens;

pub use effects::*;
pub use holds::*;
pub use isolation::*;
pub use letters::*;
pub use marks::*;
pub use outbox::*;
pub use rows::*;
pub use schema::*;
pub use segments::*;
pub use sql::*;
pub use tokens::*;

/// Makes a test of each function of [`contract::views`](self), for the views that the expression returns.
///
/// The expression is evaluated once for each test. It is a pair of the views and a value that must outlive them.
#[macro_export]
macro_rules! views_contract {
    ($make:expr) => {
        $crate::views_contract!(@checks @each $make);
    };
    // One test that runs all of them at once.
    (@together $name:ident $make:expr) => {
        $crate::views_contract!(@checks @one $name $make);
    };
    (@checks $($how:tt)*) => {
        $crate::views_contract!($($how)* =>
            rows_and_tokens_commit_together
            a_move_of_another_start_or_epoch_lands_nothing
            a_claim_between_begin_and_commit_fences
            segments_are_claimed_one_by_one_and_by_one_of_two
            a_revoked_claim_lands_nothing
            a_token_stops_at_its_cap
            a_token_goes_back_only_for_a_new_replay
            a_refusal_stays_until_its_event_is_covered
            letters_are_kept_wished_for_and_settled
            what_is_kept_of_refused_events_is_fenced_as_rows_are
            effects_of_a_stream_are_due_one_after_the_other
            an_effect_that_fails_is_due_later_and_holds_back_only_its_stream
            an_effect_that_is_set_aside_holds_nothing_back_and_is_retried_or_dropped
            effects_are_kept_with_the_rows_or_not_at_all
            effects_are_begun_under_the_last_claim_only
            a_try_says_nothing_of_what_was_begun_after_it
            a_claim_that_the_store_lost_settles_nothing
            what_was_never_applied_may_speak_when_it_comes_again
            marks_of_the_history_are_kept_with_the_rows_or_not_at_all
            a_hold_blocks_commits_until_it_is_lifted
            a_later_hold_outlives_the_lifting_of_an_earlier_one
            a_hold_does_not_wait_for_a_reading_writer
            a_refused_move_of_one_segment_refuses_all
            a_dropped_writer_leaves_nothing
            a_reader_sees_one_state
            a_writer_sees_its_own_transaction
            every_kind_of_value_comes_back
            a_value_of_another_kind_is_refused
            rows_are_written_whole_and_in_bulk
            rows_have_composite_keys
            rows_are_found_by_what_only_one_may_have
            select_finds_by_column_in_the_order_of_keys
            pages_go_through_a_table_in_the_order_of_keys
            queries_name_their_columns
            the_first_rows_of_a_query_are_taken_and_all_are_counted
            readers_and_handlers_stay_in_their_bounds
            another_schema_is_refused_by_name
            indexes_are_built_when_they_are_asked_for
            a_view_is_filled_from_another_as_it_was_at_one_moment
            a_row_keeps_the_segment_that_it_is_put_for
            a_row_may_be_nobodys_and_another_segments_once_it_was_deleted
            a_copy_takes_over_of_which_segments_its_rows_are
            views_are_found_listed_dropped_and_made_anew
        );
    };
    (@one $test:ident $make:expr => $($name:ident)*) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $test() {
            $crate::contract::a_few_at_a_time(vec![$(Box::pin(async {
                let (views, _keep) = $make;
                $crate::contract::views::$name(&views).await;
            })),*])
            .await;
        }
    };
    (@each $make:expr => $($name:ident)*) => {
        $(
            #[tokio::test]
            async fn $name() {
                let (views, _keep) = $make;
                $crate::contract::views::$name(&views).await;
            }
        )*
    };
}

const fn column(name: &'static str, kind: ColumnKind) -> Column {
    Column { name, kind, optional: false }
}

const fn optional(name: &'static str, kind: ColumnKind) -> Column {
    Column { name, kind, optional: true }
}

const ACCOUNTS: Table = Table {
    name: "accounts",
    columns: &[
        column("id", ColumnKind::Text),
        column("owner", ColumnKind::Text),
        column("balance", ColumnKind::Integer),
    ],
    key: &[0],
    indexes: &[Index { name: "owner", columns: &[1], unique: false }],
};

/// Names that must be quoted, and a key of two columns in another order than the columns.
const ENTRIES: Table = Table {
    name: "order \"group\"",
    columns: &[
        column("select", ColumnKind::Integer),
        column("from", ColumnKind::Text),
        optional("where", ColumnKind::Text),
    ],
    key: &[1, 0],
    indexes: &[Index { name: "by where", columns: &[2], unique: true }],
};

const KINDS: Table = Table {
    name: "kinds",
    columns: &[
        column("id", ColumnKind::Integer),
        optional("text", ColumnKind::Text),
        optional("integer", ColumnKind::Integer),
        optional("float", ColumnKind::Float),
        optional("boolean", ColumnKind::Boolean),
        optional("bytes", ColumnKind::Bytes),
        optional("time", ColumnKind::Time),
        optional("uuid", ColumnKind::Uuid),
        optional("json", ColumnKind::Json),
    ],
    key: &[0],
    indexes: &[],
};

/// Only a key.
const MARKS: Table = Table { name: "marks", columns: &[column("id", ColumnKind::Uuid)], key: &[0], indexes: &[] };

const TABLES: &[Table] = &[ACCOUNTS, ENTRIES, KINDS, MARKS];

fn id() -> ViewId {
    let projection = ProjectionName::new("balances").expect("a valid name");
    ViewId { projection, version: VersionId { code: 2, build: 1 } }
}

fn two_segments() -> SegmentCount {
    SegmentCount::new(2).expect("a valid count")
}

async fn made(views: &dyn Views) -> Arc<dyn View> {
    views.open(&id(), TABLES, two_segments()).await.expect("a new view")
}

const MEMBER: MemberId = MemberId::from_bytes([7; 16]);

/// Claims every segment of a view. Nobody else may claim them meanwhile.
pub async fn claim_all(view: &dyn View) -> Vec<Token> {
    let seen = view.tokens().await.expect("tokens");
    let claimed = view.claim(Some(MEMBER), &seen).await.expect("claimed");
    assert_eq!(claimed.len(), seen.len(), "nobody else claims");
    claimed
}

/// Returns a claimed view, with the next move of its first segment.
async fn claimed(views: &dyn Views) -> (Arc<dyn View>, TokenMove) {
    let view = made(views).await;
    let tokens = claim_all(&*view).await;
    (view, step(&tokens[0], 5))
}

fn step(token: &Token, events: u64) -> TokenMove {
    token.step(token.position.plus(events), events)
}

fn text(text: &str) -> Value {
    Value::Text(text.into())
}

fn account(id: &str, owner: &str, balance: i64) -> Vec<Value> {
    vec![text(id), text(owner), Value::Integer(balance)]
}

async fn put(writer: &mut dyn ViewWriter, table: &Table, rows: Vec<Vec<Value>>) {
    writer.put(table, &mut of_none(rows)).await.expect("written");
}

async fn get(view: &dyn View, table: &Table, key: &[Value]) -> Option<Vec<Value>> {
    view.reader().await.expect("a reader").get(table, key).await.expect("read")
}

fn refused(result: Result<(), CommitError>) -> TokenRefused {
    match result {
        Err(CommitError::Refused(refused)) => refused,
        other => panic!("the commit was not refused: {other:?}"),
    }
}

fn invalid<T: std::fmt::Debug>(result: Result<T, StoreError>) -> String {
    match result {
        Err(StoreError::Invalid(why)) => why,
        other => panic!("expected to be told what is invalid, got {other:?}"),
    }
}

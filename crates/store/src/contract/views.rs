//! What every [`Views`] must do.
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
mod segments;

pub use effects::{
    a_claim_that_the_store_lost_settles_nothing, a_try_says_nothing_of_what_was_begun_after_it,
    effects_are_begun_under_the_last_claim_only,
};
pub use segments::{
    a_copy_takes_over_of_which_segments_its_rows_are, a_row_keeps_the_segment_that_it_is_put_for,
    a_row_may_be_nobodys_and_another_segments_once_it_was_deleted,
};

/// Makes a test of each function of [`contract::views`](self), for the views that the expression gives.
///
/// The expression is evaluated once a test; it is a pair of the views and whatever must outlive them.
#[macro_export]
macro_rules! views_contract {
    ($make:expr) => {
        $crate::views_contract!(@checks @each $make);
    };
    // One test of all of them, at once.
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

/// Names that are only safe when they are quoted, a key of two columns in another order than the columns.
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

/// Nothing but a key.
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

/// Claims every segment of a view that nobody else claims meanwhile.
pub async fn claim_all(view: &dyn View) -> Vec<Token> {
    let seen = view.tokens().await.expect("tokens");
    let claimed = view.claim(Some(MEMBER), &seen).await.expect("claimed");
    assert_eq!(claimed.len(), seen.len(), "nobody else claims");
    claimed
}

/// A view that is claimed, with its first segment's next move.
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

/// I-3: nothing is seen before the commit, and rows and token together after it.
pub async fn rows_and_tokens_commit_together(views: &dyn Views) {
    let (view, first) = claimed(views).await;
    let mut writer = view.writer().await.expect("a writer");
    put(&mut *writer, &ACCOUNTS, vec![account("a-1", "ann", 5)]).await;
    assert_eq!(get(&*view, &ACCOUNTS, &[text("a-1")]).await, None);
    assert_eq!(view.tokens().await.expect("tokens")[0].position, Position::START);

    writer.commit(&Commit::of([first])).await.expect("committed");
    assert_eq!(get(&*view, &ACCOUNTS, &[text("a-1")]).await, Some(account("a-1", "ann", 5)));
    let tokens = view.tokens().await.expect("tokens");
    assert_eq!((tokens[0].position, tokens[1].position), (Position::new(5), Position::START));
    assert_eq!(view.reader().await.expect("a reader").covers(), Position::START);

    // The writer goes on with another transaction, and a rolled back one leaves nothing.
    put(&mut *writer, &ACCOUNTS, vec![account("a-2", "bob", 1)]).await;
    writer.rollback().await.expect("rolled back");
    writer.commit(&Commit::of([step(&tokens[0], 1)])).await.expect("committed");
    assert_eq!(get(&*view, &ACCOUNTS, &[text("a-2")]).await, None);
    assert_eq!(view.tokens().await.expect("tokens")[0].position, Position::new(6));
}

/// I-4: the statement that moves the token demands epoch and start.
pub async fn a_move_of_another_start_or_epoch_lands_nothing(views: &dyn Views) {
    let (view, first) = claimed(views).await;
    let wrong = [
        TokenMove { epoch: Epoch::new(0), ..first },
        TokenMove { epoch: first.epoch.next(), ..first },
        TokenMove { from: Position::new(1), ..first },
    ];
    let mut writer = view.writer().await.expect("a writer");
    for asked in wrong {
        put(&mut *writer, &ACCOUNTS, vec![account("a-1", "ann", 5)]).await;
        let stored = view.tokens().await.expect("tokens")[0];
        let expected = TokenRefused::Fenced { segment: asked.segment, asked: asked.into(), stored: stored.into() };
        assert_eq!(refused(writer.commit(&Commit::of([asked])).await), expected);
        assert_eq!(get(&*view, &ACCOUNTS, &[text("a-1")]).await, None);
    }
    writer.commit(&Commit::of([first])).await.expect("the right move lands");
    let backwards = TokenMove { from: first.to, to: first.from, ..first };
    assert!(matches!(refused(writer.commit(&Commit::of([backwards])).await), TokenRefused::Fenced { .. }));
}

/// I-4: a writer that lost its claim while it worked is refused, and the new one is not disturbed.
pub async fn a_claim_between_begin_and_commit_fences(views: &dyn Views) {
    let (view, first) = claimed(views).await;
    let mut zombie = view.writer().await.expect("a writer");
    assert_eq!(zombie.load(&ACCOUNTS, &[text("a-1")]).await.expect("read"), None);

    let tokens = claim_all(&*view).await;
    assert_eq!(tokens[0].epoch, first.epoch.next());
    let mut writer = view.writer().await.expect("a writer");
    put(&mut *writer, &ACCOUNTS, vec![account("a-1", "ann", 7)]).await;
    writer.commit(&Commit::of([step(&tokens[0], 5)])).await.expect("committed");

    put(&mut *zombie, &ACCOUNTS, vec![account("a-1", "ann", 5)]).await;
    assert!(matches!(refused(zombie.commit(&Commit::of([first])).await), TokenRefused::Fenced { .. }));
    assert_eq!(get(&*view, &ACCOUNTS, &[text("a-1")]).await, Some(account("a-1", "ann", 7)));
}

/// I-4: a claim is of the epoch that was seen, so that of two that saw the same one gets the segment.
pub async fn segments_are_claimed_one_by_one_and_by_one_of_two(views: &dyn Views) {
    let view = made(views).await;
    let (one, two) = (MemberId::from_bytes([1; 16]), MemberId::from_bytes([2; 16]));
    let seen = view.tokens().await.expect("tokens");
    assert_eq!(seen[0].claimed_by, None);
    let first = view.claim(Some(one), &seen[..1]).await.expect("claimed");
    assert_eq!(first, [Token { epoch: seen[0].epoch.next(), claimed_by: Some(one), ..seen[0] }]);
    let second = view.claim(Some(two), &seen).await.expect("claimed");
    assert_eq!(second, [Token { epoch: seen[1].epoch.next(), claimed_by: Some(two), ..seen[1] }], "the first is taken");
    assert_eq!(view.tokens().await.expect("tokens"), [first[0], second[0]]);

    // Each writes under its own claim.
    let mut writer = view.writer().await.expect("a writer");
    writer.commit(&Commit::of([step(&first[0], 5)])).await.expect("committed");
    writer.commit(&Commit::of([step(&second[0], 4)])).await.expect("committed");

    // What is handed over is nobody's, and fenced.
    let moved = view.tokens().await.expect("tokens");
    let free = view.claim(None, &moved[..1]).await.expect("released");
    assert_eq!((free.len(), free[0].claimed_by), (1, None));
    assert!(matches!(refused(writer.commit(&Commit::of([step(&moved[0], 1)])).await), TokenRefused::Fenced { .. }));
    writer.commit(&Commit::of([step(&moved[1], 1)])).await.expect("the other one's is not touched");
    assert_eq!(view.claim(Some(one), &moved[..1]).await.expect("tried"), [], "that was seen before it was released");
}

/// I-4, I-12: after a revocation nothing of an earlier claim lands.
pub async fn a_revoked_claim_lands_nothing(views: &dyn Views) {
    let (view, first) = claimed(views).await;
    view.revoke().await.expect("revoked");
    assert!(view.tokens().await.expect("tokens").iter().all(|token| token.claimed_by.is_none()));
    let mut writer = view.writer().await.expect("a writer");
    put(&mut *writer, &ACCOUNTS, vec![account("a-1", "ann", 5)]).await;
    assert!(matches!(refused(writer.commit(&Commit::of([first])).await), TokenRefused::Fenced { .. }));
    assert_eq!(get(&*view, &ACCOUNTS, &[text("a-1")]).await, None);
}

/// No token moves past its cap; up to it, and where it is, it does.
pub async fn a_token_stops_at_its_cap(views: &dyn Views) {
    let (view, first) = claimed(views).await;
    let cap = Position::new(4);
    let capped = view.cap(Some(cap)).await.expect("capped");
    assert!(capped.iter().all(|token| token.cap == Some(cap)));
    let mut writer = view.writer().await.expect("a writer");
    put(&mut *writer, &ACCOUNTS, vec![account("a-1", "ann", 5)]).await;
    let expected = TokenRefused::Capped { segment: first.segment, cap };
    assert_eq!(refused(writer.commit(&Commit::of([first])).await), expected);
    assert_eq!(get(&*view, &ACCOUNTS, &[text("a-1")]).await, None);
    writer.commit(&Commit::of([TokenMove { to: cap, ..first }])).await.expect("it moves up to the cap");
    let token = view.cap(Some(Position::new(2))).await.expect("capped")[0];
    writer.commit(&Commit::of([token.step(token.position, 0)])).await.expect("what is only recorded moves nothing");
    let token = view.cap(None).await.expect("no cap")[0];
    assert_eq!((token.cap, token.position), (None, cap));
    writer.commit(&Commit::of([step(&token, 1)])).await.expect("it goes on");
}

/// I-4, I-7: what was shown stays marked, and the same request sends a segment back once.
pub async fn a_token_goes_back_only_for_a_new_replay(views: &dyn Views) {
    let (view, first) = claimed(views).await;
    let mut writer = view.writer().await.expect("a writer");
    writer.commit(&Commit::of([first])).await.expect("committed");
    let token = view.tokens().await.expect("tokens")[0];
    assert_eq!(token.applied, Applied { after: Position::START, events: 5 });

    let mark = |request, through| Some(ReplayMark { request: Position::new(request), through: Position::new(through) });
    let back = TokenMove {
        to: Position::new(1),
        applied: Applied::default(),
        replay: mark(9, 5),
        ..token.step(token.position, 0)
    };
    let hidden = TokenMove { replay: mark(9, 4), ..back };
    assert!(matches!(refused(writer.commit(&Commit::of([hidden])).await), TokenRefused::Fenced { .. }));
    put(&mut *writer, &ACCOUNTS, vec![account("a-1", "ann", 0)]).await;
    writer.commit(&Commit::of([back])).await.expect("it goes back, with what its reset wrote");
    let token = view.tokens().await.expect("tokens")[0];
    assert_eq!((token.position, token.replay, token.applied), (back.to, back.replay, back.applied));
    assert!(token.replays());
    assert_eq!(get(&*view, &ACCOUNTS, &[text("a-1")]).await, Some(account("a-1", "ann", 0)));

    writer.commit(&Commit::of([token.step(Position::new(3), 2)])).await.expect("it goes on");
    let token = view.tokens().await.expect("tokens")[0];
    let again = TokenMove { to: Position::START, replay: mark(9, 5), ..token.step(token.position, 0) };
    assert!(matches!(refused(writer.commit(&Commit::of([again])).await), TokenRefused::Fenced { .. }));
    let lost = TokenMove { replay: None, ..token.step(Position::new(4), 1) };
    assert!(matches!(refused(writer.commit(&Commit::of([lost])).await), TokenRefused::Fenced { .. }));
    let newer = TokenMove { to: Position::START, replay: mark(12, 5), ..token.step(token.position, 0) };
    writer.commit(&Commit::of([newer])).await.expect("a newer request sends it back again");
}

fn refusal(token: &Token, position: u64, attempts: u32) -> Refusal {
    Refusal {
        segment: token.segment,
        position: Position::new(position),
        attempts,
        error: "no such account".into(),
        since: Timestamp::from_micros(1_000),
        due: Timestamp::from_micros(2_000),
    }
}

fn letter(token: &Token, position: u64, kind: LetterKind) -> Letter {
    Letter {
        position: Position::new(position),
        segment: token.segment,
        stream: StreamName::new("account-1").expect("a valid name"),
        event_type: EventType::new("deposited").expect("a valid name"),
        kind,
        error: "no such account".into(),
        attempts: 3,
        recorded: Timestamp::from_micros(5_000),
        wish: None,
    }
}

/// The tries of an event are kept with its segment, by whoever claims it, until the token covers the event.
pub async fn a_refusal_stays_until_its_event_is_covered(views: &dyn Views) {
    let view = made(views).await;
    let tokens = claim_all(&*view).await;
    let mut writer = view.writer().await.expect("a writer");
    let stops = |attempts| Commit {
        moves: vec![tokens[0].step(Position::START, 0)],
        refused: vec![refusal(&tokens[0], 4, attempts)],
        ..Commit::default()
    };
    for attempts in 1..=2 {
        writer.commit(&stops(attempts)).await.expect("kept");
        assert_eq!(view.refusals().await.expect("read"), [refusal(&tokens[0], 4, attempts)]);
    }
    // Another segment moves, and this one up to the event.
    let both = [tokens[0].step(Position::new(3), 3), tokens[1].step(Position::new(9), 6)];
    writer.commit(&Commit::of(both)).await.expect("committed");
    assert_eq!(view.refusals().await.expect("read").len(), 1);
    let token = claim_all(&*view).await[0];
    assert_eq!(view.refusals().await.expect("read").len(), 1);
    writer.commit(&Commit::of([token.step(Position::new(4), 1)])).await.expect("committed");
    assert_eq!(view.refusals().await.expect("read"), []);
}

/// Letters come in order; a wish is recorded on those it is for; a letter that is written again takes its place, and
/// goes all the same if it was given up meanwhile. A reader has those of its state.
pub async fn letters_are_kept_wished_for_and_settled(views: &dyn Views) {
    let (view, first) = claimed(views).await;
    let token = view.tokens().await.expect("tokens")[0];
    let behind = LetterKind::Blocked { first: Position::new(2) };
    let other = Letter {
        stream: StreamName::new("account-2").expect("a valid name"),
        ..letter(&token, 4, LetterKind::Skipped)
    };
    let letters = vec![letter(&token, 2, LetterKind::Refused), letter(&token, 3, behind), other];
    let mut writer = view.writer().await.expect("a writer");
    let commit = Commit { moves: vec![first], letters: letters.clone(), ..Commit::default() };
    writer.commit(&commit).await.expect("committed");
    assert_eq!(view.letters(Position::START, 10).await.expect("read"), letters);
    let mut before = view.reader().await.expect("a reader");
    assert_eq!(view.letters(Position::new(2), 1).await.expect("read"), letters[1..2]);
    // No store has numbers that large.
    for beyond in [i64::MAX as u64, i64::MAX as u64 + 1, u64::MAX].map(Position::new) {
        assert_eq!(view.letters(beyond, 10).await.expect("read"), []);
        assert_eq!(view.wish(&WhichLetters::One(beyond), Some(Wish::Retry)).await.expect("recorded"), 0);
    }

    let stream = WhichLetters::Stream(letters[0].stream.clone());
    assert_eq!(view.wish(&stream, Some(Wish::Retry)).await.expect("recorded"), 2);
    assert_eq!(view.wish(&WhichLetters::One(Position::new(4)), Some(Wish::Drop)).await.expect("recorded"), 1);
    assert_eq!(view.wish(&WhichLetters::One(Position::new(7)), Some(Wish::Drop)).await.expect("recorded"), 0);
    let wishes = |letters: Vec<Letter>| letters.into_iter().map(|letter| letter.wish).collect::<Vec<_>>();
    let recorded = wishes(view.letters(Position::START, 10).await.expect("read"));
    assert_eq!(recorded, [Some(Wish::Retry), Some(Wish::Retry), Some(Wish::Drop)]);
    assert_eq!(view.wish(&WhichLetters::All, None).await.expect("taken back"), 3);
    assert_eq!(view.wish(&WhichLetters::One(Position::new(2)), Some(Wish::Drop)).await.expect("recorded"), 1);

    let again = Letter { attempts: 4, ..letters[0].clone() };
    let token = view.tokens().await.expect("tokens")[0];
    let commit = Commit {
        moves: vec![token.step(token.position, 0)],
        letters: vec![again.clone()],
        settled: vec![Position::new(3), Position::new(4)],
        ..Commit::default()
    };
    writer.commit(&commit).await.expect("committed");
    let given_up = Letter { wish: Some(Wish::Drop), ..again };
    assert_eq!(view.letters(Position::START, 10).await.expect("read"), [given_up]);
    assert_eq!(before.letters(Position::START, 10).await.expect("read"), letters, "a reader sees those of its state");
    assert_eq!(before.letters(Position::new(2), 1).await.expect("read"), letters[1..2]);
}

fn effect(token: &Token, position: u64, ordinal: u32, stream: &str) -> NewEffect {
    NewEffect {
        position: Position::new(position),
        ordinal,
        segment: token.segment,
        stream: StreamName::new(stream).expect("a valid name"),
        name: "mail".into(),
        payload: format!("{{\"number\":{position}}}").into_bytes(),
    }
}

/// The longest wait between two tries of an effect.
fn longest() -> Duration {
    Duration::from_micros(400)
}

/// The positions and ordinals of what is due.
async fn due(view: &dyn View, now: i64) -> Vec<(u64, u32)> {
    let due = view.effects_due(Timestamp::from_micros(now), longest(), 10).await.expect("read");
    due.iter().map(|it| (it.effect.position.get(), it.effect.ordinal)).collect()
}

/// Commits these effects with a move of the first token.
async fn emit(view: &dyn View, effects: Vec<NewEffect>) {
    let token = view.tokens().await.expect("tokens")[0];
    let mut writer = view.writer().await.expect("a writer");
    let commit = Commit { effects, ..Commit::of([step(&token, 1)]) };
    writer.commit(&commit).await.expect("committed");
}

/// The claim under which effects are settled, taken at once if nobody has it.
async fn acting(view: &dyn View) -> EffectsClaim {
    let seen = view.effects_claim().await.expect("read");
    if seen.owner.is_some() {
        return seen;
    }
    let next = seen.taken(MemberId::from_bytes([1; 16]), Timestamp::from_micros(0));
    assert!(view.claim_effects(seen, next).await.expect("claimed"));
    next
}

/// Records what became of the effect of an event that is due.
async fn settle(view: &dyn View, position: u64, settled: EffectOutcome) {
    let due = view.effects_due(Timestamp::from_micros(i64::MAX), longest(), 10).await.expect("read");
    let found = due.iter().find(|it| it.effect.position.get() == position).expect("it is due");
    let claim = acting(view).await;
    view.settle_effects(claim, &[(found.number, settled.clone())]).await.expect("recorded");
    if settled == EffectOutcome::Done {
        view.settle_effects(claim, &[(found.number, settled)]).await.expect("told twice");
    }
}

/// And those of others at the same time, across later commits.
pub async fn effects_of_a_stream_are_due_one_after_the_other(views: &dyn Views) {
    let (view, _) = claimed(views).await;
    let token = view.tokens().await.expect("tokens")[0];
    assert_eq!(view.outbox(10).await.expect("read"), Outbox::default());
    let first = [effect(&token, 1, 0, "a-1"), effect(&token, 1, 1, "a-1"), effect(&token, 2, 0, "a-2")];
    emit(&*view, first.to_vec()).await;
    emit(&*view, vec![effect(&token, 3, 0, "a-1"), effect(&token, 4, 0, "a-3")]).await;
    let stored = view.effects_due(Timestamp::from_micros(0), longest(), 1).await.expect("read");
    assert_eq!((stored.len(), &stored[0].effect, stored[0].attempts), (1, &first[0], 0));
    assert_eq!(due(&*view, 0).await, [(1, 0), (2, 0), (4, 0)]);
    let stream = StreamName::new("a-1").expect("a valid name");
    let first_after = async |after| {
        let first = view.first_effect(&stream, Position::new(after)).await.expect("read");
        first.map(Position::get)
    };
    assert_eq!([first_after(0).await, first_after(1).await, first_after(3).await], [Some(1), Some(3), None]);
    settle(&*view, 1, EffectOutcome::Done).await;
    assert_eq!(due(&*view, 0).await, [(1, 1), (2, 0), (4, 0)]);
    settle(&*view, 1, EffectOutcome::Done).await;
    assert_eq!(due(&*view, 0).await, [(2, 0), (3, 0), (4, 0)]);
    assert_eq!(first_after(0).await, Some(3));
    for position in [3, 2, 4] {
        settle(&*view, position, EffectOutcome::Done).await;
    }
    assert_eq!(first_after(0).await, None);
    assert_eq!(view.outbox(10).await.expect("read"), Outbox::default());
    emit(&*view, vec![effect(&token, 5, 0, "a-1")]).await;
    assert_eq!(due(&*view, 0).await, [(5, 0)], "what comes after everything was made is due");
}

/// The back-off and what was said are kept with the effect.
pub async fn an_effect_that_fails_is_due_later_and_holds_back_only_its_stream(views: &dyn Views) {
    let (view, _) = claimed(views).await;
    let token = view.tokens().await.expect("tokens")[0];
    emit(&*view, vec![effect(&token, 1, 0, "a-1"), effect(&token, 2, 0, "a-1"), effect(&token, 3, 0, "a-2")]).await;
    for attempts in 1..=2 {
        let failed = EffectOutcome::Failed { error: format!("try {attempts}"), due: Timestamp::from_micros(500) };
        settle(&*view, 1, failed).await;
    }
    assert_eq!(due(&*view, 499).await, [(3, 0)]);
    assert_eq!(due(&*view, 99).await, [(3, 0), (1, 0)], "no wait is that long: another clock is ahead");
    assert_eq!(due(&*view, 500).await, [(3, 0), (1, 0)]);
    let Outbox { pending, next_due, failing, .. } = view.outbox(10).await.expect("read");
    assert_eq!((pending, next_due, failing.len()), (3, Some(Timestamp::from_micros(0)), 1));
    let failing = &failing[0];
    assert_eq!((failing.attempts, failing.error.as_deref(), failing.due.micros()), (2, Some("try 2"), 500));
    settle(&*view, 3, EffectOutcome::Done).await;
    assert_eq!(view.outbox(10).await.expect("read").next_due, Some(Timestamp::from_micros(500)));
    settle(&*view, 1, EffectOutcome::Done).await;
    assert_eq!(due(&*view, 0).await, [(2, 0)]);
}

/// Whoever decides about effects leaves each stream with one that is due.
pub async fn an_effect_that_is_set_aside_holds_nothing_back_and_is_retried_or_dropped(views: &dyn Views) {
    let (view, _) = claimed(views).await;
    let token = view.tokens().await.expect("tokens")[0];
    let all = [1, 2, 3].map(|position| effect(&token, position, 0, "a-1"));
    emit(&*view, all.into_iter().chain([effect(&token, 4, 0, "a-2")]).collect()).await;
    let listed = async |untried| {
        let letters = view.effect_letters(0, 10, untried).await.expect("read");
        letters.iter().map(|it| (it.pending.effect.position.get(), it.aside.is_some())).collect::<Vec<_>>()
    };
    let decide = async |which: WhichLetters, through: u64, untried, wish| {
        let which = WhichEffects { which, through: Position::new(through), untried };
        view.decide_effects(&which, wish).await.expect("recorded")
    };
    let aside = || EffectOutcome::SetAside { error: "no\0t now".into(), at: Timestamp::from_micros(9) };
    settle(&*view, 1, aside()).await;
    assert_eq!(due(&*view, 0).await, [(2, 0), (4, 0)], "its stream goes on without it");
    let Outbox { pending, aside: kept, .. } = view.outbox(10).await.expect("read");
    assert_eq!((pending, kept), (3, 1));
    let stream = StreamName::new("a-1").expect("a valid name");
    assert_eq!(view.first_effect(&stream, Position::START).await.expect("read"), Some(Position::new(2)));
    settle(&*view, 2, EffectOutcome::Failed { error: "no".into(), due: Timestamp::from_micros(300) }).await;
    assert_eq!(listed(false).await, [(1, true), (2, false)]);
    assert_eq!(listed(true).await.len(), 4);
    let letter = &view.effect_letters(0, 1, false).await.expect("read")[0];
    let kept = (letter.aside.map(Timestamp::micros), letter.pending.attempts);
    assert_eq!(kept, (Some(9), 1), "{letter:?}");
    assert_eq!(view.effect_letters(letter.pending.number, 1, false).await.expect("read").len(), 1, "the next one");
    emit(&*view, vec![effect(&token, 1, 0, "a-1")]).await;
    assert_eq!(listed(true).await.len(), 4, "what is set aside is there already");

    assert_eq!(decide(WhichLetters::All, 0, false, Wish::Drop).await, 0, "nothing of an event so early");
    assert_eq!(decide(WhichLetters::Stream(stream.clone()), 9, false, Wish::Retry).await, 2);
    assert_eq!(due(&*view, 0).await, [(1, 0), (4, 0)], "it comes first again, and the others wait");
    settle(&*view, 1, aside()).await;
    assert_eq!(due(&*view, 0).await, [(2, 0), (4, 0)]);
    assert_eq!(decide(WhichLetters::One(Position::new(2)), 9, true, Wish::Drop).await, 1);
    assert_eq!(due(&*view, 0).await, [(3, 0), (4, 0)], "what waited behind it is due");
    assert_eq!(decide(WhichLetters::All, 9, false, Wish::Drop).await, 1, "what was never tried stays");
    assert_eq!((listed(true).await.len(), due(&*view, 0).await), (2, vec![(3, 0), (4, 0)]));
    assert_eq!(decide(WhichLetters::All, 9, true, Wish::Drop).await, 2);
    assert_eq!(view.outbox(10).await.expect("read"), Outbox::default());
    emit(&*view, vec![effect(&token, 5, 0, "a-1")]).await;
    assert_eq!(due(&*view, 0).await, [(5, 0)]);
}

// I-3, I-4
/// And an event that is applied again emits nothing that is there.
pub async fn effects_are_kept_with_the_rows_or_not_at_all(views: &dyn Views) {
    let (view, first) = claimed(views).await;
    let token = view.tokens().await.expect("tokens")[0];
    claim_all(&*view).await;
    let mut zombie = view.writer().await.expect("a writer");
    let commit = Commit { effects: vec![effect(&token, 1, 0, "a-1")], ..Commit::of([first]) };
    refused(zombie.commit(&commit).await);
    assert_eq!(view.outbox(10).await.expect("read").pending, 0);
    for _ in 0..2 {
        emit(&*view, vec![effect(&token, 1, 0, "a-1")]).await;
    }
    assert_eq!((view.outbox(10).await.expect("read").pending, due(&*view, 0).await), (1, vec![(1, 0)]));
}

/// Until its own segment has come past it, and for as long as it is set aside.
pub async fn what_was_never_applied_may_speak_when_it_comes_again(views: &dyn Views) {
    let (view, first) = claimed(views).await;
    let tokens = view.tokens().await.expect("tokens");
    let mut writer = view.writer().await.expect("a writer");
    let unspoken = [2, 4].map(|position| (tokens[1].segment, Position::new(position)));
    let commit = Commit { unspoken: unspoken.to_vec(), ..Commit::of([first]) };
    writer.commit(&commit).await.expect("committed");
    let positions = async || view.unspoken().await.expect("read").into_iter().map(Position::get).collect::<Vec<_>>();
    assert_eq!(positions().await, [2, 4], "the other segment is further");
    writer.commit(&Commit::of([step(&tokens[1], 3)])).await.expect("committed");
    assert_eq!(positions().await, [4]);
    let token = view.tokens().await.expect("tokens")[1];
    let letters = vec![letter(&token, 4, LetterKind::Refused)];
    writer.commit(&Commit { letters, ..Commit::of([step(&token, 1)]) }).await.expect("committed");
    assert_eq!(positions().await, [4], "it was set aside again");
    let token = view.tokens().await.expect("tokens")[1];
    let settled = vec![Position::new(4)];
    writer.commit(&Commit { settled, ..Commit::of([step(&token, 0)]) }).await.expect("committed");
    assert!(positions().await.is_empty());
}

// I-4
/// One of a position that has one already changes nothing: what a later history has there hides no earlier one.
pub async fn marks_of_the_history_are_kept_with_the_rows_or_not_at_all(views: &dyn Views) {
    let (view, first) = claimed(views).await;
    let journal = JournalId::from_bytes([7; 16]);
    let mark = |position, digest| Mark { position: Position::new(position), digest };
    let with = |asked: TokenMove, mark, forget: &[u64]| {
        let forget = forget.iter().copied().map(Position::new).collect();
        Commit { history: Some(NewMark { journal, mark, forget }), ..Commit::of([asked]) }
    };
    assert_eq!(view.history().await.expect("read"), None);
    let mut writer = view.writer().await.expect("a writer");
    writer.commit(&with(first, mark(3, u64::MAX), &[])).await.expect("committed");
    let token = view.tokens().await.expect("tokens")[0];
    writer.commit(&with(step(&token, 2), mark(5, 1), &[])).await.expect("committed");
    let token = view.tokens().await.expect("tokens")[0];
    writer.commit(&with(step(&token, 0), mark(5, 2), &[])).await.expect("committed");
    let kept = ViewHistory { journal, marks: vec![mark(3, u64::MAX), mark(5, 1)] };
    assert_eq!(view.history().await.expect("read"), Some(kept.clone()));
    let token = view.tokens().await.expect("tokens")[0];
    claim_all(&*view).await;
    refused(writer.commit(&with(step(&token, 1), mark(6, 3), &[3])).await);
    assert_eq!(view.history().await.expect("read"), Some(kept));
    let token = view.tokens().await.expect("tokens")[0];
    writer.commit(&with(step(&token, 2), mark(7, 1 << 63), &[3, 4])).await.expect("committed");
    let kept = ViewHistory { journal, marks: vec![mark(5, 1), mark(7, 1 << 63)] };
    assert_eq!(view.history().await.expect("read"), Some(kept));
}

/// I-4: a commit that does not land keeps nothing.
pub async fn what_is_kept_of_refused_events_is_fenced_as_rows_are(views: &dyn Views) {
    let (view, first) = claimed(views).await;
    let token = view.tokens().await.expect("tokens")[0];
    claim_all(&*view).await;
    let mut zombie = view.writer().await.expect("a writer");
    let commit = Commit {
        moves: vec![first],
        refused: vec![refusal(&token, 4, 1)],
        letters: vec![letter(&token, 2, LetterKind::Refused)],
        ..Commit::default()
    };
    assert!(matches!(refused(zombie.commit(&commit).await), TokenRefused::Fenced { .. }));
    assert_eq!(view.refusals().await.expect("read"), []);
    assert_eq!(view.letters(Position::START, 10).await.expect("read"), []);
}

/// A hold gives the tokens at which everything stops, and the same commit is good once it is lifted.
pub async fn a_hold_blocks_commits_until_it_is_lifted(views: &dyn Views) {
    let (view, first) = claimed(views).await;
    let mut writer = view.writer().await.expect("a writer");
    let requested = Position::new(40);
    for _ in 0..2 {
        let tokens = view.hold(requested).await.expect("held");
        assert!(tokens.iter().all(|token| token.held_for == Some(requested) && token.position == Position::START));
    }
    put(&mut *writer, &ACCOUNTS, vec![account("a-1", "ann", 5)]).await;
    let held = refused(writer.commit(&Commit::of([first])).await);
    assert_eq!(held, TokenRefused::Held { segment: first.segment, held_for: requested });
    assert_eq!(get(&*view, &ACCOUNTS, &[text("a-1")]).await, None);

    view.lift(requested).await.expect("lifted");
    put(&mut *writer, &ACCOUNTS, vec![account("a-1", "ann", 5)]).await;
    writer.commit(&Commit::of([first])).await.expect("committed");
    let tokens = view.tokens().await.expect("tokens");
    assert_eq!((tokens[0].position, tokens[0].held_for), (first.to, None));
}

/// Two controllers of one flip: the one that lifts late, or marks late, does not undo the other's hold.
pub async fn a_later_hold_outlives_the_lifting_of_an_earlier_one(views: &dyn Views) {
    let (view, _) = claimed(views).await;
    let (earlier, later) = (Position::new(40), Position::new(44));
    let marks = |tokens: Vec<Token>| tokens.into_iter().map(|token| token.held_for).collect::<Vec<_>>();
    view.hold(earlier).await.expect("held");
    assert!(marks(view.hold(later).await.expect("held")).iter().all(|mark| *mark == Some(later)));
    assert!(marks(view.hold(earlier).await.expect("held")).iter().all(|mark| *mark == Some(later)));
    view.lift(earlier).await.expect("lifted");
    assert!(marks(view.tokens().await.expect("tokens")).iter().all(|mark| *mark == Some(later)));
    view.lift(later).await.expect("lifted");
    assert!(marks(view.tokens().await.expect("tokens")).iter().all(Option::is_none));
}

/// Only a write takes the write lock.
pub async fn a_hold_does_not_wait_for_a_reading_writer(views: &dyn Views) {
    let (view, first) = claimed(views).await;
    let mut writer = view.writer().await.expect("a writer");
    writer.load(&ACCOUNTS, &[text("a-1")]).await.expect("read");
    writer.query("SELECT count(*) FROM accounts", &[]).await.expect("read");
    view.hold(Position::new(9)).await.expect("held");
    view.lift(Position::new(9)).await.expect("lifted");
    // The lock that the writer takes next is released by a rollback as by a commit.
    put(&mut *writer, &ACCOUNTS, vec![account("a-1", "ann", 5)]).await;
    writer.rollback().await.expect("rolled back");
    view.hold(Position::new(9)).await.expect("held");
    view.lift(Position::new(9)).await.expect("lifted");
    writer.commit(&Commit::of([first])).await.expect("committed");
}

/// I-4: the moves of a commit land all or none.
pub async fn a_refused_move_of_one_segment_refuses_all(views: &dyn Views) {
    let (view, first) = claimed(views).await;
    let tokens = view.tokens().await.expect("tokens");
    let wrong = TokenMove { epoch: Epoch::UNCLAIMED, ..step(&tokens[1], 5) };
    let mut writer = view.writer().await.expect("a writer");
    refused(writer.commit(&Commit::of([first, wrong])).await);
    assert_eq!(view.tokens().await.expect("tokens"), tokens);
    writer.commit(&Commit::of([first, step(&tokens[1], 5)])).await.expect("committed");
    assert_eq!(view.reader().await.expect("a reader").covers(), Position::new(5));
}

/// Dropping a writer is rolling back, and frees the next one.
pub async fn a_dropped_writer_leaves_nothing(views: &dyn Views) {
    let (view, first) = claimed(views).await;
    let mut dropped = view.writer().await.expect("a writer");
    put(&mut *dropped, &ACCOUNTS, vec![account("a-1", "ann", 5)]).await;
    drop(dropped);
    let mut writer = view.writer().await.expect("a writer");
    put(&mut *writer, &ACCOUNTS, vec![account("a-2", "ann", 5)]).await;
    writer.commit(&Commit::of([first])).await.expect("committed");
    assert_eq!(get(&*view, &ACCOUNTS, &[text("a-1")]).await, None);
}

/// However long it lives and whatever is written meanwhile, also by the task that holds it.
pub async fn a_reader_sees_one_state(views: &dyn Views) {
    let (view, first) = claimed(views).await;
    let mut writer = view.writer().await.expect("a writer");
    put(&mut *writer, &ACCOUNTS, vec![account("a-1", "ann", 5)]).await;
    let mut during = view.reader().await.expect("a reader");
    writer.commit(&Commit::of([first])).await.expect("committed");
    let mut after = view.reader().await.expect("a reader");
    put(&mut *writer, &ACCOUNTS, vec![account("a-1", "ann", 6)]).await;
    let next = TokenMove { from: first.to, to: Position::new(9), ..first };
    writer.commit(&Commit::of([next])).await.expect("committed");

    for (reader, row, at) in [(&mut during, None, 0), (&mut after, Some(account("a-1", "ann", 5)), 5)] {
        assert_eq!(reader.get(&ACCOUNTS, &[text("a-1")]).await.expect("read"), row);
        assert_eq!(reader.tokens()[0].position, Position::new(at));
    }
    assert_eq!(get(&*view, &ACCOUNTS, &[text("a-1")]).await, Some(account("a-1", "ann", 6)));
}

/// Loads and queries of a writer see what it wrote before the commit, and not what it rolled back.
pub async fn a_writer_sees_its_own_transaction(views: &dyn Views) {
    let (view, first) = claimed(views).await;
    let mut writer = view.writer().await.expect("a writer");
    put(&mut *writer, &ACCOUNTS, vec![account("a-1", "ann", 5), account("a-2", "bob", 2)]).await;
    let changed = writer
        .execute("UPDATE accounts SET balance = balance + $1 WHERE owner = $2", &[Value::Integer(1), text("ann")])
        .await
        .expect("updated");
    assert_eq!(changed, 1);
    assert_eq!(writer.load(&ACCOUNTS, &[text("a-1")]).await.expect("read"), Some(account("a-1", "ann", 6)));
    let sum = writer.query("SELECT sum(balance) FROM accounts", &[]).await.expect("read");
    assert_eq!(sum, [[Value::Integer(8)]]);

    // Another writer sees none of it.
    let mut other = view.writer().await.expect("a writer");
    assert_eq!(other.load(&ACCOUNTS, &[text("a-1")]).await.expect("read"), None);
    writer.rollback().await.expect("rolled back");
    assert_eq!(writer.load(&ACCOUNTS, &[text("a-1")]).await.expect("read"), None);
    writer.commit(&Commit::of([first])).await.expect("committed");
}

/// Values come back as they were, the extreme ones and NULL among them.
pub async fn every_kind_of_value_comes_back(views: &dyn Views) {
    let (view, first) = claimed(views).await;
    let time = |micros| Value::Time(Timestamp::from_micros(micros));
    let columns: [Vec<Value>; 8] = [
        vec![text(""), text("straße ✓ 🦀"), text("a\u{1}b\n'\"")],
        vec![Value::Integer(i64::MIN), Value::Integer(-1), Value::Integer(i64::MAX)],
        vec![Value::Float(f64::MIN), Value::Float(1.0), Value::Float(f64::INFINITY)],
        vec![Value::Boolean(true), Value::Boolean(false), Value::Boolean(true)],
        vec![Value::Bytes(vec![]), Value::Bytes(vec![0, 255]), Value::Bytes(b"{}".to_vec())],
        vec![time(-1), time(0), time(1_700_000_000_123_456)],
        vec![Value::Uuid([0; 16]), Value::Uuid([255; 16]), Value::Uuid(*b"0123456789abcdef")],
        vec![Value::Json("null".into()), Value::Json(r#"{"a": [1, "ü"]}"#.into()), Value::Json("\"\"".into())],
    ];
    let row = |at: i64, value: &dyn Fn(usize) -> Value| -> Vec<Value> {
        [Value::Integer(at)].into_iter().chain((0..columns.len()).map(value)).collect()
    };
    let mut rows: Vec<Vec<Value>> =
        (0..3).map(|at| row(at as i64 - 1, &|column| columns[column][at].clone())).collect();
    rows.push(row(i64::MAX, &|_| Value::Null));
    let mut writer = view.writer().await.expect("a writer");
    put(&mut *writer, &KINDS, rows.clone()).await;
    writer.commit(&Commit::of([first])).await.expect("committed");
    let mut reader = view.reader().await.expect("a reader");
    assert_eq!(reader.select(&KINDS, &[], 10).await.expect("read"), rows);
    for row in rows {
        assert_eq!(writer.load(&KINDS, &row[..1]).await.expect("read").as_ref(), Some(&row));
        let wanted: Vec<(usize, Value)> = row.iter().cloned().enumerate().collect();
        assert_eq!(reader.select(&KINDS, &wanted, 10).await.expect("read"), [row]);
    }
}

/// What does not fit a column is refused by the column's name, and what no store keeps is, too.
pub async fn a_value_of_another_kind_is_refused(views: &dyn Views) {
    let (view, _) = claimed(views).await;
    let mut writer = view.writer().await.expect("a writer");
    let mut refuse = async |table: &Table, row: Vec<Value>, name: &str| {
        let why = invalid(writer.put(table, &mut of_none(vec![row])).await);
        assert!(why.contains(name), "{why}");
        writer.rollback().await.expect("rolled back");
    };
    refuse(&ACCOUNTS, vec![text("a"), text("ann"), text("5")], "accounts.balance").await;
    refuse(&ACCOUNTS, vec![text("a"), Value::Null, Value::Integer(1)], "accounts.owner").await;
    let mut row = vec![Value::Null; 9];
    row[0] = Value::Integer(1);
    row[3] = Value::Float(f64::NAN);
    refuse(&KINDS, row.clone(), "NaN").await;
    row[3] = Value::Null;
    row[6] = Value::Time(Timestamp::from_micros(i64::MAX));
    refuse(&KINDS, row, "9999").await;
}

/// Upserts replace every column, whatever the number of rows; deletes take what is there.
pub async fn rows_are_written_whole_and_in_bulk(views: &dyn Views) {
    let (view, first) = claimed(views).await;
    let mut writer = view.writer().await.expect("a writer");
    for count in [0, 1, 2, 63, 64, 65, 1_000] {
        let rows = |owner: &str| (0..count).map(|at| account(&format!("{at:04}"), owner, at)).collect::<Vec<_>>();
        put(&mut *writer, &ACCOUNTS, rows("ann")).await;
        put(&mut *writer, &ACCOUNTS, rows("bob")).await;
        let bobs = writer.query("SELECT id, owner, balance FROM accounts ORDER BY id", &[]).await.expect("read");
        assert_eq!(bobs, rows("bob"));
    }
    // Twice in one call: the later one stands.
    put(&mut *writer, &ACCOUNTS, vec![account("0000", "x", 1), account("0000", "y", 2)]).await;
    let keys = (1..2_000).map(|at| vec![text(&format!("{at:04}"))]).collect::<Vec<_>>();
    writer.delete(&ACCOUNTS, &mut of_none(keys)).await.expect("deleted");
    writer.commit(&Commit::of([first])).await.expect("committed");
    let mut reader = view.reader().await.expect("a reader");
    assert_eq!(reader.select(&ACCOUNTS, &[], 10).await.expect("read"), [account("0000", "y", 2)]);
}

/// Keys of several columns, in the order of the key; a unique index refuses what it should.
pub async fn rows_have_composite_keys(views: &dyn Views) {
    let (view, first) = claimed(views).await;
    let entry = |number: i64, book: &str, note: Value| vec![Value::Integer(number), text(book), note];
    let mut writer = view.writer().await.expect("a writer");
    for _ in 0..2 {
        put(&mut *writer, &MARKS, vec![vec![Value::Uuid([7; 16])]]).await;
    }
    let rows = vec![entry(1, "b", Value::Null), entry(2, "a", text("x")), entry(1, "a", Value::Null)];
    put(&mut *writer, &ENTRIES, rows.clone()).await;
    let key = [text("a"), Value::Integer(2)];
    assert_eq!(writer.load(&ENTRIES, &key).await.expect("read").as_ref(), Some(&rows[1]));
    writer.delete(&ENTRIES, &mut of_none([key.to_vec()])).await.expect("deleted");
    assert_eq!(writer.load(&ENTRIES, &key).await.expect("read"), None);
    put(&mut *writer, &ENTRIES, rows.clone()).await;
    writer.commit(&Commit::of([first])).await.expect("committed");

    let mut reader = view.reader().await.expect("a reader");
    let by_key = [&rows[2], &rows[1], &rows[0]].map(Clone::clone);
    assert_eq!(reader.select(&ENTRIES, &[], 10).await.expect("read"), by_key);
    let why = invalid(writer.put(&ENTRIES, &mut of_none([entry(9, "z", text("x"))])).await);
    assert!(why.contains("where"), "{why}");
}

/// What a writer sees of who has which value; what moves from row to row is deleted first.
pub async fn rows_are_found_by_what_only_one_may_have(views: &dyn Views) {
    const INDEXES: &[Index] = &[
        Index { name: "text", columns: &[1], unique: true },
        Index { name: "rest", columns: &[8, 2, 3, 4, 5, 6, 7], unique: true },
    ];
    const UNIQUE: Table = Table { indexes: INDEXES, ..KINDS };
    let view = views.open(&id(), &[UNIQUE], SegmentCount::ONE).await.expect("made");
    let token = claim_all(&*view).await[0];
    let row = |id: i64, own: &str, float: f64| {
        vec![
            Value::Integer(id),
            text(own),
            Value::Integer(i64::MIN),
            Value::Float(float),
            Value::Boolean(true),
            Value::Bytes(vec![0, 255]),
            Value::Time(Timestamp::from_micros(-1)),
            Value::Uuid([7; 16]),
            Value::Json("{}".into()),
        ]
    };
    let of = |row: &[Value]| INDEXES[1].columns.iter().map(|place| row[*place].clone()).collect::<Vec<_>>();
    let mut writer = view.writer().await.expect("a writer");
    let (first, second) = (row(1, "a", 0.0), row(2, "B", 2.5));
    put(&mut *writer, &UNIQUE, vec![first.clone(), second.clone()]).await;
    for committed in [false, true] {
        let asked = ["b", "B", "A", "a", "a "].map(|own| vec![text(own)]);
        let mut found = writer.rows_with(&UNIQUE, &INDEXES[0], &asked).await.expect("read");
        found.sort_by_key(|(at, _)| *at);
        assert_eq!(found, [(1, second.clone()), (3, first.clone())], "text is equal by its bytes");
        // The two zeros are equal.
        let asked = [of(&row(9, "", 2.4)), of(&row(9, "", -0.0))];
        let found = writer.rows_with(&UNIQUE, &INDEXES[1], &asked).await.expect("read");
        assert_eq!(found, [(1, first.clone())]);
        if !committed {
            let step = token.step(Position::new(1), 1);
            writer.commit(&Commit::of([step])).await.expect("committed");
        }
    }
    assert!(writer.rows_with(&UNIQUE, &INDEXES[0], &[]).await.expect("read").is_empty());
    let why = invalid(writer.put(&UNIQUE, &mut of_none([row(0, "a", 9.0)])).await);
    assert!(why.contains("text"), "{why}");
    writer.rollback().await.expect("rolled back");
    writer.delete(&UNIQUE, &mut of_none([vec![Value::Integer(1)]])).await.expect("deleted");
    put(&mut *writer, &UNIQUE, vec![row(0, "a", 0.0), row(1, "c", 9.0)]).await;
    let token = token.moved(token.step(Position::new(1), 1)).expect("it was carried out");
    writer.commit(&Commit::of([token.step(Position::new(2), 1)])).await.expect("committed");
    assert_eq!(get(&*view, &UNIQUE, &[Value::Integer(0)]).await.expect("there")[1], text("a"));
}

/// By one column or several, NULL included, never more than asked for.
pub async fn select_finds_by_column_in_the_order_of_keys(views: &dyn Views) {
    let (view, first) = claimed(views).await;
    let mut writer = view.writer().await.expect("a writer");
    let rows = [account("c", "ann", 1), account("a", "ann", 2), account("b", "bob", 1), account("d", "ann", 1)];
    put(&mut *writer, &ACCOUNTS, rows.to_vec()).await;
    put(&mut *writer, &ENTRIES, vec![vec![Value::Integer(1), text("b"), Value::Null]]).await;
    writer.commit(&Commit::of([first])).await.expect("committed");

    let mut reader = view.reader().await.expect("a reader");
    let mut ids = async |columns: &[(usize, Value)], most: usize| -> Vec<Value> {
        let rows = reader.select(&ACCOUNTS, columns, most).await.expect("read");
        rows.into_iter().map(|mut row| row.swap_remove(0)).collect()
    };
    assert_eq!(ids(&[(1, text("ann"))], 10).await, ["a", "c", "d"].map(text));
    assert_eq!(ids(&[(1, text("ann"))], 2).await, ["a", "c"].map(text));
    assert_eq!(ids(&[(1, text("ann")), (2, Value::Integer(1))], 10).await, ["c", "d"].map(text));
    assert_eq!(ids(&[], usize::MAX).await, ["a", "b", "c", "d"].map(text));
    assert!(ids(&[(1, text("eve"))], 10).await.is_empty());
    // What comes from outside may be what no store has a text for; then no row has it.
    assert!(ids(&[(1, text("an\0n"))], 10).await.is_empty());
    assert_eq!(writer.load(&ACCOUNTS, &[text("a\0")]).await.expect("read"), None);
    writer.delete(&ACCOUNTS, &mut of_none([vec![text("a\0")]])).await.expect("nothing to delete");
    assert_eq!(reader.select(&ENTRIES, &[(2, Value::Null)], 10).await.expect("read").len(), 1);
}

/// Each row once, behind the key before it, whatever the key is made of, in the order of [`key_order`].
pub async fn pages_go_through_a_table_in_the_order_of_keys(views: &dyn Views) {
    const IN_ALL: &[Column] = &[
        column("flag", ColumnKind::Boolean),
        column("number", ColumnKind::Integer),
        column("float", ColumnKind::Float),
        column("time", ColumnKind::Time),
        column("uuid", ColumnKind::Uuid),
        column("bytes", ColumnKind::Bytes),
        column("text", ColumnKind::Text),
        column("json", ColumnKind::Json),
    ];
    const KEYED: Table = Table { name: "keyed", columns: IN_ALL, key: &[6, 0, 1, 2, 3, 4, 5, 7], indexes: &[] };
    let tables = [KEYED, ACCOUNTS, ENTRIES, KINDS];
    let view = views.open(&id(), &tables, two_segments()).await.expect("a new view");
    let first = step(&claim_all(&*view).await[0], 5);
    let mut keyed = Vec::new();
    for word in ["", "B", "a", "a\u{1}", "é", "z\u{10000}", "\u{ffff}"] {
        for flag in [false, true] {
            for number in [i64::MIN, -1, 0, i64::MAX] {
                let float = if number < 0 { -0.5 } else { 1e300 };
                let time = Timestamp::from_micros(number.clamp(-1_000_000, 1_000_000));
                let byte = if flag { 0xff } else { 0x0a };
                keyed.push(vec![
                    Value::Boolean(flag),
                    Value::Integer(number),
                    Value::Float(float),
                    Value::Time(time),
                    Value::Uuid([byte; 16]),
                    Value::Bytes(vec![byte, 0]),
                    text(word),
                    Value::Json(format!("{{\"a\":{number}}}")),
                ]);
            }
        }
    }
    let entries: Vec<_> = [(3, "b"), (1, "b"), (2, "a"), (2, "c")]
        .map(|(number, name)| vec![Value::Integer(number), text(name), Value::Null])
        .into();
    let kinds: Vec<_> = [5, -3, 0, 12]
        .map(|number| [vec![Value::Integer(number)], vec![Value::Null; KINDS.columns.len() - 1]].concat())
        .into();
    let large = "x".repeat(limits::PAGE_BYTES_MAX / 3);
    let accounts: Vec<_> = ["c", "a", "d", "b", "e"].map(|name| account(name, &large, 1)).into();
    let mut writer = view.writer().await.expect("a writer");
    let all = [(KEYED, keyed), (ENTRIES, entries), (KINDS, kinds), (ACCOUNTS, accounts)];
    for (table, rows) in &all {
        put(&mut *writer, table, rows.clone()).await;
    }
    writer.commit(&Commit::of([first])).await.expect("committed");
    let mut reader = view.reader().await.expect("a reader");
    for (table, mut rows) in all {
        rows.sort_by(|a, b| key_order(&table.key_of(a), &table.key_of(b)));
        for most in [1, 3, 1_000] {
            let (mut seen, mut after, mut pages) = (Vec::new(), None, 0);
            loop {
                let page = reader.page(&table, after.as_deref(), most).await.expect("read");
                assert!(page.len() <= most, "{}", table.name);
                let Some(last) = page.last() else { break };
                (after, pages) = (Some(table.key_of(last)), pages + 1);
                seen.extend(page);
            }
            assert_eq!(seen, rows, "{} by {most}", table.name);
            let by_bytes = table.name == ACCOUNTS.name && most == 1_000;
            assert!(!by_bytes || pages == 2, "the bytes of a page are bounded: {pages} pages");
        }
    }
}

/// A table of fewer columns reads from the stored one, and SQL gives names.
pub async fn queries_name_their_columns(views: &dyn Views) {
    let (view, first) = claimed(views).await;
    let mut writer = view.writer().await.expect("a writer");
    put(&mut *writer, &ACCOUNTS, vec![account("a", "ann", 1)]).await;
    writer.commit(&Commit::of([first])).await.expect("committed");
    let mut reader = view.reader().await.expect("a reader");
    let sql = "SELECT owner, sum(balance) AS total, NULL AS none FROM accounts WHERE balance >= $1 GROUP BY owner";
    let (names, rows) = reader.query(sql, &[Value::Integer(1)]).await.expect("read");
    assert_eq!(names, ["owner", "total", "none"]);
    assert_eq!(rows, [[text("ann"), Value::Integer(1), Value::Null]]);
    const FEWER: &[Column] = &[ACCOUNTS.columns[0], ACCOUNTS.columns[2]];
    let fewer = Table { columns: FEWER, indexes: &[], ..ACCOUNTS };
    let row = reader.get(&fewer, &[text("a")]).await.expect("read");
    assert_eq!(row, Some(vec![text("a"), Value::Integer(1)]));
}

/// The statement stands as it is, however it ends.
pub async fn the_first_rows_of_a_query_are_taken_and_all_are_counted(views: &dyn Views) {
    let (view, first) = claimed(views).await;
    let mut writer = view.writer().await.expect("a writer");
    put(&mut *writer, &ACCOUNTS, ["a", "b", "c"].map(|id| account(id, "ann", 1)).into()).await;
    writer.commit(&Commit::of([first])).await.expect("committed");
    let mut reader = view.reader().await.expect("a reader");
    for end in ["", ";", " ; ;", " -- by key", "; -- by key\n", " /* by key; */"] {
        let sql = format!("SELECT id FROM accounts ORDER BY id{end}");
        let found = reader.first_rows(&sql, 2).await.expect("read");
        let expected = FirstRows { columns: vec!["id".into()], rows: vec![vec![text("a")], vec![text("b")]], all: 3 };
        assert_eq!(found, expected, "{sql}");
    }
    for sql in ["DELETE FROM accounts", "SELECT 1; SELECT 2", "-- nothing", "SELECT ?"] {
        invalid(reader.first_rows(sql, 2).await);
    }
}

/// Readers do not write; handlers neither end the transaction nor touch what is dacapo's.
pub async fn readers_and_handlers_stay_in_their_bounds(views: &dyn Views) {
    let (view, first) = claimed(views).await;
    let mut reader = view.reader().await.expect("a reader");
    let writes = "INSERT INTO accounts VALUES ('a', 'ann', 1) RETURNING id";
    for sql in [writes, "DELETE FROM accounts", "COMMIT", "SELECT 1; SELECT 2", "SELECT nothing FROM nowhere"] {
        invalid(reader.query(sql, &[]).await);
    }
    let why = invalid(reader.query("SELECT $1", &[]).await);
    assert!(why.contains("1 parameters"), "{why}");
    assert_eq!(reader.query("SELECT 1", &[]).await.expect("the reader still works").1, [[Value::Integer(1)]]);

    let mut writer = view.writer().await.expect("a writer");
    for sql in ["COMMIT", "ROLLBACK", "SELECT 1", "UPDATE _dacapo_tokens SET position = 9", "no SQL"] {
        invalid(writer.execute(sql, &[]).await);
        writer.rollback().await.expect("rolled back");
    }
    for sql in ["COMMIT", "DELETE FROM accounts RETURNING id", "SELECT 1; SELECT 2"] {
        invalid(writer.query(sql, &[]).await);
    }
    assert_eq!(writer.execute(writes, &[]).await.expect("written"), 1);
    writer.commit(&Commit::of([first])).await.expect("committed");
    assert_eq!(get(&*view, &ACCOUNTS, &[text("a")]).await, Some(account("a", "ann", 1)));
}

/// Opening says exactly what differs; opening the same again is fine.
pub async fn another_schema_is_refused_by_name(views: &dyn Views) {
    made(views).await;
    made(views).await;
    let open = async |tables: &[Table], segments| invalid(views.open(&id(), tables, segments).await.map(|_| ()));
    let why = open(TABLES, SegmentCount::ONE).await;
    assert!(why.contains("2 segments") && why.contains("version"), "{why}");
    const CHANGED: &[Column] = &[column("id", ColumnKind::Text), column("sum", ColumnKind::Float)];
    let changed = Table { columns: CHANGED, indexes: &[], ..ACCOUNTS };
    let why = open(&[changed, ENTRIES, KINDS, MARKS], two_segments()).await;
    for part in ["column accounts.balance: Integer", "column accounts.sum: Float", "index accounts.owner"] {
        assert!(why.contains(part), "{why}");
    }
    let no_key = Table { key: &[], ..ACCOUNTS };
    let reserved = Table { name: "_dacapo_tokens", ..ACCOUNTS };
    let other = ViewId { version: VersionId { code: 3, build: 1 }, ..id() };
    for table in [no_key, reserved] {
        invalid(views.open(&other, &[table], two_segments()).await.map(|_| ()));
    }
    assert!(views.find(&other).await.expect("looked for").is_none(), "a refused view was not made");
}

/// Only unique indexes are there from the beginning; the others come with the commit of whoever builds them, and rows
/// are the same before and after.
pub async fn indexes_are_built_when_they_are_asked_for(views: &dyn Views) {
    let (view, first) = claimed(views).await;
    let missing = async || view.missing_indexes(TABLES).await.expect("looked for");
    assert_eq!(missing().await, [(0, 0)], "the index of accounts; the unique one is there");
    let mut writer = view.writer().await.expect("a writer");
    for balance in [1, 2] {
        put(&mut *writer, &ACCOUNTS, vec![account("a", "ann", balance), account("b", "bob", balance)]).await;
    }
    writer.index(&ACCOUNTS, &ACCOUNTS.indexes[0]).await.expect("built");
    writer.rollback().await.expect("rolled back");
    assert_eq!(missing().await, [(0, 0)], "it goes with its transaction");

    put(&mut *writer, &ACCOUNTS, vec![account("a", "ann", 1), account("b", "bob", 1)]).await;
    writer.commit(&Commit::of([first])).await.expect("committed");
    writer.index(&ACCOUNTS, &ACCOUNTS.indexes[0]).await.expect("built");
    let fenced = TokenMove { epoch: first.epoch.next(), from: first.to, ..first };
    refused(writer.commit(&Commit::of([fenced])).await);
    assert_eq!(missing().await, [(0, 0)], "I-4");
    for _ in 0..2 {
        writer.index(&ACCOUNTS, &ACCOUNTS.indexes[0]).await.expect("built, or there already");
        let here = TokenMove { from: first.to, ..first };
        writer.commit(&Commit::of([here])).await.expect("committed");
        assert_eq!(missing().await, []);
    }
    put(&mut *writer, &ACCOUNTS, vec![account("b", "ann", 3), account("c", "cid", 1)]).await;
    writer.commit(&Commit::of([TokenMove { from: first.to, ..first }])).await.expect("committed");
    let mut reader = view.reader().await.expect("a reader");
    let of_ann = reader.select(&ACCOUNTS, &[(1, text("ann"))], 10).await.expect("read");
    assert_eq!(of_ann, [account("a", "ann", 1), account("b", "ann", 3)]);
}

/// A new view is filled in SQL from one state of another, which goes on meanwhile; rows and tokens land together.
pub async fn a_view_is_filled_from_another_as_it_was_at_one_moment(views: &dyn Views) {
    let (source, first) = claimed(views).await;
    let mut old = source.writer().await.expect("a writer");
    put(&mut *old, &ACCOUNTS, vec![account("a", "ann", 1), account("b", "bob", 2)]).await;
    old.commit(&Commit::of([first])).await.expect("committed");

    let id = ViewId { version: VersionId { code: 3, build: 1 }, ..id() };
    let view = views.open(&id, TABLES, two_segments()).await.expect("a new view");
    let tokens = claim_all(&*view).await;
    let fill = "INSERT INTO accounts SELECT id, owner, balance * 10 FROM {source}.accounts";
    let mut writer = view.writer().await.expect("a writer");
    for lands in [false, true] {
        let copy = source.copy().await.expect("the source");
        let found = writer.attach(&copy).await.expect("attached");
        let in_source = |sql: &str| sql.replace("{source}", &found.schema);
        let (at, epoch) = (found.tokens[0].position, found.tokens[0].epoch);
        assert_eq!(found.letters, 0);
        // The source goes on, unseen.
        let goes_on = TokenMove { epoch, from: at, to: at.next(), ..first };
        put(&mut *old, &ACCOUNTS, vec![account("c", "cid", 3)]).await;
        put(&mut *old, &ACCOUNTS, vec![account("a", "eve", 9)]).await;
        old.commit(&Commit::of([goes_on])).await.expect("the source is not kept from going on");
        if !lands {
            writer.rollback().await.expect("rolled back");
            put(&mut *old, &ACCOUNTS, vec![account("a", "ann", 1)]).await;
            old.delete(&ACCOUNTS, &mut of_none([vec![text("c")]])).await.expect("deleted");
            old.commit(&Commit::of([TokenMove { from: goes_on.to, ..goes_on }])).await.expect("committed");
            assert_eq!(get(&*view, &ACCOUNTS, &[text("a")]).await, None);
            continue;
        }
        assert_eq!(writer.execute(&in_source(fill), &[]).await.expect("filled"), 2);
        // Refused, or done to a copy that nobody sees.
        drop(writer.execute(&in_source("DELETE FROM {source}.accounts"), &[]).await);
        writer.index(&ACCOUNTS, &ACCOUNTS.indexes[0]).await.expect("built");
        let counted = Applied { after: at, events: 0 };
        let jump = TokenMove { to: at, applied: counted, ..tokens[0].step(at, 0) };
        writer.commit(&Commit::of([jump])).await.expect("committed");
        assert_eq!(view.tokens().await.expect("tokens")[0].position, at);
    }
    let mut reader = view.reader().await.expect("a reader");
    let rows = [account("a", "ann", 10), account("b", "bob", 20)];
    assert_eq!(reader.select(&ACCOUNTS, &[], 10).await.expect("read"), rows);
    assert_eq!(view.missing_indexes(TABLES).await.expect("looked for"), []);
    assert_eq!(get(&*source, &ACCOUNTS, &[text("a")]).await, Some(account("a", "eve", 9)));
}

/// I-12: a dropped view is gone, and one of the same name begins at the start.
pub async fn views_are_found_listed_dropped_and_made_anew(views: &dyn Views) {
    assert!(views.find(&id()).await.expect("looked for").is_none());
    assert!(views.list().await.expect("listed").is_empty());
    let (view, first) = claimed(views).await;
    let other = ViewId { version: VersionId { code: 10, build: 1 }, ..id() };
    views.open(&other, &[], SegmentCount::ONE).await.expect("a view without tables");
    assert_eq!(views.list().await.expect("listed"), [id(), other.clone()]);
    let found = views.find(&id()).await.expect("looked for").expect("found");
    assert_eq!(found.tokens().await.expect("tokens"), view.tokens().await.expect("tokens"));

    let mut writer = view.writer().await.expect("a writer");
    put(&mut *writer, &ACCOUNTS, vec![account("a", "ann", 1)]).await;
    for _ in 0..2 {
        views.drop_view(&id()).await.expect("dropped");
    }
    assert_eq!(views.list().await.expect("listed"), [other]);
    assert!(views.find(&id()).await.expect("looked for").is_none());
    let anew = made(views).await;
    // Whatever the writer of the dropped view can still do, nothing of it is seen in the new one.
    drop(writer.commit(&Commit::of([first])).await);
    assert_eq!(get(&*anew, &ACCOUNTS, &[text("a")]).await, None);
    let unclaimed = |token: &Token| token.epoch == Epoch::UNCLAIMED && token.position == Position::START;
    assert!(anew.tokens().await.expect("tokens").iter().all(unclaimed));
}

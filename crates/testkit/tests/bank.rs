//! The kit against a small bank: what is as expected passes, and what is not is shown.

use dacapo::effects::Effect;
use dacapo::journal::{Filter, Limit, Timestamp};
use dacapo::options::{OnFailure, Policy};
use dacapo::{
    Answers, Event, HandlerError, Options, Position, Projection, Query, ReadView, Recorded, Row, Table, View,
};
use dacapo_testkit::{Case, Outcome, block_on};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Event)]
enum AccountEvent {
    #[event(name = "moved")]
    Moved { amount: i64 },
    #[event(name = "doubted")]
    Doubted { why: String },
}

#[derive(Clone, Debug, PartialEq, Row)]
#[row(table = "accounts")]
struct Account {
    #[row(key)]
    id: String,
    balance: i64,
    seen: i64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Mail {
    account: String,
    balance: i64,
}

impl Effect for Mail {
    const NAME: &'static str = "mail";
}

#[derive(Default)]
struct Balances {
    on_failure: OnFailure,
}

impl Projection for Balances {
    const NAME: &'static str = "balances";
    const VERSION: u32 = 3;
    const TABLES: &'static [Table] = &[Account::TABLE];
    type Event = AccountEvent;

    fn options(&self) -> Options {
        Options { on_failure: self.on_failure, ..Options::default() }
    }

    async fn apply(&self, event: &Recorded<'_, AccountEvent>, view: &mut View) -> Result<(), HandlerError> {
        let amount = match &event.data {
            AccountEvent::Moved { amount } => *amount,
            AccountEvent::Doubted { why } => return Err(why.clone().into()),
        };
        let before = view.get::<Account>(event.stream).await?.map_or(0, |account| account.balance);
        let (account, balance) = (event.stream.to_owned(), before + amount);
        view.emit(&Mail { account: account.clone(), balance })?;
        view.put(Account { id: account, balance, seen: event.recorded.micros() })?;
        Ok(())
    }
}

struct BalanceOf(&'static str);

impl Query for BalanceOf {
    const PROJECTION: &'static str = "balances";
    type Answer = Option<i64>;
}

impl Answers<BalanceOf> for Balances {
    async fn answer(&self, query: &BalanceOf, view: &mut ReadView) -> Result<Option<i64>, HandlerError> {
        Ok(view.get::<Account>(query.0).await?.map(|account| account.balance))
    }
}

fn case() -> Case<Balances> {
    of(Policy::Halt)
}

fn of(policy: Policy) -> Case<Balances> {
    let on_failure = OnFailure { serving: policy, initializing: policy };
    Case::of(Balances { on_failure }).answering::<BalanceOf>().effects::<Mail>()
}

fn moved(amount: i64) -> AccountEvent {
    AccountEvent::Moved { amount }
}

fn doubted() -> AccountEvent {
    AccountEvent::Doubted { why: "this account is not ours".into() }
}

fn account(id: &str, balance: i64, seen: i64) -> Account {
    Account { id: id.into(), balance, seen }
}

fn mail(account: &str, balance: i64) -> Mail {
    Mail { account: account.into(), balance }
}

async fn two_accounts() -> Outcome {
    case().given("a-1", [moved(5), moved(6)]).when("a-2", [moved(7)]).when("a-1", [moved(8)]).run().await
}

/// What a check says when it fails.
fn said<T>(check: impl FnOnce() -> T + std::panic::UnwindSafe) -> String {
    let Err(said) = std::panic::catch_unwind(check) else { panic!("it passed") };
    said.downcast::<String>().map_or_else(|_| "another panic".to_owned(), |text| *text)
}

#[tokio::test]
async fn rows_answers_and_effects_are_those_of_the_events() {
    let then = two_accounts().await;
    then.rows([account("a-2", 7, 0), account("a-1", 19, 0)]).await;
    then.answer(BalanceOf("a-1"), Some(19)).await;
    then.answer(BalanceOf("a-3"), None).await;
    then.refused_nothing();
}

#[test]
fn effects_of_given_events_are_of_the_past_and_not_made() {
    block_on(async {
        two_accounts().await.effects([mail("a-2", 7), mail("a-1", 19)]);
    });
}

#[test]
fn rows_that_differ_are_shown_by_key_and_column() {
    let said = said(|| {
        block_on(async {
            two_accounts().await.rows([account("a-1", 20, 0), account("a-4", 1, 0)]).await;
        });
    });
    let told = "the rows of accounts differ\n  \"a-1\": balance is 19, expected 20\n  missing:  id: \"a-4\", balance: 1, seen: 0\n  \
                too many: id: \"a-2\", balance: 7, seen: 0\n";
    let (differs, place) = said.split_once("checked at ").unwrap();
    assert_eq!(differs, told);
    assert!(place.contains("bank.rs:"), "the line of the test: {place}");
}

#[test]
fn effects_and_answers_that_differ_are_shown() {
    let effects = said(|| {
        block_on(async {
            two_accounts().await.effects([mail("a-2", 9)]);
        });
    });
    assert!(effects.starts_with("the effects mail differ\n  no. 1, balances-"), "{effects}");
    assert!(
        effects.contains(r#"is {"account":"a-2","balance":7}, expected {"account":"a-2","balance":9}"#),
        "{effects}"
    );
    assert!(effects.contains(r#"too many: {"account":"a-1","balance":19} (balances-"#), "{effects}");
    let answer = said(|| {
        block_on(async {
            two_accounts().await.answer(BalanceOf("a-1"), Some(1)).await;
        });
    });
    assert!(answer.contains("expected: Some(1)\n     found: Some(19)"), "{answer}");
}

#[tokio::test]
async fn events_are_of_the_time_that_the_case_sets() {
    let at = Timestamp::from_micros;
    let then = case().at(at(3)).given("a-1", [moved(5)]).when("a-2", [moved(7)]).at(at(9)).when("a-3", [moved(1)]);
    then.run().await.rows([account("a-1", 5, 3), account("a-2", 7, 3), account("a-3", 1, 9)]).await;
}

#[tokio::test]
async fn a_refusal_is_told_at_once_among_new_events_and_among_given_ones() {
    let then = case().when("a-1", [moved(5), doubted(), moved(6)]).run().await;
    then.refused("not ours").rows([account("a-1", 5, 0)]).await;
    case().given("a-1", [doubted()]).run().await.refused("not ours");
}

#[tokio::test]
async fn the_policy_of_the_projection_decides_what_follows_from_a_refusal() {
    let skipped = of(Policy::Skip).when("a-1", [moved(5), doubted(), moved(6)]).run().await;
    skipped.refused("not ours").rows([account("a-1", 11, 0)]).await;
    let aside = of(Policy::DeadLetter).when("a-1", [moved(5), doubted(), moved(6)]).when("a-2", [moved(1)]);
    aside.run().await.rows([account("a-1", 5, 0), account("a-2", 1, 0)]).await;
}

#[test]
fn a_check_of_refusals_that_fails_says_what_was_refused() {
    let none = said(|| {
        block_on(async {
            two_accounts().await.refused("not ours");
        })
    });
    assert!(none.contains("the handler refused no event"), "{none}");
}

#[tokio::test]
async fn runs_of_one_case_do_the_same() {
    let (first, second) = (two_accounts().await, two_accounts().await);
    let events = async |outcome: &Outcome| {
        let (node, filter) = (outcome.node(), Filter::default());
        let batch = node.journal().read(Position::START, &filter, Limit::events(100)).await.unwrap();
        batch.iter().map(|event| (event.position, event.id, event.stream.to_owned())).collect::<Vec<_>>()
    };
    assert_eq!(events(&first).await, events(&second).await);
}

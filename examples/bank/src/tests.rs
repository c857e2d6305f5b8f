//! Both versions of the view, given what happens to an account.

use dacapo_testkit::{Case, block_on};

use super::*;

fn opened(owner: &str) -> AccountEvent {
    AccountEvent::Opened { owner: owner.into() }
}

fn deposited(amount: i64) -> AccountEvent {
    AccountEvent::Deposited { amount, note: String::new() }
}

fn withdrawn(amount: i64) -> AccountEvent {
    AccountEvent::Withdrawn { amount, note: String::new() }
}

#[test]
fn version_1_keeps_the_balance_of_each_account() {
    block_on(async {
        let then = Case::of(BalancesV1::default())
            .answering::<BalanceOf>()
            .given("account-1", [opened("ann"), deposited(50)])
            .when("account-2", [opened("bob"), deposited(7)])
            .when("account-1", [withdrawn(8)])
            .run()
            .await;
        let account = |account: &str, balance, entries| Account { account: account.into(), balance, entries };
        then.rows([account("account-1", 42, 3), account("account-2", 7, 2)]).await;
        then.answer(BalanceOf { account: "account-1".into() }, Some(Balance { balance: 42, entries: 3 })).await;
        then.answer(BalanceOf { account: "account-3".into() }, None).await;
    });
}

#[test]
fn version_2_tells_money_in_from_money_out_and_answers_as_version_1_does() {
    block_on(async {
        let then = Case::of(BalancesV2::default())
            .answering::<BalanceOf>()
            .given("account-1", [opened("ann"), deposited(50)])
            .when("account-1", [withdrawn(8), deposited(1)])
            .run()
            .await;
        let (account, owner) = ("account-1".to_owned(), "ann".to_owned());
        then.rows([AccountOfOwner { account, owner, deposited: 51, withdrawn: 8, entries: 4 }]).await;
        then.answer(BalanceOf { account: "account-1".into() }, Some(Balance { balance: 43, entries: 4 })).await;
    });
}

//! Both versions of the view, given what happens to an application.

use dacapo_testkit::{Case, block_on};

use super::*;

fn submitted(amount_requested: i64) -> LoanEvent {
    let lifecycle = Some("COMPLETE".to_owned());
    LoanEvent {
        name: "A_SUBMITTED",
        data: LoanData { lifecycle, resource: None, amount_requested: Some(amount_requested) },
    }
}

fn done_by(name: &'static str, resource: &str) -> LoanEvent {
    let (lifecycle, resource) = (Some("COMPLETE".to_owned()), Some(resource.to_owned()));
    LoanEvent { name, data: LoanData { lifecycle, resource, amount_requested: None } }
}

fn total(state: &str, applications: i64, amount_requested: i64) -> StateTotal {
    StateTotal { state: state.into(), applications, amount_requested }
}

#[test]
fn version_1_moves_an_application_from_the_total_of_one_state_to_that_of_the_next() {
    block_on(async {
        let then = Case::of(LoansV1::default())
            .given("loan-1", [submitted(5_000)])
            .when("loan-2", [submitted(700)])
            .when("loan-1", [done_by("W_Afhandelen leads", "11"), done_by("A_ACCEPTED", "11")])
            .run()
            .await;
        let application = |id: &str, state: &str, amount_requested| Application {
            id: id.into(),
            state: Some(state.into()),
            amount_requested,
        };
        then.rows([application("1", "A_ACCEPTED", 5_000), application("2", "A_SUBMITTED", 700)]).await;
        then.rows([total("A_SUBMITTED", 1, 700), total("A_ACCEPTED", 1, 5_000)]).await;
    });
}

#[test]
fn version_2_counts_offers_events_and_the_work_of_employees() {
    block_on(async {
        let then = Case::of(LoansV2::default())
            .given("loan-1", [submitted(5_000)])
            .when("loan-1", [done_by("O_CREATED", "11"), done_by("A_APPROVED", "12"), done_by("O_SENT", "11")])
            .run()
            .await;
        let (id, state) = ("1".to_owned(), Some("A_APPROVED".to_owned()));
        then.rows([ApplicationWithOffers { id, state, amount_requested: 5_000, events: 4, offers: 1 }]).await;
        let employee = |resource: &str, events| Employee { resource: resource.into(), events };
        then.rows([employee("11", 2), employee("12", 1)]).await;
        then.rows([total("A_SUBMITTED", 0, 0), total("A_APPROVED", 1, 5_000)]).await;
    });
}

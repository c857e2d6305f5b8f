//! Loan applications at a bank, from a real event log, in two versions of a view.
//!
//! `A_` events are the application's own states, `O_` the offers made to the customer, `W_` the work items
//! of the staff. Version 1 keeps the last state and the amount of each application, and totals by state;
//! version 2 adds offers, events, and work by employee.
//!
//! The events were named by the system they come from, and all of them carry the same data, so [`Event`] is
//! implemented by hand here: the name of a type stays a name.

#[cfg(test)]
mod tests;

use dacapo::journal::EventError;
use dacapo::verify::Assertion;
use dacapo::{Event, HandlerError, Options, Projection, Recorded, Row, Table, View};
use serde::{Deserialize, Serialize};

/// Something that happened to an application. What it was is its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoanEvent {
    /// What happened, such as `A_ACCEPTED`.
    pub name: &'static str,
    /// What is known about it.
    pub data: LoanData,
}

/// What is known about an event.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoanData {
    /// Whether work was scheduled, started or completed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifecycle: Option<String>,
    /// The employee, if one did it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// In euro; on the first event of an application only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount_requested: Option<i64>,
}

impl Event for LoanEvent {
    const TYPES: &'static [&'static str] = &[
        "A_SUBMITTED",
        "A_PARTLYSUBMITTED",
        "A_PREACCEPTED",
        "A_ACCEPTED",
        "A_FINALIZED",
        "A_APPROVED",
        "A_REGISTERED",
        "A_ACTIVATED",
        "A_CANCELLED",
        "A_DECLINED",
        "O_SELECTED",
        "O_CREATED",
        "O_SENT",
        "O_SENT_BACK",
        "O_ACCEPTED",
        "O_CANCELLED",
        "O_DECLINED",
        "W_Afhandelen leads",
        "W_Beoordelen fraude",
        "W_Completeren aanvraag",
        "W_Nabellen incomplete dossiers",
        "W_Nabellen offertes",
        "W_Valideren aanvraag",
        "W_Wijzigen contractgegevens",
    ];

    fn event_type(&self) -> &'static str {
        self.name
    }

    fn encode(&self) -> Result<Vec<u8>, EventError> {
        serde_json::to_vec(&self.data).map_err(|source| EventError {
            event_type: self.name.into(),
            act: "write",
            source,
        })
    }

    fn decode(event_type: &str, payload: &[u8]) -> Result<Option<Self>, EventError> {
        let Some(name) = Self::TYPES.iter().find(|name| **name == event_type) else { return Ok(None) };
        let data = serde_json::from_slice(payload).map_err(|source| EventError {
            event_type: event_type.into(),
            act: "read",
            source,
        })?;
        Ok(Some(Self { name, data }))
    }
}

/// An application in version 1.
#[derive(Clone, Debug, PartialEq, Eq, Row)]
#[row(table = "applications")]
pub struct Application {
    /// Its number.
    #[row(key)]
    pub id: String,
    /// Its last state; none before the first.
    #[row(index)]
    pub state: Option<String>,
    /// In euro.
    pub amount_requested: i64,
}

/// The applications that are in one state.
#[derive(Clone, Debug, PartialEq, Eq, Row)]
#[row(table = "states")]
pub struct StateTotal {
    /// The state.
    #[row(key)]
    pub state: String,
    /// How many.
    pub applications: i64,
    /// Their amounts together, in euro.
    pub amount_requested: i64,
}

/// An application in version 2.
#[derive(Clone, Debug, PartialEq, Eq, Row)]
#[row(table = "applications")]
pub struct ApplicationWithOffers {
    /// Its number.
    #[row(key)]
    pub id: String,
    /// Its last state; none before the first.
    #[row(index)]
    pub state: Option<String>,
    /// In euro.
    pub amount_requested: i64,
    /// How many events it has.
    pub events: i64,
    /// How many offers were created.
    pub offers: i64,
}

/// What one employee has done.
#[derive(Clone, Debug, PartialEq, Eq, Row)]
#[row(table = "employees")]
pub struct Employee {
    /// The employee's number.
    #[row(key)]
    pub resource: String,
    /// How many events.
    pub events: i64,
}

/// How often something happened.
#[derive(Clone, Debug, PartialEq, Eq, Row)]
#[row(table = "kinds")]
pub struct Kind {
    /// What.
    #[row(key)]
    pub event_type: String,
    /// Scheduled, started or completed.
    #[row(key)]
    pub lifecycle: String,
    /// How often.
    pub events: i64,
}

/// Version 1: the last state of each application, and totals by state.
#[derive(Clone, Debug, Default)]
pub struct LoansV1 {
    /// How it is built and run.
    pub options: Options,
}

impl Projection for LoansV1 {
    const NAME: &'static str = "loans";
    const VERSION: u32 = 1;
    const TABLES: &'static [Table] = &[Application::TABLE, StateTotal::TABLE];
    type Event = LoanEvent;

    fn options(&self) -> Options {
        self.options.clone()
    }

    async fn apply(&self, event: &Recorded<'_, LoanEvent>, view: &mut View) -> Result<(), HandlerError> {
        let id = application(event.stream);
        let before = view.get::<Application>(id).await?.cloned();
        let mut after =
            before.clone().unwrap_or_else(|| Application { id: id.to_owned(), state: None, amount_requested: 0 });
        change(&event.data, &mut after.state, &mut after.amount_requested);
        let was = before.as_ref().and_then(|row| Some((row.state.clone()?, row.amount_requested)));
        let is = after.state.clone().map(|state| (state, after.amount_requested));
        move_total(view, was, is).await?;
        view.put(after)?;
        Ok(())
    }
}

/// Version 2: with offers, events, and work by employee.
#[derive(Clone, Debug, Default)]
pub struct LoansV2 {
    /// How it is built and run.
    pub options: Options,
}

impl Projection for LoansV2 {
    const NAME: &'static str = "loans";
    const VERSION: u32 = 2;
    const TABLES: &'static [Table] = &[ApplicationWithOffers::TABLE, StateTotal::TABLE, Employee::TABLE, Kind::TABLE];
    const ASSERTIONS: &'static [Assertion] = &[
        Assertion {
            name: "the totals by state are those of the applications",
            sql: "SELECT states.state, states.applications, states.amount_requested,
                         count(applications.id) AS found, coalesce(sum(applications.amount_requested), 0) AS amount_found
                  FROM states LEFT JOIN applications ON applications.state = states.state
                  GROUP BY states.state, states.applications, states.amount_requested
                  HAVING states.applications != count(applications.id)
                      OR states.amount_requested != coalesce(sum(applications.amount_requested), 0)",
        },
        Assertion {
            name: "every event of an application is of some kind",
            sql: "SELECT applications.events, kinds.events AS kinds
                  FROM (SELECT coalesce(sum(events), 0) AS events FROM applications) AS applications,
                       (SELECT coalesce(sum(events), 0) AS events FROM kinds) AS kinds
                  WHERE applications.events != kinds.events",
        },
    ];
    type Event = LoanEvent;

    fn options(&self) -> Options {
        self.options.clone()
    }

    async fn apply(&self, event: &Recorded<'_, LoanEvent>, view: &mut View) -> Result<(), HandlerError> {
        let id = application(event.stream);
        let before = view.get::<ApplicationWithOffers>(id).await?.cloned();
        let mut after = before.clone().unwrap_or_else(|| ApplicationWithOffers {
            id: id.to_owned(),
            state: None,
            amount_requested: 0,
            events: 0,
            offers: 0,
        });
        change(&event.data, &mut after.state, &mut after.amount_requested);
        after.events += 1;
        after.offers += i64::from(event.data.name == "O_CREATED");
        let was = before.as_ref().and_then(|row| Some((row.state.clone()?, row.amount_requested)));
        let is = after.state.clone().map(|state| (state, after.amount_requested));
        move_total(view, was, is).await?;
        view.put(after)?;

        let LoanData { lifecycle, resource, .. } = &event.data.data;
        if let Some(resource) = resource {
            let none = || Employee { resource: resource.clone(), events: 0 };
            view.upsert(resource.as_str(), none, |row: &mut Employee| row.events += 1).await?;
        }
        let kind = (event.data.name.to_owned(), lifecycle.clone().unwrap_or_default());
        let none = || Kind { event_type: kind.0.clone(), lifecycle: kind.1.clone(), events: 0 };
        view.upsert(&kind, none, |row: &mut Kind| row.events += 1).await?;
        Ok(())
    }
}

/// The number of the application whose stream this is.
fn application(stream: &str) -> &str {
    stream.split_once('-').map_or(stream, |(_, id)| id)
}

fn change(event: &LoanEvent, state: &mut Option<String>, amount_requested: &mut i64) {
    if let Some(amount) = event.data.amount_requested {
        *amount_requested = amount;
    }
    if event.name.starts_with("A_") {
        *state = Some(event.name.to_owned());
    }
}

/// Takes an application out of the total of the state it was in, and adds it to that of the state it is in.
/// The order between applications does not matter to a sum.
async fn move_total(
    view: &mut View,
    was: Option<(String, i64)>,
    is: Option<(String, i64)>,
) -> Result<(), HandlerError> {
    if was == is {
        return Ok(());
    }
    for (total, sign) in [(was, -1), (is, 1)] {
        let Some((state, amount)) = total else { continue };
        let none = || StateTotal { state: state.clone(), applications: 0, amount_requested: 0 };
        let add = |row: &mut StateTotal| {
            row.applications += sign;
            row.amount_requested += sign * amount;
        };
        view.upsert(state.as_str(), none, add).await?;
    }
    Ok(())
}

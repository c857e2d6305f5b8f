//! What the code of a version reads is part of the version.

use std::path::Path;
use std::sync::Arc;

use dacapo::catalog::{CatalogEvent, CatalogRefused, CodeMismatch};
use dacapo::journal::NewEvent;
use dacapo::options::{CarryRefused, FlipPolicy, RowScope, SegmentCount};
use dacapo::store::Store;
use dacapo::verify::Part;
use dacapo::verify::Verify;
use dacapo::world::{Ids, SystemClock, SystemIds};
use dacapo::{
    Answers, Error, Event, ExpectedRevision, HandlerError, Node, NodeBuilder, Options, Position, Projection, Query,
    ReadView, Recorded, Row, StartError, Table, View, ViewId,
};
use dacapo_store::{Append, catalog_form};

use crate::common::money::{Balances, Money, New, Old, balance, balances, put};
use crate::common::{until, version};

/// `deposited` and `withdrawn`.
#[derive(Debug, Event)]
enum Both {
    Deposited { amount: i64 },
    Withdrawn { amount: i64 },
}

impl Money for Both {
    fn change(&self) -> i64 {
        match self {
            Self::Deposited { amount } => *amount,
            Self::Withdrawn { amount } => -*amount,
        }
    }
}

fn in_directory(directory: &Path) -> NodeBuilder {
    Node::builder().data(directory)
}

/// Why a node does not start with what was given to it.
async fn refused(builder: NodeBuilder) -> StartError {
    builder.start().await.err().expect("it must be refused")
}

fn unlike(error: &StartError) -> &CodeMismatch {
    match error {
        StartError::Code(CatalogRefused::Reads { unlike, .. }) => unlike,
        other => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_type_that_was_passed_is_not_read_under_the_same_number() {
    let directory = tempfile::tempdir().unwrap();
    let old = in_directory(directory.path()).projection(Balances::<Old>::default()).start().await.unwrap();
    put(&old, "account-1", Both::Deposited { amount: 50 }).await;
    let passed = put(&old, "account-1", Both::Withdrawn { amount: 8 }).await;
    assert_eq!(balance(&old, "account-1", passed).await, 50);
    old.shutdown().await;
    let error = refused(in_directory(directory.path()).projection(Balances::<Both>::default())).await;
    let event = Some(("withdrawn".to_owned(), passed));
    assert_eq!(unlike(&error), &CodeMismatch::Added { types: vec!["withdrawn".into()], event });
    assert!(error.to_string().contains("raise the version number"), "{error}");
    // What the message says helps.
    let verify = Verify::default().without(Part::Rows);
    let second = Balances::<Both, 2>::with(Options { verify, ..Options::default() });
    let raised =
        in_directory(directory.path()).projection(Balances::<Old>::default()).projection(second).start().await.unwrap();
    until(&raised, "version 2 serves", |status| status.projections[0].serving == Some(version("v2.1"))).await;
    assert_eq!(balance(&raised, "account-1", passed).await, 42);
    raised.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_type_of_which_the_journal_has_no_event_is_recorded_and_read() {
    let directory = tempfile::tempdir().unwrap();
    let old = in_directory(directory.path()).projection(Balances::<Old>::default()).start().await.unwrap();
    put(&old, "account-1", Both::Deposited { amount: 50 }).await;
    // As code that is corrected while the node runs it is not looked through.
    let error = old.add_projection(Balances::<Both>::default()).unwrap_err();
    assert!(matches!(error, Error::Catalog(CatalogRefused::Reads { .. })), "{error}");
    old.shutdown().await;
    let new = in_directory(directory.path()).projection(Balances::<Both>::default()).start().await.unwrap();
    let withdrawn = put(&new, "account-1", Both::Withdrawn { amount: 8 }).await;
    assert_eq!(balance(&new, "account-1", withdrawn).await, 42);
    let history = new.history().await.unwrap();
    let recorded = history.iter().filter(|entry| matches!(entry.event, CatalogEvent::ReadsRecorded { .. }));
    assert_eq!(recorded.count(), 1);
    new.shutdown().await;
    let again = in_directory(directory.path()).projection(Balances::<Both>::default()).start().await.unwrap();
    assert_eq!(again.history().await.unwrap().len(), history.len(), "the same code again says nothing");
    again.shutdown().await;
    let error = refused(in_directory(directory.path()).projection(Balances::<Old>::default())).await;
    assert_eq!(unlike(&error), &CodeMismatch::Missing(vec!["withdrawn".into()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_type_that_is_read_as_another_one_is_still_read() {
    let directory = tempfile::tempdir().unwrap();
    let old = in_directory(directory.path()).projection(Balances::<Old>::default()).start().await.unwrap();
    put(&old, "account-1", Old::Deposited { amount: 50 }).await;
    old.shutdown().await;
    let new = in_directory(directory.path()).projection(Balances::<New>::default()).start().await.unwrap();
    let last = put(&new, "account-1", New::Deposited { cents: 200 }).await;
    assert_eq!(balance(&new, "account-1", last).await, 52);
    new.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn removed_types_other_categories_segments_and_rows_are_refused_under_the_same_number() {
    let directory = tempfile::tempdir().unwrap();
    let four = || SegmentCount::new(4).unwrap();
    let options = || Options { segments: four(), categories: Some(vec!["account".into()]), ..Options::default() };
    let first = in_directory(directory.path()).projection(Balances::<Both>::with(options())).start().await.unwrap();
    put(&first, "account-1", Both::Deposited { amount: 50 }).await;
    first.shutdown().await;
    let with = |options| in_directory(directory.path()).projection(Balances::<Both>::with(options));
    let removed = in_directory(directory.path()).projection(Balances::<Old>::with(options()));
    assert!(matches!(unlike(&refused(removed).await), CodeMismatch::Missing(_)));
    let more = Some(vec!["account".into(), "wallet".into()]);
    for categories in [None, more] {
        let error = refused(with(Options { categories, ..options() })).await;
        assert!(matches!(unlike(&error), CodeMismatch::Categories { .. }));
        assert!(error.to_string().contains("raise the version number"), "{error}");
    }
    let error = refused(with(Options { segments: SegmentCount::new(5).unwrap(), ..options() })).await;
    assert!(matches!(unlike(&error), CodeMismatch::Segments { .. }));
    let error = refused(with(Options { rows: RowScope::AcrossSegments, ..options() })).await;
    assert!(matches!(unlike(&error), CodeMismatch::Rows { .. }));
    // In another order, and named twice, they are the same.
    let same = Options { categories: Some(vec!["account".into(), "account".into()]), ..options() };
    let node = with(same).start().await.unwrap();
    let requested = node.projection(balances()).unwrap().rebuild().by("test").await.unwrap();
    assert_eq!(requested.view().version, version("v1.2"));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_release_scheduled_is_recorded_as_it_is_first_carried() {
    let store = Store::memory(Arc::new(SystemClock));
    let view = ViewId { projection: balances(), version: version("v1.1") };
    let scheduled = |fingerprint: String| CatalogEvent::Scheduled {
        view: view.clone(),
        segments: SegmentCount::new(4).unwrap(),
        flip: FlipPolicy::WhenReady,
        fingerprint,
        reads: None,
        seed: None,
    };
    let fingerprint = "balances(account:Text, balance:Integer; key account)".to_owned();
    let (event_type, payload) = catalog_form::encode(&scheduled(fingerprint));
    let (metadata, tags) = Default::default();
    let event = NewEvent { id: SystemIds.next(), event_type, payload, metadata, tags };
    let append = Append::to_stream(catalog_form::stream(), ExpectedRevision::Any, vec![event]);
    store.journal.append(append).await.unwrap();
    let node = Node::builder().store(store.clone()).projection(Balances::<Old>::default()).start().await.unwrap();
    let deposited = put(&node, "account-1", Old::Deposited { amount: 50 }).await;
    assert_eq!(balance(&node, "account-1", deposited).await, 50);
    let recorded = |node: &Node| node.catalog().borrow().version(&view).and_then(|state| state.reads.clone());
    assert!(recorded(&node).unwrap().has("deposited"));
}

#[derive(Clone, Row)]
#[row(table = "Accounts")]
struct Account {
    #[row(key)]
    id: String,
}

#[derive(Clone, Row)]
#[row(table = "accounts")]
struct Closed {
    #[row(key)]
    id: String,
}

/// The total of other money.
struct OtherTotal;

impl Query for OtherTotal {
    const PROJECTION: &'static str = "totals";
    type Answer = i64;
}

struct Accounts;

impl Projection for Accounts {
    type Event = Old;
    const NAME: &'static str = "accounts";
    const VERSION: u32 = 1;
    const TABLES: &'static [Table] = &[Account::TABLE, Closed::TABLE];

    async fn apply(&self, _: &Recorded<'_, Old>, _: &mut View) -> Result<(), HandlerError> {
        Ok(())
    }
}

impl Answers<OtherTotal> for Balances<Old> {
    async fn answer(&self, _: &OtherTotal, _: &mut ReadView) -> Result<i64, HandlerError> {
        Ok(0)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_with_one_name_are_refused_when_they_are_carried() {
    let error = refused(Node::builder().projection(Accounts)).await;
    let StartError::Carry(CarryRefused::Tables { tables, .. }) = &error else { panic!("{error}") };
    assert_eq!(*tables, ["Accounts", "accounts"], "{error}");
    assert!(error.to_string().contains("two tables with one name, \"Accounts\" and \"accounts\""), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_to_another_projection_is_refused_when_it_is_carried() {
    let error = refused(Node::builder().projection(Balances::<Old>::default().answering::<OtherTotal>())).await;
    let StartError::Carry(CarryRefused::Query { names, .. }) = &error else { panic!("{error}") };
    assert_eq!(*names, "totals");
    assert!(error.to_string().contains("OtherTotal, which is a query to the projection \"totals\""), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_never_run_is_refused_when_it_is_carried() {
    let carry = |name: &str| Options { categories: Some(vec![name.to_owned()]), ..Options::default() };
    let error = refused(Node::builder().projection(Balances::<Old>::with(carry("user-account")))).await;
    let StartError::Carry(CarryRefused::Category { category, instead, .. }) = &error else { panic!("{error}") };
    assert_eq!((category.as_str(), instead.as_str()), ("user-account", "user"), "{error}");
    let error = refused(Node::builder().projection(Balances::<Old>::with(carry("$catalog")))).await;
    assert!(matches!(error, StartError::Carry(CarryRefused::System { .. })), "{error}");
    let none = Options { categories: Some(vec![]), ..Options::default() };
    let error = refused(Node::builder().projection(Balances::<Old>::with(none))).await;
    assert!(matches!(error, StartError::Carry(CarryRefused::NoCategory { .. })), "{error}");
    let twice = Node::builder().projection(Balances::<Old>::default()).projection(Balances::<Both>::default());
    let error = refused(twice).await;
    assert!(matches!(error, StartError::Carry(CarryRefused::Twice { code: 1, .. })), "{error}");
    let node = Node::builder().start().await.unwrap();
    let error = node.add_projection(Balances::<Old>::with(carry("user-account"))).unwrap_err();
    assert!(matches!(error, Error::Carry(CarryRefused::Category { .. })), "{error}");
    let user = Node::builder().projection(Balances::<Old>::with(carry("user"))).start().await.unwrap();
    let last = put(&user, "user-account-17", Old::Deposited { amount: 5 }).await;
    assert_eq!(balance(&user, "user-account-17", last).await, 5, "what the message names matches");
    assert!(last > Position::START);
    user.shutdown().await;
    node.shutdown().await;
}

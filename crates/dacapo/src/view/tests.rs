//! The rows in memory against a plain map: whatever happens, they are what was committed and the batch's changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use dacapo_model::{Position, ProjectionName, SegmentCount, Token, TokenMove, TokenRefused, VersionId, ViewId};
use dacapo_store::memory::MemoryViews;
use dacapo_store::{Table, Value, Views};
use proptest::prelude::*;

use super::{NotCommitted, ReadView, View, ViewError};
use crate::{Row, params};

#[derive(Clone, Debug, PartialEq, Row)]
#[row(table = "accounts")]
struct Account {
    #[row(key)]
    id: String,
    #[row(index)]
    owner: String,
    balance: u64,
}

#[derive(Clone, Debug, PartialEq, Row)]
struct Entry {
    #[row(key)]
    account: String,
    #[row(key)]
    number: u32,
    text: Option<String>,
}

#[derive(Clone, Row)]
#[row(table = "accounts")]
struct OtherAccount {
    #[row(key)]
    id: String,
}

#[derive(Clone, Row)]
struct Undeclared {
    #[row(key)]
    id: u8,
}

static TABLES: &[Table] = &[Account::TABLE, Entry::TABLE];

/// A view in memory, with the token that its next commit moves.
struct World {
    stored: Arc<dyn dacapo_store::View>,
    view: View,
    token: Token,
}

impl World {
    async fn new(bytes_max: usize) -> Self {
        let id = ViewId { projection: ProjectionName::new("test").unwrap(), version: VersionId { code: 1, build: 1 } };
        let stored = MemoryViews::new().open(&id, TABLES, SegmentCount::ONE).await.unwrap();
        let token = stored.claim(None, &stored.tokens().await.unwrap()).await.unwrap()[0];
        let view = View::new(stored.writer().await.unwrap(), TABLES).with_bytes_max(bytes_max);
        Self { stored, view, token }
    }

    fn step(&self) -> TokenMove {
        self.token.step(self.token.position.next(), 1)
    }

    async fn commit(&mut self) -> Result<(), NotCommitted> {
        let step = self.step();
        self.view.commit(&dacapo_store::Commit::of([step])).await?;
        self.token = self.token.moved(step).expect("the store has carried out this move");
        Ok(())
    }

    async fn reopen(&mut self) {
        let view = View::new(self.stored.writer().await.unwrap(), TABLES).with_bytes_max(self.view.bytes_max);
        self.view = view;
    }

    async fn committed(&self) -> Vec<Account> {
        let mut view = ReadView::new(self.stored.reader().await.unwrap());
        view.rows().load().await.unwrap()
    }
}

fn account(id: &str, balance: u64) -> Account {
    Account { id: id.into(), owner: "ann".into(), balance }
}

#[tokio::test]
async fn a_handler_reads_what_it_wrote_and_a_reader_what_was_committed() {
    let mut world = World::new(usize::MAX).await;
    let view = &mut world.view;
    assert!(!view.update::<Account>("a-1", |row| row.balance += 5).await.unwrap());
    view.put(account("a-1", 1)).unwrap();
    assert!(view.update::<Account>("a-1", |row| row.balance += 5).await.unwrap());
    assert_eq!(view.get::<Account>("a-1").await.unwrap().map(|row| row.balance), Some(6));
    view.upsert("a-2", || account("a-2", 0), |row| row.balance += 1).await.unwrap();
    view.put(Entry { account: "a-1".into(), number: 7, text: None }).unwrap();
    assert!(view.get::<Entry>(("a-1", 7)).await.unwrap().is_some());
    assert!(view.get::<Entry>(&("a-1".to_owned(), 8)).await.unwrap().is_none());
    assert_eq!(view.query("SELECT sum(balance) FROM accounts", &[]).await.unwrap(), [[Value::Integer(7)]]);
    assert!(view.delete::<Account>("a-2").await.unwrap());
    assert!(!view.delete::<Account>("a-2").await.unwrap());
    assert!(world.committed().await.is_empty());

    world.commit().await.unwrap();
    assert_eq!(world.committed().await, [account("a-1", 6)]);
    let mut read = ReadView::new(world.stored.reader().await.unwrap());
    assert_eq!(read.covers(), Position::new(1));
    assert_eq!(read.get::<Entry>(("a-1", 7)).await.unwrap().unwrap().text, None);
    assert_eq!(read.rows::<Account>().by("owner", "ann").most(1).load().await.unwrap(), [account("a-1", 6)]);
    assert!(read.rows::<Entry>().by("text", "x").load().await.unwrap().is_empty());
    let why = read.rows::<Account>().by("name", "ann").load().await.unwrap_err().to_string();
    assert!(why.contains("it has id, owner, balance"), "{why}");
    let (names, rows) = read.query("SELECT id FROM accounts WHERE balance > ?", params![5]).await.unwrap();
    assert_eq!((names, rows), (vec!["id".to_owned()], vec![vec![Value::from("a-1")]]));
}

#[tokio::test]
async fn a_changed_key_spoils_the_batch_even_if_the_handler_goes_on() {
    let mut world = World::new(usize::MAX).await;
    world.view.put(account("a-1", 1)).unwrap();
    world.commit().await.unwrap();
    let why = world.view.update::<Account>("a-1", |row| row.id = "a-2".into()).await.unwrap_err();
    assert!(why.to_string().contains("\"a-1\" in table accounts"), "{why}");
    let Err(NotCommitted::Failed(ViewError::KeyChanged { .. })) = world.commit().await else {
        panic!("it was committed")
    };
    assert_eq!(world.view.get::<Account>("a-1").await.unwrap(), Some(&account("a-1", 1)));
    world.commit().await.unwrap();
}

#[tokio::test]
async fn types_of_rows_are_told_apart_by_their_declared_tables() {
    let mut world = World::new(usize::MAX).await;
    assert!(matches!(world.view.put(Undeclared { id: 1 }), Err(ViewError::NoTable { table: "undeclared", .. })));
    world.view.put(account("a-1", 1)).unwrap();
    let why = world.view.put(OtherAccount { id: "a-1".into() }).unwrap_err().to_string();
    assert!(why.contains("Account") && why.contains("OtherAccount"), "{why}");
}

#[tokio::test]
async fn what_was_read_after_sql_wrote_is_forgotten_with_it() {
    let mut world = World::new(usize::MAX).await;
    world.view.put(account("a-1", 1)).unwrap();
    world.commit().await.unwrap();
    assert_eq!(world.view.execute("UPDATE accounts SET balance = 2", &[]).await.unwrap(), 1);
    assert_eq!(world.view.get::<Account>("a-1").await.unwrap(), Some(&account("a-1", 2)));
    world.view.rollback().await.unwrap();
    assert_eq!(world.view.get::<Account>("a-1").await.unwrap(), Some(&account("a-1", 1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_handler_may_move_between_threads() {
    let mut world = World::new(usize::MAX).await;
    let handler = async move {
        let view = &mut world.view;
        view.upsert("a-1", || account("a-1", 0), |row| row.balance += 1).await.unwrap();
        view.update::<Account>("a-1", |row| row.balance += 1).await.unwrap();
        view.execute("DELETE FROM accounts WHERE id = $1", params!["a-2"]).await.unwrap();
        view.query("SELECT 1", &[]).await.unwrap();
        assert!(view.get::<Account>("a-1").await.unwrap().is_some());
        view.delete::<Entry>(("a-1", 1)).await.unwrap();
        world.commit().await.unwrap();
        world
    };
    let world = tokio::spawn(handler).await.unwrap();
    assert_eq!(world.committed().await, [account("a-1", 2)]);
}

#[tokio::test]
async fn rows_beyond_the_bound_are_let_go_and_come_back() {
    let mut world = World::new(4_000).await;
    for number in 0..200 {
        world.view.put(account(&format!("a-{number}"), number)).unwrap();
    }
    let bytes = |view: &View| view.shelves.iter().map(|(.., shelf)| shelf.bytes()).sum::<usize>();
    world.commit().await.unwrap();
    assert!((1..=4_000).contains(&bytes(&world.view)), "{}", bytes(&world.view));
    for number in 0..200 {
        let row = world.view.get::<Account>(format!("a-{number}")).await.unwrap();
        assert_eq!(row.map(|row| row.balance), Some(number));
    }
    assert!(bytes(&world.view) > 4_000, "nothing is let go within a batch");
    world.commit().await.unwrap();
    assert!(bytes(&world.view) <= 4_000);
}

#[tokio::test]
async fn a_row_may_take_over_what_was_unique_to_a_deleted_one() {
    #[derive(Clone, Row)]
    struct Login {
        #[row(key)]
        id: u32,
        #[row(unique)]
        mail: String,
    }
    const TABLES: &[Table] = &[Login::TABLE];
    let id = ViewId { projection: ProjectionName::new("logins").unwrap(), version: VersionId { code: 1, build: 1 } };
    let stored = MemoryViews::new().open(&id, TABLES, SegmentCount::ONE).await.unwrap();
    let token = stored.claim(None, &stored.tokens().await.unwrap()).await.unwrap()[0];
    let mut world = World { view: View::new(stored.writer().await.unwrap(), TABLES), stored, token };
    world.view.put(Login { id: 1, mail: "a@b".into() }).unwrap();
    world.commit().await.unwrap();
    world.view.put(Login { id: 2, mail: "a@b".into() }).unwrap();
    world.view.delete::<Login>(1).await.unwrap();
    world.commit().await.unwrap();
    world.view.put(Login { id: 3, mail: "a@b".into() }).unwrap();
    let Err(NotCommitted::Failed(error)) = world.commit().await else { panic!("two rows have one address") };
    assert!(error.to_string().contains("unique index mail of table login"), "{error}");
}

#[tokio::test]
async fn a_value_that_does_not_fit_names_its_column() {
    let mut world = World::new(usize::MAX).await;
    world.view.put(account("a-1", u64::MAX)).unwrap();
    let Err(NotCommitted::Failed(error)) = world.commit().await else { panic!("it was committed") };
    assert!(error.to_string().starts_with("column accounts.balance: 18446744073709551615"), "{error}");
}

const HELD_FOR: Position = Position::new(99);

#[derive(Clone, Debug)]
enum Act {
    Get(u8),
    Put(u8, u64),
    Update(u8, u64),
    Upsert(u8, u64),
    Delete(u8),
    Execute(u64),
    Query,
    Commit,
    CommitHeld,
    CommitFenced,
    CommitUnwritable(u8),
    Rollback,
    Reopen,
}

fn act() -> impl Strategy<Value = Act> {
    let (id, amount) = (0..6_u8, 0..100_u64);
    prop_oneof![
        4 => id.clone().prop_map(Act::Get),
        3 => (id.clone(), amount.clone()).prop_map(|(id, amount)| Act::Put(id, amount)),
        4 => (id.clone(), amount.clone()).prop_map(|(id, amount)| Act::Update(id, amount)),
        3 => (id.clone(), amount.clone()).prop_map(|(id, amount)| Act::Upsert(id, amount)),
        2 => id.clone().prop_map(Act::Delete),
        2 => amount.prop_map(Act::Execute),
        1 => Just(Act::Query),
        3 => Just(Act::Commit),
        1 => Just(Act::CommitHeld),
        1 => Just(Act::CommitFenced),
        1 => id.prop_map(Act::CommitUnwritable),
        1 => Just(Act::Rollback),
        1 => Just(Act::Reopen),
    ]
}

/// What the view should be: the committed rows, and those that the batch sees.
#[derive(Default)]
struct Model {
    committed: BTreeMap<String, u64>,
    current: BTreeMap<String, u64>,
    wrote_sql: bool,
}

impl Model {
    fn forget(&mut self) {
        self.current = self.committed.clone();
        self.wrote_sql = false;
    }

    fn commit(&mut self) {
        self.committed = self.current.clone();
        self.wrote_sql = false;
    }
}

async fn perform(world: &mut World, model: &mut Model, act: &Act) {
    let name = |id: &u8| format!("a-{id}");
    let view = &mut world.view;
    match act {
        Act::Get(id) => {
            let row = view.get::<Account>(name(id).as_str()).await.unwrap();
            assert_eq!(row.map(|row| row.balance), model.current.get(&name(id)).copied());
        }
        Act::Put(id, amount) => {
            view.put(account(&name(id), *amount)).unwrap();
            model.current.insert(name(id), *amount);
        }
        Act::Update(id, amount) => {
            let there = view.update::<Account>(name(id), |row| row.balance += amount).await.unwrap();
            let row = model.current.get_mut(&name(id));
            assert_eq!(there, row.is_some());
            row.into_iter().for_each(|balance| *balance += amount);
        }
        Act::Upsert(id, amount) => {
            let key = name(id);
            view.upsert(&key, || account(&key, 0), |row| row.balance += amount).await.unwrap();
            *model.current.entry(key).or_default() += amount;
        }
        Act::Delete(id) => {
            let there = view.delete::<Account>(&name(id)).await.unwrap();
            assert_eq!(there, model.current.remove(&name(id)).is_some());
        }
        Act::Execute(amount) => {
            let sql = "UPDATE accounts SET balance = balance + ?";
            let changed = view.execute(sql, params![i64::try_from(*amount).unwrap()]).await.unwrap();
            assert_eq!(changed, model.current.len() as u64);
            model.current.values_mut().for_each(|balance| *balance += amount);
            model.wrote_sql = true;
        }
        Act::Query => {
            let sum = view.query("SELECT coalesce(sum(balance), 0) FROM accounts", &[]).await.unwrap();
            let expected: u64 = model.current.values().sum();
            assert_eq!(sum, [[Value::Integer(i64::try_from(expected).unwrap())]]);
        }
        Act::Commit => {
            world.commit().await.unwrap();
            model.commit();
        }
        Act::CommitHeld => {
            world.stored.hold(HELD_FOR).await.unwrap();
            world.token.held_for = Some(HELD_FOR);
        }
        Act::CommitFenced => {
            let step = TokenMove { epoch: world.token.epoch.next(), ..world.step() };
            let result = world.view.commit(&dacapo_store::Commit::of([step])).await;
            let fenced = TokenRefused::Fenced { segment: step.segment, asked: step.into(), stored: world.token.into() };
            assert!(matches!(result, Err(NotCommitted::Fenced(refused)) if refused == fenced));
            model.forget();
        }
        Act::CommitUnwritable(id) => {
            view.put(account(&name(id), u64::MAX)).unwrap();
            let Err(NotCommitted::Failed(ViewError::Row(_))) = world.commit().await else { panic!("written") };
            model.forget();
        }
        Act::Rollback => {
            view.rollback().await.unwrap();
            model.forget();
        }
        Act::Reopen => {
            world.reopen().await;
            model.forget();
        }
    }
}

/// Commits while a flip holds the tokens, then again once it let go.
async fn commit_held(world: &mut World, model: &mut Model) {
    let Err(NotCommitted::Held { held_for, must_reapply }) = world.commit().await else { panic!("not held") };
    assert_eq!((held_for, must_reapply), (HELD_FOR, model.wrote_sql));
    world.stored.lift(HELD_FOR).await.unwrap();
    world.token.held_for = None;
    if must_reapply {
        model.forget();
    }
    world.commit().await.unwrap();
    model.commit();
}

async fn run(acts: &[Act], bytes_max: usize) {
    let (mut world, mut model) = (World::new(bytes_max).await, Model::default());
    for acts in acts.split_inclusive(|act| matches!(act, Act::CommitHeld)) {
        let (acts, held) = match acts {
            [acts @ .., Act::CommitHeld] => (acts, true),
            acts => (acts, false),
        };
        // A hold waits for a transaction that writes, so it is marked before the batch that will meet it.
        let (before, batch) = acts.split_at(acts.iter().rposition(ends_batch).map_or(0, |at| at + 1));
        let hold = held.then_some(&Act::CommitHeld);
        for act in before.iter().chain(hold).chain(batch) {
            perform(&mut world, &mut model, act).await;
        }
        if held {
            commit_held(&mut world, &mut model).await;
        }
    }
    perform(&mut world, &mut model, &Act::Commit).await;
    let rows: BTreeMap<String, u64> = world.committed().await.into_iter().map(|row| (row.id, row.balance)).collect();
    assert_eq!(rows, model.committed);
}

fn ends_batch(act: &Act) -> bool {
    use Act::{Commit, CommitFenced, CommitUnwritable, Reopen, Rollback};
    matches!(act, Commit | CommitFenced | CommitUnwritable(_) | Reopen | Rollback)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    // I-3, I-4
    #[test]
    fn rows_in_memory_are_those_of_a_plain_map(
        acts in proptest::collection::vec(act(), 1..80), bytes_max in prop_oneof![Just(600_usize), Just(usize::MAX)],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(run(&acts, bytes_max));
    }
}

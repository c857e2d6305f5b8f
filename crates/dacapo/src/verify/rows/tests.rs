use std::collections::BTreeMap;

use async_trait::async_trait;
use dacapo_model::verify::{Part, PartReport};
use dacapo_model::{Letter, Position, Token};
use dacapo_store::{Column, ColumnKind, FirstRows};
use proptest::prelude::*;

use super::*;
use crate::code::{Comparison, Pairs, TableComparison, pairs};

const fn column(name: &'static str, kind: ColumnKind) -> Column {
    Column { name, kind, optional: false }
}

const OLD: Table = Table {
    name: "entries",
    columns: &[
        column("name", ColumnKind::Text),
        column("number", ColumnKind::Integer),
        column("sum", ColumnKind::Integer),
        column("gone", ColumnKind::Integer),
    ],
    key: &[0, 1],
    indexes: &[],
};

/// Its key in other places, a column more and a column less.
const NEW: Table = Table {
    name: "entries",
    columns: &[
        column("fresh", ColumnKind::Integer),
        column("number", ColumnKind::Integer),
        column("sum", ColumnKind::Integer),
        column("name", ColumnKind::Text),
    ],
    key: &[3, 1],
    indexes: &[],
};

/// Rows in memory, and how many were ever asked for at once and in all.
#[derive(Default)]
struct Rows {
    rows: Vec<Vec<Value>>,
    pages: usize,
    largest: usize,
}

impl Rows {
    fn of(table: &Table, mut rows: Vec<Vec<Value>>) -> Self {
        rows.sort_by(|a, b| key_order(&table.key_of(a), &table.key_of(b)));
        Self { rows, pages: 0, largest: 0 }
    }
}

#[async_trait]
impl ViewReader for Rows {
    fn tokens(&self) -> &[Token] {
        &[]
    }

    async fn get(&mut self, _: &Table, _: &[Value]) -> Result<Option<Vec<Value>>, StoreError> {
        unreachable!("rows are compared by pages")
    }

    async fn select(&mut self, _: &Table, _: &[(usize, Value)], _: usize) -> Result<Vec<Vec<Value>>, StoreError> {
        unreachable!("rows are compared by pages")
    }

    async fn page(
        &mut self,
        table: &Table,
        after: Option<&[Value]>,
        most: usize,
    ) -> Result<Vec<Vec<Value>>, StoreError> {
        let behind = |row: &Vec<Value>| after.is_none_or(|after| key_order(&table.key_of(row), after).is_gt());
        let first = self.rows.partition_point(|row| !behind(row));
        let page: Vec<_> = self.rows[first..].iter().take(most).cloned().collect();
        (self.pages, self.largest) = (self.pages + 1, self.largest.max(page.len()));
        Ok(page)
    }

    async fn query(&mut self, _: &str, _: &[Value]) -> Result<(Vec<String>, Vec<Vec<Value>>), StoreError> {
        unreachable!("rows are compared by pages")
    }

    async fn first_rows(&mut self, _: &str, _: usize) -> Result<FirstRows, StoreError> {
        unreachable!("rows are compared by pages")
    }

    async fn letters(&mut self, _: Position, _: usize) -> Result<Vec<Letter>, StoreError> {
        unreachable!("rows are compared by pages")
    }
}

fn old_row((name, number): &(String, i64), sum: i64) -> Vec<Value> {
    vec![name.as_str().into(), (*number).into(), sum.into(), 7.into()]
}

fn new_row((name, number): &(String, i64), sum: i64) -> Vec<Value> {
    vec![8.into(), (*number).into(), sum.into(), name.as_str().into()]
}

fn compared(old: &mut Rows, new: &mut Rows, comparison: &Comparison) -> PartReport {
    let Pairs { pairs, notes, .. } = pairs(&[OLD], &[NEW], comparison);
    let mut tally = Tally::default();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for pair in &pairs {
        runtime.block_on(compare(pair, old, new, &mut tally, |_| {})).unwrap();
    }
    notes.into_iter().for_each(|note| tally.note(note));
    tally.report(Part::Rows)
}

type Sums = BTreeMap<(String, i64), i64>;

fn sums() -> impl Strategy<Value = Sums> {
    let name = prop_oneof!["[a-c]{0,2}", "[é\u{10000}\u{ffff}z]{0,2}"];
    prop::collection::btree_map((name, -3..3_i64), 0..3_i64, 0..40)
}

proptest! {
    #[test]
    fn merging_finds_what_comparing_maps_finds(old in sums(), new in sums(), same in any::<bool>()) {
        let new = if same { old.clone() } else { new };
        let keys: std::collections::BTreeSet<_> = old.keys().chain(new.keys()).collect();
        let mut expected: BTreeMap<FindingKind, Vec<String>> = BTreeMap::new();
        for key in &keys {
            let kind = match (old.get(*key), new.get(*key)) {
                (Some(was), Some(is)) if was == is => continue,
                (Some(_), Some(_)) => FindingKind::Differs,
                (Some(_), None) => FindingKind::Missing,
                (None, _) => FindingKind::Extra,
            };
            expected.entry(kind).or_default().push(format!("{}, {}", key.0, key.1));
        }
        let mut old_rows = Rows::of(&OLD, old.iter().map(|(key, sum)| old_row(key, *sum)).collect());
        let mut new_rows = Rows::of(&NEW, new.iter().map(|(key, sum)| new_row(key, *sum)).collect());
        let report = compared(&mut old_rows, &mut new_rows, &Comparison::new());
        prop_assert_eq!(report.looked_at, keys.len() as u64);
        let counts: Vec<_> = expected.iter().map(|(kind, keys)| (*kind, keys.len() as u64)).collect();
        prop_assert_eq!(&report.wrong, &counts);
        for (kind, keys) in expected {
            let found = report.findings.iter().filter(|finding| finding.kind == kind);
            let found: Vec<_> = found.map(|finding| finding.key.clone().unwrap()).collect();
            prop_assert_eq!(&found[..], &keys[..keys.len().min(limits::FINDINGS_MAX)]);
        }
    }
}

#[test]
fn a_large_table_takes_a_page_of_memory() {
    let rows = 100_000;
    let key = |number: i64| (format!("name-{}", number / 10), number);
    let mut old = Rows::of(&OLD, (0..rows).map(|number| old_row(&key(number), 1)).collect());
    let wrong = |number: i64| if number % 1_000 == 17 { 2 } else { 1 };
    let mut new = Rows::of(&NEW, (0..rows).map(|number| new_row(&key(number), wrong(number))).collect());
    let report = compared(&mut old, &mut new, &Comparison::new());
    assert_eq!(report.looked_at, rows as u64);
    assert_eq!(report.wrong, [(FindingKind::Differs, 100)]);
    let first = &report.findings[0];
    assert_eq!((first.old.as_deref(), first.new.as_deref()), (Some("sum 1"), Some("sum 2")));
    for side in [&old, &new] {
        let pages = rows as usize / limits::PAGE_ROWS_MAX + 1;
        assert_eq!((side.largest, side.pages), (limits::PAGE_ROWS_MAX, pages), "each row is read once");
    }
}

#[test]
fn what_is_declared_is_not_found() {
    let rows = |row: fn(&(String, i64), i64) -> Vec<Value>, sums: [i64; 3]| -> Vec<Vec<Value>> {
        sums.iter().enumerate().map(|(at, sum)| row(&("a".to_owned(), at as i64), *sum)).collect()
    };
    let of = |comparison: &Comparison| {
        let mut old = Rows::of(&OLD, rows(old_row, [1, 2, 3]));
        let mut new = Rows::of(&NEW, rows(new_row, [1, 5, 9]));
        compared(&mut old, &mut new, comparison)
    };
    let report = of(&Comparison::new());
    assert_eq!(report.wrong, [(FindingKind::Differs, 2)]);
    assert_eq!(report.notes, ["column entries.fresh is new", "column entries.gone is gone"]);

    let entries = || TableComparison::of("entries");
    let except = of(&Comparison::new().table(entries().except(["sum"])));
    assert_eq!((except.wrong, except.looked_at), (vec![], 3), "that the rows are there still counts");
    assert!(except.notes.contains(&"column entries.sum is not compared, as declared".to_owned()));
    let only = of(&Comparison::new().table(entries().only(|key| key[1] != Value::Integer(2))));
    assert_eq!((only.wrong, only.looked_at), (vec![(FindingKind::Differs, 1)], 2));
    let renamed = of(&Comparison::new().table(entries().renamed("gone", "fresh")));
    assert_eq!(renamed.findings[0].old.as_deref(), Some("gone 7"), "the column that differs is shown");
    assert_eq!(renamed.wrong, [(FindingKind::Differs, 3)]);
    let unknown = of(&Comparison::new().table(entries().renamed("nothing", "sum").was("nowhere")));
    assert_eq!(unknown.wrong, [(FindingKind::Differs, 2)], "what the other version does not have changes nothing");

    let Pairs { pairs, notes, .. } = pairs(&[OLD], &[NEW], &Comparison::new().without("entries"));
    assert!(pairs.is_empty());
    assert_eq!(notes, ["table entries is not compared, as declared"]);
}

#[test]
fn tables_that_cannot_be_compared_are_named() {
    let other_key = Table { key: &[1], ..NEW };
    let found = pairs(&[OLD], &[other_key, Table { name: "more", ..NEW }], &Comparison::new());
    assert!(found.pairs.is_empty());
    let expected =
        "table entries cannot be compared: its key was (name: Text, number: Integer) and is (number: Integer)";
    assert_eq!((found.unlike, found.notes), (vec![expected.to_owned()], vec!["table more is new".to_owned()]));
    assert_eq!(pairs(&[OLD], &[], &Comparison::new()).notes, ["table entries is gone"]);
}

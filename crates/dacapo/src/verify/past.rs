//! The rows of a version that began as a copy, compared with what its code makes of the past.
//!
//! ```text
//!   few events ──▶ fold all of them                  ──▶ every row is compared
//!   more       ──▶ fold those of a sample of streams ──▶ the rows that came of them alone are compared
//! ```
//!
//! A row of a sample may be changed by events of other streams, too. The serving version shows that: if its code makes
//! exactly the served row of the same streams, no other stream had a part in it. The other rows are not checked, and
//! their number is reported.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use dacapo_model::verify::{FindingKind, Outcome, Part, PartReport};
use dacapo_model::{ViewId, WorkShare, limits};
use dacapo_store::{StoreError, Table, Value, ViewReader};
use futures::FutureExt;

use super::fold::{Fold, Folded, Pace, Take, fold};
use super::gather::gather;
use super::rows;
use super::{Examination, comparison};
use crate::code::{Pair, Pairs, Tally, VersionCode, Words, pairs, same, show_key};
use crate::panics::panic_text;
use crate::view::ReadView;

/// The serving version, at the same position.
pub(super) struct Serving<'a> {
    pub(super) code: &'a VersionCode,
    pub(super) view: &'a mut ReadView,
}

impl Examination<'_> {
    /// Compares the rows of a version that began as a copy, or some of them, with a fold of the past by its own code.
    /// Returns `None` if it did not begin as a copy.
    pub(super) async fn fold(
        &self,
        new: &mut ReadView,
        serving: Option<Serving<'_>>,
    ) -> Result<Option<PartReport>, StoreError> {
        let catalog = self.versions.catalog.current();
        if catalog.version(self.id).is_none_or(|state| state.seed.is_none()) {
            return Ok(None);
        }
        if self.leaves_out(Part::Fold) {
            return Ok(Some(PartReport::not_done(Part::Fold, "it is left out")));
        }
        self.tell(Part::Fold, 0);
        let comparison = match comparison(self.carried, self.carried.code.code, Part::Fold) {
            Ok(comparison) => comparison,
            Err(report) => return Ok(Some(report)),
        };
        let Pairs { pairs, notes, .. } = pairs(self.carried.tables, self.carried.tables, &comparison);
        let what = self.what(self.id, self.carried, new).await?;
        let (last, verify) = (what.last(), &self.carried.options.verify);
        let tell = |looked_at| self.tell(Part::Fold, looked_at);
        let mut tally = Tally::default();
        let done = match serving {
            _ if last.get() <= verify.fold_events_max as u64 => whole(what, &pairs, new, &mut tally, tell).await?,
            Some(serving) => self.sample(what, serving, &pairs, new, &mut tally).await?,
            None => Err(format!(
                "there are more than {} events (`fold_events_max`), and no version serves by which a sample of them \
                 could be judged",
                verify.fold_events_max
            )),
        };
        notes.into_iter().for_each(|note| tally.note(note));
        let mut report = tally.report(Part::Fold);
        if let Err(why) = done {
            report.outcome = Outcome::NotDone { why };
        }
        Ok(Some(report))
    }

    async fn what(&self, id: &ViewId, carried: &VersionCode, view: &mut ReadView) -> Result<Fold, StoreError> {
        let verify = &self.carried.options.verify;
        let pace = Pace { time_max: verify.fold_time_max, bound: "fold_time_max", share: WorkShare::ALL };
        Fold::of(self.versions, id, carried, view, pace).await
    }

    /// Compares the rows that are made of a sample of streams alone.
    async fn sample(
        &self,
        what: Fold,
        serving: Serving<'_>,
        pairs: &[Pair],
        new: &mut ReadView,
        tally: &mut Tally,
    ) -> Result<Result<(), String>, StoreError> {
        let gathered = Arc::new(gather(what.wanted(self.carried.options.verify.fold_events_max)).await?);
        let Serving { code, view } = serving;
        let old = ViewId { version: self.subject.against.unwrap_or(self.id.version), ..self.id.clone() };
        let old = self.what(&old, code, view).await?;
        let Folded { reader: mut was, .. } = match fold(old, Take::Gathered(Arc::clone(&gathered))).await? {
            Ok(folded) => folded,
            Err(why) => return Ok(Err(format!("in a sample of streams, of the serving version: {why}"))),
        };
        let Folded { reader: mut is, events } = match fold(what, Take::Gathered(Arc::clone(&gathered))).await? {
            Ok(folded) => folded,
            Err(why) => return Ok(Err(format!("in a sample of streams: {why}"))),
        };
        let mut shared = 0;
        for pair in pairs {
            let mut witness = Witness { table: like(&pair.new, code.tables), fold: &mut *was, view: view.reader() };
            let tell = |looked_at| self.tell(Part::Fold, looked_at);
            let compared = some(pair, &mut *is, new.reader(), Some(&mut witness), tally, tell);
            match AssertUnwindSafe(compared).catch_unwind().await {
                Ok(compared) => shared += compared?,
                Err(panic) => panicked(pair, &*panic, tally),
            }
        }
        let sample = format!("{} of {}", counted(events, "event"), counted(gathered.streams, "stream"));
        if tally.looked_at == 0 {
            let why = format!("no row is known to be made of a sample of {sample} alone; raise `fold_events_max`");
            return Ok(Err(why));
        }
        tally.note(format!(
            "a sample of {sample} was folded; {} that other streams may have changed were not compared",
            counted(shared, "row")
        ));
        Ok(Ok(()))
    }
}

/// Compares all rows with a fold of all events. The inner error is the reason if there is no fold.
pub(super) async fn whole(
    what: Fold,
    pairs: &[Pair],
    new: &mut ReadView,
    tally: &mut Tally,
    tell: impl Fn(u64),
) -> Result<Result<(), String>, StoreError> {
    let Folded { mut reader, events } = match fold(what, Take::Everything).await? {
        Ok(folded) => folded,
        Err(why) => return Ok(Err(why)),
    };
    for pair in pairs {
        let compared = rows::compare(pair, &mut *reader, new.reader(), tally, &tell);
        match AssertUnwindSafe(compared).catch_unwind().await {
            Ok(compared) => compared?,
            Err(panic) => panicked(pair, &*panic, tally),
        }
    }
    tally.note(format!("compared with {} from the start", counted(events, "event")));
    Ok(Ok(()))
}

/// Compares the rows of a fold of some streams that are made of these streams alone, as far as the witness knows; all
/// rows if there is no witness. Returns the number of the other rows.
pub(super) async fn some(
    pair: &Pair,
    fold: &mut dyn ViewReader,
    view: &mut dyn ViewReader,
    mut witness: Option<&mut Witness<'_>>,
    tally: &mut Tally,
    tell: impl Fn(u64),
) -> Result<u64, StoreError> {
    let (mut after, mut shared, mut looked_at) = (None::<Vec<Value>>, 0, 0);
    loop {
        let page = fold.page(&pair.new, after.as_deref(), limits::PAGE_ROWS_MAX).await?;
        let Some(last) = page.last() else { return Ok(shared) };
        after = Some(pair.new.key_of(last));
        for row in page {
            let key = pair.new.key_of(&row);
            if !pair.wants(&key) {
                continue;
            }
            let knows = match &mut witness {
                _ if looked_at >= limits::FOLD_ROWS_MAX => false,
                Some(witness) => witness.knows(&key).await?,
                None => true,
            };
            if !knows {
                shared += 1;
                continue;
            }
            looked_at += 1;
            tally.looked_at += 1;
            let words = |old, new| Words { place: pair.new.name.to_owned(), key: Some(show_key(&key)), old, new };
            match view.get(&pair.new, &key).await? {
                None => tally.wrong(FindingKind::Missing, || words(Some(pair.show_old(&row)), None)),
                Some(found) => match pair.differ(&row, &found) {
                    Ok(None) => {}
                    Ok(Some((was, is))) => tally.wrong(FindingKind::Differs, || words(Some(was), Some(is))),
                    Err(error) => {
                        let error = Some(error.to_string());
                        tally.wrong(FindingKind::Differs, || words(Some(pair.show_old(&row)), error));
                    }
                },
            }
        }
        tell(tally.looked_at);
    }
}

/// The serving version, and what its code makes of the same streams.
pub(super) struct Witness<'a> {
    /// Its table, if it has the table with the same key.
    table: Option<Table>,
    fold: &'a mut dyn ViewReader,
    view: &'a mut dyn ViewReader,
}

impl Witness<'_> {
    /// Returns true if the row with this key is made of these streams alone.
    async fn knows(&mut self, key: &[Value]) -> Result<bool, StoreError> {
        let Some(table) = self.table else { return Ok(false) };
        let (Some(made), Some(served)) = (self.fold.get(&table, key).await?, self.view.get(&table, key).await?) else {
            return Ok(false);
        };
        Ok(made.iter().zip(&served).all(|(made, served)| same(made, served)))
    }
}

/// Returns the table with the same name and key, if there is one.
fn like(table: &Table, others: &[Table]) -> Option<Table> {
    let key = |table: &Table| table.key.iter().map(|at| table.columns[*at]).collect::<Vec<_>>();
    others.iter().find(|other| other.name == table.name && key(other) == key(table)).copied()
}

pub(super) fn panicked(pair: &Pair, panic: &(dyn std::any::Any + Send), tally: &mut Tally) {
    let new = Some(format!("its comparison panicked: {}", panic_text(panic)));
    tally.wrong(FindingKind::Check, || Words { place: pair.new.name.to_owned(), new, ..Words::default() });
}

pub(super) fn counted(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

//! Verification: what a version must show before readers move to it.
//!
//! ```text
//!   caught up ──▶ meet the serving version at one position ──▶ rows, answers, checks ──▶ counts ──▶ Verified
//!                     │ (or: why not)                                                                  │
//!                     └─────────────────▶ checks, counts ──────────────────────────────────────────────┤
//!                                                                      Pass: Ready ◀───────────────────┤
//!                                                    Fail: waits until somebody does something about it ◀┘
//! ```
//!
//! The driver is a task of the conductor, at most one a version. It holds no state that matters: cut off at any point,
//! it begins anew, and what it found is nothing before the catalog has it. It reads snapshots only; writers, readers
//! and the serving version go on, and the version that is verified rests for the moment in which it meets the other.
//! It never decides what the verdict lets happen; that is [`dacapo_model::rebuild::verified`] and the catalog's own.

mod answers;
mod checks;
mod compare;
mod counts;
mod meet;
mod policy;
mod rows;
mod tally;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use dacapo_model::{
    Catalog, CatalogCommand, Phase, Position, ProjectionName, VersionId, VersionState, ViewId, WaitingOn, rebuild,
};
use dacapo_store::StoreError;
use futures::FutureExt;

use crate::catalog::{Asked, CatalogError};
use crate::core::{Core, OpenVersion};
use crate::projection::{Carried, panic_text};
use crate::view::ReadView;
use crate::world::Step;
use compare::Pairs;
use meet::Met;
use tally::{Tally, Words, cut};

pub use checks::{Assertion, Checks};
pub use compare::{Comparison, TableComparison};
pub use dacapo_model::Verified;
pub use dacapo_model::verify::{Finding, FindingKind, Outcome, Part, PartReport, Report, Verdict};
pub use policy::Verify;

pub(crate) use answers::{AnyQuery, Shadow, Shadowing, are_wanted, drive as shadow};

/// How often it looks whether enough answers were compared, and how long it rests after a first failure of the store.
const REST: Duration = Duration::from_millis(250);
/// The longest rest after a failure of the store; each is twice as long as the one before.
const REST_MAX: Duration = Duration::from_secs(30);

/// What a verification is at, for whoever watches.
#[derive(Clone, Debug, Default)]
pub(crate) struct Looking {
    pub(crate) part: Option<Part>,
    pub(crate) looked_at: u64,
    /// Why it cannot go on for the moment.
    pub(crate) error: Option<String>,
}

/// What the version waits on before its verification lets it serve; nothing if it does.
pub(crate) fn waits_on(core: &Core, id: &ViewId, state: &VersionState) -> Option<WaitingOn> {
    match rebuild::verified(id.version, state).err()? {
        WaitingOn::Verification { version, .. } => {
            let Looking { part, looked_at, .. } = core.looking(id).unwrap_or_default();
            Some(WaitingOn::Verification { version, part, looked_at })
        }
        other => Some(other),
    }
}

/// Whether events were set aside in a version since it was found right, which its verdict knows nothing of. Where
/// somebody answers for the version, that is up to them.
pub(crate) async fn is_outdated(open: &OpenVersion, state: &VersionState) -> Result<bool, StoreError> {
    let Some(carried) = &open.carried else { return Ok(false) };
    let Verify { without, letters_allowed, .. } = &carried.options.verify;
    let counted = !letters_allowed && !without.contains(&Part::Counts);
    let passed = state.verified.as_ref().is_some_and(|it| it.verdict == Verdict::Pass && it.waived.is_none());
    if state.phase != Phase::Initializing || !counted || !passed {
        return Ok(false);
    }
    counts::any_aside(&*open.view).await
}

/// How the verification of a version stands.
#[derive(Clone, Debug)]
pub struct Verification {
    /// The version.
    pub view: ViewId,
    /// Its phase.
    pub phase: Phase,
    /// What the last verification came to, if there was one.
    pub verified: Option<Verified>,
    /// Whether another one was asked for that is not done yet; until then the verdict does not count.
    pub again: bool,
    /// What it waits on before its verification lets it serve; nothing if it does.
    pub waiting_on: Option<WaitingOn>,
    /// What came of the live queries that this node has put to it until now, if it does that. The next verification
    /// reports it.
    pub live: Option<PartReport>,
}

/// How the verification of a version of `projection` stands: of the one that is named, of the newest that is being
/// built, or of the newest that was verified.
pub(crate) fn verification(core: &Core, projection: &ProjectionName, named: Option<VersionId>) -> Option<Verification> {
    let catalog = core.catalog.current();
    let versions = &catalog.projections.get(projection)?.versions;
    let newest = |wanted: &dyn Fn(&VersionState) -> bool| {
        versions.iter().rev().find(|(_, state)| wanted(state)).map(|(version, _)| *version)
    };
    let built = || newest(&|state| state.phase == Phase::Initializing);
    let version = named.or_else(built).or_else(|| newest(&|state| state.verified.is_some()))?;
    let state = versions.get(&version)?;
    let view = ViewId { projection: projection.clone(), version };
    let live = core.shadowing(projection).filter(|shadowing| shadowing.is_of(&view));
    Some(Verification {
        phase: state.phase,
        verified: state.verified.clone(),
        again: state.verify_again.is_some(),
        waiting_on: waits_on(core, &view, state),
        live: live.map(|live| live.tally().report(Part::Answers)),
        view,
    })
}

/// Verifies a version that has caught up, until the catalog has a verdict or wants none any more.
pub(crate) async fn drive(core: Arc<Core>, id: ViewId) {
    let mut catalog = core.catalog.watch();
    let mut rest = REST;
    // What is verified: for which request, and against which version. When that changes, it begins after the change.
    let wanted = |catalog: &Catalog| {
        let state = catalog.version(&id).filter(|state| state.is_unverified())?;
        Some((state.verify_again, catalog.serving(&id.projection)))
    };
    loop {
        let now = wanted(&catalog.borrow_and_update());
        let Some((answers, against)) = now else { break };
        core.set_looking(&id, Some(Looking::default()));
        let report = tokio::select! {
            biased;
            _ = catalog.wait_for(|catalog| wanted(catalog) != now) => continue,
            report = look(&core, &id, against) => report,
        };
        let done = match report {
            Ok(Some(report)) => conclude(&core, &id, answers, report).await,
            Ok(None) => Ok(()),
            Err(error) => Err(error.into()),
        };
        let Err(error) = done else { break };
        tracing::warn!(view = %id, %error, "the verification cannot go on for the moment");
        core.set_looking(&id, Some(Looking { error: Some(error.to_string()), ..Looking::default() }));
        tokio::time::sleep(rest).await;
        rest = (rest * 2).min(REST_MAX);
    }
    core.set_looking(&id, None);
}

/// What was found becomes the verdict in the catalog.
async fn conclude(
    core: &Arc<Core>,
    id: &ViewId,
    answers: Option<Position>,
    report: Report,
) -> Result<(), CatalogError> {
    core.world.probe.completed(Step::VersionExamined);
    let (verdict, summary) = (report.verdict(), report.summary());
    let verify = CatalogCommand::Verify { view: id.clone(), answers, verdict, report: Arc::new(report) };
    match Arc::clone(&core.catalog).change(verify, Asked::by_plan()).await {
        Ok(_) => {}
        // It was asked for again, or is not being built any more: the conductor looks.
        Err(CatalogError::Refused(refused)) => {
            tracing::info!(view = %id, %refused, "the verification came too late");
            return Ok(());
        }
        Err(error) => return Err(error),
    }
    core.world.probe.completed(Step::VersionVerified);
    match verdict {
        Verdict::Pass => tracing::info!(view = %id, "verified"),
        Verdict::Fail => tracing::warn!(view = %id, found = summary, "the version was not found right"),
    }
    Ok(())
}

/// A verification under way.
struct Examination<'a> {
    core: &'a Core,
    id: &'a ViewId,
    carried: &'a Carried,
}

/// Looks at everything. Nothing comes of it when the version is not open here any more.
async fn look(core: &Core, id: &ViewId, against: Option<VersionId>) -> Result<Option<Report>, StoreError> {
    let (Some(open), Some(carried)) = (core.open_version(id), core.code_of(id)) else { return Ok(None) };
    let it = Examination { core, id, carried: &carried };
    // The states of the views are kept no longer than they are looked at, since the stores keep them meanwhile.
    let (rows, samples, checks, tokens, at);
    match it.meet(against).await? {
        Ok((old, mut met)) => {
            rows = it.rows(&old, &mut met).await?;
            samples = Ok(it.samples(&old, &mut met).await?);
            (at, tokens) = (met.at, met.new.reader().tokens().to_vec());
            checks = it.checks(&mut met.new).await?;
        }
        Err(why) => {
            let mut view = ReadView::new(open.view.reader().await?);
            (at, tokens) = (view.covers(), view.reader().tokens().to_vec());
            rows = PartReport::not_done(Part::Rows, &why);
            samples = Err(why);
            checks = it.checks(&mut view).await?;
        }
    }
    let counts = it.counts(&*open.view, &tokens).await?;
    let answers = it.answers(samples).await;
    let mut parts = vec![counts, checks, rows, answers];
    for part in &mut parts {
        if it.leaves_out(part.part) {
            *part = PartReport::not_done(part.part, "the version's options leave it out");
        }
    }
    // A first version cannot be compared with anything, whatever is required of later ones.
    let possible = |part: &Part| against.is_some() || matches!(part, Part::Counts | Part::Checks);
    let required = &carried.options.verify.required;
    let required = Part::ALL.into_iter().filter(|part| required.contains(part) && possible(part)).collect();
    Ok(Some(Report { at, against, required, parts }))
}

impl Examination<'_> {
    fn leaves_out(&self, part: Part) -> bool {
        self.carried.options.verify.without.contains(&part)
    }

    /// Tells whoever watches how far the part is.
    fn tell(&self, part: Part, looked_at: u64) {
        self.core.set_looking(self.id, Some(Looking { part: Some(part), looked_at, error: None }));
    }

    /// Brings the version and the one that serves to one position; or tells why they are not compared.
    async fn meet(&self, against: Option<VersionId>) -> Result<Result<(Carried, Met), String>, StoreError> {
        let Some(against) = against else {
            return Ok(Err("no version serves, so there is nothing to compare with".to_owned()));
        };
        if self.leaves_out(Part::Rows) && self.carried.samples.is_empty() {
            return Ok(Err("rows are left out, and there is no query to put to both versions".to_owned()));
        }
        self.tell(Part::Rows, 0);
        let old = ViewId { version: against, ..self.id.clone() };
        let Some(code) = self.core.code_of(&old) else {
            return Ok(Err(format!("the code of {against}, which serves, is not carried by this node")));
        };
        let met = meet::meet(self.core, &old, self.id, self.carried.options.verify.meet_time_max).await?;
        // Every segment that halts has a reason, and a report must fit an event.
        Ok(met.map(|met| (code, met)).map_err(cut))
    }

    async fn counts(
        &self,
        view: &dyn dacapo_store::View,
        tokens: &[dacapo_model::Token],
    ) -> Result<PartReport, StoreError> {
        let mut tally = Tally::default();
        if !self.leaves_out(Part::Counts) {
            self.tell(Part::Counts, 0);
            let tell = |looked_at| self.tell(Part::Counts, looked_at);
            counts::count(self.core.world.offload, &self.core.journal, &self.carried.filter, tokens, &mut tally, tell)
                .await?;
            let through = tokens.iter().map(|token| token.position).max().unwrap_or_default();
            counts::letters(view, through, self.carried.options.verify.letters_allowed, &mut tally).await?;
        }
        Ok(tally.report(Part::Counts))
    }

    async fn checks(&self, view: &mut ReadView) -> Result<PartReport, StoreError> {
        let mut tally = Tally::default();
        if !self.leaves_out(Part::Checks) {
            self.tell(Part::Checks, 0);
            let tell = |looked_at| self.tell(Part::Checks, looked_at);
            checks::check(&*self.carried.handlers, view, &mut tally, tell).await?;
            if tally.looked_at == 0 {
                tally.note("the version declares none");
            }
        }
        Ok(tally.report(Part::Checks))
    }

    async fn rows(&self, old: &Carried, met: &mut Met) -> Result<PartReport, StoreError> {
        if self.leaves_out(Part::Rows) {
            return Ok(PartReport::not_done(Part::Rows, "it is left out"));
        }
        let comparison = self.carried.handlers.comparison(old.code.code);
        let Pairs { pairs, notes, unlike } = compare::pairs(old.tables, self.carried.tables, &comparison);
        if pairs.is_empty() {
            let none = "the two versions have no table that could be compared".to_owned();
            let why = if unlike.is_empty() { none } else { cut(unlike.join("; ")) };
            let mut report = PartReport::not_done(Part::Rows, why);
            report.notes = notes;
            return Ok(report);
        }
        let mut tally = Tally::default();
        let tell = |looked_at| self.tell(Part::Rows, looked_at);
        for pair in &pairs {
            let (was, is) = (met.old.reader(), met.new.reader());
            let compared = AssertUnwindSafe(rows::compare(pair, was, is, &mut tally, &tell)).catch_unwind();
            match compared.await {
                Ok(compared) => compared?,
                Err(panic) => {
                    let new = Some(format!("its comparison panicked: {}", panic_text(&*panic)));
                    let place = pair.new.name.to_owned();
                    tally.wrong(FindingKind::Check, || Words { place, new, ..Words::default() });
                }
            }
        }
        notes.into_iter().for_each(|note| tally.note(note));
        let mut report = tally.report(Part::Rows);
        // What both have and nobody could compare has not passed.
        if report.outcome == Outcome::Passed && !unlike.is_empty() {
            report.outcome = Outcome::NotDone { why: cut(unlike.join("; ")) };
        }
        Ok(report)
    }

    /// The answers of both versions to the declared queries.
    async fn samples(&self, old: &Carried, met: &mut Met) -> Result<Tally, StoreError> {
        let mut tally = Tally::default();
        if !self.leaves_out(Part::Answers) {
            self.tell(Part::Answers, 0);
            answers::samples(old, self.carried, met, &mut tally).await?;
        }
        Ok(tally)
    }

    /// What came of the declared queries, and of the live ones until now. Where answers are required, it waits until
    /// there are enough.
    async fn answers(&self, samples: Result<Tally, String>) -> PartReport {
        let verify = &self.carried.options.verify;
        if self.carried.shadows.is_empty() {
            return PartReport::not_done(Part::Answers, "the version declares no query whose answers are compared");
        }
        let required = verify.required.contains(&Part::Answers) && !self.leaves_out(Part::Answers);
        loop {
            let mut tally = samples.clone().unwrap_or_default();
            if let Some(shadowing) = self.core.shadowing(&self.id.projection).filter(|it| it.is_of(self.id)) {
                tally.add(shadowing.tally());
            }
            let enough = tally.looked_at >= verify.answers_min;
            let serves = self.core.catalog.current().serving(&self.id.projection).is_some();
            if required && are_wanted(self.carried) && serves && !enough {
                self.tell(Part::Answers, tally.looked_at);
                tokio::time::sleep(REST).await;
                continue;
            }
            return match (&samples, tally.looked_at) {
                (Err(why), 0) => PartReport::not_done(Part::Answers, why),
                (Ok(_), 0) => PartReport::not_done(Part::Answers, "no query was put to both versions"),
                _ => tally.report(Part::Answers),
            };
        }
    }
}

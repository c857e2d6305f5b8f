//! Verification: the proof that a version must give before readers move to it.
//!
//! ```text
//!   caught up ──▶ meet the serving version at one position ──▶ rows, answers, fold, checks ──▶ counts ──▶ Verified
//!                     │ (or: why not)                                                                         │
//!                     └─────────────────▶ fold, checks, counts ───────────────────────────────────────────────┤
//!                                                                             Pass: Ready ◀───────────────────┤
//!                                                                             Fail: waits for an operator ◀───┘
//! ```
//!
//! The driver is a task of the conductor, at most one for each version. It holds no state that matters: interrupted at
//! any point, it begins again, and its findings do not count before the catalog has them. It reads only snapshots.
//! Writers, readers and the serving version continue. The version that is verified pauses for the moment in which it
//! meets the other one. The driver never decides what the verdict allows: that is [`dacapo_model::rebuild::verified`]
//! and the catalog's own rules.

mod answers;
mod checks;
mod counts;
mod fold;
mod gather;
mod meet;
mod past;
mod rows;
mod served;
mod subject;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use dacapo_model::reasons::Looking;
use dacapo_model::verify::{required, rests_on_no_letters};
use dacapo_model::{
    BackOff, CatalogCommand, Phase, Position, ProjectionName, Token, VersionId, VersionState, ViewId, WaitingOn,
};
use dacapo_store::StoreError;
use futures::FutureExt;

use crate::catalog::{CatalogError, RequestedBy};
use crate::code::{Pairs, Tally, VersionCode, Words, cut, pairs};
use crate::limits;
use crate::panics::panic_text;
use crate::versions::{OpenVersion, Subject, Versions};
use crate::view::ReadView;
use crate::world::Step;
use meet::{Met, NotMet};
use past::Serving;

pub use crate::code::{Assertion, Checks, Comparison, TableComparison, Verify};
pub use dacapo_model::Verified;
pub use dacapo_model::scrub::ScrubResult;
pub use dacapo_model::verify::{Finding, FindingKind, Outcome, Part, PartReport, Report, Verdict};

pub(crate) use answers::{are_wanted, drive as shadow};
pub(crate) use served::scrub;

/// Returns true if events were set aside in a version since it passed its verification, so that its verdict does not
/// include them.
pub(crate) async fn is_outdated(open: &OpenVersion, state: &VersionState) -> Result<bool, StoreError> {
    let counts_letters = open.carried.as_ref().is_some_and(|carried| carried.options.verify.counts_letters());
    Ok(rests_on_no_letters(state, counts_letters) && counts::any_aside(&*open.view).await?)
}

/// The state of a version's verification.
#[derive(Clone, Debug)]
pub struct Verification {
    /// The version.
    pub view: ViewId,
    /// Its phase.
    pub phase: Phase,
    /// The result of the last verification, if there was one.
    pub verified: Option<Verified>,
    /// True if another verification was requested and is not done yet. Until then the verdict does not count.
    pub again: bool,
    /// What it waits on before its verification lets it serve; `None` if it may serve. While it cannot be verified at
    /// all, what that waits on.
    pub waiting_on: Option<WaitingOn>,
    /// True if the verification is blocked and needs an operator. `waiting_on` says why.
    pub halts: bool,
    /// The result of the live queries that this node has put to it so far, if it does so. The next verification reports
    /// it.
    pub live: Option<PartReport>,
}

/// Returns the state of the verification of a version of `projection`: of the named one, of the newest that is being
/// built, or of the newest that was verified.
pub(crate) fn verification(
    versions: &Versions,
    projection: &ProjectionName,
    named: Option<VersionId>,
) -> Option<Verification> {
    let catalog = versions.catalog.current();
    let all = catalog.projections.get(projection)?;
    let version = named.or_else(|| all.verification_target())?;
    let state = all.versions.get(&version)?;
    let view = ViewId { projection: projection.clone(), version };
    let tokens = versions.seen(&view);
    let retry = versions.code_of(&view).map(|carried| carried.options.retry);
    let facts = versions.facts(&catalog, &view, &tokens);
    let (waiting_on, halts) = match facts.and_then(|facts| facts.before_verification(retry.as_ref())) {
        Some((reason, halts)) => (Some(reason), halts),
        None => (versions.unverified(&view, state), false),
    };
    let live = versions.shadowing(projection).filter(|shadowing| shadowing.is_of(&view));
    Some(Verification {
        phase: state.phase,
        verified: state.verified.clone(),
        again: state.verify_again.is_some(),
        waiting_on,
        halts,
        live: live.map(|live| live.tally().report(Part::Answers)),
        view,
    })
}

/// Verifies a version that has caught up, until the catalog has a verdict or needs none any more. It also ends if the
/// versions cannot be checked now; then the conductor begins again.
pub(crate) async fn drive(versions: Arc<Versions>, id: ViewId) {
    let mut back_off = BackOff::new(limits::VERIFY_RETRY_PAUSE_FIRST, limits::VERIFY_RETRY_PAUSE_MAX);
    let now = || Subject::of(&versions, &id, VersionState::is_unverified);
    while let Some(subject) = now() {
        versions.notes.set_looking(&id, Some(Looking::default()));
        let report = tokio::select! {
            biased;
            () = subject::changed(&versions, &subject, now) => continue,
            report = look(&versions, &id, &subject) => report,
        };
        let done = match report {
            Ok(Some(report)) => conclude(&versions, &id, subject.asked, report).await,
            Ok(None) => Ok(()),
            Err(error) => Err(error.into()),
        };
        let Err(error) = done else { break };
        tracing::warn!(view = %id, %error, "the verification cannot continue now, and retries");
        versions.notes.set_looking(&id, Some(Looking { error: Some(error.to_string()), ..Looking::default() }));
        tokio::time::sleep(back_off.pause()).await;
    }
    versions.notes.set_looking(&id, None);
}

/// Records the findings as the verdict in the catalog.
async fn conclude(
    versions: &Arc<Versions>,
    id: &ViewId,
    answers: Option<Position>,
    report: Report,
) -> Result<(), CatalogError> {
    versions.world.probe.completed(Step::VersionExamined);
    let (verdict, summary) = (report.verdict(), report.summary());
    let verify = CatalogCommand::Verify { view: id.clone(), answers, verdict, report: Arc::new(report) };
    match Arc::clone(&versions.catalog).change(verify, RequestedBy::by_plan()).await {
        Ok(_) => {}
        // Another verification was requested, or the version is not being built any more. The conductor checks that.
        Err(CatalogError::Refused(refused)) => {
            tracing::info!(view = %id, %refused, "the verification came too late");
            return Ok(());
        }
        Err(error) => return Err(error),
    }
    versions.world.probe.completed(Step::VersionVerified);
    match verdict {
        Verdict::Pass => tracing::info!(view = %id, "verified"),
        Verdict::Fail => tracing::warn!(view = %id, found = summary, "the version has failed its verification"),
    }
    Ok(())
}

/// A verification under way.
struct Examination<'a> {
    versions: &'a Versions,
    id: &'a ViewId,
    subject: &'a Subject,
    /// The code of the version.
    carried: &'a VersionCode,
}

/// Checks everything. Returns `None` if the versions cannot be checked now.
async fn look(versions: &Versions, id: &ViewId, subject: &Subject) -> Result<Option<Report>, StoreError> {
    let Some(open) = versions.open_version(id) else { return Ok(None) };
    let (carried, against) = (&subject.code, subject.against);
    let it = Examination { versions, id, subject, carried };
    // The states of the views are released as soon as possible, since the stores must keep them until then.
    let (rows, samples, fold);
    let mut view = match it.meet().await? {
        Ok((old, mut met)) => {
            rows = it.rows(old, &mut met).await?;
            samples = Ok(it.samples(old, &mut met).await?);
            fold = it.fold(&mut met.new, Some(Serving { code: old, view: &mut met.old })).await?;
            met.new
        }
        Err(NotMet::Never(why)) => {
            rows = PartReport::not_done(Part::Rows, &why);
            samples = Err(why);
            let mut view = ReadView::new(open.view.reader().await?);
            fold = it.fold(&mut view, None).await?;
            view
        }
        Err(NotMet::Later(why)) => {
            tracing::info!(view = %id, why, "the verification begins again");
            return Ok(None);
        }
    };
    let (at, tokens) = (view.covers(), view.reader().tokens().to_vec());
    // The letters are read from the same state as the rows. A letter that is added or removed meanwhile belongs to
    // another state.
    let aside = it.letters(&mut view).await?;
    let checks = it.checks(&mut view).await?;
    drop(view);
    let counts = it.counts(&tokens, aside).await?;
    let answers = it.answers(samples).await;
    let is_seeded = fold.is_some();
    let mut parts: Vec<PartReport> = [counts, checks, rows, answers].into_iter().chain(fold).collect();
    for part in &mut parts {
        if it.leaves_out(part.part) {
            *part = PartReport::not_done(part.part, "the version's options leave it out");
        }
    }
    let required = required(&carried.options.verify.required, against.is_some(), is_seeded);
    Ok(Some(Report { at, against, required, parts }))
}

impl Examination<'_> {
    fn leaves_out(&self, part: Part) -> bool {
        self.carried.options.verify.without.contains(&part)
    }

    /// Reports the progress of a part to its watchers.
    fn tell(&self, part: Part, looked_at: u64) {
        self.versions.notes.set_looking(self.id, Some(Looking { part: Some(part), looked_at, error: None }));
    }

    /// Brings the version and the serving one to one position, and returns the code of the serving one; or returns the
    /// reason why they are not compared.
    async fn meet(&self) -> Result<Result<(&VersionCode, Met), NotMet>, StoreError> {
        let never = |why: String| Ok(Err(NotMet::Never(why)));
        let Some(against) = self.subject.against else {
            return never("no version serves, so there is nothing to compare with".to_owned());
        };
        if self.leaves_out(Part::Rows) && self.carried.samples.is_empty() {
            return never("rows are left out, and there is no query to put to both versions".to_owned());
        }
        self.tell(Part::Rows, 0);
        let Some(code) = &self.subject.old_code else {
            return never(format!("this node does not carry the code of the serving version {against}"));
        };
        let old = ViewId { version: against, ..self.id.clone() };
        if let Some(damaged) = self.versions.damage(&old) {
            return never(cut(format!("the serving version {against} waits on {damaged}")));
        }
        let met = meet::meet(self.versions, &old, self.id, self.carried.options.verify.meet_time_max).await?;
        Ok(met.map(|met| (code, met)))
    }

    /// Returns the events that are set aside in one state of the version.
    async fn letters(&self, view: &mut ReadView) -> Result<Tally, StoreError> {
        let mut tally = Tally::default();
        if !self.leaves_out(Part::Counts) {
            counts::letters(view.reader(), self.carried.options.verify.letters_allowed, &mut tally).await?;
        }
        Ok(tally)
    }

    /// Counts the events that the segments have passed, in addition to the events that are set aside.
    async fn counts(&self, tokens: &[Token], aside: Tally) -> Result<PartReport, StoreError> {
        let mut tally = aside;
        if !self.leaves_out(Part::Counts) {
            self.tell(Part::Counts, 0);
            let tell = |looked_at| self.tell(Part::Counts, looked_at);
            counts::count(
                self.versions.world.offload,
                &self.versions.journal,
                &self.carried.filter,
                tokens,
                &mut tally,
                tell,
            )
            .await?;
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

    async fn rows(&self, old: &VersionCode, met: &mut Met) -> Result<PartReport, StoreError> {
        if self.leaves_out(Part::Rows) {
            return Ok(PartReport::not_done(Part::Rows, "it is left out"));
        }
        let comparison = match comparison(self.carried, old.code.code, Part::Rows) {
            Ok(comparison) => comparison,
            Err(report) => return Ok(report),
        };
        let Pairs { pairs, notes, unlike } = pairs(old.tables, self.carried.tables, &comparison);
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
        // A part that both have and that cannot be compared has not passed.
        if report.outcome == Outcome::Passed && !unlike.is_empty() {
            report.outcome = Outcome::NotDone { why: cut(unlike.join("; ")) };
        }
        Ok(report)
    }

    /// Returns the answers of both versions to the declared queries.
    async fn samples(&self, old: &VersionCode, met: &mut Met) -> Result<Tally, StoreError> {
        let mut tally = Tally::default();
        if !self.leaves_out(Part::Answers) {
            self.tell(Part::Answers, 0);
            answers::samples(old, self.carried, met, &mut tally).await?;
        }
        Ok(tally)
    }

    /// Returns the results of the declared queries, and of the live ones so far. If answers are required, it waits
    /// until there are enough.
    async fn answers(&self, samples: Result<Tally, String>) -> PartReport {
        let verify = &self.carried.options.verify;
        if self.carried.shadows.is_empty() {
            return PartReport::not_done(Part::Answers, "the version declares no query whose answers are compared");
        }
        let required = verify.required.contains(&Part::Answers) && !self.leaves_out(Part::Answers);
        loop {
            let mut tally = samples.clone().unwrap_or_default();
            let live = self.versions.shadowing(&self.id.projection);
            // Findings from before the request, or about other code, do not count.
            if let Some(shadowing) = live.filter(|live| live.is_of(self.id) && live.subject.is(self.subject)) {
                tally.add(shadowing.tally());
            }
            let enough = tally.looked_at >= verify.answers_min;
            let serves = self.versions.catalog.current().serving(&self.id.projection).is_some();
            if required && are_wanted(self.carried) && serves && !enough {
                self.tell(Part::Answers, tally.looked_at);
                tokio::time::sleep(limits::VERIFY_LOOK).await;
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

/// Returns the comparison that the code declares with another version; or a report that the code panics.
fn comparison(carried: &VersionCode, old: u32, part: Part) -> Result<Comparison, PartReport> {
    let declared = AssertUnwindSafe(|| carried.handlers.comparison(old));
    std::panic::catch_unwind(declared).map_err(|panic| {
        let (mut tally, place) = (Tally::default(), "the comparison of the code".to_owned());
        let new = Some(format!("it panicked: {}", panic_text(&*panic)));
        tally.wrong(FindingKind::Check, || Words { place, new, ..Words::default() });
        tally.report(part)
    })
}

//! The changes that a node should request from the catalog next, and the progress of a version.
//!
//! [`plan`] is called whenever something changed. It requests nothing that is so already. Forgetting an answer does
//! no harm, since the next call returns it again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::catalog::{Catalog, CatalogCommand, CleanUpReason, FlipPolicy, PendingReplay, VersionState};
use crate::copy;
use crate::limits;
use crate::name::ProjectionName;
use crate::phase::{Phase, Stage};
use crate::position::Position;
use crate::reads::Reads;
use crate::replay;
use crate::segment::SegmentCount;
use crate::token::Token;
use crate::version::{VersionId, ViewId};
use crate::waiting::WaitingOn;

/// The code of one version of a projection, as a node carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Code {
    /// The projection.
    pub projection: ProjectionName,
    /// The code version.
    pub code: u32,
    /// The number of segments of a new build.
    pub segments: SegmentCount,
    /// The moment of the flip of a new build.
    pub flip: FlipPolicy,
    /// The time for which a version stands by after a flip before it is cleaned up.
    pub stand_by: Duration,
    /// The code's declaration about itself.
    pub fingerprint: String,
    /// The events that it reads.
    pub reads: Reads,
    /// True if new code by itself begins as a copy of the version that serves.
    pub seeded: bool,
}

impl Code {
    /// Returns the command that schedules a new build of this code.
    pub fn schedule(&self) -> CatalogCommand {
        self.command(false)
    }

    /// Returns the command that schedules the first build of this code, if there is none yet.
    fn schedule_if_new(&self) -> CatalogCommand {
        self.command(true)
    }

    fn command(&self, if_new: bool) -> CatalogCommand {
        CatalogCommand::Schedule {
            projection: self.projection.clone(),
            code: self.code,
            segments: self.segments,
            flip: self.flip,
            fingerprint: self.fingerprint.clone(),
            reads: self.reads.clone(),
            seeded: self.seeded,
            if_new,
        }
    }
}

/// The facts that a node sees when it plans.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The code it carries.
    pub carried: &'a [Code],
    /// The tokens of every version that has a view, as stored.
    pub tokens: &'a BTreeMap<ViewId, Vec<Token>>,
    /// The views that lack indexes.
    pub bare: &'a BTreeSet<ViewId>,
    /// The versions that still process, or may still process, events whose effects no other version may emit.
    pub speaking: &'a BTreeSet<ViewId>,
    /// The versions whose name no view of another history has. No other one may begin.
    pub may_begin: &'a BTreeSet<ViewId>,
    /// The last position of the journal.
    pub head: Position,
    /// The time for which each version has stood by.
    pub stood: &'a BTreeMap<ViewId, Duration>,
}

/// Returns the commands that should be given to the catalog now.
pub fn plan(catalog: &Catalog, facts: &Facts<'_>) -> Vec<CatalogCommand> {
    let new_code = facts.carried.iter().filter(|code| catalog.is_new(&code.projection, code.code));
    let new_code = new_code.map(Code::schedule_if_new);
    let moves = catalog.versions().filter_map(|(view, state)| next_move(catalog, facts, view, state));
    new_code.chain(moves).collect()
}

fn next_move(catalog: &Catalog, facts: &Facts<'_>, view: ViewId, state: &VersionState) -> Option<CatalogCommand> {
    let code = facts.carried.iter().find(|code| code.projection == view.projection && code.code == view.version.code);
    let projection = &catalog.projections[&view.projection];
    // The first node that sees it requests it, and the catalog accepts it once.
    if let Some(PendingReplay { requested, cancelled, .. }) = state.replay
        && state.phase.applies()
        && facts.tokens.get(&view).is_some_and(|tokens| match cancelled {
            true => replay::is_left(tokens, requested),
            false => replay::is_over(tokens, requested),
        })
    {
        return Some(CatalogCommand::EndReplay { view, request: requested });
    }
    match state.phase {
        Phase::Scheduled => (code.is_some() && facts.may_begin.contains(&view)).then_some(CatalogCommand::Begin(view)),
        Phase::Initializing => {
            let by_itself = projection.flips_by_itself(state);
            let tokens = facts.tokens.get(&view)?;
            if let Err(reason) = copy::source(&view, projection, state, tokens) {
                return Some(CatalogCommand::Fail { view, reason });
            }
            let ready = stage(state, tokens, facts.bare.contains(&view), facts.head) == Some(Stage::Ready);
            (projection.flip.is_none() && by_itself && ready && !state.paused)
                .then_some(CatalogCommand::RequestFlip(view))
        }
        Phase::StandingBy => {
            let wanted = projection.flip.is_some_and(|flip| flip.to == view.version);
            // The code of the version may be gone. Then the code of any other version of the projection decides.
            let code = code.or_else(|| facts.carried.iter().find(|code| code.projection == view.projection))?;
            let over = facts.stood.get(&view).is_some_and(|stood| *stood >= code.stand_by);
            let over = over && !facts.speaking.contains(&view);
            (over && !wanted).then_some(CatalogCommand::CleanUp { view, reason: CleanUpReason::StandByOver })
        }
        Phase::Serving | Phase::CleaningUp | Phase::Obsolete | Phase::Failed => None,
    }
}

/// Checks whether a rollback to a version that stands by would be carried out at once (I-8).
///
/// # Errors
/// The reason why not: the first of `waiting_on`, or the segment with the largest lag to what the serving version
/// shows.
pub fn rollback_ready(
    version: VersionId,
    tokens: &[Token],
    head: Position,
    waiting_on: &[WaitingOn],
) -> Result<(), WaitingOn> {
    if let Some(reason) = waiting_on.first() {
        return Err(reason.clone());
    }
    match tokens.iter().min_by_key(|token| token.position) {
        Some(lowest) if head.since(lowest.position) > limits::HOLD_LAG_MAX => {
            let lag = head.since(lowest.position);
            Err(WaitingOn::Segment { version, segment: lowest.segment, lag })
        }
        Some(_) => Ok(()),
        None => Err(WaitingOn::Store { error: format!("the view of {version} is not open yet") }),
    }
}

/// Returns true if a verification of a version with these tokens shall run now. `bare`: its view lacks indexes.
pub fn wants_verification(state: &VersionState, tokens: &[Token], bare: bool, head: Position) -> bool {
    state.is_unverified() && stage(state, tokens, bare, head) == Some(Stage::Verifying)
}

/// Checks whether the verification of a version lets it be flipped to (I-6). A version that has served before has
/// passed then.
///
/// # Errors
/// The reason that it waits on.
pub fn verified(version: VersionId, state: &VersionState) -> Result<(), WaitingOn> {
    match &state.verified {
        _ if state.may_serve() => Ok(()),
        Some(verified) if state.verify_again.is_none() => {
            Err(WaitingOn::Verdict { version, found: verified.report.summary() })
        }
        _ => Err(WaitingOn::Verification { version, part: None, looked_at: 0 }),
    }
}

/// Returns the stage of an initializing version with these tokens; `None` in every other phase. `bare`: its view
/// lacks indexes. A version that has a good verdict keeps it, even if its lag grows again.
pub fn stage(state: &VersionState, tokens: &[Token], bare: bool, head: Position) -> Option<Stage> {
    let began_at = state.began_at.filter(|_| state.phase == Phase::Initializing)?;
    let covered = tokens.iter().map(|token| token.position).min()?;
    Some(if covered < began_at {
        Stage::Replaying
    } else if bare {
        Stage::Indexing
    } else if head.since(covered) > limits::READY_LAG_MAX {
        Stage::CatchingUp
    } else if state.may_serve() {
        Stage::Ready
    } else {
        Stage::Verifying
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::testing::tokens;
    use crate::time::Timestamp;
    use crate::verify::{Report, Verdict};

    fn code(version: u32, flip: FlipPolicy) -> Code {
        Code {
            projection: ProjectionName::new("balances").unwrap(),
            code: version,
            segments: SegmentCount::ONE,
            flip,
            stand_by: Duration::from_secs(60),
            fingerprint: String::new(),
            reads: Reads::default(),
            seeded: false,
        }
    }

    /// A node that does whatever the plan says until it says nothing more. Flips are confirmed at once.
    struct Planner {
        catalog: Catalog,
        carried: Vec<Code>,
        at: Position,
    }

    impl Planner {
        fn new(carried: impl Into<Vec<Code>>) -> Self {
            Self { catalog: Catalog::default(), carried: carried.into(), at: Position::new(100) }
        }

        fn tokens(&self, lag: u64) -> BTreeMap<ViewId, Vec<Token>> {
            let token = tokens(&[self.at.get() - lag])[0];
            self.catalog.versions().map(|(view, _)| (view, vec![token])).collect()
        }

        fn plan(&self, lag: u64, stood: Duration) -> Vec<CatalogCommand> {
            self.plan_while(&[], lag, stood)
        }

        fn plan_while(&self, speaking: &[ViewId], lag: u64, stood: Duration) -> Vec<CatalogCommand> {
            let (tokens, speaking) = (self.tokens(lag), speaking.iter().cloned().collect());
            let may_begin = self.catalog.versions().map(|(view, _)| view).collect();
            self.plan_with(&tokens, &speaking, &may_begin, stood)
        }

        fn plan_with(
            &self,
            tokens: &BTreeMap<ViewId, Vec<Token>>,
            speaking: &BTreeSet<ViewId>,
            may_begin: &BTreeSet<ViewId>,
            stood: Duration,
        ) -> Vec<CatalogCommand> {
            let (carried, bare, head) = (&self.carried, &BTreeSet::new(), self.at);
            let stood = &self.catalog.versions().map(|(view, _)| (view, stood)).collect();
            plan(&self.catalog, &Facts { carried, tokens, bare, speaking, may_begin, head, stood })
        }

        fn carry_out(&mut self, commands: &[CatalogCommand]) {
            for command in commands {
                for event in self.catalog.decide(command).unwrap() {
                    self.at = self.at.next();
                    self.catalog.evolve(&event, self.at, Timestamp::from_micros(0)).unwrap();
                }
            }
        }

        fn settle(&mut self) {
            loop {
                let commands = self.plan(0, Duration::ZERO);
                let tokens = self.tokens(0);
                let unverified = self.catalog.versions().find(|(view, state)| {
                    commands.is_empty() && wants_verification(state, &tokens[view], false, self.at)
                });
                let verify = unverified.map(|(view, state)| verdict(view, state, Verdict::Pass));
                let pending = self.catalog.projections.iter().find_map(|(name, state)| Some((name, state.flip?)));
                let confirm = pending.map(|(name, flip)| CatalogCommand::ConfirmFlip {
                    view: ViewId { projection: name.clone(), version: flip.to },
                    hold: flip.hold,
                    covers: flip.requested,
                });
                let all: Vec<_> = commands.into_iter().chain(verify).chain(confirm).collect();
                if all.is_empty() {
                    return;
                }
                self.carry_out(&all);
            }
        }

        fn phases(&self) -> Vec<(String, Phase)> {
            self.catalog.versions().map(|(view, state)| (view.version.to_string(), state.phase)).collect()
        }
    }

    fn verdict(view: ViewId, state: &VersionState, verdict: Verdict) -> CatalogCommand {
        let report = Report { at: Position::START, against: None, required: vec![], parts: vec![] };
        CatalogCommand::Verify { view, answers: state.verify_again, verdict, report: Arc::new(report) }
    }

    #[test]
    fn new_code_is_scheduled_built_and_flipped_to_by_itself() {
        let mut node = Planner::new([code(1, FlipPolicy::WhenReady)]);
        node.settle();
        assert_eq!(node.phases(), [("v1.1".into(), Phase::Serving)]);
        node.carried.push(code(2, FlipPolicy::WhenReady));
        node.settle();
        assert_eq!(node.phases(), [("v1.1".into(), Phase::StandingBy), ("v2.1".into(), Phase::Serving)]);
    }

    #[test]
    fn the_first_version_flips_by_itself_and_the_next_on_command() {
        let mut node = Planner::new([code(1, FlipPolicy::OnCommand)]);
        node.settle();
        node.carried.push(code(2, FlipPolicy::OnCommand));
        node.settle();
        assert_eq!(node.phases(), [("v1.1".into(), Phase::Serving), ("v2.1".into(), Phase::Initializing)]);
    }

    #[test]
    fn stand_by_ends_after_its_time() {
        let mut node = Planner::new([code(1, FlipPolicy::WhenReady)]);
        node.settle();
        node.carried.push(code(2, FlipPolicy::WhenReady));
        node.settle();
        assert_eq!(node.plan(0, Duration::from_micros(59_999_999)), []);
        let (first, _) = node.catalog.versions().next().unwrap();
        assert_eq!(node.plan_while(&[first], 0, Duration::from_micros(60_000_000)), []);
        let commands = node.plan(0, Duration::from_micros(60_000_000));
        assert!(matches!(commands[..], [CatalogCommand::CleanUp { reason: CleanUpReason::StandByOver, .. }]));
    }

    #[test]
    fn a_version_begins_only_once_no_view_of_another_history_has_its_name() {
        let mut node = Planner::new([code(1, FlipPolicy::WhenReady)]);
        node.carry_out(&node.plan(0, Duration::ZERO));
        let begins = |may_begin| node.plan_with(&node.tokens(0), &BTreeSet::new(), &may_begin, Duration::ZERO);
        let (view, _) = node.catalog.versions().next().unwrap();
        assert_eq!(begins(BTreeSet::new()), []);
        assert_eq!(begins([view.clone()].into()), [CatalogCommand::Begin(view)]);
    }

    #[test]
    fn old_code_that_is_still_carried_is_not_built_again() {
        let mut node = Planner::new([code(2, FlipPolicy::WhenReady)]);
        node.settle();
        node.carried.insert(0, code(1, FlipPolicy::WhenReady));
        assert_eq!(node.plan(0, Duration::ZERO), []);
    }

    #[test]
    fn code_that_is_carried_in_two_versions_is_built_in_order() {
        let mut node = Planner::new([code(1, FlipPolicy::WhenReady), code(2, FlipPolicy::WhenReady)]);
        node.settle();
        assert_eq!(node.catalog.serving(&node.carried[0].projection).unwrap().code, 2);
    }

    #[test]
    fn a_version_whose_copy_can_never_come_about_fails() {
        let mut node = Planner::new([code(1, FlipPolicy::WhenReady)]);
        node.settle();
        let mut second = code(2, FlipPolicy::WhenReady);
        node.carried.push(second.clone());
        node.settle();
        // From v2.1, which serves.
        (second.code, second.seeded, second.flip) = (3, true, FlipPolicy::OnCommand);
        node.carried.push(second);
        let commands = node.plan(0, Duration::ZERO);
        node.carry_out(&commands);
        let id = |text: &str| ViewId { projection: node.carried[0].projection.clone(), version: text.parse().unwrap() };
        let (source, copy, other) = (id("v2.1"), id("v3.1"), id("v1.1"));
        node.carry_out(&[CatalogCommand::Begin(copy.clone())]);
        let fails = |node: &Planner, lag: u64| {
            let commands = node.plan(lag, Duration::ZERO);
            commands.iter().any(|command| matches!(command, CatalogCommand::Fail { view, .. } if *view == copy))
        };
        let nothing_done = |node: &Planner| node.at.get();
        assert!(!fails(&node, nothing_done(&node)), "it serves");
        node.carry_out(&[CatalogCommand::RequestFlip(other.clone())]);
        let flip = node.catalog.projections[&other.projection].flip.unwrap();
        node.carry_out(&[CatalogCommand::ConfirmFlip { view: other, hold: flip.hold, covers: flip.requested }]);
        assert!(!fails(&node, nothing_done(&node)), "it stands by");
        node.carry_out(&[CatalogCommand::CleanUp { view: source, reason: CleanUpReason::Asked }]);
        assert!(fails(&node, nothing_done(&node)));
        assert!(!fails(&node, 1), "it has begun");
    }

    #[test]
    fn stages_follow_the_tokens() {
        let mut node = Planner::new([code(1, FlipPolicy::WhenReady)]);
        for _ in 0..2 {
            let commands = node.plan(0, Duration::ZERO);
            node.carry_out(&commands);
        }
        let (view, state) = node.catalog.versions().next().unwrap();
        let began_at = state.began_at.unwrap();
        let head = began_at.plus(2 * limits::READY_LAG_MAX);
        let stage_of = |position: Position, bare: bool| {
            let token = Token { position, ..node.tokens(0)[&view][0] };
            stage(state, &[token], bare, head)
        };
        let stage_at = |position: Position| stage_of(position, false);
        assert_eq!(stage_of(Position::new(began_at.get() - 1), true), Some(Stage::Replaying));
        assert_eq!(stage_of(began_at, true), Some(Stage::Indexing));
        assert_eq!(stage_of(began_at.plus(limits::READY_LAG_MAX), true), Some(Stage::Indexing));
        assert_eq!(stage_at(Position::new(began_at.get() - 1)), Some(Stage::Replaying));
        assert_eq!(stage_at(began_at), Some(Stage::CatchingUp));
        assert_eq!(stage_at(began_at.plus(limits::READY_LAG_MAX)), Some(Stage::Verifying));
        let stage_after = |state: &VersionState, lag: u64| {
            let token = Token { position: Position::new(head.get() - lag), ..node.tokens(0)[&view][0] };
            stage(state, &[token], false, head)
        };
        let verified = |pass| {
            let mut catalog = node.catalog.clone();
            for event in catalog.decide(&verdict(view.clone(), state, pass)).unwrap() {
                catalog.evolve(&event, head, Timestamp::from_micros(0)).unwrap();
            }
            catalog.version(&view).unwrap().clone()
        };
        let (passed, failed) = (verified(Verdict::Pass), verified(Verdict::Fail));
        assert_eq!(stage_after(&passed, 0), Some(Stage::Ready));
        assert_eq!(stage_after(&passed, limits::READY_LAG_MAX + 1), Some(Stage::CatchingUp));
        assert_eq!(stage_after(&failed, 0), Some(Stage::Verifying), "until somebody does something about it");
        assert!(
            !wants_verification(&failed, &node.tokens(0)[&view], false, head),
            "it is not found wrong again and again"
        );
        assert!(matches!(super::verified(view.version, &failed), Err(WaitingOn::Verdict { .. })));
        assert!(matches!(super::verified(view.version, state), Err(WaitingOn::Verification { .. })));
        assert_eq!(super::verified(view.version, &passed), Ok(()));
    }

    #[test]
    fn what_was_found_wrong_is_not_flipped_to() {
        let mut node = Planner::new([code(1, FlipPolicy::WhenReady)]);
        for _ in 0..2 {
            let commands = node.plan(0, Duration::ZERO);
            node.carry_out(&commands);
        }
        let (view, state) = node.catalog.versions().next().unwrap();
        let (failed, waived) = (
            verdict(view.clone(), state, Verdict::Fail),
            CatalogCommand::Waive { view, by: "ana".into(), why: "known".into() },
        );
        node.carry_out(&[failed]);
        assert_eq!(node.plan(0, Duration::ZERO), []);
        node.carry_out(&[waived]);
        assert!(matches!(node.plan(0, Duration::ZERO)[..], [CatalogCommand::RequestFlip(_)]));
    }
}

//! What a node should ask of the catalog next, and how far a version is.
//!
//! [`plan`] is called whenever something changed; it wants nothing that is already so, and forgetting
//! an answer does no harm, since the next call gives it again.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::catalog::{Catalog, CatalogCommand, CleanUpReason, FlipPolicy, ProjectionState, VersionState};
use crate::limits;
use crate::name::ProjectionName;
use crate::phase::{Phase, Stage};
use crate::position::Position;
use crate::replay;
use crate::segment::SegmentCount;
use crate::time::Timestamp;
use crate::token::Token;
use crate::version::{VersionId, ViewId};
use crate::waiting::WaitingOn;

/// The code of one version of a projection, as a node carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Code {
    /// Of which projection.
    pub projection: ProjectionName,
    /// The code version.
    pub code: u32,
    /// Into how many segments a new build is cut.
    pub segments: SegmentCount,
    /// When a new build flips.
    pub flip: FlipPolicy,
    /// How long a version stands by after a flip before it is cleaned up.
    pub stand_by: Duration,
    /// What the code declares about itself.
    pub fingerprint: String,
}

impl Code {
    /// The command that schedules a new build of this code.
    pub fn schedule(&self) -> CatalogCommand {
        CatalogCommand::Schedule {
            projection: self.projection.clone(),
            code: self.code,
            segments: self.segments,
            flip: self.flip,
            fingerprint: self.fingerprint.clone(),
            seeded: false,
        }
    }
}

/// What a node sees when it plans.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The code it carries.
    pub carried: &'a [Code],
    /// The tokens of every version that has a view, as stored.
    pub tokens: &'a BTreeMap<ViewId, Vec<Token>>,
    /// The last position of the journal.
    pub head: Position,
    /// The time.
    pub now: Timestamp,
}

/// What should be asked of the catalog now.
pub fn plan(catalog: &Catalog, facts: &Facts<'_>) -> Vec<CatalogCommand> {
    let new_code = facts.carried.iter().filter(|code| is_new(catalog, code)).map(Code::schedule);
    let moves = catalog.versions().filter_map(|(view, state)| next_move(catalog, facts, view, state));
    new_code.chain(moves).collect()
}

/// Whether this code version is the highest carried or known and was never built. Code below it is
/// carried for the sake of versions that exist, not to be built anew.
fn is_new(catalog: &Catalog, code: &Code) -> bool {
    let versions = catalog.projections.get(&code.projection).map(|state| &state.versions);
    versions.is_none_or(|versions| versions.keys().all(|known| known.code < code.code))
}

fn next_move(catalog: &Catalog, facts: &Facts<'_>, view: ViewId, state: &VersionState) -> Option<CatalogCommand> {
    let code = facts.carried.iter().find(|code| code.projection == view.projection && code.code == view.version.code);
    let projection = &catalog.projections[&view.projection];
    // Whoever sees it first says so, and the catalog takes it once.
    if let Some(requested) = state.replay.map(|replay| replay.requested)
        && state.phase.applies()
        && facts.tokens.get(&view).is_some_and(|tokens| replay::is_over(tokens, requested))
    {
        return Some(CatalogCommand::EndReplay { view, request: requested });
    }
    match state.phase {
        Phase::Scheduled => code.map(|_| CatalogCommand::Begin(view)),
        Phase::Initializing => {
            let by_itself = flips_by_itself(projection, state);
            let tokens = facts.tokens.get(&view)?;
            let ready = stage(state, tokens, facts.head) == Some(Stage::Ready);
            (projection.flip.is_none() && by_itself && ready).then_some(CatalogCommand::RequestFlip(view))
        }
        Phase::StandingBy => {
            let wanted = projection.flip.is_some_and(|flip| flip.to == view.version);
            // The code of the version may be gone; then that of any other version of the projection tells.
            let code = code.or_else(|| facts.carried.iter().find(|code| code.projection == view.projection))?;
            let over = facts.now.since(state.since) >= code.stand_by;
            (over && !wanted).then_some(CatalogCommand::CleanUp { view, reason: CleanUpReason::StandByOver })
        }
        Phase::Serving | Phase::CleaningUp | Phase::Obsolete | Phase::Failed => None,
    }
}

/// Whether a version of this projection flips once it is ready, without a command.
pub fn flips_by_itself(projection: &ProjectionState, version: &VersionState) -> bool {
    version.flip == FlipPolicy::WhenReady || projection.serving.is_none()
}

/// Whether a rollback to a version that stands by would be carried out at once, or what it waits on (I-8).
///
/// # Errors
/// The first of `waiting_on`, or the segment that is furthest behind what the serving version shows.
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
            let behind = head.since(lowest.position);
            Err(WaitingOn::Segment { version, segment: lowest.segment, behind })
        }
        Some(_) => Ok(()),
        None => Err(WaitingOn::Store { error: format!("the view of {version} is not open yet") }),
    }
}

/// How far an initializing version with these tokens is; `None` in every other phase.
pub fn stage(state: &VersionState, tokens: &[Token], head: Position) -> Option<Stage> {
    let began_at = state.began_at.filter(|_| state.phase == Phase::Initializing)?;
    let covered = tokens.iter().map(|token| token.position).min()?;
    Some(if covered < began_at {
        Stage::Replaying
    } else if head.since(covered) > limits::READY_LAG_MAX {
        Stage::CatchingUp
    } else {
        Stage::Ready
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::{Applied, Epoch};

    fn code(version: u32, flip: FlipPolicy) -> Code {
        Code {
            projection: ProjectionName::new("balances").unwrap(),
            code: version,
            segments: SegmentCount::ONE,
            flip,
            stand_by: Duration::from_secs(60),
            fingerprint: String::new(),
        }
    }

    /// A node that does whatever the plan says until it says no more; flips are confirmed at once.
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
            let token = Token {
                segment: SegmentCount::ONE.segment(0).unwrap(),
                epoch: Epoch::new(1),
                position: Position::new(self.at.get() - lag),
                held_for: None,
                applied: Applied::default(),
                replay: None,
            };
            self.catalog.versions().map(|(view, _)| (view, vec![token])).collect()
        }

        fn plan(&self, lag: u64, now: Timestamp) -> Vec<CatalogCommand> {
            let tokens = self.tokens(lag);
            plan(&self.catalog, &Facts { carried: &self.carried, tokens: &tokens, head: self.at, now })
        }

        fn carry_out(&mut self, commands: &[CatalogCommand]) {
            for command in commands {
                for event in self.catalog.decide(command).unwrap() {
                    self.at = self.at.next();
                    self.catalog.evolve(&event, self.at, Timestamp::from_micros(0));
                }
            }
        }

        fn settle(&mut self) {
            loop {
                let commands = self.plan(0, Timestamp::from_micros(0));
                let pending = self.catalog.projections.iter().find_map(|(name, state)| Some((name, state.flip?)));
                let confirm = pending.map(|(name, flip)| CatalogCommand::ConfirmFlip {
                    view: ViewId { projection: name.clone(), version: flip.to },
                    hold: flip.hold,
                    covers: flip.requested,
                });
                let all: Vec<_> = commands.into_iter().chain(confirm).collect();
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
        assert_eq!(node.plan(0, Timestamp::from_micros(59_999_999)), []);
        let commands = node.plan(0, Timestamp::from_micros(60_000_000));
        assert!(matches!(commands[..], [CatalogCommand::CleanUp { reason: CleanUpReason::StandByOver, .. }]));
    }

    #[test]
    fn old_code_that_is_still_carried_is_not_built_again() {
        let mut node = Planner::new([code(2, FlipPolicy::WhenReady)]);
        node.settle();
        node.carried.insert(0, code(1, FlipPolicy::WhenReady));
        assert_eq!(node.plan(0, Timestamp::from_micros(0)), []);
    }

    #[test]
    fn code_that_is_carried_in_two_versions_is_built_in_order() {
        let mut node = Planner::new([code(1, FlipPolicy::WhenReady), code(2, FlipPolicy::WhenReady)]);
        node.settle();
        assert_eq!(node.catalog.serving(&node.carried[0].projection).unwrap().code, 2);
    }

    #[test]
    fn stages_follow_the_tokens() {
        let mut node = Planner::new([code(1, FlipPolicy::WhenReady)]);
        for _ in 0..2 {
            let commands = node.plan(0, Timestamp::from_micros(0));
            node.carry_out(&commands);
        }
        let (view, state) = node.catalog.versions().next().unwrap();
        let began_at = state.began_at.unwrap();
        let head = began_at.plus(2 * limits::READY_LAG_MAX);
        let stage_at = |position: Position| {
            let token = Token { position, ..node.tokens(0)[&view][0] };
            stage(state, &[token], head)
        };
        assert_eq!(stage_at(Position::new(began_at.get() - 1)), Some(Stage::Replaying));
        assert_eq!(stage_at(began_at), Some(Stage::CatchingUp));
        assert_eq!(stage_at(began_at.plus(limits::READY_LAG_MAX)), Some(Stage::Ready));
    }
}

//! The reasons that a version waits on, gathered in one place and in the order in which they are shown (I-11).
//!
//! Status, readiness, a query that times out, a verification and a flip all use these reasons and no others, so they
//! never contradict each other about the same version.

use std::time::Duration;

use crate::catalog::{ProjectionState, VersionState};
use crate::failure::Retry;
use crate::member::MemberId;
use crate::phase::{Phase, Stage};
use crate::position::Position;
use crate::reads::CodeMismatch;
use crate::rebuild::{stage, verified};
use crate::replay;
use crate::token::{Token, covered};
use crate::verify::Part;
use crate::version::VersionId;
use crate::waiting::WaitingOn;

/// The progress of a verification under way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Looking {
    /// The part that is under way.
    pub part: Option<Part>,
    /// The number of things that this part has looked at.
    pub looked_at: u64,
    /// The reason why it cannot continue for the moment.
    pub error: Option<String>,
}

/// The facts that a node knows about one version, from all sources.
#[derive(Clone, Debug)]
pub struct VersionFacts<'a> {
    /// The version.
    pub version: VersionId,
    /// Its state in the catalog.
    pub state: &'a VersionState,
    /// The state of its projection in the catalog.
    pub projection: &'a ProjectionState,
    /// The end of the journal.
    pub head: Position,
    /// The position below which the version answers nobody: the end of the journal when this node started or closed its
    /// view, or the evidence of the last flip.
    pub floor: Position,
    /// Its tokens; empty if they are not known.
    pub tokens: &'a [Token],
    /// The member that this node is.
    pub me: Option<MemberId>,
    /// True if its code is here.
    pub carried: bool,
    /// True if another live member carries its code.
    pub carried_elsewhere: bool,
    /// True if that code acts on effects.
    pub acts: bool,
    /// True if its view is open here.
    pub open: bool,
    /// True if its view lacks indexes.
    pub bare: bool,
    /// The reasons that its processor reports.
    pub told: Vec<WaitingOn>,
    /// The reason that keeps the conductor from the version.
    pub trouble: Option<WaitingOn>,
    /// The reason that keeps the conductor from everything.
    pub stuck: Option<WaitingOn>,
    /// The reason that segments are unclaimed.
    pub unowned: Option<WaitingOn>,
    /// The damage of its view: what is stored is not what was written.
    pub damaged: Option<String>,
    /// The reason why its view cannot be written or read at the moment.
    pub failing: Option<String>,
    /// The events before which segments of other members stop.
    pub halts: Vec<WaitingOn>,
    /// The reason why its tokens could not be read just now.
    pub unreadable: Option<WaitingOn>,
    /// The difference between the code here and the recorded code.
    pub unlike: Option<CodeMismatch>,
    /// The progress of its verification, if one is under way here.
    pub looking: Option<Looking>,
    /// Its effects that fail.
    pub effects: Vec<WaitingOn>,
    /// The number of effects that it still owes.
    pub pending: u64,
    /// The version whose effects come before its own.
    pub before: Option<VersionId>,
    /// The reason why SQL from outside does not see yet that it serves.
    pub unpublished: Option<WaitingOn>,
    /// The finding that its rows are not what its code makes of its events.
    pub rows: Option<WaitingOn>,
    /// The time for which it still stands by, if its code is here.
    pub stand_by: Option<Duration>,
    /// The position that a reader needs it to cover, if one waits.
    pub needed: Option<Position>,
}

/// The reasons that a version waits on, grouped by what they prevent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reasons {
    /// The reasons that keep events from being applied to it, or readers from its view.
    pub kept: Vec<WaitingOn>,
    /// The reasons that keep it from a good verdict.
    pub verdict: Vec<WaitingOn>,
    /// The reasons that keep nobody from its rows: the command to flip, effects, the time for which it stands by.
    pub beside: Vec<WaitingOn>,
    /// The segments that lag, if a reader needs more of them or nothing else is known.
    pub short: Vec<WaitingOn>,
}

impl Reasons {
    /// Returns all reasons, in the order in which they are shown.
    pub fn all(&self) -> Vec<WaitingOn> {
        [&self.kept, &self.verdict, &self.beside, &self.short].into_iter().flatten().cloned().collect()
    }

    /// Returns the reasons that keep a reader waiting.
    pub fn of_reader(&self) -> Vec<WaitingOn> {
        [&self.kept, &self.short, &self.verdict].into_iter().flatten().cloned().collect()
    }
}

impl VersionFacts<'_> {
    /// Returns its stage. While it is compared with the serving version it rests for a moment, which does not change
    /// its stage.
    pub fn stage(&self) -> Option<Stage> {
        let stage = stage(self.state, self.tokens, self.bare && self.state.phase == Phase::Initializing, self.head);
        if self.looking.is_some() { stage.map(|_| Stage::Verifying) } else { stage }
    }

    /// Returns its lag in positions, that of its lowest segment.
    pub fn lag(&self) -> u64 {
        if self.state.phase.applies() { self.head.since(covered(self.tokens)) } else { 0 }
    }

    /// Returns the reasons that it waits on.
    pub fn reasons(&self) -> Reasons {
        let (kept, verdict) = (self.kept(), self.unverified());
        let mut beside = self.beside();
        let explained = !(kept.is_empty() && verdict.is_empty() && beside.is_empty());
        let short = self.short(explained);
        // This explains no lag.
        beside.extend(self.rows.clone());
        Reasons { kept, verdict, beside, short }
    }

    /// Returns the reasons that keep readers of a serving version from their answers; empty if there are none.
    pub fn not_ready(&self) -> Vec<WaitingOn> {
        let stops = |reason: &WaitingOn| matches!(reason, WaitingOn::Store { .. } | WaitingOn::Parted { .. });
        let is_failing = |reason: &WaitingOn| reason.is_damage() || stops(reason);
        let fails = self.damaged.is_some() || self.failing.is_some() || self.told.iter().any(is_failing);
        let is_open = self.carried && self.open && !self.tokens.is_empty();
        // The replay in place explains why segments went back.
        let is_short = self.state.replay.is_none() && self.tokens.iter().any(|token| !token.covers(self.floor));
        if is_open && self.trouble.is_none() && !fails && !is_short {
            return vec![];
        }
        let kept = match is_short {
            true => Self { needed: Some(self.floor), ..self.clone() }.reasons().of_reader(),
            false => self.kept(),
        };
        match kept.is_empty() {
            true if !self.carried => vec![WaitingOn::Code { version: self.version }],
            true => vec![WaitingOn::Processor],
            false => kept,
        }
    }

    /// Checks that readers could be answered from the version, if it served. `open` is true only if its view is open
    /// with its code.
    ///
    /// # Errors
    /// The reason why not.
    pub fn answers(&self) -> Result<(), WaitingOn> {
        if self.state.paused && self.state.phase.applies() {
            return Err(WaitingOn::Paused);
        }
        if let Some(damage) = self.kept().into_iter().find(WaitingOn::is_damage) {
            return Err(damage);
        }
        let trouble = || self.trouble.clone().unwrap_or(WaitingOn::Code { version: self.version });
        if self.open { Ok(()) } else { Err(trouble()) }
    }

    fn is_carried_nowhere(&self) -> bool {
        !self.carried && !self.carried_elsewhere
    }

    fn kept(&self) -> Vec<WaitingOn> {
        let (version, applies) = (self.version, self.state.phase.applies());
        let mut kept: Vec<_> = (applies && self.state.paused).then_some(WaitingOn::Paused).into_iter().collect();
        kept.extend(self.told.iter().chain(&self.unowned).chain(&self.trouble).cloned());
        // Where the damage prevents something, another reason already reports it.
        let is_told = |reason: &WaitingOn| reason.is_damage() || matches!(reason, WaitingOn::Store { .. });
        match (self.damaged.clone(), self.failing.clone()) {
            (Some(error), _) if !kept.iter().any(WaitingOn::is_damage) => kept.push(WaitingOn::Damaged { error }),
            (None, Some(error)) if !kept.iter().any(is_told) => kept.push(WaitingOn::Store { error }),
            _ => {}
        }
        if kept.is_empty() {
            kept.extend(self.stuck.clone());
        }
        kept.extend(self.halts.iter().cloned());
        if self.trouble.is_none() && !kept.iter().any(is_told) {
            kept.extend(self.unreadable.clone());
        }
        if applies || self.state.phase == Phase::Scheduled {
            kept.extend(self.is_carried_nowhere().then_some(WaitingOn::Code { version }));
            kept.extend(self.unlike.clone().map(|unlike| WaitingOn::Reads { version, unlike }));
        }
        // The replay comes first, since nothing else explains a lag or a reader's wait while it runs.
        let replay = self.state.replay.and_then(|pending| replay::progress(self.tokens, &pending));
        let replay = replay.map(|(at, through)| WaitingOn::Replay { version, at, through });
        replay.into_iter().chain(kept).collect()
    }

    fn unverified(&self) -> Vec<WaitingOn> {
        if self.stage() != Some(Stage::Verifying) {
            return vec![];
        }
        let error = self.looking.as_ref().and_then(|looking| looking.error.clone());
        let verdict = Self::verdict(self.version, self.state, self.looking.as_ref());
        verdict.into_iter().chain(error.map(|error| WaitingOn::Store { error })).collect()
    }

    /// Returns the reason that a version waits on before its verification lets it serve; `None` if it may serve.
    pub fn verdict(version: VersionId, state: &VersionState, looking: Option<&Looking>) -> Option<WaitingOn> {
        let (part, looked_at) = looking.map(|looking| (looking.part, looking.looked_at)).unwrap_or_default();
        verified(version, state).err().map(|reason| match reason {
            WaitingOn::Verification { version, .. } => WaitingOn::Verification { version, part, looked_at },
            other => other,
        })
    }

    /// Returns the reason why a version that must be verified cannot be verified yet, and whether an operator must act on
    /// it; `None` if nothing prevents the verification or the version needs none. `retry`: how its code retries events
    /// that it refuses.
    pub fn before_verification(&self, retry: Option<&Retry>) -> Option<(WaitingOn, bool)> {
        if self.state.phase != Phase::Scheduled && !self.state.is_unverified() {
            return None;
        }
        if let Some(looking) = &self.looking {
            return looking.error.clone().map(|error| (WaitingOn::Store { error }, false));
        }
        let reasons = self.kept();
        let Some(retry) = retry else {
            // Only a member that carries the code knows whether it retries.
            let nowhere = || self.is_carried_nowhere().then_some((WaitingOn::Code { version: self.version }, true));
            return nowhere().or_else(|| reasons.first().map(|reason| (reason.clone(), false)));
        };
        let halting = reasons.iter().find(|reason| reason.needs_somebody(retry));
        halting.map(|reason| (reason.clone(), true)).or_else(|| reasons.first().map(|reason| (reason.clone(), false)))
    }

    fn beside(&self) -> Vec<WaitingOn> {
        let (version, phase) = (self.version, self.state.phase);
        let asks = self.stage() == Some(Stage::Ready)
            && self.projection.flip.is_none()
            && !self.projection.flips_by_itself(self.state);
        let mut beside: Vec<_> = asks.then_some(WaitingOn::FlipCommand).into_iter().collect();
        beside.extend(self.effects.iter().cloned());
        // Earlier code of the version emitted them and acted on them. No code makes them any more.
        let is_left = self.carried && !self.acts && self.pending > 0;
        beside.extend(is_left.then_some(WaitingOn::Acts { pending: self.pending }));
        beside.extend(self.before.map(|version| WaitingOn::EffectsBefore { version }));
        beside.extend(self.unpublished.clone());
        if phase == Phase::CleaningUp && self.pending > 0 && !is_left {
            beside.push(WaitingOn::Effects { pending: self.pending });
            beside.extend(self.is_carried_nowhere().then_some(WaitingOn::Code { version }));
        }
        let stands_by = self.stand_by.filter(|_| phase == Phase::StandingBy);
        beside.extend(stands_by.map(|remaining| WaitingOn::StandBy { remaining }));
        beside
    }

    fn short(&self, explained: bool) -> Vec<WaitingOn> {
        let of = |token: &Token, needed: Position| WaitingOn::Segment {
            version: self.version,
            segment: token.segment,
            lag: needed.since(token.position),
        };
        if let Some(needed) = self.needed {
            return self.tokens.iter().filter(|token| !token.covers(needed)).map(|token| of(token, needed)).collect();
        }
        // Only the other member knows why its segment rests. Its token shows which segment that is.
        let lowest = self.lowest_elsewhere().filter(|_| self.lag() > 0 && !explained);
        lowest.map(|token| of(token, self.head)).into_iter().collect()
    }

    /// Returns the token with the largest lag, if its segment is not this node's.
    fn lowest_elsewhere(&self) -> Option<&Token> {
        let theirs = |token: &&Token| self.me.is_none_or(|me| token.claimed_by != Some(me));
        self.tokens.iter().min_by_key(|token| token.position).filter(theirs)
    }

    /// Returns the other member that has the segment with the largest lag.
    pub fn claimant(&self) -> Option<MemberId> {
        self.lowest_elsewhere().and_then(|token| token.claimed_by)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{projection, scheduled, view};

    #[test]
    fn readers_are_answered_from_an_open_view_unless_it_is_paused_or_damaged() {
        let version = view(2).version;
        let projection = projection([scheduled(view(2), None)]);
        let state = VersionState { phase: Phase::StandingBy, ..projection.versions[&version].clone() };
        let paused = VersionState { paused: true, ..state.clone() };
        let open = VersionFacts {
            version,
            state: &state,
            projection: &projection,
            head: Position::START,
            floor: Position::START,
            tokens: &[],
            me: None,
            carried: true,
            carried_elsewhere: false,
            acts: false,
            open: true,
            bare: false,
            told: vec![],
            trouble: None,
            stuck: None,
            unowned: None,
            damaged: None,
            failing: None,
            halts: vec![],
            unreadable: None,
            unlike: None,
            looking: None,
            effects: vec![],
            pending: 0,
            before: None,
            unpublished: None,
            rows: None,
            stand_by: None,
            needed: None,
        };
        let closed = || VersionFacts { open: false, ..open.clone() };
        let store = WaitingOn::Store { error: "full".into() };
        assert_eq!(open.answers(), Ok(()));
        assert_eq!(VersionFacts { trouble: Some(store.clone()), ..open.clone() }.answers(), Ok(()), "it is open");
        assert_eq!(closed().answers(), Err(WaitingOn::Code { version }));
        assert_eq!(VersionFacts { trouble: Some(store.clone()), ..closed() }.answers(), Err(store));
        let damage = WaitingOn::Damaged { error: "torn".into() };
        let damaged = VersionFacts { damaged: Some("torn".into()), ..closed() };
        assert_eq!(damaged.answers(), Err(damage.clone()));
        assert_eq!(VersionFacts { told: vec![damage.clone()], ..open.clone() }.answers(), Err(damage));
        assert_eq!(VersionFacts { state: &paused, ..damaged }.answers(), Err(WaitingOn::Paused), "that comes first");
    }
}

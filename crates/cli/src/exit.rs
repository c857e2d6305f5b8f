//! The exit codes of the process, on which scripts can rely. The numbers are a form: `docs/exit-codes.md` documents
//! them, and they never change.

use std::process::ExitCode;

use dacapo_api::{ApiError, Problem, Status, VersionStatus, WaitingOn};
use dacapo_model::Retry;

/// The reason why a command ended other than by success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It failed for a reason that no other code names: a line that is not an event, a file that cannot be read, a
    /// request that can never succeed.
    Failed = 1,
    /// The command line is wrong. In most cases its parser reports this.
    Usage = 2,
    /// The present state does not allow the request.
    Refused = 3,
    /// Something that it names does not exist.
    NotFound = 4,
    /// No node answers, or the node or its store cannot answer at the moment: a retry may succeed.
    Unavailable = 5,
    /// A version did not pass its verification, and nobody has waived the verdict.
    NotRight = 6,
    /// Bytes on disk or from the network are wrong.
    Damaged = 7,
    /// `status` shows something that needs an operator.
    NeedsSomebody = 8,
}

impl Exit {
    /// Returns the code for an error of a node, or of the connection to it.
    pub fn of(error: &ApiError) -> Self {
        match error {
            ApiError::Refused(problem) if problem.code == "no_verdict" => Self::NotRight,
            // Found before any call.
            ApiError::Invalid(problem) if problem.code == "not_loopback" => Self::Usage,
            ApiError::Refused(_) => Self::Refused,
            ApiError::NotFound(_) => Self::NotFound,
            ApiError::Invalid(_) => Self::Failed,
            ApiError::Unavailable(_) => Self::Unavailable,
            ApiError::Corrupt(_) => Self::Damaged,
        }
    }

    /// Returns the code for an error of this program.
    pub fn of_problem(problem: &Problem) -> Self {
        match problem.code.as_str() {
            "not_right" => Self::NotRight,
            "usage" => Self::Usage,
            _ => Self::Failed,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Returns true if something in the status needs an operator: the node is not ready, a version has failed or the store
/// has stopped it, events or effects are set aside, a subscriber has failed, or a wait reason does not pass by itself.
/// A node that was only opened to look carries no code and is never ready, so these two do not count.
pub(crate) fn needs_somebody(status: &Status, opened_here: bool) -> bool {
    let versions = || status.projections.iter().flat_map(|projection| &projection.versions);
    let flips = status.projections.iter().filter_map(|projection| projection.flip.as_ref());
    let mut waits = versions()
        .flat_map(|version| version.waiting_on.iter().filter(|reason| !is_judged(version, reason)))
        .chain(flips.flat_map(|flip| &flip.waiting_on))
        .chain(status.subscribers.iter().flat_map(|subscriber| &subscriber.waiting_on));
    (!status.node.ready && !opened_here)
        || versions().any(|version| version.needs_somebody == Some(true))
        || versions().any(|version| version.phase == "Failed" || version.letters > 0 || version.effects_aside > 0)
        || status.subscribers.iter().any(|subscriber| subscriber.failed > 0)
        || versions().any(is_stuck)
        || waits.any(|reason| stays(reason) && !(opened_here && reason.kind == "code"))
}

/// Returns true if the store has stopped a version for a while, for example because the disk is full.
fn is_stuck(version: &VersionStatus) -> bool {
    version.stall.as_ref().is_some_and(|stall| stall.waiting_on.iter().any(|reason| reason.kind == "store"))
}

/// The reasons that do not pass by themselves.
const STAY: &[&str] = &[
    "paused",
    "letters",
    "acts",
    "code",
    "verdict",
    "beyond_head",
    "parted",
    "journal_parted",
    "damaged",
    "unowned",
    "rows",
];
/// The reasons that need an operator after a number of tries.
const TRIED: &[&str] = &["handler", "seed", "reset", "effect"];
/// The reasons about which a node that carries the code decides, in `needs_somebody`. It knows the number of tries, and
/// whether a difference of the code is decided. Only such a node finds `reads`.
const JUDGED: &[&str] = &["handler", "seed", "reset", "reads"];

/// Returns true if the node has decided whether the reason needs an operator.
fn is_judged(version: &VersionStatus, reason: &WaitingOn) -> bool {
    version.needs_somebody.is_some() && JUDGED.contains(&reason.kind.as_str())
}

/// Returns true if the reason does not pass by itself. A node without the code does not know the number of tries in the
/// options of the version, so the default counts.
fn stays(reason: &WaitingOn) -> bool {
    let kind = reason.kind.as_str();
    let attempts = || serde_json::to_value(reason).ok().and_then(|value| value.get("attempts")?.as_u64());
    let is_tried = || attempts().is_some_and(|attempts| attempts >= Retry::default().attempts.into());
    STAY.contains(&kind) || (TRIED.contains(&kind) && is_tried())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(version: &str) -> Status {
        let text = format!(
            r#"{{"node":{{"name":"n","release":"0","pid":1,"uptime_seconds":1,"store":"memory","head":1,"events":1,
                "ready":true}},"projections":[{{"name":"p","versions":[{{"version":"v1.1","phase":"Serving",
                "since":"2026-03-01T10:00:00Z","carried":true,"rollback_ready":false,"segments":[]{version}}}]}}]}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn every_reason_is_known_to_stay_or_to_pass() {
        let passes = [
            "segment",
            "busy",
            "store",
            "hold",
            "hold_budget",
            "replay",
            "effects_before",
            "effects",
            "lease",
            "batch",
            "copy",
            "share",
            "index",
            "member",
            "processor",
            "verification",
            "flip_command",
            "stand_by",
        ];
        let mut known = [STAY, TRIED, &["reads"], &passes].concat();
        let mut kinds: Vec<&str> = dacapo_model::WaitingOn::KINDS.iter().map(|kind| kind.name).collect();
        known.sort_unstable();
        kinds.sort_unstable();
        assert_eq!(known, kinds, "each kind is in one list");
    }

    #[test]
    fn what_comes_by_itself_needs_nobody() {
        let waits = |kind: &str, attempts: u32| {
            format!(r#","waiting_on":[{{"kind":"{kind}","text":"t","attempts":{attempts}}}]"#)
        };
        for calm in ["".into(), waits("segment", 0), waits("share", 0), waits("flip_command", 0), waits("handler", 3)] {
            assert!(!needs_somebody(&status(&calm), false), "{calm}");
        }
        for trouble in [
            waits("paused", 0),
            waits("acts", 0),
            waits("handler", 10),
            waits("verdict", 0),
            waits("parted", 0),
            waits("journal_parted", 0),
            waits("damaged", 0),
            waits("rows", 0),
            r#","stall":{"seconds":9.0,"text":"t","waiting_on":[{"kind":"store","text":"t"}]}"#.into(),
            r#","letters":1"#.into(),
        ] {
            assert!(needs_somebody(&status(&trouble), true), "{trouble}");
        }
        // The version's own options count, if the node knows them.
        let judged = |attempts: u32, needs: bool| format!(r#"{},"needs_somebody":{needs}"#, waits("handler", attempts));
        assert!(
            needs_somebody(&status(&judged(3, true)), false) && !needs_somebody(&status(&judged(40, false)), false)
        );
        // Of a difference of the code, only a node that carries the code knows whether it is decided.
        let unlike = |needs: bool| format!(r#"{},"needs_somebody":{needs}"#, waits("reads", 0));
        assert!(needs_somebody(&status(&unlike(true)), false) && !needs_somebody(&status(&unlike(false)), false));
        let mut away = status("");
        away.node.ready = false;
        assert!(needs_somebody(&away, false) && !needs_somebody(&away, true));
        let without_code = status(&waits("code", 0));
        assert!(needs_somebody(&without_code, false) && !needs_somebody(&without_code, true));
    }

    #[test]
    fn each_class_of_error_has_its_own_number() {
        let problem = || Problem::new("c", "m");
        let errors = [
            problem().invalid(),
            problem().refused(),
            problem().not_found(),
            problem().unavailable(),
            problem().corrupt(),
            Problem::new("no_verdict", "m").refused(),
        ];
        assert_eq!(errors.map(|error| Exit::of(&error) as u8), [1, 3, 4, 5, 7, 6]);
    }
}

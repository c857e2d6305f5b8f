//! The stored form of catalog events: JSON in the stream `$catalog`, named by event type.
//!
//! Old events must stay readable for ever. A new field is optional and is read with a default. An event whose meaning
//! changes gets a new type name.

mod reads;
mod report;

use std::sync::Arc;

use dacapo_model::replay::ReplayRows;
use dacapo_model::verify::Verdict;
use dacapo_model::{
    CatalogEvent, CleanUpReason, EventType, FlipKind, FlipPolicy, LettersOf, Position, ProjectionName, SegmentCount,
    StreamName, VersionId, ViewId, WhichLetters, Wish,
};
use serde::{Deserialize, Serialize};

use crate::view_form::wish_name;

/// The stream that holds the catalog.
pub const STREAM: &str = "$catalog";

/// Returns the stream that holds the catalog, as a name.
#[expect(clippy::expect_used, reason = "a valid name")]
pub fn stream() -> StreamName {
    StreamName::new(STREAM).expect("a valid name")
}

#[derive(Serialize, Deserialize)]
struct Form {
    projection: String,
    version: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    segments: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    flip: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fingerprint: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reads: Option<reads::Form>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    found: Option<(String, u64)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    covers: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    superseded_by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seed: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    verdict: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    report: Option<report::Form>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    after: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rows: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    of: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    event: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stream: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    wish: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    same_through: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    differs_at: Option<u64>,
}

/// Returns the event type and payload under which `event` is stored.
#[expect(clippy::expect_used, reason = "strings and numbers are always JSON; a valid name")]
pub fn encode(event: &CatalogEvent) -> (EventType, Vec<u8>) {
    let view = event.view();
    let mut form = Form {
        projection: view.projection.to_string(),
        version: view.version.to_string(),
        segments: None,
        flip: None,
        fingerprint: None,
        reads: None,
        found: None,
        from: None,
        kind: None,
        covers: None,
        reason: None,
        superseded_by: None,
        seed: None,
        verdict: None,
        report: None,
        by: None,
        after: None,
        rows: None,
        of: None,
        event: None,
        stream: None,
        wish: None,
        same_through: None,
        differs_at: None,
    };
    let event_type = match event {
        CatalogEvent::Scheduled { segments, flip, fingerprint, reads, seed, .. } => {
            form.reads = reads.as_ref().map(reads::form);
            form.seed = seed.map(|seed| seed.to_string());
            form.segments = Some(segments.get());
            form.flip = Some(flip_name(*flip).into());
            form.fingerprint = Some(fingerprint.clone());
            "version-scheduled"
        }
        CatalogEvent::ReadsAnnounced { reads, checked, .. } => {
            form.reads = Some(reads::form(reads));
            form.covers = Some(checked.get());
            "reads-announced"
        }
        CatalogEvent::ReadsRecorded { reads, .. } => {
            form.reads = Some(reads::form(reads));
            "reads-recorded"
        }
        CatalogEvent::ReadsDeclined { found: (event_type, position), .. } => {
            form.found = Some((event_type.clone(), position.get()));
            "reads-declined"
        }
        CatalogEvent::Initializing { .. } => "version-initializing",
        CatalogEvent::FlipRequested { from, kind, .. } => {
            form.from = from.map(|from| from.to_string());
            form.kind = Some(kind_name(*kind).into());
            "flip-requested"
        }
        CatalogEvent::FlipPostponed { .. } => "flip-postponed",
        CatalogEvent::FlipAborted { reason, .. } => {
            form.reason = Some(reason.clone());
            "flip-aborted"
        }
        CatalogEvent::Flipped { from, kind, covers, .. } => {
            form.from = from.map(|from| from.to_string());
            form.kind = Some(kind_name(*kind).into());
            form.covers = Some(covers.get());
            "flipped"
        }
        CatalogEvent::CleaningUp { reason, .. } => {
            form.reason = Some(
                match reason {
                    CleanUpReason::StandByOver => "stand-by-over",
                    CleanUpReason::Superseded { .. } => "superseded",
                    CleanUpReason::Asked => "asked",
                    CleanUpReason::Cancelled => "cancelled",
                }
                .into(),
            );
            if let CleanUpReason::Superseded { by } = reason {
                form.superseded_by = Some(by.to_string());
            }
            "version-cleaning-up"
        }
        CatalogEvent::Dropping { .. } => "version-dropping",
        CatalogEvent::CleanUpCancelled { .. } => "clean-up-cancelled",
        CatalogEvent::FlipCancelled { .. } => "flip-cancelled",
        CatalogEvent::ReplayCancelled { .. } => "replay-cancelled",
        CatalogEvent::SetAside { event, .. } => {
            form.event = Some(event.get());
            "event-set-aside"
        }
        CatalogEvent::LettersDecided { of, which, wish, .. } => {
            form.of = Some(of_name(*of).into());
            match which {
                WhichLetters::One(position) => form.event = Some(position.get()),
                WhichLetters::Stream(stream) => form.stream = Some(stream.to_string()),
                WhichLetters::All => {}
            }
            form.wish = Some(wish_name(*wish).into());
            "letters-decided"
        }
        CatalogEvent::Parted { same_through, differs_at, .. } => {
            (form.same_through, form.differs_at) = (Some(same_through.get()), Some(differs_at.get()));
            "version-parted"
        }
        CatalogEvent::Obsolete { .. } => "version-obsolete",
        CatalogEvent::Failed { reason, .. } => {
            form.reason = Some(reason.clone());
            "version-failed"
        }
        CatalogEvent::Paused { .. } => "version-paused",
        CatalogEvent::Resumed { .. } => "version-resumed",
        CatalogEvent::Verified { verdict, report, .. } => {
            form.verdict = Some(verdict.as_str().into());
            form.report = Some(report::form(report));
            "version-verified"
        }
        CatalogEvent::VerificationRequested { .. } => "verification-requested",
        CatalogEvent::Waived { by, why, .. } => {
            form.by = Some(by.clone());
            form.reason = Some(why.clone());
            "verdict-waived"
        }
        CatalogEvent::ReplayRequested { after, rows, .. } => {
            form.after = Some(after.get());
            form.rows = (*rows == ReplayRows::Reset).then(|| "reset".into());
            "replay-requested"
        }
        CatalogEvent::ReplayEnded { .. } => "replay-ended",
        CatalogEvent::NothingToDo { .. } => "nothing-to-do",
    };
    let payload = serde_json::to_vec(&form).expect("strings and numbers are always JSON");
    (EventType::new(event_type).expect("a valid name"), payload)
}

/// Returns the catalog event stored under this type and payload.
///
/// # Errors
/// The fault of the event: a later release wrote it, or dacapo did not write it at all.
pub fn decode(event_type: &str, payload: &[u8]) -> Result<CatalogEvent, String> {
    let form: Form = serde_json::from_slice(payload).map_err(|error| error.to_string())?;
    let projection = ProjectionName::new(&form.projection).map_err(|error| error.to_string())?;
    let version = |text: &str| text.parse::<VersionId>().map_err(|error| error.to_string());
    let view = ViewId { projection, version: version(&form.version)? };
    let from = form.from.as_deref().map(version).transpose()?;
    let missing = |field: &str| format!("{event_type} has no field {field:?}");
    let kind = || match form.kind.as_deref() {
        Some("flip") => Ok(FlipKind::Flip),
        Some("rollback") => Ok(FlipKind::Rollback),
        Some(other) => Err(format!("unknown kind of flip {other:?}")),
        None => Err(missing("kind")),
    };
    let reason = || form.reason.clone().ok_or_else(|| missing("reason"));
    match event_type {
        "version-scheduled" => {
            let segments = form.segments.ok_or_else(|| missing("segments"))?;
            let flip = match form.flip.as_deref() {
                Some("when-ready") => FlipPolicy::WhenReady,
                Some("on-command") => FlipPolicy::OnCommand,
                Some(other) => return Err(format!("unknown flip policy {other:?}")),
                None => return Err(missing("flip")),
            };
            Ok(CatalogEvent::Scheduled {
                view,
                segments: SegmentCount::new(segments).map_err(|error| error.to_string())?,
                flip,
                fingerprint: form.fingerprint.ok_or_else(|| missing("fingerprint"))?,
                reads: form.reads.map(reads::reads).transpose()?,
                seed: form.seed.as_deref().map(version).transpose()?,
            })
        }
        "reads-announced" => {
            let checked = Position::new(form.covers.ok_or_else(|| missing("covers"))?);
            let reads = reads::reads(form.reads.ok_or_else(|| missing("reads"))?)?;
            Ok(CatalogEvent::ReadsAnnounced { view, reads, checked })
        }
        "reads-recorded" => {
            let reads = reads::reads(form.reads.ok_or_else(|| missing("reads"))?)?;
            Ok(CatalogEvent::ReadsRecorded { view, reads })
        }
        "reads-declined" => {
            let (event_type, position) = form.found.ok_or_else(|| missing("found"))?;
            Ok(CatalogEvent::ReadsDeclined { view, found: (event_type, Position::new(position)) })
        }
        "version-initializing" => Ok(CatalogEvent::Initializing { view }),
        "flip-requested" => Ok(CatalogEvent::FlipRequested { view, from, kind: kind()? }),
        "flip-postponed" => Ok(CatalogEvent::FlipPostponed { view }),
        "flip-aborted" => Ok(CatalogEvent::FlipAborted { view, reason: reason()? }),
        "flipped" => {
            let covers = Position::new(form.covers.ok_or_else(|| missing("covers"))?);
            Ok(CatalogEvent::Flipped { view, from, kind: kind()?, covers })
        }
        "version-cleaning-up" => {
            let reason = match reason()?.as_str() {
                "stand-by-over" => CleanUpReason::StandByOver,
                "asked" => CleanUpReason::Asked,
                "cancelled" => CleanUpReason::Cancelled,
                "superseded" => {
                    let by = form.superseded_by.as_deref().ok_or_else(|| missing("superseded_by"))?;
                    CleanUpReason::Superseded { by: version(by)? }
                }
                other => return Err(format!("unknown reason to clean up {other:?}")),
            };
            Ok(CatalogEvent::CleaningUp { view, reason })
        }
        "version-dropping" => Ok(CatalogEvent::Dropping { view }),
        "clean-up-cancelled" => Ok(CatalogEvent::CleanUpCancelled { view }),
        "flip-cancelled" => Ok(CatalogEvent::FlipCancelled { view }),
        "replay-cancelled" => Ok(CatalogEvent::ReplayCancelled { view }),
        "event-set-aside" => {
            Ok(CatalogEvent::SetAside { view, event: Position::new(form.event.ok_or_else(|| missing("event"))?) })
        }
        "letters-decided" => letters_decided(view, &form),
        "nothing-to-do" => Ok(CatalogEvent::NothingToDo { view }),
        "version-obsolete" => Ok(CatalogEvent::Obsolete { view }),
        "version-failed" => Ok(CatalogEvent::Failed { view, reason: reason()? }),
        "version-paused" => Ok(CatalogEvent::Paused { view }),
        "version-resumed" => Ok(CatalogEvent::Resumed { view }),
        "version-verified" => {
            let verdict = match form.verdict.as_deref().ok_or_else(|| missing("verdict"))? {
                "Pass" => Verdict::Pass,
                "Fail" => Verdict::Fail,
                other => return Err(format!("unknown verdict {other:?}")),
            };
            let report = report::report(form.report.ok_or_else(|| missing("report"))?)?;
            Ok(CatalogEvent::Verified { view, verdict, report: Arc::new(report) })
        }
        "verification-requested" => Ok(CatalogEvent::VerificationRequested { view }),
        "verdict-waived" => {
            Ok(CatalogEvent::Waived { view, why: reason()?, by: form.by.clone().ok_or_else(|| missing("by"))? })
        }
        "replay-requested" => {
            let after = Position::new(form.after.ok_or_else(|| missing("after"))?);
            let rows = match form.rows.as_deref() {
                None => ReplayRows::Keep,
                Some("reset") => ReplayRows::Reset,
                Some(other) => return Err(format!("unknown kind of replay {other:?}")),
            };
            Ok(CatalogEvent::ReplayRequested { view, after, rows })
        }
        "version-parted" => {
            let position = |field: Option<u64>, name| field.map(Position::new).ok_or_else(|| missing(name));
            let same_through = position(form.same_through, "same_through")?;
            let differs_at = position(form.differs_at, "differs_at")?;
            Ok(CatalogEvent::Parted { view, same_through, differs_at })
        }
        "replay-ended" => Ok(CatalogEvent::ReplayEnded { view }),
        other => Err(format!("unknown catalog event {other:?}: it was written by a later release of dacapo")),
    }
}

fn letters_decided(view: ViewId, form: &Form) -> Result<CatalogEvent, String> {
    let of = match form.of.as_deref() {
        Some("events") => LettersOf::Events,
        Some("effects") => LettersOf::Effects,
        other => return Err(format!("letters-decided is about {other:?}, which is not known")),
    };
    let which = match (form.event, &form.stream) {
        (Some(event), _) => WhichLetters::One(Position::new(event)),
        (None, Some(stream)) => WhichLetters::Stream(StreamName::new(stream).map_err(|error| error.to_string())?),
        (None, None) => WhichLetters::All,
    };
    let wish = match form.wish.as_deref() {
        Some("retry") => Wish::Retry,
        Some("drop") => Wish::Drop,
        other => return Err(format!("the wish {other:?} of letters-decided is not known")),
    };
    Ok(CatalogEvent::LettersDecided { view, of, which, wish })
}

fn of_name(of: LettersOf) -> &'static str {
    match of {
        LettersOf::Events => "events",
        LettersOf::Effects => "effects",
    }
}

fn flip_name(flip: FlipPolicy) -> &'static str {
    match flip {
        FlipPolicy::WhenReady => "when-ready",
        FlipPolicy::OnCommand => "on-command",
    }
}

fn kind_name(kind: FlipKind) -> &'static str {
    match kind {
        FlipKind::Flip => "flip",
        FlipKind::Rollback => "rollback",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a release has written stays readable: add lines here, never change one.
    const STORED: &[(&str, &str)] = &[
        ("flip-postponed", r#"{"projection":"balances","version":"v2.1"}"#),
        (
            "version-scheduled",
            r#"{"projection":"balances","version":"v2.1","segments":4,"flip":"when-ready","fingerprint":"f"}"#,
        ),
        (
            "version-scheduled",
            r#"{"projection":"balances","version":"v2.1","segments":4,"flip":"when-ready","fingerprint":"f","reads":{"types":["a","b"],"categories":["account"],"rows":"across-segments"}}"#,
        ),
        ("reads-announced", r#"{"projection":"balances","version":"v2.1","reads":{"types":["a","b"]},"covers":9}"#),
        ("reads-recorded", r#"{"projection":"balances","version":"v2.1","reads":{}}"#),
        ("reads-declined", r#"{"projection":"balances","version":"v2.1","found":["b",12]}"#),
        ("version-initializing", r#"{"projection":"balances","version":"v2.1"}"#),
        ("flip-requested", r#"{"projection":"balances","version":"v2.1","from":"v1.1","kind":"flip"}"#),
        ("flip-aborted", r#"{"projection":"balances","version":"v2.1","reason":"superseded by v3.1"}"#),
        ("flipped", r#"{"projection":"balances","version":"v1.1","from":"v2.1","kind":"rollback","covers":77}"#),
        ("version-cleaning-up", r#"{"projection":"balances","version":"v2.1","reason":"stand-by-over"}"#),
        (
            "version-cleaning-up",
            r#"{"projection":"balances","version":"v2.1","reason":"superseded","superseded_by":"v3.1"}"#,
        ),
        ("version-obsolete", r#"{"projection":"balances","version":"v2.1"}"#),
        ("version-failed", r#"{"projection":"balances","version":"v2.1","reason":"no room"}"#),
        (
            "version-scheduled",
            r#"{"projection":"balances","version":"v2.1","segments":4,"flip":"on-command","fingerprint":"f","seed":"v1.1"}"#,
        ),
        ("version-paused", r#"{"projection":"balances","version":"v2.1"}"#),
        ("version-resumed", r#"{"projection":"balances","version":"v2.1"}"#),
        (
            "version-verified",
            r#"{"projection":"balances","version":"v2.1","verdict":"Fail","report":{"at":9,"against":"v1.1","parts":[{"part":"rows","outcome":"failed","looked_at":7,"wrong":{"differs":1,"missing":2},"findings":[{"kind":"differs","place":"accounts","key":"a-1","old":"balance 5","new":"balance 6"}]},{"part":"answers","outcome":"not-done","why":"nobody asked","looked_at":0}]}}"#,
        ),
        (
            "version-verified",
            r#"{"projection":"balances","version":"v2.1","verdict":"Pass","report":{"at":9,"required":["counts","checks"],"parts":[{"part":"counts","outcome":"passed","looked_at":7,"notes":["2 events skipped"]}]}}"#,
        ),
        ("verification-requested", r#"{"projection":"balances","version":"v2.1"}"#),
        ("verdict-waived", r#"{"projection":"balances","version":"v2.1","reason":"known","by":"ana"}"#),
        ("replay-requested", r#"{"projection":"balances","version":"v2.1","after":12}"#),
        ("replay-requested", r#"{"projection":"balances","version":"v2.1","after":0,"rows":"reset"}"#),
        ("replay-ended", r#"{"projection":"balances","version":"v2.1"}"#),
        ("version-parted", r#"{"projection":"balances","version":"v2.1","same_through":9,"differs_at":12}"#),
        ("version-dropping", r#"{"projection":"balances","version":"v2.1"}"#),
        ("version-cleaning-up", r#"{"projection":"balances","version":"v2.1","reason":"cancelled"}"#),
        ("clean-up-cancelled", r#"{"projection":"balances","version":"v2.1"}"#),
        ("flip-cancelled", r#"{"projection":"balances","version":"v2.1"}"#),
        ("replay-cancelled", r#"{"projection":"balances","version":"v2.1"}"#),
        ("event-set-aside", r#"{"projection":"balances","version":"v2.1","event":17}"#),
        ("letters-decided", r#"{"projection":"balances","version":"v2.1","of":"events","event":17,"wish":"drop"}"#),
        (
            "letters-decided",
            r#"{"projection":"balances","version":"v2.1","of":"effects","stream":"account-1","wish":"retry"}"#,
        ),
        ("letters-decided", r#"{"projection":"balances","version":"v2.1","of":"effects","wish":"drop"}"#),
    ];

    #[test]
    fn stored_events_read_and_write_the_same() {
        for &(event_type, payload) in STORED {
            let event = decode(event_type, payload.as_bytes()).unwrap();
            let (written_type, written) = encode(&event);
            assert_eq!((written_type.as_str(), String::from_utf8(written).unwrap().as_str()), (event_type, payload));
            // So the public name does not change either.
            assert_eq!(event.kind().replace('_', "-"), event_type);
        }
    }

    #[test]
    fn what_is_not_understood_is_named() {
        assert!(
            decode("version-renamed", br#"{"projection":"b","version":"v1.1"}"#).unwrap_err().contains("later release")
        );
        assert!(
            decode("flipped", br#"{"projection":"b","version":"v1.1","kind":"flip"}"#).unwrap_err().contains("covers")
        );
    }
}

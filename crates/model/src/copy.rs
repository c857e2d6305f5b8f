//! The rules for a new version that begins as a copy of another one's view instead of reading the past.
//!
//! A copy must be what the new code would have made of the same events. Whether the tables fit is a question of their
//! declarations, which the library answers.

use crate::catalog::{ProjectionState, VersionState};
use crate::phase::Phase;
use crate::reads::Reads;
use crate::rebuild::Code;
use crate::segment::SegmentCount;
use crate::token::Token;
use crate::version::{VersionId, ViewId};

/// Returns the version whose view a version begins as a copy of; `None` if it is no copy, or has begun.
///
/// # Errors
/// The reason why it never can: the view of the other version is gone, or about to be dropped.
pub fn source(
    view: &ViewId,
    projection: &ProjectionState,
    state: &VersionState,
    tokens: &[Token],
) -> Result<Option<VersionId>, String> {
    let begins = state.phase == Phase::Initializing && tokens.iter().all(Token::is_new);
    let Some(source) = state.seed.filter(|_| begins) else { return Ok(None) };
    let is_kept = projection.versions.get(&source).is_some_and(|state| state.phase.applies());
    let advice = "its view is gone. Rebuild the projection again: from a copy of the version that serves, or from the \
                  past";
    if is_kept { Ok(Some(source)) } else { Err(format!("{view} cannot begin as a copy of {source}: {advice}")) }
}

/// Checks that a build of `new` in `segments` segments may begin as a copy of a view with `source_segments` segments,
/// whose code is `source` if it is known.
///
/// # Errors
/// The reason why the copy would differ from what `new` would make of the same events, and what to do.
pub fn fits(
    new: &Code,
    segments: SegmentCount,
    source: Option<&Code>,
    source_segments: SegmentCount,
) -> Result<(), String> {
    let Some(source) = source else {
        let text = "this node does not carry its code, so the events of its rows are unknown";
        return Err(format!("{text}: carry it as well"));
    };
    if segments != source_segments {
        return Err(format!(
            "it has {source_segments} segments and the new version {segments}, so their tokens do not say the same: \
             give the new one {source_segments}"
        ));
    }
    let unseen = unseen(&new.reads, &source.reads);
    if unseen.is_empty() {
        Ok(())
    } else {
        Err(format!("it never saw {}: let the new version read the past", unseen.join(", ")))
    }
}

/// Returns the types and categories of events that `new` reads and `old` does not.
fn unseen(new: &Reads, old: &Reads) -> Vec<String> {
    let types = match (&new.types, &old.types) {
        (_, None) => vec![],
        (None, Some(_)) => vec!["events of every type".to_owned()],
        (Some(wanted), Some(had)) => wanted.difference(had).map(|name| format!("events of type {name}")).collect(),
    };
    let categories = match (&new.categories, &old.categories) {
        (_, None) => vec![],
        (None, Some(_)) => vec!["streams of every category".to_owned()],
        (Some(wanted), Some(had)) => wanted.difference(had).map(|name| format!("streams of category {name}")).collect(),
    };
    types.into_iter().chain(categories).collect()
}

/// Checks that a view with this number of dead letters has all rows. Letters of skipped events count, too: a copy would
/// lack their events without a letter that shows it (I-11).
///
/// # Errors
/// The reason why not, and what to do.
pub fn has_no_letters(letters: u64) -> Result<(), String> {
    if letters == 0 {
        return Ok(());
    }
    let events = if letters == 1 { "an event that is".to_owned() } else { format!("{letters} events that are") };
    Err(format!(
        "its rows lack {events} set aside, and a copy would lack them without a word: retry or drop its dead letters \
         first, or let the new version read the past"
    ))
}

/// Checks that the rows of a state of a view are complete through its tokens.
///
/// # Errors
/// The reason why not, and what to do.
pub fn is_complete(tokens: &[Token], letters: u64) -> Result<(), String> {
    has_no_letters(letters)?;
    match tokens.iter().find(|token| token.replays()) {
        Some(token) => Err(format!("a replay of its segment {} is under way: wait for its end", token.segment)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::FlipPolicy;
    use crate::name::ProjectionName;
    use crate::position::Position;
    use crate::testing::tokens;
    use crate::token::ReplayMark;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::time::Duration;

    fn some(names: &[&str]) -> Option<BTreeSet<String>> {
        Some(names.iter().map(|name| (*name).to_owned()).collect())
    }

    fn code(types: Option<BTreeSet<String>>, categories: Option<BTreeSet<String>>) -> Code {
        Code {
            projection: ProjectionName::new("p").unwrap(),
            code: 1,
            segments: SegmentCount::ONE,
            flip: FlipPolicy::WhenReady,
            stand_by: Duration::ZERO,
            fingerprint: String::new(),
            reads: Reads { types, categories, ..Reads::default() },
            seeded: true,
        }
    }

    #[test]
    fn a_copy_has_the_segments_and_the_events_that_the_new_code_would_have() {
        let (one, two) = (SegmentCount::ONE, SegmentCount::new(2).unwrap());
        let (old, wider) = (code(some(&["opened"]), some(&["account"])), code(some(&["opened", "closed"]), None));
        let why = |new: &Code, segments, source: Option<&Code>| fits(new, segments, source, one).unwrap_err();
        assert_eq!(fits(&old, one, Some(&wider), one), Ok(()), "the copied view saw more");
        assert!(why(&old, one, None).starts_with("this node does not carry its code"));
        assert!(why(&old, two, Some(&old)).starts_with("it has 1 segments and the new version 2"));
        let unseen = "it never saw events of type closed, streams of every category: let the new version read the past";
        assert_eq!(why(&wider, one, Some(&old)), unseen);
        let other = code(None, some(&["account", "loan"]));
        let unseen = "it never saw events of every type, streams of category loan: let the new version read the past";
        assert_eq!(why(&other, one, Some(&old)), unseen);
    }

    proptest! {
        #[test]
        fn a_copy_fits_only_if_the_source_saw_each_event_that_the_new_code_reads(
            new in reads(), old in reads(), event_type in 0..3_u8, category in 0..3_u8,
        ) {
            let has = |names: &Option<BTreeSet<String>>, name: u8| {
                names.as_ref().is_none_or(|names| names.contains(&name.to_string()))
            };
            let sees = |code: &Code| has(&code.reads.types, event_type) && has(&code.reads.categories, category);
            if fits(&new, SegmentCount::ONE, Some(&old), SegmentCount::ONE).is_ok() && sees(&new) {
                prop_assert!(sees(&old));
            }
        }
    }

    fn reads() -> impl Strategy<Value = Code> {
        let names = || prop::option::of(prop::collection::btree_set("[0-2]", 0..4));
        (names(), names()).prop_map(|(types, categories)| code(types, categories))
    }

    #[test]
    fn rows_with_letters_or_in_a_replay_are_not_complete() {
        let at = Position::new;
        let replay = Some(ReplayMark { request: at(9), through: at(5) });
        let token = Token { replay, ..tokens(&[5])[0] };
        assert_eq!(is_complete(&[token], 0), Ok(()), "the replay has reached its end");
        assert!(is_complete(&[token], 1).unwrap_err().starts_with("its rows lack an event that is set aside"));
        assert!(is_complete(&[token], 2).unwrap_err().starts_with("its rows lack 2 events that are set aside"));
        let replays = Token { position: at(4), ..token };
        assert!(is_complete(&[replays], 0).unwrap_err().starts_with("a replay of its segment 0 is under way"));
    }
}

//! The events that each segment has passed, compared with the journal's own count.
//!
//! The journal is read without its own filters, and every event is checked here. So an event that is missing in an
//! index is missing in only one of the two counts.

use std::collections::BTreeSet;
use std::sync::Arc;

use dacapo_model::verify::FindingKind;
use dacapo_model::{LetterKind, Position, SegmentCount, Token};
use dacapo_store::{EventRef, Filter, Journal, Limit, StoreError, Streams, View as StoredView, ViewReader};

use crate::code::{Tally, Words};
use crate::feed::Ahead;
use crate::limits;
use crate::world::Offload;

/// Counts again what the tokens say, from one state of the view. Reports to `progress` how many events were checked.
pub(super) async fn count(
    offload: Offload,
    journal: &Arc<dyn Journal>,
    filter: &Filter,
    tokens: &[Token],
    tally: &mut Tally,
    mut progress: impl FnMut(u64),
) -> Result<(), StoreError> {
    let segments = u16::try_from(tokens.len()).ok().and_then(|count| SegmentCount::new(count).ok());
    let found = || format!("there are {} of them", tokens.len());
    let segments = segments.ok_or_else(|| StoreError::corrupt("the tokens of a view", found()))?;
    let mut after = tokens.iter().map(|token| token.applied.after).min().unwrap_or_default();
    let through = tokens.iter().map(|token| token.position).max().unwrap_or_default();
    let begin = |after| Ahead::begin_places(offload, journal, after, Limit::events(limits::READ_EVENTS_MAX));
    let mut counted = vec![0_u64; tokens.len()];
    let copied = tokens.iter().map(|token| token.applied.after).max().filter(|copied| *copied > Position::START);
    if let Some(copied) = copied {
        tally.note(format!("events through {copied} are not counted, since it began as a copy"));
    }
    let mut unread = Unread::default();
    let mut ahead = (after < through).then(|| begin(after));
    while let Some(read) = &mut ahead {
        let batch = read.done().await?;
        after = batch.through;
        ahead = (after < through).then(|| begin(after));
        for event in batch.iter() {
            if !filter.wants(&event) {
                unread.look(&event);
                continue;
            }
            let segment = usize::from(segments.segment_of(event.stream).get());
            let token = &tokens[segment];
            if event.position > token.applied.after && token.covers(event.position) {
                counted[segment] += 1;
                tally.looked_at += 1;
            }
        }
        progress(tally.looked_at);
    }
    if copied.is_none() && tally.looked_at == 0 {
        unread.note(filter, tally);
    }
    for (token, counted) in tokens.iter().zip(counted) {
        if token.applied.events != counted {
            let Token { segment, position, applied, .. } = token;
            let range = format!("of positions {} through {position}", applied.after.next());
            tally.wrong(FindingKind::Count, || Words {
                place: format!("segment {segment}"),
                key: None,
                old: Some(format!("{} in the journal, {range}", events(counted))),
                new: Some(format!("{} applied or set aside", events(applied.events))),
            });
        }
    }
    Ok(())
}

/// The events of users that a version does not read.
#[derive(Default)]
struct Unread {
    events: u64,
    /// The first types that were found.
    types: BTreeSet<String>,
}

impl Unread {
    fn look(&mut self, event: &EventRef<'_>) {
        if event.stream.starts_with('$') {
            return;
        }
        self.events += 1;
        if self.types.len() < limits::UNREAD_TYPES_MAX && !self.types.contains(event.event_type) {
            self.types.insert(event.event_type.to_owned());
        }
    }

    /// Adds a note if a version reads nothing of a journal with events. It is correct as far as can be counted, but
    /// probably not intended.
    fn note(&self, filter: &Filter, tally: &mut Tally) {
        if self.events == 0 {
            return;
        }
        let reads = match &filter.types {
            Some(types) => format!("the types {}", types.join(", ")),
            None => "all types".to_owned(),
        };
        let of = match &filter.streams {
            Streams::Categories(categories) => format!(" of the categories {}", categories.join(", ")),
            Streams::User | Streams::All => String::new(),
        };
        let types: Vec<&str> = self.types.iter().map(String::as_str).collect();
        tally.note(format!(
            "it reads none of the {} in the journal: its code reads {reads}{of}, and the journal has {}",
            events(self.events),
            types.join(", ")
        ));
    }
}

fn events(count: u64) -> String {
    format!("{count} event{}", if count == 1 { "" } else { "s" })
}

/// Returns true if an event was set aside that the policy did not skip.
pub(super) async fn any_aside(view: &dyn StoredView) -> Result<bool, StoreError> {
    let mut after = Position::START;
    loop {
        let page = view.letters(after, limits::LETTERS_READ_MAX).await?;
        let Some(last) = page.last() else { return Ok(false) };
        after = last.position;
        if page.iter().any(|letter| letter.kind != LetterKind::Skipped) {
            return Ok(true);
        }
    }
}

/// Reports the events that are set aside in one state of a view. They are faults, except if they are allowed or if the
/// policy skipped them; then they are notes.
pub(super) async fn letters(view: &mut dyn ViewReader, allowed: bool, tally: &mut Tally) -> Result<(), StoreError> {
    let (mut after, mut aside, mut skipped) = (Position::START, 0_u64, 0_u64);
    loop {
        let page = view.letters(after, limits::LETTERS_READ_MAX).await?;
        let Some(last) = page.last() else { break };
        after = last.position;
        for letter in &page {
            let why = match letter.kind {
                LetterKind::Skipped => {
                    skipped += 1;
                    continue;
                }
                LetterKind::Refused => format!("set aside after {} tries: {}", letter.attempts, letter.error),
                LetterKind::Blocked { first } => format!("set aside because event {first} is: {}", letter.error),
            };
            aside += 1;
            if !allowed {
                tally.wrong(FindingKind::Letter, || Words {
                    place: format!("segment {}", letter.segment),
                    key: Some(format!("event {} of {}", letter.position, letter.stream)),
                    old: Some(letter.event_type.to_string()),
                    new: Some(why),
                });
            }
        }
    }
    if skipped > 0 {
        tally.note(format!("{} skipped, as the policy is", events(skipped)));
    }
    if allowed && aside > 0 {
        tally.note(format!("{} set aside, which the policy allows", events(aside)));
    }
    Ok(())
}

//! A commit that takes up events, or does what is wished for letters, and what must not be of it.

use dacapo::ViewId;
use dacapo::operate::{LetterKind, Wish};
use dacapo::options::Policy;
use dacapo_model::{Letter, TokenMove};
use dacapo_store::Commit;

use super::{Aside, Held, segment_of};
use crate::check::catalog::Fold;
use crate::check::journal::Record;
use crate::check::landed::text;
use crate::ledger::Rules;

/// A commit that takes up events, or does what is wished for letters.
pub(super) struct Taking<'a> {
    pub(super) view: &'a ViewId,
    pub(super) rules: Rules,
    pub(super) phase: &'static str,
    pub(super) fold: &'a Fold,
    pub(super) held: &'a mut Held,
    pub(super) faults: &'a mut Vec<String>,
}

impl Taking<'_> {
    fn fault(&mut self, text: String) {
        self.faults.push(text);
    }

    /// A segment passes these events.
    pub(super) fn take_up(&mut self, moved: &TokenMove, events: &[Record], commit: &Commit) {
        let (view, segment) = (self.view, usize::from(moved.segment.get()));
        let segments = self.held.places.len();
        let ours = |record: &&Record| record.change().is_some() && segment_of(&record.stream, segments) == segment;
        for record in events.iter().filter(ours) {
            let first = self.held.first_of(&record.stream).filter(|_| self.rules.order_matters);
            let letter = commit.letters.iter().find(|letter| letter.position.get() == record.position);
            match letter {
                Some(letter) => self.set_aside(letter, first),
                None => {
                    if let Some(first) = first {
                        let position = record.position;
                        self.fault(format!("I-3: {view} has applied {position} while {first} of its stream is aside"));
                    }
                    self.held.add(view.projection.as_str(), record);
                }
            }
        }
    }

    /// An event is set aside, where `first` of its stream is already.
    fn set_aside(&mut self, letter: &Letter, first: Option<u64>) {
        let Rules { on_failure, attempts, .. } = self.rules;
        // A node may not know yet that a version serves, but it knows no phase that it has not come to.
        let is_policy = |policy| {
            on_failure.initializing == policy || (self.phase != "Initializing" && on_failure.serving == policy)
        };
        let allowed = match letter.kind {
            // Or somebody wanted it so.
            LetterKind::Refused if self.fold.is_set_aside(&text(self.view), letter.position.get()) => true,
            LetterKind::Refused => is_policy(Policy::DeadLetter) && letter.attempts >= attempts,
            LetterKind::Skipped => is_policy(Policy::Skip) && letter.attempts >= attempts,
            LetterKind::Blocked { first: of } => first == Some(of.get()),
        };
        if !allowed {
            self.fault(format!("I-11: {} has set aside {letter:?}, the first of its stream was {first:?}", self.view));
        }
        self.held.letters.insert(letter.position.get(), Aside::new(letter));
    }

    /// What stays set aside is told again.
    pub(super) fn tried_again(&mut self, commit: &Commit) {
        let segments = self.held.places.len();
        for letter in &commit.letters {
            let segment = segment_of(letter.stream.as_str(), segments);
            let taken_up = |moved: &&TokenMove| {
                usize::from(moved.segment.get()) == segment
                    && letter.position > moved.from
                    && letter.position <= moved.to
            };
            if commit.moves.iter().any(|moved| taken_up(&moved)) {
                continue;
            }
            match self.held.letters.get_mut(&letter.position.get()) {
                // Somebody may have given it up meanwhile.
                Some(aside) if aside.wish == Some(Wish::Drop) => aside.kind = letter.kind,
                Some(aside) => (aside.kind, aside.wish) = (letter.kind, letter.wish),
                None => self.fault(format!("I-11: {} has set aside again what was not: {letter:?}", self.view)),
            }
        }
    }

    /// A letter goes: its event was applied after all if rows were written, and otherwise given up.
    pub(super) fn settle(&mut self, record: &Record, wrote: bool) {
        let (view, position) = (self.view, record.position);
        let wish = if wrote { Wish::Retry } else { Wish::Drop };
        let Some(letter) = self.held.letters.remove(&position) else {
            return self.fault(format!("I-11: the letter of {position} in {view} goes, and there is none"));
        };
        if !letter.wished.contains(&wish) {
            self.fault(format!("I-11: the letter of {position} in {view} goes by {wish:?}, wished was {letter:?}"));
        }
        if !wrote {
            self.held.given_up.insert(position);
            self.held.once_given_up.insert(position);
            return;
        }
        let first = self.held.first_of(&record.stream).filter(|first| *first < position);
        if let Some(first) = first.filter(|_| self.rules.order_matters && letter.blocks()) {
            self.fault(format!("I-3: {view} has applied {position} again while {first} of its stream is aside"));
        }
        self.held.add(view.projection.as_str(), record);
    }
}

//! What happens in the world, in the steps of the drivers, and what is seen to break.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use dacapo_model::flip::{FlipFacts, From, Gate, gate};
use dacapo_model::{
    Catalog, CatalogCommand, CatalogEvent, PendingFlip, Position, Timestamp, Token, TokenRefused, limits,
};

use super::explore::Broken;
use super::state::*;

impl World {
    pub(super) fn head(&self) -> Position {
        Position::new(self.journal.len() as u64)
    }

    pub(super) fn has_served(&self, version: usize) -> bool {
        let flipped = |entry: &Entry| matches!(entry, Entry::Catalog { flipped: Some((_, to)), .. } if *to == version);
        self.journal.iter().any(flipped)
    }

    pub(super) fn count(&self, wanted: impl Fn(&Entry) -> bool) -> usize {
        self.journal.iter().filter(|entry| wanted(entry)).count()
    }

    /// What `CatalogLog::change` comes to: decided on the truth, since anything else is refused by its revision.
    pub(super) fn change(&mut self, command: &CatalogCommand) -> bool {
        let Ok(events) = self.catalog.0.decide(command) else { return false };
        for event in events {
            let mut digest = DefaultHasher::new();
            format!("{event:?}").hash(&mut digest);
            let mut flipped = None;
            if let CatalogEvent::Flipped { view, from, .. } = &event {
                flipped = Some((from.map(number), number(view.version)));
                self.check_flip(from.map(number), number(view.version));
            }
            self.journal.push(Entry::Catalog { digest: digest.finish(), flipped });
            let mut catalog = Catalog::clone(&self.catalog.0);
            catalog.evolve(&event, self.head(), Timestamp::from_micros(0)).unwrap();
            self.catalog = Folded(Arc::new(catalog));
        }
        true
    }

    /// Looks at a flip at the moment of its append, with its own eyes.
    pub(super) fn check_flip(&mut self, from: Option<usize>, to: usize) {
        let served = self.journal.iter().rev().find_map(|entry| match entry {
            Entry::Catalog { flipped, .. } => flipped.map(|(_, to)| to),
            Entry::User(_) => None,
        });
        if served != from || from == Some(to) {
            self.broken = Some("I-5");
        }
        let requested = self.catalog.pending().map(|pending| pending.requested).unwrap_or_default();
        let shown = from.map(|from| positions(&self.views[from].tokens)).into_iter().flatten().max();
        let needed = requested.max(shown.unwrap_or_default());
        if positions(&self.views[to].tokens).iter().any(|position| *position < needed) {
            self.broken = Some("I-6");
        }
    }

    pub(super) fn claim(&mut self, version: usize) -> Vec<Stored> {
        for Stored(token) in &mut self.views[version].tokens {
            token.epoch = token.epoch.next();
        }
        self.views[version].tokens.clone()
    }

    pub(super) fn commit(&mut self, writer: usize, broken: Option<Broken>) {
        let Writer { version, claimed: Some(claimed), batch: Some((segment, to)) } = self.writers[writer].clone()
        else {
            return;
        };
        let (own, Stored(stored)) = (claimed[segment].0, self.views[version].tokens[segment]);
        let is_own = |position: &u64| self.journal[*position as usize] == Entry::User(segment);
        let events = (own.position.get()..to.get()).filter(is_own).count() as u64;
        let asked = own.step(to, events);
        let moved = match stored.moved(asked) {
            Err(TokenRefused::Fenced { .. }) if broken == Some(Broken::Unfenced) => {
                Ok(Token { position: to, ..stored })
            }
            moved => moved,
        };
        match moved {
            Ok(moved) => {
                if (asked.epoch, asked.from) != (stored.epoch, stored.position) || stored.held_for.is_some() {
                    self.broken = Some("I-4");
                }
                self.views[version].tokens[segment] = Stored(moved);
                for position in asked.from.get()..to.get() {
                    if self.journal[position as usize] == Entry::User(segment) {
                        let applied = &mut self.views[version].applied;
                        applied.resize(applied.len().max(position as usize + 1), 0);
                        applied[position as usize] += 1;
                    }
                }
                let writer = &mut self.writers[writer];
                writer.batch = None;
                writer.claimed.as_mut().unwrap()[segment].0 = Token { held_for: None, ..moved };
            }
            // It is tried again until the hold is lifted.
            Err(TokenRefused::Held { .. }) => {}
            Err(TokenRefused::Capped { .. }) => unreachable!("nothing is verified here"),
            Err(TokenRefused::Fenced { .. }) => {
                self.refused = true;
                self.writers[writer] = Writer { version, claimed: None, batch: None };
            }
        }
    }

    /// The next step of the driver of a flip; `patient` while the hold is within its budget.
    pub(super) fn step(&mut self, node: usize, patient: bool, broken: Option<Broken>) {
        let Node { pending, next, .. } = self.nodes[node].clone();
        let from = pending.and_then(|pending| pending.from).map(number);
        let next = match next {
            Next::Look => {
                self.nodes[node].catalog = self.catalog.clone();
                let present = self.catalog.pending();
                match (pending, present) {
                    // Its flip was settled or continues under another hold.
                    (Some(pending), present) if present != Some(pending) => {
                        self.nodes[node].pending = None;
                        from.map_or(Next::Look, |from| Next::Lift(from, pending.hold))
                    }
                    (_, Some(present)) => {
                        self.nodes[node].pending = Some(present);
                        Next::ReadFrom(self.views[number(present.to)].tokens.clone())
                    }
                    (_, None) => Next::Look,
                }
            }
            Next::ReadFrom(to_tokens) => {
                let pending = pending.expect("a flip is driven");
                let read = |tokens: &[Stored]| tokens.iter().map(|stored| stored.0).collect::<Vec<_>>();
                let mut from_tokens = from.map(|from| read(&self.views[from].tokens)).unwrap_or_default();
                let mut to_tokens = read(&to_tokens);
                match broken {
                    Some(Broken::NoHold) => {
                        from_tokens.iter_mut().for_each(|token| token.held_for = Some(pending.hold))
                    }
                    Some(Broken::AnySegment) => {
                        let highest = to_tokens.iter().map(|token| token.position).max().unwrap();
                        to_tokens.iter_mut().for_each(|token| token.position = highest);
                    }
                    _ => {}
                }
                let facts = FlipFacts {
                    requested: pending.requested,
                    hold: pending.hold,
                    held: if patient { Duration::ZERO } else { limits::HOLD_TIME_MAX },
                    from: from.map(|_| From::Open { tokens: &from_tokens, shown_before: Position::START }),
                    to: pending.to,
                    to_tokens: Ok(&to_tokens),
                    to_verified: Ok(()),
                    outdated: false,
                    halts: &[],
                };
                match gate(&facts) {
                    Gate::Hold => Next::Hold,
                    Gate::Flip { covers } => Next::Confirm(covers),
                    Gate::Postpone => Next::Postpone,
                    Gate::Wait(_) | Gate::VerifyAgain | Gate::Held(_) => Next::Look,
                }
            }
            Next::Hold => {
                let mark = pending.expect("a flip is driven").hold;
                for Stored(token) in &mut self.views[from.expect("it is held")].tokens {
                    token.held_for = Some(token.held_for.map_or(mark, |held| held.max(mark)));
                }
                Next::Look
            }
            Next::Confirm(covers) => {
                let PendingFlip { to, hold, .. } = pending.expect("a flip is driven");
                let present = self.catalog.pending().map(|pending| pending.hold);
                let hold = if broken == Some(Broken::ConfirmsUnderAnyHold) { present.unwrap_or(hold) } else { hold };
                self.change(&CatalogCommand::ConfirmFlip { view: view(to), hold, covers });
                self.nodes[node].catalog = self.catalog.clone();
                from.map_or(Next::Look, |from| Next::Lift(from, pending.expect("a flip is driven").hold))
            }
            Next::Postpone => {
                let PendingFlip { to, hold, .. } = pending.expect("a flip is driven");
                if broken != Some(Broken::LiftsInSilence) {
                    self.change(&CatalogCommand::PostponeFlip { view: view(to), hold });
                }
                self.nodes[node].catalog = self.catalog.clone();
                Next::Lift(from.expect("it is held"), hold)
            }
            Next::Lift(version, mark) => {
                for Stored(token) in &mut self.views[version].tokens {
                    token.held_for = token.held_for.filter(|held| *held > mark);
                }
                Next::Look
            }
        };
        self.nodes[node].next = next;
        if self.nodes[node].next == Next::Look && self.catalog.pending() != self.nodes[node].pending {
            self.nodes[node].pending = None;
        }
    }

    /// The mark on a version that the conductor of `node` would lift, on the catalog that it knows.
    pub(super) fn stray(&self, node: usize, version: usize) -> Option<Position> {
        let catalog = &self.nodes[node].catalog;
        let flip = catalog.pending().filter(|flip| flip.from == Some(VERSIONS[version]));
        let marks = self.views[version].tokens.iter().filter_map(|stored| stored.0.held_for);
        marks.filter(|mark| flip.map(|flip| flip.hold) != Some(*mark) && *mark <= catalog.0.position).max()
    }

    pub(super) fn answer(&mut self, broken: Option<Broken>) {
        let Some((version, now)) = self.reader.open.take() else { return };
        // The query looks again which version serves, after the state was opened.
        if self.catalog.serving() != Some(version) && broken != Some(Broken::ShowsUnchecked) {
            return;
        }
        if let Some((before, seen)) = &self.reader.seen {
            let goes_back = match *before == version {
                true => now.iter().zip(seen).any(|(now, seen)| now < seen),
                false => now.iter().min() < seen.iter().max(),
            };
            if goes_back {
                self.broken = Some("I-7");
            }
        }
        self.reader.seen = Some((version, now));
    }

    /// I-3, from the rows and tokens alone.
    pub(super) fn is_complete(&self) -> bool {
        self.views.iter().all(|view| {
            let counted = |stored: &Stored| {
                let events = self.journal.iter().take(stored.0.position.get() as usize);
                let own = Entry::User(usize::from(stored.0.segment.get()));
                events.filter(|entry| **entry == own).count() as u64 == stored.0.applied.events
            };
            view.tokens.iter().all(counted)
                && self.journal.iter().enumerate().all(|(at, entry)| {
                    let applied = view.applied.get(at).copied().unwrap_or_default();
                    match entry {
                        Entry::User(segment) => applied == u8::from(view.tokens[*segment].0.position.get() > at as u64),
                        Entry::Catalog { .. } => applied == 0,
                    }
                })
        })
    }
}

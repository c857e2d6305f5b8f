//! The task that writes what waits, one group after the other.
//!
//! While one group is being committed the next one gathers, so the more wait the fewer commits an append costs.
//!
//! A group whose answer is lost is sent again. Either the first call was committed, then its events are found by their
//! ids and answered as written; or it was not, then it is written now. That the first call is still under
//! way does no harm: calls take turns at the lock, and the second to get it finds the events of the other.

use std::collections::VecDeque;
use std::sync::Arc;

use dacapo_model::{BackOff, Position};
use dacapo_store::{AppendError, Head, StoreError};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::group::{Group, Waiting};
use super::health::Went;
use super::writer::{Failed, Outcome, Writer};
use crate::chance::{Chance, back_off};
use crate::limits;

pub(super) enum Request {
    Append(Waiting),
    /// Finish what waits, then end.
    Close,
}

/// Writes until it is closed. `ended` is dropped when everything is finished.
pub(super) async fn run(
    writer: Writer,
    head: Arc<Head>,
    went: Arc<Went>,
    mut requests: mpsc::Receiver<Request>,
    seed: u64,
    ended: watch::Sender<()>,
) {
    let mut sequencer = Sequencer {
        writer,
        head,
        went,
        waiting: VecDeque::new(),
        back_off: back_off(),
        chance: Chance::new(seed),
        last_error: None,
    };
    loop {
        if sequencer.waiting.is_empty() {
            match requests.recv().await {
                Some(request) => sequencer.take(request, &mut requests),
                None => break,
            }
        }
        // Anyone who was just answered appends again before this continues: a group of the quickest ones alone would make
        // all others wait for its commit.
        for _ in 0..limits::GATHER_TURNS_MAX {
            let gathered = sequencer.waiting.len();
            tokio::task::yield_now().await;
            while sequencer.waiting.len() < limits::WAITING_APPENDS_MAX
                && let Ok(request) = requests.try_recv()
            {
                sequencer.take(request, &mut requests);
            }
            if sequencer.waiting.len() == gathered {
                break;
            }
        }
        sequencer.write().await;
    }
    drop(sequencer);
    drop(ended);
}

struct Sequencer {
    writer: Writer,
    head: Arc<Head>,
    went: Arc<Went>,
    waiting: VecDeque<Waiting>,
    back_off: BackOff,
    chance: Chance,
    /// What the last failed call said, for those who are given up.
    last_error: Option<StoreError>,
}

impl Sequencer {
    fn take(&mut self, request: Request, requests: &mut mpsc::Receiver<Request>) {
        match request {
            Request::Append(waiting) => self.waiting.push_back(waiting),
            Request::Close => requests.close(),
        }
    }

    /// Writes one group of what waits.
    async fn write(&mut self) {
        self.give_up();
        let tangled = self.take_out(Waiting::needs_facts);
        self.decide(tangled).await;
        let group = Group::of(&mut self.waiting);
        if group.members.is_empty() {
            return;
        }
        let seen = self.head.get();
        match self.writer.append(&group, seen, call_until(&group.members)).await {
            Ok(Outcome::Written { head, revisions, .. }) => {
                self.wrote();
                let through = head.plus(group.rows.len() as u64);
                // Before the answers: anyone who has one finds its events before the head.
                self.head.advance(through);
                group.written(head, &revisions);
            }
            Ok(Outcome::OtherThanThought) => {
                // What waits about the same streams is mostly no better off: it is decided along with the group.
                let mut members = group.members;
                let mut events = 0;
                members.extend(self.take_out(|one| {
                    events += one.append.events.len();
                    !one.is_decided() && events <= limits::GROUP_EVENTS_MAX
                }));
                self.decide(members).await;
            }
            // What came back meanwhile is not trusted before it is looked at again.
            Ok(Outcome::WentBack) => self.put_back(group.members),
            Err(Failed { error, unknown, silent }) => {
                // What the server has said, such as what it waits for, says more than its silence now.
                let said = self.last_error.clone().filter(|_| silent);
                self.failed(group.members, said.unwrap_or(error), unknown.then_some(seen)).await;
            }
        }
    }

    /// Decides appends on facts. Those that are to be written come before the others.
    async fn decide(&mut self, members: Vec<Waiting>) {
        if members.is_empty() {
            return;
        }
        match self.writer.facts(&members, call_until(&members)).await {
            Ok(mut facts) => {
                let left: Vec<_> = members.into_iter().filter_map(|one| one.decided(&mut facts)).collect();
                self.put_back(left);
            }
            Err(error) => self.failed(members, error, None).await,
        }
    }

    /// Nothing came of `members` this time; they may be written after `sent`, if they were sent.
    #[expect(clippy::expect_used, reason = "it has members")]
    async fn failed(&mut self, mut members: Vec<Waiting>, error: StoreError, sent: Option<Position>) {
        self.went.append_failed(&error);
        if !matches!(error, StoreError::Unavailable { .. }) {
            tracing::error!(%error, "events cannot be appended");
            return refuse(members, &error);
        }
        tracing::warn!(%error, "events could not be appended; a retry follows");
        self.last_error = Some(error);
        members.iter_mut().for_each(|one| one.sent = one.sent.or(sent));
        let first = members.iter().map(|one| one.until).min().expect("it has members");
        self.put_back(members);
        let pause = self.back_off.pause_at_random(self.chance.number());
        tokio::time::sleep_until(first.min(Instant::now() + pause)).await;
    }

    /// Answers those for whom there is no more time.
    fn give_up(&mut self) {
        let now = Instant::now();
        for one in self.take_out(|one| one.until <= now) {
            let why = self.last_error.as_ref().map(ToString::to_string);
            let why = why.unwrap_or_else(|| "other appends took all of the time".to_owned());
            let state = match one.sent.is_some() {
                true => "whether the events are in the journal is unknown: append them again with the same ids",
                false => "the events are not in the journal",
            };
            let found = format!("not within {:?}: {why}; {state}", limits::RETRY_TIME_MAX);
            one.answer(Err(StoreError::unavailable("append", found).into()));
        }
    }

    /// Returns those of what waits to which something applies.
    fn take_out(&mut self, applies: impl FnMut(&Waiting) -> bool) -> Vec<Waiting> {
        let (taken, left): (VecDeque<_>, _) = self.waiting.drain(..).partition(applies);
        self.waiting = left;
        taken.into()
    }

    fn put_back(&mut self, members: Vec<Waiting>) {
        members.into_iter().rev().for_each(|one| self.waiting.push_front(one));
    }

    /// Something was written. That the database answers tells nothing of that: it may have no room.
    fn wrote(&mut self) {
        self.back_off.reset();
        self.went.appended();
        self.last_error = None;
    }
}

/// When to stop waiting for an answer about `members`.
#[expect(clippy::expect_used, reason = "it has members")]
fn call_until(members: &[Waiting]) -> Instant {
    let first = members.iter().map(|one| one.until).min().expect("it has members");
    first.max(Instant::now() + limits::CALL_TIME_MIN)
}

fn refuse(members: Vec<Waiting>, error: &StoreError) {
    for one in members {
        one.answer(Err(AppendError::Store(error.clone())));
    }
}

//! The choice of the segments that go next, and how far they go.

use std::collections::BTreeSet;
use std::time::Duration;

use dacapo_model::{
    PendingReplay, Position, Segment, SegmentCount, Timestamp, Token, TokenMove, WaitingOn, covered, grouped, limits,
    replay,
};
use tokio::time::Instant;

use crate::processor::refusals::Refusals;

/// The progress of a processor, for its watchers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    /// The tokens of the version, as they were last seen. Those of segments that are claimed here are as of the last
    /// commit, the others as they were read. Empty before the first look.
    pub(crate) tokens: Vec<Token>,
    /// The number of events that are set aside; `None` before the processor has its claim.
    pub(crate) letters: Option<u64>,
    /// The position after which the present batch begins, and the time of its beginning.
    pub(crate) batch: Option<(Position, Instant)>,
    /// True while the store is asked to commit that batch.
    commits: bool,
    /// The failure of the store that ended the last run. It stays until a commit has succeeded, since a new run that
    /// has only begun shows nothing about the store.
    failed: Option<WaitingOn>,
    /// Its other wait reasons, if it is not just following.
    pub(crate) waiting_on: Vec<WaitingOn>,
}

impl Progress {
    /// Records tokens that were read or committed, in any order. Returns true if any of them is news.
    pub(crate) fn see(&mut self, tokens: &[Token]) -> bool {
        let mut news = false;
        for token in tokens {
            match self.tokens.binary_search_by_key(&token.segment, |known| known.segment) {
                Ok(at) if !token.is_later_than(&self.tokens[at]) => continue,
                Ok(at) => self.tokens[at] = *token,
                Err(at) => self.tokens.insert(at, *token),
            }
            news = true;
        }
        news
    }

    /// Records the tokens of a claim, as they are stored. They may be earlier than those that were seen, if the store has
    /// lost commits: a standby that took over may lack the last ones of a view.
    pub(super) fn claimed(&mut self, tokens: &[Token]) {
        self.see(tokens);
        for token in tokens {
            let known = self.tokens.iter_mut().find(|known| known.segment == token.segment);
            known.into_iter().for_each(|known| *known = *token);
        }
    }

    /// Records that the processor is between two batches, with these tokens and this many events set aside.
    pub(super) fn rests(&mut self, tokens: &[Token], aside: u64, waiting_on: Vec<WaitingOn>) {
        self.see(tokens);
        (self.letters, self.batch, self.waiting_on) = (Some(aside), None, waiting_on);
        self.commits = false;
    }

    /// Records that a batch begins.
    pub(super) fn begins(&mut self, after: Position, now: Instant) {
        (self.batch, self.commits) = (Some((after, now)), false);
    }

    /// Records whether the store is asked to commit the present batch.
    pub(super) fn commits(&mut self, commits: bool) {
        self.commits = commits;
    }

    /// Records the failure of the store that ended a run.
    pub(super) fn fails(&mut self, reason: WaitingOn) {
        (self.failed, self.waiting_on) = (Some(reason), vec![]);
        self.commits = false;
    }

    /// Records that nothing waits for the store any more. Returns true if something did.
    pub(super) fn recovers(&mut self) -> bool {
        self.failed.take().is_some()
    }

    /// Returns all of its wait reasons, the failure of the store first.
    pub(crate) fn reasons(&self) -> impl Iterator<Item = &WaitingOn> {
        self.failed.iter().chain(&self.waiting_on)
    }

    /// Returns the wait reason of a batch that takes long, if one is under way.
    pub(crate) fn busy(&self) -> Option<WaitingOn> {
        let (after, since) = self.batch?;
        let since = since.elapsed();
        Some(match self.commits {
            true => {
                let (after, since) = (grouped(after.get()), since.as_secs());
                let error = format!("the batch after position {after} began {since} s ago and is not committed yet");
                WaitingOn::Store { error }
            }
            false => WaitingOn::Batch { after, since },
        })
    }

    /// Returns the position that all of its segments cover; the start before the first look.
    pub(crate) fn covers(&self) -> Position {
        covered(&self.tokens)
    }

    /// Returns the position that readers may be told as covered. `last` is the last requested replay in place.
    pub(crate) fn shown(&self, last: Option<&PendingReplay>) -> Option<Position> {
        replay::shown(&self.tokens, last)
    }
}

/// The tokens of the segments that a run has claimed, and their refusals.
pub(crate) struct Segments {
    /// The number of segments of the version.
    count: SegmentCount,
    /// The tokens, in the order of segments.
    tokens: Vec<Token>,
    pub(super) refusals: Refusals,
    /// True if the segments near the head go before those with a large lag.
    others_turn: bool,
}

/// The segments of one batch, all at the same token, and how far each goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Share {
    /// The token from which they start.
    pub(super) after: Position,
    members: Vec<Segment>,
    /// For each segment of the version how far it goes: to the next higher token, where more segments join, or to the
    /// head. A segment that takes no part has a limit below the batch.
    limits: Vec<Position>,
}

impl Segments {
    /// Returns the segments that were claimed with these tokens. The store checks at each commit whether they are held:
    /// a mark that was there at the claim may be lifted by now.
    ///
    /// Refusals of other segments are removed.
    pub(super) fn new(count: SegmentCount, tokens: Vec<Token>, mut refusals: Refusals) -> Self {
        let tokens: Vec<Token> = tokens.into_iter().map(|token| Token { held_for: None, cap: None, ..token }).collect();
        refusals.only(|segment| tokens.iter().any(|token| token.segment == segment));
        Self { count, tokens, refusals, others_turn: false }
    }

    /// Returns the position that all of them cover.
    pub(super) fn covers(&self) -> Position {
        covered(&self.tokens)
    }

    /// Returns true if they are all segments of the version.
    pub(super) fn is_whole(&self) -> bool {
        self.tokens.len() == usize::from(self.count.get())
    }

    /// Returns true if this run has claimed the segment.
    pub(super) fn has(&self, segment: Segment) -> bool {
        self.tokens.binary_search_by_key(&segment, |token| token.segment).is_ok()
    }

    #[expect(clippy::expect_used, reason = "the segment is this run's")]
    fn token(&self, segment: Segment) -> &Token {
        let at = self.tokens.binary_search_by_key(&segment, |token| token.segment);
        &self.tokens[at.expect("the segment is this run's")]
    }

    /// Returns the last position that a segment of this run had applied before a replay.
    pub(super) fn replays_through(&self, segment: Segment) -> Position {
        self.token(segment).replays_through()
    }

    /// Returns a position for each segment of the version, that of its token if the segment is this run's.
    pub(super) fn each(&self, position: impl Fn(&Token) -> Position) -> Vec<Position> {
        let mut each = vec![Position::START; usize::from(self.count.get())];
        self.tokens.iter().for_each(|token| each[usize::from(token.segment.get())] = position(token));
        each
    }

    /// Returns moves that leave every token at its place. They are the fence of a commit that only records something.
    pub(super) fn still(&self) -> Vec<TokenMove> {
        self.tokens.iter().map(|token| token.step(token.position, 0)).collect()
    }

    /// Returns the number of segments of the version.
    pub(super) fn count(&self) -> SegmentCount {
        self.count
    }

    /// Returns the segments that go next: the lowest of those that are below `head` and do not halt at `now`. If those
    /// have a large lag, such as after a long halt, they take turns with those near the head.
    pub(super) fn next_share(&self, head: Position, now: Timestamp) -> Option<Share> {
        let may_run = |token: &&Token| !self.refusals.halts(token.segment, now);
        let running: Vec<&Token> = self.tokens.iter().filter(may_run).collect();
        let below = || running.iter().map(|token| token.position).filter(|position| *position < head);
        let (lowest, highest) = (below().min()?, below().max()?);
        let is_far = |position| head.since(position) > limits::READY_LAG_MAX;
        let after = if self.others_turn && is_far(lowest) && !is_far(highest) { highest } else { lowest };
        let above = running.iter().map(|token| token.position).filter(|position| *position > after).min();
        let upper = above.map_or(head, |above| above.min(head));
        let members: Vec<Segment> =
            running.iter().filter(|token| token.position == after).map(|token| token.segment).collect();
        let mut limits = vec![Position::START; usize::from(self.count.get())];
        for member in &members {
            // A batch ends with a replay, so that the end is a state of its own.
            let token = self.token(*member);
            limits[usize::from(member.get())] =
                if token.replays() { upper.min(token.replays_through()) } else { upper };
        }
        Some(Share { after, members, limits })
    }

    /// Returns the time until the next try of a halting segment.
    pub(super) fn next_due(&self, now: Timestamp) -> Option<Duration> {
        self.refusals.next_due(now)
    }

    /// Returns how often the event at `position` was refused before.
    pub(super) fn attempts(&self, segment: Segment, position: Position) -> u32 {
        let before = self.refusals.get(segment).filter(|before| before.position == position);
        before.map_or(0, |before| before.attempts)
    }

    /// Returns the moves that commit `share`, in which each segment has taken this many events.
    pub(super) fn moves(&self, share: &Share, applied: &[u64]) -> Vec<TokenMove> {
        let moved = |segment: &Segment| {
            let at = usize::from(segment.get());
            self.token(*segment).step(share.limits[at], applied[at])
        };
        share.members.iter().map(moved).collect()
    }

    /// Returns the move that leaves a segment at its place. It is the fence of a record.
    pub(super) fn stay(&self, segment: Segment) -> TokenMove {
        let token = self.token(segment);
        token.step(token.position, 0)
    }

    /// Checks what a run is about to commit against its own tokens, before the store compares the same with what is
    /// stored (I-4).
    ///
    /// # Panics
    /// If there is no move, a move does not start from the token of a segment of this run, or a segment is named twice.
    pub(super) fn check(&self, moves: &[TokenMove]) {
        assert!(!moves.is_empty(), "I-4: without a move nothing would fence a commit");
        let mut named = BTreeSet::new();
        for asked in moves {
            assert!(named.insert(asked.segment), "I-3: a commit names segment {} once", asked.segment);
            let moved = self.token(asked.segment).moved(*asked);
            assert!(moved.is_ok(), "I-4: a run commits what its own tokens allow: {moved:?}");
        }
    }

    /// Records that these moves are committed. Only here the processor's copy of its tokens moves.
    #[expect(clippy::expect_used, reason = "the segment is this run's; the store has carried out this move")]
    pub(super) fn committed(&mut self, moves: &[TokenMove]) {
        for asked in moves.iter().copied() {
            let at = self.tokens.binary_search_by_key(&asked.segment, |token| token.segment);
            let token = &mut self.tokens[at.expect("the segment is this run's")];
            *token = token.moved(asked).expect("the store has carried out this move");
            self.refusals.moved(token);
        }
        self.others_turn = !self.others_turn;
    }

    pub(super) fn tokens(&self) -> &[Token] {
        &self.tokens
    }
}

impl Share {
    /// Returns the same share, but no further than `through`, where a read ended.
    pub(super) fn through(&self, through: Position) -> Self {
        let limits = self.limits.iter().map(|limit| (*limit).min(through)).collect();
        Self { limits, ..self.clone() }
    }

    /// Returns how far the batch goes.
    pub(super) fn moves_through(&self) -> Position {
        self.limits.iter().copied().max().unwrap_or_default()
    }

    pub(super) fn limits(&self) -> &[Position] {
        &self.limits
    }

    /// Lets `segment` go only through the event before `position`.
    pub(super) fn stop_before(&mut self, segment: Segment, position: Position) {
        let before = Position::new(position.get() - 1);
        if before > self.after {
            self.limits[usize::from(segment.get())] = before;
        } else {
            self.limits[usize::from(segment.get())] = Position::START;
            self.members.retain(|member| *member != segment);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(super) fn has(&self, segment: Segment) -> bool {
        self.members.contains(&segment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dacapo_model::{Applied, Epoch, Refusal, Retry};

    const START: Timestamp = Timestamp::from_micros(0);

    fn refusal(segment: Segment, position: u64, attempts: u32, due: Timestamp) -> Refusal {
        Refusal { segment, position: Position::new(position), attempts, error: "no".into(), since: START, due }
    }

    /// Commits a share in which nobody counts.
    fn commit(segments: &mut Segments, share: &Share) {
        let moves = segments.moves(share, &vec![0; usize::from(segments.count.get())]);
        segments.committed(&moves);
    }

    fn segments(positions: &[u64]) -> Segments {
        let count = SegmentCount::new(positions.len() as u16).unwrap();
        let token = |(segment, position): (Segment, &u64)| Token {
            segment,
            epoch: Epoch::new(1),
            position: Position::new(*position),
            claimed_by: None,
            held_for: None,
            cap: None,
            applied: Applied::default(),
            replay: None,
        };
        let tokens = count.segments().zip(positions).map(token).collect();
        Segments::new(count, tokens, Refusals::new([], Retry::default()))
    }

    fn limits(share: &Share) -> Vec<u64> {
        share.limits().iter().map(|limit| limit.get()).collect()
    }

    #[test]
    fn the_lowest_segments_go_first_up_to_the_next_above() {
        let segments = segments(&[5, 3, 3, 9]);
        let share = segments.next_share(Position::new(20), START).unwrap();
        assert_eq!((share.after.get(), limits(&share)), (3, vec![0, 5, 5, 0]));
        assert_eq!(limits(&share.through(Position::new(4))), vec![0, 4, 4, 0]);
    }

    #[test]
    fn segments_meet_and_go_on_together_without_reading_twice() {
        let mut segments = segments(&[5, 3, 9]);
        let mut reads = vec![];
        while let Some(share) = segments.next_share(Position::new(12), START) {
            reads.push((share.after.get(), share.moves_through().get()));
            commit(&mut segments, &share);
        }
        assert_eq!(reads, [(3, 5), (5, 9), (9, 12)]);
        assert!(segments.tokens.iter().all(|token| token.position.get() == 12));
    }

    #[test]
    fn a_batch_that_straddles_the_end_of_a_replay_is_cut_there_for_each_segment() {
        let mut segments = segments(&[8, 6, 3]);
        let asked = PendingReplay { requested: Position::new(9), after: Position::new(3), ..PendingReplay::default() };
        let back: Vec<_> = segments.tokens.iter().filter_map(|token| token.take_up(&asked)).collect();
        segments.committed(&back);
        let mut batches = vec![];
        while let Some(share) = segments.next_share(Position::new(12), Timestamp::from_micros(0)) {
            batches.push((share.after.get(), limits(&share)));
            commit(&mut segments, &share);
        }
        assert_eq!(batches, [(3, vec![8, 6, 12]), (6, vec![0, 8, 0]), (8, vec![12, 12, 0])]);
    }

    #[test]
    fn one_that_is_far_behind_takes_turns_with_those_that_follow_the_head() {
        let (far, head) = (limits::READY_LAG_MAX * 3, limits::READY_LAG_MAX * 3 + 5);
        let mut segments = segments(&[0, far, far]);
        let mut reads = vec![];
        for head in [head, head, head + 2, head + 2] {
            let mut share = segments.next_share(Position::new(head), START).unwrap();
            if share.after.get() < far {
                share = share.through(share.after.plus(100));
            }
            reads.push((share.after.get(), share.moves_through().get()));
            commit(&mut segments, &share);
        }
        assert_eq!(reads, [(0, 100), (far, head), (100, 200), (head, head + 2)]);
    }

    #[test]
    fn a_mark_at_the_claim_does_not_outlive_its_lifting() {
        let held = Token { held_for: Some(Position::new(2)), ..segments(&[3]).tokens[0] };
        let mut segments = Segments::new(SegmentCount::ONE, vec![held], Refusals::new([], Retry::default()));
        let share = segments.next_share(Position::new(5), START).unwrap();
        commit(&mut segments, &share);
        assert_eq!(segments.tokens[0].position, Position::new(5));
    }

    #[test]
    fn a_run_takes_care_of_the_segments_that_it_has_alone() {
        let all = segments(&[5, 3, 0, 9]);
        let kept = [1, 2].map(|segment| refusal(all.count().segment(segment).unwrap(), 4, 1, START));
        let some = vec![all.tokens[1], all.tokens[3]];
        let mut some = Segments::new(all.count(), some, Refusals::new(kept, Retry::default()));
        assert!(!some.is_whole() && all.is_whole());
        assert_eq!(some.refusals.reasons().len(), 1, "the other is not its own");
        assert_eq!((some.covers(), some.each(|token| token.position).len()), (Position::new(3), 4));
        let mut reads = vec![];
        while let Some(share) = some.next_share(Position::new(12), START) {
            reads.push((share.after.get(), limits(&share)));
            commit(&mut some, &share);
        }
        assert_eq!(reads, [(3, vec![0, 9, 0, 0]), (9, vec![0, 12, 0, 12])]);
    }

    #[test]
    fn what_was_seen_of_a_token_later_counts_however_late_it_is_told() {
        let [older, newer] = [3, 7].map(|at| segments(&[at, at]).tokens);
        let mut progress = Progress::default();
        progress.see(&newer[1..]);
        progress.see(&older);
        assert_eq!(progress.tokens, [older[0], newer[1]]);
        let claimed = Token { epoch: Epoch::new(2), ..older[1] };
        progress.see(&[claimed]);
        progress.see(&newer);
        assert_eq!(progress.tokens, [newer[0], claimed]);
    }

    #[test]
    fn a_halting_segment_does_not_hold_the_others_back() {
        let mut segments = segments(&[3, 3]);
        let later = START.plus(Duration::from_secs(1));
        let share = segments.next_share(Position::new(10), START).unwrap();
        let halting = segments.count().segment(0).unwrap();
        segments.refusals.put(refusal(halting, 6, 1, later), false);
        let mut capped = share.clone();
        capped.stop_before(halting, Position::new(6));
        assert_eq!(limits(&capped.through(Position::new(8))), [5, 8], "where a read ends lets nobody go further");
        commit(&mut segments, &capped);
        assert_eq!(segments.tokens.iter().map(|token| token.position.get()).collect::<Vec<_>>(), [5, 10]);
        assert_eq!(segments.next_share(Position::new(10), START), None, "it waits until it is due");
        assert_eq!(segments.next_due(START), Some(Duration::from_secs(1)));

        let again = segments.next_share(Position::new(10), later).unwrap();
        assert_eq!((again.after.get(), limits(&again)), (5, vec![10, 0]));
        assert_eq!(segments.attempts(halting, Position::new(6)), 1);
        assert_eq!(segments.attempts(halting, Position::new(7)), 0, "another event was never tried");
        let mut stuck = again.clone();
        stuck.stop_before(halting, Position::new(6));
        assert!(stuck.is_empty(), "nothing to commit before the event that is refused");
        let stays = segments.stay(halting);
        assert_eq!((stays.from, stays.to), (Position::new(5), Position::new(5)), "what is recorded is fenced");

        commit(&mut segments, &again);
        assert_eq!(segments.refusals.reasons(), [], "it got over the event");
    }

    #[test]
    fn what_halts_is_tried_at_once_when_that_is_wanted() {
        let mut segments = segments(&[3, 9]);
        let halting = segments.count().segment(0).unwrap();
        segments.refusals.put(refusal(halting, 4, 7, START.plus(Duration::from_secs(20))), false);
        assert_eq!(segments.next_share(Position::new(9), START), None);
        segments.refusals.try_now(START);
        assert!(segments.next_share(Position::new(9), START).is_some_and(|share| share.has(halting)));
    }

    #[test]
    fn what_is_due_and_may_not_run_is_not_waited_for() {
        // A cap may keep a segment where it is: it would wake up again and again until the cap is gone.
        let mut segments = segments(&[3, 9]);
        let halting = segments.count().segment(0).unwrap();
        let later = START.plus(Duration::from_secs(1));
        segments.refusals.put(refusal(halting, 4, 1, later), false);
        assert_eq!(segments.next_due(START), Some(Duration::from_secs(1)));
        assert_eq!((segments.next_share(Position::new(3), later), segments.next_due(later)), (None, None));
        // The clock was put back.
        segments.refusals.put(refusal(halting, 4, 1, START.plus(Duration::from_secs(3_600))), false);
        assert_eq!((segments.next_share(Position::new(3), START), segments.next_due(START)), (None, None));
    }
}

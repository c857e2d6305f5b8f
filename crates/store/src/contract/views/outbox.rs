//! The outbox: which effects are due, and what became of them.

use super::*;

pub(super) fn effect(token: &Token, position: u64, ordinal: u32, stream: &str) -> NewEffect {
    NewEffect {
        position: Position::new(position),
        ordinal,
        segment: token.segment,
        stream: StreamName::new(stream).expect("a valid name"),
        name: "mail".into(),
        payload: format!("{{\"number\":{position}}}").into_bytes(),
    }
}

/// The longest wait between two tries of an effect.
pub(super) fn longest() -> Duration {
    Duration::from_micros(400)
}

/// Returns the positions and ordinals of the due effects.
pub(super) async fn due(view: &dyn View, now: i64) -> Vec<(u64, u32)> {
    let due = view.effects_due(Timestamp::from_micros(now), longest(), 10).await.expect("read");
    due.iter().map(|it| (it.effect.position.get(), it.effect.ordinal)).collect()
}

/// Commits these effects with a move of the first token.
pub(super) async fn emit(view: &dyn View, effects: Vec<NewEffect>) {
    let token = view.tokens().await.expect("tokens")[0];
    let mut writer = view.writer().await.expect("a writer");
    let commit = Commit { effects, ..Commit::of([step(&token, 1)]) };
    writer.commit(&commit).await.expect("committed");
}

/// Returns the claim under which effects are settled, and takes it if nobody has it.
pub(super) async fn acting(view: &dyn View) -> EffectsClaim {
    let seen = view.effects_claim().await.expect("read");
    if seen.owner.is_some() {
        return seen;
    }
    let next = seen.taken(MemberId::from_bytes([1; 16]), Timestamp::from_micros(0));
    assert!(view.claim_effects(seen, next).await.expect("claimed"));
    next
}

/// Records the result of the due effect of an event.
pub(super) async fn settle(view: &dyn View, position: u64, settled: EffectOutcome) {
    let due = view.effects_due(Timestamp::from_micros(i64::MAX), longest(), 10).await.expect("read");
    let found = due.iter().find(|it| it.effect.position.get() == position).expect("it is due");
    let claim = acting(view).await;
    view.settle_effects(claim, &[(found.number, settled.clone())]).await.expect("recorded");
    if settled == EffectOutcome::Done {
        view.settle_effects(claim, &[(found.number, settled)]).await.expect("told twice");
    }
}

/// Effects of a stream are due one after the other, and those of other streams at the same time, across later commits.
pub async fn effects_of_a_stream_are_due_one_after_the_other(views: &dyn Views) {
    let (view, _) = claimed(views).await;
    let token = view.tokens().await.expect("tokens")[0];
    assert_eq!(view.outbox(10).await.expect("read"), Outbox::default());
    let first = [effect(&token, 1, 0, "a-1"), effect(&token, 1, 1, "a-1"), effect(&token, 2, 0, "a-2")];
    emit(&*view, first.to_vec()).await;
    emit(&*view, vec![effect(&token, 3, 0, "a-1"), effect(&token, 4, 0, "a-3")]).await;
    let stored = view.effects_due(Timestamp::from_micros(0), longest(), 1).await.expect("read");
    assert_eq!((stored.len(), &stored[0].effect, stored[0].attempts), (1, &first[0], 0));
    assert_eq!(due(&*view, 0).await, [(1, 0), (2, 0), (4, 0)]);
    let stream = StreamName::new("a-1").expect("a valid name");
    let first_after = async |after| {
        let first = view.first_effect(&stream, Position::new(after)).await.expect("read");
        first.map(Position::get)
    };
    assert_eq!([first_after(0).await, first_after(1).await, first_after(3).await], [Some(1), Some(3), None]);
    settle(&*view, 1, EffectOutcome::Done).await;
    assert_eq!(due(&*view, 0).await, [(1, 1), (2, 0), (4, 0)]);
    settle(&*view, 1, EffectOutcome::Done).await;
    assert_eq!(due(&*view, 0).await, [(2, 0), (3, 0), (4, 0)]);
    assert_eq!(first_after(0).await, Some(3));
    for position in [3, 2, 4] {
        settle(&*view, position, EffectOutcome::Done).await;
    }
    assert_eq!(first_after(0).await, None);
    assert_eq!(view.outbox(10).await.expect("read"), Outbox::default());
    emit(&*view, vec![effect(&token, 5, 0, "a-1")]).await;
    assert_eq!(due(&*view, 0).await, [(5, 0)], "what comes after everything was made is due");
}

/// The back-off and the error are stored with the effect.
pub async fn an_effect_that_fails_is_due_later_and_holds_back_only_its_stream(views: &dyn Views) {
    let (view, _) = claimed(views).await;
    let token = view.tokens().await.expect("tokens")[0];
    emit(&*view, vec![effect(&token, 1, 0, "a-1"), effect(&token, 2, 0, "a-1"), effect(&token, 3, 0, "a-2")]).await;
    for attempts in 1..=2 {
        let failed = EffectOutcome::Failed { error: format!("try {attempts}"), due: Timestamp::from_micros(500) };
        settle(&*view, 1, failed).await;
    }
    assert_eq!(due(&*view, 499).await, [(3, 0)]);
    assert_eq!(due(&*view, 99).await, [(3, 0), (1, 0)], "no wait is that long: another clock is ahead");
    assert_eq!(due(&*view, 500).await, [(3, 0), (1, 0)]);
    let Outbox { pending, next_due, failing, .. } = view.outbox(10).await.expect("read");
    assert_eq!((pending, next_due, failing.len()), (3, Some(Timestamp::from_micros(0)), 1));
    let failing = &failing[0];
    assert_eq!((failing.attempts, failing.error.as_deref(), failing.due.micros()), (2, Some("try 2"), 500));
    settle(&*view, 3, EffectOutcome::Done).await;
    assert_eq!(view.outbox(10).await.expect("read").next_due, Some(Timestamp::from_micros(500)));
    settle(&*view, 1, EffectOutcome::Done).await;
    assert_eq!(due(&*view, 0).await, [(2, 0)]);
}

/// After each decision about effects, every stream has one that is due.
pub async fn an_effect_that_is_set_aside_holds_nothing_back_and_is_retried_or_dropped(views: &dyn Views) {
    let (view, _) = claimed(views).await;
    let token = view.tokens().await.expect("tokens")[0];
    let all = [1, 2, 3].map(|position| effect(&token, position, 0, "a-1"));
    emit(&*view, all.into_iter().chain([effect(&token, 4, 0, "a-2")]).collect()).await;
    let listed = async |untried| {
        let letters = view.effect_letters(0, 10, untried).await.expect("read");
        letters.iter().map(|it| (it.pending.effect.position.get(), it.aside.is_some())).collect::<Vec<_>>()
    };
    let decide = async |which: WhichLetters, through: u64, untried, wish| {
        let which = WhichEffects { which, through: Position::new(through), untried };
        view.decide_effects(&which, wish).await.expect("recorded")
    };
    let aside = || EffectOutcome::SetAside { error: "no\0t now".into(), at: Timestamp::from_micros(9) };
    settle(&*view, 1, aside()).await;
    assert_eq!(due(&*view, 0).await, [(2, 0), (4, 0)], "its stream goes on without it");
    let Outbox { pending, aside: kept, .. } = view.outbox(10).await.expect("read");
    assert_eq!((pending, kept), (3, 1));
    let stream = StreamName::new("a-1").expect("a valid name");
    assert_eq!(view.first_effect(&stream, Position::START).await.expect("read"), Some(Position::new(2)));
    settle(&*view, 2, EffectOutcome::Failed { error: "no".into(), due: Timestamp::from_micros(300) }).await;
    assert_eq!(listed(false).await, [(1, true), (2, false)]);
    assert_eq!(listed(true).await.len(), 4);
    let letter = &view.effect_letters(0, 1, false).await.expect("read")[0];
    let kept = (letter.aside.map(Timestamp::micros), letter.pending.attempts);
    assert_eq!(kept, (Some(9), 1), "{letter:?}");
    assert_eq!(view.effect_letters(letter.pending.number, 1, false).await.expect("read").len(), 1, "the next one");
    emit(&*view, vec![effect(&token, 1, 0, "a-1")]).await;
    assert_eq!(listed(true).await.len(), 4, "what is set aside is there already");

    assert_eq!(decide(WhichLetters::All, 0, false, Wish::Drop).await, 0, "nothing of an event so early");
    assert_eq!(decide(WhichLetters::Stream(stream.clone()), 9, false, Wish::Retry).await, 2);
    assert_eq!(due(&*view, 0).await, [(1, 0), (4, 0)], "it comes first again, and the others wait");
    settle(&*view, 1, aside()).await;
    assert_eq!(due(&*view, 0).await, [(2, 0), (4, 0)]);
    assert_eq!(decide(WhichLetters::One(Position::new(2)), 9, true, Wish::Drop).await, 1);
    assert_eq!(due(&*view, 0).await, [(3, 0), (4, 0)], "what waited for it is due");
    assert_eq!(decide(WhichLetters::All, 9, false, Wish::Drop).await, 1, "what was never tried stays");
    assert_eq!((listed(true).await.len(), due(&*view, 0).await), (2, vec![(3, 0), (4, 0)]));
    assert_eq!(decide(WhichLetters::All, 9, true, Wish::Drop).await, 2);
    assert_eq!(view.outbox(10).await.expect("read"), Outbox::default());
    emit(&*view, vec![effect(&token, 5, 0, "a-1")]).await;
    assert_eq!(due(&*view, 0).await, [(5, 0)]);
}

// I-3, I-4
/// An event that is applied again emits no effect that exists already.
pub async fn effects_are_kept_with_the_rows_or_not_at_all(views: &dyn Views) {
    let (view, first) = claimed(views).await;
    let token = view.tokens().await.expect("tokens")[0];
    claim_all(&*view).await;
    let mut zombie = view.writer().await.expect("a writer");
    let commit = Commit { effects: vec![effect(&token, 1, 0, "a-1")], ..Commit::of([first]) };
    refused(zombie.commit(&commit).await);
    assert_eq!(view.outbox(10).await.expect("read").pending, 0);
    for _ in 0..2 {
        emit(&*view, vec![effect(&token, 1, 0, "a-1")]).await;
    }
    assert_eq!((view.outbox(10).await.expect("read").pending, due(&*view, 0).await), (1, vec![(1, 0)]));
}

/// An event that was never applied may speak until its own segment has passed it, and as long as it is set aside.
pub async fn what_was_never_applied_may_speak_when_it_comes_again(views: &dyn Views) {
    let (view, first) = claimed(views).await;
    let tokens = view.tokens().await.expect("tokens");
    let mut writer = view.writer().await.expect("a writer");
    let unspoken = [2, 4].map(|position| (tokens[1].segment, Position::new(position)));
    let commit = Commit { unspoken: unspoken.to_vec(), ..Commit::of([first]) };
    writer.commit(&commit).await.expect("committed");
    let positions = async || view.unspoken().await.expect("read").into_iter().map(Position::get).collect::<Vec<_>>();
    assert_eq!(positions().await, [2, 4], "the other segment is further");
    writer.commit(&Commit::of([step(&tokens[1], 3)])).await.expect("committed");
    assert_eq!(positions().await, [4]);
    let token = view.tokens().await.expect("tokens")[1];
    let letters = vec![letter(&token, 4, LetterKind::Refused)];
    writer.commit(&Commit { letters, ..Commit::of([step(&token, 1)]) }).await.expect("committed");
    assert_eq!(positions().await, [4], "it was set aside again");
    let token = view.tokens().await.expect("tokens")[1];
    let settled = vec![Position::new(4)];
    writer.commit(&Commit { settled, ..Commit::of([step(&token, 0)]) }).await.expect("committed");
    assert!(positions().await.is_empty());
}

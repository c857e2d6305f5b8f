//! Checks of the claim on effects, and of the results of effects that were begun.

use dacapo_model::BegunEffect;

use super::*;

const ONE: MemberId = MemberId::from_bytes([1; 16]);
const OTHER: MemberId = MemberId::from_bytes([2; 16]);

fn of(member: MemberId, epoch: Epoch) -> EffectsClaim {
    EffectsClaim { epoch, owner: Some(member) }
}

async fn take(view: &dyn View, seen: EffectsClaim, by: MemberId, at: i64) -> EffectsClaim {
    let next = seen.taken(by, Timestamp::from_micros(at));
    assert!(view.claim_effects(seen, next).await.expect("claimed"), "it is the one that was seen");
    next
}

async fn number_of(view: &dyn View, position: u64) -> u64 {
    let due = view.effects_due(Timestamp::from_micros(i64::MAX), longest(), 10).await.expect("read");
    due.iter().find(|it| it.effect.position.get() == position).expect("it is due").number
}

// I-9
/// Of several callers that saw the same claim, one gets the right. The previous holder begins nothing any more.
pub async fn effects_are_begun_under_the_last_claim_only(views: &dyn Views) {
    let (view, _) = claimed(views).await;
    let token = view.tokens().await.expect("tokens")[0];
    emit(&*view, vec![effect(&token, 1, 0, "a-1"), effect(&token, 2, 0, "a-1"), effect(&token, 3, 0, "a-2")]).await;
    let numbers = [number_of(&*view, 3).await, number_of(&*view, 1).await];
    assert_eq!(view.effects_claim().await.expect("read"), EffectsClaim::default());
    assert_eq!(
        view.begin_effects(of(ONE, Epoch::new(1)), &numbers).await.expect("asked"),
        None,
        "nobody has the right"
    );
    let first = take(&*view, EffectsClaim::default(), ONE, 1).await;
    let late = EffectsClaim::default().taken(OTHER, Timestamp::from_micros(5));
    assert!(!view.claim_effects(EffectsClaim::default(), late).await.expect("asked"));
    assert_eq!(view.effects_claim().await.expect("read"), first);
    let begun = |before| numbers.map(|number| BegunEffect { number, before }).to_vec();
    assert_eq!(view.begin_effects(first, &numbers).await.expect("begun"), Some(begun(None)), "in the order asked for");
    let second = take(&*view, first, OTHER, 2).await;
    assert!(second.epoch > first.epoch);
    assert_eq!(
        view.begin_effects(of(ONE, second.epoch), &numbers).await.expect("asked"),
        None,
        "it is another member's"
    );
    assert_eq!(view.begin_effects(first, &numbers).await.expect("asked"), None);
    assert_eq!(
        view.begin_effects(second, &numbers).await.expect("begun"),
        Some(begun(Some(first.epoch))),
        "it may be made"
    );
    let third = second.given_back();
    assert!(!view.claim_effects(of(ONE, second.epoch), third).await.expect("asked"), "it is another member's");
    assert!(view.claim_effects(second, third).await.expect("given back"));
    assert_eq!(view.effects_claim().await.expect("read"), EffectsClaim { epoch: third.epoch, owner: None });
    assert_eq!(view.begin_effects(second, &numbers).await.expect("asked"), None);
}

// I-9
/// Only the member that began an effect last records its result. An effect that must not be made any more is not begun.
pub async fn a_try_says_nothing_of_what_was_begun_after_it(views: &dyn Views) {
    let (view, _) = claimed(views).await;
    let token = view.tokens().await.expect("tokens")[0];
    emit(&*view, vec![effect(&token, 1, 0, "a-1"), effect(&token, 2, 0, "a-1"), effect(&token, 3, 0, "a-2")]).await;
    let numbers = [number_of(&*view, 1).await, number_of(&*view, 3).await];
    let [both, other] = numbers;
    let first = take(&*view, EffectsClaim::default(), ONE, 1).await;
    view.begin_effects(first, &numbers).await.expect("begun").expect("it has the right");
    let second = take(&*view, first, OTHER, 2).await;
    view.begin_effects(second, &[both]).await.expect("begun").expect("it has the right");

    let failed = || EffectOutcome::Failed { error: "late".into(), due: Timestamp::from_micros(300) };
    view.settle_effects(first, &[(both, failed()), (other, EffectOutcome::Done)]).await.expect("recorded");
    assert_eq!(due(&*view, 0).await, [(1, 0)], "what nobody has begun since is done");
    view.settle_effects(first, &[(both, EffectOutcome::Done)]).await.expect("recorded");
    assert_eq!(due(&*view, 0).await, [(1, 0)], "another try of it is under way");
    view.settle_effects(second, &[(both, failed())]).await.expect("recorded");
    assert_eq!((due(&*view, 200).await, due(&*view, 300).await), (vec![], vec![(1, 0)]));
    let begun = view.begin_effects(second, &[other, both]).await.expect("begun");
    assert_eq!(begun, Some(vec![BegunEffect { number: both, before: None }]), "what came of it was recorded");
    view.settle_effects(second, &[(both, EffectOutcome::Done)]).await.expect("recorded");
    assert_eq!(due(&*view, 300).await, [(2, 0)]);
}

// I-9
/// A paused member may settle under a claim that a restored view, or a view that was built again, never had. In that
/// view its numbers mean other effects.
pub async fn a_claim_that_the_store_lost_settles_nothing(views: &dyn Views) {
    let (view, _) = claimed(views).await;
    let token = view.tokens().await.expect("tokens")[0];
    emit(&*view, vec![effect(&token, 1, 0, "a-1"), effect(&token, 2, 0, "a-2")]).await;
    let [begun, untried] = [number_of(&*view, 1).await, number_of(&*view, 2).await];
    let lost = EffectsClaim::default().taken(ONE, Timestamp::from_micros(1_000));
    let done = [(begun, EffectOutcome::Done), (untried, EffectOutcome::Done)];
    view.settle_effects(lost, &done).await.expect("told");
    assert_eq!(due(&*view, 0).await, [(1, 0), (2, 0)], "nobody has the right");
    let claim = take(&*view, EffectsClaim::default(), OTHER, 2_000).await;
    view.begin_effects(claim, &[begun]).await.expect("begun").expect("it has the right");
    assert!(!view.claim_effects(lost, lost.given_back()).await.expect("asked"));
    for stale in [lost, EffectsClaim { epoch: Epoch::new(3_000), owner: Some(ONE) }] {
        view.settle_effects(stale, &done).await.expect("told");
        assert_eq!(due(&*view, 0).await, [(1, 0), (2, 0)], "{stale:?} has begun none of them");
    }
    assert_eq!(view.begin_effects(lost, &[untried]).await.expect("asked"), None);
    view.settle_effects(claim, &done).await.expect("recorded");
    assert_eq!(due(&*view, 0).await, [], "what is not to be made goes without having begun");
}

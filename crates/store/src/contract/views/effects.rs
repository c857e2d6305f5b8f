//! Who may make effects, and what is said of those that were begun.

use dacapo_model::{BegunEffect, EffectsClaim, MemberId};

use super::*;

const ONE: MemberId = MemberId::from_bytes([1; 16]);
const OTHER: MemberId = MemberId::from_bytes([2; 16]);

fn of(member: MemberId, epoch: Epoch) -> EffectsClaim {
    EffectsClaim { epoch, owner: Some(member) }
}

async fn number_of(view: &dyn View, position: u64) -> u64 {
    let due = view.effects_due(Timestamp::from_micros(i64::MAX), LONGEST, 10).await.expect("read");
    due.iter().find(|it| it.effect.position.get() == position).expect("it is due").number
}

// I-9
/// Of several that saw the same, one gets the right, and whoever had it before begins nothing any more.
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
    let first = view.claim_effects(Some(ONE), Epoch::UNCLAIMED).await.expect("claimed").expect("it was nobody's");
    assert_eq!(view.claim_effects(Some(OTHER), Epoch::UNCLAIMED).await.expect("asked"), None);
    assert_eq!(view.effects_claim().await.expect("read"), of(ONE, first));
    let begun = |before| numbers.map(|number| BegunEffect { number, before }).to_vec();
    assert_eq!(
        view.begin_effects(of(ONE, first), &numbers).await.expect("begun"),
        Some(begun(None)),
        "in the order asked for"
    );
    let second = view.claim_effects(Some(OTHER), first).await.expect("claimed").expect("it was seen");
    assert!(second > first);
    assert_eq!(view.begin_effects(of(ONE, second), &numbers).await.expect("asked"), None, "it is another member's");
    assert_eq!(view.begin_effects(of(ONE, first), &numbers).await.expect("asked"), None);
    assert_eq!(
        view.begin_effects(of(OTHER, second), &numbers).await.expect("begun"),
        Some(begun(Some(first))),
        "it may be made"
    );
    let third = view.claim_effects(None, second).await.expect("given back").expect("it was seen");
    assert_eq!(view.effects_claim().await.expect("read"), EffectsClaim { epoch: third, owner: None });
    assert_eq!(view.begin_effects(of(OTHER, second), &numbers).await.expect("asked"), None);
}

// I-9
/// Whoever has begun an effect last says what that came to; one that is not to be made any more is not begun.
pub async fn a_try_says_nothing_of_what_was_begun_after_it(views: &dyn Views) {
    let (view, _) = claimed(views).await;
    let token = view.tokens().await.expect("tokens")[0];
    emit(&*view, vec![effect(&token, 1, 0, "a-1"), effect(&token, 2, 0, "a-1"), effect(&token, 3, 0, "a-2")]).await;
    let numbers = [number_of(&*view, 1).await, number_of(&*view, 3).await];
    let [both, other] = numbers;
    let first = view.claim_effects(Some(ONE), Epoch::UNCLAIMED).await.expect("claimed").expect("it was nobody's");
    view.begin_effects(of(ONE, first), &numbers).await.expect("begun").expect("it has the right");
    let second = view.claim_effects(Some(OTHER), first).await.expect("claimed").expect("it was seen");
    view.begin_effects(of(OTHER, second), &[both]).await.expect("begun").expect("it has the right");

    let failed = || Settled::Failed { error: "late".into(), due: Timestamp::from_micros(300) };
    view.settle_effects(first, &[(both, failed()), (other, Settled::Done)]).await.expect("recorded");
    assert_eq!(due(&*view, 0).await, [(1, 0)], "what nobody has begun since is done");
    view.settle_effects(first, &[(both, Settled::Done)]).await.expect("recorded");
    assert_eq!(due(&*view, 0).await, [(1, 0)], "another try of it is under way");
    view.settle_effects(second, &[(both, failed())]).await.expect("recorded");
    assert_eq!((due(&*view, 200).await, due(&*view, 300).await), (vec![], vec![(1, 0)]));
    let begun = view.begin_effects(of(OTHER, second), &[other, both]).await.expect("begun");
    assert_eq!(begun, Some(vec![BegunEffect { number: both, before: None }]), "what came of it was recorded");
    view.settle_effects(second, &[(both, Settled::Done)]).await.expect("recorded");
    assert_eq!(due(&*view, 300).await, [(2, 0)]);
}

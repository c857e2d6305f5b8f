//! Idempotency keys: a request under a key is carried out once, and its key belongs to it for good.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_request_repeated_under_its_key_is_carried_out_once() {
    let node = Scenario::new().serving(v1()).start().await;
    let asked = RequestedBy { idempotency_key: Some("k-1".into()), ..RequestedBy::by("ann").because("new indexes") };
    let first = node.projection(totals()).unwrap().rebuild().requested_by(asked.clone()).await.unwrap();
    let again = node.projection(totals()).unwrap().rebuild().requested_by(asked).await.unwrap();
    assert_eq!((first.view().version, &first), (version("v1.2"), &again));
    let history = node.history().await.unwrap();
    let entry = history.iter().find(|entry| Some(entry.position) == first.requested.position).unwrap();
    assert_eq!((entry.asked.actor.as_str(), entry.asked.reason.as_deref()), ("ann", Some("new indexes")));
    ready(&node, "v1.2").await;
    assert_eq!(flip(&node).await.to, version("v1.2"), "the same code can be built again");
    node.shutdown().await;
}

/// Everything that can be asked of v1.1 under a key.
async fn ask_all(node: &Node, asked: &RequestedBy) -> Vec<(&'static str, Error)> {
    let name = totals();
    let one = WhichLetters::All;
    let asked = || asked.clone();
    let mut refused = vec![];
    macro_rules! ask {
        ($($act:literal: $call:expr),+ $(,)?) => {
            $(match $call.await {
                Err(error) => refused.push(($act, error)),
                Ok(done) => panic!("{} was done: {done:?}", $act),
            })+
        };
    }
    ask! {
        "rebuild": node.projection(&name).unwrap().rebuild().code(1).requested_by(asked()),
        "rebuild from a copy": node.projection(&name).unwrap().rebuild().from_copy().requested_by(asked()),
        "flip": node.version(view("v1.1")).flip().requested_by(asked()),
        "rollback": node.projection(&name).unwrap().rollback().requested_by(asked()),
        "verify": node.version(view("v1.1")).verify_again().requested_by(asked()),
        "waive": node.projection(&name).unwrap().waive().requested_by(asked()),
        "replay": node.version(view("v1.1")).replay(ReplayFrom::Start).requested_by(asked()),
        "clean-up": node.version(view("v1.1")).clean_up().requested_by(asked()),
        "resume": node.version(view("v1.1")).resume().requested_by(asked()),
        "pause another": node.version(view("v1.2")).pause().requested_by(asked()),
        "cancel": node.projection(&name).unwrap().cancel(None).requested_by(asked()),
        "set aside": node.version(view("v1.1")).set_aside(Position::new(1)).requested_by(asked()),
        "retry": node.version(view("v1.1")).retry_letters(one.clone()).requested_by(asked()),
        "drop": node.version(view("v1.1")).drop_letters(one.clone()).requested_by(asked()),
        "retry effects": node.version(view("v1.1")).retry_effects(one.clone()).requested_by(asked()),
        "drop effects": node.version(view("v1.1")).drop_effects(one.clone()).requested_by(asked()),
    }
    refused
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_belongs_to_one_request() {
    let directory = tempfile::tempdir().unwrap();
    let start = || Node::builder().data(directory.path()).projection(carry_v1(v1())).start();
    let node = start().await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    let asked =
        RequestedBy { idempotency_key: Some("k-1".into()), ..RequestedBy::by("ann").because("a look at the disk") };
    let first = node.version(view("v1.1")).pause().requested_by(asked.clone()).await.unwrap();
    let before = node.history().await.unwrap();
    // On the node that has done it, and on one that has read it.
    for round in 0..2 {
        let node = if round == 0 { node.clone() } else { start().await.unwrap() };
        for (act, error) in ask_all(&node, &asked).await {
            let Error::KeyReused(reused) = &error else { panic!("{act} in round {round}: {error:?}") };
            assert_eq!((reused.key.as_str(), reused.before.as_str()), ("k-1", "pause totals v1.1"), "{act}");
            assert!(reused.now.contains("totals") && error.to_string().contains("key of its own"), "{error}");
        }
        assert_eq!(
            node.version(view("v1.1")).pause().requested_by(asked.clone()).await.unwrap(),
            first,
            "the same is answered the same"
        );
        let by_another = RequestedBy { idempotency_key: Some("k-1".into()), ..RequestedBy::by("ben") };
        assert_eq!(
            node.version(view("v1.1")).pause().requested_by(by_another).await.unwrap(),
            first,
            "who asks is no part of it"
        );
        assert_eq!(node.history().await.unwrap(), before, "nothing was done");
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_request_leaves_open_is_what_was_found_for_it() {
    let node = Scenario::new().serving(v1()).start().await;
    let asked = |key: &str| RequestedBy { idempotency_key: Some(key.into()), ..RequestedBy::by("ann") };
    let built = node.projection(totals()).unwrap().rebuild().requested_by(asked("k-1")).await.unwrap();
    assert_eq!(node.projection(totals()).unwrap().rebuild().code(1).requested_by(asked("k-1")).await.unwrap(), built);
    let rebuild = || node.projection(totals()).unwrap().rebuild();
    for other in [rebuild().code(2), rebuild().discard(), rebuild().from_copy(), rebuild().from_copy().discard()] {
        let other = other.requested_by(asked("k-1")).await.unwrap_err();
        assert!(matches!(other, Error::KeyReused(_)), "{other}");
    }
    ready_or_past(&node, "v1.2").await;
    let flip = node.version(view("v1.2")).flip().requested_by(asked("k-2")).await.unwrap();
    flip.done().within(WAIT_MAX).await.unwrap();
    // There is nothing to flip to by now; this is the same request all the same.
    assert_eq!(node.projection(totals()).unwrap().flip().requested_by(asked("k-2")).await.unwrap(), flip);
    let back = node.version(view("v1.1")).flip().requested_by(asked("k-2")).await.unwrap_err();
    assert!(matches!(back, Error::KeyReused(_)), "{back}");
    assert_eq!(serving_version(&node), version("v1.2"));
    node.shutdown().await;
}

/// There is something to do by the time of the repetition, and there was nothing when it was asked for first.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_belongs_to_its_request_also_where_there_was_nothing_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let start = || Node::builder().data(directory.path()).projection(carry_v1(v1())).start();
    let asked = |key: &str| RequestedBy { idempotency_key: Some(key.into()), ..RequestedBy::by("ann") };
    let plain = || RequestedBy::by("ben");
    let node = start().await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    let (name, v1, all) = (totals(), version("v1.1"), WhichLetters::All);
    let flip = node.projection(&name).unwrap().version(v1).flip().requested_by(asked("flip")).await.unwrap();
    assert_eq!(flip.position, None, "it serves");
    node.version(view("v1.1")).pause().requested_by(plain()).await.unwrap();
    assert_eq!(
        node.version(view("v1.1")).pause().requested_by(asked("pause")).await.unwrap().position,
        None,
        "it is paused"
    );
    assert_eq!(
        node.version(view("v1.1")).drop_letters(all.clone()).requested_by(asked("drop")).await.unwrap().letters,
        Some(0)
    );
    assert_eq!(
        node.version(view("v1.1")).drop_effects(all.clone()).requested_by(asked("effects")).await.unwrap().letters,
        Some(0)
    );
    node.version(view("v1.1")).resume().requested_by(plain()).await.unwrap();
    node.projection(&name).unwrap().rebuild().requested_by(plain()).await.unwrap();
    ready_or_past(&node, "v1.2").await;
    let moved = node.projection(&name).unwrap().version(version("v1.2")).flip().requested_by(plain()).await.unwrap();
    moved.done().within(WAIT_MAX).await.unwrap();
    let before = node.history().await.unwrap();
    // On the node that was asked, and on one that has read it.
    for round in 0..2 {
        let node = if round == 0 { node.clone() } else { start().await.unwrap() };
        assert_eq!(node.projection(&name).unwrap().version(v1).flip().requested_by(asked("flip")).await.unwrap(), flip);
        assert_eq!(node.version(view("v1.1")).pause().requested_by(asked("pause")).await.unwrap().position, None);
        assert_eq!(
            node.version(view("v1.1")).drop_letters(all.clone()).requested_by(asked("drop")).await.unwrap().letters,
            Some(0)
        );
        assert_eq!(
            node.version(view("v1.1")).drop_effects(all.clone()).requested_by(asked("effects")).await.unwrap().letters,
            Some(0)
        );
        for key in ["flip", "pause", "drop", "effects"] {
            let other = node.version(view("v1.1")).resume().requested_by(asked(key)).await.unwrap_err();
            assert!(matches!(other, Error::KeyReused(_)), "{key}: {other}");
        }
        assert_eq!(node.history().await.unwrap(), before, "nothing was done");
        assert_eq!(serving_version(&node), version("v1.2"));
        node.shutdown().await;
    }
}

/// Every node keeps them, and every table of changes has them.
#[tokio::test(flavor = "multi_thread")]
async fn who_asks_and_why_is_told_in_few_bytes() {
    let node = Scenario::new().serving(v1()).start().await;
    let asked = |actor: usize, reason: usize, key: usize| RequestedBy {
        actor: "a".repeat(actor),
        reason: Some("r".repeat(reason)),
        idempotency_key: Some("k".repeat(key)),
    };
    let before = node.history().await.unwrap();
    for (by, text) in [
        (asked(257, 4_096, 255), AskedText::Actor),
        (asked(256, 4_097, 255), AskedText::Reason),
        (asked(256, 4_096, 256), AskedText::Key),
    ] {
        let error = node.version(view("v1.1")).pause().requested_by(by).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        let Error::AskedTooLong(found) = &error else { panic!("{error:?}") };
        assert_eq!((found.text, found.bytes), (text, text.bytes_max() + 1));
        assert!(error.to_string().contains(&text.bytes_max().to_string()), "{error}");
    }
    assert_eq!(node.history().await.unwrap(), before);
    node.version(view("v1.1")).pause().requested_by(asked(256, 4_096, 255)).await.unwrap();
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_names_no_version_that_the_request_did_not_name() {
    let node = Scenario::new().serving(v1()).start().await;
    let totals = node.projection(totals()).unwrap();
    for (what, message) in [
        (Some(Cancel::CleanUp), "there is no clean-up of totals to cancel"),
        (None, "nothing of totals is under way that could be cancelled"),
    ] {
        assert_eq!(totals.cancel(what).by("ann").await.unwrap_err().to_string(), message);
    }
    let message = "no version of totals can be verified or waived, since none is being built: ask for a rebuild";
    assert_eq!(totals.verify_again().by("ann").await.unwrap_err().to_string(), message);
    assert_eq!(totals.waive().by("ann").because("it is fine").await.unwrap_err().to_string(), message);
    node.shutdown().await;
}

/// The first answer does not depend on what the version has become since.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_about_letters_is_answered_under_its_key_after_its_version_is_gone() {
    let node = Scenario::new().serving(v1()).start().await;
    let asked = |key: &str| RequestedBy { idempotency_key: Some(key.into()), ..RequestedBy::by("ann") };
    let v1 = node.version(view("v1.1"));
    let ask_all = async || {
        let events = v1.drop_letters(WhichLetters::All).requested_by(asked("events")).await.unwrap();
        let effects = v1.retry_effects(WhichLetters::All).requested_by(asked("effects")).await.unwrap();
        [events, effects]
    };
    let first = ask_all().await;
    assert!(first.iter().all(|first| first.letters == Some(0) && first.requested.position.is_none()), "{first:?}");
    let built = node.projection(totals()).unwrap().rebuild().by("ann").await.unwrap();
    ready_or_past(&node, "v1.2").await;
    node.version(built.view().clone()).flip().by("ann").await.unwrap().done().within(WAIT_MAX).await.unwrap();
    v1.clean_up().by("ann").await.unwrap().done().within(WAIT_MAX).await.unwrap();
    let before = node.history().await.unwrap();
    assert_eq!(ask_all().await, first);
    assert_eq!(node.history().await.unwrap(), before, "nothing was done");
    assert_eq!(node.version_under_key("events").await.unwrap(), Some(view("v1.1")));
    assert_eq!(node.version_under_key("another").await.unwrap(), None);
    node.shutdown().await;
}

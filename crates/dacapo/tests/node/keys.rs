//! Idempotency keys: a request under a key is carried out once, and its key belongs to it for good.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_request_repeated_under_its_key_is_carried_out_once() {
    let node = Node::builder().carry(carry_v1(v1())).start().await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    let asked = Asked { idempotency_key: Some("k-1".into()), ..Asked::by("ann").because("new indexes") };
    let first = node.rebuild(&totals(), None, asked.clone()).await.unwrap();
    let again = node.rebuild(&totals(), None, asked).await.unwrap();
    assert_eq!((first.view.version, &first), (version("v1.2"), &again));
    let history = node.history().await.unwrap();
    let entry = history.iter().find(|entry| Some(entry.position) == first.position).unwrap();
    assert_eq!((entry.asked.actor.as_str(), entry.asked.reason.as_deref()), ("ann", Some("new indexes")));
    ready(&node, "v1.2").await;
    assert_eq!(flip(&node).await.to, version("v1.2"), "the same code can be built again");
    node.shutdown().await;
}

/// Everything that can be asked of v1.1 under a key.
async fn ask_all(node: &Node, asked: &Asked) -> Vec<(&'static str, Error)> {
    let (name, of) = (totals(), Some(version("v1.1")));
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
        "rebuild": node.rebuild(&name, Some(1), asked()),
        "rebuild from a copy": node.rebuild_from_copy(&name, None, asked()),
        "flip": node.flip(&name, of, asked()),
        "rollback": node.rollback(&name, None, asked()),
        "verify": node.verify_again(&name, of, asked()),
        "waive": node.waive(&name, None, asked()),
        "replay": node.replay(&name, of, ReplayFrom::Start, asked()),
        "clean-up": node.clean_up(&view("v1.1"), asked()),
        "resume": node.resume(&view("v1.1"), asked()),
        "pause another": node.pause(&view("v1.2"), asked()),
        "cancel": node.cancel(&name, None, None, asked()),
        "set aside": node.set_aside(&view("v1.1"), Position::new(1), asked()),
        "retry": node.retry_letters(&view("v1.1"), &one, &asked()),
        "drop": node.drop_letters(&view("v1.1"), &one, &asked()),
        "retry effects": node.retry_effects(&view("v1.1"), &one, &asked()),
        "drop effects": node.drop_effects(&view("v1.1"), &one, &asked()),
    }
    refused
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_belongs_to_one_request() {
    let directory = tempfile::tempdir().unwrap();
    let start = || Node::builder().data(directory.path()).carry(carry_v1(v1())).start();
    let node = start().await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    let asked = Asked { idempotency_key: Some("k-1".into()), ..Asked::by("ann").because("a look at the disk") };
    let first = node.pause(&view("v1.1"), asked.clone()).await.unwrap();
    let before = node.history().await.unwrap();
    // On the node that has done it, and on one that has read it.
    for round in 0..2 {
        let node = if round == 0 { node.clone() } else { start().await.unwrap() };
        for (act, error) in ask_all(&node, &asked).await {
            let Error::KeyReused(reused) = &error else { panic!("{act} in round {round}: {error:?}") };
            assert_eq!((reused.key.as_str(), reused.before.as_str()), ("k-1", "pause totals v1.1"), "{act}");
            assert!(reused.now.contains("totals") && error.to_string().contains("key of its own"), "{error}");
        }
        assert_eq!(node.pause(&view("v1.1"), asked.clone()).await.unwrap(), first, "the same is answered the same");
        let by_another = Asked { idempotency_key: Some("k-1".into()), ..Asked::by("ben") };
        assert_eq!(node.pause(&view("v1.1"), by_another).await.unwrap(), first, "who asks is no part of it");
        assert_eq!(node.history().await.unwrap(), before, "nothing was done");
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_request_leaves_open_is_what_was_found_for_it() {
    let node = Node::builder().carry(carry_v1(v1())).start().await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    let asked = |key: &str| Asked { idempotency_key: Some(key.into()), ..Asked::by("ann") };
    let built = node.rebuild(&totals(), None, asked("k-1")).await.unwrap();
    assert_eq!(node.rebuild(&totals(), Some(1), asked("k-1")).await.unwrap(), built);
    let other = node.rebuild(&totals(), Some(2), asked("k-1")).await.unwrap_err();
    assert!(matches!(other, Error::KeyReused(_)), "{other}");
    ready_or_past(&node, "v1.2").await;
    let flip = node.flip(&totals(), Some(version("v1.2")), asked("k-2")).await.unwrap();
    node.flipped(&flip, WAIT_MAX).await.unwrap();
    // There is nothing to flip to by now; this is the same request all the same.
    assert_eq!(node.flip(&totals(), None, asked("k-2")).await.unwrap(), flip);
    let back = node.flip(&totals(), Some(version("v1.1")), asked("k-2")).await.unwrap_err();
    assert!(matches!(back, Error::KeyReused(_)), "{back}");
    assert_eq!(serving_version(&node), version("v1.2"));
    node.shutdown().await;
}

/// There is something to do by the time of the repetition, and there was nothing when it was asked for first.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_belongs_to_its_request_also_where_there_was_nothing_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let start = || Node::builder().data(directory.path()).carry(carry_v1(v1())).start();
    let asked = |key: &str| Asked { idempotency_key: Some(key.into()), ..Asked::by("ann") };
    let plain = || Asked::by("ben");
    let node = start().await.unwrap();
    phase(&node, "v1.1", Phase::Serving).await;
    let (name, v1, all) = (totals(), version("v1.1"), WhichLetters::All);
    let flip = node.flip(&name, Some(v1), asked("flip")).await.unwrap();
    assert_eq!(flip.position, None, "it serves");
    node.pause(&view("v1.1"), plain()).await.unwrap();
    assert_eq!(node.pause(&view("v1.1"), asked("pause")).await.unwrap().position, None, "it is paused");
    assert_eq!(node.drop_letters(&view("v1.1"), &all, &asked("drop")).await.unwrap(), 0);
    assert_eq!(node.drop_effects(&view("v1.1"), &all, &asked("effects")).await.unwrap(), 0);
    node.resume(&view("v1.1"), plain()).await.unwrap();
    node.rebuild(&name, None, plain()).await.unwrap();
    ready_or_past(&node, "v1.2").await;
    let moved = node.flip(&name, Some(version("v1.2")), plain()).await.unwrap();
    node.flipped(&moved, WAIT_MAX).await.unwrap();
    let before = node.history().await.unwrap();
    // On the node that was asked, and on one that has read it.
    for round in 0..2 {
        let node = if round == 0 { node.clone() } else { start().await.unwrap() };
        assert_eq!(node.flip(&name, Some(v1), asked("flip")).await.unwrap(), flip);
        assert_eq!(node.pause(&view("v1.1"), asked("pause")).await.unwrap().position, None);
        assert_eq!(node.drop_letters(&view("v1.1"), &all, &asked("drop")).await.unwrap(), 0);
        assert_eq!(node.drop_effects(&view("v1.1"), &all, &asked("effects")).await.unwrap(), 0);
        for key in ["flip", "pause", "drop", "effects"] {
            let other = node.resume(&view("v1.1"), asked(key)).await.unwrap_err();
            assert!(matches!(other, Error::KeyReused(_)), "{key}: {other}");
        }
        assert_eq!(node.history().await.unwrap(), before, "nothing was done");
        assert_eq!(serving_version(&node), version("v1.2"));
        node.shutdown().await;
    }
}

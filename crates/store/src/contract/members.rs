//! The checks of a store's members.

use std::time::Duration;

use dacapo_model::replay::InPlace;
use dacapo_model::{CodeId, Member, MemberCode, MemberId, ProjectionName};

use crate::members::Members;

/// Longer than any test.
fn long() -> Duration {
    Duration::from_secs(60)
}

fn member(number: u8) -> Member {
    let projection = ProjectionName::new("balances").expect("a valid name");
    let code = |code, in_place| MemberCode { id: CodeId { projection: projection.clone(), code }, in_place };
    let carries = vec![code(1, None), code(2, Some(InPlace::ResetsFrom))];
    let address = Some(format!("http://127.0.0.1:{number}"));
    Member { id: MemberId::from_bytes([number; 16]), name: format!("node {number}"), address, carries, ready: true }
}

/// A member that renews its lease gets the list of all members. The others see what it reports about itself.
pub async fn those_with_a_lease_are_known_to_all(members: &dyn Members) {
    assert_eq!(members.live().await.expect("read"), []);
    let (one, two) = (member(1), Member { carries: vec![], address: None, ..member(2) });
    assert_eq!(members.renew(&two, long()).await.expect("renewed"), std::slice::from_ref(&two));
    assert_eq!(members.renew(&one, long()).await.expect("renewed"), [one.clone(), two.clone()]);
    let busy = Member { ready: false, ..one.clone() };
    assert_eq!(members.renew(&busy, long()).await.expect("renewed"), [busy.clone(), two.clone()]);
    assert_eq!(members.live().await.expect("read"), [busy, two]);
}

/// A lease ends by itself, or at once if its member leaves.
pub async fn a_lease_ends(members: &dyn Members) {
    let (one, two, three) = (member(1), member(2), member(3));
    members.renew(&one, Duration::from_millis(1)).await.expect("renewed");
    members.renew(&two, long()).await.expect("renewed");
    members.renew(&three, long()).await.expect("renewed");
    // Every store's clock advances.
    while members.live().await.expect("read").len() > 2 {
        tokio::task::yield_now().await;
    }
    members.leave(three.id).await.expect("left");
    members.leave(three.id).await.expect("leaving twice is leaving once");
    assert_eq!(members.live().await.expect("read"), std::slice::from_ref(&two));
    assert_eq!(members.renew(&one, long()).await.expect("renewed"), [one, two], "one that was late is back");
}

/// Makes the tests of the suite. `$make` is an expression that makes members that nobody else knows, and anything that
/// must last as long as they do. It is evaluated several times.
#[macro_export]
macro_rules! members_contract {
    ($make:expr) => {
        #[tokio::test]
        async fn those_with_a_lease_are_known_to_all() {
            let (members, _kept) = $make;
            $crate::contract::members::those_with_a_lease_are_known_to_all(&members).await;
        }

        #[tokio::test]
        async fn a_lease_ends() {
            let (members, _kept) = $make;
            $crate::contract::members::a_lease_ends(&members).await;
        }
    };
}

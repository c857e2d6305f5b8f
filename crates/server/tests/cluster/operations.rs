//! Every operation, sent to a node without any code. Another node has the code and carries it out.

use std::sync::Arc;

use dacapo_api::operations::OPERATIONS;
use dacapo_api::{
    Api, AppendRequest, Asked, CancelRequest, CleanUpRequest, FlipRequest, Json, LettersRequest, Metadata, NewEvent,
    OnKnown, PauseRequest, PhasesRequest, ReadRequest, RebuildRequest, ReplayRequest, SetAsideRequest, SettleRequest,
    StreamsRequest, VerificationRequest, VerifyRequest,
};
use dacapo_postgres::testbed::Server;
use futures::future::join_all;

use crate::code::{Behaviour, Trouble, code};
use crate::nodes::{Seen, Served, taken, until};

/// How long a request waits for what it asks for, in milliseconds.
const WAIT_MS: Option<u64> = Some(20_000);

/// So many operations are tried at the same time. While a version is built, the nodes look at all versions again and
/// again, so a cluster with the projections of all operations would do little else.
const TOGETHER: usize = 5;

/// The projection that goes on while another one is paused.
const OTHER: &str = "status";

/// A node without code, which takes the requests, and one that has all of it.
struct Cluster {
    bare: Served,
    carrier: Served,
    behaviour: Arc<Behaviour>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_code_takes_every_request_and_another_carries_it_out() {
    let server = Server::shared();
    for operations in OPERATIONS.chunks(TOGETHER) {
        let url = server.database().await;
        let behaviour = Arc::<Behaviour>::default();
        let names: Vec<&str> = operations.iter().map(|operation| operation.name).collect();
        let bare = Served::start(&url, "bare", vec![]).await;
        let carrier = Served::start(&url, "carrier", code(&behaviour, &[&names[..], &[OTHER]].concat())).await;
        let cluster = Cluster { bare, carrier, behaviour };
        join_all(names.into_iter().map(|name| cluster.does(name))).await;
        let Cluster { bare, carrier, .. } = cluster;
        bare.node.shutdown().await;
        carrier.node.shutdown().await;
    }
}

impl Cluster {
    /// Sends the operation to the node without code, and looks at the other one for what it does.
    async fn does(&self, operation: &'static str) {
        let seen = self.carrier.projection(operation);
        seen.serves("v1.1").await;
        seen.add(10).await;
        match operation {
            "status" => self.status(seen).await,
            "append" => self.append(seen).await,
            "read" => self.read(seen).await,
            "streams" => self.streams(seen).await,
            "phases" => self.phases(seen).await,
            "rebuild" => self.rebuild(seen).await,
            "cancel" => self.cancel(seen).await,
            "flip" => self.flip(seen).await,
            "rollback" => self.rollback(seen).await,
            "replay" => self.replay(seen).await,
            "verification" => self.verification(seen).await,
            "verify" => self.verify(seen).await,
            "waive" => self.waive(seen).await,
            "clean_up" => self.clean_up(seen).await,
            "pause" => self.pause(seen).await,
            "resume" => self.resume(seen).await,
            "letters" => self.letters(seen).await,
            "retry_letters" => self.retry_letters(seen).await,
            "drop_letters" => self.drop_letters(seen).await,
            "set_aside" => self.set_aside(seen).await,
            other => panic!("the operation {other} has no case: add one"),
        }
    }

    async fn status(&self, seen: Seen<'_>) {
        let appended = seen.add(1).await.get();
        until("the node without code sees what the other one covers", async || {
            let status = self.bare.api.status().await.ok()?;
            let found = status.projections.iter().find(|found| found.name == seen.name)?;
            assert!(!found.versions[0].carried && status.node.name == "bare");
            let names: Vec<_> = status.members.iter().map(|member| &*member.name).collect();
            let carries = |name: &str| status.members.iter().find(|found| found.name == name)?.carries.first();
            (names.len() == 2 && carries("carrier").is_some() && carries("bare").is_none())
                .then_some(found.versions[0].covers.filter(|covers| *covers >= appended)?)
        })
        .await;
    }

    async fn append(&self, seen: Seen<'_>) {
        let event = NewEvent {
            stream: format!("{}-1", seen.name),
            id: Some("01919c4e-a730-7abc-8001-020304050607".to_owned()),
            event_type: "added".to_owned(),
            data: Json::parse(r#"{"amount":5}"#).unwrap(),
            metadata: Metadata::default(),
            tags: vec![],
        };
        let request = AppendRequest { events: vec![event], expected: vec![], on_known: OnKnown::Recognise };
        let appended = taken("append", async || self.bare.api.append(request.clone()).await).await;
        assert!(appended.position > 0);
        seen.until_sum(15).await;
    }

    async fn read(&self, seen: Seen<'_>) {
        let appended = seen.add(1).await.get();
        let request = ReadRequest { stream: Some(format!("{}-1", seen.name)), ..ReadRequest::default() };
        let events = until("both events", async || {
            let found = self.bare.api.read(request.clone()).await.ok()?.events;
            (found.len() == 2).then_some(found)
        });
        assert_eq!(events.await[1].position, appended);
    }

    async fn streams(&self, seen: Seen<'_>) {
        let request = StreamsRequest { category: Some(seen.name.to_owned()), ..StreamsRequest::default() };
        let found = taken("streams", async || self.bare.api.streams(request.clone()).await).await.streams;
        let found: Vec<_> = found.iter().map(|stream| (&*stream.name, stream.revision)).collect();
        assert_eq!(found, [("streams-1", 1)]);
    }

    async fn phases(&self, seen: Seen<'_>) {
        let request = PhasesRequest { projection: Some(seen.name.to_owned()), ..PhasesRequest::default() };
        let found = taken("phases", async || self.bare.api.phases(request.clone()).await).await.history;
        let found: Vec<_> = found.iter().map(|entry| &*entry.event).collect();
        assert!(found.first() == Some(&"version_scheduled") && found.contains(&"flipped"), "{found:?}");
    }

    /// Builds v1.2 by a request to the node without code.
    async fn built(&self, seen: Seen<'_>) {
        let built = taken("rebuild", async || self.bare.api.rebuild(seen.name, RebuildRequest::default()).await).await;
        assert_eq!(built.version, "v1.2");
        seen.ready("v1.2").await;
    }

    async fn rebuild(&self, seen: Seen<'_>) {
        self.built(seen).await;
        let copied = RebuildRequest { from_copy: true, discard: true, ..RebuildRequest::default() };
        let built = taken("rebuild", async || self.bare.api.rebuild(seen.name, copied.clone()).await).await;
        assert_eq!((&*built.version, &*built.discards), ("v1.3", &["v1.2".to_owned()][..]));
        seen.ready("v1.3").await;
        seen.gone("v1.2").await;
        let text = seen.happened("v1.3", "version_scheduled").await;
        assert!(text.ends_with("begins as a copy of v1.1"), "{text}");
    }

    async fn cancel(&self, seen: Seen<'_>) {
        self.built(seen).await;
        let what = CancelRequest { what: Some("rebuild".to_owned()), ..CancelRequest::default() };
        let cancelled = taken("cancel", async || self.bare.api.cancel(seen.name, what.clone()).await).await;
        assert_eq!(cancelled.version, "v1.2");
        seen.gone("v1.2").await;
    }

    async fn flip(&self, seen: Seen<'_>) {
        self.built(seen).await;
        let request = FlipRequest { wait_ms: WAIT_MS, ..FlipRequest::default() };
        let flipped = taken("flip", async || self.bare.api.flip(seen.name, request.clone()).await).await;
        assert!(flipped.flipped && flipped.to == "v1.2", "{flipped:?}");
        seen.serves("v1.2").await;
        seen.until_sum(10).await;
    }

    async fn rollback(&self, seen: Seen<'_>) {
        self.flip(seen).await;
        let request = FlipRequest { wait_ms: WAIT_MS, ..FlipRequest::default() };
        let back = taken("rollback", async || self.bare.api.rollback(seen.name, request.clone()).await).await;
        assert!(back.flipped && back.to == "v1.1", "{back:?}");
        seen.serves("v1.1").await;
        seen.until_sum(10).await;
    }

    async fn replay(&self, seen: Seen<'_>) {
        seen.until_sum(10).await;
        let applied = self.behaviour.applied(seen.name);
        let request = ReplayRequest { from_start: true, wait_ms: WAIT_MS, ..ReplayRequest::default() };
        let replayed = taken("replay", async || self.bare.api.replay(seen.name, request.clone()).await).await;
        assert!(replayed.ended && replayed.version == "v1.1", "{replayed:?}");
        assert!(self.behaviour.applied(seen.name) > applied, "its event is applied once more");
        seen.until_sum(10).await;
    }

    async fn verification(&self, seen: Seen<'_>) {
        self.built(seen).await;
        let request = VerificationRequest { version: None, wait_ms: WAIT_MS };
        let found = taken("verification", async || self.bare.api.verification(seen.name, request.clone()).await).await;
        assert_eq!((&*found.version, found.verdict.as_deref()), ("v1.2", Some("Pass")), "{found:?}");
        assert!(found.report.is_some_and(|report| report.against.as_deref() == Some("v1.1")));
    }

    async fn verify(&self, seen: Seen<'_>) {
        self.built(seen).await;
        let before = seen.verified("v1.2", |_| true).await.position;
        let requested = taken("verify", async || self.bare.api.verify(seen.name, VerifyRequest::default()).await).await;
        assert!(requested.requested > before, "{requested:?}");
        let again = seen.verified("v1.2", |found| found.position > requested.requested).await;
        assert_eq!(again.verdict.as_deref(), Some("Pass"), "{again:?}");
    }

    async fn waive(&self, seen: Seen<'_>) {
        self.behaviour.begin(seen.name, Trouble::CheckFails);
        taken("rebuild", async || self.bare.api.rebuild(seen.name, RebuildRequest::default()).await).await;
        seen.verified("v1.2", |found| found.verdict.as_deref() == Some("Fail")).await;
        let asked = Asked { reason: Some("it is known".to_owned()), ..Asked::default() };
        let request = VerifyRequest { version: None, asked };
        taken("waive", async || self.bare.api.waive(seen.name, request.clone()).await).await;
        seen.verified("v1.2", |found| found.verdict.as_deref() == Some("Waived")).await;
        seen.ready("v1.2").await;
    }

    async fn clean_up(&self, seen: Seen<'_>) {
        self.built(seen).await;
        let request = CleanUpRequest::default();
        taken("clean_up", async || self.bare.api.clean_up(seen.name, "v1.2", request.clone()).await).await;
        seen.gone("v1.2").await;
    }

    async fn pause(&self, seen: Seen<'_>) {
        let request = PauseRequest::default();
        let paused = taken("pause", async || self.bare.api.pause(seen.name, request.clone()).await).await;
        assert_eq!(paused.version, "v1.1");
        seen.stands_still("v1.1", &self.carrier.projection(OTHER)).await;
    }

    async fn resume(&self, seen: Seen<'_>) {
        self.pause(seen).await;
        seen.add(1).await;
        let request = PauseRequest::default();
        let resumed = taken("resume", async || self.bare.api.resume(seen.name, request.clone()).await).await;
        assert_eq!(resumed.version, "v1.1");
        seen.until_sum(11).await;
    }

    /// Lets the mail about the amount 20 fail, and the events of the amounts 30 and 40 be refused. Returns the position of
    /// the last one.
    async fn in_trouble(&self, seen: Seen<'_>) -> u64 {
        until("the first mail", async || self.behaviour.has_sent(seen.name, 10).then_some(())).await;
        self.behaviour.begin(seen.name, Trouble::MailFails);
        seen.add(20).await;
        seen.until_version("v1.1", "has an effect aside", |found| (found.effects_aside == 1).then_some(())).await;
        self.behaviour.begin(seen.name, Trouble::Refuses);
        seen.add(30).await;
        let last = seen.add(40).await.get();
        seen.until_version("v1.1", "has two letters", |found| (found.letters == 2).then_some(())).await;
        self.behaviour.end(seen.name, Trouble::Refuses);
        self.behaviour.end(seen.name, Trouble::MailFails);
        last
    }

    async fn letters(&self, seen: Seen<'_>) {
        let last = self.in_trouble(seen).await;
        let request = LettersRequest::default();
        let found = taken("letters", async || self.bare.api.letters(seen.name, request.clone()).await).await.letters;
        assert!(found.len() == 2 && found[1].event.position == last && found[1].kind == "refused", "{found:?}");
        let request = LettersRequest { effects: true, ..request };
        let found = taken("letters", async || self.bare.api.letters(seen.name, request.clone()).await).await.effects;
        assert_eq!(found.len(), 1, "{found:?}");
    }

    async fn retry_letters(&self, seen: Seen<'_>) {
        let last = self.in_trouble(seen).await;
        // The order does not matter to this projection, so the later one of a stream may be retried alone.
        let one = SettleRequest { position: Some(last), ..SettleRequest::default() };
        let all = SettleRequest { all: true, ..SettleRequest::default() };
        for (request, sum) in [(one, 70), (all.clone(), 100)] {
            taken("retry", async || self.bare.api.retry_letters(seen.name, request.clone()).await).await;
            seen.until_sum(sum).await;
        }
        let effects = SettleRequest { effects: true, ..all };
        let retried = taken("retry", async || self.bare.api.retry_letters(seen.name, effects.clone()).await).await;
        assert_eq!(retried.letters, Some(1));
        until("the mail", async || self.behaviour.has_sent(seen.name, 20).then_some(())).await;
    }

    async fn drop_letters(&self, seen: Seen<'_>) {
        self.in_trouble(seen).await;
        let all = SettleRequest { all: true, ..SettleRequest::default() };
        taken("drop", async || self.bare.api.drop_letters(seen.name, all.clone()).await).await;
        seen.until_version("v1.1", "has no letter", |found| (found.letters == 0).then_some(())).await;
        let effects = SettleRequest { effects: true, ..all };
        let dropped = taken("drop", async || self.bare.api.drop_letters(seen.name, effects.clone()).await).await;
        assert_eq!(dropped.letters, Some(1));
        seen.until_version("v1.1", "has no effect aside", |found| (found.effects_aside == 0).then_some(())).await;
        seen.until_sum(30).await;
        assert!(!self.behaviour.has_sent(seen.name, 20));
    }

    async fn set_aside(&self, seen: Seen<'_>) {
        seen.until_sum(10).await;
        self.behaviour.begin(seen.name, Trouble::Refuses);
        let position = seen.add(20).await.get();
        let halts = |found: &dacapo_api::VersionStatus| {
            found.waiting_on.iter().any(|reason| reason.kind == "handler").then_some(())
        };
        seen.until_version("v1.1", "halts", halts).await;
        let request = SetAsideRequest { position, ..SetAsideRequest::default() };
        taken("set_aside", async || self.bare.api.set_aside(seen.name, request.clone()).await).await;
        seen.until_version("v1.1", "has a letter", |found| (found.letters == 1).then_some(())).await;
        self.behaviour.end(seen.name, Trouble::Refuses);
        seen.add(1).await;
        seen.until_sum(11).await;
    }
}

//! An [`Api`] in memory, for tests of whatever stands in front of one.
//!
//! Its journal keeps the rules of a real one: an append is all or nothing, known ids are recognised or skipped,
//! expected revisions are checked. Its projections are a script: each status, flip and failure is what the test has
//! put there. Its clock stands still, so that output can be compared. An operation without a method of its own here
//! gets the answer of `otherwise`; a test that needs more adds the method.

#![expect(clippy::expect_used, reason = "it is part of tests")]

mod journal;

use std::collections::{BTreeMap, VecDeque};
use std::convert::identity;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::operations::{Twice, given};
use crate::{
    Api, ApiError, AppendRequest, AppendResponse, CancelRequest, CancelResponse, CleanUpRequest, CleanUpResponse,
    EffectLetter, Event, FlipRequest, FlipResponse, History, HistoryEntry, Letter, LettersRequest, LettersResponse,
    NodeStatus, PhasesRequest, Problem, ReadRequest, ReadResponse, RebuildRequest, RebuildResponse, ReplayRequest,
    ReplayResponse, SetAsideRequest, SetAsideResponse, SettleRequest, SettleResponse, Status, StreamSummary,
    StreamsRequest, StreamsResponse, Verification, VerificationRequest, VerifyRequest, VerifyResponse, operations,
    parse_projection,
};

/// The time at which everything happens.
pub const NOW: &str = "2026-03-01T12:00:00Z";

/// A failure of an append that the test requests.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Nothing is written.
    Before(ApiError),
    /// The events are written, and the acknowledgement is lost.
    After(ApiError),
}

/// The state of the fake. A test reads and writes it freely.
#[derive(Debug, Default)]
pub struct Script {
    /// The journal.
    pub events: Vec<Event>,
    /// The answers to `status`, one for each call. The last one stays.
    pub statuses: VecDeque<Status>,
    /// The answers to `flip` and `rollback`, one for each call. After them, calls succeed at once.
    pub flips: VecDeque<FlipResponse>,
    /// The answers to `replay`, one for each call. After them, replays end at once.
    pub replays: VecDeque<ReplayResponse>,
    /// The answers to `verification`, one for each call. The last one stays.
    pub verifications: VecDeque<Verification>,
    /// The answer of `phases`.
    pub history: Vec<HistoryEntry>,
    /// The dead letters of every version.
    pub letters: Vec<Letter>,
    /// The failed effects of every version.
    pub effects: Vec<EffectLetter>,
    /// The failures of the next appends.
    pub faults: VecDeque<Fault>,
    /// Every call that requested a change of the catalog: its name, its path and its request.
    pub asked: Vec<Value>,
    /// The number of events of each append.
    pub appends: Vec<usize>,
}

/// An API in memory.
#[derive(Debug)]
pub struct FakeApi {
    script: Mutex<Script>,
    head: watch::Sender<u64>,
}

impl Default for FakeApi {
    fn default() -> Self {
        Self { script: Mutex::default(), head: watch::Sender::new(0) }
    }
}

impl FakeApi {
    /// Returns its state.
    ///
    /// # Panics
    /// If a test panicked while it held the state.
    pub fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().expect("no test panics in here")
    }

    /// Returns the number of reads under way.
    pub fn readers(&self) -> usize {
        self.head.receiver_count()
    }

    fn ask(&self, call: &str, projection: &str, request: &impl Serialize) -> Result<(), ApiError> {
        parse_projection(projection)?;
        let mut script = self.script();
        let known: Vec<String> = match script.statuses.front() {
            Some(status) => status.projections.iter().map(|known| known.name.clone()).collect(),
            None => vec![],
        };
        if !known.iter().any(|name| name == projection) {
            let problem = Problem::new("no_such_projection", format!("there is no projection {projection:?}"));
            let found = if known.is_empty() { "no projections".into() } else { known.join(", ") };
            return Err(problem.found(found).help("`dacapo status` lists them").not_found());
        }
        script.asked.push(json!({"call": call, "projection": projection, "request": request}));
        Ok(())
    }

    /// Records a change of a version and says so. Nothing else has an answer that fits every operation.
    fn otherwise<T: DeserializeOwned>(
        &self,
        call: &str,
        twice: Twice,
        parts: &[(&str, &str)],
        request: &impl Serialize,
    ) -> Result<T, ApiError> {
        let undone = || Problem::new("not_faked", format!("the fake has no answer to {call}")).invalid();
        let part = |wanted| parts.iter().find(|(name, _)| *name == wanted).map(|(_, given)| *given);
        let projection = part("projection").filter(|_| twice == Twice::ByKey).ok_or_else(undone)?;
        self.ask(call, projection, request)?;
        let request = json!(request);
        let version = part("version").or(request["version"].as_str()).unwrap_or("v1.1");
        let answer = json!({"projection": projection, "version": version, "requested": *self.head.borrow() + 1});
        serde_json::from_value(answer).map_err(|_| undone())
    }

    fn move_readers(&self, kind: &str, projection: &str, request: &FlipRequest) -> Result<FlipResponse, ApiError> {
        self.ask(kind, projection, request)?;
        let head = *self.head.borrow();
        let done = FlipResponse {
            projection: projection.to_owned(),
            kind: kind.to_owned(),
            from: Some("v1.1".to_owned()),
            to: request.to.clone().unwrap_or_else(|| "v2.1".to_owned()),
            requested: head + 1,
            flipped: true,
            position: Some(head + 2),
            covers: Some(head + 1),
            pause_ms: Some(12),
            waiting_on: vec![],
        };
        Ok(self.script().flips.pop_front().unwrap_or(done))
    }

    fn requested(&self, projection: &str, request: VerifyRequest) -> VerifyResponse {
        let version = request.version.unwrap_or_else(|| "v2.1".to_owned());
        VerifyResponse { projection: projection.to_owned(), version, requested: Some(*self.head.borrow() + 1) }
    }

    fn events_behind(&self, request: &ReadRequest) -> ReadResponse {
        let script = self.script();
        let place = |event: &Event| if request.stream.is_some() { event.revision } else { event.position };
        let category = |event: &Event| event.stream.split_once('-').map_or(event.stream.clone(), |(c, _)| c.to_owned());
        let wanted = |event: &&Event| {
            place(event) > request.after
                && request.stream.as_ref().is_none_or(|stream| *stream == event.stream)
                && (request.categories.is_empty() || request.categories.contains(&category(event)))
                && (request.types.is_empty() || request.types.contains(&event.event_type))
                && (request.system || !event.stream.starts_with('$'))
        };
        let limit = request.limit.map_or(1000, |limit| limit.get() as usize);
        let events: Vec<Event> = script.events.iter().filter(wanted).take(limit).cloned().collect();
        let head = script.events.len() as u64;
        let last = events.last().map(place);
        let through = match request.stream {
            Some(_) => last.unwrap_or(request.after),
            None if events.len() < limit => head,
            None => last.unwrap_or(head),
        };
        ReadResponse { events, through, head, journal: None }
    }
}

impl FakeApi {
    fn settled(&self, projection: &str, request: SettleRequest) -> SettleResponse {
        let wanted = |letter: &&Letter| {
            request.all
                || request.position == Some(letter.event.position)
                || request.stream.as_ref() == Some(&letter.event.stream)
        };
        let letters = Some(self.script().letters.iter().filter(wanted).count() as u64);
        let requested = Some(*self.head.borrow() + 1);
        let version = request.version.clone().unwrap_or_else(|| "v1.1".to_owned());
        SettleResponse { projection: projection.to_owned(), version, letters, requested }
    }
}

/// Returns the status of a node of a test, with `events` in its journal and no projections.
pub fn node_status(events: u64) -> Status {
    let node = NodeStatus {
        name: "node-1".to_owned(),
        release: "0.1.0".to_owned(),
        pid: 4711,
        uptime_seconds: 3725,
        store: "memory".to_owned(),
        head: events,
        events,
        ready: true,
        waiting_on: vec![],
        warnings: vec![],
    };
    Status { node, members: vec![], projections: vec![], subscribers: vec![] }
}

/// The operations of the fake, each under the name of its row. One that has no method here answers as [`Otherwise`]
/// says.
struct Operations<'a>(&'a FakeApi);

impl Operations<'_> {
    async fn status(&self) -> Result<Status, ApiError> {
        let mut script = self.0.script();
        let head = script.events.len() as u64;
        let last = script.statuses.len() == 1;
        let next = if last { script.statuses.front().cloned() } else { script.statuses.pop_front() };
        Ok(next.unwrap_or_else(|| node_status(head)))
    }

    async fn append(&self, request: AppendRequest) -> Result<AppendResponse, ApiError> {
        let mut script = self.0.script();
        script.appends.push(request.events.len());
        let fault = script.faults.pop_front();
        if let Some(Fault::Before(error)) = fault {
            return Err(error);
        }
        let appended = script.append(request)?;
        self.0.head.send_replace(script.events.len() as u64);
        match fault {
            Some(Fault::After(error)) => Err(error),
            _ => Ok(appended),
        }
    }

    async fn read(&self, request: ReadRequest) -> Result<ReadResponse, ApiError> {
        if request.stream.is_some() && !request.categories.is_empty() {
            return Err(Problem::new("bad_request", "name a stream or categories, not both").invalid());
        }
        let mut head = self.0.head.subscribe();
        let wait = tokio::time::sleep(Duration::from_millis(request.wait_ms.unwrap_or(0)));
        tokio::pin!(wait);
        loop {
            let read = self.0.events_behind(&request);
            if !read.events.is_empty() || wait.is_elapsed() {
                return Ok(read);
            }
            tokio::select! {
                () = &mut wait => {}
                moved = head.changed() => moved.expect("the fake outlives its calls"),
            }
        }
    }

    async fn streams(&self, request: StreamsRequest) -> Result<StreamsResponse, ApiError> {
        let script = self.0.script();
        let mut streams: BTreeMap<&str, StreamSummary> = BTreeMap::new();
        for event in &script.events {
            let (name, revision, last) = (event.stream.clone(), event.revision, event.position);
            streams.insert(&event.stream, StreamSummary { name, revision, last });
        }
        let wanted = |stream: &StreamSummary| {
            let category = dacapo_model::category_of(&stream.name);
            request.after.as_ref().is_none_or(|after| stream.name > *after)
                && request.category.as_ref().is_none_or(|wanted| wanted == category)
        };
        let mut streams: Vec<StreamSummary> = streams.into_values().filter(wanted).collect();
        let limit = request.limit.map_or(1000, |limit| limit.get() as usize);
        let more = streams.len() > limit;
        streams.truncate(limit);
        Ok(StreamsResponse { streams, more })
    }

    async fn rebuild(&self, projection: &str, request: RebuildRequest) -> Result<RebuildResponse, ApiError> {
        self.0.ask("rebuild", projection, &request)?;
        let version = format!("v{}.1", request.code.unwrap_or(2));
        let requested = Some(*self.0.head.borrow() + 1);
        Ok(RebuildResponse { projection: projection.to_owned(), version, requested, discards: vec![] })
    }

    async fn flip(&self, projection: &str, request: FlipRequest) -> Result<FlipResponse, ApiError> {
        self.0.move_readers("flip", projection, &request)
    }

    async fn rollback(&self, projection: &str, request: FlipRequest) -> Result<FlipResponse, ApiError> {
        self.0.move_readers("rollback", projection, &request)
    }

    async fn replay(&self, projection: &str, request: ReplayRequest) -> Result<ReplayResponse, ApiError> {
        self.0.ask("replay", projection, &request)?;
        let requested = *self.0.head.borrow() + 1;
        let done = ReplayResponse {
            projection: projection.to_owned(),
            version: request.version.unwrap_or_else(|| "v1.1".to_owned()),
            requested: Some(requested),
            ended: true,
            position: Some(requested + 1),
            waiting_on: vec![],
        };
        Ok(self.0.script().replays.pop_front().unwrap_or(done))
    }

    async fn clean_up(
        &self,
        projection: &str,
        version: &str,
        request: CleanUpRequest,
    ) -> Result<CleanUpResponse, ApiError> {
        self.0.ask("clean_up", projection, &json!({"version": version, "asked": request.asked}))?;
        let requested = Some(*self.0.head.borrow() + 1);
        Ok(CleanUpResponse { projection: projection.to_owned(), version: version.to_owned(), requested })
    }

    async fn verification(&self, projection: &str, _: VerificationRequest) -> Result<Verification, ApiError> {
        let mut script = self.0.script();
        let last = script.verifications.len() == 1;
        let next = if last { script.verifications.front().cloned() } else { script.verifications.pop_front() };
        next.ok_or_else(|| {
            let message = format!("no version of {projection} is being built or was verified: ask for a rebuild");
            Problem::new("no_target", message).refused()
        })
    }

    async fn verify(&self, projection: &str, request: VerifyRequest) -> Result<VerifyResponse, ApiError> {
        self.0.ask("verify", projection, &request)?;
        Ok(self.0.requested(projection, request))
    }

    async fn waive(&self, projection: &str, request: VerifyRequest) -> Result<VerifyResponse, ApiError> {
        self.0.ask("waive", projection, &request)?;
        Ok(self.0.requested(projection, request))
    }

    async fn letters(&self, projection: &str, request: LettersRequest) -> Result<LettersResponse, ApiError> {
        let script = self.0.script();
        let behind = script.letters.iter().filter(|letter| letter.event.position > request.after).cloned();
        let mut letters: Vec<Letter> = behind.collect();
        let limit = request.limit.map_or(1000, |limit| limit.get() as usize);
        let more = letters.len() > limit;
        letters.truncate(limit);
        let version = request.version.unwrap_or_else(|| "v1.1".to_owned());
        let (letters, effects) = if request.effects { (vec![], script.effects.clone()) } else { (letters, vec![]) };
        Ok(LettersResponse { projection: projection.to_owned(), version, letters, effects, more })
    }

    async fn retry_letters(&self, projection: &str, request: SettleRequest) -> Result<SettleResponse, ApiError> {
        self.0.ask("retry_letters", projection, &request)?;
        Ok(self.0.settled(projection, request))
    }

    async fn drop_letters(&self, projection: &str, request: SettleRequest) -> Result<SettleResponse, ApiError> {
        self.0.ask("drop_letters", projection, &request)?;
        Ok(self.0.settled(projection, request))
    }

    async fn set_aside(&self, projection: &str, request: SetAsideRequest) -> Result<SetAsideResponse, ApiError> {
        self.0.ask("set_aside", projection, &request)?;
        let requested = Some(*self.0.head.borrow() + 1);
        let version = request.version.unwrap_or_else(|| "v1.1".to_owned());
        Ok(SetAsideResponse { projection: projection.to_owned(), version, position: request.position, requested })
    }

    async fn cancel(&self, projection: &str, request: CancelRequest) -> Result<CancelResponse, ApiError> {
        self.0.ask("cancel", projection, &request)?;
        let requested = Some(*self.0.head.borrow() + 1);
        let version = request.version.unwrap_or_else(|| "v2.1".to_owned());
        let what = request.what.unwrap_or_else(|| "flip".to_owned());
        Ok(CancelResponse { projection: projection.to_owned(), version, what, requested })
    }

    async fn phases(&self, request: PhasesRequest) -> Result<History, ApiError> {
        let script = self.0.script();
        let wanted = |entry: &&HistoryEntry| {
            entry.position > request.after && request.projection.as_ref().is_none_or(|name| *name == entry.projection)
        };
        let mut history: Vec<HistoryEntry> = script.history.iter().filter(wanted).cloned().collect();
        let limit = request.limit.map_or(1000, |limit| limit.get() as usize);
        let more = history.len() > limit;
        history.truncate(limit);
        let through = history.last().map_or(request.after, |entry| entry.position);
        Ok(History { history, through, more })
    }
}

macro_rules! fake {
    ($(
        $(#[doc = $doc:literal])*
        $name:ident: $method:ident $path:literal ($($part:ident),*) $($request:ident)? => $response:ident,
            $right:ident, $twice:ident;
    )*) => {
        /// The answers to operations for which the fake has no method of its own. A method of a type comes before one
        /// of a trait.
        #[expect(dead_code, reason = "most operations have a method of their own")]
        trait Otherwise {
            fn fake(&self) -> &FakeApi;

            $(
                async fn $name(
                    &self,
                    $($part: &str,)*
                    $(request: crate::$request,)?
                ) -> Result<crate::$response, ApiError> {
                    let request = given!($(request as $request)?);
                    let parts = &[$((stringify!($part), $part)),*];
                    self.fake().otherwise(stringify!($name), Twice::$twice, parts, &request)
                }
            )*
        }

        #[async_trait]
        impl Api for FakeApi {
            $(
                async fn $name(
                    &self,
                    $($part: &str,)*
                    $(request: crate::$request,)?
                ) -> Result<crate::$response, ApiError> {
                    Operations(self).$name($($part,)* $(identity::<crate::$request>(request))?).await
                }
            )*
        }
    };
}

operations!(fake);

impl Otherwise for Operations<'_> {
    fn fake(&self) -> &FakeApi {
        self.0
    }
}

//! An [`Api`] in memory, for tests of whatever stands in front of one.
//!
//! Its journal keeps the rules of a real one: an append is all or nothing, known ids are recognised or skipped,
//! expected revisions are checked. Its projections are a script: each status, flip and failure is what the test has
//! put there. Its clock stands still, so that output can be compared.

#![expect(clippy::expect_used, reason = "it is part of tests")]

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::{
    Api, ApiError, AppendRequest, AppendResponse, CancelRequest, CancelResponse, CleanUpRequest, CleanUpResponse,
    EffectLetter, Event, FlipRequest, FlipResponse, History, HistoryEntry, Letter, LettersRequest, LettersResponse,
    NodeStatus, OnKnown, PauseRequest, PauseResponse, PhasesRequest, Problem, ReadRequest, ReadResponse,
    RebuildRequest, RebuildResponse, ReplayRequest, ReplayResponse, RevisionDemand, SetAsideRequest, SetAsideResponse,
    SettleRequest, SettleResponse, Status, StreamSummary, StreamsRequest, StreamsResponse, Verification,
    VerificationRequest, VerifyRequest, VerifyResponse, parse_projection,
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
    fn ordered(&self, projection: &str, request: PauseRequest) -> PauseResponse {
        let version = request.version.unwrap_or_else(|| "v1.1".to_owned());
        PauseResponse { projection: projection.to_owned(), version, requested: Some(*self.head.borrow() + 1) }
    }

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

impl Script {
    /// Returns the position of each event, by its id.
    fn known(&self) -> HashMap<String, u64> {
        self.events.iter().map(|event| (event.id.clone(), event.position)).collect()
    }

    fn revision(&self, stream: &str) -> u64 {
        self.events.iter().filter(|event| event.stream == stream).count() as u64
    }

    fn check(&self, request: &AppendRequest) -> Result<(), ApiError> {
        if request.events.is_empty() {
            return Err(Problem::new("empty", "the append has no events").invalid());
        }
        for event in &request.events {
            let id = dacapo_model::EventId::from_bytes([0; 16]);
            event.clone().into_model(|| id)?;
        }
        for expected in &request.expected {
            let actual = self.revision(&expected.stream);
            let allowed = match expected.revision {
                RevisionDemand::Any => true,
                RevisionDemand::NoStream => actual == 0,
                RevisionDemand::Exists => actual > 0,
                RevisionDemand::Exact(revision) => actual == revision,
            };
            if !allowed {
                let message = format!("stream {} is at revision {actual}", expected.stream);
                let problem =
                    Problem::new("wrong_revision", message).help("the stream has changed: reload it and retry");
                let problem = problem.field("stream", expected.stream.as_str()).field("actual", actual);
                let demand = serde_json::to_value(expected.revision).expect("a word or a number");
                return Err(problem.field("expected", demand).refused());
            }
        }
        Ok(())
    }

    fn append(&mut self, request: AppendRequest) -> Result<AppendResponse, ApiError> {
        let mut known = self.known();
        let is_known = |id: &Option<String>| id.as_deref().is_some_and(|id| known.contains_key(id));
        let known_count = request.events.iter().filter(|event| is_known(&event.id)).count();
        let retry = !request.events.is_empty() && known_count == request.events.len();
        if request.on_known == OnKnown::Recognise && known_count > 0 && !retry {
            return Err(Problem::new("partly_known", "some of the events are in the journal").refused());
        }
        if !retry {
            self.check(&request)?;
        }
        let mut revisions: HashMap<String, u64> = HashMap::new();
        self.events.iter().for_each(|event| *revisions.entry(event.stream.clone()).or_default() += 1);
        let (mut position, mut written) = (0, 0);
        for event in request.events {
            position = self.events.len() as u64 + 1;
            let id = event.id.unwrap_or_else(|| format!("00000000-0000-7000-8000-{position:012}"));
            if let Some(known) = known.get(&id) {
                position = *known;
                continue;
            }
            known.insert(id.clone(), position);
            let revision = revisions.entry(event.stream.clone()).or_default();
            *revision += 1;
            self.events.push(Event {
                position,
                revision: *revision,
                id,
                stream: event.stream,
                event_type: event.event_type,
                time: NOW.to_owned(),
                data: event.data,
                metadata: event.metadata,
                tags: event.tags,
            });
            written += 1;
        }
        let index = usize::try_from(position - 1).expect("a journal in memory");
        Ok(AppendResponse { position, revision: self.events[index].revision, written })
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

#[async_trait]
impl Api for FakeApi {
    async fn status(&self) -> Result<Status, ApiError> {
        let mut script = self.script();
        let head = script.events.len() as u64;
        let last = script.statuses.len() == 1;
        let next = if last { script.statuses.front().cloned() } else { script.statuses.pop_front() };
        Ok(next.unwrap_or_else(|| node_status(head)))
    }

    async fn append(&self, request: AppendRequest) -> Result<AppendResponse, ApiError> {
        let mut script = self.script();
        script.appends.push(request.events.len());
        let fault = script.faults.pop_front();
        if let Some(Fault::Before(error)) = fault {
            return Err(error);
        }
        let appended = script.append(request)?;
        self.head.send_replace(script.events.len() as u64);
        match fault {
            Some(Fault::After(error)) => Err(error),
            _ => Ok(appended),
        }
    }

    async fn read(&self, request: ReadRequest) -> Result<ReadResponse, ApiError> {
        if request.stream.is_some() && !request.categories.is_empty() {
            return Err(Problem::new("bad_request", "name a stream or categories, not both").invalid());
        }
        let mut head = self.head.subscribe();
        let wait = tokio::time::sleep(Duration::from_millis(request.wait_ms.unwrap_or(0)));
        tokio::pin!(wait);
        loop {
            let read = self.events_behind(&request);
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
        let script = self.script();
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
        self.ask("rebuild", projection, &request)?;
        let version = format!("v{}.1", request.code.unwrap_or(2));
        let requested = Some(*self.head.borrow() + 1);
        Ok(RebuildResponse { projection: projection.to_owned(), version, requested, discards: vec![] })
    }

    async fn flip(&self, projection: &str, request: FlipRequest) -> Result<FlipResponse, ApiError> {
        self.move_readers("flip", projection, &request)
    }

    async fn rollback(&self, projection: &str, request: FlipRequest) -> Result<FlipResponse, ApiError> {
        self.move_readers("rollback", projection, &request)
    }

    async fn replay(&self, projection: &str, request: ReplayRequest) -> Result<ReplayResponse, ApiError> {
        self.ask("replay", projection, &request)?;
        let requested = *self.head.borrow() + 1;
        let done = ReplayResponse {
            projection: projection.to_owned(),
            version: request.version.unwrap_or_else(|| "v1.1".to_owned()),
            requested: Some(requested),
            ended: true,
            position: Some(requested + 1),
            waiting_on: vec![],
        };
        Ok(self.script().replays.pop_front().unwrap_or(done))
    }

    async fn clean_up(
        &self,
        projection: &str,
        version: &str,
        request: CleanUpRequest,
    ) -> Result<CleanUpResponse, ApiError> {
        self.ask("clean_up", projection, &json!({"version": version, "asked": request.asked}))?;
        let requested = Some(*self.head.borrow() + 1);
        Ok(CleanUpResponse { projection: projection.to_owned(), version: version.to_owned(), requested })
    }

    async fn verification(&self, projection: &str, _: VerificationRequest) -> Result<Verification, ApiError> {
        let mut script = self.script();
        let last = script.verifications.len() == 1;
        let next = if last { script.verifications.front().cloned() } else { script.verifications.pop_front() };
        next.ok_or_else(|| {
            let message = format!("no version of {projection} is being built or was verified: ask for a rebuild");
            Problem::new("no_target", message).refused()
        })
    }

    async fn verify(&self, projection: &str, request: VerifyRequest) -> Result<VerifyResponse, ApiError> {
        self.ask("verify", projection, &request)?;
        Ok(self.requested(projection, request))
    }

    async fn waive(&self, projection: &str, request: VerifyRequest) -> Result<VerifyResponse, ApiError> {
        self.ask("waive", projection, &request)?;
        Ok(self.requested(projection, request))
    }

    async fn pause(&self, projection: &str, request: PauseRequest) -> Result<PauseResponse, ApiError> {
        self.ask("pause", projection, &request)?;
        Ok(self.ordered(projection, request))
    }

    async fn resume(&self, projection: &str, request: PauseRequest) -> Result<PauseResponse, ApiError> {
        self.ask("resume", projection, &request)?;
        Ok(self.ordered(projection, request))
    }

    async fn letters(&self, projection: &str, request: LettersRequest) -> Result<LettersResponse, ApiError> {
        let script = self.script();
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
        self.ask("retry_letters", projection, &request)?;
        Ok(self.settled(projection, request))
    }

    async fn drop_letters(&self, projection: &str, request: SettleRequest) -> Result<SettleResponse, ApiError> {
        self.ask("drop_letters", projection, &request)?;
        Ok(self.settled(projection, request))
    }

    async fn set_aside(&self, projection: &str, request: SetAsideRequest) -> Result<SetAsideResponse, ApiError> {
        self.ask("set_aside", projection, &request)?;
        let requested = Some(*self.head.borrow() + 1);
        let version = request.version.unwrap_or_else(|| "v1.1".to_owned());
        Ok(SetAsideResponse { projection: projection.to_owned(), version, position: request.position, requested })
    }

    async fn cancel(&self, projection: &str, request: CancelRequest) -> Result<CancelResponse, ApiError> {
        self.ask("cancel", projection, &request)?;
        let requested = Some(*self.head.borrow() + 1);
        let version = request.version.unwrap_or_else(|| "v2.1".to_owned());
        let what = request.what.unwrap_or_else(|| "flip".to_owned());
        Ok(CancelResponse { projection: projection.to_owned(), version, what, requested })
    }

    async fn phases(&self, request: PhasesRequest) -> Result<History, ApiError> {
        let script = self.script();
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

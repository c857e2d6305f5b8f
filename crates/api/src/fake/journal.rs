//! The journal of the fake, with the rules of a real one.

use std::collections::HashMap;

use super::{NOW, Script};
use crate::{ApiError, AppendRequest, AppendResponse, Event, OnKnown, Problem, RevisionDemand};

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

    pub(super) fn append(&mut self, request: AppendRequest) -> Result<AppendResponse, ApiError> {
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

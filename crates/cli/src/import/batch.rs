//! Appending one batch, again and again while the node is unavailable.

use dacapo_api::{Api, ApiError, AppendRequest, OnKnown};
use dacapo_model::BackOff;
use tokio::time::Instant;

use super::Options;
use super::line::Line;
use crate::limits;

/// The result of a batch.
pub(super) enum Fate {
    /// It is in the journal.
    Appended { written: u64 },
    /// Something in it was refused; nothing of it was written.
    Refused(ApiError),
    /// It did not work, for a reason that lies in no line.
    Failed(ApiError),
}

pub(super) struct Appender<'a> {
    pub api: &'a dyn Api,
    pub options: Options,
}

impl Appender<'_> {
    /// Appends `lines`. Every line has an id, so trying again is safe whatever became of the last try.
    pub async fn append(&self, lines: &[Line]) -> Fate {
        let started = Instant::now();
        let first = self.options.retry_pause_min;
        let mut back_off = BackOff::new(first, limits::IMPORT_PAUSE_MAX.max(first));
        loop {
            let events = lines.iter().map(|line| line.event.clone()).collect();
            let request = AppendRequest { events, expected: vec![], on_known: OnKnown::Skip };
            let error = match self.api.append(request).await {
                Ok(appended) => return Fate::Appended { written: appended.written },
                Err(error) => error,
            };
            if !error.is_transient() {
                return if lies_in_a_line(&error) { Fate::Refused(error) } else { Fate::Failed(error) };
            }
            let pause = back_off.pause();
            if started.elapsed() + pause > self.options.retry_time_max {
                return Fate::Failed(error);
            }
            tracing::warn!(line = lines[0].number, %error, "the append is tried again");
            tokio::time::sleep(pause).await;
        }
    }
}

/// Returns true if the events are to blame, and not the address or the way to it.
fn lies_in_a_line(error: &ApiError) -> bool {
    match error {
        ApiError::Refused(_) => true,
        ApiError::Invalid(problem) => {
            let way = ["forbidden", "method_not_allowed", "unexpected_answer", "unsupported_media_type"];
            !way.contains(&problem.code.as_str())
        }
        ApiError::NotFound(_) | ApiError::Unavailable(_) | ApiError::Corrupt(_) => false,
    }
}

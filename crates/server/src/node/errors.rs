//! The refusals and failures of a node, as the problems of the API.

use dacapo::journal::AppendRefused;
use dacapo::store::StoreError;
use dacapo::{Error, ErrorKind};
use dacapo_api::{ApiError, Problem};

pub(crate) fn unavailable(error: StoreError) -> ApiError {
    let message = error.to_string();
    match error {
        StoreError::Unavailable { tried, found } | StoreError::Owned { tried, found } => {
            Problem::new("unavailable", message).tried(tried).found(found).unavailable()
        }
        StoreError::Corrupt { place, found } => {
            Problem::new("corrupt", message).found(found).field("place", place).corrupt()
        }
        StoreError::Invalid(_) => Problem::new("invalid", message).invalid(),
        StoreError::Parted(parted) => {
            let problem = Problem::new("parted", message).found(parted);
            problem.help("put the right journal back, or rebuild what was made from the other one").unavailable()
        }
        StoreError::JournalParted(parted) => {
            let problem = Problem::new("journal_parted", message).found(parted.of_journal());
            problem.help("decide which journal is right, and restart every node").unavailable()
        }
        StoreError::BeyondHead { after, head } => {
            Problem::new("beyond_head", message).field("after", after.get()).field("head", head.get()).refused()
        }
        StoreError::BeyondStream { stream, after, last } => {
            let problem = Problem::new("beyond_stream", message).field("stream", stream.as_str());
            problem.field("after", after.get()).field("last", last.get()).refused()
        }
        // The store did not do it, and says no more of it.
        _ => Problem::new("unavailable", message).unavailable(),
    }
}

pub(crate) fn refused(error: Error) -> ApiError {
    let message = error.to_string();
    match error {
        Error::Name(invalid) => invalid.into(),
        Error::Catalog(refused) => refused.into(),
        Error::Store(error) => unavailable(error),
        Error::KeyReused(reused) => {
            let dacapo::catalog::KeyReused { key, before, now } = reused;
            let problem = Problem::new("key_reused", message).field("idempotency_key", key);
            problem.field("before", before).field("now", now).invalid()
        }
        Error::AskedTooLong(found) => {
            let problem = Problem::new("too_long", message).field("at", found.text.name());
            problem.field("bytes", found.bytes).field("bytes_max", found.text.bytes_max()).invalid()
        }
        Error::Append(refused) => append_refused(refused, message),
        Error::Event(_) => Problem::new("invalid_event", message).invalid(),
        Error::SystemStream(_) => Problem::new("system_stream", message).invalid(),
        Error::NotInPlace { view, .. } => {
            let problem = Problem::new("not_in_place", message).field("projection", view.projection.as_str());
            problem.field("version", view.version.to_string()).refused()
        }
        Error::ReplayUnderWay { view, after, requested, progress } => {
            let problem = Problem::new("replay_under_way", message).field("projection", view.projection.as_str());
            let problem = problem.field("version", view.version.to_string()).field("after", after.get());
            let problem = problem.field("requested", requested.get());
            match progress {
                Some((at, through)) => problem.field("at", at.get()).field("through", through.get()).refused(),
                None => problem.refused(),
            }
        }
        Error::Carry(_) => Problem::new("not_carried_so", message).refused(),
        Error::NoReason => Problem::new("no_reason", message).invalid(),
        Error::NoCopy { why, .. } => Problem::new("no_copy", message).found(why).refused(),
        Error::NoTarget(_) => Problem::new("no_target", message).refused(),
        Error::NoSuchProjection { name, known } => {
            let known: Vec<String> = known.iter().map(ToString::to_string).collect();
            let found = if known.is_empty() { "there are none yet".to_owned() } else { known.join(", ") };
            let problem = Problem::new("no_such_projection", format!("there is no projection {name}"));
            problem.found(found).help("`dacapo status` lists them").field("known", known).not_found()
        }
        Error::NotCarried { .. } => Problem::new("not_carried", message).not_found(),
        Error::NoAnswer { .. } => Problem::new("no_answer", message).not_found(),
        Error::Behind { view, position, first, stream } => {
            let problem = Problem::new("blocked_by_another", message).field("version", view.version.to_string());
            let problem = problem.field("position", position.get()).field("first", first.get());
            problem.field("stream", stream.as_str()).refused()
        }
        Error::NotHalted { view, event, halts } => {
            let problem = Problem::new("not_halted", message).field("version", view.version.to_string());
            let halts: Vec<u64> = halts.iter().map(|position| position.get()).collect();
            problem.field("position", event.get()).field("halts", halts).refused()
        }
        Error::WouldDiscard { view } => {
            let problem = Problem::new("would_discard", message).field("version", view.version.to_string());
            let help = format!("`dacapo flip {}` moves readers to it, `--discard` discards it", view.projection);
            problem.help(help).refused()
        }
        Error::NoSuchCode { code, carried, .. } => {
            let problem = Problem::new("not_carried", message).field("code", code).field("carried", carried);
            problem.help("start a node with that code, or name a version that is carried").not_found()
        }
        Error::FlipAborted { .. } => Problem::new("flip_aborted", message).refused(),
        Error::TimedOut { .. } => Problem::new("timed_out", message).unavailable(),
        Error::View(_) => Problem::new("view_unreadable", message).unavailable(),
        Error::Answer(_) => Problem::new("query_failed", message).unavailable(),
        error => of_kind(error.kind(), message),
    }
}

/// What a node says that has no code of its own here: told by what the caller can do about it.
fn of_kind(kind: ErrorKind, message: String) -> ApiError {
    match kind {
        ErrorKind::Invalid => Problem::new("invalid", message).invalid(),
        ErrorKind::Refused => Problem::new("refused", message).refused(),
        ErrorKind::NotFound => Problem::new("not_found", message).not_found(),
        ErrorKind::Corrupt => Problem::new("corrupt", message).corrupt(),
        _ => Problem::new("unavailable", message).unavailable(),
    }
}

fn append_refused(refused: AppendRefused, message: String) -> ApiError {
    match refused {
        AppendRefused::WrongRevision { stream, expected, actual } => Problem::new("wrong_revision", message)
            .field("stream", stream.as_str())
            .field("expected", expected.to_string())
            .field("actual", actual.get())
            .refused(),
        AppendRefused::IdTaken { id, position } => {
            Problem::new("id_taken", message).field("id", id.to_string()).field("position", position.get()).refused()
        }
        AppendRefused::IdTwice { id, first, second } => Problem::new("id_twice", message)
            .field("id", id.to_string())
            .field("at", [first, second].map(|event| format!("events[{event}]")))
            .invalid(),
        AppendRefused::PartlyKnown { known, position, unknown } => Problem::new("partly_known", message)
            .field("known", known.to_string())
            .field("position", position.get())
            .field("unknown", unknown.to_string())
            .refused(),
        AppendRefused::Limit { what, actual, max } => {
            Problem::new("too_large", message).field("what", what).field("actual", actual).field("max", max).invalid()
        }
        AppendRefused::Empty => Problem::new("empty", message).invalid(),
        _ => Problem::new("refused", message).refused(),
    }
}

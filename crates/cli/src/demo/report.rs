//! The summary, as a table for people and as one JSON object for programs.

use std::fmt::Write;
use std::time::Duration;

use dacapo_api::Problem;
use serde_json::json;

/// What the demo came to.
#[derive(Clone, Debug)]
pub(super) struct Summary {
    pub(super) events: u64,
    pub(super) accounts: u64,
    pub(super) append_per_s: f64,
    pub(super) replay_per_s: f64,
    pub(super) flip_pause_ms: f64,
    pub(super) rollback_ms: f64,
    pub(super) requests: u64,
    pub(super) failed: u64,
    pub(super) lost: u64,
    pub(super) applied_twice: u64,
    pub(super) time_travel: u64,
    pub(super) first_failure: Option<String>,
    pub(super) append_times: Vec<u32>,
    pub(super) read_times: Vec<u32>,
}

impl Summary {
    /// Whether nothing failed, was lost, was applied twice or went back in time.
    pub(super) fn is_good(&self) -> bool {
        self.failed + self.lost + self.applied_twice + self.time_travel == 0
    }
}

/// The summary as one JSON object, in one line.
pub(super) fn json(summary: &Summary) -> String {
    let rounded = |number: f64| (number * 1e3).round() / 1e3;
    let object = json!({
        "events": summary.events,
        "accounts": summary.accounts,
        "append_per_s": summary.append_per_s.round() as u64,
        "replay_per_s": summary.replay_per_s.round() as u64,
        "flip_pause_ms": rounded(summary.flip_pause_ms),
        "rollback_ms": rounded(summary.rollback_ms),
        "requests": summary.requests,
        "failed": summary.failed,
        "lost": summary.lost,
        "applied_twice": summary.applied_twice,
        "time_travel": summary.time_travel,
    });
    format!("{object}\n")
}

/// The summary for people.
pub(super) fn table(summary: &Summary) -> String {
    let rows = [
        ("events", grouped(summary.events)),
        ("accounts", grouped(summary.accounts)),
        ("appended", format!("{} events a second, durable", grouped(summary.append_per_s as u64))),
        ("replayed", format!("{} events a second, under traffic", grouped(summary.replay_per_s as u64))),
        ("flip", format!("{:.1} ms in which appliers were held; readers and writers never", summary.flip_pause_ms)),
        ("rollback", format!("{:.1} ms from the request to the last reader", summary.rollback_ms)),
        ("append time", times(&summary.append_times)),
        ("read time", times(&summary.read_times)),
        ("requests served", grouped(summary.requests - summary.failed)),
        ("requests failed", grouped(summary.failed)),
        ("events lost", grouped(summary.lost)),
        ("applied twice", grouped(summary.applied_twice)),
        ("readers sent back", grouped(summary.time_travel)),
    ];
    let mut text = String::from("\n");
    for (name, value) in rows {
        let _ = writeln!(text, "  {name:<18}{value}");
    }
    let verdict = if summary.is_good() { "as it must be" } else { "NOT as it must be" };
    let _ = writeln!(text, "\n  {verdict}: counted by the clients' own books and a plain fold of the journal");
    text
}

/// What is not as it must be.
pub(super) fn fault(summary: &Summary) -> Problem {
    let Summary { failed, lost, applied_twice, time_travel, .. } = summary;
    let message = format!(
        "{failed} requests failed, {lost} events were lost, {applied_twice} applied twice, {time_travel} readers sent back"
    );
    let problem = Problem::new("demo_failed", message);
    match &summary.first_failure {
        Some(failure) => problem.found(format!("the first failure: {failure}")),
        None => problem,
    }
}

/// A number with its thousands apart.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

pub(super) fn millis(duration: Option<Duration>) -> String {
    duration.map_or_else(|| "an unknown time".to_owned(), |duration| format!("{:.1} ms", duration.as_secs_f64() * 1e3))
}

fn times(micros: &[u32]) -> String {
    let mut sorted = micros.to_vec();
    sorted.sort_unstable();
    let at = |share: f64| {
        let index = ((sorted.len() as f64 - 1.0) * share).round() as usize;
        sorted.get(index).map_or(0.0, |micros| f64::from(*micros) / 1e3)
    };
    format!("{:.2} ms p50, {:.2} ms p99, {:.1} ms at most", at(0.5), at(0.99), at(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_stand_apart() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn percentiles_are_of_the_sorted_times() {
        assert_eq!(times(&[3_000, 1_000, 2_000]), "2.00 ms p50, 3.00 ms p99, 3.0 ms at most");
        assert_eq!(times(&[]), "0.00 ms p50, 0.00 ms p99, 0.0 ms at most");
    }
}

//! The summary, as a table for people and as one JSON object for programs.

use std::time::Duration;

use dacapo_api::Problem;
use serde::Serialize;

use super::traffic::Counted;
use crate::numbers::{count, counted, rate, whole};

/// The result of the demo.
#[derive(Clone, Debug)]
pub(super) struct Summary {
    pub(super) events: u64,
    pub(super) accounts: u64,
    pub(super) append_per_s: f64,
    pub(super) replay_per_s: f64,
    pub(super) flip_pause_ms: f64,
    pub(super) rollback_ms: f64,
    /// The observations of the clients, and those of the fold of the journal after them.
    pub(super) counted: Counted,
}

impl Summary {
    /// Returns true if nothing failed, was lost, was applied twice or went back in time.
    pub(super) fn is_good(&self) -> bool {
        let Counted { failed, lost, applied_twice, time_travel, .. } = self.counted;
        failed + lost + applied_twice + time_travel == 0
    }
}

/// The form of the summary for programs.
#[derive(Debug, Serialize)]
pub(super) struct Form {
    events: u64,
    accounts: u64,
    append_per_s: u64,
    replay_per_s: u64,
    flip_pause_ms: f64,
    rollback_ms: f64,
    requests: u64,
    failed: u64,
    lost: u64,
    applied_twice: u64,
    time_travel: u64,
}

/// Returns the summary for programs.
pub(super) fn form(summary: &Summary) -> Form {
    let rounded = |number: f64| (number * 1e3).round() / 1e3;
    let Counted { requests, failed, lost, applied_twice, time_travel, .. } = summary.counted;
    Form {
        events: summary.events,
        accounts: summary.accounts,
        append_per_s: whole(summary.append_per_s),
        replay_per_s: whole(summary.replay_per_s),
        flip_pause_ms: rounded(summary.flip_pause_ms),
        rollback_ms: rounded(summary.rollback_ms),
        requests,
        failed,
        lost,
        applied_twice,
        time_travel,
    }
}

/// Returns the summary for people.
pub(super) fn table(summary: &Summary) -> String {
    let Counted { requests, failed, lost, applied_twice, time_travel, .. } = summary.counted;
    let groups = [
        vec![
            ("events", count(summary.events)),
            ("accounts", count(summary.accounts)),
            ("appended", format!("{}, durable", rate(summary.append_per_s))),
            ("replayed", format!("{}, under traffic", rate(summary.replay_per_s))),
            ("flip", format!("processors held for {:.1} ms at most, nobody else", summary.flip_pause_ms)),
            ("rollback", format!("{:.1} ms from the request to the last reader", summary.rollback_ms)),
        ],
        vec![
            ("requests", count(requests)),
            ("time of an append", times(&summary.counted.append_times)),
            ("time of a read", times(&summary.counted.read_times)),
        ],
        vec![
            ("requests failed", count(failed)),
            ("events lost", count(lost)),
            ("events applied twice", count(applied_twice)),
            ("readers sent back", count(time_travel)),
        ],
    ];
    let group = |rows: &Vec<(&str, String)>| {
        rows.iter().map(|(name, value)| format!("  {name:<22}{value}\n")).collect::<String>()
    };
    let groups: Vec<String> = groups.iter().map(group).collect();
    let verdict = if summary.is_good() { "as it must be" } else { "NOT as it must be" };
    let by = "by the clients' own books and a plain fold of the journal";
    format!("\n{}\n  {verdict}, {by}\n", groups.join("\n"))
}

/// Returns the faults.
pub(super) fn fault(summary: &Summary) -> Problem {
    let Counted { failed, lost, applied_twice, time_travel, .. } = summary.counted;
    let (failed, lost) = (counted(failed, "request"), counted(lost, "event"));
    let (applied_twice, time_travel) = (counted(applied_twice, "event"), counted(time_travel, "reader"));
    let message = format!("{failed} failed, {lost} lost, {applied_twice} applied twice, {time_travel} sent back");
    let problem = Problem::new("demo_failed", message);
    match &summary.counted.first_failure {
        Some(failure) => problem.found(format!("the first failure: {failure}")),
        None => problem,
    }
}

/// Returns a short time, or that it is not known.
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

    fn summary() -> Summary {
        Summary {
            events: 210_832,
            accounts: 20_000,
            append_per_s: 44_114.4,
            replay_per_s: 79_218.6,
            flip_pause_ms: 1_007.912_34,
            rollback_ms: 16.3,
            counted: good(),
        }
    }

    fn good() -> Counted {
        let (append_times, read_times) = (vec![1_160, 72_200], vec![30]);
        Counted { requests: 32_496, append_times, read_times, ..Counted::default() }
    }

    #[test]
    fn one_of_anything_that_must_not_be_makes_it_bad() {
        assert!(summary().is_good());
        let bad = [
            Counted { failed: 1, ..good() },
            Counted { lost: 1, ..good() },
            Counted { applied_twice: 1, ..good() },
            Counted { time_travel: 1, ..good() },
        ];
        for counted in bad {
            let summary = Summary { counted, ..summary() };
            assert!(!summary.is_good(), "{summary:?}");
            assert!(table(&summary).contains("NOT as it must be"));
            assert!(fault(&summary).message.contains('1'));
        }
    }

    #[test]
    fn the_form_for_programs_has_these_keys() {
        assert_eq!(
            serde_json::to_string(&form(&summary())).unwrap(),
            r#"{"events":210832,"accounts":20000,"append_per_s":44114,"replay_per_s":79219,"flip_pause_ms":1007.912,"rollback_ms":16.3,"requests":32496,"failed":0,"lost":0,"applied_twice":0,"time_travel":0}"#
        );
    }

    #[test]
    fn the_table_fits_a_terminal() {
        let table = table(&summary());
        assert!(table.lines().all(|line| line.chars().count() <= 80), "{table}");
        assert!(table.contains("  events                210,832\n"), "{table}");
        assert!(table.contains("  as it must be, "), "{table}");
    }

    #[test]
    fn percentiles_are_of_the_sorted_times() {
        assert_eq!(times(&[3_000, 1_000, 2_000]), "2.00 ms p50, 3.00 ms p99, 3.0 ms at most");
        assert_eq!(times(&[]), "0.00 ms p50, 0.00 ms p99, 0.0 ms at most");
    }
}

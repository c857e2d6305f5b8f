//! Numbers as people read them.

use std::time::Duration;

pub(crate) use dacapo_model::grouped as count;

/// `noun` with its number: `1 event`, `2 events`.
pub(crate) fn counted(number: u64, noun: &str) -> String {
    format!("{} {noun}{}", count(number), if number == 1 { "" } else { "s" })
}

/// Returns a rate, rounded to what matters.
pub(crate) fn rate(a_second: f64) -> String {
    if a_second < 10.0 { format!("{a_second:.1}/s") } else { format!("{}/s", count(whole(a_second))) }
}

/// Returns a time to wait or one that has passed, in its two largest units.
pub(crate) fn duration(seconds: f64) -> String {
    let whole = whole(seconds.ceil());
    match whole {
        0..60 => format!("{whole} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        3600..86400 => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
        _ => format!("{} d {} h", whole / 86400, whole % 86400 / 3600),
    }
}

/// Returns the number a second, if time has passed.
pub(crate) fn per_second(number: u64, elapsed: Duration) -> Option<f64> {
    // Below 2^53, which no count here reaches, nothing is lost.
    #[allow(clippy::cast_precision_loss)]
    let number = number as f64;
    (!elapsed.is_zero()).then(|| number / elapsed.as_secs_f64())
}

/// Returns the nearest whole number. What is no number, or below zero, is 0.
pub(crate) fn whole(number: f64) -> u64 {
    // A cast from a float saturates, and takes NaN for 0.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let whole = number.round() as u64;
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!([0, 999, 1000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([1, 2000].map(|number| counted(number, "event")), ["1 event", "2,000 events"]);
        assert_eq!([0.04, 9.96, 211_999.6].map(rate), ["0.0/s", "10.0/s", "212,000/s"]);
        let texts = [0.2, 59.0, 60.0, 3_725.0, 90_000.0, f64::NAN].map(duration);
        assert_eq!(texts, ["1 s", "59 s", "1 min 0 s", "1 h 2 min", "1 d 1 h", "0 s"]);
    }
}

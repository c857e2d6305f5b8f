//! Numbers as people read them. Every message, table and help text that shows a count or a position uses these.

use std::time::Duration;

/// Returns the number with a comma between thousands: `1234567` as `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups = digits.as_bytes().rchunks(3).rev();
    groups.map(|group| std::str::from_utf8(group).unwrap_or_default()).collect::<Vec<_>>().join(",")
}

/// Returns a span of time in its two largest units: `23 h 59 min`.
pub(crate) fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn a_span_is_shown_in_its_largest_units() {
        let shown = [0, 59, 61, 3_600, 86_399, 90_000].map(|seconds| span(Duration::from_secs(seconds)));
        assert_eq!(shown, ["0 s", "59 s", "1 min 1 s", "1 h 0 min", "23 h 59 min", "1 d 1 h"]);
    }
}

//! Measuring in turns: what is measured and its floor see the same weather.

use std::time::Duration;

use crate::bench::Done;

/// What a row measured and its floor; higher is better in both.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair {
    /// The median of what was measured.
    pub(crate) measured: f64,
    /// The median of the floor.
    pub(crate) floor: f64,
    /// The median of the ratios of each turn.
    pub(crate) ratio: f64,
}

/// Measures one, then the other, `repeats` times. Each returns how much it did a second.
pub(crate) async fn in_turns(
    repeats: usize,
    mut measured: impl AsyncFnMut() -> Done<f64>,
    mut floor: impl AsyncFnMut() -> Done<f64>,
) -> Done<Pair> {
    let mut turns = Vec::with_capacity(repeats);
    for _ in 0..repeats {
        let floor = floor().await?;
        turns.push((measured().await?, floor));
    }
    Ok(Pair {
        measured: median(turns.iter().map(|turn| turn.0)),
        floor: median(turns.iter().map(|turn| turn.1)),
        ratio: median(turns.iter().map(|turn| turn.0 / turn.1)),
    })
}

/// How many a second.
pub(crate) fn a_second(count: usize, elapsed: Duration) -> f64 {
    count as f64 / elapsed.as_secs_f64()
}

pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    percentile(values.collect(), 50)
}

/// The value that `percent` of `values` are not above.
pub(crate) fn percentile(mut values: Vec<f64>, percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = (values.len() * percent / 100).min(values.len().saturating_sub(1));
    values.get(at).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median([5.0, 1.0, 3.0].into_iter()), 3.0);
        assert_eq!(percentile((1..=100).map(f64::from).collect(), 99), 100.0);
        assert_eq!(percentile(vec![7.0], 99), 7.0);
    }
}

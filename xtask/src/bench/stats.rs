//! Medians, spreads and ratios of a few measurements.

/// The middle of some measurements, and how far apart they lie.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Summary {
    pub(super) median: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

impl Summary {
    /// Summarises `values`, of which there is at least one.
    ///
    /// The spread is the whole range: with a handful of rounds, leaving some out would hide
    /// what the reader must know.
    pub(super) fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len() - 1;
        let median = f64::midpoint(sorted[last / 2], sorted[sorted.len() / 2]);
        Self { median, low: sorted[0], high: sorted[last] }
    }
}

/// Returns the value that so many of a hundred of `values` do not exceed; there is at least one.
pub(super) fn percentile(values: &[f64], percent: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[(sorted.len() * percent).div_ceil(100).saturating_sub(1)]
}

/// Says how many times as fast as `baseline` an arm was, round by round.
///
/// Rounds are paired, because those run one after the other met the same machine.
pub(super) fn speeds(baseline: &[f64], arm: &[f64]) -> Vec<f64> {
    baseline.iter().zip(arm).map(|(baseline, arm)| baseline / arm).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_odd_count_is_the_one_in_the_middle() {
        let summary = Summary::of(&[5.0, 1.0, 2.0]);
        assert_eq!(summary, Summary { median: 2.0, low: 1.0, high: 5.0 });
    }

    #[test]
    fn the_median_of_an_even_count_lies_between_two() {
        let summary = Summary::of(&[4.0, 1.0, 2.0, 8.0]);
        assert_eq!(summary, Summary { median: 3.0, low: 1.0, high: 8.0 });
        assert_eq!(Summary::of(&[7.0]), Summary { median: 7.0, low: 7.0, high: 7.0 });
    }

    #[test]
    fn a_percentile_is_a_value_that_was_measured() {
        let values: Vec<_> = (1..=200).rev().map(f64::from).collect();
        let of_all = |percent| percentile(&values, percent).to_string();
        assert_eq!([0, 1, 50, 99, 100].map(of_all), ["1", "2", "100", "198", "200"]);
        assert_eq!(percentile(&[7.0], 99).to_string(), "7");
    }

    #[test]
    fn rounds_are_paired() {
        // The second round was slow for both, and the arm is four times as fast in each.
        let speeds = speeds(&[8.0, 40.0], &[2.0, 10.0]);
        assert_eq!(Summary::of(&speeds), Summary { median: 4.0, low: 4.0, high: 4.0 });
    }
}

//! The distribution of the number of entries, and its interval.

/// The probability that an interval should have.
const COVERAGE: f64 = 0.8;

/// The interval of the number of successes of independent trials, both ends included. `deviation` is the relative standard
/// deviation of a common factor of all probabilities. The factor has three values, 1 and 1 +- sqrt(3) `deviation`, with the
/// probabilities 2/3, 1/6 and 1/6. These are the nodes and weights of Gauss-Hermite quadrature of three points.
pub(super) fn interval(probabilities: &[f64], deviation: f64) -> (u64, u64) {
    let step = (3f64.sqrt() * deviation).min(1.0);
    let mut mixture = vec![0.0; probabilities.len() + 1];
    for (factor, weight) in [(1.0, 2.0 / 3.0), (1.0 + step, 1.0 / 6.0), (1.0 - step, 1.0 / 6.0)] {
        let scaled: Vec<f64> = probabilities.iter().map(|probability| (factor * probability).min(1.0)).collect();
        mixture.iter_mut().zip(poisson_binomial(&scaled)).for_each(|(sum, value)| *sum += weight * value);
    }
    nearest_interval(&mixture)
}

/// The distribution of the number of successes of independent trials with these probabilities: of 0, 1, 2, ... successes.
fn poisson_binomial(probabilities: &[f64]) -> Vec<f64> {
    let mut distribution = vec![1.0];
    for probability in probabilities {
        distribution.push(0.0);
        for count in (0..distribution.len()).rev() {
            let one_less = if count > 0 { distribution[count - 1] } else { 0.0 };
            distribution[count] = distribution[count] * (1.0 - probability) + one_less * probability;
        }
    }
    distribution
}

/// The interval around the mode whose probability is nearest to [`COVERAGE`]. It grows by the more probable neighbour, as long as
/// its probability gets nearer. An interval of at least this probability would cover too much, because counts are small.
fn nearest_interval(distribution: &[f64]) -> (u64, u64) {
    let probability = |count: usize| distribution.get(count).copied().unwrap_or(0.0);
    let mode = (0..distribution.len()).max_by(|a, b| probability(*a).total_cmp(&probability(*b))).unwrap_or(0);
    let (mut low, mut high, mut covered) = (mode, mode, probability(mode));
    while low > 0 || high + 1 < distribution.len() {
        let below = low.checked_sub(1).map_or(0.0, probability);
        let above = probability(high + 1);
        let grown = covered + below.max(above);
        if (grown - COVERAGE).abs() >= (covered - COVERAGE).abs() {
            break;
        }
        if low > 0 && below > above {
            low -= 1
        } else {
            high += 1
        }
        covered = grown;
    }
    (low as u64, high as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distribution_of_entries_is_that_of_all_outcomes() {
        let probabilities = [0.1, 0.5, 0.9, 0.25];
        let mut expected = [0.0; 5];
        for outcome in 0..16u32 {
            let is_entry = |item: usize| outcome >> item & 1 == 1;
            let chance = |item: usize| if is_entry(item) { probabilities[item] } else { 1.0 - probabilities[item] };
            expected[outcome.count_ones() as usize] += (0..4).map(chance).product::<f64>();
        }
        let distribution = poisson_binomial(&probabilities);
        assert!(distribution.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{distribution:?}");
        // 0.034, 0.353, 0.455, 0.148, 0.011
        assert_eq!(nearest_interval(&distribution), (1, 2));
        assert_eq!(interval(&[], 0.5), (0, 0));
        assert_eq!(interval(&[1.0, 1.0], 0.0), (2, 2));
        // 0.7 is nearer to 0.8 than 0.7 + 0.26; 0.55 is not.
        assert_eq!((nearest_interval(&[0.7, 0.26, 0.04]), nearest_interval(&[0.55, 0.4, 0.05])), ((0, 0), (0, 1)));
    }

    #[test]
    fn an_uncertain_factor_widens_the_interval() {
        // scipy.stats.binom(100, 0.09): 0.77 from 6 to 12, 0.85 from 5 to 12.
        assert_eq!(interval(&[0.09; 100], 0.0), (6, 12));
        let (low, high) = interval(&[0.09; 100], 0.5);
        assert!(low < 6 && high > 12, "{low} to {high}");
    }
}

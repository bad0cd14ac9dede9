//! The distribution of the standardised residuals of earlier predictions.

/// The factor by which the weight of a residual decays per batch.
const DECAY: f64 = super::DECAY;
/// The weight of the normal distribution, in residuals of the latest batch.
const NORMAL_WEIGHT: f64 = 2.0;
/// Residuals of less weight are dropped. Their sum is below rounding.
const MIN_WEIGHT: f64 = 1e-18;

/// How far scores were above their predictions, in deviations: the residuals of a run, later ones with more weight. The model
/// takes them as standard normal. Its choices are the items that it overestimates most, and its deviations may be too
/// small, so the residuals of earlier batches are the better guide.
#[derive(Clone, Debug, Default)]
pub(super) struct Residuals {
    /// Residuals in ascending order, with their weights.
    sorted: Vec<(f64, f64)>,
    /// The sum of the weights from each position on, and 0 at the end.
    weight_from: Vec<f64>,
}

impl Residuals {
    /// Adds the residuals of a batch.
    pub fn add_batch(&mut self, residuals: impl Iterator<Item = f64>) {
        self.sorted.iter_mut().for_each(|(_, weight)| *weight *= DECAY);
        self.sorted.retain(|(_, weight)| *weight > MIN_WEIGHT);
        self.sorted.extend(residuals.map(|residual| (residual, 1.0)));
        self.sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
        self.weight_from = vec![0.0; self.sorted.len() + 1];
        for position in (0..self.sorted.len()).rev() {
            self.weight_from[position] = self.weight_from[position + 1] + self.sorted[position].1;
        }
    }

    /// The probability that a score is more than `z` deviations above its prediction: the weighted share of such residuals,
    /// mixed with the normal distribution.
    pub fn probability_above(&self, z: f64) -> f64 {
        let position = self.sorted.partition_point(|(residual, _)| *residual <= z);
        let weight = |position: usize| self.weight_from.get(position).copied().unwrap_or(0.0);
        (NORMAL_WEIGHT * standard_normal_tail(z) + weight(position)) / (NORMAL_WEIGHT + weight(0))
    }
}

/// The probability that a standard normal value is above `z`.
fn standard_normal_tail(z: f64) -> f64 {
    0.5 * libm::erfc(z / std::f64::consts::SQRT_2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_residuals_probabilities_are_those_of_scipy() {
        // scipy.stats.norm.sf(z)
        for (z, expected) in [(3.0, 0.001_349_898_031_630_094_6), (0.0, 0.5), (-1.5, 0.933_192_798_731_141_9)] {
            assert!((Residuals::default().probability_above(z) - expected).abs() < 1e-12, "z {z}");
        }
    }

    #[test]
    fn probabilities_are_the_weighted_share_of_residuals_above() {
        let mut residuals = Residuals::default();
        residuals.add_batch([1.0, -1.0].into_iter());
        residuals.add_batch([0.5, -2.0, 0.0].into_iter());
        // Of the weights 3 + 2 * 0.8, those above 0 are 1 + 0.8. A residual that equals z is not above it.
        let expected = (2.0 * 0.5 + 1.8) / (2.0 + 4.6);
        assert!((residuals.probability_above(0.0) - expected).abs() < 1e-15);
        assert!(residuals.probability_above(5.0) < 1e-6 && residuals.probability_above(-5.0) > 1.0 - 1e-6);
    }
}

//! How much each view of an item says about its score: shares, learned from what was scored.

use ndarray::{Array1, ArrayView2};

use super::gp::correlation;
use crate::error::{Result, WrapErr};
use crate::linalg::Cholesky;

/// What a whole share that is not the embedding's costs, in nats: so that a column has to say something.
const PRICE: f64 = 10.0;
/// The share of the embedding before anything is known.
const EMBEDDING: f64 = 0.7;
/// How much of that a fit begins with; the rest is what the last one found.
const FRESH: f64 = 0.3;
/// The least share that a fit tries.
const LEAST: f64 = 0.001;
/// Steps of a fit.
const STEPS: usize = 25;

/// The shares of the groups of components in the squared distance of two items, and a factor on the noise that only the
/// fit of the shares knows: without it, views that are like noise get a share for being so.
#[derive(Clone, Debug)]
pub(super) struct Shares {
    /// Of each group, the embedding's first; they sum to 1.
    pub of: Vec<f64>,
    noise_factor: f64,
}

impl Shares {
    /// Before anything is known.
    pub fn new(groups: usize) -> Self {
        let others = (groups - 1).max(1) as f64;
        let of = (0..groups).map(|group| if group == 0 { EMBEDDING } else { (1.0 - EMBEDDING) / others });
        let sum = if groups > 1 { 1.0 } else { EMBEDDING };
        Shares { of: of.map(|share| share / sum).collect(), noise_factor: 1.0 }
    }

    /// Fits the shares to targets z at n points: the largest leave-one-out predictive density, less a price on all shares
    /// but the embedding's and on noise factors t far from 1, by Rprop on the logarithms of shares w and factor.
    /// `squared` has the squared distances of all pairs of points in each group, of mean 1: `(groups, n * n)`.
    ///
    /// ```text
    /// D = sum_g w_g S_g         e = exp(-D / 2)         K = (e + e^4) / 2 + t N         a = K^-1 z         k = diag(K^-1)
    /// value = sum_i (ln(k_i) / 2 - a_i^2 / (2 k_i)) - 10 sum_(g > 0) w_g - ln(t)^2 / 2
    /// ```
    ///
    /// Sources: Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), section 5.4.2; Riedmiller and
    /// Braun, A direct adaptive method for faster backpropagation learning: the RPROP algorithm (1993).
    ///
    /// # Errors
    /// Distances that are not finite.
    pub fn fit(&mut self, squared: ArrayView2<'_, f64>, targets: &Array1<f64>, noise: &Array1<f64>) -> Result<()> {
        let groups = squared.nrows();
        if groups < 2 {
            return Ok(());
        }
        let fresh = Shares::new(groups).of;
        let begin = self.of.iter().zip(fresh).map(|(last, fresh)| (1.0 - FRESH) * last + FRESH * fresh);
        let mut logs: Vec<f64> = begin.map(|share| share.max(LEAST).ln()).chain([self.noise_factor.ln()]).collect();
        let (mut steps, mut before) = (vec![0.4; groups + 1], vec![0.0; groups + 1]);
        let mut best: Option<(f64, Shares)> = None;
        for _ in 0..STEPS {
            normalise(&mut logs[..groups]);
            let shares =
                Shares { of: logs[..groups].iter().map(|log| log.exp()).collect(), noise_factor: logs[groups].exp() };
            let (value, slope) = shares.value_and_slope(squared, targets, noise)?;
            if best.as_ref().is_none_or(|(highest, _)| value > *highest) {
                best = Some((value, shares));
            }
            for parameter in 0..=groups {
                let mut sign = if slope[parameter] == 0.0 { 0.0 } else { slope[parameter].signum() };
                let same = sign * before[parameter];
                if same > 0.0 {
                    steps[parameter] = f64::min(steps[parameter] * 1.3, 1.0);
                } else if same < 0.0 {
                    steps[parameter] *= 0.5;
                    sign = 0.0;
                }
                before[parameter] = sign;
                // Half as far for the noise.
                let reach = if parameter < groups { 1.0 } else { 0.5 };
                logs[parameter] += sign * steps[parameter] * reach;
            }
            logs[..groups].iter_mut().for_each(|log| *log = log.max(LEAST.ln()));
        }
        if let Some((_, shares)) = best {
            *self = shares;
        }
        Ok(())
    }

    /// The value, and its slope along the logarithm of each share and of the noise factor.
    fn value_and_slope(
        &self,
        squared: ArrayView2<'_, f64>,
        targets: &Array1<f64>,
        noise: &Array1<f64>,
    ) -> Result<(f64, Vec<f64>)> {
        let n = targets.len();
        let weights = ArrayView2::from_shape((1, self.of.len()), &self.of).wrap_err("shares")?;
        let far = weights.dot(&squared).into_shape_with_order((n, n)).wrap_err("shares")?;
        let far = far.mapv_into(|squared| (-0.5 * squared).exp());
        let mut covariance = far.mapv(correlation);
        covariance.diag_mut().zip_mut_with(noise, |value, noise| *value += self.noise_factor * noise);
        let inverse = Cholesky::new(&covariance, "covariance of the items asked")?.inverse();
        let a = inverse.dot(targets);
        let k = inverse.diag().to_owned();
        let density: f64 = a.iter().zip(&k).map(|(a, k)| 0.5 * k.ln() - a * a / (2.0 * k)).sum();
        let ln_factor = self.noise_factor.ln();
        let value = density - PRICE * self.of[1..].iter().sum::<f64>() - 0.5 * ln_factor * ln_factor;

        // The slope of the density along the covariance: u a' - K^-1 diag((1 + a^2 / k) / k) K^-1 / 2, where u = K^-1 (a / k).
        let u = inverse.dot(&(&a / &k));
        let weights = Array1::from_iter(a.iter().zip(&k).map(|(a, k)| (1.0 + a * a / k) / k));
        let mut slope = (&inverse * &weights).dot(&inverse);
        slope *= -0.5;
        for (row, mut slopes) in slope.rows_mut().into_iter().enumerate() {
            for (column, slope) in slopes.iter_mut().enumerate() {
                *slope += 0.5 * (u[row] * a[column] + u[column] * a[row]);
            }
        }
        let along_noise: f64 = slope.diag().iter().zip(noise).map(|(slope, noise)| slope * noise).sum();
        // Along the distance: -(e + 4 e^4) / 4.
        slope.zip_mut_with(&far, |slope, far| *slope *= -0.25 * (far + 4.0 * far.powi(4)));
        let slope = slope.into_shape_with_order((n * n, 1)).wrap_err("shares")?;
        let mut along: Vec<f64> = squared.dot(&slope).into_iter().collect();
        along[1..].iter_mut().for_each(|along| *along -= PRICE);
        let mean: f64 = self.of.iter().zip(&along).map(|(share, along)| share * along).sum();
        let shares = self.of.iter().zip(&along).map(|(share, along)| share * (along - mean));
        Ok((value, shares.chain([self.noise_factor * along_noise - ln_factor]).collect()))
    }
}

/// To logarithms of shares that sum to 1.
fn normalise(logs: &mut [f64]) {
    let sum: f64 = logs.iter().map(|log| log.exp()).sum();
    logs.iter_mut().for_each(|log| *log -= sum.ln());
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;

    /// Two views of 60 points, of which the targets follow the second.
    fn example() -> (Array2<f64>, Array1<f64>, Array1<f64>) {
        let view = |step: usize| Array1::from_iter((0..60).map(|i| ((i * step) % 60) as f64 / 17.3));
        let (first, second) = (view(7), view(11));
        let squared = |x: &Array1<f64>| Array2::from_shape_fn((60, 60), |(i, j)| (x[i] - x[j]).powi(2) / 2.0);
        let targets = second.mapv(|x| 1.4 * (2.0 * x).sin());
        let squared = ndarray::stack![ndarray::Axis(0), squared(&first).into_flat(), squared(&second).into_flat()];
        (squared, targets, Array1::from_elem(60, 0.05))
    }

    #[test]
    fn the_slope_is_that_of_the_value() {
        let (squared, targets, noise) = example();
        let at = |logs: &[f64]| {
            let mut logs = logs.to_vec();
            normalise(&mut logs[..2]);
            let shares = Shares { of: vec![logs[0].exp(), logs[1].exp()], noise_factor: logs[2].exp() };
            shares.value_and_slope(squared.view(), &targets, &noise).expect("a value")
        };
        let logs = [0.6f64.ln(), 0.4f64.ln(), 0.3];
        let (_, slope) = at(&logs);
        for parameter in 0..3 {
            let (mut up, mut down) = (logs, logs);
            up[parameter] += 1e-5;
            down[parameter] -= 1e-5;
            let difference = (at(&up).0 - at(&down).0) / 2e-5;
            assert!(
                (difference - slope[parameter]).abs() < 1e-5 * (1.0 + difference.abs()),
                "{parameter}: {difference} {slope:?}"
            );
        }
    }

    #[test]
    fn the_view_that_the_targets_follow_gets_most() {
        let (squared, targets, noise) = example();
        let mut shares = Shares::new(2);
        shares.fit(squared.view(), &targets, &noise).expect("a fit");
        assert!(shares.of[1] > 0.8, "{shares:?}");
    }
}

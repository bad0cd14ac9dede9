//! Bayesian ridge regression of the scores, with the noise chosen by leave-one-out cross-validation.

use ndarray::{Array1, Array2, ArrayView2, Axis};
use rand_distr::{Distribution, StandardNormal};

use crate::error::Result;
use crate::linalg::Cholesky;
use crate::random::RandomStream;

/// The noise variances to choose from, for a prior variance of 1 at an item of the typical distance from the centre.
const NOISES: [f64; 4] = [0.01, 0.1, 1.0, 10.0];

/// A linear model `score = intercept + w . (x - centre) / length` with `w ~ N(0, I)` and noise `N(0, noise)`,
/// conditioned on targets at n points. The length is the root mean square of `|x - centre|`.
///
/// ```text
/// A = X'X / noise + I         w = A^-1 X'z / noise
/// ```
///
/// X has the centred and scaled points, z the centred targets. The fit chooses the noise with the smallest sum of squared
/// leave-one-out residuals `r_i / (1 - h_i)`, with the residuals r and the leverages `h_i = x_i' A^-1 x_i / noise + 1 / n`.
///
/// Source: Bishop, Pattern Recognition and Machine Learning (2006), section 3.3.
pub(super) struct BayesianRidge {
    centre: Array1<f64>,
    length: f64,
    weights: Array1<f64>,
    precision: Cholesky,
    /// The sum of the squared leave-one-out residuals.
    #[cfg(test)]
    error: f64,
}

impl BayesianRidge {
    /// Fits the model to `points` `(n, dim)`, `targets` `(n)`.
    ///
    /// # Errors
    /// Points that are not finite.
    pub fn fit(points: ArrayView2<'_, f64>, targets: &Array1<f64>) -> Result<Self> {
        let n = points.nrows().max(1) as f64;
        let centre = points.sum_axis(Axis(0)) / n;
        let mut x = &points - &centre;
        let length = (x.iter().map(|value| value * value).sum::<f64>() / n).sqrt().max(f64::MIN_POSITIVE);
        x /= length;
        let z = targets - targets.sum() / n;
        let (squares, moments) = (x.t().dot(&x), x.t().dot(&z));
        let fit_noise = |noise: f64| -> Result<(f64, Array1<f64>, Cholesky)> {
            let precision =
                Cholesky::new(&(&squares / noise + Array2::<f64>::eye(x.ncols())), "moments of the observations")?;
            let weights = precision.solve(moments.view()) / noise;
            let mut scaled = x.t().to_owned();
            precision.solve_lower(&mut scaled);
            let leverages = scaled.columns().into_iter().map(|column| column.dot(&column) / noise + 1.0 / n);
            let residuals = &z - &x.dot(&weights);
            let left_out = residuals.iter().zip(leverages).map(|(residual, h)| residual / (1.0 - h).max(1e-3));
            Ok((left_out.map(|residual| residual * residual).sum::<f64>(), weights, precision))
        };
        let mut best = fit_noise(NOISES[0])?;
        for noise in &NOISES[1..] {
            let next = fit_noise(*noise)?;
            if next.0 < best.0 {
                best = next;
            }
        }
        Ok(BayesianRidge {
            centre,
            length,
            weights: best.1,
            precision: best.2,
            #[cfg(test)]
            error: best.0,
        })
    }

    /// The posterior mean of `w`: the direction in which the score grows.
    pub fn weights(&self) -> Array1<f64> {
        self.weights.clone()
    }

    /// A sample from the posterior of `w`.
    pub fn sample(&self, rng: &mut RandomStream) -> Array1<f64> {
        let mut normal = Array2::from_shape_simple_fn((self.weights.len(), 1), || StandardNormal.sample(rng));
        self.precision.solve_upper(&mut normal);
        &self.weights + &normal.column(0)
    }

    /// A point far from the centre in a direction. Under every metric, its nearest neighbours are the items that are farthest in
    /// that direction.
    pub fn far_point(&self, direction: &Array1<f64>) -> Array1<f64> {
        const LENGTHS: f64 = 100.0;
        let norm = direction.dot(direction).sqrt();
        let step = if norm > 0.0 { LENGTHS * self.length / norm } else { 0.0 };
        &self.centre + &(direction * step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::random_stream;
    use crate::surrogate::fixture;

    fn fitted() -> BayesianRidge {
        BayesianRidge::fit(fixture::matrix("points").view(), &fixture::vector("targets").into()).expect("a model")
    }

    #[test]
    fn weights_and_the_leave_one_out_error_are_those_of_scikit_learn() {
        let ridge = fitted();
        let expected = Array1::from(fixture::vector("weights"));
        assert!((ridge.weights() - &expected).iter().all(|off| off.abs() < 1e-9), "{} {expected}", ridge.weights());
        let refits = fixture::vector("left_out_error")[0];
        assert!((ridge.error - refits).abs() < 1e-9 * refits, "{} {refits}", ridge.error);
    }

    #[test]
    fn samples_have_the_covariance_of_the_posterior() {
        let ridge = fitted();
        let expected = fixture::matrix("weights_covariance");
        let rng = &mut random_stream(1, "test", 0, 0);
        let mut second = Array2::<f64>::zeros((3, 3));
        for _ in 0..4000 {
            let off = ridge.sample(rng) - ridge.weights();
            second += &(&off.view().insert_axis(Axis(1)) * &off.view().insert_axis(Axis(0)));
        }
        let scale = expected.diag().sum();
        let max_error = (second / 4000.0 - &expected).iter().fold(0.0f64, |max, error| max.max(error.abs()));
        assert!(max_error < 0.05 * scale, "a covariance differs by {max_error}");
    }

    #[test]
    fn the_items_nearest_to_a_far_point_are_the_farthest_in_its_direction() {
        let points = fixture::matrix("points");
        let ridge = fitted();
        let far = ridge.far_point(&ridge.weights());
        let lowest_three = |value: &dyn Fn(usize) -> f64| {
            let mut rows: Vec<usize> = (0..80).collect();
            rows.sort_by(|a, b| value(*a).total_cmp(&value(*b)));
            rows.truncate(3);
            rows
        };
        let nearest = lowest_three(&|row| (&points.row(row) - &far).mapv(|value| value * value).sum());
        assert_eq!(nearest, lowest_three(&|row| -points.row(row).dot(&ridge.weights())));
    }
}

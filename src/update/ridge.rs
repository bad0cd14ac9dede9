//! A linear model of the scores: Bayesian ridge regression, its noise chosen by leave-one-out.

use ndarray::{Array1, Array2, ArrayView2, Axis};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use super::linalg::Cholesky;

/// Noise variances that are tried, where the prior variance of the score at a typical item is 1.
const NOISES: [f64; 4] = [0.01, 0.1, 1.0, 10.0];

/// A linear model `score = intercept + w . (x - centre) / length` with `w ~ N(0, I)` and noise `N(0, noise)`,
/// conditioned on targets at n points; the length is the root mean square of `|x - centre|`:
///
/// ```text
/// A = X'X / noise + I         w = A^-1 X'z / noise         X the centred, scaled points, z the centred targets
/// ```
///
/// Of the noises the one with the least mean squared leave-one-out residual `r_i / (1 - h_i)` is taken, with
/// the residuals r and the leverages `h_i = x_i' A^-1 x_i / noise + 1 / n`.
///
/// Source: Bishop, Pattern Recognition and Machine Learning (2006), section 3.3.
pub(super) struct Ridge {
    centre: Array1<f64>,
    length: f64,
    weights: Array1<f64>,
    precision: Cholesky,
}

impl Ridge {
    /// `points` `(n, dim)`, `targets` `(n)`.
    pub fn new(points: ArrayView2<'_, f64>, targets: &Array1<f64>) -> Self {
        let n = points.nrows().max(1) as f64;
        let centre = points.sum_axis(Axis(0)) / n;
        let mut x = &points - &centre;
        let length = (x.iter().map(|value| value * value).sum::<f64>() / n).sqrt().max(f64::MIN_POSITIVE);
        x /= length;
        let z = targets - targets.sum() / n;
        let (squares, moments) = (x.t().dot(&x), x.t().dot(&z));
        let fit = |noise: f64| {
            let precision = Cholesky::new(&(&squares / noise + Array2::<f64>::eye(x.ncols())));
            let weights = precision.solve(moments.view()) / noise;
            let mut spread = x.t().to_owned();
            precision.solve_lower(&mut spread);
            let leverages = spread.columns().into_iter().map(|column| column.dot(&column) / noise + 1.0 / n);
            let residuals = &z - &x.dot(&weights);
            let left_out = residuals.iter().zip(leverages).map(|(residual, h)| residual / (1.0 - h).max(1e-3));
            (left_out.map(|residual| residual * residual).sum::<f64>(), weights, precision)
        };
        let mut best = fit(NOISES[0]);
        for noise in &NOISES[1..] {
            let next = fit(*noise);
            if next.0 < best.0 {
                best = next;
            }
        }
        let (_, weights, precision) = best;
        Ridge { centre, length, weights, precision }
    }

    /// The posterior mean of `w`: the direction in which the score grows.
    pub fn weights(&self) -> Array1<f64> {
        self.weights.clone()
    }

    /// A draw from the posterior of `w`.
    pub fn sample(&self, rng: &mut ChaCha8Rng) -> Array1<f64> {
        let mut normal = Array2::from_shape_simple_fn((self.weights.len(), 1), || StandardNormal.sample(rng));
        self.precision.solve_upper(&mut normal);
        &self.weights + &normal.column(0)
    }

    /// A point so far from the centre along a direction that its neighbours are the items farthest along it, whatever
    /// the metric.
    pub fn far_along(&self, direction: &Array1<f64>) -> Array1<f64> {
        const LENGTHS: f64 = 100.0;
        let norm = direction.dot(direction).sqrt();
        let step = if norm > 0.0 { LENGTHS * self.length / norm } else { 0.0 };
        &self.centre + &(direction * step)
    }
}

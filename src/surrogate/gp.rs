//! Gaussian process (GP) regression of the scores.

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, s};
use rand_distr::{Distribution, StandardNormal};

use super::kernel::kernel;
use crate::error::Result;
use crate::linalg::Cholesky;
use crate::random::RandomStream;

/// Added to the diagonal of a posterior covariance before sampling, because duplicate points make it singular.
const JITTER: f64 = 1e-6;

/// A GP with mean 0 and independent noise of variances N, conditioned on targets z at n points. The kernel is the mean of two
/// squared exponentials, of lengths l and l / 2, so that it fits broad trends and small peaks:
///
/// ```text
/// mean(p)   = k(p)' (K + diag N)^-1 z                  k(p)_i = kernel(p, x_i),  K_ij = kernel(x_i, x_j)
/// cov(p, q) = kernel(p, q) - k(p)' (K + diag N)^-1 k(q)
/// kernel    = (e + e^4) / 2                            e = exp(-|p - q|^2 / (2 l^2))
/// ```
///
/// Source: Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), algorithm 2.1.
#[derive(Clone)]
pub(super) struct GaussianProcess {
    points: Array2<f64>,
    targets: Array1<f64>,
    noise: Array1<f64>,
    squared_length: f64,
    factor: Cholesky,
    weights: Array1<f64>,
}

/// Joint draws from a posterior at m points.
pub(super) struct Samples {
    /// `(draws, m)`.
    pub draws: Array2<f64>,
    /// The posterior mean, `(m)`.
    pub mean: Array1<f64>,
    /// The posterior variance without noise, `(m)`.
    pub variance: Array1<f64>,
}

impl GaussianProcess {
    /// Fits a GP without a previous one.
    #[cfg(test)]
    pub fn new(points: Array2<f64>, targets: Array1<f64>, squared_length: f64, noise: &Array1<f64>) -> Result<Self> {
        Self::fit(None, points, targets, squared_length, noise)
    }

    /// Fits the GP to `points` `(n, dim)`, `targets` `(n)` and the variances of their `noise` `(n)`. `squared_length` is `l^2`.
    ///
    /// If the first points and their noise are the same as in the `previous` GP, its Cholesky factor is extended, which saves
    /// most of the work. The result is the same to the last bit.
    ///
    /// # Errors
    /// Points that are not finite.
    pub fn fit(
        previous: Option<&GaussianProcess>,
        points: Array2<f64>,
        targets: Array1<f64>,
        squared_length: f64,
        noise: &Array1<f64>,
    ) -> Result<Self> {
        let previous = previous.filter(|previous| previous.squared_length == squared_length);
        let shared = previous.map_or(0, |previous| previous.shared_points(points.view(), noise));
        let reused = previous.map_or(0, |previous| previous.factor.reusable_rows(shared));
        let mut rows = kernel(points.slice(s![reused.., ..]), points.view(), squared_length);
        rows.slice_mut(s![.., reused..])
            .diag_mut()
            .zip_mut_with(&noise.slice(s![reused..]), |value, noise| *value += noise);
        let extended = previous.filter(|_| reused > 0).and_then(|previous| previous.factor.extend(rows.view()));
        let factor = match extended {
            Some(factor) => factor,
            None if reused == 0 => Cholesky::new(&rows, "covariance of the observations")?,
            None => return Self::fit(None, points, targets, squared_length, noise),
        };
        let weights = factor.solve(targets.view());
        Ok(GaussianProcess { points, targets, noise: noise.clone(), squared_length, factor, weights })
    }

    /// The number of first points that both GPs share, including the noise of the points.
    fn shared_points(&self, points: ArrayView2<'_, f64>, noise: &Array1<f64>) -> usize {
        if self.points.ncols() != points.ncols() {
            return 0;
        }
        let pairs = self.points.rows().into_iter().zip(points.rows()).zip(self.noise.iter().zip(noise));
        pairs.take_while(|((a, b), (noise_a, noise_b))| noise_a == noise_b && a == b).count()
    }

    /// Adds pending points `(m, dim)` with fantasies as targets (the term of BoTorch): the posterior mean at the points. The
    /// mean does not change, but the variance near the points shrinks. This is the kriging believer. Source: Ginsbourger, Le
    /// Riche and Carraro, Kriging is well-suited to parallelize optimization (2010).
    ///
    /// # Errors
    /// Points that are not finite.
    pub fn with_pending(&self, points: ArrayView2<'_, f64>, noise: f64) -> Result<Self> {
        let targets = ndarray::concatenate![Axis(0), self.targets, self.mean(points)];
        let noise = ndarray::concatenate![Axis(0), self.noise, Array1::from_elem(points.nrows(), noise)];
        let points = ndarray::concatenate![Axis(0), self.points, points];
        Self::fit(Some(self), points, targets, self.squared_length, &noise)
    }

    /// The weight of each point, `(K + diag N)^-1 z`. The posterior mean is the weighted sum of the kernels with the points.
    pub fn weights(&self) -> ArrayView1<'_, f64> {
        self.weights.view()
    }

    /// The maximum-likelihood estimate of the amplitude, a common factor of kernel and noise: `z' (K + diag N)^-1 z / n`. The mean
    /// does not depend on it. Source: the zero of the derivative of equation 5.8 in Rasmussen and Williams (2006).
    pub fn amplitude(&self) -> f64 {
        self.targets.dot(&self.weights) / self.targets.len().max(1) as f64
    }

    /// The points that the process is conditioned on, `(n, dim)`.
    pub fn points(&self) -> ArrayView2<'_, f64> {
        self.points.view()
    }

    /// The contribution of each target to the posterior mean at a place `(1, dim)`. The mean is a weighted sum of the targets, with
    /// the weights `(K + diag N)^-1 k(p)`. Source: equation 2.25 in Rasmussen and Williams (2006).
    pub fn contributions(&self, at: ArrayView2<'_, f64>) -> Array1<f64> {
        let kernels = kernel(at, self.points.view(), self.squared_length);
        &self.factor.solve(kernels.row(0)) * &self.targets
    }

    /// The process without pending points: conditioned on the first `count` points alone.
    ///
    /// # Errors
    /// Points that are not finite.
    pub fn without_pending(&self, count: usize) -> Result<Self> {
        let targets = self.targets.slice(s![..count]).to_owned();
        let noise = self.noise.slice(s![..count]).to_owned();
        let points = self.points.slice(s![..count, ..]).to_owned();
        Self::fit(Some(self), points, targets, self.squared_length, &noise)
    }

    /// The posterior mean at points `(m, dim)`.
    pub fn mean(&self, query_points: ArrayView2<'_, f64>) -> Array1<f64> {
        kernel(query_points, self.points.view(), self.squared_length).dot(&self.weights)
    }

    /// The posterior mean and covariance at points `(m, dim)`.
    pub fn posterior(&self, query_points: ArrayView2<'_, f64>) -> (Array1<f64>, Array2<f64>) {
        let mut cross = kernel(self.points.view(), query_points, self.squared_length);
        let mean = cross.t().dot(&self.weights);
        self.factor.solve_lower(&mut cross);
        let mut covariance = kernel(query_points, query_points, self.squared_length);
        covariance -= &cross.t().dot(&cross);
        (mean, covariance)
    }

    /// Draws joint samples from the posterior at points `(m, dim)`. Their deviations from the mean are multiplied by `scale`.
    ///
    /// # Errors
    /// Points that are not finite.
    pub fn samples(
        &self,
        query_points: ArrayView2<'_, f64>,
        draws: usize,
        scale: f64,
        rng: &mut RandomStream,
    ) -> Result<Samples> {
        let (mean, mut covariance) = self.posterior(query_points);
        let variance = covariance.diag().to_owned();
        covariance.diag_mut().mapv_inplace(|value| value + JITTER);
        let normal = Array2::from_shape_simple_fn((draws, mean.len()), || StandardNormal.sample(rng));
        let factor = Cholesky::new(&covariance, "covariance of the candidates")?;
        let draws = &mean + scale * normal.dot(&factor.lower().t());
        Ok(Samples { draws, mean, variance })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::random_stream;
    use crate::surrogate::fixture;

    fn close(a: impl IntoIterator<Item = f64>, b: Vec<f64>) -> bool {
        a.into_iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-9)
    }

    fn fitted() -> (GaussianProcess, Array2<f64>) {
        let number = |name| fixture::vector(name)[0];
        let gp = GaussianProcess::new(
            fixture::matrix("points"),
            fixture::vector("targets").into(),
            number("squared_length"),
            &fixture::vector("noise").into(),
        );
        (gp.expect("a model"), fixture::matrix("at"))
    }

    #[test]
    fn the_posterior_is_that_of_scikit_learn() {
        let (gp, at) = fitted();
        let (mean, covariance) = gp.posterior(at.view());
        assert!(close(mean.clone(), fixture::vector("mean")), "{mean}");
        assert!(close(gp.mean(at.view()), fixture::vector("mean")));
        assert!(close(covariance.clone(), fixture::matrix("covariance").into_iter().collect()), "{covariance}");
    }

    #[test]
    fn a_contribution_is_the_change_of_the_mean_if_the_target_is_zero() {
        let (gp, at) = fitted();
        let (targets, noise) = (fixture::vector("targets"), Array1::from(fixture::vector("noise")));
        let place = at.slice(s![..1, ..]);
        let contributions = gp.contributions(place);
        assert!(close([contributions.sum()], gp.mean(place).to_vec()));
        for point in 0..targets.len() {
            let mut changed = Array1::from(targets.clone());
            changed[point] = 0.0;
            let refitted = GaussianProcess::new(fixture::matrix("points"), changed, gp.squared_length, &noise);
            let mean = refitted.expect("a model").mean(place)[0];
            assert!(close([contributions[point]], vec![gp.mean(place)[0] - mean]), "point {point}");
        }
        let pending = gp.with_pending(at.view(), 0.03).expect("a model");
        let observed = pending.without_pending(targets.len()).expect("a model");
        assert!(close(observed.contributions(place), contributions.to_vec()));
    }

    #[test]
    fn a_gp_that_extends_a_previous_one_is_the_same_to_the_last_bit() {
        let points = Array2::from_shape_fn((150, 3), |(row, column)| ((row * 37 + column * 101) % 211) as f64 / 50.0);
        let noise = Array1::from_shape_fn(150, |row| if row % 3 == 0 { 0.1 } else { 0.03 });
        let fit = |previous: Option<&GaussianProcess>, n: usize| {
            let targets = Array1::from_shape_fn(n, |row| (row as f64 / 7.0).sin());
            let noise = noise.slice(s![..n]).to_owned();
            GaussianProcess::fit(previous, points.slice(s![..n, ..]).to_owned(), targets, 1.0, &noise).expect("a model")
        };
        let bits = |gp: &GaussianProcess| gp.weights().iter().map(|weight| weight.to_bits()).collect::<Vec<u64>>();
        let mut gp = fit(None, 60);
        for n in [66, 70, 129, 150] {
            gp = fit(Some(&gp), n);
            assert_eq!(bits(&gp), bits(&fit(None, n)), "{n} points");
        }
    }

    #[test]
    fn pending_points_do_not_change_the_mean_and_equal_a_fit_to_their_means() {
        let (gp, at) = fitted();
        let (points, noise) = (fixture::matrix("points"), Array1::from(fixture::vector("noise")));
        // 80 points add a block to the Cholesky factor.
        let pending = Array2::from_shape_fn((80, points.ncols()), |(row, column)| {
            points[[row % points.nrows(), column]] + (row as f64 * 0.37 + column as f64).sin() * 0.5
        });
        let targets = ndarray::concatenate![Axis(0), Array1::from(fixture::vector("targets")), gp.mean(pending.view())];
        let noise = ndarray::concatenate![Axis(0), noise, Array1::from_elem(80, 0.03)];
        let all = ndarray::concatenate![Axis(0), points, pending];
        let fitted = GaussianProcess::new(all, targets, gp.squared_length, &noise).expect("a model");
        let with_pending = gp.with_pending(pending.view(), 0.03).expect("a model");
        let ((mean, covariance), (expected, as_fitted)) =
            (with_pending.posterior(at.view()), fitted.posterior(at.view()));
        assert!(close(mean.clone(), gp.mean(at.view()).to_vec()), "{mean}");
        assert!(close(mean, expected.to_vec()));
        assert!(close(covariance.clone(), as_fitted.into_iter().collect()), "{covariance}");
        let before = gp.posterior(at.view()).1;
        assert!(covariance.diag().iter().zip(before.diag()).all(|(now, before)| *now < before + 1e-12));
    }

    #[test]
    fn the_mean_interpolates_the_targets_in_one_dimension() {
        let points = Array2::from_shape_vec((3, 1), vec![0.0, 1.0, 2.0]).expect("a matrix");
        let targets = vec![1.0, -1.0, 1.0];
        let gp = GaussianProcess::new(points.clone(), targets.clone().into(), 0.25, &Array1::from_elem(3, 1e-12))
            .expect("a model");
        assert!(close(gp.mean(points.view()), targets), "{}", gp.mean(points.view()));
    }

    #[test]
    fn samples_have_the_covariance_of_the_posterior() {
        let (gp, at) = fitted();
        let (mean, covariance) = gp.posterior(at.view());
        let rng = &mut random_stream(1, "test", 0, 0);
        let n = 4000.0;
        let mut second = Array2::<f64>::zeros(covariance.raw_dim());
        for off in (gp.samples(at.view(), 4000, 0.5, rng).expect("samples").draws - &mean).rows() {
            second += &(&off.view().insert_axis(Axis(1)) * &off.view().insert_axis(Axis(0)));
        }
        let expected = covariance * 0.25;
        let max_error = (&second / n - &expected).iter().fold(0.0f64, |max, value| max.max(value.abs()));
        assert!(max_error < 0.02, "a covariance differs by {max_error}");
    }
}

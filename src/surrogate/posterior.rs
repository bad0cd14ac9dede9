//! The posterior of the scores: a Gaussian process (GP) of all observations, and a second one of those outside of the peak.

use std::ops::Range;

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis};

use super::distance::ScaledDistance;
use super::gp::GaussianProcess;
use super::niching::Niching;
use super::observations::TrainingSet;
use super::target_scale::TargetScale;
use super::targets::{NOISE_ABOVE, Prediction, noise_threshold, targets};
use crate::error::Result;

/// The minimum number of points outside of the peak. If there are fewer, the second GP is fitted to all points.
const MIN_OUTSIDE: usize = 12;

/// A GP fitted to targets, and the relation between targets and scores.
#[derive(Clone)]
pub(super) struct FittedGp {
    pub gp: GaussianProcess,
    /// The ids of the items that are the points of the GP.
    pub ids: Vec<u64>,
    /// The factor of the deviations of samples from the posterior mean.
    pub sample_scale: f64,
    scale: TargetScale,
    /// The factor of the variances of predictions ([`GaussianProcess::amplitude`]).
    amplitude: f64,
}

/// The posterior that chooses one batch.
#[derive(Clone)]
pub(super) struct Posterior {
    distance: ScaledDistance,
    niching: Niching,
    /// Fitted to the whole training set.
    pub all: FittedGp,
    /// Fitted to the items outside of the peak, if items of the batch may be chosen there.
    pub outside: Option<FittedGp>,
}

impl Posterior {
    /// Fits the GPs to a training set and its vectors `(n, width)`. `previous` is the posterior of the previous batch.
    ///
    /// # Errors
    /// Vectors that are not finite.
    pub fn fit(
        previous: Option<&Posterior>,
        training: &TrainingSet<'_>,
        vectors: ArrayView2<'_, f32>,
        distance: &ScaledDistance,
        niching: &Niching,
    ) -> Result<Self> {
        let points_f32 = distance.points(vectors);
        let points = points_f32.mapv(f64::from);
        let (targets_of_all, scale) = training.targets_and_scale(distance.noise_threshold());
        let has_niches = matches!(scale, TargetScale::Continuous { .. }) && niching.outside_probability() > 0.0;
        let outside = match niching.outside(points_f32.view()).filter(|_| has_niches) {
            None => None,
            Some(is_outside) => {
                let mut positions: Vec<usize> = (0..training.len()).filter(|position| is_outside[*position]).collect();
                if positions.len() < MIN_OUTSIDE {
                    positions = (0..training.len()).collect();
                }
                let subset = training.select(&positions);
                let (scores, baseline) = (subset.scores(), subset.baseline());
                let (targets, transform) = targets(&scores, baseline);
                let scale = TargetScale::Continuous { transform, noise_threshold: noise_threshold(&scores, baseline) };
                let targets = (targets, scale.noise(&scores));
                let previous = previous.and_then(|previous| previous.outside.as_ref());
                let points = points.select(Axis(0), &positions);
                Some(FittedGp::fit(previous, points, targets, scale, subset.ids(), positions.len())?)
            }
        };
        let all = FittedGp::fit(
            previous.map(|previous| &previous.all),
            points,
            (targets_of_all, scale.noise(&training.scores())),
            scale,
            training.ids(),
            training.observations.scored_count(),
        )?;
        Ok(Posterior { distance: distance.clone(), niching: niching.clone(), all, outside })
    }

    /// Adds the vectors of pending evaluations `(items, width)`, with fantasies as their targets
    /// ([`GaussianProcess::with_pending`]).
    ///
    /// # Errors
    /// Vectors that are not finite.
    pub fn with_pending(mut self, vectors: ArrayView2<'_, f32>) -> Result<Self> {
        if !vectors.is_empty() {
            let points = self.distance.points(vectors).mapv(f64::from);
            self.all.gp = self.all.gp.with_pending(points.view(), NOISE_ABOVE)?;
            if let Some(fitted) = self.outside.take() {
                let gp = fitted.gp.with_pending(points.view(), NOISE_ABOVE)?;
                self.outside = Some(FittedGp { gp, ..fitted });
            }
        }
        Ok(self)
    }

    /// Converts vectors `(items, width)` to points.
    pub fn points(&self, vectors: ArrayView2<'_, f32>) -> Array2<f32> {
        self.distance.points(vectors)
    }

    /// The feature group of each component of a point, given the components of all groups in a vector.
    pub fn groups(&self, groups: &[Range<usize>]) -> Vec<usize> {
        self.distance.groups(groups)
    }

    /// Whether each of the points `(items, components)` is outside of the peak. `None` while there is no peak.
    pub fn is_outside(&self, points: ArrayView2<'_, f32>) -> Option<Vec<bool>> {
        self.niching.outside(points)
    }

    /// The probability that an item of the batch is chosen outside of the peak.
    pub fn outside_probability(&self) -> f64 {
        if self.outside.is_some() { self.niching.outside_probability() } else { 0.0 }
    }
}

impl FittedGp {
    fn fit(
        previous: Option<&FittedGp>,
        points: Array2<f64>,
        (targets, noise): (Array1<f64>, Array1<f64>),
        scale: TargetScale,
        ids: Vec<u64>,
        scored_count: usize,
    ) -> Result<Self> {
        let sample_scale = scale.sample_scale(scored_count);
        let gp = GaussianProcess::fit(previous.map(|previous| &previous.gp), points, targets, 1.0, &noise)?;
        let amplitude = gp.amplitude();
        Ok(FittedGp { gp, ids, sample_scale, scale, amplitude })
    }

    /// Predicts the score of an item whose target has this posterior mean and variance. The deviation includes the noise of a
    /// single score. `None` if the target does not determine the score.
    pub fn predict(&self, mean: f64, variance: f64) -> Option<Prediction> {
        self.scale.predict(mean, variance, self.amplitude)
    }

    /// The GP without pending evaluations.
    ///
    /// # Errors
    /// Vectors that are not finite.
    pub fn without_pending(&self) -> Result<GaussianProcess> {
        self.gp.without_pending(self.ids.len())
    }

    /// The ids of the points, and the weights of their kernels in the posterior mean.
    pub fn weights(&self) -> (&[u64], ArrayView1<'_, f64>) {
        (&self.ids, self.gp.weights())
    }
}

//! The scaled distance of two items: a sum over feature groups, weighted by relevance, in units of the kernel's length.

use std::ops::Range;

use ndarray::{Array1, Array2, ArrayView2, Axis, s};
use rayon::prelude::*;

use super::kernel::median_squared_distance;
use super::relevance::Relevance;
use super::targets::noise;
use crate::error::Result;
use crate::linalg::squared_distances;

/// Groups with this relevance weight or less are left out. They cost time and contribute nothing.
const NEGLIGIBLE_WEIGHT: f64 = 0.01;
/// The least mean squared distance `m_g` of a group: the points of a group that are nearer to each other count as equal, so
/// that their distances are not stretched further.
const MIN_MEAN_DISTANCE: f64 = 0.1;

/// The squared distance of items as the models see it. A vector times the factors is a *point*, and the squared Euclidean
/// distance of two points is:
///
/// ```text
/// |p - q|^2 = sum_g w_g |p_g - q_g|^2 / m_g / l^2        m_g the mean of |p_g - q_g|^2 over the points, at least 0.1
///                                                      l^2 the median of the sum over the points
/// ```
#[derive(Clone, Debug, Default)]
pub(super) struct ScaledDistance {
    /// The components in use, and their factors.
    components: Vec<(usize, f64)>,
    noise_threshold: f64,
}

impl ScaledDistance {
    /// Fits the relevance weights of the groups to vectors `(n, width)`, their targets and scores. Only the rows of `subset`
    /// take part in that. Scores above the `noise_threshold` have less noise.
    ///
    /// # Errors
    /// Vectors that are not finite.
    pub fn fit(
        relevance: &mut Relevance,
        groups: &[Range<usize>],
        vectors: ArrayView2<'_, f32>,
        subset: &[usize],
        targets: &Array1<f64>,
        (scores, noise_threshold): (&[f64], f64),
    ) -> Result<Self> {
        let sample = vectors.select(Axis(0), subset).mapv(f64::from);
        // A row for each group: the squared distances of all pairs.
        let mut squared = Array2::zeros((groups.len(), subset.len() * subset.len()));
        let pairs = (subset.len() * subset.len().saturating_sub(1)).max(1) as f64;
        let mut means = Vec::with_capacity(groups.len());
        for (group, mut row) in groups.iter().zip(squared.rows_mut()) {
            let sample = sample.slice(s![.., group.clone()]);
            let mut distances = squared_distances(sample, sample);
            // Rounding can leave a distance between a point and itself.
            distances.diag_mut().fill(0.0);
            let mean = (distances.sum() / pairs).max(MIN_MEAN_DISTANCE);
            means.push(mean);
            row.assign(&(distances / mean).into_flat());
        }
        relevance.fit(
            squared.view(),
            &targets.select(Axis(0), subset),
            &noise(scores, noise_threshold).select(Axis(0), subset),
        )?;

        let mut components = Vec::new();
        for ((group, weight), mean) in groups.iter().zip(&relevance.weights).zip(&means) {
            if *weight > NEGLIGIBLE_WEIGHT {
                components.extend(group.clone().map(|component| (component, (weight / mean).sqrt())));
            }
        }
        let mut distance = ScaledDistance { components, noise_threshold };
        let length = median_squared_distance(distance.points(vectors).mapv(f64::from).view()).sqrt();
        distance.components.iter_mut().for_each(|(_, factor)| *factor /= length);
        Ok(distance)
    }

    /// The score above which scores have less noise. It stays the same until the distance is fitted again, so that most of
    /// the Gaussian process can be reused from batch to batch.
    pub fn noise_threshold(&self) -> f64 {
        self.noise_threshold
    }

    /// The factors of components. Those that are not in use have 0.
    pub fn factors(&self, components: Range<usize>) -> Array1<f32> {
        let mut factors = Array1::zeros(components.len());
        for (component, factor) in self.components.iter().filter(|(component, _)| components.contains(component)) {
            factors[component - components.start] = *factor as f32;
        }
        factors
    }

    /// Converts vectors `(items, width)` to points `(items, components in use)`.
    pub fn points(&self, vectors: ArrayView2<'_, f32>) -> Array2<f32> {
        let (vectors, width) = (vectors.as_standard_layout(), vectors.ncols());
        let mut points = Array2::zeros((vectors.nrows(), self.components.len()));
        let (Some(from), Some(to)) = (vectors.as_slice(), points.as_slice_mut()) else { return points };
        let components: Vec<(usize, f32)> = self.components.iter().map(|(at, factor)| (*at, *factor as f32)).collect();
        to.par_chunks_mut(components.len().max(1)).zip(from.par_chunks(width.max(1))).for_each(|(point, vector)| {
            let (components, mut at) = (&components[..], 0);
            while at < point.len() {
                let (component, factor) = components[at];
                point[at] = vector[component] * factor;
                at += 1;
            }
        });
        points
    }
}

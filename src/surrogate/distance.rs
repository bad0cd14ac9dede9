//! The scaled distance between two items: a sum over feature groups, weighted by relevance, in units of the kernel's length.

use std::ops::Range;

use ndarray::{Array1, Array2, ArrayView2, Axis, s};
use rayon::prelude::*;

use super::kernel::median_squared_distance;
use super::relevance::Relevance;
use super::target_scale::TargetScale;
use crate::error::Result;
use crate::linalg::squared_distances;

/// Groups with this relevance weight or less are omitted, because they cost time and contribute little.
const NEGLIGIBLE_WEIGHT: f64 = 0.01;
/// The minimum of the mean squared distance `m_g` of a group. It limits the scaling of groups whose points are almost equal.
const MIN_MEAN_DISTANCE: f64 = 0.1;

/// The distance that the models use. It converts item vectors to *points*, by a factor for each component. The squared Euclidean
/// distance between two points is
///
/// ```text
/// |p - q|^2 = sum_g w_g |v_g - u_g|^2 / m_g / l^2
/// ```
///
/// for the vectors v, u of the items, with the relevance weight `w_g` of the group g, the mean `m_g` of `|v_g - u_g|^2` over the
/// training set (at least 0.1), and the median `l^2` of the sum over the training set.
#[derive(Clone, Debug, Default)]
pub(super) struct ScaledDistance {
    /// The components in use, and their factors.
    components: Vec<(usize, f64)>,
    noise_threshold: f64,
}

impl ScaledDistance {
    /// Fits the relevance weights of the groups to vectors `(n, width)`, their targets and scores, of the rows in `subset`.
    /// Continuous scores above the `noise_threshold` have less noise.
    ///
    /// # Errors
    /// Vectors that are not finite.
    pub fn fit(
        relevance: &mut Relevance,
        groups: &[Range<usize>],
        vectors: ArrayView2<'_, f32>,
        subset: &[usize],
        (targets, scale): (&Array1<f64>, &TargetScale),
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
            // Rounding errors can give a point a distance to itself.
            distances.diag_mut().fill(0.0);
            let mean = (distances.sum() / pairs).max(MIN_MEAN_DISTANCE);
            means.push(mean);
            row.assign(&(distances / mean).into_flat());
        }
        let targets = scale.unit_targets(targets.select(Axis(0), subset));
        relevance.fit(squared.view(), &targets, &scale.noise(scores).select(Axis(0), subset))?;

        let mut components = Vec::new();
        for ((group, weight), mean) in groups.iter().zip(&relevance.weights).zip(&means) {
            if *weight > NEGLIGIBLE_WEIGHT {
                components.extend(group.clone().map(|component| (component, (weight / mean).sqrt())));
            }
        }
        let mut distance = ScaledDistance { components, noise_threshold };
        let length = median_squared_distance(distance.points(vectors).mapv(f64::from).view()).sqrt() * scale.length();
        distance.components.iter_mut().for_each(|(_, factor)| *factor /= length);
        Ok(distance)
    }

    /// The score above which scores have less noise. It changes only when the distance is fitted again, so that most of the
    /// Gaussian process (GP) can be reused from batch to batch.
    pub fn noise_threshold(&self) -> f64 {
        self.noise_threshold
    }

    /// The feature group of each component of a point, given the components of all groups in a vector.
    pub fn groups(&self, groups: &[Range<usize>]) -> Vec<usize> {
        let group_of =
            |component: &usize| groups.iter().position(|group| group.contains(component)).unwrap_or_default();
        self.components.iter().map(|(component, _)| group_of(component)).collect()
    }

    /// The factors of a range of components. Components that are not in use have the factor 0.
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
        let components: Vec<(usize, f32)> =
            self.components.iter().map(|(component, factor)| (*component, *factor as f32)).collect();
        to.par_chunks_mut(components.len().max(1)).zip(from.par_chunks(width.max(1))).for_each(|(point, vector)| {
            let (components, mut position) = (&components[..], 0);
            while position < point.len() {
                let (component, factor) = components[position];
                point[position] = vector[component] * factor;
                position += 1;
            }
        });
        points
    }
}

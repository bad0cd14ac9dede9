//! How far two items are from each other, for the models: a weighted sum over the views, in units of the kernel's length.

use std::ops::Range;

use ndarray::{Array1, Array2, ArrayView2, Axis, s};
use rayon::prelude::*;

use super::gp::median_squared_distance;
use super::observations::noise;
use super::relevance::Shares;
use crate::error::Result;
use crate::linalg::squared_distances;

/// Shares at or below this are left out: they cost time, and say nothing.
const NEGLIGIBLE: f64 = 0.01;
/// Points of a group that are this near to each other on the mean are as good as one: distances are not stretched further.
const NEAREST: f64 = 0.1;

/// ```text
/// |p - q|^2 = sum_g w_g |p_g - q_g|^2 / m_g / l^2        m_g the mean of |p_g - q_g|^2 over the points, at least 0.1
///                                                      l^2 the median of the sum over the points
/// ```
#[derive(Clone, Debug, Default)]
pub(super) struct Measure {
    /// Components that count, and what they are multiplied by.
    components: Vec<(usize, f64)>,
    threshold: f64,
}

impl Measure {
    /// Learns the shares of the groups from points `(n, width)`, their targets and scores; those at `learned` are enough
    /// for it. Scores above the `threshold` have less noise, as long as the measure stands.
    ///
    /// # Errors
    /// Points that are not finite.
    pub fn fit(
        shares: &mut Shares,
        groups: &[Range<usize>],
        points: ArrayView2<'_, f32>,
        learned: &[usize],
        targets: &Array1<f64>,
        (scores, threshold): (&[f64], f64),
    ) -> Result<Self> {
        let few = points.select(Axis(0), learned).mapv(f64::from);
        // A row for each group: the squared distances of all pairs.
        let mut squared = Array2::zeros((groups.len(), learned.len() * learned.len()));
        let pairs = (learned.len() * learned.len().saturating_sub(1)).max(1) as f64;
        let mut means = Vec::with_capacity(groups.len());
        for (group, mut row) in groups.iter().zip(squared.rows_mut()) {
            let few = few.slice(s![.., group.clone()]);
            let mut distances = squared_distances(few, few);
            // Where rounding leaves a point off itself.
            distances.diag_mut().fill(0.0);
            let mean = (distances.sum() / pairs).max(NEAREST);
            means.push(mean);
            row.assign(&(distances / mean).into_flat());
        }
        shares.fit(
            squared.view(),
            &targets.select(Axis(0), learned),
            &noise(scores, threshold).select(Axis(0), learned),
        )?;

        let mut components = Vec::new();
        for ((group, share), mean) in groups.iter().zip(&shares.of).zip(&means) {
            if *share > NEGLIGIBLE {
                components.extend(group.clone().map(|component| (component, (share / mean).sqrt())));
            }
        }
        let mut measure = Measure { components, threshold };
        let length = median_squared_distance(measure.of(points).mapv(f64::from).view()).sqrt();
        measure.components.iter_mut().for_each(|(_, factor)| *factor /= length);
        Ok(measure)
    }

    /// What scores have less noise above.
    pub fn threshold(&self) -> f64 {
        self.threshold
    }

    /// What components are multiplied by; 0 if they do not count.
    pub fn factors(&self, components: Range<usize>) -> Array1<f32> {
        let mut factors = Array1::zeros(components.len());
        for (component, factor) in self.components.iter().filter(|(component, _)| components.contains(component)) {
            factors[component - components.start] = *factor as f32;
        }
        factors
    }

    /// Vectors `(items, width)` as points of which the squared distances are those above.
    pub fn of(&self, vectors: ArrayView2<'_, f32>) -> Array2<f32> {
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

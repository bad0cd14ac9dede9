//! The kernel of the Gaussian process (GP): the mean of two squared exponentials.

use ndarray::{Array2, ArrayView2, s};
use rayon::prelude::*;

use crate::linalg::squared_distances;

/// `(e + e^4) / 2` with `e = exp(-|a_i - b_j|^2 / (2 l^2))`, for `a` `(n, dim)` and `b` `(m, dim)`, shape `(n, m)`:
/// the mean of two squared exponential kernels, of lengths `l` and `l / 2`.
pub(super) fn kernel(a: ArrayView2<'_, f64>, b: ArrayView2<'_, f64>, squared_length: f64) -> Array2<f64> {
    let mut values = squared_distances(a, b);
    if let Some(values) = values.as_slice_mut() {
        values.par_chunks_mut(1 << 14).for_each(|values| {
            let mut position = 0;
            while position < values.len() {
                values[position] = correlation((-0.5 * values[position] / squared_length).exp());
                position += 1;
            }
        });
    }
    values
}

/// The kernel as a function of the squared exponential `e` of length `l`. With half the length, the squared exponential is `e^4`.
pub(super) fn correlation(e: f64) -> f64 {
    let squared = e * e;
    0.5 * (e + squared * squared)
}

/// The kernel as a function of the squared exponential `e`, in f32.
pub(super) fn correlation_f32(e: f32) -> f32 {
    let squared = e * e;
    0.5 * (e + squared * squared)
}

/// The median squared distance between points `(n, dim)`, at least the smallest positive number. Of more than 300 points, at most
/// 300 evenly spaced ones are used.
pub(super) fn median_squared_distance(points: ArrayView2<'_, f64>) -> f64 {
    let subset = points.slice(s![..;points.nrows().div_ceil(300).max(1), ..]);
    let distances = squared_distances(subset, subset);
    let mut pairs: Vec<f64> =
        (0..subset.nrows()).flat_map(|a| distances.row(a).iter().take(a).copied().collect::<Vec<_>>()).collect();
    if pairs.is_empty() {
        return 1.0;
    }
    let middle = pairs.len() / 2;
    let (_, median, _) = pairs.select_nth_unstable_by(middle, f64::total_cmp);
    median.max(f64::MIN_POSITIVE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_squared_distance_is_that_of_all_pairs() {
        let line = Array2::from_shape_vec((4, 1), vec![0.0, 1.0, 3.0, 7.0]).expect("a matrix");
        // The upper of the two middle values of 1, 4, 9, 16, 36, 49.
        assert_eq!(median_squared_distance(line.view()), 16.0);
        assert_eq!(median_squared_distance(Array2::zeros((5, 2)).view()), f64::MIN_POSITIVE);
        assert_eq!(median_squared_distance(Array2::zeros((1, 2)).view()), 1.0);
    }
}

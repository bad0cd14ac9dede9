//! Projection of embeddings onto their first two principal components (PCA).

use ndarray::{Array1, Array2, ArrayView2, Axis, s};
use rand_distr::{Distribution, StandardNormal};

use crate::random::RandomStream;

/// The first two principal components of a sample of embeddings with `dim` dimensions.
pub(super) struct Projection {
    /// Whether vectors are normalized first, as for the cosine metric.
    normalize: bool,
    mean: Array1<f64>,
    /// Orthonormal columns, `(dim, 2)`. The second is zero if the embeddings lie on a line.
    axes: Array2<f64>,
    /// The fraction of the variance that each axis explains.
    pub explained_variance: [f64; 2],
}

impl Projection {
    /// Fits the projection to a sample `(rows, dim)` by orthogonal iteration. The covariance matrix is never computed, so
    /// that embeddings of high dimension need no more memory than the sample.
    ///
    /// With `C` the covariance, `Q ← orthonormal(C Q)` until the variance in the plane, `tr(Q' C Q)`, no longer
    /// grows. Then `Q` is rotated in its plane so that `Q' C Q` is diagonal, the larger value first. The sign makes the
    /// largest component of each axis positive.
    pub fn fit(sample: ArrayView2<'_, f64>, normalize: bool, rng: &mut RandomStream) -> Self {
        const MAX_ITERATIONS: usize = 200;
        let dim = sample.ncols();
        let mut sample = normalized(sample, normalize);
        let mean = sample.mean_axis(Axis(0)).unwrap_or_else(|| Array1::zeros(dim));
        sample -= &mean;
        let total: f64 = sample.iter().map(|value| value * value).sum();
        let mut axes = orthonormal(Array2::from_shape_simple_fn((dim, 2), || StandardNormal.sample(rng)));
        let mut projected = sample.dot(&axes);
        let mut captured = 0.0;
        for _ in 0..MAX_ITERATIONS {
            axes = orthonormal(sample.t().dot(&projected));
            projected = sample.dot(&axes);
            let now: f64 = projected.iter().map(|value| value * value).sum();
            if now <= captured * (1.0 + 1e-10) {
                break;
            }
            captured = now;
        }
        // The rotation of a symmetric 2 x 2 matrix to its eigenvectors.
        let products = projected.t().dot(&projected);
        let angle = 0.5 * (2.0 * products[[0, 1]]).atan2(products[[0, 0]] - products[[1, 1]]);
        let (sin, cos) = angle.sin_cos();
        let mut axes = axes.dot(&ndarray::arr2(&[[cos, -sin], [sin, cos]]));
        for mut axis in axes.columns_mut() {
            let largest = axis.iter().copied().fold(0.0, |a: f64, b| if b.abs() > a.abs() { b } else { a });
            axis *= if largest < 0.0 { -1.0 } else { 1.0 };
        }
        let along = sample.dot(&axes);
        let fraction = |axis: usize| match along.column(axis).dot(&along.column(axis)) / total {
            fraction if fraction.is_finite() => fraction,
            _ => 0.0,
        };
        Projection { normalize, mean, explained_variance: [fraction(0), fraction(1)], axes }
    }

    /// The dimension of the embeddings.
    pub fn dim(&self) -> usize {
        self.axes.nrows()
    }

    /// The points `(x, y)` of vectors `(rows, dim)` in the plane.
    pub fn project(&self, vectors: ArrayView2<'_, f64>) -> Vec<(f64, f64)> {
        let points = (normalized(vectors, self.normalize) - &self.mean).dot(&self.axes);
        points.rows().into_iter().map(|point| (point[0], point[1])).collect()
    }
}

/// A copy of the vectors, scaled to length 1 if `normalize`. Zero vectors stay zero.
fn normalized(vectors: ArrayView2<'_, f64>, normalize: bool) -> Array2<f64> {
    let mut vectors = vectors.to_owned();
    for mut vector in vectors.rows_mut() {
        let length = vector.dot(&vector).sqrt();
        if normalize && length > 0.0 {
            vector /= length;
        }
    }
    vectors
}

/// Orthonormalizes two columns by Gram-Schmidt. Columns without length stay zero.
fn orthonormal(mut columns: Array2<f64>) -> Array2<f64> {
    let scale = columns.iter().fold(0.0, |most: f64, value| most.max(value.abs()));
    if scale > 0.0 {
        columns /= scale;
    }
    // Two passes: the first leaves rounding errors if the columns are nearly parallel.
    for _ in 0..2 {
        for column in 0..2 {
            if column == 1 {
                let first = columns.column(0).to_owned();
                let shared = first.dot(&columns.column(1));
                columns.slice_mut(s![.., 1]).scaled_add(-shared, &first);
            }
            let length = columns.column(column).dot(&columns.column(column)).sqrt();
            let scale = if length > 1e-12 { 1.0 / length } else { 0.0 };
            columns.slice_mut(s![.., column]).mapv_inplace(|value| value * scale);
        }
    }
    columns
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::random_stream;

    /// Random vectors with these standard deviations along random orthonormal axes, and the axes.
    fn gaussian(rows: usize, dim: usize, deviations: &[f64]) -> (Array2<f64>, Array2<f64>) {
        let mut rng = random_stream(1, "test", 0, 0);
        let mut normal =
            |rows, dim| Array2::<f64>::from_shape_simple_fn((rows, dim), || StandardNormal.sample(&mut rng));
        let axes = orthonormal(normal(dim, 2));
        let mut vectors = normal(rows, dim) * 0.01 + 3.0;
        for (axis, deviation) in deviations.iter().enumerate() {
            let along = normal(rows, 1) * *deviation;
            vectors += &along.dot(&axes.slice(s![.., axis..=axis]).t());
        }
        (vectors, axes)
    }

    #[test]
    fn the_projection_finds_the_plane_of_largest_variance() {
        for dim in [2, 3, 64, 768] {
            let (vectors, axes) = gaussian(2000, dim, &[5.0, 2.0]);
            let projection = Projection::fit(vectors.view(), false, &mut random_stream(0, "test", 0, 1));
            for axis in 0..2 {
                let cosine = projection.axes.column(axis).dot(&axes.column(axis)).abs();
                assert!(cosine > 0.999, "{dim}: {cosine}");
            }
            let rest = 0.01f64.powi(2) * (dim - 2) as f64;
            let expected = [25.0 / (29.0 + rest), 4.0 / (29.0 + rest)];
            for (found, expected) in projection.explained_variance.iter().zip(expected) {
                assert!((found - expected).abs() < 0.03, "{dim}: {found} is not {expected}");
            }
            // Distances in the plane are kept.
            let points = projection.project(vectors.view());
            let distance = |a: usize, b: usize| (points[a].0 - points[b].0).hypot(points[a].1 - points[b].1);
            let difference = &vectors.row(0) - &vectors.row(1);
            assert!((distance(0, 1) - difference.dot(&difference).sqrt()).abs() < 0.5, "{dim}");
        }
    }

    #[test]
    fn normalized_vectors_have_the_same_point_whatever_their_length() {
        let (vectors, _) = gaussian(100, 5, &[2.0, 1.0]);
        let projection = Projection::fit(vectors.view(), true, &mut random_stream(0, "test", 0, 1));
        let longer = projection.project((&vectors * 7.0).view());
        assert!(
            projection.project(vectors.view()).iter().zip(longer).all(|(a, b)| (a.0 - b.0).hypot(a.1 - b.1) < 1e-9)
        );
    }

    #[test]
    fn vectors_of_one_dimension_on_a_line_or_all_equal_have_a_projection() {
        let (line, _) = gaussian(50, 1, &[]);
        for vectors in [line, Array2::ones((9, 4)), Array2::zeros((1, 3)), Array2::zeros((0, 3))] {
            let projection = Projection::fit(vectors.view(), false, &mut random_stream(0, "test", 0, 1));
            assert!(projection.project(vectors.view()).iter().all(|point| point.0.is_finite() && point.1.is_finite()));
            assert!(
                projection.explained_variance.iter().all(|fraction| (0.0..=1.0 + 1e-9).contains(fraction)),
                "{:?}",
                projection.explained_variance
            );
        }
    }
}

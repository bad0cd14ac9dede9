//! The plane in which a library's embeddings spread the most: their first two principal components.

use ndarray::{Array1, Array2, ArrayView2, Axis, s};
use rand_distr::{Distribution, StandardNormal};

use crate::random::RandomStream;

/// Principal axes of embeddings of `dim` components.
pub(super) struct Plane {
    /// Whether vectors count by their direction only.
    unit: bool,
    mean: Array1<f64>,
    /// Orthonormal columns, `(dim, 2)`; the second is zero where the embeddings lie on a line.
    axes: Array2<f64>,
    /// The share of the variance along each axis.
    pub explained: [f64; 2],
}

impl Plane {
    /// Of a sample `(rows, dim)`, by orthogonal iteration on it: the matrix of covariances is never there, so that wide
    /// embeddings take no more room than the sample does.
    ///
    /// With `C` the covariance, `Q ← orthonormal(C Q)` until the variance in the plane, `tr(Q' C Q)`, no longer
    /// grows; then `Q` is turned in its plane such that `Q' C Q` is diagonal, the larger first. The sign is the one
    /// that makes an axis's largest component positive.
    pub fn of(sample: ArrayView2<'_, f64>, unit: bool, rng: &mut RandomStream) -> Self {
        const ROUNDS: usize = 200;
        let dim = sample.ncols();
        let mut sample = as_counted(sample, unit);
        let mean = sample.mean_axis(Axis(0)).unwrap_or_else(|| Array1::zeros(dim));
        sample -= &mean;
        let total: f64 = sample.iter().map(|value| value * value).sum();
        let mut axes = orthonormal(Array2::from_shape_simple_fn((dim, 2), || StandardNormal.sample(rng)));
        let mut seen = sample.dot(&axes);
        let mut captured = 0.0;
        for _ in 0..ROUNDS {
            axes = orthonormal(sample.t().dot(&seen));
            seen = sample.dot(&axes);
            let now: f64 = seen.iter().map(|value| value * value).sum();
            if now <= captured * (1.0 + 1e-10) {
                break;
            }
            captured = now;
        }
        // The rotation of a symmetric 2 x 2 matrix to its eigenvectors.
        let products = seen.t().dot(&seen);
        let angle = 0.5 * (2.0 * products[[0, 1]]).atan2(products[[0, 0]] - products[[1, 1]]);
        let (sin, cos) = angle.sin_cos();
        let mut axes = axes.dot(&ndarray::arr2(&[[cos, -sin], [sin, cos]]));
        for mut axis in axes.columns_mut() {
            let largest = axis.iter().copied().fold(0.0, |a: f64, b| if b.abs() > a.abs() { b } else { a });
            axis *= if largest < 0.0 { -1.0 } else { 1.0 };
        }
        let along = sample.dot(&axes);
        let share = |axis: usize| match along.column(axis).dot(&along.column(axis)) / total {
            share if share.is_finite() => share,
            _ => 0.0,
        };
        Plane { unit, mean, explained: [share(0), share(1)], axes }
    }

    /// Components of the embeddings.
    pub fn dim(&self) -> usize {
        self.axes.nrows()
    }

    /// Where vectors `(rows, dim)` are in the plane.
    pub fn places(&self, vectors: ArrayView2<'_, f64>) -> Vec<(f64, f64)> {
        let places = (as_counted(vectors, self.unit) - &self.mean).dot(&self.axes);
        places.rows().into_iter().map(|place| (place[0], place[1])).collect()
    }
}

/// The vectors, of length one if they count by their direction only.
fn as_counted(vectors: ArrayView2<'_, f64>, unit: bool) -> Array2<f64> {
    let mut vectors = vectors.to_owned();
    for mut vector in vectors.rows_mut() {
        let length = vector.dot(&vector).sqrt();
        if unit && length > 0.0 {
            vector /= length;
        }
    }
    vectors
}

/// Gram and Schmidt's, of two columns. What has no length stays zero.
fn orthonormal(mut columns: Array2<f64>) -> Array2<f64> {
    let scale = columns.iter().fold(0.0, |most: f64, value| most.max(value.abs()));
    if scale > 0.0 {
        columns /= scale;
    }
    // Twice is enough: the first leaves rounding where the columns are nearly alike.
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

    /// Vectors whose variance along known, turned axes is known.
    fn spread(rows: usize, dim: usize, deviations: &[f64]) -> (Array2<f64>, Array2<f64>) {
        let mut rng = random_stream(1, "test", 0, 0);
        let mut normal =
            |rows, dim| Array2::<f64>::from_shape_simple_fn((rows, dim), || StandardNormal.sample(&mut rng));
        let turned = orthonormal(normal(dim, 2));
        let mut vectors = normal(rows, dim) * 0.01 + 3.0;
        for (axis, deviation) in deviations.iter().enumerate() {
            let along = normal(rows, 1) * *deviation;
            vectors += &along.dot(&turned.slice(s![.., axis..=axis]).t());
        }
        (vectors, turned)
    }

    #[test]
    fn the_plane_is_the_one_that_the_vectors_were_spread_in() {
        for dim in [2, 3, 64, 768] {
            let (vectors, axes) = spread(2000, dim, &[5.0, 2.0]);
            let plane = Plane::of(vectors.view(), false, &mut random_stream(0, "test", 0, 1));
            for axis in 0..2 {
                let cosine = plane.axes.column(axis).dot(&axes.column(axis)).abs();
                assert!(cosine > 0.999, "{dim}: {cosine}");
            }
            let rest = 0.01f64.powi(2) * (dim - 2) as f64;
            let expected = [25.0 / (29.0 + rest), 4.0 / (29.0 + rest)];
            for (found, expected) in plane.explained.iter().zip(expected) {
                assert!((found - expected).abs() < 0.03, "{dim}: {found} is not {expected}");
            }
            // What lies in the plane keeps its distances.
            let places = plane.places(vectors.view());
            let apart = |a: usize, b: usize| (places[a].0 - places[b].0).hypot(places[a].1 - places[b].1);
            let difference = &vectors.row(0) - &vectors.row(1);
            assert!((apart(0, 1) - difference.dot(&difference).sqrt()).abs() < 0.5, "{dim}");
        }
    }

    #[test]
    fn vectors_that_count_by_their_direction_are_in_one_place_whatever_their_length() {
        let (vectors, _) = spread(100, 5, &[2.0, 1.0]);
        let plane = Plane::of(vectors.view(), true, &mut random_stream(0, "test", 0, 1));
        let longer = plane.places((&vectors * 7.0).view());
        assert!(plane.places(vectors.view()).iter().zip(longer).all(|(a, b)| (a.0 - b.0).hypot(a.1 - b.1) < 1e-9));
    }

    #[test]
    fn vectors_of_one_component_on_a_line_or_all_alike_have_a_plane_too() {
        let (line, _) = spread(50, 1, &[]);
        for vectors in [line, Array2::ones((9, 4)), Array2::zeros((1, 3)), Array2::zeros((0, 3))] {
            let plane = Plane::of(vectors.view(), false, &mut random_stream(0, "test", 0, 1));
            assert!(plane.places(vectors.view()).iter().all(|place| place.0.is_finite() && place.1.is_finite()));
            assert!(plane.explained.iter().all(|share| (0.0..=1.0 + 1e-9).contains(share)), "{:?}", plane.explained);
        }
    }
}

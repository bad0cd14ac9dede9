//! The directions in which many vectors vary most.

use ndarray::{Array1, Array2, ArrayView2};
use rand_distr::{Distribution, StandardNormal};

use crate::error::Result;
use crate::linalg::Cholesky;
use crate::random::RandomStream;

/// Directions that are kept.
pub(super) const DIRECTIONS: usize = 64;
/// Products with the data and its transpose.
const STEPS: usize = 5;

/// Vectors `(rows, dim)` that can be multiplied, whatever form they have.
pub(super) trait Rows {
    fn dim(&self) -> usize;
    /// The mean of the rows.
    fn mean(&self) -> Array1<f32>;
    /// `X V`, for `V` of shape `(dim, m)`.
    fn times(&self, v: ArrayView2<'_, f32>) -> Array2<f32>;
    /// `X' U`, for `U` of shape `(rows, m)`.
    fn transposed_times(&self, u: ArrayView2<'_, f32>) -> Array2<f32>;
}

/// A mean, and an orthonormal basis `V` `(dim, directions)`: `(x - mean) V` keeps the distances in these directions.
///
/// By subspace iteration on the covariance, `V <- orth((X - mean)' (X - mean) V)`, from random directions: what is kept is
/// a space, so the order of its directions does not matter. Source: Halko, Martinsson and Tropp, Finding structure with
/// randomness (2011), algorithm 4.4.
pub(super) struct Subspace {
    basis: Array2<f32>,
    /// `mean' V`.
    centre: Array1<f32>,
}

impl Subspace {
    pub(super) fn fit(rows: &impl Rows, rng: &mut RandomStream) -> Result<Self> {
        let (dim, mean) = (rows.dim(), rows.mean());
        let random = Array2::from_shape_simple_fn((dim, DIRECTIONS.min(dim)), || {
            let normal: f64 = StandardNormal.sample(rng);
            normal as f32
        });
        let mut basis = orthonormal(random)?;
        for _ in 0..STEPS {
            let mut along = rows.times(basis.view());
            along -= &mean.dot(&basis);
            let mut back = rows.transposed_times(along.view());
            let sums = along.sum_axis(ndarray::Axis(0));
            for (mut row, mean) in back.rows_mut().into_iter().zip(&mean) {
                row.scaled_add(-mean, &sums);
            }
            basis = orthonormal(back)?;
        }
        Ok(Subspace { centre: mean.dot(&basis), basis })
    }

    pub(super) fn width(&self) -> usize {
        self.basis.ncols()
    }

    /// The rows in these directions `(rows, width)`.
    pub(super) fn project(&self, rows: &impl Rows) -> Array2<f32> {
        rows.times(self.basis.view()) - &self.centre
    }
}

/// An orthonormal basis of the space of the columns, by Cholesky factors of their products; twice, as once loses half of
/// the digits. Columns that depend on others become what rounding makes of them, which is of no length.
fn orthonormal(columns: Array2<f32>) -> Result<Array2<f32>> {
    let mut q = columns.mapv(f64::from);
    for _ in 0..2 {
        let largest = q.iter().fold(0.0f64, |largest, value| largest.max(value.abs()));
        if largest > 0.0 {
            q /= largest;
        }
        let factor = Cholesky::new(&q.t().dot(&q), "products of directions")?;
        let mut transposed = q.t().to_owned();
        factor.solve_lower(&mut transposed);
        q = transposed.t().to_owned();
    }
    Ok(q.mapv(|value| value as f32))
}

/// Vectors that stand one after another.
pub(super) struct Dense<'a>(pub(super) ArrayView2<'a, f32>);

impl Rows for Dense<'_> {
    fn dim(&self) -> usize {
        self.0.ncols()
    }
    fn mean(&self) -> Array1<f32> {
        self.0.mean_axis(ndarray::Axis(0)).unwrap_or_else(|| Array1::zeros(self.0.ncols()))
    }
    fn times(&self, v: ArrayView2<'_, f32>) -> Array2<f32> {
        self.0.dot(&v)
    }
    fn transposed_times(&self, u: ArrayView2<'_, f32>) -> Array2<f32> {
        self.0.t().dot(&u)
    }
}

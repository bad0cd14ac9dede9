//! Principal component analysis (PCA) by randomised subspace iteration.

use ndarray::{Array1, Array2, ArrayView2};
use rand_distr::{Distribution, StandardNormal};

use crate::error::Result;
use crate::linalg::Cholesky;
use crate::random::RandomStream;

/// The number of principal components.
pub(super) const DIRECTIONS: usize = 64;
/// The number of subspace iterations.
const ITERATIONS: usize = 5;

/// A matrix `X` of shape `(rows, dim)`, dense or sparse, that supports products.
pub(super) trait RowMatrix {
    fn dim(&self) -> usize;
    /// The mean of the rows.
    fn mean(&self) -> Array1<f32>;
    /// `X V`, for `V` of shape `(dim, m)`.
    fn multiply(&self, v: ArrayView2<'_, f32>) -> Array2<f32>;
    /// `X' U`, for `U` of shape `(rows, m)`.
    fn transpose_multiply(&self, u: ArrayView2<'_, f32>) -> Array2<f32>;
}

/// The subspace of the first principal components: a mean and an orthonormal basis `V` of shape `(dim, directions)`. The
/// projection `(x - mean) V` preserves distances within the subspace.
///
/// The basis is found by subspace iteration from random directions: `V <- orth((X - mean)' (X - mean) V)`. This finds the
/// subspace but not the individual components. That is sufficient, because only distances are used. Source: Halko, Martinsson
/// and Tropp, Finding structure with randomness (2011), algorithm 4.4.
pub(super) struct Subspace {
    basis: Array2<f32>,
    /// `mean' V`.
    centre: Array1<f32>,
}

impl Subspace {
    pub(super) fn fit(rows: &impl RowMatrix, rng: &mut RandomStream) -> Result<Self> {
        let (dim, mean) = (rows.dim(), rows.mean());
        let random = Array2::from_shape_simple_fn((dim, DIRECTIONS.min(dim)), || {
            let normal: f64 = StandardNormal.sample(rng);
            normal as f32
        });
        let mut basis = orthonormal(random)?;
        for _ in 0..ITERATIONS {
            let mut projected = rows.multiply(basis.view());
            projected -= &mean.dot(&basis);
            let mut back = rows.transpose_multiply(projected.view());
            let sums = projected.sum_axis(ndarray::Axis(0));
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

    /// Projects rows on the basis: an array of shape `(rows, width)`.
    pub(super) fn project(&self, rows: &impl RowMatrix) -> Array2<f32> {
        rows.multiply(self.basis.view()) - &self.centre
    }
}

/// An orthonormal basis of the column space by Cholesky QR. It runs twice, because one pass loses half of the digits. A column that
/// depends linearly on the others leaves only rounding errors. Projections on it are almost zero.
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

/// A dense matrix.
pub(super) struct DenseRows<'a>(pub(super) ArrayView2<'a, f32>);

impl RowMatrix for DenseRows<'_> {
    fn dim(&self) -> usize {
        self.0.ncols()
    }
    fn mean(&self) -> Array1<f32> {
        self.0.mean_axis(ndarray::Axis(0)).unwrap_or_else(|| Array1::zeros(self.0.ncols()))
    }
    fn multiply(&self, v: ArrayView2<'_, f32>) -> Array2<f32> {
        self.0.dot(&v)
    }
    fn transpose_multiply(&self, u: ArrayView2<'_, f32>) -> Array2<f32> {
        self.0.t().dot(&u)
    }
}

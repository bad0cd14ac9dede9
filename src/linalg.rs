//! Linear algebra: blocked Cholesky factorization, triangular solves, squared distances, dot products.
//!
//! Most of the work is matrix products of blocks. Inner loops use indices, because unoptimised builds do not inline iterators.

use ndarray::linalg::general_mat_mul;
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, ArrayViewMut2, s};
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::frame::schema::EMBEDDING;

/// The block size: rows and columns within a block are factored one by one.
const BLOCK: usize = 64;

/// The lower triangular `L` of a symmetric positive definite matrix `A = L L'`, shape `(n, n)`.
#[derive(Clone, Debug)]
pub(crate) struct Cholesky {
    lower: Array2<f64>,
    /// The inverse of each diagonal block of `lower`.
    inverses: Vec<Array2<f64>>,
    /// Whether jitter was added to the diagonal.
    has_jitter: bool,
}

impl Cholesky {
    /// Factors a matrix. Only the lower triangle is read. If rounding makes the matrix indefinite, jitter is added to the
    /// diagonal: a millionth of its mean, then ten times that, and so on.
    ///
    /// # Errors
    /// A value is not finite: no jitter would help. The error names the matrix by `what`.
    pub fn new(matrix: &Array2<f64>, what: &str) -> Result<Self> {
        let lower = matrix.indexed_iter().filter(|((row, column), _)| column <= row);
        if let Some(((row, column), value)) = lower.into_iter().find(|(_, value)| !value.is_finite()) {
            let found = format!("{value} in row {row}, column {column} of the {what}");
            return Err(Error::contract("surrogate", EMBEDDING, "finite numbers", found));
        }
        let n = matrix.nrows();
        let mean = matrix.diag().iter().map(|value| value.abs()).sum::<f64>() / n.max(1) as f64;
        let (mut shifted, mut jitter) = (matrix.clone(), 1e-6 * mean.max(f64::MIN_POSITIVE));
        loop {
            // This loop terminates, because with enough jitter the diagonal dominates, and the matrix is positive definite.
            if let Some(factor) = Self::try_new(shifted, Vec::new()) {
                return Ok(Cholesky { has_jitter: jitter > 1e-6 * mean.max(f64::MIN_POSITIVE), ..factor });
            }
            shifted = matrix.clone();
            shifted.diag_mut().mapv_inplace(|value| value + jitter);
            jitter *= 10.0;
        }
    }

    /// The number of rows, of the first `rows`, that the factor of a larger matrix can reuse: the rows of complete blocks.
    pub fn reusable_rows(&self, rows: usize) -> usize {
        if self.has_jitter { 0 } else { rows.min(self.lower.nrows()) / BLOCK * BLOCK }
    }

    /// Extends the factor to a larger matrix of shape `(n, n)` whose first [`reusable_rows`](Self::reusable_rows) rows and columns
    /// are those of this matrix. `rows` are the other rows, of shape `(n - reusable_rows, n)`; their upper triangle is not
    /// read. The result equals the factor of the whole matrix bit for bit. `None` if the matrix is not positive definite.
    pub fn extend(&self, rows: ArrayView2<'_, f64>) -> Option<Self> {
        let (n, reused) = (rows.ncols(), rows.ncols() - rows.nrows());
        let mut a = Array2::zeros((n, n));
        a.slice_mut(s![..reused, ..reused]).assign(&self.lower.slice(s![..reused, ..reused]));
        a.slice_mut(s![reused.., ..]).assign(&rows);
        Self::try_new(a, self.inverses[..reused / BLOCK].to_vec())
    }

    /// Factors a matrix whose first blocks are already factored: one block for each of the `inverses`.
    fn try_new(mut a: Array2<f64>, mut inverses: Vec<Array2<f64>>) -> Option<Self> {
        let n = a.nrows();
        let factored = inverses.len() * BLOCK;
        for start in (0..n).step_by(BLOCK) {
            let end = (start + BLOCK).min(n);
            if start < factored {
                let (above, mut rows) = a.view_mut().split_at(ndarray::Axis(0), factored);
                let (left, mut block) = rows.multi_slice_mut((s![.., ..start], s![.., start..end]));
                general_mat_mul(-1.0, &left, &above.slice(s![start..end, ..start]).t(), 1.0, &mut block);
                let solved = block.dot(&inverses[start / BLOCK].t());
                block.assign(&solved);
                continue;
            }
            // Subtract the product of the columns to the left.
            let (left, mut block) = a.multi_slice_mut((s![start.., ..start], s![start.., start..end]));
            general_mat_mul(-1.0, &left, &left.slice(s![..end - start, ..]).t(), 1.0, &mut block);
            let (mut diagonal, mut below) = block.split_at(ndarray::Axis(0), end - start);
            factor_in_place(&mut diagonal)?;
            let inverse = invert_lower(diagonal.view());
            let solved = below.dot(&inverse.t());
            below.assign(&solved);
            inverses.push(inverse);
        }
        for row in 0..n {
            a.slice_mut(s![row, row + 1..]).fill(0.0);
        }
        Some(Cholesky { lower: a, inverses, has_jitter: false })
    }

    /// `L`.
    pub fn lower(&self) -> ArrayView2<'_, f64> {
        self.lower.view()
    }

    /// Solves `L X = B` in place, for `B` of shape `(n, m)`.
    pub fn solve_lower(&self, b: &mut Array2<f64>) {
        for (block, inverse) in self.inverses.iter().enumerate() {
            let start = block * BLOCK;
            let end = start + inverse.nrows();
            let (known, mut rows) = b.multi_slice_mut((s![..start, ..], s![start..end, ..]));
            general_mat_mul(-1.0, &self.lower.slice(s![start..end, ..start]), &known, 1.0, &mut rows);
            let solved = inverse.dot(&rows);
            rows.assign(&solved);
        }
    }

    /// Solves `L' X = B` in place, for `B` of shape `(n, m)`.
    pub fn solve_upper(&self, b: &mut Array2<f64>) {
        for (block, inverse) in self.inverses.iter().enumerate().rev() {
            let start = block * BLOCK;
            let end = start + inverse.nrows();
            let (mut rows, known) = b.multi_slice_mut((s![start..end, ..], s![end.., ..]));
            general_mat_mul(-1.0, &self.lower.slice(s![end.., start..end]).t(), &known, 1.0, &mut rows);
            let solved = inverse.t().dot(&rows);
            rows.assign(&solved);
        }
    }

    /// The inverse of `A`.
    pub fn inverse(&self) -> Array2<f64> {
        let mut half = Array2::eye(self.lower.nrows());
        self.solve_lower(&mut half);
        half.t().dot(&half)
    }

    /// Solves `A x = b`.
    pub fn solve(&self, b: ArrayView1<'_, f64>) -> Array1<f64> {
        let mut x = b.to_owned().insert_axis(ndarray::Axis(1));
        self.solve_lower(&mut x);
        self.solve_upper(&mut x);
        x.remove_axis(ndarray::Axis(1))
    }
}

/// Squared Euclidean distances `|a_i - b_j|^2` for `a` of shape `(n, dim)` and `b` of shape `(m, dim)`: shape `(n, m)`,
/// row-major.
pub(crate) fn squared_distances(a: ArrayView2<'_, f64>, b: ArrayView2<'_, f64>) -> Array2<f64> {
    let squares =
        |points: ArrayView2<'_, f64>| -> Vec<f64> { points.rows().into_iter().map(|row| row.dot(&row)).collect() };
    let (a_squares, b_squares) = (squares(a), squares(b));
    // `dot` would choose a layout that depends on the inputs. The result must be row-major.
    let mut values = Array2::zeros((a.nrows(), b.nrows()));
    general_mat_mul(1.0, &a, &b.t(), 0.0, &mut values);
    if let Some(values) = values.as_slice_mut().filter(|values| !values.is_empty()) {
        values.par_chunks_mut(b.nrows()).zip(&a_squares).for_each(|(row, a_square)| {
            let (b_squares, mut at) = (&b_squares[..row.len()], 0);
            while at < row.len() {
                row[at] = (a_square + b_squares[at] - 2.0 * row[at]).max(0.0);
                at += 1;
            }
        });
    }
    values
}

/// The dot product `a . b`, summed in eight lanes.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (length, mut lanes, mut at) = (a.len().min(b.len()), [0f32; 8], 0);
    while at + 8 <= length {
        let (a, b) = (&a[at..at + 8], &b[at..at + 8]);
        let mut lane = 0;
        while lane < 8 {
            lanes[lane] += a[lane] * b[lane];
            lane += 1;
        }
        at += 8;
    }
    let mut sum = lanes.iter().sum::<f32>();
    while at < length {
        sum += a[at] * b[at];
        at += 1;
    }
    sum
}

/// `to += scale * from`.
pub(crate) fn add_scaled(to: &mut [f32], scale: f32, from: &[f32]) {
    let (length, mut at) = (to.len().min(from.len()), 0);
    let (to, from) = (&mut to[..length], &from[..length]);
    while at < length {
        to[at] += scale * from[at];
        at += 1;
    }
}

/// Factors a block in place. `None` if it is not positive definite.
fn factor_in_place(a: &mut ArrayViewMut2<'_, f64>) -> Option<()> {
    for column in 0..a.ncols() {
        for row in column..a.nrows() {
            let explained = a.slice(s![row, ..column]).dot(&a.slice(s![column, ..column]));
            let rest = a[[row, column]] - explained;
            if row > column {
                a[[row, column]] = rest / a[[column, column]];
            } else if rest > 0.0 {
                a[[column, column]] = rest.sqrt();
            } else {
                return None;
            }
        }
    }
    Some(())
}

/// The inverse of a lower triangular matrix. The upper triangle is not read.
fn invert_lower(lower: ArrayView2<'_, f64>) -> Array2<f64> {
    let n = lower.nrows();
    let mut inverse = Array2::<f64>::zeros((n, n));
    for row in 0..n {
        let scale = 1.0 / lower[[row, row]];
        for column in 0..row {
            let sum = lower.slice(s![row, column..row]).dot(&inverse.slice(s![column..row, column]));
            inverse[[row, column]] = -sum * scale;
        }
        inverse[[row, row]] = scale;
    }
    inverse
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array;

    fn matrix(rows: usize, columns: usize) -> Array2<f64> {
        Array::from_shape_fn((rows, columns), |(i, j)| ((i * 7919 + j * 104_729) % 1009) as f64 / 1009.0 - 0.5)
    }

    fn close(a: &Array2<f64>, b: &Array2<f64>) -> bool {
        a.dim() == b.dim() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-9 * (1.0 + b.abs()))
    }

    #[test]
    fn factors_and_solutions_multiply_back_for_every_block_size() {
        for n in [1, 2, 63, 64, 65, 130, 200] {
            let half = matrix(n, n + 5);
            let a = half.dot(&half.t()) + Array2::<f64>::eye(n);
            let factor = Cholesky::new(&a, "matrix").expect("a factor");
            assert!(close(&factor.lower().dot(&factor.lower().t()), &a), "n = {n}");
            let b = matrix(n, 3);
            let mut x = b.clone();
            factor.solve_lower(&mut x);
            factor.solve_upper(&mut x);
            assert!(close(&a.dot(&x), &b), "n = {n}");
            assert!((a.dot(&factor.solve(b.column(1))) - b.column(1)).iter().all(|rest| rest.abs() < 1e-9));
        }
    }

    #[test]
    fn an_extended_factor_equals_the_factor_of_the_whole_matrix_bit_for_bit() {
        let bits = |factor: &Cholesky| factor.lower().iter().map(|value| value.to_bits()).collect::<Vec<u64>>();
        let half = matrix(333, 340);
        let a = half.dot(&half.t()) + Array2::<f64>::eye(333);
        for (from, to) in [(64, 65), (70, 131), (128, 129), (200, 333), (332, 333), (130, 130), (300, 310)] {
            let part = |n: usize| a.slice(s![..n, ..n]).to_owned();
            let before = Cholesky::new(&part(from), "matrix").expect("a factor");
            let kept = before.reusable_rows(from);
            assert_eq!(kept, from / 64 * 64);
            let mut rows = part(to).slice_move(s![kept.., ..]);
            // The upper triangle is not read.
            rows.indexed_iter_mut()
                .filter(|((row, column), _)| *column > kept + row)
                .for_each(|(_, value)| *value = 1e9);
            let (grown, whole) = (before.extend(rows.view()), Cholesky::new(&part(to), "matrix").expect("a factor"));
            assert_eq!(bits(&grown.expect("a factor")), bits(&whole), "{from} to {to}");
        }
        let not_definite = Cholesky::new(&Array2::ones((70, 70)), "matrix").expect("a factor");
        assert_eq!(not_definite.reusable_rows(70), 0, "jitter changed its diagonal");
    }

    #[test]
    fn jitter_makes_indefinite_matrices_positive_definite() {
        for a in [Array2::ones((70, 70)), Array2::zeros((3, 3)), -Array2::<f64>::eye(2)] {
            let factor = Cholesky::new(&a, "matrix").expect("a factor");
            assert!(factor.lower().iter().all(|value| value.is_finite()), "{a}");
        }
    }
    #[test]
    fn a_matrix_with_a_value_that_is_not_finite_is_an_error_with_its_position() {
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            for place in [[0, 0], [66, 2], [69, 69]] {
                let mut a = Array2::<f64>::eye(70);
                a[place] = value;
                let error = Cholesky::new(&a, "covariance of nothing").expect_err("an error").to_string();
                let [row, column] = place;
                assert_eq!(
                    error,
                    format!(
                        "surrogate: column `embedding`: expected finite numbers, \
                         found {value} in row {row}, column {column} of the covariance of nothing"
                    )
                );
            }
        }
    }
}

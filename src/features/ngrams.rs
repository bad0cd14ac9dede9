//! Text features: hashed counts of character n-grams, projected on principal components.

use ndarray::{Array1, Array2, ArrayView2};
use polars::prelude::*;
use rayon::prelude::*;

use super::subspace::{RowMatrix, Subspace};
use crate::error::{Result, WrapErr};
use crate::linalg::add_scaled;
use crate::random::random_stream;

/// The longest n-gram in characters.
const MAX_NGRAM: usize = 4;
/// The number of characters that are read of a text.
const MAX_CHARACTERS: usize = 500;
/// The number of bits of the hash of an n-gram. N-grams with equal hashes share a count.
pub(super) const HASH_BITS: u32 = 14;
/// The maximum number of texts in the sample for fitting.
const MAX_SAMPLE_TEXTS: usize = 20_000;
/// The approximate maximum number of characters of the texts in the sample.
const MAX_SAMPLE_CHARACTERS: usize = 2_500_000;
/// The number of texts per chunk. One thread sums up one chunk. The size is fixed, so that sums do not depend on the number of
/// threads.
pub(super) const CHUNK: usize = 2048;

/// Encodes a text as `ln(1 + count)` of its character n-grams, projected on the principal components of a sample.
///
/// Counts are not weighted by rarity (TF-IDF), and not divided by the length of the text: both would lose differences in size.
pub(super) struct NgramEncoder {
    subspace: Subspace,
}

impl NgramEncoder {
    pub(super) fn fit(sample: &Column) -> Result<Self> {
        let sample = sample_texts(sample, MAX_CHARACTERS)?;
        let counts = SparseRows::from_texts(&sample, count_ngrams)?;
        Ok(NgramEncoder { subspace: Subspace::fit(&counts, &mut random_stream(0, "text features", 0, 0))? })
    }

    pub(super) fn width(&self) -> usize {
        self.subspace.width()
    }

    /// Encodes a column: values of shape `(rows, width)`, row-major.
    pub(super) fn encode(&self, column: &Column) -> Result<Vec<f32>> {
        let mut rows = Vec::with_capacity(column.len() * self.width());
        // Chunks limit memory: the counts of a text are larger than the text.
        for start in (0..column.len()).step_by(CHUNK) {
            let counts = SparseRows::from_texts(&column.slice(start as i64, CHUNK), count_ngrams)?;
            rows.extend(self.subspace.project(&counts));
        }
        Ok(rows)
    }
}

/// A part of the texts of a column, evenly spaced, for fitting an encoder that reads `max_characters` of a text.
pub(super) fn sample_texts(column: &Column, max_characters: usize) -> Result<Column> {
    let texts = column.cast(&DataType::String).wrap_err(format!("column `{}` as text", column.name()))?;
    let lengths = texts.str().wrap_err("texts")?.iter().map(|text| text.map_or(0, str::len).clamp(1, max_characters));
    let total_length = lengths.sum::<usize>().max(1);
    let texts_to_read = MAX_SAMPLE_TEXTS.min(MAX_SAMPLE_CHARACTERS * texts.len() / total_length).max(1);
    texts.gather_every(texts.len().div_ceil(texts_to_read).max(1), 0).wrap_err("texts")
}

/// A sparse matrix: for each text the hashes of its n-grams and the value of each, in ascending order of the hashes.
pub(super) struct SparseRows(pub(super) Vec<Vec<(u16, f32)>>);

impl SparseRows {
    /// The n-grams of the texts of a column, by a function of a text.
    pub(super) fn from_texts(column: &Column, ngrams: impl Fn(&str) -> Vec<(u16, f32)> + Sync + Send) -> Result<Self> {
        let texts = column.cast(&DataType::String).wrap_err(format!("column `{}` as text", column.name()))?;
        let texts: Vec<&str> = texts.str().wrap_err("texts")?.iter().map(Option::unwrap_or_default).collect();
        Ok(SparseRows(texts.into_par_iter().map(ngrams).collect()))
    }
}

/// The FNV-1a hash of no characters.
pub(super) const EMPTY_HASH: u64 = 0xcbf2_9ce4_8422_2325;

/// The FNV-1a hash of an n-gram with another character at its end.
pub(super) fn extend_hash(hash: u64, character: u32) -> u64 {
    (hash ^ u64::from(character)).wrapping_mul(0x0000_0100_0000_01b3)
}

/// The hash of an n-gram in [`HASH_BITS`] bits. The upper bits are well mixed after the product.
pub(super) fn finish_hash(hash: u64) -> u16 {
    (hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - HASH_BITS)) as u16
}

/// The hashes of the n-grams of a text with `ln(1 + count)` of each.
fn count_ngrams(text: &str) -> Vec<(u16, f32)> {
    let mut characters = [0u32; MAX_CHARACTERS];
    let mut length = 0;
    for (to, from) in characters.iter_mut().zip(text.chars()) {
        *to = u32::from(from);
        length += 1;
    }
    let mut ngrams: Vec<u16> = Vec::with_capacity(length * MAX_NGRAM);
    for start in 0..length {
        let mut hash = EMPTY_HASH;
        for character in &characters[start..(start + MAX_NGRAM).min(length)] {
            hash = extend_hash(hash, *character);
            ngrams.push(finish_hash(hash));
        }
    }
    log_counts(ngrams)
}

/// Each distinct n-gram with `ln(1 + count)`.
pub(super) fn log_counts(mut ngrams: Vec<u16>) -> Vec<(u16, f32)> {
    ngrams.sort_unstable();
    ngrams.chunk_by(|a, b| a == b).map(|same| (same[0], (same.len() as f32).ln_1p())).collect()
}

impl RowMatrix for SparseRows {
    fn dim(&self) -> usize {
        1 << HASH_BITS
    }

    fn mean(&self) -> Array1<f32> {
        let mut sums = vec![0.0f64; self.dim()];
        self.0.iter().flatten().for_each(|(ngram, value)| sums[*ngram as usize] += f64::from(*value));
        let n = self.0.len().max(1) as f64;
        sums.into_iter().map(|sum| (sum / n) as f32).collect()
    }

    fn multiply(&self, v: ArrayView2<'_, f32>) -> Array2<f32> {
        let (v, width) = (v.as_standard_layout(), v.ncols());
        let v = v.as_slice().unwrap_or_default();
        let mut product = vec![0.0; self.0.len() * width];
        product.par_chunks_mut(width.max(1)).zip(&self.0).for_each(|(row, counts)| {
            for (ngram, value) in counts {
                let start = *ngram as usize * width;
                add_scaled(row, *value, &v[start..start + width]);
            }
        });
        Array2::from_shape_vec((self.0.len(), width), product).unwrap_or_default()
    }

    fn transpose_multiply(&self, u: ArrayView2<'_, f32>) -> Array2<f32> {
        let (u, width) = (u.as_standard_layout(), u.ncols());
        let u = u.as_slice().unwrap_or_default();
        let parts: Vec<Vec<f32>> = (0..self.0.len().div_ceil(CHUNK))
            .into_par_iter()
            .map(|chunk| {
                let mut sums = vec![0.0; (1 << HASH_BITS) * width];
                for row in chunk * CHUNK..((chunk + 1) * CHUNK).min(self.0.len()) {
                    for (ngram, value) in &self.0[row] {
                        let start = *ngram as usize * width;
                        add_scaled(&mut sums[start..start + width], *value, &u[row * width..(row + 1) * width]);
                    }
                }
                sums
            })
            .collect();
        let mut all = vec![0.0; (1 << HASH_BITS) * width];
        parts.iter().for_each(|part| add_scaled(&mut all, 1.0, part));
        Array2::from_shape_vec((1 << HASH_BITS, width), all).unwrap_or_default()
    }
}

//! Document features: weighted counts of the character n-grams within the words of long texts, projected on principal components.

use polars::prelude::*;

use super::ngrams::{CHUNK, EMPTY_HASH, HASH_BITS, SparseRows, extend_hash, finish_hash, log_counts, sample_texts};
use super::subspace::Subspace;
use crate::error::Result;
use crate::random::random_stream;

/// The shortest and the longest n-gram in characters.
const NGRAMS: std::ops::RangeInclusive<usize> = 3..=5;
/// The number of characters that are read of a text.
const MAX_CHARACTERS: usize = 2000;

/// Encodes a text by the character n-grams within its words (TF-IDF), projected on the principal components of a sample.
///
/// A text of the sample has a vector with a component for each hash h of an n-gram, where `c_h` is its count, `d_h` the number of
/// texts that contain it, and n the number of all texts. Vectors have the length 1:
///
/// ```text
/// x_h = ln(1 + c_h) (1 + ln((1 + n) / (1 + d_h))) / |x|
/// ```
///
/// Words are in lower case, and have a space at both ends. Unlike [`NgramEncoder`](super::ngrams::NgramEncoder), this compares
/// what documents are about, not how long they are.
pub(super) struct DocumentEncoder {
    /// The weight of each hash.
    weights: Vec<f32>,
    subspace: Subspace,
}

impl DocumentEncoder {
    /// Fits the encoder to a sample of a column.
    pub(super) fn fit(sample: &Column) -> Result<Self> {
        let mut rows = SparseRows::from_texts(&sample_texts(sample, MAX_CHARACTERS)?, count_ngrams)?;
        let mut texts_with = vec![0usize; 1 << HASH_BITS];
        rows.0.iter().flatten().for_each(|(ngram, _)| texts_with[usize::from(*ngram)] += 1);
        let n = rows.0.len() as f32;
        let weights: Vec<f32> = texts_with.iter().map(|count| 1.0 + ((1.0 + n) / (1.0 + *count as f32)).ln()).collect();
        rows.0.iter_mut().for_each(|row| weigh(row, &weights));
        let subspace = Subspace::fit(&rows, &mut random_stream(0, "document features", 0, 0))?;
        Ok(DocumentEncoder { weights, subspace })
    }

    pub(super) fn width(&self) -> usize {
        self.subspace.width()
    }

    /// Encodes a column: values of shape `(rows, width)`, row-major.
    pub(super) fn encode(&self, column: &Column) -> Result<Vec<f32>> {
        let mut values = Vec::with_capacity(column.len() * self.width());
        // Chunks limit memory: the counts of a text are larger than the text.
        for start in (0..column.len()).step_by(CHUNK) {
            let mut rows = SparseRows::from_texts(&column.slice(start as i64, CHUNK), count_ngrams)?;
            rows.0.iter_mut().for_each(|row| weigh(row, &self.weights));
            values.extend(self.subspace.project(&rows));
        }
        Ok(values)
    }
}

/// Multiplies the values of n-grams by their weights, and scales the row to the length 1.
fn weigh(row: &mut [(u16, f32)], weights: &[f32]) {
    row.iter_mut().for_each(|(ngram, value)| *value *= weights[usize::from(*ngram)]);
    let length = row.iter().map(|(_, value)| value * value).sum::<f32>().sqrt();
    row.iter_mut().for_each(|(_, value)| *value /= length);
}

/// The hashes of the n-grams within the words of a text with `ln(1 + count)` of each.
fn count_ngrams(text: &str) -> Vec<(u16, f32)> {
    let mut ngrams = Vec::new();
    let end = text.char_indices().nth(MAX_CHARACTERS).map_or(text.len(), |(end, _)| end);
    for word in text[..end].to_lowercase().split_whitespace() {
        let characters: Vec<u32> = std::iter::once(' ').chain(word.chars()).chain([' ']).map(u32::from).collect();
        for start in 0..characters.len() {
            let mut hash = EMPTY_HASH;
            for (length, character) in (1..=*NGRAMS.end()).zip(&characters[start..]) {
                hash = extend_hash(hash, *character);
                if NGRAMS.contains(&length) {
                    ngrams.push(finish_hash(hash));
                }
            }
        }
    }
    log_counts(ngrams)
}

//! Text: which runs of characters stand in it, and how often.

use ndarray::{Array1, Array2, ArrayView2};
use polars::prelude::*;
use rayon::prelude::*;

use super::subspace::{Rows, Subspace};
use crate::error::{Result, WrapErr};
use crate::linalg::add_scaled;
use crate::random::random_stream;

/// Characters in a run, at most.
const LONGEST: usize = 4;
/// Characters that are read of a text.
const READ: usize = 500;
/// Bits of the number that a run is known by; runs that share one are taken for the same.
const BITS: u32 = 14;
/// Texts of which the directions are learned, at most, and the characters that are read of them: where texts are long, fewer
/// tell as much.
const SAMPLE: (usize, usize) = (20_000, 2_500_000);
/// Texts that are counted at a time, and added up by one thread: a fixed number, so that the sums do not depend on the threads.
const CHUNK: usize = 2048;

/// `ln(1 + count)` of each run of one to four characters, in the directions in which a sample of texts varies most.
///
/// Counts are neither weighted by rarity nor divided by the length of the text: both lose what makes sizes differ.
pub(super) struct Text {
    subspace: Subspace,
}

impl Text {
    pub(super) fn fit(sample: &Column) -> Result<Self> {
        let texts = sample.cast(&DataType::String).wrap_err(format!("column `{}` as text", sample.name()))?;
        let lengths = texts.str().wrap_err("texts")?.iter().map(|text| text.map_or(0, str::len).clamp(1, READ));
        let (most, characters) = SAMPLE;
        let most = most.min(characters * texts.len() / lengths.sum::<usize>().max(1)).max(1);
        let sample = texts.gather_every(texts.len().div_ceil(most).max(1), 0).wrap_err("texts")?;
        Ok(Text { subspace: Subspace::fit(&Counts::of(&sample)?, &mut random_stream(0, "text features", 0, 0))? })
    }

    pub(super) fn width(&self) -> usize {
        self.subspace.width()
    }

    /// `(rows, width)`, row-major.
    pub(super) fn encode(&self, column: &Column) -> Result<Vec<f32>> {
        let mut rows = Vec::with_capacity(column.len() * self.width());
        // The counts of a text take more than the text.
        for start in (0..column.len()).step_by(CHUNK) {
            rows.extend(self.subspace.project(&Counts::of(&column.slice(start as i64, CHUNK))?));
        }
        Ok(rows)
    }
}

/// For each text the runs that it has and `ln(1 + count)` of each.
struct Counts(Vec<Vec<(u16, f32)>>);

impl Counts {
    fn of(column: &Column) -> Result<Self> {
        let texts = column.cast(&DataType::String).wrap_err(format!("column `{}` as text", column.name()))?;
        let texts: Vec<&str> = texts.str().wrap_err("texts")?.iter().map(Option::unwrap_or_default).collect();
        Ok(Counts(texts.into_par_iter().map(counts).collect()))
    }
}

fn counts(text: &str) -> Vec<(u16, f32)> {
    let mut characters = [0u32; READ];
    let mut length = 0;
    for (to, from) in characters.iter_mut().zip(text.chars()) {
        *to = u32::from(from);
        length += 1;
    }
    let mut runs: Vec<u16> = Vec::with_capacity(length * LONGEST);
    for start in 0..length {
        // FNV-1a over characters; the upper bits are well mixed after the last product.
        let mut hash = 0xcbf2_9ce4_8422_2325u64;
        for character in &characters[start..(start + LONGEST).min(length)] {
            hash = (hash ^ u64::from(*character)).wrapping_mul(0x0000_0100_0000_01b3);
            runs.push((hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - BITS)) as u16);
        }
    }
    runs.sort_unstable();
    runs.chunk_by(|a, b| a == b).map(|same| (same[0], (same.len() as f32).ln_1p())).collect()
}

impl Rows for Counts {
    fn dim(&self) -> usize {
        1 << BITS
    }

    fn mean(&self) -> Array1<f32> {
        let mut sums = vec![0.0f64; self.dim()];
        self.0.iter().flatten().for_each(|(run, value)| sums[*run as usize] += f64::from(*value));
        let n = self.0.len().max(1) as f64;
        sums.into_iter().map(|sum| (sum / n) as f32).collect()
    }

    fn times(&self, v: ArrayView2<'_, f32>) -> Array2<f32> {
        let (v, width) = (v.as_standard_layout(), v.ncols());
        let v = v.as_slice().unwrap_or_default();
        let mut product = vec![0.0; self.0.len() * width];
        product.par_chunks_mut(width.max(1)).zip(&self.0).for_each(|(row, counts)| {
            for (run, value) in counts {
                let start = *run as usize * width;
                add_scaled(row, *value, &v[start..start + width]);
            }
        });
        Array2::from_shape_vec((self.0.len(), width), product).unwrap_or_default()
    }

    fn transposed_times(&self, u: ArrayView2<'_, f32>) -> Array2<f32> {
        let (u, width) = (u.as_standard_layout(), u.ncols());
        let u = u.as_slice().unwrap_or_default();
        let parts: Vec<Vec<f32>> = (0..self.0.len().div_ceil(CHUNK))
            .into_par_iter()
            .map(|chunk| {
                let mut sums = vec![0.0; (1 << BITS) * width];
                for row in chunk * CHUNK..((chunk + 1) * CHUNK).min(self.0.len()) {
                    for (run, value) in &self.0[row] {
                        let start = *run as usize * width;
                        add_scaled(&mut sums[start..start + width], *value, &u[row * width..(row + 1) * width]);
                    }
                }
                sums
            })
            .collect();
        let mut all = vec![0.0; (1 << BITS) * width];
        parts.iter().for_each(|part| add_scaled(&mut all, 1.0, part));
        Array2::from_shape_vec((1 << BITS, width), all).unwrap_or_default()
    }
}

//! The embedding column of a batch, and the checks that each embedding passes before its row becomes an item.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use arrow::array::{Array, ArrayRef, AsArray, Float32Array, GenericListArray, OffsetSizeTrait};
use arrow::buffer::OffsetBuffer;
use arrow::compute;
use arrow::datatypes::{DataType, Float32Type};

use crate::database::Metric;
use crate::error::{Result, WrapErr};

/// The squared lengths of embeddings whose distances neither overflow nor vanish in f32: the squared distance of two opposite
/// vectors is four times their squared length.
const SQUARED_LENGTHS: RangeInclusive<f64> = f32::MIN_POSITIVE as f64..=f32::MAX as f64 / 4.0;

/// The number of invalid rows by kind, and the first one.
#[derive(Clone, Debug, Default)]
pub struct InvalidRows {
    /// The counts by kind, in the order of [`InvalidRows::KINDS`].
    pub counts: [u64; 6],
    /// The first invalid row: file, row in the file (from 0), and reason.
    pub first: Option<(PathBuf, u64, String)>,
}

impl InvalidRows {
    /// The kinds of invalid embeddings.
    pub const KINDS: [&'static str; 6] = ["null", "of another length", "NaN", "infinite", "zero", "out of range"];

    /// The number of invalid rows of all kinds.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }
}

impl std::fmt::Display for InvalidRows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let counts: Vec<String> = Self::KINDS
            .iter()
            .zip(self.counts)
            .filter(|(_, count)| *count > 0)
            .map(|(kind, count)| format!("{count} {kind}"))
            .collect();
        write!(f, "{} invalid embeddings ({})", self.total(), counts.join(", "))?;
        if let Some((file, row, reason)) = &self.first {
            write!(f, "; the first is row {row} of {}: {reason}", file.display())?;
        }
        Ok(())
    }
}

/// The embeddings of one batch: all values as f32, and the range of each row.
pub(super) struct EmbeddingColumn {
    column: ArrayRef,
    pub(super) values: Float32Array,
    offsets: Option<OffsetBuffer<i64>>,
    dim: usize,
}

impl EmbeddingColumn {
    /// Casts a column of lists to f32.
    pub(super) fn new(column: &ArrayRef) -> Result<Self> {
        let (values, offsets, dim) = match column.data_type() {
            DataType::FixedSizeList(_, dim) => (column.as_fixed_size_list().values().clone(), None, *dim as usize),
            DataType::List(_) => list_values(column.as_list::<i32>()),
            _ => list_values(column.as_list::<i64>()),
        };
        let values = compute::cast(&values, &DataType::Float32).wrap_err("casting embeddings to f32")?;
        Ok(EmbeddingColumn {
            values: values.as_primitive::<Float32Type>().clone(),
            column: column.clone(),
            offsets,
            dim,
        })
    }

    /// The number of components of the first embedding that is not null.
    pub(super) fn first_length(&self) -> Option<usize> {
        let row = (0..self.column.len()).find(|row| self.column.is_valid(*row))?;
        Some(self.range(row).len())
    }

    /// The range of a row in the values.
    fn range(&self, row: usize) -> std::ops::Range<usize> {
        match &self.offsets {
            Some(offsets) => offsets[row] as usize..offsets[row + 1] as usize,
            None => row * self.dim..(row + 1) * self.dim,
        }
    }

    /// The components of a row, or the kind of invalid embedding (an index into [`InvalidRows::KINDS`]) and the reason.
    pub(super) fn check(&self, row: usize, dim: usize, metric: Metric) -> Result<&[f32], (usize, String)> {
        if self.column.is_null(row) {
            return Err((0, "null".into()));
        }
        let range = self.range(row);
        if range.len() != dim {
            return Err((1, format!("{} components, expected {dim}", range.len())));
        }
        if self.values.null_count() > 0
            && let Some(at) = range.clone().find(|at| self.values.is_null(*at))
        {
            return Err((0, format!("component {} is null", at - range.start)));
        }
        let vector = &self.values.values()[range];
        if let Some(at) = vector.iter().position(|value| !value.is_finite()) {
            return match vector[at].is_nan() {
                true => Err((2, format!("component {at} is NaN"))),
                false => Err((3, format!("component {at} is {}", vector[at]))),
            };
        }
        if metric == Metric::Cosine && vector.iter().all(|value| *value == 0.0) {
            return Err((4, "all components are 0, which has no direction".into()));
        }
        let squared: f64 = vector.iter().map(|value| f64::from(*value).powi(2)).sum();
        if squared != 0.0 && !SQUARED_LENGTHS.contains(&squared) {
            let (min, max) = (SQUARED_LENGTHS.start(), SQUARED_LENGTHS.end());
            let reason = format!("the squared length is {squared:.1e}, but distances need {min:.1e} to {max:.1e}");
            return Err((5, format!("{reason}; multiply all embeddings by a factor")));
        }
        Ok(vector)
    }
}

/// The values of lists and the offset of each list in them. A slice of a table shares the values of the whole table.
fn list_values<O: OffsetSizeTrait>(lists: &GenericListArray<O>) -> (ArrayRef, Option<OffsetBuffer<i64>>, usize) {
    let offsets: Vec<i64> = lists.offsets().iter().map(|offset| offset.as_usize() as i64).collect();
    let (first, last) = (offsets[0], offsets[offsets.len() - 1]);
    let values = lists.values().slice(first as usize, (last - first) as usize);
    let offsets = offsets.into_iter().map(|offset| offset - first).collect::<Vec<_>>();
    (values, Some(OffsetBuffer::new(offsets.into())), 0)
}

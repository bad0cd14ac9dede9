//! One-hot encoding of frequent values.

use std::collections::HashMap;

use polars::prelude::*;

use crate::error::{Result, WrapErr};

/// The highest number of values with a component. Rarer values are encoded as zeros.
const MAX_VALUES: usize = 64;

/// A one-hot encoder of the most frequent values. Null counts as a value.
pub(super) struct CategoryEncoder {
    component_of: HashMap<Option<String>, usize>,
}

impl CategoryEncoder {
    /// Finds the most frequent values of a sample. `None` if there is only one value.
    pub(super) fn fit(sample: &Column) -> Result<Option<Self>> {
        let mut counts: HashMap<Option<String>, usize> = HashMap::new();
        for value in texts(sample)?.str().wrap_err("categories")?.iter() {
            *counts.entry(value.map(str::to_string)).or_default() += 1;
        }
        if counts.len() < 2 {
            return Ok(None);
        }
        let mut values: Vec<(Option<String>, usize)> = counts.into_iter().collect();
        values.sort_by(|(a, a_count), (b, b_count)| b_count.cmp(a_count).then_with(|| a.cmp(b)));
        values.truncate(MAX_VALUES);
        Ok(Some(CategoryEncoder { component_of: values.into_iter().map(|(value, _)| value).zip(0..).collect() }))
    }

    pub(super) fn width(&self) -> usize {
        self.component_of.len()
    }

    /// Encodes a column: values of shape `(rows, width)`, row-major.
    pub(super) fn encode(&self, column: &Column) -> Result<Vec<f32>> {
        let mut values = vec![0.0; column.len() * self.width()];
        for (row, value) in texts(column)?.str().wrap_err("categories")?.iter().enumerate() {
            if let Some(component) = self.component_of.get(&value.map(str::to_string)) {
                values[row * self.width() + component] = 1.0;
            }
        }
        Ok(values)
    }
}

fn texts(column: &Column) -> Result<Column> {
    column.cast(&DataType::String).wrap_err(format!("column `{}` as categories", column.name()))
}

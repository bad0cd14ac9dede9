//! Categories: a component for each frequent value.

use std::collections::HashMap;

use polars::prelude::*;

use crate::error::{Result, WrapErr};

/// Values that have a component; the others share that they have none.
const VALUES: usize = 64;

/// Frequent values, null among them.
pub(super) struct Category {
    component_of: HashMap<Option<String>, usize>,
}

impl Category {
    /// The frequent values of a sample; `None` if there is but one.
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
        values.truncate(VALUES);
        Ok(Some(Category { component_of: values.into_iter().map(|(value, _)| value).zip(0..).collect() }))
    }

    pub(super) fn width(&self) -> usize {
        self.component_of.len()
    }

    /// `(rows, width)`, row-major.
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

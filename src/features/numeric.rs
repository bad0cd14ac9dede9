//! Numbers: standardised so that heavy tails do not count.

use polars::prelude::*;

use crate::error::{Result, WrapErr};

/// Standard deviations beyond which differences do not count.
const MOST: f64 = 4.0;
/// Interquartile range of a normal distribution, in standard deviations.
const NORMAL_RANGE: f64 = 1.349;

/// `(x - median) / scale`.
pub(super) struct Numeric {
    median: f64,
    scale: f64,
    /// Whether nulls have a component of their own.
    nulls: bool,
}

impl Numeric {
    /// What a sample says of a column; `None` if all its values are the same.
    pub(super) fn fit(sample: &Column) -> Result<Option<Self>> {
        let values = numbers(sample)?;
        let mut known: Vec<f64> = values.iter().flatten().copied().collect();
        let nulls = known.len() < values.len();
        known.sort_by(f64::total_cmp);
        let quantile =
            |share: f64| known.get(((known.len() as f64 - 1.0) * share).round() as usize).copied().unwrap_or(0.0);
        let (median, range) = (quantile(0.5), quantile(0.75) - quantile(0.25));
        let scale = if range > 0.0 { range / NORMAL_RANGE } else { deviation(&known) };
        let says_something = (scale.is_finite() && scale > 0.0) || (nulls && !known.is_empty());
        let scale = if scale.is_finite() && scale > 0.0 { scale } else { 1.0 };
        Ok(says_something.then_some(Numeric { median, scale, nulls }))
    }

    pub(super) fn width(&self) -> usize {
        1 + usize::from(self.nulls)
    }

    /// `(rows, width)`, row-major.
    pub(super) fn encode(&self, column: &Column) -> Result<Vec<f32>> {
        let one =
            |value: Option<f64>| value.map_or(0.0, |x| ((x - self.median) / self.scale).clamp(-MOST, MOST) as f32);
        let values = numbers(column)?;
        Ok(match self.nulls {
            false => values.into_iter().map(one).collect(),
            true => values.into_iter().flat_map(|value| [one(value), f32::from(value.is_none())]).collect(),
        })
    }
}

/// Finite values; what is not is null.
fn numbers(column: &Column) -> Result<Vec<Option<f64>>> {
    let physical = column.to_physical_repr();
    let values = match column.dtype() {
        DataType::Decimal(..) => column.cast(&DataType::Float64),
        _ => physical.cast(&DataType::Float64),
    };
    let values = values.wrap_err(format!("column `{}` as numbers", column.name()))?;
    Ok(values.f64().wrap_err("numbers")?.iter().map(|value| value.filter(|value| value.is_finite())).collect())
}

fn deviation(values: &[f64]) -> f64 {
    let n = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / n;
    (values.iter().map(|value| (value - mean) * (value - mean)).sum::<f64>() / n).sqrt()
}

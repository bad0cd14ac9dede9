//! Robust standardisation of numbers, by median and interquartile range.

use polars::prelude::*;

use crate::error::{Result, WrapErr};

/// Encoded values are clipped to this many standard deviations, so that heavy tails do not dominate.
const CLIP: f64 = 4.0;
/// The interquartile range of a normal distribution, in standard deviations.
const NORMAL_IQR: f64 = 1.349;

/// Encodes numbers as `(x - median) / scale`, clipped.
pub(super) struct NumericEncoder {
    median: f64,
    scale: f64,
    /// Whether an extra component marks nulls.
    has_null_component: bool,
}

impl NumericEncoder {
    /// Fits the encoder to a sample of a column. `None` if all values are equal.
    pub(super) fn fit(sample: &Column) -> Result<Option<Self>> {
        let values = numbers(sample)?;
        let mut finite: Vec<f64> = values.iter().flatten().copied().collect();
        let has_null_component = finite.len() < values.len();
        finite.sort_by(f64::total_cmp);
        let quantile =
            |level: f64| finite.get(((finite.len() as f64 - 1.0) * level).round() as usize).copied().unwrap_or(0.0);
        let (median, range) = (quantile(0.5), quantile(0.75) - quantile(0.25));
        let scale = if range > 0.0 { range / NORMAL_IQR } else { standard_deviation(&finite) };
        let is_informative = (scale.is_finite() && scale > 0.0) || (has_null_component && !finite.is_empty());
        let scale = if scale.is_finite() && scale > 0.0 { scale } else { 1.0 };
        Ok(is_informative.then_some(NumericEncoder { median, scale, has_null_component }))
    }

    pub(super) fn width(&self) -> usize {
        1 + usize::from(self.has_null_component)
    }

    /// Encodes a column: values of shape `(rows, width)`, row-major.
    pub(super) fn encode(&self, column: &Column) -> Result<Vec<f32>> {
        let encode =
            |value: Option<f64>| value.map_or(0.0, |x| ((x - self.median) / self.scale).clamp(-CLIP, CLIP) as f32);
        let values = numbers(column)?;
        Ok(match self.has_null_component {
            false => values.into_iter().map(encode).collect(),
            true => values.into_iter().flat_map(|value| [encode(value), f32::from(value.is_none())]).collect(),
        })
    }
}

/// The values of a column as f64. Values that are not finite become null.
fn numbers(column: &Column) -> Result<Vec<Option<f64>>> {
    let physical = column.to_physical_repr();
    let values = match column.dtype() {
        DataType::Decimal(..) => column.cast(&DataType::Float64),
        _ => physical.cast(&DataType::Float64),
    };
    let values = values.wrap_err(format!("column `{}` as numbers", column.name()))?;
    Ok(values.f64().wrap_err("numbers")?.iter().map(|value| value.filter(|value| value.is_finite())).collect())
}

/// The population standard deviation.
fn standard_deviation(values: &[f64]) -> f64 {
    let n = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / n;
    (values.iter().map(|value| (value - mean) * (value - mean)).sum::<f64>() / n).sqrt()
}

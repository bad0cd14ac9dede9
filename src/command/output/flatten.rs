//! Flattening of frames for CSV and tables, which have no lists, structs or bytes.

use polars::prelude::*;

/// Format of floats in lists and structs. `None` writes all digits.
pub type NumberFormat = Option<fn(f64) -> String>;

/// Converts bytes and times to text, and lists and structs to JSON such as `[0.5, 0.25]`.
pub fn flatten(frame: &DataFrame, number: NumberFormat) -> PolarsResult<DataFrame> {
    let mut flat = crate::frame::text::to_json_types(frame).map_err(|error| polars_err!(ComputeError: "{error}"))?;
    for column in flat.clone().columns().iter().filter(|column| column.dtype().is_nested()) {
        let present = column.is_not_null();
        let text: StringChunked = json(column.as_materialized_series(), number)?
            .into_iter()
            .zip(present.iter())
            .map(|(text, present)| (present == Some(true)).then_some(text))
            .collect();
        flat.with_column(text.with_name(column.name().clone()).into_column())?;
    }
    Ok(flat)
}

/// Each value of a series as JSON.
fn json(series: &Series, number: NumberFormat) -> PolarsResult<Vec<String>> {
    let null = || "null".to_string();
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let list = |values: Option<Series>| match values {
        Some(values) => Ok(format!("[{}]", json(&values, number)?.join(", "))),
        None => Ok(null()),
    };
    match (series.dtype(), number) {
        (DataType::List(_), _) => series.list()?.series_iter().map(list).collect(),
        (DataType::Array(..), _) => series.array()?.series_iter().map(list).collect(),
        (DataType::Struct(_), _) => {
            let fields = series.struct_()?.fields_as_series();
            let fields = fields
                .iter()
                .map(|field| Ok((quoted(field.name()), json(field, number)?)))
                .collect::<PolarsResult<Vec<_>>>()?;
            let row = |row: usize| {
                let fields: Vec<_> = fields.iter().map(|(name, values)| format!("{name}: {}", values[row])).collect();
                format!("{{{}}}", fields.join(", "))
            };
            let present = series.is_not_null();
            Ok((0..)
                .zip(present.iter())
                .map(|(number, present)| if present == Some(true) { row(number) } else { null() })
                .collect())
        }
        (DataType::String, _) => Ok(series.str()?.iter().map(|text| text.map_or_else(null, quoted)).collect()),
        (dtype, Some(number)) if dtype.is_float() => {
            Ok(series.cast(&DataType::Float64)?.f64()?.iter().map(|value| value.map_or_else(null, number)).collect())
        }
        _ => {
            let text = series.cast(&DataType::String)?;
            Ok(text.str()?.iter().map(|text| text.map_or_else(null, Into::into)).collect())
        }
    }
}

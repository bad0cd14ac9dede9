//! Key columns: matching the items of a library with rows of files from other tools.
//!
//! Integers match across types: 17 equals 17.0, which some tools write in columns with nulls. If one side has numbers, the
//! texts of the other side are parsed as numbers. Texts match if they are equal, timestamps if their ISO 8601 forms are equal.

use std::collections::HashMap;
use std::sync::OnceLock;

use polars::prelude::*;

use crate::error::{Error, Result, WrapErr};
use crate::frame::text::to_json_types;

/// 2^53. f64 represents all smaller integers exactly.
pub(crate) const MAX_EXACT_INTEGER: f64 = 9_007_199_254_740_992.0;

/// A key column in normalised form.
pub(crate) struct Keys {
    texts: Vec<Option<String>>,
    dtype: DataType,
    /// An integer in a float column that may have lost digits.
    inexact_value: Option<f64>,
}

impl Keys {
    /// Normalises the keys of a column.
    ///
    /// # Errors
    /// A nested column: lists and structs cannot be keys.
    pub(crate) fn from_column(column: &Column) -> Result<Self> {
        let (name, dtype) = (column.name(), column.dtype().clone());
        let context = format!("column `{name}`");
        let mut inexact_value = None;
        let texts = match &dtype {
            dtype if dtype.is_nested() => {
                return Err(Error::Config(format!(
                    "column `{name}`: {dtype} cannot be a key; use a column of text or numbers"
                )));
            }
            DataType::Float32 => {
                let floats = column.f32().wrap_err(&context)?.iter();
                floats
                    .map(|float| {
                        float.and_then(|float| format_float(float.into(), float.to_string(), &mut inexact_value))
                    })
                    .collect()
            }
            dtype if dtype.is_float() => {
                let floats = column.cast(&DataType::Float64).wrap_err(&context)?;
                let floats = floats.f64().wrap_err(&context)?.iter();
                floats
                    .map(|float| float.and_then(|float| format_float(float, float.to_string(), &mut inexact_value)))
                    .collect()
            }
            dtype => {
                let plain = to_json_types(&column.clone().into_frame())?;
                let text = plain.column(name).and_then(|plain| plain.cast(&DataType::String)).wrap_err(&context)?;
                let text = text.str().wrap_err(&context)?.iter();
                text.map(|text| Some(if dtype.is_decimal() { trim_trailing_zeros(text?) } else { text? }.to_string()))
                    .collect()
            }
        };
        Ok(Keys { texts, dtype, inexact_value })
    }

    /// The normalised key of each row.
    pub(crate) fn texts(&self) -> &[Option<String>] {
        &self.texts
    }

    pub(crate) fn dtype(&self) -> &DataType {
        &self.dtype
    }

    /// The first key and the dtype, for messages.
    pub(crate) fn describe(&self) -> String {
        describe_key(self.texts.iter().flatten().next(), &self.dtype)
    }

    fn is_number(&self) -> bool {
        is_number(&self.dtype)
    }
}

fn is_number(dtype: &DataType) -> bool {
    dtype.is_primitive_numeric() || dtype.is_decimal()
}

/// A float as a key; NaN is null.
fn format_float(float: f64, text: String, inexact_value: &mut Option<f64>) -> Option<String> {
    if float.is_nan() {
        return None;
    }
    if float.fract() != 0.0 {
        return Some(text);
    }
    if float.abs() >= MAX_EXACT_INTEGER {
        inexact_value.get_or_insert(float);
        return Some(format!("{float:e}"));
    }
    Some((float as i64).to_string())
}

/// A decimal without trailing zeros.
fn trim_trailing_zeros(text: &str) -> &str {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text }
}

/// The number in a text as a normalised key; `None` if the text is not a number.
fn parse_number(text: &str) -> Option<String> {
    let text = text.trim();
    // An integer with a decimal comma (`17,0`), but no thousands separator (`1,000`).
    let whole = text.split_once(',').filter(|(_, zeros)| zeros.bytes().all(|byte| byte == b'0') && zeros.len() != 3);
    let text = whole.map_or(text, |(whole, _)| whole);
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_plain =
        digits.starts_with(|c: char| c.is_ascii_digit()) && digits.chars().all(|c| c.is_ascii_digit() || c == '.');
    // A text with leading zeros is an identifier, not a number.
    if !is_plain || (digits.len() > 1 && digits.starts_with('0') && !digits.starts_with("0.")) {
        return None;
    }
    text.parse::<f64>().ok().map(|_| trim_trailing_zeros(text).to_string())
}

/// A map from keys to values.
pub(crate) struct KeyMap<V> {
    dtype: DataType,
    inexact_value: Option<f64>,
    values: HashMap<String, V>,
    /// The values by the numbers in the keys, if the keys are text.
    by_number: OnceLock<HashMap<String, V>>,
}

impl<V: Copy> KeyMap<V> {
    /// Builds the map from the key and value of each row. Rows without a key or value are skipped. If keys are equal, the last
    /// row wins.
    pub(crate) fn new(keys: Keys, values: impl IntoIterator<Item = Option<V>>) -> Self {
        let values = keys.texts.into_iter().zip(values).filter_map(|(key, value)| Some((key?, value?))).collect();
        KeyMap { dtype: keys.dtype, inexact_value: keys.inexact_value, values, by_number: OnceLock::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    /// Looks up the values of other rows by their keys. In messages, `keys_source` names the source of `keys`, and `map_source`
    /// that of the map.
    ///
    /// # Errors
    /// One side has integers, and the other has floats that may have lost digits.
    pub(crate) fn lookup(&self, keys: &Keys, keys_source: &str, map_source: &str) -> Result<Vec<Option<V>>> {
        for (inexact_value, source, other) in
            [(self.inexact_value, map_source, &keys.dtype), (keys.inexact_value, keys_source, &self.dtype)]
        {
            if let Some(float) = inexact_value.filter(|_| !other.is_float()) {
                let reason = format!("{source} has {float:e}, a float that may have lost digits of an integer");
                return Err(Error::Config(format!("{reason}; store the key as integers or as text")));
            }
        }
        let values = match keys.is_number() && !is_number(&self.dtype) {
            true => self.by_number.get_or_init(|| {
                self.values.iter().filter_map(|(key, value)| Some((parse_number(key)?, *value))).collect()
            }),
            false => &self.values,
        };
        // The map has numbers, and the looked-up texts may contain numbers.
        let parses_text = is_number(&self.dtype) && !keys.is_number();
        let value =
            |key: &String| values.get(key).or_else(|| values.get(&parse_number(key).filter(|_| parses_text)?)).copied();
        Ok(keys.texts.iter().map(|key| key.as_ref().and_then(value)).collect())
    }

    /// The smallest key and the dtype, for messages.
    pub(crate) fn describe(&self) -> String {
        describe_key(self.values.keys().min(), &self.dtype)
    }
}

fn describe_key(key: Option<&String>, dtype: &DataType) -> String {
    let key = key.map_or("none".into(), |key| if is_number(dtype) { key.clone() } else { format!("{key:?}") });
    format!("{key} ({dtype})")
}

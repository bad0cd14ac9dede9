//! Keys: values that name items, matched between a library and files that other tools wrote.
//!
//! Whole numbers are the same whatever their type: 17, and the 17.0 that a tool made of it beside a null. Beside numbers, a
//! text is the number that it shows. Texts are the same if they are, instants if they are the same in ISO 8601.

use std::collections::HashMap;
use std::sync::OnceLock;

use polars::prelude::*;

use crate::error::{Error, Result, WrapErr};
use crate::frame::text::to_json_types;

/// Floats hold all whole numbers below it.
pub(crate) const MAX_EXACT_INTEGER: f64 = 9_007_199_254_740_992.0;

/// The keys of some rows, in one form.
pub(crate) struct Keys {
    texts: Vec<Option<String>>,
    dtype: DataType,
    /// A whole number that a float may not hold exactly.
    inexact: Option<f64>,
}

impl Keys {
    /// The keys in a column.
    ///
    /// # Errors
    /// Lists and structs, which are none.
    pub(crate) fn from_column(column: &Column) -> Result<Self> {
        let (name, dtype) = (column.name(), column.dtype().clone());
        let doing = format!("column `{name}`");
        let mut inexact = None;
        let texts = match &dtype {
            dtype if dtype.is_nested() => {
                return Err(Error::Config(format!(
                    "column `{name}`: {dtype} is no key; name a column of texts or numbers"
                )));
            }
            DataType::Float32 => {
                let floats = column.f32().wrap_err(&doing)?.iter();
                floats
                    .map(|float| float.and_then(|float| format_float(float.into(), float.to_string(), &mut inexact)))
                    .collect()
            }
            dtype if dtype.is_float() => {
                let floats = column.cast(&DataType::Float64).wrap_err(&doing)?;
                let floats = floats.f64().wrap_err(&doing)?.iter();
                floats
                    .map(|float| float.and_then(|float| format_float(float, float.to_string(), &mut inexact)))
                    .collect()
            }
            dtype => {
                let plain = to_json_types(&column.clone().into_frame())?;
                let text = plain.column(name).and_then(|plain| plain.cast(&DataType::String)).wrap_err(&doing)?;
                let text = text.str().wrap_err(&doing)?.iter();
                text.map(|text| Some(if dtype.is_decimal() { trim_trailing_zeros(text?) } else { text? }.to_string()))
                    .collect()
            }
        };
        Ok(Keys { texts, dtype, inexact })
    }

    /// The keys in one form, row by row.
    pub(crate) fn texts(&self) -> &[Option<String>] {
        &self.texts
    }

    pub(crate) fn dtype(&self) -> &DataType {
        &self.dtype
    }

    /// The first of them, and what they are, for messages.
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

/// A float as text; NaN names nothing.
fn format_float(float: f64, text: String, inexact: &mut Option<f64>) -> Option<String> {
    if float.is_nan() {
        return None;
    }
    if float.fract() != 0.0 {
        return Some(text);
    }
    if float.abs() >= MAX_EXACT_INTEGER {
        inexact.get_or_insert(float);
        return Some(format!("{float:e}"));
    }
    Some((float as i64).to_string())
}

/// A decimal without the zeros at its end.
fn trim_trailing_zeros(text: &str) -> &str {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text }
}

/// The number that a text shows, in the form of keys, if it shows one.
fn parse_number(text: &str) -> Option<String> {
    let text = text.trim();
    // A whole number beside decimal commas, but not one between thousands.
    let whole = text.split_once(',').filter(|(_, zeros)| zeros.bytes().all(|byte| byte == b'0') && zeros.len() != 3);
    let text = whole.map_or(text, |(whole, _)| whole);
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_plain =
        digits.starts_with(|c: char| c.is_ascii_digit()) && digits.chars().all(|c| c.is_ascii_digit() || c == '.');
    // Zeros in front are part of a name.
    if !is_plain || (digits.len() > 1 && digits.starts_with('0') && !digits.starts_with("0.")) {
        return None;
    }
    text.parse::<f64>().ok().map(|_| trim_trailing_zeros(text).to_string())
}

/// Values by key.
pub(crate) struct KeyMap<V> {
    dtype: DataType,
    inexact: Option<f64>,
    values: HashMap<String, V>,
    /// The same by the numbers that the keys show, if they are texts.
    by_number: OnceLock<HashMap<String, V>>,
}

impl<V: Copy> KeyMap<V> {
    /// The values of rows that have one, by their keys; of rows with the same key the last.
    pub(crate) fn new(keys: Keys, values: impl IntoIterator<Item = Option<V>>) -> Self {
        let values = keys.texts.into_iter().zip(values).filter_map(|(key, value)| Some((key?, value?))).collect();
        KeyMap { dtype: keys.dtype, inexact: keys.inexact, values, by_number: OnceLock::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    /// The values of other rows, by their keys. Messages name where both sides are.
    ///
    /// # Errors
    /// Whole numbers on one side, of which the other has floats that may have lost digits.
    pub(crate) fn lookup(&self, keys: &Keys, here: &str, there: &str) -> Result<Vec<Option<V>>> {
        for (inexact, place, other) in [(self.inexact, there, &keys.dtype), (keys.inexact, here, &self.dtype)] {
            if let Some(float) = inexact.filter(|_| !other.is_float()) {
                let reason = format!("{place} has {float:e}, a float that may have lost digits of a whole number");
                return Err(Error::Config(format!("{reason}; keep the key as whole numbers, or as text")));
            }
        }
        let values = match keys.is_number() && !is_number(&self.dtype) {
            true => self.by_number.get_or_init(|| {
                self.values.iter().filter_map(|(key, value)| Some((parse_number(key)?, *value))).collect()
            }),
            false => &self.values,
        };
        // Of numbers, a text on this side may show one.
        let shows = is_number(&self.dtype) && !keys.is_number();
        let value =
            |key: &String| values.get(key).or_else(|| values.get(&parse_number(key).filter(|_| shows)?)).copied();
        Ok(keys.texts.iter().map(|key| key.as_ref().and_then(value)).collect())
    }

    /// One of the keys, and what they are, for messages.
    pub(crate) fn describe(&self) -> String {
        describe_key(self.values.keys().min(), &self.dtype)
    }
}

fn describe_key(key: Option<&String>, dtype: &DataType) -> String {
    let key = key.map_or("none".into(), |key| if is_number(dtype) { key.clone() } else { format!("{key:?}") });
    format!("{key} ({dtype})")
}

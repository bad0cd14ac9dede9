//! Values of the parts of a score: numbers, and texts such as the words of a judge.

use polars::prelude::*;

use crate::error::{Result, WrapErr};

/// The maximum number of characters of a text. Longer texts are cut.
const MAX_TEXT_CHARS: usize = 10_000;

/// The value of a part for an item.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum PartValue {
    Number(f64),
    Text(Box<str>),
}

impl PartValue {
    /// A text, cut to the maximum length.
    pub(crate) fn text(text: &str) -> Self {
        match text.char_indices().nth(MAX_TEXT_CHARS) {
            Some((end, _)) => PartValue::Text(format!("{}…", &text[..end]).into()),
            None => PartValue::Text(text.into()),
        }
    }
}

/// The type of a part: that of its column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PartKind {
    Number,
    Text,
}

impl PartKind {
    /// The kind of a column, or `None` if its values are neither numbers nor texts. A column without a type has no kind.
    pub(crate) fn of(dtype: &DataType) -> Option<Self> {
        match dtype {
            DataType::String => Some(PartKind::Text),
            DataType::Boolean => Some(PartKind::Number),
            dtype if dtype.is_primitive_numeric() || dtype.is_decimal() => Some(PartKind::Number),
            _ => None,
        }
    }

    /// The type of the column.
    pub(crate) fn dtype(self) -> DataType {
        match self {
            PartKind::Number => DataType::Float64,
            PartKind::Text => DataType::String,
        }
    }
}

/// The values of a part, one for each row. The kind of the part is a number until it gets a text.
#[derive(Clone, Debug)]
pub(crate) struct PartColumn {
    pub(crate) kind: PartKind,
    pub(crate) values: Vec<Option<PartValue>>,
}

impl PartColumn {
    /// A part without values.
    pub(crate) fn new(rows: usize) -> Self {
        PartColumn { kind: PartKind::Number, values: vec![None; rows] }
    }

    /// Reads a column of numbers or texts. `None` for other types, and for texts without any value, which do not show what
    /// the part contains.
    pub(crate) fn read(column: &Column) -> Result<Option<Self>> {
        let Some(kind) = PartKind::of(column.dtype()) else { return Ok(None) };
        let cast = column.cast(&kind.dtype()).wrap_err(column.name())?;
        let values: Vec<Option<PartValue>> = match kind {
            PartKind::Number => {
                cast.f64().wrap_err(column.name())?.iter().map(|value| value.map(PartValue::Number)).collect()
            }
            PartKind::Text => {
                cast.str().wrap_err(column.name())?.iter().map(|value| value.map(PartValue::text)).collect()
            }
        };
        let is_empty = kind == PartKind::Text && values.iter().all(Option::is_none);
        Ok((!is_empty).then_some(PartColumn { kind, values }))
    }

    /// Sets the value of a row.
    pub(crate) fn set(&mut self, row: usize, value: Option<PartValue>) {
        if let Some(PartValue::Text(_)) = value {
            self.kind = PartKind::Text;
        }
        self.values[row] = value;
    }
}

/// A column of a part. In a column of texts, numbers are written as text.
pub(crate) fn part_column<'a>(
    name: &str,
    kind: PartKind,
    values: impl Iterator<Item = Option<&'a PartValue>>,
) -> Column {
    match kind {
        PartKind::Number => {
            let number = |value: Option<&PartValue>| match value {
                Some(PartValue::Number(number)) => Some(*number),
                _ => None,
            };
            Column::new(name.into(), values.map(number).collect::<Vec<Option<f64>>>())
        }
        PartKind::Text => {
            let text = |value: &'a PartValue| match value {
                PartValue::Number(number) => number.to_string(),
                PartValue::Text(text) => text.to_string(),
            };
            Column::new(name.into(), values.map(|value| value.map(text)).collect::<Vec<Option<String>>>())
        }
    }
}

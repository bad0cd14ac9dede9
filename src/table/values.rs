//! Dtype inference for CSV columns: numbers, booleans or text.

use std::borrow::Cow;

use polars::prelude::{Column, DataType};

use super::ColumnRoles;

/// A field of a CSV row.
#[derive(Clone)]
pub(super) struct Field<'a> {
    pub(super) text: Cow<'a, str>,
    pub(super) is_quoted: bool,
}

impl Field<'_> {
    /// Whether the field is empty and not quoted.
    pub(super) fn is_absent(&self) -> bool {
        !self.is_quoted && self.text.is_empty()
    }
}

/// The fields of a column, and the first line of each row.
pub(super) struct Fields<'a> {
    pub(super) lines: &'a [usize],
    pub(super) fields: &'a [Field<'a>],
}

/// The number format of a field.
#[derive(Clone, Copy, PartialEq, Eq)]
enum NumberFormat {
    /// Only digits.
    Whole,
    /// A point that may be a thousands separator: `1.234`.
    AmbiguousPoint,
    /// A decimal point, an exponent, `nan` or `inf`.
    Point,
    /// A comma that may be a thousands separator: `1,234`.
    AmbiguousComma,
    /// A decimal comma.
    Comma,
    /// Not a number.
    Text,
}

fn number_format(text: &str) -> NumberFormat {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let is_whole = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_whole(digits) {
        return NumberFormat::Whole;
    }
    let may_be_thousands = |mark| {
        let parts: Option<(&str, &str)> = digits.split_once(mark);
        parts.is_some_and(|(before, after)| {
            let is_first_group = before.len() < 4 && is_whole(before) && !before.starts_with('0');
            is_first_group && after.len() == 3 && is_whole(after)
        })
    };
    if text.contains(',') {
        let is_number = is_decimal(&digits.replacen(',', ".", 1)) && !digits.contains('.');
        return match is_number {
            true if may_be_thousands(',') => NumberFormat::AmbiguousComma,
            true => NumberFormat::Comma,
            false => NumberFormat::Text,
        };
    }
    match is_decimal(digits) {
        true if may_be_thousands('.') => NumberFormat::AmbiguousPoint,
        true => NumberFormat::Point,
        false => NumberFormat::Text,
    }
}

/// Whether a text without sign is a number in the syntax of Rust and C, or `nan` or `inf`.
fn is_decimal(digits: &str) -> bool {
    digits.parse::<f64>().is_ok() && !digits.starts_with(['+', '-'])
}

/// The decimal mark of a file. A file has only one kind.
#[derive(Clone, Copy)]
pub(super) struct DecimalMark {
    is_comma: bool,
}

impl DecimalMark {
    /// Detects the decimal mark: a comma if a column of numbers has an unambiguous decimal comma.
    pub(super) fn detect<'a>(columns: impl Iterator<Item = &'a [Field<'a>]>) -> Self {
        let has_decimal_commas = |fields: &[Field<'_>]| {
            let mut formats =
                fields.iter().filter(|field| !is_absent(field)).map(|field| number_format(field.text.trim()));
            let mut is_comma = false;
            formats.all(|format| {
                is_comma |= format == NumberFormat::Comma;
                format != NumberFormat::Text
            }) && is_comma
        };
        let mut columns = columns;
        DecimalMark { is_comma: columns.any(has_decimal_commas) }
    }
}

/// Whether a field is a missing value.
fn is_absent(field: &Field<'_>) -> bool {
    field.is_absent() || matches!(field.text.trim(), "" | "NA" | "null" | "NULL")
}

/// Builds a column from its fields. The error says what is wrong, and in which line.
pub(super) fn column(
    name: &str,
    fields: &Fields<'_>,
    roles: &ColumnRoles<'_>,
    decimal_mark: DecimalMark,
) -> Result<Column, String> {
    let has = |role: &[&str]| role.iter().any(|wanted| wanted.eq_ignore_ascii_case(name));
    let text = || {
        let text = |field: &Field<'_>| (!field.is_absent()).then(|| field.text.to_string());
        Column::new(name.into(), fields.fields.iter().map(text).collect::<Vec<_>>())
    };
    if has(roles.keys) || has(roles.texts) {
        return Ok(text());
    }
    let must_be_numbers = has(roles.numbers) || has(roles.ids);
    let present = || fields.lines.iter().zip(fields.fields).filter(|(_, field)| !is_absent(field));
    if present().next().is_none() {
        return Ok(match must_be_numbers {
            true => Column::full_null(name.into(), fields.fields.len(), &DataType::Float64),
            false => text(),
        });
    }
    if let Some(booleans) = booleans(fields) {
        return Ok(Column::new(name.into(), booleans));
    }
    let is_id = has(roles.ids);
    let problem = present().find_map(|(line, field)| {
        let text = field.text.trim();
        let what = match number_format(text) {
            NumberFormat::Text if text.contains([',', ' ', '\'']) => {
                "is not a number; write 1234.5, without thousands separators"
            }
            NumberFormat::Text => "is not a number; leave the field empty if the value is missing",
            NumberFormat::AmbiguousComma if !decimal_mark.is_comma => {
                "is ambiguous: decimal comma or thousands separator; write a decimal point, and no thousands separators"
            }
            NumberFormat::AmbiguousPoint if decimal_mark.is_comma => {
                "is ambiguous: decimal point or thousands separator; other numbers have decimal commas; write decimal points only"
            }
            // Spreadsheets save large numbers as displayed, in scientific notation.
            NumberFormat::Point | NumberFormat::Comma if is_id && text.contains(['e', 'E']) => {
                "has lost digits of an id; format the column as integers before saving the file"
            }
            _ => return None,
        };
        Some(format!("`{text}` in line {line} {what}"))
    });
    match problem {
        Some(problem) if must_be_numbers => Err(problem),
        Some(_) => Ok(text()),
        None => {
            let begins_with_zero = |(_, field): (_, &Field<'_>)| {
                let digits = field.text.trim().trim_start_matches(['+', '-']);
                digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit())
            };
            // Values with leading zeros are identifiers, not numbers.
            if !must_be_numbers && present().any(begins_with_zero) {
                Ok(text())
            } else {
                Ok(numbers(name, fields.fields))
            }
        }
    }
}

/// A column of i64, u64 or f64: the first type that holds all values.
fn numbers(name: &str, fields: &[Field<'_>]) -> Column {
    let read = |field: &Field<'_>| (!is_absent(field)).then(|| field.text.trim().replace(',', "."));
    let texts: Vec<Option<String>> = fields.iter().map(read).collect();
    fn all<T: std::str::FromStr>(texts: &[Option<String>]) -> Option<Vec<Option<T>>> {
        texts.iter().map(|text| text.as_ref().map(|text| text.parse()).transpose().ok()).collect()
    }
    if let Some(integers) = all::<i64>(&texts) {
        return Column::new(name.into(), integers);
    }
    if let Some(integers) = all::<u64>(&texts) {
        return Column::new(name.into(), integers);
    }
    let floats = texts.iter().map(|text| text.as_ref().and_then(|text| text.parse::<f64>().ok()));
    Column::new(name.into(), floats.collect::<Vec<_>>())
}

/// The fields as booleans; `None` if any field is neither missing, true nor false.
fn booleans(fields: &Fields<'_>) -> Option<Vec<Option<bool>>> {
    let boolean = |field: &Field<'_>| {
        if is_absent(field) {
            return Some(None);
        }
        match field.text.trim().to_ascii_lowercase().as_str() {
            "true" => Some(Some(true)),
            "false" => Some(Some(false)),
            _ => None,
        }
    };
    fields.fields.iter().map(boolean).collect()
}

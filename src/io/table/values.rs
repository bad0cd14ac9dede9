//! What the fields of a column are: numbers, true and false, or text.

use std::borrow::Cow;

use polars::prelude::{Column, DataType};

use super::ColumnRoles;

/// A field of a row.
#[derive(Clone)]
pub(super) struct Field<'a> {
    pub(super) text: Cow<'a, str>,
    pub(super) is_quoted: bool,
}

impl Field<'_> {
    /// Nothing, and not in quotes.
    pub(super) fn is_absent(&self) -> bool {
        !self.is_quoted && self.text.is_empty()
    }
}

/// The fields of a column, and the line that the row of each begins in.
pub(super) struct Fields<'a> {
    pub(super) lines: &'a [usize],
    pub(super) fields: &'a [Field<'a>],
}

/// How a field looks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum NumberFormat {
    /// Digits alone.
    Whole,
    /// With a point, which may be one between thousands: `1.234`.
    AmbiguousPoint,
    /// With a decimal point, or an exponent, or one of `nan` and `inf`.
    Point,
    /// With a comma, which may be one between thousands: `1,234`.
    AmbiguousComma,
    /// With a decimal comma.
    Comma,
    /// No number.
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
        parts.is_some_and(|(before, behind)| {
            let leads = before.len() < 4 && is_whole(before) && !before.starts_with('0');
            leads && behind.len() == 3 && is_whole(behind)
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

/// Whether a text is a number as Rust and C write it, or one of `nan` and `inf`.
fn is_decimal(digits: &str) -> bool {
    digits.parse::<f64>().is_ok() && !digits.starts_with(['+', '-'])
}

/// The decimal marks of a file: one file has one kind.
#[derive(Clone, Copy)]
pub(super) struct DecimalMark {
    is_comma: bool,
}

impl DecimalMark {
    /// Those of all fields.
    pub(super) fn of<'a>(columns: impl Iterator<Item = &'a [Field<'a>]>) -> Self {
        let is_of_commas = |fields: &[Field<'_>]| {
            let mut there =
                fields.iter().filter(|field| !is_absent(field)).map(|field| number_format(field.text.trim()));
            let mut is_comma = false;
            there.all(|format| {
                is_comma |= format == NumberFormat::Comma;
                format != NumberFormat::Text
            }) && is_comma
        };
        let mut columns = columns;
        DecimalMark { is_comma: columns.any(is_of_commas) }
    }
}

/// Whether a field says that there is no value.
fn is_absent(field: &Field<'_>) -> bool {
    field.is_absent() || matches!(field.text.trim(), "" | "NA" | "null" | "NULL")
}

/// A column of its fields; what is wrong with it otherwise.
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
    let there = || fields.lines.iter().zip(fields.fields).filter(|(_, field)| !is_absent(field));
    if there().next().is_none() {
        return Ok(match must_be_numbers {
            true => Column::full_null(name.into(), fields.fields.len(), &DataType::Float64),
            false => text(),
        });
    }
    if let Some(booleans) = booleans(fields) {
        return Ok(Column::new(name.into(), booleans));
    }
    let is_id = has(roles.ids);
    let problem = there().find_map(|(line, field)| {
        let text = field.text.trim();
        let what = match number_format(text) {
            NumberFormat::Text if text.contains([',', ' ', '\'']) => {
                "is no number; write 1234.5, without marks between thousands"
            }
            NumberFormat::Text => "is no number; leave the field empty where there is none",
            NumberFormat::AmbiguousComma if !decimal_mark.is_comma => {
                "may have a decimal comma, or thousands; write a decimal point, and no marks between thousands"
            }
            NumberFormat::AmbiguousPoint if decimal_mark.is_comma => {
                "may have a decimal point, or thousands, as other numbers here have decimal commas; write all with points"
            }
            // A spreadsheet saves large numbers as it shows them.
            NumberFormat::Point | NumberFormat::Comma if is_id && text.contains(['e', 'E']) => {
                "has lost digits of an id; format the column as whole numbers before it is saved"
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
            // Zeros in front are part of a name.
            if !must_be_numbers && there().any(begins_with_zero) {
                Ok(text())
            } else {
                Ok(numbers(name, fields.fields))
            }
        }
    }
}

/// Numbers of 64 bits, whole if all of them are.
fn numbers(name: &str, fields: &[Field<'_>]) -> Column {
    let read = |field: &Field<'_>| (!is_absent(field)).then(|| field.text.trim().replace(',', "."));
    let texts: Vec<Option<String>> = fields.iter().map(read).collect();
    fn all<T: std::str::FromStr>(texts: &[Option<String>]) -> Option<Vec<Option<T>>> {
        texts.iter().map(|text| text.as_ref().map(|text| text.parse()).transpose().ok()).collect()
    }
    if let Some(whole) = all::<i64>(&texts) {
        return Column::new(name.into(), whole);
    }
    if let Some(whole) = all::<u64>(&texts) {
        return Column::new(name.into(), whole);
    }
    let floats = texts.iter().map(|text| text.as_ref().and_then(|text| text.parse::<f64>().ok()));
    Column::new(name.into(), floats.collect::<Vec<_>>())
}

/// True and false, if that is all there is.
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

//! Values as text: types that JSON and CSV do not have, readable numbers, and ISO 8601.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use polars::prelude::*;

use crate::error::{Result, WrapErr};

/// Converts a frame to the types that JSON has: numbers, booleans, text, lists and structs. Bytes become base64. Dates, times
/// and durations become ISO 8601: `2024-01-01T12:00:00.500`, `PT1H30M0.5S`. A timestamp with a time zone becomes UTC and
/// ends in `Z`. Other columns are unchanged.
///
/// # Errors
/// An error from Polars.
pub fn to_json_types(frame: &DataFrame) -> Result<DataFrame> {
    let column = |column: &Column| match needs_text(column.dtype()) {
        true => Ok(stringify(column.as_materialized_series())
            .wrap_err(format!("column `{}`", column.name()))?
            .into_column()),
        false => Ok(column.clone()),
    };
    let columns = frame.columns().iter().map(column).collect::<Result<_>>()?;
    DataFrame::new(frame.height(), columns).wrap_err("converting columns to text")
}

/// Whether JSON does not have the type, or a type nested in it.
fn needs_text(dtype: &DataType) -> bool {
    match dtype {
        DataType::Binary | DataType::BinaryOffset => true,
        DataType::List(inner) | DataType::Array(inner, _) => needs_text(inner),
        DataType::Struct(fields) => fields.iter().any(|field| needs_text(field.dtype())),
        dtype => dtype.is_temporal(),
    }
}

fn stringify(series: &Series) -> PolarsResult<Series> {
    let text = |text: StringChunked| text.with_name(series.name().clone()).into_series();
    Ok(match series.dtype() {
        dtype if !needs_text(dtype) => series.clone(),
        DataType::List(_) => series.list()?.apply_to_inner(&|inner| stringify(&inner))?.into_series(),
        DataType::Array(..) => series.array()?.apply_to_inner(&|inner| stringify(&inner))?.into_series(),
        DataType::Struct(_) => series.struct_()?.try_apply_fields(stringify)?.into_series(),
        DataType::Binary | DataType::BinaryOffset => {
            let bytes = series.cast(&DataType::Binary)?;
            text(bytes.binary()?.iter().map(|bytes| bytes.map(|bytes| BASE64_STANDARD.encode(bytes))).collect())
        }
        dtype => {
            let ticks = series.to_physical_repr().cast(&DataType::Int64)?;
            text(ticks.i64()?.iter().map(|ticks| ticks.map(|ticks| format_iso8601(dtype, ticks))).collect())
        }
    })
}

/// Formats a number for display: six significant digits, whole numbers without a fraction, very large and very small numbers in
/// scientific notation. A number other than zero is never shown as zero.
pub fn format_number(value: f64) -> String {
    const DIGITS: i32 = 6;
    if value == 0.0 {
        return "0".into();
    }
    if value.fract() == 0.0 && value.abs() < 1e15 {
        return format!("{value:.0}");
    }
    // Round before choosing the notation: 999999.7 is 1e6.
    let rounded = format!("{value:.*e}", DIGITS as usize - 1);
    let Some((digits, exponent)) = rounded.split_once('e') else { return value.to_string() };
    let trim = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_string(),
        false => text.to_string(),
    };
    match exponent.parse() {
        Ok(exponent @ -4..DIGITS) => trim(&format!("{value:.*}", (DIGITS - 1 - exponent) as usize)),
        _ => format!("{}e{exponent}", trim(digits)),
    }
}

const DAY: i64 = 86_400;

/// Seconds since 1970 as a timestamp in ISO 8601.
pub(crate) fn format_timestamp(seconds: u64) -> String {
    format_iso8601(
        &DataType::Datetime(TimeUnit::Milliseconds, Some(TimeZone::UTC)),
        (seconds as i64).saturating_mul(1000),
    )
}

/// A date, time, timestamp or duration in ISO 8601, of any size. (Polars only formats years that chrono supports.)
fn format_iso8601(dtype: &DataType, ticks: i64) -> String {
    match dtype {
        DataType::Date => format_date(ticks),
        DataType::Time => format_time(ticks, 1_000_000_000),
        DataType::Datetime(unit, zone) => {
            let per_second = per_second(*unit);
            let (days, time) = (ticks.div_euclid(DAY * per_second), ticks.rem_euclid(DAY * per_second));
            format!("{}T{}{}", format_date(days), format_time(time, per_second), if zone.is_some() { "Z" } else { "" })
        }
        DataType::Duration(unit) => format_duration(ticks, per_second(*unit)),
        _ => ticks.to_string(),
    }
}

fn per_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Nanoseconds => 1_000_000_000,
        TimeUnit::Microseconds => 1_000_000,
        TimeUnit::Milliseconds => 1_000,
    }
}

/// Days since 1970 as a Gregorian date, by Howard Hinnant's `civil_from_days`. Its years begin in March.
fn format_date(days: i64) -> String {
    let (era, day) = ((days + 719_468).div_euclid(146_097), (days + 719_468).rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    // ISO 8601 requires a sign for years of more than four digits.
    let sign = if year > 9_999 { "+" } else { "" };
    let width = if year < 0 { 5 } else { 4 };
    format!("{sign}{year:0width$}-{month:02}-{day:02}")
}

/// A time of day with 0, 3, 6 or 9 digits of a second.
fn format_time(ticks: i64, per_second: i64) -> String {
    let (seconds, fraction) = (ticks.div_euclid(per_second), ticks.rem_euclid(per_second));
    let time = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    match fraction * (1_000_000_000 / per_second) {
        0 => time,
        nanos if nanos % 1_000_000 == 0 => format!("{time}.{:03}", nanos / 1_000_000),
        nanos if nanos % 1_000 == 0 => format!("{time}.{:06}", nanos / 1_000),
        nanos => format!("{time}.{nanos:09}"),
    }
}

fn format_duration(ticks: i64, per_second: i64) -> String {
    let sign = if ticks < 0 { "-" } else { "" };
    let (ticks, per_second) = (ticks.unsigned_abs(), per_second.unsigned_abs());
    let (seconds, nanos) = (ticks / per_second, ticks % per_second * (1_000_000_000 / per_second));
    let part = |number: u64, name: &str| if number > 0 { format!("{number}{name}") } else { String::new() };
    let days = part(seconds / 86_400, "D");
    let time = part(seconds / 3600 % 24, "H") + &part(seconds / 60 % 60, "M");
    let seconds = match (seconds % 60, nanos) {
        (0, 0) if time.is_empty() && days.is_empty() => "0S".into(),
        (seconds, 0) => part(seconds, "S"),
        (seconds, nanos) => format!("{seconds}.{}S", format!("{nanos:09}").trim_end_matches('0')),
    };
    let clock = if time.is_empty() && seconds.is_empty() { "" } else { "T" };
    format!("{sign}P{days}{clock}{time}{seconds}")
}

//! The supertype of a column that has different types in several files, as in Polars and DuckDB.

use arrow::compute::can_cast_types;
use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use std::sync::Arc;

/// The largest precision of a decimal.
const MAX_DIGITS: u8 = 38;

/// A type that holds the values of both types. `None` if there is none: for a string and a number, or for a timestamp with a time
/// zone and one without. An integer that a float cannot represent is an error when it is read.
pub(super) fn supertype(one: &DataType, other: &DataType) -> Option<DataType> {
    if one == other {
        return Some(one.clone());
    }
    let dtype = ordered_supertype(one, other).or_else(|| ordered_supertype(other, one))?;
    (can_cast_types(one, &dtype) && can_cast_types(other, &dtype)).then_some(dtype)
}

/// As [`supertype`], for the types in this order.
fn ordered_supertype(one: &DataType, other: &DataType) -> Option<DataType> {
    use DataType as T;
    Some(match (one, other) {
        (T::Null, other) => other.clone(),
        (T::Dictionary(_, values), other) => supertype(values, other)?,
        (one, other) if one.is_string() && other.is_string() => T::LargeUtf8,
        (one, other) if is_bytes(one) && is_bytes(other) => T::LargeBinary,
        (T::Boolean, number) if number.is_integer() || number.is_floating() => number.clone(),
        (one, other) if one.is_integer() && other.is_integer() => integer_supertype(one, other),
        (one, float) if one.is_integer() && float.is_floating() => match bits(one) {
            ..=8 => float.clone(),
            ..=16 if *float != T::Float64 => T::Float32,
            _ => T::Float64,
        },
        (one, other) if one.is_floating() && other.is_floating() => {
            if bits(one) > bits(other) {
                one.clone()
            } else {
                other.clone()
            }
        }
        (one, float) if one.is_decimal() && float.is_floating() => T::Float64,
        (one, other) if one.is_decimal() => decimal_supertype(one, other)?,
        (T::Date32, T::Date64) => T::Date64,
        (T::Date32, T::Timestamp(unit, None)) => T::Timestamp(*unit, None),
        (T::Date64, T::Timestamp(unit, None)) => T::Timestamp(finer(*unit, TimeUnit::Millisecond), None),
        (T::Timestamp(unit, zone), T::Timestamp(other_unit, other_zone)) => {
            let zone = match (zone, other_zone) {
                (one, other) if one == other => one.clone(),
                (Some(_), Some(_)) => Some("UTC".into()),
                _ => return None,
            };
            T::Timestamp(finer(*unit, *other_unit), zone)
        }
        (T::Duration(unit), T::Duration(other)) => T::Duration(finer(*unit, *other)),
        (T::Time32(unit) | T::Time64(unit), T::Time32(other) | T::Time64(other)) => match finer(*unit, *other) {
            unit @ (TimeUnit::Second | TimeUnit::Millisecond) => T::Time32(unit),
            unit => T::Time64(unit),
        },
        (T::FixedSizeList(item, length), T::FixedSizeList(other, other_length)) => {
            (length == other_length).then_some(T::FixedSizeList(common_item(item, other)?, *length))?
        }
        (T::List(item), T::List(other)) => T::List(common_item(item, other)?),
        (
            T::List(item) | T::LargeList(item) | T::FixedSizeList(item, _),
            T::List(other) | T::LargeList(other) | T::FixedSizeList(other, _),
        ) => T::LargeList(common_item(item, other)?),
        (T::Struct(fields), T::Struct(others)) if fields.len() == others.len() => {
            let common = |field: &FieldRef| {
                let other = others.iter().find(|other| other.name() == field.name())?;
                common_field(field.name(), field, other)
            };
            T::Struct(fields.iter().map(common).collect::<Option<_>>()?)
        }
        (T::Map(entries, sorted), T::Map(others, other_sorted)) if sorted == other_sorted => {
            let (T::Struct(fields), T::Struct(others)) = (entries.data_type(), others.data_type()) else { return None };
            let pairs = fields.iter().zip(others.iter());
            let pair = |(field, other): (&FieldRef, &FieldRef)| {
                let dtype = supertype(field.data_type(), other.data_type())?;
                Some(field.as_ref().clone().with_data_type(dtype))
            };
            let fields = T::Struct(pairs.map(pair).collect::<Option<_>>()?);
            T::Map(Arc::new(entries.as_ref().clone().with_data_type(fields)), *sorted)
        }
        _ => return None,
    })
}

/// The field of list items that holds the items of both lists.
fn common_item(item: &Field, other: &Field) -> Option<FieldRef> {
    common_field("item", item, other)
}

/// A field with the supertype of both fields.
fn common_field(name: &str, field: &Field, other: &Field) -> Option<FieldRef> {
    Some(Arc::new(Field::new(name, supertype(field.data_type(), other.data_type())?, true)))
}

fn is_bytes(dtype: &DataType) -> bool {
    dtype.is_binary() || matches!(dtype, DataType::FixedSizeBinary(_))
}

/// The width of a primitive type in bits.
fn bits(dtype: &DataType) -> usize {
    8 * dtype.primitive_width().unwrap_or_default()
}

/// The wider of two integer types. For a signed and an unsigned type, a signed type that holds both, or Int64.
fn integer_supertype(one: &DataType, other: &DataType) -> DataType {
    use DataType as T;
    let (signed, other) = if one.is_signed_integer() { (one, other) } else { (other, one) };
    if signed.is_signed_integer() == other.is_signed_integer() || bits(signed) > bits(other) {
        return if bits(signed) > bits(other) { signed.clone() } else { other.clone() };
    }
    match bits(other) {
        8 => T::Int16,
        16 => T::Int32,
        _ => T::Int64,
    }
}

/// A decimal with the digits that either type needs before and after the decimal point.
fn decimal_supertype(one: &DataType, other: &DataType) -> Option<DataType> {
    let (digits, scale) = digits(one)?;
    let (other_digits, other_scale) = self::digits(other)?;
    let all_scale = scale.max(other_scale);
    let whole_digits = (digits as i8 - scale).max(other_digits as i8 - other_scale);
    let all_digits = u8::try_from(whole_digits + all_scale).ok().filter(|digits| *digits <= MAX_DIGITS)?;
    Some(DataType::Decimal128(all_digits, all_scale))
}

/// The precision and scale of a decimal or integer type.
fn digits(dtype: &DataType) -> Option<(u8, i8)> {
    use DataType as T;
    Some(match dtype {
        T::Decimal32(digits, scale)
        | T::Decimal64(digits, scale)
        | T::Decimal128(digits, scale)
        | T::Decimal256(digits, scale)
            if *digits <= MAX_DIGITS =>
        {
            (*digits, *scale)
        }
        T::Int8 | T::UInt8 => (3, 0),
        T::Int16 | T::UInt16 => (5, 0),
        T::Int32 | T::UInt32 => (10, 0),
        T::Int64 => (19, 0),
        T::UInt64 => (20, 0),
        _ => return None,
    })
}

/// The finer of two units. No value loses digits in it.
fn finer(one: TimeUnit, other: TimeUnit) -> TimeUnit {
    let digits = |unit| match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 3,
        TimeUnit::Microsecond => 6,
        TimeUnit::Nanosecond => 9,
    };
    if digits(one) > digits(other) { one } else { other }
}

//! Mapping of Arrow dtypes to the dtypes that Lance and Polars both support.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, FieldRef};

use crate::error::{Error, Result, WrapErr};

/// The maximum number of digits of a 128-bit decimal.
const MAX_DECIMAL_DIGITS: u8 = 38;

/// The metadata key of a field that names its Arrow extension type.
pub(crate) const EXTENSION_KEY: &str = "ARROW:extension:name";

/// The Arrow extension type of UUIDs.
pub(crate) const UUID: &str = "arrow.uuid";

/// Whether a column holds UUIDs as bytes.
pub(crate) fn is_uuid(field: &Field) -> bool {
    let is_named = field.metadata().get(EXTENSION_KEY).is_some_and(|name| name == UUID);
    is_named && *field.data_type() == DataType::FixedSizeBinary(16)
}

/// UUIDs as text: `2f1c0f8e-8f4b-4c6e-9d0a-0123456789ab`.
pub(crate) fn uuids_to_text(array: &ArrayRef) -> ArrayRef {
    let text = |bytes: &[u8]| {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let parts = [0..4, 4..6, 6..8, 8..10, 10..16].map(|part| hex(&bytes[part]));
        parts.join("-")
    };
    let uuids = array.as_fixed_size_binary();
    Arc::new(uuids.iter().map(|uuid| uuid.map(text)).collect::<StringArray>())
}

/// Casts an array. A value that does not fit is an error; Arrow's default would make it null.
pub(crate) fn cast_strict(column: &str, array: &ArrayRef, dtype: &DataType) -> Result<ArrayRef> {
    if array.data_type() == dtype {
        return Ok(array.clone());
    }
    let strict = CastOptions { safe: false, ..Default::default() };
    cast_with_options(array, dtype, &strict).wrap_err(format!("column `{column}`"))
}

/// The dtype that a column is stored as: its own, or one that holds the same values.
/// - Dictionaries become their values, and decimals become 128 bits wide.
/// - Timestamps with a fixed offset become UTC.
/// - Fixed-size lists of text or of lists become lists.
/// - In lists and structs, null columns become text.
///
/// # Errors
/// A dtype without a supported counterpart, such as an interval or a union. The error names the column and what to do.
pub(crate) fn supported_dtype(column: &str, dtype: &DataType) -> Result<DataType> {
    to_supported(dtype).ok_or_else(|| Error::Dependency {
        context: format!("column `{column}`"),
        message: format!("unsupported type {dtype}; cast it (for example, to text), or drop it"),
        cause: None,
    })
}

fn to_supported(dtype: &DataType) -> Option<DataType> {
    use DataType as T;
    Some(match dtype {
        T::Dictionary(_, values) => to_supported(values)?,
        T::Decimal32(digits, scale)
        | T::Decimal64(digits, scale)
        | T::Decimal128(digits, scale)
        | T::Decimal256(digits, scale) => {
            let fits = *digits <= MAX_DECIMAL_DIGITS && (0..=*digits as i8).contains(scale);
            fits.then_some(T::Decimal128(*digits, *scale))?
        }
        T::Timestamp(unit, Some(zone)) if zone.starts_with(['+', '-']) => T::Timestamp(*unit, Some("UTC".into())),
        T::List(values) => T::List(supported_field(values)?),
        T::LargeList(values) => T::LargeList(supported_field(values)?),
        T::FixedSizeList(values, length) => match supported_field(values)? {
            // Lance supports neither fixed-size lists of variable-length values nor empty ones.
            values if *length == 0 || is_variable_length(values.data_type()) => T::List(values),
            values => T::FixedSizeList(values, *length),
        },
        T::Struct(fields) => T::Struct(fields.iter().map(supported_field).collect::<Option<_>>()?),
        T::Map(entries, sorted) => T::Map(supported_field(entries)?, *sorted),
        T::Interval(_) | T::Union(..) | T::RunEndEncoded(..) | T::ListView(_) | T::LargeListView(_) => return None,
        other => other.clone(),
    })
}

fn is_variable_length(dtype: &DataType) -> bool {
    use DataType as T;
    // Polars reads fixed-size bytes as variable-length bytes.
    dtype.is_string() || dtype.is_binary() || matches!(dtype, T::List(_) | T::LargeList(_) | T::Map(..))
}

/// The field of a nested type with a supported dtype. Its metadata is dropped: Polars could read it as an extension type.
fn supported_field(field: &FieldRef) -> Option<FieldRef> {
    let dtype = match field.data_type() {
        DataType::Null => DataType::Utf8,
        dtype => to_supported(dtype)?,
    };
    Some(Arc::new(Field::new(field.name(), dtype, field.is_nullable())))
}

//! Frames: the columns that stages exchange, their dtypes, and the conversion between Polars, Arrow and `ndarray`.

#[allow(unsafe_code)]
pub(crate) mod convert;
pub(crate) mod dtypes;
pub(crate) mod keys;
pub(crate) mod outcome;
pub(crate) mod part_values;
pub(crate) mod schema;
pub(crate) mod text;

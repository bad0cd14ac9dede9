//! Column names, dtypes and the checks of the contract between stages.
//!
//! Every stage takes and gives Polars frames. What stands in them is written
//! down here and nowhere else; the crate page has the table.

use polars::prelude::*;

use crate::error::{Error, Result};
use crate::frame::convert;
pub use crate::frame::convert::EMBEDDING;

/// u32: the lineage of a query vector. Kept when it moves, new when it branches.
pub const QUERY_IDX: &str = "query_idx";
/// u32, nullable: the query of the iteration before that this one came from.
pub const PARENT_IDX: &str = "parent_idx";
/// u32: the starting query that this one descends from.
pub const COLLECTION_IDX: &str = "collection_idx";
/// array of f64, in the queries of a search along gradients only: where the score falls at the query.
pub const GRADIENT: &str = "gradient";
/// u64: the stable identity of an item.
pub const DB_IDX: &str = "db_idx";
/// f32: from the query to the item; smaller is nearer under every metric.
pub const DISTANCE: &str = "distance";
/// f64, nullable: higher is better; null if the item was rejected or failed.
pub const SCORE: &str = "score";
/// f64, nullable: the score as the scorer gave it, where `score` is its negative.
pub const RAW_SCORE: &str = "raw_score";
/// string: what became of the item: `scored`, `rejected` or `failed` ([`Outcome`](crate::Outcome)).
pub const OUTCOME: &str = "outcome";
/// string, nullable: why `score` is null.
pub const REASON: &str = "reason";
/// u64, nullable: the 1-based ordinal at which the item was first asked for: the cost axis. Null if it cost
/// nothing: its score was paid for by an earlier run, or it was rejected by free parts of the score.
pub const EVALUATION: &str = "evaluation";
/// u32: the iteration, from the folder name `iteration=000000`.
pub const ITERATION: &str = "iteration";
/// u64: the row in the input files, where rows were skipped.
pub const SOURCE_ROW: &str = "source_row";

/// Names that items may not use, as this crate or Lance give them a meaning.
pub const RESERVED: [&str; 14] = [
    QUERY_IDX,
    DB_IDX,
    DISTANCE,
    SCORE,
    RAW_SCORE,
    EMBEDDING,
    ITERATION,
    EVALUATION,
    OUTCOME,
    REASON,
    PARENT_IDX,
    COLLECTION_IDX,
    SOURCE_ROW,
    "query_index",
];

/// Whether an attribute of that name would clash with a column of the frames, also where names differ by case only: to SQL
/// `Score` and `score` are the same.
pub fn is_reserved_column(name: &str) -> bool {
    name.starts_with('_') || RESERVED.iter().any(|reserved| reserved.eq_ignore_ascii_case(name))
}

/// Whether a column is the index of a pandas frame, which is written beside its columns once rows were filtered.
pub(crate) fn is_pandas_index(name: &str) -> bool {
    let level = name.strip_prefix("__index_level_").and_then(|rest| rest.strip_suffix("__"));
    level.is_some_and(|level| level.parse::<u32>().is_ok())
}

/// Builds a starting queries frame from vectors of shape `(n_queries, dim)`:
/// `query_idx` and `collection_idx` count from 0, `parent_idx` is null.
///
/// # Errors
/// A NaN or infinite component.
pub fn queries(vectors: ndarray::ArrayView2<'_, f64>) -> Result<DataFrame> {
    let n_queries = vectors.nrows() as u32;
    let frame = DataFrame::new(
        n_queries as usize,
        vec![
            Column::new(QUERY_IDX.into(), (0..n_queries).collect::<Vec<u32>>()),
            Column::full_null(PARENT_IDX.into(), n_queries as usize, &DataType::UInt32),
            Column::new(COLLECTION_IDX.into(), (0..n_queries).collect::<Vec<u32>>()),
            convert::embedding_column(vectors)?,
        ],
    );
    let frame = frame.map_err(|error| Error::contract("queries", EMBEDDING, "a frame", error))?;
    check_queries(&frame, vectors.ncols())?;
    Ok(frame)
}

/// Checks a queries frame against the contract, for a library of `dim` dimensions.
///
/// # Errors
/// Names the column, what the contract asks for and what was found.
pub fn check_queries(frame: &DataFrame, dim: usize) -> Result<()> {
    for (name, dtype) in [
        (QUERY_IDX, DataType::UInt32),
        (PARENT_IDX, DataType::UInt32),
        (COLLECTION_IDX, DataType::UInt32),
        (EMBEDDING, DataType::Array(Box::new(DataType::Float64), dim)),
    ] {
        let column = typed_column("queries", frame, name, &dtype)?;
        if name != PARENT_IDX && column.null_count() > 0 {
            return Err(Error::contract("queries", name, "no nulls", format!("{} nulls", column.null_count())));
        }
    }
    let idx = u32s(frame, QUERY_IDX)?;
    if let Some(position) = idx.windows(2).position(|pair| pair[0] >= pair[1]) {
        return Err(Error::contract(
            "queries",
            QUERY_IDX,
            "ascending and unique",
            format!("{} before {} at row {}", idx[position], idx[position + 1], position + 1),
        ));
    }
    let vectors = convert::matrix::<f64>(frame, EMBEDDING)?;
    let vectors = vectors.view();
    for (row, vector) in vectors.rows().into_iter().enumerate() {
        if let Some((component, value)) = vector.iter().enumerate().find(|(_, value)| !value.is_finite()) {
            return Err(Error::contract(
                "queries",
                EMBEDDING,
                "finite numbers",
                format!("{value} in component {component} of query {}", idx[row]),
            ));
        }
    }
    Ok(())
}

/// Checks that a results frame has the columns every database gives.
///
/// # Errors
/// Names the column, what the contract asks for and what was found.
pub fn check_results(stage: &'static str, frame: &DataFrame, dim: usize) -> Result<()> {
    for (name, dtype) in [
        (QUERY_IDX, DataType::UInt32),
        (DB_IDX, DataType::UInt64),
        (DISTANCE, DataType::Float32),
        (EMBEDDING, DataType::Array(Box::new(DataType::Float32), dim)),
    ] {
        let column = typed_column(stage, frame, name, &dtype)?;
        if column.null_count() > 0 {
            return Err(Error::contract(stage, name, "no nulls", format!("{} nulls", column.null_count())));
        }
    }
    Ok(())
}

/// The names of a frame's columns, in order.
pub(crate) fn column_names(frame: &DataFrame) -> Vec<&str> {
    frame.columns().iter().map(|column| column.name().as_str()).collect()
}

/// The column of that name, if it has that dtype.
pub(crate) fn typed_column<'a>(
    stage: &'static str,
    frame: &'a DataFrame,
    name: &str,
    dtype: &DataType,
) -> Result<&'a Column> {
    let column = frame.column(name).map_err(|_| missing(stage, frame, name, dtype))?;
    if column.dtype() != dtype {
        return Err(Error::contract(stage, name, dtype, column.dtype()));
    }
    Ok(column)
}

/// The column of that name.
pub(crate) fn column<'a>(stage: &'static str, frame: &'a DataFrame, name: &str) -> Result<&'a Column> {
    frame.column(name).map_err(|_| missing(stage, frame, name, "a column"))
}

fn missing(stage: &'static str, frame: &DataFrame, name: &str, expected: impl std::fmt::Display) -> Error {
    let names = column_names(frame).join(", ");
    Error::contract(stage, name, expected, format!("no such column (there are: {names})"))
}

/// The values of a u64 column without nulls.
pub(crate) fn u64s(frame: &DataFrame, name: &str) -> Result<Vec<u64>> {
    let column = typed_column("frame", frame, name, &DataType::UInt64)?;
    if column.null_count() > 0 {
        return Err(Error::contract("frame", name, "no nulls", format!("{} nulls", column.null_count())));
    }
    let values = column.u64().map_err(|error| Error::contract("frame", name, "u64", error))?;
    Ok(values.into_no_null_iter().collect())
}

/// The values of a nullable u64 column.
pub(crate) fn nullable_u64s(frame: &DataFrame, name: &str) -> Result<Vec<Option<u64>>> {
    let column = typed_column("frame", frame, name, &DataType::UInt64)?;
    let values = column.u64().map_err(|error| Error::contract("frame", name, "u64", error))?;
    Ok(values.iter().collect())
}

/// The values of a u32 column without nulls.
pub(crate) fn u32s(frame: &DataFrame, name: &str) -> Result<Vec<u32>> {
    let column = typed_column("frame", frame, name, &DataType::UInt32)?;
    if column.null_count() > 0 {
        return Err(Error::contract("frame", name, "no nulls", format!("{} nulls", column.null_count())));
    }
    let values = column.u32().map_err(|error| Error::contract("frame", name, "u32", error))?;
    Ok(values.into_no_null_iter().collect())
}

/// The values of a nullable u32 column.
pub(crate) fn nullable_u32s(frame: &DataFrame, name: &str) -> Result<Vec<Option<u32>>> {
    let column = typed_column("frame", frame, name, &DataType::UInt32)?;
    let values = column.u32().map_err(|error| Error::contract("frame", name, "u32", error))?;
    Ok(values.iter().collect())
}

/// The values of a nullable f64 column.
pub(crate) fn nullable_f64s(frame: &DataFrame, name: &str) -> Result<Vec<Option<f64>>> {
    let column = typed_column("frame", frame, name, &DataType::Float64)?;
    let values = column.f64().map_err(|error| Error::contract("frame", name, "f64", error))?;
    Ok(values.iter().collect())
}

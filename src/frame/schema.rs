//! The schema of the frames between stages: column names, dtypes and checks.
//!
//! Every stage takes and returns Polars frames. This file is the only definition of their columns. The crate page has the
//! table.

use polars::prelude::*;

use crate::error::{Error, Result};
use crate::frame::convert;
pub use crate::frame::convert::EMBEDDING;

/// u32: the id of a query. A query that moves keeps its id; a branch gets a new one.
pub const QUERY_IDX: &str = "query_idx";
/// u32, nullable: the query of the previous iteration that this query comes from.
pub const PARENT_IDX: &str = "parent_idx";
/// u32: the starting query that this query descends from.
pub const COLLECTION_IDX: &str = "collection_idx";
/// array of f64, only in the queries of a gradient search: the gradient of the negated score at the query.
pub const GRADIENT: &str = "gradient";
/// u64: the stable identity of an item.
pub const DB_IDX: &str = "db_idx";
/// f32: the distance from the query to the item. Smaller is nearer under every metric.
pub const DISTANCE: &str = "distance";
/// f64, nullable: the score. Higher is better. Null if the item was rejected or failed.
pub const SCORE: &str = "score";
/// f64, nullable: the score as returned by the scorer, if `score` is its negative.
pub const RAW_SCORE: &str = "raw_score";
/// string: the outcome of the item: `scored`, `rejected` or `failed` ([`Outcome`](crate::Outcome)).
pub const OUTCOME: &str = "outcome";
/// string, nullable: the reason why `score` is null.
pub const REASON: &str = "reason";
/// u64, nullable: the number of the item's evaluation, from 1. This is the cost axis. Null if the item cost nothing: its score
/// was reused from an earlier run, or a free part of the score rejected it.
pub const EVALUATION: &str = "evaluation";
/// u32: the iteration, read from the folder name `iteration=000000`.
pub const ITERATION: &str = "iteration";
/// u64: the row in the input files, if rows were skipped.
pub const SOURCE_ROW: &str = "source_row";

/// f64, nullable: the expected score, predicted by the model of the rule before the score was known. Null for items that no model
/// chose, and for items whose expected score is too low for the model to quantify.
pub const PREDICTED: &str = "predicted";
/// f64, nullable: the standard deviation of `score` around `predicted`. It includes the noise of a single score.
pub const DEVIATION: &str = "deviation";
/// string, nullable: how the rule chose the item: `start` (near a starting query), `random`, `model`, or `elsewhere` (by the
/// model that is fitted outside of the highest peak). Null for reused scores.
pub const CHOSEN_BY: &str = "chosen_by";

/// The columns of predictions, in their order in the results.
pub(crate) const PREDICTIONS: [&str; 3] = [PREDICTED, DEVIATION, CHOSEN_BY];

/// u64, nullable, in explanations: a scored item that contributes to the prediction. Null for all the others together.
pub const NEIGHBOUR_IDX: &str = "neighbour_idx";
/// f64, nullable, in explanations: the score of the neighbour.
pub const NEIGHBOUR_SCORE: &str = "neighbour_score";
/// f64, nullable, in explanations: the prediction in the units of the contributions, which it is the sum of.
pub const POSTERIOR_MEAN: &str = "posterior_mean";
/// f64, nullable, in explanations: the signed contribution of the neighbour, in standard deviations of the model's targets.
pub const CONTRIBUTION: &str = "contribution";
/// f64, nullable, in explanations: the absolute contribution, as a share of those of all scored items.
pub const SHARE: &str = "share";
/// The beginning of the names of columns of f64, nullable, in explanations: the share of a feature group in `distance`.
pub const DISTANCE_SHARE: &str = "distance_share_";

/// Column names that attributes of items cannot have, because this crate or Lance uses them.
pub const RESERVED: [&str; 17] = [
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
    PREDICTED,
    DEVIATION,
    CHOSEN_BY,
    "query_index",
];

/// Whether an attribute of that name conflicts with a column of the frames. Case is ignored: SQL does not distinguish `Score`
/// from `score`. Names that begin with `_` are reserved, too.
pub fn is_reserved_column(name: &str) -> bool {
    name.starts_with('_') || RESERVED.iter().any(|reserved| reserved.eq_ignore_ascii_case(name))
}

/// Whether a column is the index of a pandas frame. pandas writes it to Parquet after rows were filtered.
pub(crate) fn is_pandas_index(name: &str) -> bool {
    let level = name.strip_prefix("__index_level_").and_then(|rest| rest.strip_suffix("__"));
    level.is_some_and(|level| level.parse::<u32>().is_ok())
}

/// Builds the frame of starting queries from vectors of shape `(n_queries, dim)`. `query_idx` and `collection_idx` count
/// from 0, and `parent_idx` is null.
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

/// Checks the columns of a queries frame for a library of `dim` dimensions: dtypes, no nulls, ascending `query_idx`, finite
/// embeddings.
///
/// # Errors
/// A violation: names the column, the expected and the found value.
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

/// Checks that a results frame has the columns that every database returns, without nulls.
///
/// # Errors
/// A violation: names the column, the expected and the found value.
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

/// The column names of a frame, in order.
pub(crate) fn column_names(frame: &DataFrame) -> Vec<&str> {
    frame.columns().iter().map(|column| column.name().as_str()).collect()
}

/// The column of that name; an error if it is missing or has another dtype.
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

/// The column of that name; an error if it is missing.
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

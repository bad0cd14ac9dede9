//! The `[queries]` section: the starting queries.

use std::path::{Path, PathBuf};

use ndarray::Array2;
use polars::prelude::{Column, DataFrame, DataType, IntoColumn, NamedFrom, Series};
use serde::{Deserialize, Serialize};

use super::Config;
use crate::database::{VectorDatabase, with_gradients};
use crate::error::{Error, Result, first_line};
use crate::frame::convert;
use crate::frame::schema::{self, EMBEDDING};
use crate::panics::catch_at_path;
use crate::random::random_stream;
use crate::suggest::unknown_column;
use crate::table::TableReader;

/// The default of `queries.sample`.
const DEFAULT_QUERIES: usize = 16;
/// The default if scores are announced to have few values: the random start is as short.
const FEW_QUERIES: usize = 4;

/// The `[queries]` section: the starting queries.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct QueriesConfig {
    /// The number of random items to start at (default 16, or 4 with `update.examples` or `stop.hit` of the rule `surrogate`).
    pub sample: Option<usize>,
    /// A file (Parquet, CSV, JSON) with a column `embedding`. In CSV it is text such as `[0.5, 0.25]`.
    pub path: Option<PathBuf>,
    /// A frame with a column `embedding`, in place of a file.
    #[serde(skip)]
    pub table: Option<DataFrame>,
}

impl Config {
    /// Creates the starting queries.
    ///
    /// # Errors
    /// A file without an `embedding` column of the library's dimension; an empty library.
    pub fn queries(&self, database: &dyn VectorDatabase) -> Result<DataFrame> {
        if database.is_empty() {
            return Err(Error::input(&self.database.path, "has no row with an embedding; there is nothing to search"));
        }
        let QueriesConfig { sample, path, table } = &self.queries;
        let queries = match (path, sample, table) {
            (Some(_), Some(_), _) => return Err(Error::Config("queries: set `sample` or `path`, not both".into())),
            (Some(path), None, None) => {
                let table = TableReader::new(path).keys(&[EMBEDDING]).read()?;
                catch_at_path(path, || queries_from(&table, database.dim(), path))?
            }
            (None, None, Some(table)) => queries_from(table, database.dim(), Path::new("queries"))?,
            (_, _, Some(_)) => {
                return Err(Error::Config("queries: set one of `table`, `sample` and `path`".into()));
            }
            (None, Some(0), None) => return Err(Error::Config("queries.sample: expected at least 1, found 0".into())),
            (None, sample, None) => {
                let mut rng = random_stream(self.seed, "queries", 0, 0);
                let has_hits = self.update.has_model() && self.stop.hit.is_some();
                let default = if self.announces_few_values() || has_hits { FEW_QUERIES } else { DEFAULT_QUERIES };
                let items = database.sample(sample.unwrap_or(default), &mut rng)?;
                queries_at(database, &items)?
            }
        };
        match self.gradient {
            Some(_) => with_gradients(&queries, Array2::zeros((queries.height(), database.dim())).view()),
            None => Ok(queries),
        }
    }
}

/// Starting queries at the embeddings of items of the library.
///
/// # Errors
/// An id that is not in the library.
pub fn queries_at(database: &dyn VectorDatabase, db_idx: &[u64]) -> Result<DataFrame> {
    let items = database.take(db_idx)?;
    let vectors = convert::matrix::<f32>(&items, EMBEDDING)?;
    schema::queries(vectors.view().mapv(f64::from).view())
}

/// Query vectors from a frame: lists or arrays of floats in a column `embedding`. Messages name the path of the frame.
fn queries_from(frame: &DataFrame, dim: usize, path: &Path) -> Result<DataFrame> {
    if frame.height() == 0 {
        return Err(Error::input(path, "has no rows; a search needs at least one starting query"));
    }
    let Ok(column) = frame.column(EMBEDDING) else {
        return Err(Error::input(path, unknown_column(EMBEDDING, "", schema::column_names(frame))));
    };
    let dtype = DataType::Array(Box::new(DataType::Float64), dim);
    let column = match column.dtype() {
        DataType::String => &parse_vectors(column).map_err(|reason| Error::input(path, reason))?,
        _ => column,
    };
    let cast = column.cast(&dtype).map_err(|error| {
        let reason = format!(
            "column `embedding`: expected vectors of {dim} components, found {}: {}",
            column.dtype(),
            first_line(&error.to_string())
        );
        Error::input(path, reason)
    })?;
    if cast.null_count() > 0 {
        return Err(Error::input(
            path,
            format!("column `embedding`: expected vectors, found {} nulls", cast.null_count()),
        ));
    }
    let frame = DataFrame::new(cast.len(), vec![Column::new("row".into(), vec![0u8; cast.len()]), cast]);
    let frame = frame.map_err(|error| Error::input(path, error.to_string()))?;
    let queries = convert::matrix::<f64>(&frame, EMBEDDING).and_then(|vectors| schema::queries(vectors.view()));
    queries.map_err(|error| Error::input(path, error.to_string()))
}

/// Parses vectors from text, as in CSV: `[0.5, 0.25]`.
fn parse_vectors(column: &Column) -> Result<Column, String> {
    let texts = column.str().map_err(|error| error.to_string())?;
    let vector = |(row, text): (usize, Option<&str>)| {
        let Some(text) = text else { return Ok(None) };
        let components = text.trim().strip_prefix('[').and_then(|text| text.strip_suffix(']'));
        let numbers =
            components.and_then(|components| components.split(',').map(|number| number.trim().parse().ok()).collect());
        let numbers: Vec<f64> = numbers.ok_or_else(|| {
            format!("column `{EMBEDDING}`: expected numbers such as [0.5, 0.25], found {text:?} in row {row}")
        })?;
        Ok(Some(Series::new("".into(), numbers)))
    };
    let vectors = (0..).zip(texts.iter()).map(vector).collect::<Result<Vec<Option<Series>>, String>>()?;
    Ok(Series::new(EMBEDDING.into(), vectors).into_column())
}

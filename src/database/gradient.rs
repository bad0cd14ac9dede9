//! `GradientDatabase`: shifts queries along their gradients by several step lengths, as the `GradQueryDB` of emb_opt.

use std::collections::HashSet;

use ndarray::{Array2, ArrayView2};
use polars::prelude::{Column, DataFrame};

use super::{BlockVisitor, Metric, QueryOptions, VectorDatabase};
use crate::error::{Error, Result, WrapErr};
use crate::frame::convert;
use crate::frame::schema::{self, DB_IDX, GRADIENT, QUERY_IDX};
use crate::random::RandomStream;

/// The gradient of the negated score at each query. A closure from vectors `(n_queries, dim)` to gradients of the same shape
/// implements `Gradient`.
pub trait Gradient: Send + Sync {
    /// The gradients of a queries frame, `(n_queries, dim)`.
    ///
    /// # Errors
    /// Any error stops the run.
    fn gradients(&self, queries: &DataFrame) -> Result<Array2<f64>>;
}

impl<F> Gradient for F
where
    F: Fn(ArrayView2<'_, f64>) -> Array2<f64> + Send + Sync,
{
    fn gradients(&self, queries: &DataFrame) -> Result<Array2<f64>> {
        Ok(self(convert::matrix::<f64>(queries, schema::EMBEDDING)?.view()))
    }
}

/// Reads the gradients from the column `gradient` of the queries frame. A rule such as
/// [`GradientUpdate`](crate::GradientUpdate) writes the column; [`with_gradients`] adds it to the starting queries.
#[derive(Clone, Copy, Debug, Default)]
pub struct GradientColumn;

impl Gradient for GradientColumn {
    fn gradients(&self, queries: &DataFrame) -> Result<Array2<f64>> {
        if queries.column(GRADIENT).is_err() {
            let found =
                "none; add it to the starting queries (with_gradients), and use a rule that writes it (GradientUpdate)";
            return Err(Error::contract("queries", GRADIENT, "gradients", found));
        }
        Ok(convert::matrix::<f64>(queries, GRADIENT)?.view().to_owned())
    }
}

/// Adds a column `gradient` of shape `(n_queries, dim)` to the queries, for [`GradientColumn`]. Use zeros for
/// starting queries, because the score is not known yet.
///
/// # Errors
/// A number of gradients that differs from the number of queries.
pub fn with_gradients(queries: &DataFrame, gradients: ArrayView2<'_, f64>) -> Result<DataFrame> {
    let mut queries = queries.clone();
    let gradients = convert::embedding_column(gradients)?.with_name(GRADIENT.into());
    queries.with_column(gradients).wrap_err("queries")?;
    Ok(queries)
}

/// A database that shifts each query against its gradient by several step lengths:
/// `q_ij = q_i - scale_j * gradient(q)_i`.
///
/// The results of a query are the union of the results of its scales, ordered by scale, then by rank. An item that several
/// scales find is returned once, at the first scale that finds it. `distance` is the distance to the shifted query. Filter, score
/// and update get the union as the results of the original query, up to `scales x k` rows per query.
///
/// Source: emb_opt 0.0.2, `GradQueryDB`; emb_opt 1.0.2, `DataPluginGradWrapper`. The latter prepends a scale of 0 and
/// keeps duplicates if the library has no ids.
pub struct GradientDatabase<D, G> {
    database: D,
    gradient: G,
    scales: Vec<f64>,
}

impl<D, G> GradientDatabase<D, G>
where
    D: VectorDatabase,
    G: Gradient,
{
    /// `gradient` is a closure from query vectors `(n_queries, dim)` to gradients of the same shape, or
    /// [`GradientColumn`]. A scale of 0 searches at the query itself.
    pub fn new(database: D, gradient: G, scales: impl Into<Vec<f64>>) -> Self {
        GradientDatabase { database, gradient, scales: scales.into() }
    }
}

impl<D, G> VectorDatabase for GradientDatabase<D, G>
where
    D: VectorDatabase,
    G: Gradient,
{
    fn len(&self) -> u64 {
        self.database.len()
    }

    fn dim(&self) -> usize {
        self.database.dim()
    }

    fn metric(&self) -> Metric {
        self.database.metric()
    }

    fn max_distance(&self) -> Option<f32> {
        self.database.max_distance()
    }

    fn identity(&self) -> Option<&super::DatasetIdentity> {
        self.database.identity()
    }

    fn tag_version(&self, name: &str) -> Result<()> {
        self.database.tag_version(name)
    }

    fn query(&self, queries: &DataFrame, options: QueryOptions<'_>) -> Result<DataFrame> {
        schema::check_queries(queries, self.dim())?;
        let query_idx = schema::u32s(queries, QUERY_IDX)?;
        let vectors = convert::matrix::<f64>(queries, schema::EMBEDDING)?;
        let vectors = vectors.view();
        let gradients = self.gradient.gradients(queries)?;
        if gradients.dim() != vectors.dim() {
            return Err(Error::contract(
                "database",
                "gradient",
                format!("shape {:?}", vectors.dim()),
                format!("{:?}", gradients.dim()),
            ));
        }
        let scales = self.scales.len();
        let mut shifted = Array2::zeros((vectors.nrows() * scales, vectors.ncols()));
        for (row, mut target) in shifted.rows_mut().into_iter().enumerate() {
            let (query, scale) = (row / scales, self.scales[row % scales]);
            target.assign(&(&vectors.row(query) - &(&gradients.row(query) * scale)));
        }
        let mut results = self.database.query(&schema::queries(shifted.view())?, options)?;

        let db_idx = schema::u64s(&results, DB_IDX)?;
        let shifted_idx = schema::u32s(&results, QUERY_IDX)?;
        let original_idx: Vec<u32> = shifted_idx.iter().map(|row| query_idx[*row as usize / scales]).collect();
        let mut pairs = HashSet::new();
        let first_rows: Vec<u32> = (0..results.height() as u32)
            .filter(|row| pairs.insert((original_idx[*row as usize], db_idx[*row as usize])))
            .collect();
        results.with_column(Column::new(QUERY_IDX.into(), original_idx)).wrap_err("building the results frame")?;
        convert::gather(&results, &first_rows)
    }

    fn take(&self, db_idx: &[u64]) -> Result<DataFrame> {
        self.database.take(db_idx)
    }

    fn take_columns(&self, db_idx: &[u64], columns: &[String]) -> Result<DataFrame> {
        self.database.take_columns(db_idx, columns)
    }

    fn sample(&self, n: usize, rng: &mut RandomStream) -> Result<Vec<u64>> {
        self.database.sample(n, rng)
    }

    fn scan(&self, visit: &mut BlockVisitor<'_>) -> Result<()> {
        self.database.scan(visit)
    }
}

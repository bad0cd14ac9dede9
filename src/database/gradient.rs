//! Querying along an arc of gradient scales: the `GradQueryDB` of emb_opt.

use std::collections::HashSet;

use ndarray::{Array2, ArrayView2};
use polars::prelude::{Column, DataFrame};

use super::{Metric, Request, VectorDatabase, Visit};
use crate::error::{Doing, Error, Result};
use crate::frame::convert;
use crate::frame::schema::{self, DB_IDX, GRADIENT, QUERY_IDX};
use crate::random::Stream;

/// Says where the score falls at each query. Closures from vectors `(n_queries, dim)` to gradients of the same
/// shape are gradients.
pub trait Gradient: Send + Sync {
    /// The gradients of a queries frame, `(n_queries, dim)`.
    ///
    /// # Errors
    /// Whatever should stop the run.
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

/// The gradients that the queries carry in their column `gradient`: a rule such as
/// [`GradientUpdate`](crate::GradientUpdate) puts them there, [`with_gradients`] those of the starting queries.
#[derive(Clone, Copy, Debug, Default)]
pub struct GradientColumn;

impl Gradient for GradientColumn {
    fn gradients(&self, queries: &DataFrame) -> Result<Array2<f64>> {
        if queries.column(GRADIENT).is_err() {
            let found = "none; give the starting queries theirs (with_gradients), and the rule too (GradientUpdate)";
            return Err(Error::contract("queries", GRADIENT, "gradients", found));
        }
        Ok(convert::matrix::<f64>(queries, GRADIENT)?.view().to_owned())
    }
}

/// The queries with a column `gradient` for [`GradientColumn`], of shape `(n_queries, dim)`. Zeros are right for
/// starting queries: nothing is known of the score yet.
///
/// # Errors
/// Another number of rows than there are queries.
pub fn with_gradients(queries: &DataFrame, gradients: ArrayView2<'_, f64>) -> Result<DataFrame> {
    let mut queries = queries.clone();
    let gradients = convert::embedding_column(gradients)?.with_name(GRADIENT.into());
    queries.with_column(gradients).doing("queries")?;
    Ok(queries)
}

/// Asks a database for each query shifted against a gradient by several step lengths:
/// `q_ij = q_i - scale_j * gradient(q)_i`.
///
/// A query's rows are the union over its scales, in order of scale, then of rank; of an
/// item that several scales find, the first is kept. `distance` is to the shifted query.
/// Filter, score and update see the union under the unshifted query: up to
/// `scales x k` rows a query.
///
/// Source: emb_opt 0.0.2, `GradQueryDB`; 1.0.2, `DataPluginGradWrapper`, whose scales begin with a 0 of its own and
/// which keeps an item as often as it is found, if the library has no ids.
pub struct GradientQuery<D, G> {
    database: D,
    gradient: G,
    scales: Vec<f64>,
}

impl<D, G> GradientQuery<D, G>
where
    D: VectorDatabase,
    G: Gradient,
{
    /// `gradient` takes the query vectors `(n_queries, dim)` and gives their gradients in the same shape, or is
    /// [`GradientColumn`]. A scale of 0 asks for the query itself.
    pub fn new(database: D, gradient: G, scales: impl Into<Vec<f64>>) -> Self {
        GradientQuery { database, gradient, scales: scales.into() }
    }
}

impl<D, G> VectorDatabase for GradientQuery<D, G>
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

    fn identity(&self) -> Option<&super::Identity> {
        self.database.identity()
    }

    fn keep_version(&self, name: &str) -> Result<()> {
        self.database.keep_version(name)
    }

    fn query(&self, queries: &DataFrame, request: Request<'_>) -> Result<DataFrame> {
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
        let mut results = self.database.query(&schema::queries(shifted.view())?, request)?;

        let db_idx = schema::u64s(&results, DB_IDX)?;
        let shifted_of = schema::u32s(&results, QUERY_IDX)?;
        let query_of: Vec<u32> = shifted_of.iter().map(|row| query_idx[*row as usize / scales]).collect();
        let mut met = HashSet::new();
        let first: Vec<u32> = (0..results.height() as u32)
            .filter(|row| met.insert((query_of[*row as usize], db_idx[*row as usize])))
            .collect();
        results.with_column(Column::new(QUERY_IDX.into(), query_of)).doing("building the results frame")?;
        convert::gather(&results, &first)
    }

    fn take(&self, db_idx: &[u64]) -> Result<DataFrame> {
        self.database.take(db_idx)
    }

    fn take_columns(&self, db_idx: &[u64], columns: &[String]) -> Result<DataFrame> {
        self.database.take_columns(db_idx, columns)
    }

    fn sample(&self, n: usize, rng: &mut Stream) -> Result<Vec<u64>> {
        self.database.sample(n, rng)
    }

    fn scan(&self, visit: &mut Visit<'_>) -> Result<()> {
        self.database.scan(visit)
    }
}

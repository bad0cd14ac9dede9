//! Query points: the next queries in a library that is too large to be ranked as a whole.

use ndarray::ArrayView2;
use polars::prelude::{Column, DataFrame};

use crate::error::{Result, WrapErr};
use crate::frame::convert;
use crate::frame::schema::{self, COLLECTION_IDX, PARENT_IDX, QUERY_IDX};
use crate::step::Step;
use crate::surrogate::embeddings::finite_embeddings;
use crate::surrogate::observations::TrainingSet;
use crate::surrogate::ridge::BayesianRidge;
use crate::surrogate::vectorizer::Vectorizer;

/// The number of best items used as query points.
pub(super) const BEST: usize = 30;
/// The number of directions of a linear model. A point far in each direction is a query point.
const DIRECTIONS: usize = 4;
/// The number of random items used as query points.
const RANDOM: usize = 8;

/// Queries at the best items, at random items, and far in directions in which the score grows according to a linear model: its
/// posterior mean and three samples. If there are too few best items, more random items are used.
pub(super) fn queries(
    step: &Step<'_>,
    best: Vec<u64>,
    training: &TrainingSet<'_>,
    vectorizer: Option<&Vectorizer>,
) -> Result<DataFrame> {
    let mut items = best;
    let random = BEST + RANDOM - items.len();
    items.extend(step.database.sample(random, &mut step.rng("surrogate places", 0))?);
    // In a smaller library items repeat, so that the number of queries stays the same.
    let items: Vec<u64> = items.iter().copied().cycle().take(BEST + RANDOM).collect();
    let items = step.database.take_columns(&items, &[])?;
    let mut points = finite_embeddings(&items)?.view().mapv(f64::from);
    let dim = points.ncols();
    let Some(vectorizer) = vectorizer else { return queries_at(step.queries, points.view()) };
    let vectors = training.vectors(vectorizer.width());
    let embedded = vectors.slice(ndarray::s![.., ..dim]).mapv(f64::from);
    let ridge = BayesianRidge::fit(embedded.view(), &training.targets())?;
    let rng = &mut step.rng("surrogate directions", 0);
    for number in 0..DIRECTIONS {
        let direction = if number == 0 { ridge.weights() } else { ridge.sample(rng) };
        let far = vectorizer.embedding(ridge.far_point(&direction).view());
        points.push_row(far.view()).wrap_err("queries")?;
    }
    queries_at(step.queries, points.view())
}

/// Queries at new points `(points, dim)`. They reuse the `query_idx` and `collection_idx` of the previous queries, which are their
/// parents. Additional queries get new numbers and have no parent.
pub(super) fn queries_at(queries: &DataFrame, points: ArrayView2<'_, f64>) -> Result<DataFrame> {
    let (previous, collections) = (schema::u32s(queries, QUERY_IDX)?, schema::u32s(queries, COLLECTION_IDX)?);
    let unused = previous.last().map_or(0, |last| last + 1);
    let new = unused..;
    let query_idx: Vec<u32> = previous.iter().copied().chain(new.clone()).take(points.nrows()).collect();
    let parents: Vec<Option<u32>> =
        previous.iter().copied().map(Some).chain(std::iter::repeat(None)).take(points.nrows()).collect();
    let collections: Vec<u32> = collections.into_iter().chain(new).take(points.nrows()).collect();
    let columns = vec![
        Column::new(QUERY_IDX.into(), query_idx),
        Column::new(PARENT_IDX.into(), parents),
        Column::new(COLLECTION_IDX.into(), collections),
        convert::embedding_column(points)?,
    ];
    DataFrame::new(points.nrows(), columns).wrap_err("queries")
}

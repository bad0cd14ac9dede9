//! Where the queries of the surrogate ask an index, and how what they meet is read.

use std::collections::{HashMap, HashSet};

use ndarray::{ArrayView2, Axis};
use polars::prelude::{Column, DataFrame};

use crate::error::{Error, Result, WrapErr};
use crate::frame::convert::{self, Matrix};
use crate::frame::schema::{self, COLLECTION_IDX, DB_IDX, EMBEDDING, PARENT_IDX, QUERY_IDX};
use crate::step::Step;
use crate::surrogate::observations::Seen;
use crate::surrogate::ridge::Ridge;
use crate::surrogate::space::Views;

/// Best items whose neighbourhoods are candidates.
pub(in crate::surrogate) const BEST: usize = 30;
/// Directions of a linear model along which the farthest items are candidates.
const DIRECTIONS: usize = 4;
/// Random items whose neighbourhoods are candidates.
const RANDOM: usize = 8;

/// Queries at items, at random ones, and far along the directions in which a linear model sees the score grow.
pub(in crate::surrogate) fn places(
    step: &Step<'_>,
    mut items: Vec<u64>,
    seen: &Seen,
    chosen: &[usize],
    views: Option<&Views>,
) -> Result<DataFrame> {
    let random = BEST + RANDOM - items.len();
    items.extend(step.database.sample(random, &mut step.rng("surrogate places", 0))?);
    // A library smaller than that is gone round again, so that slots neither come nor go.
    let items: Vec<u64> = items.iter().copied().cycle().take(BEST + RANDOM).collect();
    let items = step.database.take_columns(&items, &[])?;
    let mut places = finite(&items)?.view().mapv(f64::from);
    let dim = places.ncols();
    let Some(views) = views else { return slots(step.queries, places.view()) };
    let vectors = seen.vectors(chosen, views.width());
    let ridge = Ridge::new(
        vectors.slice(ndarray::s![.., ..dim]).mapv(f64::from).view(),
        &seen.targets().select(Axis(0), chosen),
    )?;
    let rng = &mut step.rng("surrogate directions", 0);
    for number in 0..DIRECTIONS {
        let direction = if number == 0 { ridge.weights() } else { ridge.sample(rng) };
        let far = views.embedding(ridge.far_along(&direction).view());
        places.push_row(far.view()).wrap_err("queries")?;
    }
    slots(step.queries, places.view())
}

/// The embeddings of items `(items, dim)`.
///
/// # Errors
/// One that is not finite: no model could be fitted to it. Those that `uphill index` builds have none.
pub(in crate::surrogate) fn finite(items: &DataFrame) -> Result<Matrix<f32>> {
    let embeddings = convert::matrix::<f32>(items, EMBEDDING)?;
    let wrong = embeddings.view().indexed_iter().find(|(_, value)| !value.is_finite()).map(|(at, value)| (at, *value));
    match wrong {
        None => Ok(embeddings),
        Some(((row, component), value)) => {
            let item = schema::u64s(items, DB_IDX)?[row];
            let found = format!("{value} in component {component} of item {item}");
            Err(Error::contract("database", EMBEDDING, "finite numbers", found))
        }
    }
}

/// The rows of embeddings `(items, dim)` that are finite.
pub(in crate::surrogate) fn finite_rows(embeddings: ArrayView2<'_, f32>) -> Vec<usize> {
    let is_finite = |row: &usize| embeddings.row(*row).iter().all(|value| value.is_finite());
    (0..embeddings.nrows()).filter(is_finite).collect()
}

/// Row numbers with the nearest item of each query first, then the second nearest of each, and so on.
pub(in crate::surrogate) fn in_turn(queries: &[u32]) -> Vec<u32> {
    let mut turn_of: HashMap<u32, u32> = HashMap::new();
    let mut turns: Vec<(u32, u32)> = Vec::with_capacity(queries.len());
    for (row, query) in (0..).zip(queries) {
        let turn = turn_of.entry(*query).or_default();
        turns.push((*turn, row));
        *turn += 1;
    }
    turns.sort_unstable();
    turns.into_iter().map(|(_, row)| row).collect()
}

/// Of rows in an order, those of an item that did not come before.
pub(in crate::surrogate) fn first_of_each(db_idx: &[u64], rows: &[u32]) -> Vec<u32> {
    let mut taken = HashSet::new();
    rows.iter().copied().filter(|row| taken.insert(db_idx[*row as usize])).collect()
}

/// Queries at new places `(places, dim)`, under the names of those before; where there are more, under new names.
pub(in crate::surrogate) fn slots(queries: &DataFrame, vectors: ArrayView2<'_, f64>) -> Result<DataFrame> {
    let (was, collections) = (schema::u32s(queries, QUERY_IDX)?, schema::u32s(queries, COLLECTION_IDX)?);
    let unused = was.last().map_or(0, |last| last + 1);
    let new = unused..;
    let names: Vec<u32> = was.iter().copied().chain(new.clone()).take(vectors.nrows()).collect();
    let parents: Vec<Option<u32>> =
        was.iter().copied().map(Some).chain(std::iter::repeat(None)).take(vectors.nrows()).collect();
    let collections: Vec<u32> = collections.into_iter().chain(new).take(vectors.nrows()).collect();
    let columns = vec![
        Column::new(QUERY_IDX.into(), names),
        Column::new(PARENT_IDX.into(), parents),
        Column::new(COLLECTION_IDX.into(), collections),
        convert::embedding_column(vectors)?,
    ];
    DataFrame::new(vectors.nrows(), columns).wrap_err("queries")
}

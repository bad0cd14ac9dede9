//! Candidate items: merges the neighbours of the queries with the items that the update rule proposes, and fetches the
//! attributes of selected items.

use std::collections::HashSet;

use polars::prelude::{Column, DataFrame};

use crate::database::{QueryOptions, VectorDatabase};
use crate::error::{Result, WrapErr};
use crate::frame::convert;
use crate::frame::schema::{self, DB_IDX, DISTANCE, EMBEDDING, QUERY_IDX};

/// Adds the items with the `proposed` ids to the neighbours of the queries. Each proposed item is assigned to its nearest
/// query. The rows are sorted by query, distance and id. Proposed items are skipped if they are neighbours already, are
/// excluded, or are farther than the database's `max_distance`.
///
/// # Errors
/// The library lacks one of the ids.
pub(crate) fn merge_candidates(
    neighbours: DataFrame,
    proposed: &[u64],
    queries: &DataFrame,
    options: QueryOptions<'_>,
    database: &dyn VectorDatabase,
) -> Result<DataFrame> {
    let mut seen: HashSet<u64> = schema::u64s(&neighbours, DB_IDX)?.into_iter().collect();
    let is_excluded = |id: &u64| options.exclude.is_some_and(|exclude| exclude.contains(id));
    let proposed: Vec<u64> = proposed.iter().copied().filter(|id| !is_excluded(id) && seen.insert(*id)).collect();
    if proposed.is_empty() {
        return Ok(neighbours);
    }
    let mut items = match options.columns {
        Some(columns) => database.take_columns(&proposed, columns)?,
        None => database.take(&proposed)?,
    };
    let vectors = convert::matrix::<f64>(queries, EMBEDDING)?.view().mapv(|value| value as f32);
    let query_idx = schema::u32s(queries, QUERY_IDX)?;
    let embeddings = convert::matrix::<f32>(&items, EMBEDDING)?;
    let embeddings = embeddings.view();
    let nearest = embeddings.rows().into_iter().map(|item| {
        let distances = vectors.rows().into_iter().zip(&query_idx).map(|(vector, query)| {
            let distance = match (vector.as_slice(), item.to_slice()) {
                (Some(vector), Some(item)) => database.metric().distance(vector, item),
                _ => f32::NAN,
            };
            (distance, *query)
        });
        distances.min_by(|a, b| a.0.total_cmp(&b.0)).unwrap_or((f32::NAN, 0))
    });
    let (distances, nearest): (Vec<f32>, Vec<u32>) = nearest.unzip();
    let is_near = |distance: f32| database.max_distance().is_none_or(|limit| distance <= limit);
    let near_rows: Vec<u32> =
        (0..).zip(&distances).filter(|(_, distance)| is_near(**distance)).map(|(row, _)| row).collect();
    items.insert_column(0, Column::new(QUERY_IDX.into(), nearest)).wrap_err("candidates")?;
    items.insert_column(2, Column::new(DISTANCE.into(), distances)).wrap_err("candidates")?;
    let items = if near_rows.len() < items.height() { convert::gather(&items, &near_rows)? } else { items };
    let all = if neighbours.height() == 0 { items } else { neighbours.vstack(&items).wrap_err("candidates")? };

    let (queries, ids) = (schema::u32s(&all, QUERY_IDX)?, schema::u64s(&all, DB_IDX)?);
    let distances = all.column(DISTANCE).and_then(|column| column.f32().cloned()).wrap_err("candidates")?;
    let distances: Vec<f32> = distances.into_no_null_iter().collect();
    let mut order: Vec<u32> = (0..all.height() as u32).collect();
    order.sort_by(|a, b| {
        let (a, b) = (*a as usize, *b as usize);
        queries[a].cmp(&queries[b]).then(distances[a].total_cmp(&distances[b])).then(ids[a].cmp(&ids[b]))
    });
    convert::gather(&all, &order)
}

/// Adds all attributes to the selected items, in the order of the library's columns. Candidates have only the attributes
/// that the filter and the selector read.
///
/// # Errors
/// The library cannot be read.
pub(crate) fn fetch_attributes(
    selected: &DataFrame,
    queries: &DataFrame,
    database: &dyn VectorDatabase,
) -> Result<DataFrame> {
    let ids = schema::u64s(selected, DB_IDX)?;
    let items = match ids.is_empty() {
        true => database.query(&queries.head(Some(0)), QueryOptions::default())?,
        false => database.take(&ids)?,
    };
    let search_columns = [QUERY_IDX, DB_IDX, DISTANCE, EMBEDDING];
    let attributes = items.columns().iter().filter(|column| !search_columns.contains(&column.name().as_str()));
    let found = search_columns
        .iter()
        .map(|name| selected.column(name).cloned())
        .collect::<Result<Vec<_>, _>>()
        .wrap_err("candidates")?;
    DataFrame::new(selected.height(), found.into_iter().chain(attributes.cloned()).collect()).wrap_err("candidates")
}

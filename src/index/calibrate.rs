//! Measures what the index finds, so that searches can be asked for a recall instead of for partitions.
//!
//! The queries are like those of a search: items, and items that moved some of the way towards another. Their true
//! neighbours come from a look at every item; then the index is asked with more and more partitions, until each query
//! has found all of them. One answer serves every k and every number of candidates, as it lists the candidates nearest
//! first.
//!
//! It costs a twelfth to an eighth of the CPU time of the build at 300,000 rows, up to a seventh at 100,000 (0.2 s): mostly
//! the look at every item.

use std::path::Path;

use lance::Dataset;
use lance::dataset::builder::DatasetBuilder;
use ndarray::{Array2, Array3, Axis, s};

use super::learn::draw;
use crate::database::{LanceDatabase, META_RECALL, RecallLevel, RecallTable, VectorDatabase, on_runtime};
use crate::error::{Doing, Result};

/// Queries to measure with.
const QUERIES: usize = 64;
/// How far they moved towards another item: each share in turn.
const MOVED: [f32; 4] = [0.0, 0.2, 0.3, 0.4];
/// Another seed than that of the rows which the index learnt from.
const SEED: u64 = 8;

const KS: [usize; 2] = [10, 100];
const RECALLS: [f64; 4] = [0.9, 0.95, 0.99, 0.999];
/// Candidates for each neighbour, where the index keeps codes.
const OVERFETCH: [usize; 4] = [1, 2, 4, 8];
/// What a recall may lack of the best that there is, where none is good enough.
const NEAR_THE_BEST: f64 = 0.0005;
/// True neighbours to look for: more than k, as several may be equally far.
const NEIGHBOURS: usize = 128;
/// Rows of an index that are looked at in the time that it takes to fetch a candidate and measure it again.
const ROWS_PER_CANDIDATE: f64 = 500.0;

/// Measures the index of a dataset at a path, and keeps what it finds in the dataset's metadata. `None` where there is
/// nothing to measure: no index that searches use, or items that are all the same.
///
/// # Errors
/// A dataset that cannot be read or written.
pub(super) fn calibrate(path: &Path) -> Result<Option<RecallTable>> {
    let uri = path.to_string_lossy().into_owned();
    let database = LanceDatabase::open(&uri)?;
    let Some(index) = database.identity().and_then(|identity| identity.index.clone()) else { return Ok(None) };
    let queries = queries(&uri, database.len() as usize, database.dim())?;
    let overfetch: &[usize] = if index.has_codes() { &OVERFETCH } else { &OVERFETCH[..1] };
    let steps = measure(&database, &queries, index.partitions, overfetch)?;
    let rows_per_partition = database.len() as f64 / index.partitions.max(1) as f64;
    let mut levels = Vec::new();
    for (of, &k) in KS.iter().enumerate() {
        for recall in RECALLS {
            let mut choices = Vec::new();
            for step in &steps {
                for (by, &overfetch) in overfetch.iter().enumerate() {
                    let Some((measured, error)) = step.recall(of, by) else { continue };
                    let cost = step.nprobes as f64 * rows_per_partition + (overfetch * k) as f64 * ROWS_PER_CANDIDATE;
                    let level = RecallLevel { k, recall, nprobes: step.nprobes, overfetch, measured };
                    // Of so few queries the mean is a guess: its standard error is left as a margin.
                    choices.push((measured - error >= recall, cost, level));
                }
            }
            // What is not reached takes the cheapest of what comes near to the best.
            let best = choices.iter().map(|(.., level)| level.measured).fold(0.0, f64::max);
            let is_reached = choices.iter().any(|(reaches, ..)| *reaches);
            let good = choices.iter().filter(|(reaches, _, level)| match is_reached {
                true => *reaches,
                false => level.measured >= best - NEAR_THE_BEST,
            });
            levels.extend(good.min_by(|a, b| a.1.total_cmp(&b.1)).map(|(.., level)| *level));
        }
    }
    if levels.is_empty() {
        return Ok(None);
    }
    let table = RecallTable { index: index.uuids, partitions: index.partitions, queries: queries.nrows(), levels };
    let text = serde_json::to_string(&table).doing("writing what was measured")?;
    on_runtime(async move {
        let mut dataset = DatasetBuilder::from_uri(&uri).load().await?;
        dataset.update_metadata([(META_RECALL, text.as_str())]).await
    })?
    .doing("writing what was measured")?;
    Ok(Some(table))
}

/// Items, each moved some of the way towards another.
fn queries(uri: &str, rows: usize, dim: usize) -> Result<Array2<f32>> {
    let uri = uri.to_string();
    let drawn = on_runtime(async move {
        let dataset: Dataset = DatasetBuilder::from_uri(uri).load().await?;
        draw(&dataset, rows, dim, 2 * QUERIES, SEED).await
    })?
    .doing("reading a sample")?;
    let drawn = Array2::from_shape_vec((drawn.len() / dim, dim), drawn).doing("reading a sample")?;
    let n = drawn.nrows().div_ceil(2);
    let mut queries = drawn.slice(s![..n, ..]).to_owned();
    for (at, mut query) in queries.rows_mut().into_iter().enumerate() {
        let moved = MOVED[at % MOVED.len()];
        query.zip_mut_with(&drawn.row(drawn.nrows() - 1 - at), |from, to| *from += moved * (to - *from));
    }
    Ok(queries)
}

/// The share of its nearest that each query found with so many partitions, for each k and each number of candidates;
/// NaN where more are equally far than were looked for.
struct Step {
    nprobes: usize,
    found: Array3<f64>,
}

impl Step {
    /// The mean over the queries and its standard error.
    fn recall(&self, of: usize, by: usize) -> Option<(f64, f64)> {
        let shares: Vec<f64> =
            self.found.slice(s![.., of, by]).iter().copied().filter(|share| !share.is_nan()).collect();
        if shares.is_empty() {
            return None;
        }
        let n = shares.len() as f64;
        let mean = shares.iter().sum::<f64>() / n;
        let variance = shares.iter().map(|share| (share - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
        Some((mean, (variance / n).sqrt()))
    }
}

/// Asks with more and more partitions, up to half of them: those queries again that have not found all there is.
fn measure(
    database: &LanceDatabase,
    queries: &Array2<f32>,
    partitions: usize,
    overfetch: &[usize],
) -> Result<Vec<Step>> {
    let nearest = database.nearest_of_all(queries.view(), NEIGHBOURS)?;
    let fetch = KS[KS.len() - 1] * overfetch[overfetch.len() - 1];
    let mut found = Array3::from_elem((queries.nrows(), KS.len(), overfetch.len()), 0.0);
    let mut open: Vec<usize> = (0..queries.nrows()).collect();
    let (mut steps, mut nprobes, mut gained) = (Vec::new(), 1, 1);
    loop {
        let sum = |found: &Array3<f64>| found.iter().filter(|share| !share.is_nan()).sum::<f64>();
        let before = sum(&found);
        let candidates = database.ask_index(queries.select(Axis(0), &open).view(), nprobes, fetch)?;
        for (&query, candidates) in open.iter().zip(&candidates) {
            for (of, k) in KS.iter().enumerate() {
                for (by, overfetch) in overfetch.iter().enumerate() {
                    found[[query, of, by]] = share(&nearest[query], candidates, *k, *overfetch);
                }
            }
        }
        if sum(&found) > before {
            gained = nprobes;
        }
        steps.push(Step { nprobes, found: found.clone() });
        let best = overfetch.len() - 1;
        open.retain(|query| found.slice(s![*query, .., best]).iter().any(|share| *share < 1.0));
        // Where twice as many find no more, it is the codes that miss the rest.
        let no_more = nprobes >= 2 * gained.max(8);
        if open.is_empty() || no_more || 2 * nprobes >= partitions {
            return Ok(steps);
        }
        nprobes = (nprobes + nprobes.div_ceil(4)).min(partitions);
    }
}

/// The share of a query's `k` nearest that is among its first candidates. Items that are as far as the k-th are as good.
fn share(nearest: &[(u64, f32)], candidates: &[u64], k: usize, overfetch: usize) -> f64 {
    let k = k.min(nearest.len());
    let Some((_, farthest)) = nearest[..k].last() else { return f64::NAN };
    let good = nearest.partition_point(|(_, distance)| distance <= farthest);
    if good == NEIGHBOURS {
        return f64::NAN;
    }
    let good: std::collections::HashSet<u64> = nearest[..good].iter().map(|(row, _)| *row).collect();
    let hits = candidates.iter().take(k * overfetch).filter(|row| good.contains(row)).count();
    hits.min(k) as f64 / k as f64
}

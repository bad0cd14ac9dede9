//! Calibrates the index: measures the recall of search parameters, so that a search can set a recall instead of `nprobes`.
//!
//! The queries are like those of a search: at an item, moved some of the way towards another item, half way between two
//! items, and beyond an item, away from another. Their true neighbours come from exact search. The partition of a
//! neighbour determines the relative distance that a query must search to find it (`database/lance/centroids.rs`). For each
//! recall, the smallest relative distance is taken with which every kind of query reaches it, with an allowance for the small
//! number of queries. If the index stores codes, it is searched with some relative distances and refine factors (the number of
//! candidates per neighbour), and the cheapest pair is taken.
//!
//! Calibration takes about a third of the CPU time of a build at 100,000 rows, and a smaller share of a larger one. Most of
//! it is the exact search.

use std::collections::HashSet;
use std::path::Path;

use lance::Dataset;
use lance::dataset::builder::DatasetBuilder;
use ndarray::{Array2, s};

use super::training::sample_rows;
use crate::database::{LanceDatabase, META_RECALL, Probes, RecallLevel, RecallTable, VectorDatabase, block_on};
use crate::error::{Result, WrapErr};

/// The number of queries: a whole number of rounds of [`SHIFTS`].
const QUERIES: usize = 32 * SHIFTS.len();
/// The shift of each query towards another item, in turn: 0 stays at the item, 1 would reach the other one. Most queries move half
/// way, where most partitions are about equally far.
const SHIFTS: [f32; 14] = [0.0, 0.5, -0.5, 0.2, 0.5, 0.5, -0.5, 0.3, 0.5, 0.0, 0.5, -0.5, 0.4, 0.5];
/// The seed of the sample. It differs from the seed of the training sample.
const SEED: u64 = 8;

/// The measured numbers of neighbours.
const KS: [usize; 2] = [10, 100];
/// The target recalls.
const RECALLS: [f64; 4] = [0.9, 0.95, 0.99, 0.999];
/// The measured refine factors, if the index stores codes.
const REFINE_FACTORS: [usize; 4] = [1, 2, 4, 8];
/// If no search parameters reach a recall, the cheapest ones within this difference of the best recall are taken.
const RECALL_TOLERANCE: f64 = 0.0005;
/// The number of exact neighbours per query: more than k, because several may be equally far.
const NEIGHBOURS: usize = 128;
/// The number of index rows that are scanned in the time of fetching a candidate and computing its distance.
const ROWS_PER_CANDIDATE: f64 = 500.0;
/// The miss rate of one additional, unobserved query. If n queries found everything, up to 3 / n of all queries may miss some
/// (the rule of three).
const UNOBSERVED_MISS: f64 = 0.25;
/// The largest recall that this number of queries can verify. Above it, the relative distance is extrapolated from its growth
/// between the lowest recall and this one.
const MAX_VERIFIABLE: f64 = 0.99;
/// The additional growth of the relative distance beyond that recall, as a share of the growth before.
const EXTRAPOLATION: f32 = 0.4;

/// Measures the index of the dataset at a path, and stores the recall table in the dataset's metadata. `None` if there is no
/// index that searches use, or all items are equal.
///
/// # Errors
/// A dataset that cannot be read or written.
pub(super) fn calibrate(path: &Path) -> Result<Option<RecallTable>> {
    let uri = path.to_string_lossy().into_owned();
    let database = LanceDatabase::open(&uri)?;
    let Some(index) = database.identity().and_then(|identity| identity.index.clone()) else { return Ok(None) };
    let queries = sample_queries(&uri, database.len() as usize, database.dim())?;
    let nearest = database.exact_neighbours(queries.view(), NEIGHBOURS)?;
    let rows: Vec<Vec<u64>> = nearest.iter().map(|nearest| nearest.iter().map(|(row, _)| *row).collect()).collect();
    let Some(relative_distances) = database.relative_distances(queries.view(), &rows)? else { return Ok(None) };
    let mean_partitions = |relative_distance: f32| {
        let within = relative_distances
            .partitions
            .iter()
            .map(|sorted| sorted.partition_point(|at| *at <= relative_distance).max(1));
        within.sum::<usize>() as f64 / relative_distances.partitions.len().max(1) as f64
    };
    let rows_per_partition = database.len() as f64 / index.partitions.max(1) as f64;
    let mut levels = Vec::new();
    for k in KS {
        let tied: Vec<usize> = nearest.iter().map(|nearest| tied_count(nearest, k)).collect();
        let needed = tied
            .iter()
            .zip(&relative_distances.rows)
            .map(|(tied, relative_distances)| Some(&relative_distances[..*tied]).filter(|_| *tied > 0));
        let needed: Vec<Option<&[f32]>> = needed.collect();
        let Some(recall_distances) = distances_for_recalls(&needed, k) else { continue };
        let level = |recall: f64, relative_distance: f32, refine_factor: usize, recalls: &RecallByKind| RecallLevel {
            k,
            recall,
            nprobes: mean_partitions(relative_distance).ceil() as usize,
            relative_distance: Some(relative_distance),
            refine_factor,
            measured_recall: recalls.worst(),
        };
        if !index.has_codes() {
            let measure = |relative_distance: f32| {
                RecallByKind::new(needed.iter().map(|needed| recall_at(*needed, relative_distance, k)))
            };
            let targets = RECALLS.iter().zip(recall_distances);
            levels.extend(
                targets.map(|(recall, relative_distance)| {
                    level(*recall, relative_distance, 1, &measure(relative_distance))
                }),
            );
            continue;
        }
        let mut choices = Vec::new();
        for relative_distance in recall_distances {
            let probes = Probes { min_partitions: 1, max_relative_distance: Some(relative_distance) };
            let candidates =
                database.index_candidates(queries.view(), probes, k * REFINE_FACTORS[REFINE_FACTORS.len() - 1])?;
            for refine_factor in REFINE_FACTORS {
                let queries = nearest.iter().zip(&tied).zip(&candidates);
                let recalls = RecallByKind::new(queries.map(|((nearest, tied), candidates)| {
                    let correct: HashSet<u64> = nearest[..*tied].iter().map(|(row, _)| *row).collect();
                    let hits = candidates.iter().take(k * refine_factor).filter(|row| correct.contains(row)).count();
                    (!correct.is_empty()).then(|| hits.min(k) as f64 / k.min(nearest.len()) as f64)
                }));
                let cost = mean_partitions(relative_distance) * rows_per_partition
                    + (refine_factor * k) as f64 * ROWS_PER_CANDIDATE;
                choices.push((relative_distance, refine_factor, recalls, cost));
            }
        }
        for recall in RECALLS {
            // If no search parameters reach the recall, take the cheapest ones whose recall is close to the best.
            let best = choices.iter().map(|(_, _, recalls, _)| recalls.worst()).fold(0.0, f64::max);
            let is_reached = choices.iter().any(|(_, _, recalls, _)| recalls.reach(recall));
            let sufficient = choices.iter().filter(|(_, _, recalls, _)| match is_reached {
                true => recalls.reach(recall),
                false => recalls.worst() >= best - RECALL_TOLERANCE,
            });
            let cheapest = sufficient.min_by(|a, b| a.3.total_cmp(&b.3));
            levels.extend(cheapest.map(|(relative_distance, refine_factor, recalls, _)| {
                level(recall, *relative_distance, *refine_factor, recalls)
            }));
        }
    }
    if levels.is_empty() {
        return Ok(None);
    }
    let table = RecallTable { index: index.uuids, partitions: index.partitions, queries: queries.nrows(), levels };
    let text = serde_json::to_string(&table).wrap_err("writing the recall table")?;
    block_on(async move {
        let mut dataset = DatasetBuilder::from_uri(&uri).load().await?;
        dataset.update_metadata([(META_RECALL, text.as_str())]).await
    })?
    .wrap_err("writing the recall table")?;
    Ok(Some(table))
}

/// Random items, each moved some of the way towards another.
fn sample_queries(uri: &str, rows: usize, dim: usize) -> Result<Array2<f32>> {
    let uri = uri.to_string();
    let sample = block_on(async move {
        let dataset: Dataset = DatasetBuilder::from_uri(uri).load().await?;
        sample_rows(&dataset, rows, dim, 2 * QUERIES, SEED).await
    })?
    .wrap_err("reading a sample")?;
    let sample = Array2::from_shape_vec((sample.len() / dim, dim), sample).wrap_err("reading a sample")?;
    let n = sample.nrows().div_ceil(2);
    let mut queries = sample.slice(s![..n, ..]).to_owned();
    for (position, mut query) in queries.rows_mut().into_iter().enumerate() {
        let shift = SHIFTS[position % SHIFTS.len()];
        query.zip_mut_with(&sample.row(sample.nrows() - 1 - position), |from, to| *from += shift * (to - *from));
    }
    Ok(queries)
}

/// The number of neighbours that are at most as far as the k-th. All of them count as correct. 0 if the list of exact neighbours
/// is too short to tell.
fn tied_count(nearest: &[(u64, f32)], k: usize) -> usize {
    let Some((_, farthest)) = nearest[..k.min(nearest.len())].last() else { return 0 };
    let tied = nearest.partition_point(|(_, distance)| distance <= farthest);
    if tied == NEIGHBOURS { 0 } else { tied }
}

/// The recall of a query that searches up to a relative distance, given the relative distances of its correct neighbours.
fn recall_at(needed: Option<&[f32]>, relative_distance: f32, k: usize) -> Option<f64> {
    needed.map(|needed| {
        needed.iter().filter(|need| **need <= relative_distance).count().min(k) as f64 / k.min(needed.len()) as f64
    })
}

/// For each of [`RECALLS`], the smallest relative distance with which queries of every kind reach it. `None` if no query has a
/// correct neighbour.
fn distances_for_recalls(needed: &[Option<&[f32]>], k: usize) -> Option<[f32; RECALLS.len()]> {
    let mut relative_distances: Vec<f32> = needed.iter().flatten().flat_map(|needed| needed.iter().copied()).collect();
    relative_distances.sort_unstable_by(f32::total_cmp);
    relative_distances.dedup();
    let largest = *relative_distances.last()?;
    let mut recall_distances = RECALLS.map(|recall| {
        let is_too_small = |relative_distance: &f32| {
            !RecallByKind::new(needed.iter().map(|needed| recall_at(*needed, *relative_distance, k))).reach(recall)
        };
        relative_distances.get(relative_distances.partition_point(is_too_small)).copied().unwrap_or(largest)
    });
    let [lowest, .., verifiable, highest] = &mut recall_distances;
    *highest = highest.max(*verifiable + EXTRAPOLATION * (*verifiable - *lowest)).min(f32::MAX);
    Some(recall_distances)
}

/// The recall of each query, grouped by kind of query: how far it moved.
struct RecallByKind(Vec<Vec<f64>>);

impl RecallByKind {
    /// Takes the recalls of all queries in order. Queries without correct neighbours have `None`.
    fn new(recalls: impl Iterator<Item = Option<f64>>) -> Self {
        const KINDS: [fn(f32) -> bool; 4] =
            [|shift| shift == 0.0, |shift| shift > 0.0 && shift < 0.5, |shift| shift == 0.5, |shift| shift < 0.0];
        let mut by_kind = vec![Vec::new(); KINDS.len()];
        for (query, recall) in recalls.enumerate() {
            let kind = KINDS.iter().position(|is_kind| is_kind(SHIFTS[query % SHIFTS.len()]));
            if let (Some(kind), Some(recall)) = (kind, recall) {
                by_kind[kind].push(recall);
            }
        }
        by_kind.retain(|recalls| !recalls.is_empty());
        RecallByKind(by_kind)
    }

    /// The mean recall of the worst kind.
    fn worst(&self) -> f64 {
        self.0.iter().map(|recalls| mean(recalls)).fold(1.0, f64::min)
    }

    /// Whether every kind reaches a recall. The test statistic of a kind is its mean with one additional query that misses some
    /// neighbours, minus its standard error. Beyond [`MAX_VERIFIABLE`] it is the mean.
    fn reach(&self, recall: f64) -> bool {
        self.0.iter().all(|recalls| {
            if recall > MAX_VERIFIABLE {
                return mean(recalls) >= recall;
            }
            let with_one_more: Vec<f64> = recalls.iter().copied().chain([1.0 - UNOBSERVED_MISS]).collect();
            let (n, mean) = (with_one_more.len() as f64, mean(&with_one_more));
            let variance = with_one_more.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1.0);
            mean - (variance / n).sqrt() >= recall
        })
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

//! Measures what the index finds, so that searches can be asked for a recall instead of for partitions.
//!
//! The queries are like those of a search: at items, moved some of the way towards another, half way between two, and
//! beyond an item, away from another. Their true neighbours come from a look at every item. The partition that holds a
//! neighbour says which margin a query needs to find it (`database/lance/centroids.rs`); the margin of a recall is the
//! smallest with which every kind of query finds that share, with room for what so few queries do not show. Where the
//! index keeps codes, it is asked with a few margins, and the cheapest pair of margin and candidates is taken.
//!
//! It costs about a third of the CPU time of the build at 100,000 rows, and less of a larger one: mostly the look at every
//! item.

use std::collections::HashSet;
use std::path::Path;

use lance::Dataset;
use lance::dataset::builder::DatasetBuilder;
use ndarray::{Array2, s};

use super::learn::draw;
use crate::database::{LanceDatabase, META_RECALL, Probes, RecallLevel, RecallTable, VectorDatabase, block_on};
use crate::error::{Result, WrapErr};

/// Queries to measure with: a whole number of rounds of [`MOVED`].
const QUERIES: usize = 32 * MOVED.len();
/// How far they move towards another item, in turn; most of them half way, where most partitions are about equally far.
const MOVED: [f32; 14] = [0.0, 0.5, -0.5, 0.2, 0.5, 0.5, -0.5, 0.3, 0.5, 0.0, 0.5, -0.5, 0.4, 0.5];
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
/// What one query more is taken to miss that nobody saw: of n queries that all found everything, up to 3 / n of others may
/// not (the rule of three).
const UNSEEN: f64 = 0.25;
/// Beyond this recall so few queries prove nothing: the margin goes on as it grew from the lowest recall to this one.
const PROVABLE: f64 = 0.99;
/// How much further it grows, as a share of that growth.
const FURTHER: f32 = 0.4;

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
    let nearest = database.exact_neighbours(queries.view(), NEIGHBOURS)?;
    let rows: Vec<Vec<u64>> = nearest.iter().map(|nearest| nearest.iter().map(|(row, _)| *row).collect()).collect();
    let Some(margins) = database.margins(queries.view(), &rows)? else { return Ok(None) };
    let searched = |margin: f32| {
        let within = margins.partitions.iter().map(|of| of.partition_point(|at| *at <= margin).max(1));
        within.sum::<usize>() as f64 / margins.partitions.len().max(1) as f64
    };
    let rows_per_partition = database.len() as f64 / index.partitions.max(1) as f64;
    let mut levels = Vec::new();
    for k in KS {
        let good: Vec<usize> = nearest.iter().map(|nearest| as_near(nearest, k)).collect();
        let needs = good.iter().zip(&margins.rows).map(|(good, margins)| Some(&margins[..*good]).filter(|_| *good > 0));
        let needs: Vec<Option<&[f32]>> = needs.collect();
        let Some(reach) = reach(&needs, k) else { continue };
        let level = |recall: f64, margin: f32, overfetch: usize, shares: &Shares| RecallLevel {
            k,
            recall,
            nprobes: searched(margin).ceil() as usize,
            margin: Some(margin),
            overfetch,
            measured: shares.worst(),
        };
        if !index.has_codes() {
            let found = |margin: f32| Shares::new(needs.iter().map(|needs| found(*needs, margin, k)));
            levels.extend(RECALLS.iter().zip(reach).map(|(recall, margin)| level(*recall, margin, 1, &found(margin))));
            continue;
        }
        let mut choices = Vec::new();
        for margin in reach {
            let probes = Probes { min_partitions: 1, margin: Some(margin) };
            let candidates = database.index_candidates(queries.view(), probes, k * OVERFETCH[OVERFETCH.len() - 1])?;
            for overfetch in OVERFETCH {
                let of = nearest.iter().zip(&good).zip(&candidates);
                let shares = Shares::new(of.map(|((nearest, good), candidates)| {
                    let good: HashSet<u64> = nearest[..*good].iter().map(|(row, _)| *row).collect();
                    let hits = candidates.iter().take(k * overfetch).filter(|row| good.contains(row)).count();
                    (!good.is_empty()).then(|| hits.min(k) as f64 / k.min(nearest.len()) as f64)
                }));
                let cost = searched(margin) * rows_per_partition + (overfetch * k) as f64 * ROWS_PER_CANDIDATE;
                choices.push((margin, overfetch, shares, cost));
            }
        }
        for recall in RECALLS {
            // What is not reached takes the cheapest of what comes near to the best.
            let best = choices.iter().map(|(_, _, shares, _)| shares.worst()).fold(0.0, f64::max);
            let is_reached = choices.iter().any(|(_, _, shares, _)| shares.reach(recall));
            let good = choices.iter().filter(|(_, _, shares, _)| match is_reached {
                true => shares.reach(recall),
                false => shares.worst() >= best - NEAR_THE_BEST,
            });
            let cheapest = good.min_by(|a, b| a.3.total_cmp(&b.3));
            levels.extend(cheapest.map(|(margin, overfetch, shares, _)| level(recall, *margin, *overfetch, shares)));
        }
    }
    if levels.is_empty() {
        return Ok(None);
    }
    let table = RecallTable { index: index.uuids, partitions: index.partitions, queries: queries.nrows(), levels };
    let text = serde_json::to_string(&table).wrap_err("writing what was measured")?;
    block_on(async move {
        let mut dataset = DatasetBuilder::from_uri(&uri).load().await?;
        dataset.update_metadata([(META_RECALL, text.as_str())]).await
    })?
    .wrap_err("writing what was measured")?;
    Ok(Some(table))
}

/// Items, each moved some of the way towards another.
fn queries(uri: &str, rows: usize, dim: usize) -> Result<Array2<f32>> {
    let uri = uri.to_string();
    let drawn = block_on(async move {
        let dataset: Dataset = DatasetBuilder::from_uri(uri).load().await?;
        draw(&dataset, rows, dim, 2 * QUERIES, SEED).await
    })?
    .wrap_err("reading a sample")?;
    let drawn = Array2::from_shape_vec((drawn.len() / dim, dim), drawn).wrap_err("reading a sample")?;
    let n = drawn.nrows().div_ceil(2);
    let mut queries = drawn.slice(s![..n, ..]).to_owned();
    for (at, mut query) in queries.rows_mut().into_iter().enumerate() {
        let moved = MOVED[at % MOVED.len()];
        query.zip_mut_with(&drawn.row(drawn.nrows() - 1 - at), |from, to| *from += moved * (to - *from));
    }
    Ok(queries)
}

/// How many are as near as the k-th, which is as good; 0 where more are than were looked for.
fn as_near(nearest: &[(u64, f32)], k: usize) -> usize {
    let Some((_, farthest)) = nearest[..k.min(nearest.len())].last() else { return 0 };
    let good = nearest.partition_point(|(_, distance)| distance <= farthest);
    if good == NEIGHBOURS { 0 } else { good }
}

/// The share of its k nearest that a query finds with a margin, of the margins that these need.
fn found(needs: Option<&[f32]>, margin: f32, k: usize) -> Option<f64> {
    needs.map(|needs| needs.iter().filter(|need| **need <= margin).count().min(k) as f64 / k.min(needs.len()) as f64)
}

/// The smallest margins with which queries of every kind find each of [`RECALLS`]; `None` if nothing can be told.
fn reach(needs: &[Option<&[f32]>], k: usize) -> Option<[f32; RECALLS.len()]> {
    let mut margins: Vec<f32> = needs.iter().flatten().flat_map(|needs| needs.iter().copied()).collect();
    margins.sort_unstable_by(f32::total_cmp);
    margins.dedup();
    let all = *margins.last()?;
    let mut reach = RECALLS.map(|recall| {
        let is_short = |margin: &f32| !Shares::new(needs.iter().map(|needs| found(*needs, *margin, k))).reach(recall);
        margins.get(margins.partition_point(is_short)).copied().unwrap_or(all)
    });
    let [lowest, .., provable, highest] = &mut reach;
    *highest = highest.max(*provable + FURTHER * (*provable - *lowest)).min(f32::MAX);
    Some(reach)
}

/// The share of its nearest that each query found, by the kind of query: how far it moved.
struct Shares(Vec<Vec<f64>>);

impl Shares {
    /// Of the queries in order; queries that tell nothing have none.
    fn new(found: impl Iterator<Item = Option<f64>>) -> Self {
        const KINDS: [fn(f32) -> bool; 4] =
            [|moved| moved == 0.0, |moved| moved > 0.0 && moved < 0.5, |moved| moved == 0.5, |moved| moved < 0.0];
        let mut shares = vec![Vec::new(); KINDS.len()];
        for (at, share) in found.enumerate() {
            let kind = KINDS.iter().position(|is| is(MOVED[at % MOVED.len()]));
            if let (Some(kind), Some(share)) = (kind, share) {
                shares[kind].push(share);
            }
        }
        shares.retain(|of_a_kind| !of_a_kind.is_empty());
        Shares(shares)
    }

    /// The mean of the kind that finds least.
    fn worst(&self) -> f64 {
        self.0.iter().map(|shares| mean(shares)).fold(1.0, f64::min)
    }

    /// Whether each kind surely finds so much: its mean with one query more that misses some, less its standard error.
    /// Beyond what so few queries can prove, its mean.
    fn reach(&self, recall: f64) -> bool {
        self.0.iter().all(|shares| {
            if recall > PROVABLE {
                return mean(shares) >= recall;
            }
            let with_one_more: Vec<f64> = shares.iter().copied().chain([1.0 - UNSEEN]).collect();
            let (n, mean) = (with_one_more.len() as f64, mean(&with_one_more));
            let variance = with_one_more.iter().map(|share| (share - mean).powi(2)).sum::<f64>() / (n - 1.0);
            mean - (variance / n).sqrt() >= recall
        })
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

//! A model of the scores chooses what to pay for: the `SurrogateUpdate` rule.

use std::collections::{HashMap, HashSet};

use ndarray::{Array1, Array2, ArrayView2, Axis};
use polars::prelude::{Column, DataFrame};
use rand::seq::{SliceRandom, index};
use rand_chacha::ChaCha8Rng;

use super::gp::{Gp, median_squared_distance};
use super::ridge::Ridge;
use super::{Context, QueryUpdate, Step};
use crate::bridge;
use crate::database::VectorDatabase;
use crate::error::{Doing, Error, Result};
use crate::schema::{self, COLLECTION_IDX, DB_IDX, EMBEDDING, PARENT_IDX, QUERY_IDX, SCORE};

/// Random items scored before the model has a say: one in so many of the library, within these bounds.
const START: (u64, u64, u64) = (2000, 16, 64);
/// Best items whose neighbourhoods are candidates.
const BEST: usize = 30;
/// Directions of a linear model along which the farthest items are candidates.
const DIRECTIONS: usize = 4;
/// Random items whose neighbourhoods are candidates.
const RANDOM: usize = 8;
/// Neighbours that each query meets, at first.
const REACH: usize = 100;
/// Candidates of the highest posterior mean among which the samples choose.
const FRONT: usize = 300;
/// Other candidates that take part in it.
const OTHERS: usize = 64;
/// Variance of the noise, where that of the scores is 1.
const NOISE: f64 = 0.1;
/// The same for scores above their median.
const NOISE_ABOVE: f64 = 0.03;
/// Scored items, from the first, whose median the scores are cut at from below.
const EARLY: usize = 32;

/// Chooses the items worth paying for by a Gaussian process of the scores seen so far.
///
/// Each iteration asks the database for candidates, those met before left out: the neighbours of the 30 best items
/// (where fewer are above the floor of the targets, of random ones in their place) and of 8 random items, and the
/// items farthest along 4 directions in which a linear model sees the score grow (its posterior mean and three draws).
/// Of them it scores only a batch: each item is the best of a posterior sample of its own, of those not chosen yet
/// (Thompson sampling), whose deviation from the posterior mean shrinks as more is known. Both models are fitted anew
/// for every batch.
///
/// - *Batch*: 5 % of the items scored so far, at least 5 and at most 32, unless set. Small batches find more.
/// - *Start*: the nearest item of each starting query, then random items, until one in 2000 of the library is scored
///   (at least 16, at most 64).
/// - *Points*: at most 1000 unless set: the best half, the latest quarter, and a random quarter of the rest.
/// - *Kernel*: the mean of two squared exponentials, of lengths l and l / 2, where `l^2` is the median squared distance
///   of the points; noise 0.1, and 0.03 for the better half of the points, whose differences matter.
/// - *Targets*: scores cut from below at the median of the first 32, standardised, and from 3 deviations up only
///   logarithmic: differences among bad items and single huge scores do not shape the model.
/// - *Reach*: 100 neighbours a query, whatever the database's `k`; where too few candidates pass a filter to fill
///   a batch, twice as many from then on.
///
/// Its queries have no path of their own: each iteration's are new places, in the same slots.
#[derive(Clone, Debug)]
pub struct SurrogateUpdate {
    batch: Option<usize>,
    points: usize,
    reach: usize,
    seen: Seen,
}

/// What was scored, in the order asked.
#[derive(Clone, Debug, Default)]
struct Seen {
    db_idx: Vec<u64>,
    scores: Vec<f64>,
    /// Row-major, `(scores.len(), dim)`.
    embeddings: Vec<f32>,
    /// Items asked, with those that failed.
    asked: usize,
}

impl Default for SurrogateUpdate {
    fn default() -> Self {
        SurrogateUpdate { batch: None, points: 1000, reach: REACH, seen: Seen::default() }
    }
}

impl SurrogateUpdate {
    /// The untuned rule.
    pub fn new() -> Self {
        Self::default()
    }

    /// Items scored per iteration (default: grows from 5 to 32).
    pub fn batch(mut self, items: usize) -> Self {
        self.batch = Some(items);
        self
    }

    /// Scored items that the model is fitted to, at most (default 1000). Fitting takes time as the cube of it.
    pub fn points(mut self, points: usize) -> Self {
        self.points = points;
        self
    }

    /// Items of the next batch, and whether the model has no say in it.
    fn next_batch(&self, queries: usize, database: &dyn VectorDatabase) -> (usize, bool) {
        let (asked, (share, least, most)) = (self.seen.asked, START);
        let start = (database.len() / share).clamp(least, most) as usize;
        let blind = asked < start || self.seen.scores.is_empty();
        let batch = self.batch.unwrap_or(match asked {
            0 => queries.max(least as usize),
            asked if blind => start.saturating_sub(asked).max(5),
            asked => (asked / 20).clamp(5, 32),
        });
        (batch, blind)
    }
}

impl QueryUpdate for SurrogateUpdate {
    fn k(&self) -> Option<usize> {
        Some(self.reach)
    }

    fn revisits(&self) -> bool {
        false
    }

    fn select(&self, candidates: &DataFrame, context: &Context<'_>) -> Result<Option<DataFrame>> {
        self.check()?;
        let queries = schema::u32s(candidates, QUERY_IDX)?;
        let distinct: HashSet<u32> = queries.iter().copied().collect();
        let (batch, blind) = self.next_batch(distinct.len(), context.database);
        let pool = first_of_each(&schema::u64s(candidates, DB_IDX)?, &in_turn(&queries));
        let chosen = match blind {
            true => pool.into_iter().take(batch).collect(),
            false => self.choose(candidates, pool, batch, context)?,
        };
        bridge::gather(candidates, &chosen).map(Some)
    }

    fn check(&self) -> Result<()> {
        if self.batch == Some(0) || self.points < 2 {
            let (key, least, found) = if self.batch == Some(0) { ("batch", 1, 0) } else { ("points", 2, self.points) };
            return Err(Error::Config(format!("update.{key}: expected at least {least}, found {found}")));
        }
        Ok(())
    }

    fn observe(&mut self, step: &Step<'_>) -> Result<()> {
        let starting = step.queries.height();
        let (batch, _) = self.next_batch(starting, step.database);
        if step.results.height() < batch.min(starting.saturating_mul(self.reach)) {
            self.reach = self.reach.saturating_mul(2).min(step.database.len().max(1) as usize);
        }
        let embeddings = bridge::matrix::<f32>(step.results, EMBEDDING)?;
        let (scores, db_idx) = (schema::scores(step.results, SCORE)?, schema::u64s(step.results, DB_IDX)?);
        for ((embedding, score), item) in embeddings.view().rows().into_iter().zip(scores).zip(db_idx) {
            self.seen.asked += 1;
            if let Some(score) = score {
                self.seen.db_idx.push(item);
                self.seen.scores.push(score);
                self.seen.embeddings.extend(embedding);
            }
        }
        Ok(())
    }

    fn update(&mut self, step: &Step<'_>) -> Result<DataFrame> {
        let (_, blind) = self.next_batch(step.queries.height(), step.database);
        let mut items = if blind { Vec::new() } else { self.seen.best(BEST) };
        let random = BEST + RANDOM - items.len();
        items.extend(step.database.sample(random, &mut step.rng("surrogate places", 0))?);
        // A library smaller than that is gone round again, so that slots neither come nor go.
        let items: Vec<u64> = items.iter().copied().cycle().take(BEST + RANDOM).collect();
        let items = step.database.take(&items)?;
        let mut places = bridge::matrix::<f32>(&items, EMBEDDING)?.view().mapv(f64::from);
        let chosen = self.seen.chosen(self.points, &mut step.rng("surrogate points", 0));
        let ridge =
            Ridge::new(self.seen.points(&chosen, places.ncols()).view(), &self.seen.targets().select(Axis(0), &chosen));
        let rng = &mut step.rng("surrogate directions", 0);
        for number in 0..DIRECTIONS {
            let direction = if number == 0 { ridge.weights() } else { ridge.sample(rng) };
            places.push_row(ridge.far_along(&direction).view()).doing("queries")?;
        }
        slots(step.queries, places.view())
    }
}

impl SurrogateUpdate {
    /// The rows of the pool to be scored, the most promising first.
    fn choose(
        &self,
        candidates: &DataFrame,
        mut pool: Vec<u32>,
        batch: usize,
        context: &Context<'_>,
    ) -> Result<Vec<u32>> {
        let embeddings = bridge::matrix::<f32>(candidates, EMBEDDING)?;
        let fitted = self.seen.chosen(self.points, &mut context.rng("surrogate points"));
        let points = self.seen.points(&fitted, embeddings.view().ncols());
        let squared_length = median_squared_distance(points.view());
        let targets = self.seen.targets().select(Axis(0), &fitted);
        let noise = noise(&targets);
        let model = Gp::new(points, targets, squared_length, &noise);
        let at = |rows: &[u32]| {
            let rows: Vec<usize> = rows.iter().map(|row| *row as usize).collect();
            embeddings.view().select(Axis(0), &rows).mapv(f64::from)
        };
        let rng = &mut context.rng("surrogate sample");
        // So that among equals, as where all scores are the same, chance decides.
        pool.shuffle(rng);
        let mut front = ranked(&pool, &model.mean(at(&pool).view()));
        let others = front.split_off(front.len().min(FRONT));
        front.extend(index::sample(rng, others.len(), OTHERS.min(others.len())).into_iter().map(|other| others[other]));
        let batch = batch.min(front.len());
        let samples = model.samples(at(&front).view(), batch, self.seen.daring(), rng);
        let mut open = vec![true; front.len()];
        let best = samples.rows().into_iter().filter_map(|sample| {
            let best = (0..front.len()).filter(|row| open[*row]).max_by(|a, b| sample[*a].total_cmp(&sample[*b]))?;
            open[best] = false;
            Some(front[best])
        });
        Ok(best.collect())
    }
}

impl Seen {
    /// The ids of the best items above the floor, at most so many.
    fn best(&self, most: usize) -> Vec<u64> {
        let (floor, best) = (self.floor(), descending(&self.scores));
        best.into_iter().take(most).filter(|item| self.scores[*item] > floor).map(|item| self.db_idx[item]).collect()
    }

    /// The score that is as good as any below it: the median of the first.
    fn floor(&self) -> f64 {
        median(&self.scores[..self.scores.len().min(EARLY)])
    }

    /// How much of its deviation from the posterior mean a sample keeps: half at first, less as more is known.
    fn daring(&self) -> f64 {
        0.5 * (64.0 / self.scores.len().max(1) as f64).sqrt().min(1.0)
    }

    /// The scores as the model is to see them: mean 0 and variance 1, without the differences that do not matter.
    fn targets(&self) -> Array1<f64> {
        let floor = self.floor();
        let mut targets: Array1<f64> = self.scores.iter().map(|score| score.max(floor)).collect();
        standardise(&mut targets);
        // Each pass lets the standard deviation shrink to that of the bulk.
        for _ in 0..3 {
            if targets.iter().all(|z| *z <= 3.0) {
                break;
            }
            targets.mapv_inplace(|z| if z > 3.0 { 3.0 + (z - 2.0).ln() } else { z });
            standardise(&mut targets);
        }
        targets
    }

    /// The items to fit, in the order asked: all, or the best half, the latest quarter and some of the rest.
    fn chosen(&self, most: usize, rng: &mut ChaCha8Rng) -> Vec<usize> {
        let n = self.scores.len();
        if n <= most {
            return (0..n).collect();
        }
        let mut keep = vec![false; n];
        descending(&self.scores).into_iter().take(most / 2).chain(n - most / 4..n).for_each(|item| keep[item] = true);
        let rest: Vec<usize> = (0..n).filter(|item| !keep[*item]).collect();
        let missing = (most - (n - rest.len())).min(rest.len());
        index::sample(rng, rest.len(), missing).into_iter().for_each(|item| keep[rest[item]] = true);
        (0..n).filter(|item| keep[*item]).collect()
    }

    /// Embeddings of items, `(items, dim)`.
    fn points(&self, items: &[usize], dim: usize) -> Array2<f64> {
        Array2::from_shape_fn((items.len(), dim), |(row, component)| {
            f64::from(self.embeddings[items[row] * dim + component])
        })
    }
}

/// The variance of each target's noise: less for those above the median, whose differences matter.
fn noise(targets: &Array1<f64>) -> Array1<f64> {
    let middle = median(&targets.to_vec());
    targets.mapv(|target| if target > middle { NOISE_ABOVE } else { NOISE })
}

/// Positions of values, the largest first; the first of equals first.
fn descending(values: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*b].total_cmp(&values[*a]));
    order
}

/// Rows in the order of their values, the largest first.
fn ranked(rows: &[u32], values: &Array1<f64>) -> Vec<u32> {
    descending(&values.to_vec()).into_iter().map(|position| rows[position]).collect()
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// To mean 0 and variance 1; to zeros where all are equal.
fn standardise(values: &mut Array1<f64>) {
    // Scores near the largest f64 are brought down first, or their squares would overflow.
    let largest = values.iter().fold(0.0f64, |largest, value| largest.max(value.abs()));
    if largest > 1e100 {
        *values /= largest;
    }
    let n = values.len().max(1) as f64;
    let mean = values.sum() / n;
    *values -= mean;
    let deviation = (values.dot(values) / n).sqrt();
    // Below rounding, differences are noise.
    let scale = if deviation > 1e-12 * mean.abs() { 1.0 / deviation } else { 0.0 };
    values.mapv_inplace(|value| if scale > 0.0 { value * scale } else { 0.0 });
}

/// Row numbers with the nearest item of each query first, then the second nearest of each, and so on.
fn in_turn(queries: &[u32]) -> Vec<u32> {
    let mut met: HashMap<u32, u32> = HashMap::new();
    let mut turns: Vec<(u32, u32)> = Vec::with_capacity(queries.len());
    for (row, query) in (0..).zip(queries) {
        let turn = met.entry(*query).or_default();
        turns.push((*turn, row));
        *turn += 1;
    }
    turns.sort_unstable();
    turns.into_iter().map(|(_, row)| row).collect()
}

/// Of rows in an order, those of an item that did not come before.
fn first_of_each(db_idx: &[u64], rows: &[u32]) -> Vec<u32> {
    let mut met = HashSet::new();
    rows.iter().copied().filter(|row| met.insert(db_idx[*row as usize])).collect()
}

/// Queries at new places `(places, dim)`, under the names of those before; where there are more, under new names.
fn slots(queries: &DataFrame, vectors: ArrayView2<'_, f64>) -> Result<DataFrame> {
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
        bridge::embedding_column(vectors)?,
    ];
    DataFrame::new(vectors.nrows(), columns).doing("queries")
}

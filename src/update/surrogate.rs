//! A model of the scores chooses what to pay for: the `SurrogateUpdate` rule.

use std::collections::{HashMap, HashSet};

use ndarray::{Array1, ArrayView2, Axis};
use polars::prelude::{Column, DataFrame};
use rand::seq::{SliceRandom, index};

use super::QueryUpdate;
use super::gp::{Gp, median_squared_distance};
use super::ridge::Ridge;
use super::seen::{Seen, descending, median};
use crate::bridge::{self, Matrix};
use crate::database::VectorDatabase;
use crate::error::{Doing, Error, Result};
use crate::schema::{self, COLLECTION_IDX, DB_IDX, EMBEDDING, PARENT_IDX, QUERY_IDX, SCORE};
use crate::select::Select;
use crate::step::Step;

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
/// Rows of candidates in one search, at most: of each the embedding (4 bytes a component) and the attributes are in
/// memory at once. 768 components are 150 MB.
const CANDIDATES: usize = 50_000;
/// Rows of candidates that the model looks at in one go.
const BLOCK: usize = 8192;
/// Candidates of the highest posterior mean among which the samples choose.
const FRONT: usize = 300;
/// Other candidates that take part in it.
const OTHERS: usize = 64;
/// Variance of the noise, where that of the scores is 1.
const NOISE: f64 = 0.1;
/// The same for scores above their median.
const NOISE_ABOVE: f64 = 0.03;

/// Chooses the items worth paying for by a Gaussian process of the scores seen so far.
///
/// Each iteration asks the database for candidates, items that are booked left out: the neighbours of the 30 best items
/// (where fewer are better than half of the first 32, of random ones in their place) and of 8 random items, and the
/// items farthest along 4 directions in which a linear model sees the score grow (its posterior mean and three draws).
/// Of them it scores only a batch: each item is the best of a posterior sample of its own, of those not chosen yet
/// (Thompson sampling), whose deviation from the posterior mean shrinks as more scores are known. Both models are
/// fitted anew for every batch.
///
/// - *Batch*: 5 % of the items asked so far, at least 5 and at most 32, unless set. Small batches find more.
/// - *Start*: the nearest item of each starting query, then random items, until one in 2000 of the library was asked
///   (at least 16, at most 64) and one has a score.
/// - *Points*: at most 1000 unless set: the best half, the latest quarter, and a random quarter of the rest.
/// - *Kernel*: the mean of two squared exponentials, of lengths l and l / 2, where `l^2` is the median squared distance
///   of the points; noise 0.1, and 0.03 for the better half of the points, whose differences matter.
/// - *Targets*: scores cut from below at the median of the first 32, standardised, and from 3 deviations up only
///   logarithmic: differences among bad items and single huge scores do not shape the model.
/// - *No score*: an item that was rejected or failed counts as the worst: it is a point at the floor of the targets,
///   so that its neighbours are avoided, and never one of the best. Where more than half of the first 32 are such
///   items, the floor is the lowest score.
/// - *Reach*: 100 neighbours a query, whatever the database's `k`; where too few candidates pass a filter to fill
///   a batch, twice as many from then on, up to 50,000 rows in one search. Where none of so many passes, the next
///   search looks around random items only. What lets fewer pass than one in some thousands is better asked of the
///   database itself ([`LanceDatabase::prefilter`](crate::LanceDatabase::prefilter)).
///
/// Its queries have no path of their own: each iteration's are new places, in the same slots.
#[derive(Clone, Debug)]
pub struct SurrogateUpdate {
    batch: Option<usize>,
    points: usize,
    reach: usize,
    /// Whether the last search gave nothing, and cannot reach farther.
    barren: bool,
    seen: Seen,
}

impl Default for SurrogateUpdate {
    fn default() -> Self {
        SurrogateUpdate { batch: None, points: 1000, reach: REACH, barren: false, seen: Seen::default() }
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

    /// Items asked that the models are fitted to, at most (default 1000). Fitting takes time as the cube of it.
    pub fn points(mut self, points: usize) -> Self {
        self.points = points;
        self
    }

    /// Items of the next batch, and whether the model has no say in it.
    fn next_batch(&self, queries: usize, database: &dyn VectorDatabase) -> (usize, bool) {
        let (asked, (share, least, most)) = (self.seen.asked(), START);
        let start = (database.len() / share).clamp(least, most) as usize;
        let batch = self.batch.unwrap_or(match asked {
            0 => queries.max(least as usize),
            asked if asked < start => (start - asked).max(5),
            asked => (asked / 20).clamp(5, 32),
        });
        (batch, asked < start || self.seen.scored() == 0)
    }

    /// Neighbours that each of so many queries meets.
    fn reach(&self, queries: usize) -> usize {
        self.reach.min(widest(queries))
    }
}

/// Neighbours that each of so many queries meets at most.
fn widest(queries: usize) -> usize {
    (CANDIDATES / queries.max(1)).max(1)
}

impl QueryUpdate for SurrogateUpdate {
    fn k(&self, queries: usize) -> Option<usize> {
        Some(self.reach(queries))
    }

    fn revisits(&self) -> bool {
        false
    }

    fn selector(&self) -> Option<&dyn Select> {
        Some(self)
    }

    fn check(&self) -> Result<()> {
        if self.batch == Some(0) || self.points < 2 {
            let (key, least, found) = if self.batch == Some(0) { ("batch", 1, 0) } else { ("points", 2, self.points) };
            return Err(Error::Config(format!("update.{key}: expected at least {least}, found {found}")));
        }
        Ok(())
    }

    fn reset(&mut self) {
        *self = SurrogateUpdate { batch: self.batch, points: self.points, ..Self::default() };
    }

    fn observe(&mut self, step: &Step<'_>) -> Result<()> {
        let (queries, library) = (step.queries.height(), step.database.len().max(1) as usize);
        let (found, reach) = (step.results.height(), self.reach(queries));
        let (batch, _) = self.next_batch(queries, step.database);
        if found < batch.min(queries.saturating_mul(reach)) {
            self.reach = self.reach.saturating_mul(2).min(library).min(CANDIDATES);
        }
        self.barren = found == 0 && reach == widest(queries) && reach < library;
        let embeddings = finite(step.results)?;
        let (scores, db_idx) = (schema::scores(step.results, SCORE)?, schema::u64s(step.results, DB_IDX)?);
        for ((embedding, score), item) in embeddings.view().rows().into_iter().zip(scores).zip(db_idx) {
            self.seen.add(item, score, embedding);
        }
        Ok(())
    }

    fn update(&mut self, step: &Step<'_>) -> Result<DataFrame> {
        let (_, blind) = self.next_batch(step.queries.height(), step.database);
        let mut items = if blind || self.barren { Vec::new() } else { self.seen.best(BEST) };
        let random = BEST + RANDOM - items.len();
        items.extend(step.database.sample(random, &mut step.rng("surrogate places", 0))?);
        // A library smaller than that is gone round again, so that slots neither come nor go.
        let items: Vec<u64> = items.iter().copied().cycle().take(BEST + RANDOM).collect();
        let items = step.database.take(&items)?;
        let mut places = finite(&items)?.view().mapv(f64::from);
        let chosen = self.seen.chosen(self.points, &mut step.rng("surrogate points", 0));
        let ridge = Ridge::new(
            self.seen.points(&chosen, places.ncols()).view(),
            &self.seen.targets().select(Axis(0), &chosen),
        )?;
        let rng = &mut step.rng("surrogate directions", 0);
        for number in 0..DIRECTIONS {
            let direction = if number == 0 { ridge.weights() } else { ridge.sample(rng) };
            places.push_row(ridge.far_along(&direction).view()).doing("queries")?;
        }
        slots(step.queries, places.view())
    }
}

impl Select for SurrogateUpdate {
    fn select(&self, step: &Step<'_>) -> Result<DataFrame> {
        self.check()?;
        // Before anything is paid for.
        let embeddings = finite(step.results)?;
        let queries = schema::u32s(step.results, QUERY_IDX)?;
        let distinct: HashSet<u32> = queries.iter().copied().collect();
        let (batch, blind) = self.next_batch(distinct.len(), step.database);
        let pool = first_of_each(&schema::u64s(step.results, DB_IDX)?, &in_turn(&queries));
        let chosen = match blind {
            true => pool.into_iter().take(batch).collect(),
            false => self.choose(step, embeddings.view(), pool, batch)?,
        };
        bridge::gather(step.results, &chosen)
    }
}

impl SurrogateUpdate {
    /// The rows of the pool to be scored, the most promising first.
    fn choose(
        &self,
        step: &Step<'_>,
        embeddings: ArrayView2<'_, f32>,
        mut pool: Vec<u32>,
        batch: usize,
    ) -> Result<Vec<u32>> {
        let fitted = self.seen.chosen(self.points, &mut step.rng("surrogate points", 0));
        let points = self.seen.points(&fitted, embeddings.ncols());
        let squared_length = median_squared_distance(points.view());
        let targets = self.seen.targets().select(Axis(0), &fitted);
        let noise = noise(&targets);
        let model = Gp::new(points, targets, squared_length, &noise)?;
        let at = |rows: &[u32]| {
            let rows: Vec<usize> = rows.iter().map(|row| *row as usize).collect();
            embeddings.select(Axis(0), &rows).mapv(f64::from)
        };
        let rng = &mut step.rng("surrogate sample", 0);
        // So that among equals, as where all scores are the same, chance decides.
        pool.shuffle(rng);
        let means: Vec<f64> = pool.chunks(BLOCK).flat_map(|rows| model.mean(at(rows).view())).collect();
        let mut front: Vec<u32> = descending(&means).into_iter().map(|position| pool[position]).collect();
        let others = front.split_off(front.len().min(FRONT));
        front.extend(index::sample(rng, others.len(), OTHERS.min(others.len())).into_iter().map(|other| others[other]));
        let batch = batch.min(front.len());
        let samples = model.samples(at(&front).view(), batch, self.daring(), rng)?;
        let mut open = vec![true; front.len()];
        let best = samples.rows().into_iter().filter_map(|sample| {
            let best = (0..front.len()).filter(|row| open[*row]).max_by(|a, b| sample[*a].total_cmp(&sample[*b]))?;
            open[best] = false;
            Some(front[best])
        });
        Ok(best.collect())
    }

    /// How much of its deviation from the posterior mean a sample keeps: half at first, less as more scores are known.
    fn daring(&self) -> f64 {
        0.5 * (64.0 / self.seen.scored().max(1) as f64).sqrt().min(1.0)
    }
}

/// The embeddings of items `(items, dim)`.
///
/// # Errors
/// One that is not finite: no model could be fitted to it. Those that `uphill index` builds have none.
fn finite(items: &DataFrame) -> Result<Matrix<f32>> {
    let embeddings = bridge::matrix::<f32>(items, EMBEDDING)?;
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

/// The variance of each target's noise: less for those above the median, whose differences matter.
fn noise(targets: &Array1<f64>) -> Array1<f64> {
    let middle = median(&targets.to_vec());
    targets.mapv(|target| if target > middle { NOISE_ABOVE } else { NOISE })
}

/// Row numbers with the nearest item of each query first, then the second nearest of each, and so on.
fn in_turn(queries: &[u32]) -> Vec<u32> {
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
fn first_of_each(db_idx: &[u64], rows: &[u32]) -> Vec<u32> {
    let mut taken = HashSet::new();
    rows.iter().copied().filter(|row| taken.insert(db_idx[*row as usize])).collect()
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

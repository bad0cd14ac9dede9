//! How query vectors move: the `QueryUpdate` rules, in f64.

mod gp;
mod linalg;
mod ridge;
mod surrogate;

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering as Atomic};

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis};
use polars::prelude::DataFrame;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

pub use self::surrogate::SurrogateUpdate;
use crate::bridge;
use crate::database::VectorDatabase;
use crate::error::{Doing, Error, Result};
use crate::schema::{self, DB_IDX, DISTANCE, EMBEDDING, QUERY_IDX, SCORE};

/// One iteration, as a rule sees it.
pub struct Step<'a> {
    /// Counts from 0.
    pub iteration: u32,
    /// The queries that were asked.
    pub queries: &'a DataFrame,
    /// The scored frame: what they met.
    pub results: &'a DataFrame,
    /// The library.
    pub database: &'a dyn VectorDatabase,
    /// The run's seed.
    pub seed: u64,
}

impl Step<'_> {
    /// A random stream of its own for each (seed, stage, iteration, query_idx), so that
    /// neither threads nor resuming change what is drawn.
    pub fn rng(&self, stage: &str, query_idx: u32) -> ChaCha8Rng {
        stream(self.seed, stage, self.iteration, query_idx)
    }
}

/// The random stream of one (seed, stage, iteration, query_idx).
pub fn stream(seed: u64, stage: &str, iteration: u32, query_idx: u32) -> ChaCha8Rng {
    let mut key = blake3::Hasher::new();
    key.update(&seed.to_le_bytes()).update(stage.as_bytes()).update(&[0]);
    key.update(&iteration.to_le_bytes()).update(&query_idx.to_le_bytes());
    ChaCha8Rng::from_seed(*key.finalize().as_bytes())
}

/// What a rule may look at while it selects.
pub struct Context<'a> {
    /// Counts from 0.
    pub iteration: u32,
    /// The library.
    pub database: &'a dyn VectorDatabase,
    /// The run's seed.
    pub seed: u64,
}

impl Context<'_> {
    /// A random stream of its own for each (seed, stage, iteration).
    pub fn rng(&self, stage: &str) -> ChaCha8Rng {
        stream(self.seed, stage, self.iteration, 0)
    }
}

/// Gives the queries of the next iteration. Closures are rules:
/// `|step: &Step| Ok(step.queries.clone())`.
///
/// A rule that has a model of the score may also say which of the candidates that its queries
/// met are worth paying for ([`QueryUpdate::select`]).
pub trait QueryUpdate: Send {
    /// How many neighbours each query should meet; as many as the database gives by itself where `None`.
    fn k(&self) -> Option<usize> {
        None
    }

    /// Whether queries may meet items that this run has met before (default). Where not, each query
    /// meets its `k` nearest among the others.
    fn revisits(&self) -> bool {
        true
    }

    /// The candidates worth paying for, in the order to be asked: rows of the filtered results frame,
    /// unchanged. All of them where `None` (default).
    ///
    /// # Errors
    /// Whatever should stop the run.
    fn select(&self, _candidates: &DataFrame, _context: &Context<'_>) -> Result<Option<DataFrame>> {
        Ok(None)
    }

    /// Learns from a committed iteration. Called for each, in order; replayed on resume.
    ///
    /// # Errors
    /// Whatever should stop the run.
    fn observe(&mut self, _step: &Step<'_>) -> Result<()> {
        Ok(())
    }

    /// The next queries frame: the same columns, vectors moved.
    ///
    /// # Errors
    /// Whatever should stop the run.
    fn update(&mut self, step: &Step<'_>) -> Result<DataFrame>;
}

impl<F> QueryUpdate for F
where
    F: Fn(&Step<'_>) -> Result<DataFrame> + Send,
{
    fn update(&mut self, step: &Step<'_>) -> Result<DataFrame> {
        self(step)
    }
}

/// Moves each query up the score by policy gradient: items are actions, their whitened
/// scores the advantages, and the squared distance to the query the (negative) log-probability.
///
/// With the scores `s_i` and embeddings `e_i` of the n items that query `q` met:
///
/// ```text
/// a_i  = (s_i - mean(s)) / sqrt(var(s) + 1e-8)               var over n, not n - 1
/// g    = mean_i(a_i * 2 (q - e_i)) + p * 2 (q - mean(e))     p = penalty / lr, or penalty
/// q'   = q - lr * g
/// ```
///
/// A query that met nothing, or only failed items, stays. One item, or equal scores, have no
/// advantage: only the distance penalty moves the query. Under every metric the gradient is
/// that of the squared distance.
///
/// Source: emb_opt 0.0.2, `RLUpdate`.
#[derive(Clone, Debug)]
pub struct RlUpdate {
    lr: f64,
    distance_penalty: f64,
    scale_distance_penalty: bool,
}

impl RlUpdate {
    /// `lr` is the step length.
    pub fn new(lr: f64) -> Self {
        RlUpdate { lr, distance_penalty: 0.0, scale_distance_penalty: true }
    }

    /// How strongly a query is pulled to the mean of what it met (default 0).
    pub fn distance_penalty(mut self, penalty: f64) -> Self {
        self.distance_penalty = penalty;
        self
    }

    /// Whether the pull per step is the same for every `lr` (default), or grows with it.
    pub fn scale_distance_penalty(mut self, scale: bool) -> Self {
        self.scale_distance_penalty = scale;
        self
    }
}

impl QueryUpdate for RlUpdate {
    fn update(&mut self, step: &Step<'_>) -> Result<DataFrame> {
        let pull = if self.scale_distance_penalty { self.distance_penalty } else { self.distance_penalty * self.lr };
        move_queries(step, |query, met| {
            let advantages = whiten(&met.scores);
            let mut moved = query.to_owned();
            // q - e_i, and from it both terms of the gradient.
            let mut gradient = Array1::zeros(query.len());
            let mut away = Array1::zeros(query.len());
            for (embedding, advantage) in met.embeddings.rows().into_iter().zip(&advantages) {
                let difference = &query - &embedding;
                gradient.scaled_add(2.0 * advantage, &difference);
                away += &difference;
            }
            let n = advantages.len() as f64;
            moved.scaled_add(-self.lr / n, &gradient);
            moved.scaled_add(-2.0 * pull / n, &away);
            moved
        })
    }
}

/// Scores with mean 0 and (population) variance 1; zeros where all are equal.
fn whiten(scores: &[f64]) -> Vec<f64> {
    let n = scores.len() as f64;
    // Scores near the largest f64 are brought down first, or their squares would overflow.
    let largest = scores.iter().fold(0.0f64, |largest, score| largest.max(score.abs()));
    let scale = if largest > 1e100 { largest } else { 1.0 };
    let scaled: Vec<f64> = scores.iter().map(|score| score / scale).collect();
    let mean = scaled.iter().sum::<f64>() / n;
    let variance = scaled.iter().map(|score| (score - mean).powi(2)).sum::<f64>() / n;
    let deviation = (variance + 1e-8).sqrt();
    scaled.iter().map(|score| (score - mean) / deviation).collect()
}

/// Moves each query to the mean of the best `k` items it met.
///
/// The best are those of the highest score; ties go to the nearer item, then to the lower
/// `db_idx`. With score weighting the weights are the scores. Where one of them is negative, or
/// their sum is zero, the weights are the scores less the lowest among the k (or equal, if all
/// are the same): the mean stays inside the hull of the items. A warning says so once.
///
/// A query that met nothing, or only failed items, stays.
///
/// Source: emb_opt 0.0.2, `TopKUpdate`.
#[derive(Debug)]
pub struct TopKUpdate {
    k: usize,
    score_weighting: bool,
    warned: AtomicBool,
}

impl TopKUpdate {
    /// `k` items, weighted by score.
    pub fn new(k: usize) -> Self {
        TopKUpdate { k, score_weighting: true, warned: AtomicBool::new(false) }
    }

    /// Whether better items weigh more (default), or all the same.
    pub fn score_weighting(mut self, weighting: bool) -> Self {
        self.score_weighting = weighting;
        self
    }

    fn weights(&self, scores: &[f64]) -> Vec<f64> {
        let lowest = scores.iter().copied().fold(f64::INFINITY, f64::min);
        if !self.score_weighting || scores.iter().all(|score| *score == lowest) {
            return vec![1.0; scores.len()];
        }
        if lowest >= 0.0 {
            return scores.to_vec();
        }
        if !self.warned.swap(true, Atomic::Relaxed) {
            log::warn!(
                "top-k: some scores are negative (such as {lowest}); their lowest is subtracted to weigh by them"
            );
        }
        scores.iter().map(|score| score - lowest).collect()
    }
}

impl QueryUpdate for TopKUpdate {
    fn update(&mut self, step: &Step<'_>) -> Result<DataFrame> {
        if self.k == 0 {
            return Err(Error::Config("update.k: expected at least 1, found 0".into()));
        }
        move_queries(step, |_, met| {
            let mut order: Vec<usize> = (0..met.scores.len()).collect();
            order.sort_by(|&a, &b| met.better(a, b));
            order.truncate(self.k);
            let scores: Vec<f64> = order.iter().map(|row| met.scores[*row]).collect();
            let weights = self.weights(&scores);
            let total: f64 = weights.iter().sum();
            let mut mean = Array1::zeros(met.embeddings.ncols());
            for (row, weight) in order.iter().zip(&weights) {
                mean.scaled_add(weight / total, &met.embeddings.row(*row));
            }
            mean
        })
    }
}

/// What one query met and was scored, in the order of the results.
struct Met {
    scores: Vec<f64>,
    distances: Vec<f32>,
    db_idx: Vec<u64>,
    embeddings: Array2<f64>,
}

impl Met {
    fn better(&self, a: usize, b: usize) -> Ordering {
        let by_score = self.scores[b].total_cmp(&self.scores[a]);
        by_score.then(self.distances[a].total_cmp(&self.distances[b])).then(self.db_idx[a].cmp(&self.db_idx[b]))
    }
}

/// Applies a rule to each query that met scored items; the others stay.
fn move_queries(step: &Step<'_>, rule: impl Fn(ArrayView1<'_, f64>, &Met) -> Array1<f64>) -> Result<DataFrame> {
    let query_idx = schema::u32s(step.queries, QUERY_IDX)?;
    let vectors = bridge::matrix::<f64>(step.queries, EMBEDDING)?;
    let mut moved = vectors.view().to_owned();
    let embeddings = bridge::matrix::<f32>(step.results, EMBEDDING)?;
    let (scores, db_idx) = (schema::scores(step.results, SCORE)?, schema::u64s(step.results, DB_IDX)?);
    let distances = step.results.column(DISTANCE).doing("update")?.f32().doing("update")?;
    let distances: Vec<f32> = distances.into_no_null_iter().collect();

    let mut rows_of: HashMap<u32, Vec<usize>> = HashMap::new();
    for (row, query) in schema::u32s(step.results, QUERY_IDX)?.into_iter().enumerate() {
        if scores[row].is_some() {
            rows_of.entry(query).or_default().push(row);
        }
    }
    for (position, query) in query_idx.iter().enumerate() {
        let Some(rows) = rows_of.get(query) else { continue };
        let met = Met {
            scores: rows.iter().filter_map(|row| scores[*row]).collect(),
            distances: rows.iter().map(|row| distances[*row]).collect(),
            db_idx: rows.iter().map(|row| db_idx[*row]).collect(),
            embeddings: embeddings.view().select(Axis(0), rows).mapv(f64::from),
        };
        let next = rule(vectors.view().row(position), &met);
        moved.row_mut(position).assign(&next);
    }
    next_queries(step.queries, moved.view())
}

/// The same queries with other vectors; each is its own parent.
pub fn next_queries(queries: &DataFrame, vectors: ArrayView2<'_, f64>) -> Result<DataFrame> {
    let mut next = queries.clone();
    let parents = queries.column(QUERY_IDX).doing("queries")?.clone().with_name(schema::PARENT_IDX.into());
    next.with_column(parents).doing("queries")?;
    next.with_column(bridge::embedding_column(vectors)?).doing("queries")?;
    Ok(next)
}

/// What scikit-learn makes of the models, as `tests/surrogate/generate.py` wrote it.
#[cfg(test)]
mod fixture {
    use ndarray::Array2;
    use serde_json::Value;

    fn field(name: &str) -> Value {
        let all: Value = serde_json::from_str(include_str!("../tests/surrogate/models.json")).expect("JSON");
        all[name].clone()
    }

    /// A vector; of one number if it is one.
    pub fn vector(name: &str) -> Vec<f64> {
        let field = field(name);
        let numbers = field.as_array().cloned().unwrap_or_else(|| vec![field]);
        numbers.iter().map(|number| number.as_f64().expect("a number")).collect()
    }

    pub fn matrix(name: &str) -> Array2<f64> {
        let rows: Vec<Vec<f64>> = serde_json::from_value(field(name)).expect("a matrix");
        let shape = (rows.len(), rows[0].len());
        Array2::from_shape_vec(shape, rows.concat()).expect("a matrix")
    }
}

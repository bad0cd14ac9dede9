//! Observations: the evaluated items with their scores and vectors, and the training sets selected from them.

use std::collections::{HashMap, HashSet};

use ndarray::{Array1, Array2, Axis};

use super::batch::ObservedBatch;
use super::few_values::{self, FewValues};
use super::ranks::argsort_descending;
use super::target_scale::TargetScale;
use super::targets::{Baseline, noise_threshold, targets};
use crate::error::{Error, Result};

/// The evaluated items, in the order of observation. The score of an item that was rejected or failed is minus infinity.
#[derive(Clone, Debug)]
pub(super) struct Observations {
    /// The configured maximum size of training sets.
    pub max_points: usize,
    /// Whether the user announced that the scores have few values.
    announces_few_values: bool,
    ids: Vec<u64>,
    scores: Vec<f64>,
    /// Row-major, `(items, width)`.
    vectors: Vec<f32>,
    row_of_id: HashMap<u64, usize>,
    /// Items whose scores are reused from earlier runs.
    reused: HashSet<u64>,
    /// The number of observations with reused scores.
    reused_count: usize,
    /// The distinct scores, if there are few.
    few_values: Option<FewValues>,
}

impl Default for Observations {
    fn default() -> Self {
        Observations {
            max_points: 1000,
            announces_few_values: false,
            ids: Vec::new(),
            scores: Vec::new(),
            vectors: Vec::new(),
            row_of_id: HashMap::new(),
            reused: HashSet::new(),
            reused_count: 0,
            few_values: None,
        }
    }
}

impl Observations {
    /// Checks the settings.
    ///
    /// # Errors
    /// A maximum size of training sets below 2.
    pub fn check(&self) -> Result<()> {
        match self.max_points {
            0 | 1 => Err(Error::Config(format!("update.points: expected at least 2, found {}", self.max_points))),
            _ => Ok(()),
        }
    }

    /// Starts a run that reuses the scores of the items with these ids, and whose scores may be announced to have few values.
    pub fn begin(&mut self, reused: &[u64], announces_few_values: bool) {
        let reused = reused.iter().copied().collect();
        let max_points = self.max_points;
        *self = Observations { max_points, announces_few_values, reused, ..Observations::default() };
    }

    /// Adds a batch. If an item was observed before, only its score is updated.
    pub fn add(&mut self, batch: &ObservedBatch) {
        for ((vector, score), id) in batch.vectors.rows().into_iter().zip(&batch.scores).zip(&batch.ids) {
            let score = score.unwrap_or(f64::NEG_INFINITY);
            match self.row_of_id.get(id) {
                Some(row) => self.scores[*row] = score,
                None => {
                    self.row_of_id.insert(*id, self.ids.len());
                    self.ids.push(*id);
                    self.scores.push(score);
                    self.vectors.extend(vector);
                    self.reused_count += usize::from(self.is_reused(*id));
                }
            }
        }
        self.few_values = FewValues::detect(&self.scores, self.baseline(), self.announces_few_values);
    }

    /// The number of observed items, with a score or without.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// The number of observed items that have a score.
    pub fn scored_count(&self) -> usize {
        self.scores.iter().filter(|score| score.is_finite()).count()
    }

    /// The distinct scores, if there are few.
    pub fn few_values(&self) -> Option<&FewValues> {
        self.few_values.as_ref()
    }

    /// Whether a model has nothing to learn, because no item has a score, or some items have and all these scores are equal.
    pub fn are_scores_equal(&self) -> bool {
        few_values::are_equal(&self.scores)
    }

    /// Whether an item was observed.
    pub fn contains(&self, id: u64) -> bool {
        self.row_of_id.contains_key(&id)
    }

    /// The score of an observed item, if it has one.
    pub fn score(&self, id: u64) -> Option<f64> {
        self.row_of_id.get(&id).map(|row| self.scores[*row]).filter(|score| score.is_finite())
    }

    /// Whether the score of an item is reused from an earlier run.
    pub fn is_reused(&self, id: u64) -> bool {
        self.reused.contains(&id)
    }

    /// The rows of the best items, the best first: at most `max`, and only those above the baseline score. If the scores have few
    /// values, only those above the lowest, and the latest first of those with equal scores.
    pub fn best_rows(&self, max: usize) -> Vec<usize> {
        let (mut order, mut baseline) = (argsort_descending(&self.scores), self.baseline().score(&self.scores));
        if let Some(few_values) = &self.few_values {
            order.sort_by(|a, b| self.scores[*b].total_cmp(&self.scores[*a]).then(b.cmp(a)));
            baseline = few_values.lowest();
        }
        order.into_iter().take(max).filter(|row| self.scores[*row] > baseline).collect()
    }

    /// The ids of the best items, selected as in [`Observations::best_rows`].
    pub fn best_ids(&self, max: usize) -> Vec<u64> {
        self.best_rows(max).into_iter().map(|row| self.ids[row]).collect()
    }

    /// The id of the best item. `None` if no item has a score.
    pub fn top_id(&self) -> Option<u64> {
        let row = argsort_descending(&self.scores).into_iter().next().filter(|row| self.scores[*row].is_finite())?;
        Some(self.ids[row])
    }

    /// The scores of all items that have one, in descending order.
    pub fn sorted_scores(&self) -> Vec<f64> {
        let mut scores: Vec<f64> = self.scores.iter().copied().filter(|score| score.is_finite()).collect();
        scores.sort_by(|a, b| b.total_cmp(a));
        scores
    }

    /// The score above which scores have less noise.
    pub fn noise_threshold(&self) -> f64 {
        noise_threshold(&self.scores, self.baseline())
    }

    /// Vectors of rows, `(rows, width)`.
    pub fn vectors(&self, rows: &[usize], width: usize) -> Array2<f32> {
        let mut values = Vec::with_capacity(rows.len() * width);
        rows.iter().for_each(|row| values.extend_from_slice(&self.vectors[row * width..(row + 1) * width]));
        Array2::from_shape_vec((rows.len(), width), values).unwrap_or_default()
    }

    /// The training set of the models. It contains all observations, or if there are more than `max_points`, a selection: the
    /// best half, the latest quarter and random others. Items without a score are never selected as best.
    ///
    /// The selection changes little from batch to batch, so that the models can reuse most of their work. It is made again after
    /// every eighth of `max_points` new observations, which are added to the training set in between. The random others have the
    /// smallest hashes of their ids, so that most of them are selected again.
    pub fn training_set(&self, seed: u64) -> TrainingSet<'_> {
        TrainingSet { observations: self, rows: self.training_rows(self.max_points, seed), seed }
    }

    fn training_rows(&self, max: usize, seed: u64) -> Vec<usize> {
        let n = self.len();
        if n <= max {
            return (0..n).collect();
        }
        let interval = (max / 8).max(1);
        let added = (n - max) % interval;
        let mut rows = self.select_rows(n - added, max - (interval - 1), seed);
        rows.extend(n - added..n);
        rows
    }

    /// Selects `max` of the first `n` rows.
    fn select_rows(&self, n: usize, max: usize, seed: u64) -> Vec<usize> {
        let mut is_selected = vec![false; n];
        let best = argsort_descending(&self.scores[..n]).into_iter();
        let best = best.take(max / 2).filter(|row| self.scores[*row].is_finite());
        best.chain(n - max / 4..n).for_each(|row| is_selected[row] = true);
        let mut others: Vec<usize> = (0..n).filter(|row| !is_selected[*row]).collect();
        let missing = (max - (n - others.len())).min(others.len());
        others.sort_by_key(|row| (splitmix64(seed ^ splitmix64(self.ids[*row])), *row));
        others.into_iter().take(missing).for_each(|row| is_selected[row] = true);
        (0..n).filter(|row| is_selected[*row]).collect()
    }

    fn baseline(&self) -> Baseline {
        Baseline::new(self.reused_count)
    }
}

/// The observations that a model is fitted to, in the order of observation.
pub(super) struct TrainingSet<'a> {
    pub observations: &'a Observations,
    rows: Vec<usize>,
    seed: u64,
}

impl TrainingSet<'_> {
    /// The number of items.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// The ids of the items.
    pub fn ids(&self) -> Vec<u64> {
        self.rows.iter().map(|row| self.observations.ids[*row]).collect()
    }

    /// The scores of the items. Minus infinity for items without a score.
    pub fn scores(&self) -> Vec<f64> {
        self.rows.iter().map(|row| self.observations.scores[*row]).collect()
    }

    /// The vectors of the items, `(n, width)`.
    pub fn vectors(&self, width: usize) -> Array2<f32> {
        self.observations.vectors(&self.rows, width)
    }

    /// The targets of the items, standardised over all observations.
    pub fn targets(&self) -> Array1<f64> {
        self.targets_and_scale(0.0).0
    }

    /// The targets of the items, and the relation between scores and targets. Continuous scores above the `noise_threshold` have
    /// less noise.
    pub fn targets_and_scale(&self, noise_threshold: f64) -> (Array1<f64>, TargetScale) {
        let scores = &self.observations.scores;
        let (targets, scale) = match self.observations.few_values() {
            Some(few_values) => (few_values.targets(scores), TargetScale::FewValues(few_values.clone())),
            None => {
                let (targets, transform) = targets(scores, self.baseline());
                (targets, TargetScale::Continuous { transform, noise_threshold })
            }
        };
        (targets.select(Axis(0), &self.rows), scale)
    }

    /// The baseline of the observations.
    pub fn baseline(&self) -> Baseline {
        self.observations.baseline()
    }

    /// The training set of the items at some positions.
    pub fn select(&self, positions: &[usize]) -> Self {
        let rows = positions.iter().map(|position| self.rows[*position]).collect();
        TrainingSet { observations: self.observations, rows, seed: self.seed }
    }

    /// The positions of the items that form a smaller training set of at most `max` items.
    pub fn subset(&self, max: usize) -> Vec<usize> {
        let max = max.min(self.observations.max_points);
        let rows = self.observations.training_rows(max, self.seed);
        rows.iter().filter_map(|row| self.rows.binary_search(row).ok()).collect()
    }
}

/// The splitmix64 hash of a number.
fn splitmix64(number: u64) -> u64 {
    let z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

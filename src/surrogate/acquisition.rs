//! Acquisition: chooses the items of a batch. Once there is a posterior, by Thompson sampling.

use ndarray::{ArrayView2, Axis};
use rand::RngExt;
use rand::seq::{SliceRandom, index};

use super::observations::Observations;
use super::posterior::{FittedGp, Posterior};
use super::ranks::argsort_descending;
use super::targets::Prediction;
use crate::error::Result;
use crate::random::RandomStream;

/// The number of candidates whose means are computed at a time.
const BLOCK: usize = 8192;
/// The number of candidates with the highest posterior mean that take part in the sampling.
pub(super) const TOP_CANDIDATES: usize = 300;
/// The number of other, random candidates that take part in the sampling.
pub(super) const RANDOM_CANDIDATES: usize = 64;
/// The number of candidates with the highest posterior mean that take part in the sampling outside of the peak.
pub(super) const TOP_OUTSIDE: usize = 100;

/// An item that was chosen for a batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Choice {
    /// Its row among the candidates.
    pub row: usize,
    /// How it was chosen. `None` for an item with a reused score.
    pub chosen_by: Option<ChosenBy>,
    /// The prediction of the GP that chose it. `None` in the random start, and if the expected score is at or below the floor of
    /// the targets.
    pub prediction: Option<Prediction>,
}

/// How an item of a batch was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChosenBy {
    /// As a neighbour of a starting query.
    Start,
    /// By a sample of the GP of all observations, from the candidates of the highest mean.
    Model,
    /// By a sample of the GP outside of the peak.
    Outside,
    /// At random: in the random start, or as a random candidate that was the best in a sample.
    Random,
}

impl ChosenBy {
    /// The value in the column `chosen_by`.
    pub fn name(self) -> &'static str {
        match self {
            ChosenBy::Start => "start",
            ChosenBy::Model => "model",
            ChosenBy::Outside => "elsewhere",
            ChosenBy::Random => "random",
        }
    }
}

/// Chooses a batch of the random start from the ids of candidates: first all items with reused scores, which cost nothing, then
/// other items in their order. `chosen_by` says how the other items were chosen.
pub(super) fn choose_start(
    ids: &[u64],
    observations: &Observations,
    batch_size: usize,
    chosen_by: ChosenBy,
) -> Vec<Choice> {
    let (reused, others): (Vec<usize>, Vec<usize>) = (0..ids.len()).partition(|row| observations.is_reused(ids[*row]));
    let missing = batch_size.saturating_sub(reused.len());
    let reused = reused.into_iter().map(|row| (row, None));
    let choices = reused.chain(others.into_iter().take(missing).map(|row| (row, Some(chosen_by))));
    choices.map(|(row, chosen_by)| Choice { row, chosen_by, prediction: None }).collect()
}

/// Chooses a batch by the posterior from candidates with vectors `(candidates, width)`, the most promising first.
///
/// # Errors
/// Vectors that are not finite.
pub(super) fn choose_batch(
    posterior: &Posterior,
    vectors: ArrayView2<'_, f32>,
    batch_size: usize,
    rng: &mut RandomStream,
) -> Result<Vec<Choice>> {
    let points_f32 = posterior.points(vectors);
    let points = points_f32.mapv(f64::from);
    let batch_size = batch_size.min(points.nrows());
    let probability = posterior.outside_probability();
    let outside_count = (0..batch_size).filter(|_| rng.random_bool(probability)).count().min(batch_size.div_ceil(2));
    let mut rows: Vec<usize> = (0..points.nrows()).collect();
    // The order decides between candidates of equal mean, so it must be random: all means are equal if all scores are.
    rows.shuffle(rng);
    let mut choices = Vec::with_capacity(batch_size);
    let choose_by_all = |count, choices: &mut Vec<Choice>, rng: &mut RandomStream| {
        let pool = CandidatePool {
            rows: &rows,
            top_count: TOP_CANDIDATES,
            random_count: RANDOM_CANDIDATES,
            chosen_by: ChosenBy::Model,
        };
        sample_choices(&posterior.all, points.view(), pool, count, choices, rng)
    };
    choose_by_all(batch_size - outside_count, &mut choices, rng)?;
    if let (Some(fitted), Some(is_outside)) = (&posterior.outside, posterior.is_outside(points_f32.view())) {
        let rows: Vec<usize> = rows.iter().copied().filter(|row| is_outside[*row]).collect();
        let pool = CandidatePool { rows: &rows, top_count: TOP_OUTSIDE, random_count: 0, chosen_by: ChosenBy::Outside };
        sample_choices(fitted, points.view(), pool, outside_count, &mut choices, rng)?;
    }
    // There may be too few candidates outside of the peak.
    let missing = batch_size - choices.len();
    choose_by_all(missing, &mut choices, rng)?;
    Ok(choices)
}

/// The candidates of one round of Thompson sampling, before the highest means and the random others are selected.
struct CandidatePool<'a> {
    /// The rows of all candidates.
    rows: &'a [usize],
    /// The number of candidates with the highest posterior mean to take.
    top_count: usize,
    /// The number of other, random candidates to take.
    random_count: usize,
    /// How an item among the candidates of the highest mean counts as chosen.
    chosen_by: ChosenBy,
}

/// Thompson sampling: adds `count` choices. Each is the best candidate of its own posterior sample among those not chosen yet.
fn sample_choices(
    fitted: &FittedGp,
    points: ArrayView2<'_, f64>,
    pool: CandidatePool<'_>,
    count: usize,
    choices: &mut Vec<Choice>,
    rng: &mut RandomStream,
) -> Result<()> {
    let is_chosen = |row: usize| choices.iter().any(|choice| choice.row == row);
    let rows: Vec<usize> = pool.rows.iter().copied().filter(|row| !is_chosen(*row)).collect();
    let count = count.min(rows.len());
    if count == 0 {
        return Ok(());
    }
    let points_of = |rows: &[usize]| points.select(Axis(0), rows);
    let means: Vec<f64> = rows.chunks(BLOCK).flat_map(|rows| fitted.gp.mean(points_of(rows).view())).collect();
    let mut candidates: Vec<usize> = argsort_descending(&means).into_iter().map(|position| rows[position]).collect();
    let others = candidates.split_off(candidates.len().min(pool.top_count.max(count)));
    let top_count = candidates.len();
    let random = index::sample(rng, others.len(), pool.random_count.min(others.len()));
    candidates.extend(random.into_iter().map(|position| others[position]));
    let samples = fitted.gp.samples(points_of(&candidates).view(), count, fitted.sample_scale, rng)?;
    let mut is_open = vec![true; candidates.len()];
    for sample in samples.draws.rows() {
        let open = (0..candidates.len()).filter(|position| is_open[*position]);
        let Some(position) = open.max_by(|a, b| sample[*a].total_cmp(&sample[*b])) else { break };
        is_open[position] = false;
        let chosen_by = if position < top_count { pool.chosen_by } else { ChosenBy::Random };
        let prediction = fitted.predict(samples.mean[position], samples.variance[position]);
        choices.push(Choice { row: candidates[position], chosen_by: Some(chosen_by), prediction });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_takes_reused_scores_first_and_fills_up_with_the_others_in_their_order() {
        let mut observations = Observations::default();
        observations.begin(&[7, 3], false);
        let reused = |row| Choice { row, chosen_by: None, prediction: None };
        let random = Choice { chosen_by: Some(ChosenBy::Random), ..reused(0) };
        let choose = |count| choose_start(&[5, 3, 9, 7, 8], &observations, count, ChosenBy::Random);
        assert_eq!(choose(3), [reused(1), reused(3), random]);
        assert_eq!(choose(1), [reused(1), reused(3)]);
    }
}

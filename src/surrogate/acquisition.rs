//! Acquisition: chooses the items of a batch, by Thompson sampling once there is a posterior.

use ndarray::{ArrayView2, Axis};
use rand::RngExt;
use rand::seq::{SliceRandom, index};

use super::observations::Observations;
use super::posterior::{FittedProcess, Posterior, Prediction};
use super::ranks::descending;
use crate::error::Result;
use crate::random::RandomStream;

/// Rows of candidates whose means are computed at a time.
const BLOCK: usize = 8192;
/// Candidates of the highest posterior mean that take part in the sampling.
pub(super) const FRONT: usize = 300;
/// Random other candidates that take part in it.
pub(super) const RANDOM: usize = 64;
/// Candidates of the highest posterior mean outside of the peak that take part in the sampling there.
pub(super) const FRONT_OUTSIDE: usize = 100;

/// An item that was chosen for a batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Choice {
    /// Its row among the candidates.
    pub row: usize,
    /// What chose it. `None` for an item with a reused score.
    pub chosen_by: Option<ChosenBy>,
    /// The prediction of the process that chose it. `None` in the random start, and if the process expects so low a score that
    /// it does not tell how low.
    pub prediction: Option<Prediction>,
}

/// What chose an item of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChosenBy {
    /// A starting query: the item is one of its neighbours.
    Start,
    /// A sample of the process of all observations, among the candidates of the highest mean.
    Model,
    /// A sample of the process outside of the peak.
    Outside,
    /// Chance: the item is one of the random start, or a random candidate that was the best of a sample.
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

/// Chooses a batch of the random start from candidates, by id: items with reused scores, which cost nothing, then the others
/// in their order. `chosen_by` is what found the others.
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
    // The order decides between equal candidates, as where all scores are the same: it is random.
    rows.shuffle(rng);
    let mut choices = Vec::with_capacity(batch_size);
    let from_all = |count, choices: &mut Vec<Choice>, rng: &mut RandomStream| {
        let candidates = Front { rows: &rows, size: FRONT, random: RANDOM, chosen_by: ChosenBy::Model };
        sample_choices(&posterior.all, points.view(), candidates, count, choices, rng)
    };
    from_all(batch_size - outside_count, &mut choices, rng)?;
    if let (Some(process), Some(is_outside)) = (&posterior.outside, posterior.is_outside(points_f32.view())) {
        let rows: Vec<usize> = rows.iter().copied().filter(|row| is_outside[*row]).collect();
        let candidates = Front { rows: &rows, size: FRONT_OUTSIDE, random: 0, chosen_by: ChosenBy::Outside };
        sample_choices(process, points.view(), candidates, outside_count, &mut choices, rng)?;
    }
    // There may be too few candidates outside of the peak.
    let missing = batch_size - choices.len();
    from_all(missing, &mut choices, rng)?;
    Ok(choices)
}

/// The candidates of one round of Thompson sampling.
struct Front<'a> {
    /// All rows that may take part.
    rows: &'a [usize],
    /// How many rows of the highest posterior mean take part.
    size: usize,
    /// How many random other rows take part.
    random: usize,
    /// What chooses among the rows of the highest mean.
    chosen_by: ChosenBy,
}

/// Thompson sampling: adds `count` candidates to the choices, each the best of a posterior sample of its own among those that
/// are not chosen yet.
fn sample_choices(
    process: &FittedProcess,
    points: ArrayView2<'_, f64>,
    candidates: Front<'_>,
    count: usize,
    choices: &mut Vec<Choice>,
    rng: &mut RandomStream,
) -> Result<()> {
    let is_chosen = |row: usize| choices.iter().any(|choice| choice.row == row);
    let rows: Vec<usize> = candidates.rows.iter().copied().filter(|row| !is_chosen(*row)).collect();
    let count = count.min(rows.len());
    if count == 0 {
        return Ok(());
    }
    let points_of = |rows: &[usize]| points.select(Axis(0), rows);
    let means: Vec<f64> = rows.chunks(BLOCK).flat_map(|rows| process.gp.mean(points_of(rows).view())).collect();
    let mut front: Vec<usize> = descending(&means).into_iter().map(|position| rows[position]).collect();
    let rest = front.split_off(front.len().min(candidates.size.max(count)));
    let front_size = front.len();
    let random = index::sample(rng, rest.len(), candidates.random.min(rest.len()));
    front.extend(random.into_iter().map(|position| rest[position]));
    let samples = process.gp.samples(points_of(&front).view(), count, process.sample_scale, rng)?;
    let mut is_open = vec![true; front.len()];
    for sample in samples.draws.rows() {
        let open = (0..front.len()).filter(|position| is_open[*position]);
        let Some(position) = open.max_by(|a, b| sample[*a].total_cmp(&sample[*b])) else { break };
        is_open[position] = false;
        let chosen_by = if position < front_size { candidates.chosen_by } else { ChosenBy::Random };
        let prediction = process.predict(samples.mean[position], samples.variance[position]);
        choices.push(Choice { row: front[position], chosen_by: Some(chosen_by), prediction });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_takes_reused_scores_first_and_fills_up_with_the_others_in_their_order() {
        let mut observations = Observations::default();
        observations.begin(&[7, 3]);
        let reused = |row| Choice { row, chosen_by: None, prediction: None };
        let random = Choice { chosen_by: Some(ChosenBy::Random), ..reused(0) };
        let choose = |count| choose_start(&[5, 3, 9, 7, 8], &observations, count, ChosenBy::Random);
        assert_eq!(choose(3), [reused(1), reused(3), random]);
        assert_eq!(choose(1), [reused(1), reused(3)]);
    }
}

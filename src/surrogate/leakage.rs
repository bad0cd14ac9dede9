//! Whether a column says the score nearly by itself: then it may be what the score is made of.

use ndarray::ArrayView1;

/// Items with a score below which chance alone may order them so.
const FROM: usize = 20;
/// The rank correlation, with either sign, from which a column is named.
const NEARLY_ALL: f64 = 0.995;

/// The rank correlation (Spearman's) of the values of a column with scores, if it says nearly all about them. Scores that
/// are not finite, and their values, are passed over.
pub(super) fn giveaway(values: ArrayView1<'_, f32>, scores: &[f64]) -> Option<f64> {
    let scored = values.iter().zip(scores).filter(|(_, score)| score.is_finite());
    let (values, scores): (Vec<f64>, Vec<f64>) = scored.map(|(value, score)| (f64::from(*value), *score)).unzip();
    if scores.len() < FROM {
        return None;
    }
    let (a, b) = (ranks(&values), ranks(&scores));
    let middle = (scores.len() as f64 - 1.0) / 2.0;
    let sum = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - middle) * (b - middle)).sum::<f64>();
    let correlation = sum(&a, &b) / (sum(&a, &a) * sum(&b, &b)).sqrt();
    Some(correlation).filter(|correlation| correlation.abs() >= NEARLY_ALL)
}

/// The place of each value in their order from 0, equal ones at the mean of theirs.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
    let mut ranks = vec![0.0; values.len()];
    let mut place = 0;
    for equal in order.chunk_by(|a, b| values[*a] == values[*b]) {
        let mean = place as f64 + (equal.len() as f64 - 1.0) / 2.0;
        equal.iter().for_each(|at| ranks[*at] = mean);
        place += equal.len();
    }
    ranks
}

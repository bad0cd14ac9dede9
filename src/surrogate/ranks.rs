//! Argsort and ranks.

/// The positions that sort values in descending order. Equal values keep their order.
pub(super) fn argsort_descending(values: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*b].total_cmp(&values[*a]));
    order
}

/// The rank of each value in ascending order, from 0. Equal values share their mean rank.
pub(super) fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
    let mut ranks = vec![0.0; values.len()];
    let mut next_rank = 0;
    for ties in order.chunk_by(|a, b| values[*a] == values[*b]) {
        let mean = next_rank as f64 + (ties.len() as f64 - 1.0) / 2.0;
        ties.iter().for_each(|position| ranks[*position] = mean);
        next_rank += ties.len();
    }
    ranks
}

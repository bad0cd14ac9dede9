//! Niching: finds the peak that the best items lie on, and sends a part of each batch outside of it to find other peaks.

use ndarray::{Array1, ArrayView2, Axis};
use rayon::prelude::*;

use super::observations::Observations;
use super::ranks::descending;

/// Scored items before niching starts: one in so many items of the library, at least and at most so many.
const MIN_SCORED: (u64, u64, u64) = (100, 100, 300);
/// The part of the library that belongs to the peak.
const PEAK_PART: f64 = 0.1;
/// The number of items whose mean is the centre of the peak.
const PEAK_ITEMS: usize = 10;
/// Counts are multiplied by this after each batch.
const DECAY: f64 = 0.8;
/// An item is a success if its score is among the best of all scores: one in so many.
const SUCCESS_PART: usize = 20;
/// The largest part of a batch that is chosen outside of the peak.
const MAX_OUTSIDE: f64 = 0.5;

/// The peak, and the success rates on it and outside of it.
///
/// The peak is the tenth of the library that is nearest to the mean of 10 items: those of the best quarter of the scored items
/// that are nearest to the best item. An item counts as a success if it is among the best twentieth of all scores so far. The
/// counts on the peak and outside shrink by a fifth with each batch. With the success rates
/// `r = (successes + 0.2) / (successes + failures + 2)` an item of a batch is chosen outside of the peak with probability
/// `r_outside^2 / (r_peak^2 + r_outside^2)`, at most a half.
#[derive(Clone, Debug)]
pub(super) struct Niching {
    min_scored: usize,
    peak: Option<Peak>,
    counts_on_peak: Counts,
    counts_outside: Counts,
}

#[derive(Clone, Debug)]
struct Peak {
    centre: Array1<f32>,
    squared_radius: f32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    successes: f64,
    failures: f64,
}

impl Counts {
    fn success_rate(self) -> f64 {
        (self.successes + 0.2) / (self.successes + self.failures + 2.0)
    }

    fn add(&mut self, is_success: bool) {
        *(if is_success { &mut self.successes } else { &mut self.failures }) += 1.0;
    }

    fn decay(&mut self) {
        self.successes *= DECAY;
        self.failures *= DECAY;
    }
}

impl Default for Niching {
    fn default() -> Self {
        Niching::new(0)
    }
}

impl Niching {
    /// Niching in a library of so many items.
    pub fn new(library_size: u64) -> Self {
        let (share, least, most) = MIN_SCORED;
        Niching {
            min_scored: (library_size / share).clamp(least, most) as usize,
            peak: None,
            counts_on_peak: Counts::default(),
            counts_outside: Counts::default(),
        }
    }

    /// Whether each of the points `(items, components)` is outside of the peak. `None` while there is no peak.
    pub fn outside(&self, points: ArrayView2<'_, f32>) -> Option<Vec<bool>> {
        let peak = self.peak.as_ref()?;
        Some(squared_distances(points, &peak.centre).into_iter().map(|squared| squared > peak.squared_radius).collect())
    }

    /// Counts the successes of an observed batch, of points `(items, components)` and their scores.
    pub fn count(&mut self, points: ArrayView2<'_, f32>, scores: &[Option<f64>], observations: &Observations) {
        let Some(outside) = self.outside(points) else { return };
        let best = observations.sorted_scores();
        let Some(threshold) = best.get((best.len() / SUCCESS_PART).max(1) - 1) else { return };
        self.counts_on_peak.decay();
        self.counts_outside.decay();
        for (score, is_outside) in scores.iter().zip(outside) {
            let counts = if is_outside { &mut self.counts_outside } else { &mut self.counts_on_peak };
            counts.add(score.unwrap_or(f64::NEG_INFINITY) >= *threshold);
        }
    }

    /// Finds the peak from points `(n, components)` and their scores. `library` are points of the library, all or a sample.
    pub fn find_peak(&mut self, points: ArrayView2<'_, f32>, scores: &[f64], library: ArrayView2<'_, f32>) {
        self.peak = None;
        let scored = scores.iter().filter(|score| score.is_finite()).count();
        if scored < self.min_scored || library.is_empty() {
            return;
        }
        let order = descending(scores);
        let from_best = squared_distances(points, &points.row(order[0]).to_owned());
        let mut nearest: Vec<usize> = order.into_iter().take((scored / 4).max(5)).collect();
        nearest.sort_by(|a, b| from_best[*a].total_cmp(&from_best[*b]));
        nearest.truncate(PEAK_ITEMS);
        let Some(centre) = points.select(Axis(0), &nearest).mean_axis(Axis(0)) else { return };
        let mut distances = squared_distances(library, &centre);
        let last = ((distances.len() as f64 * PEAK_PART) as usize).clamp(1, distances.len()) - 1;
        let (_, squared_radius, _) = distances.select_nth_unstable_by(last, f32::total_cmp);
        self.peak = Some(Peak { centre, squared_radius: *squared_radius });
    }

    /// The probability that an item of a batch is chosen outside of the peak.
    pub fn outside_probability(&self) -> f64 {
        if self.peak.is_none() {
            return 0.0;
        }
        let (on_peak, outside) =
            (self.counts_on_peak.success_rate().powi(2), self.counts_outside.success_rate().powi(2));
        (outside / (on_peak + outside)).min(MAX_OUTSIDE)
    }
}

/// The squared distance of each point to a centre.
fn squared_distances(points: ArrayView2<'_, f32>, centre: &Array1<f32>) -> Vec<f32> {
    let (points, centre) = (points.as_standard_layout(), centre.to_vec());
    let squared = |point: &[f32]| {
        let (centre, mut sum, mut at) = (&centre[..], 0f32, 0);
        while at < point.len() {
            let off = point[at] - centre[at];
            sum += off * off;
            at += 1;
        }
        sum
    };
    points.as_slice().unwrap_or_default().par_chunks(centre.len().max(1)).map(squared).collect()
}

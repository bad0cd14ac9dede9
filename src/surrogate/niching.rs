//! Niching: finds the peak of the best items, and decides how many items of a batch are chosen outside of it, to find others.

use ndarray::{Array1, ArrayView2, Axis};
use rayon::prelude::*;

use super::bounded_fraction::BoundedFraction;
use super::observations::Observations;
use super::ranks::argsort_descending;

/// The number of scored items from which niching starts, as a fraction of the library.
const MIN_SCORED: BoundedFraction = BoundedFraction { one_in: 100, min: 100, max: 300 };
/// The fraction of the library that belongs to the peak.
const PEAK_FRACTION: f64 = 0.1;
/// The number of items whose mean vector is the centre of the peak.
const PEAK_ITEMS: usize = 10;
/// The success counts are multiplied by this factor after each batch.
const DECAY: f64 = 0.8;
/// One in this many scores, the best ones, is a success.
const SUCCESS_ONE_IN: usize = 20;
/// The largest probability with which an item of a batch is chosen outside of the peak.
const MAX_OUTSIDE: f64 = 0.5;

/// The peak, and the success rates on it and outside of it.
///
/// - *Centre*: from the best quarter of the scored items, the 10 items nearest to the best item are taken. Their mean is the centre.
/// - *Peak*: the tenth of the library that is nearest to the centre.
/// - *Success*: an item whose score is among the best twentieth of all scores so far. Successes and failures are counted on the
///   peak and outside of it. All counts shrink by a fifth with each batch.
/// - *Probability*: an item of a batch is chosen outside of the peak with the probability `p`, from the success rates `r`:
///
/// ```text
/// r = (successes + 0.2) / (successes + failures + 2)
/// p = min(r_outside^2 / (r_peak^2 + r_outside^2), 1 / 2)
/// ```
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
    /// Niching in a library of `library_size` items.
    pub fn new(library_size: u64) -> Self {
        Niching {
            min_scored: MIN_SCORED.of(library_size) as usize,
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

    /// Counts the successes and failures of an observed batch, given its points `(items, components)` and scores.
    pub fn count(&mut self, points: ArrayView2<'_, f32>, scores: &[Option<f64>], observations: &Observations) {
        let Some(outside) = self.outside(points) else { return };
        let sorted = observations.sorted_scores();
        let Some(threshold) = sorted.get((sorted.len() / SUCCESS_ONE_IN).max(1) - 1) else { return };
        self.counts_on_peak.decay();
        self.counts_outside.decay();
        for (score, is_outside) in scores.iter().zip(outside) {
            let counts = if is_outside { &mut self.counts_outside } else { &mut self.counts_on_peak };
            counts.add(score.unwrap_or(f64::NEG_INFINITY) >= *threshold);
        }
    }

    /// Finds the peak from points `(n, components)` and their scores. `library` has the points of all items of the
    /// library, or of a sample.
    pub fn find_peak(&mut self, points: ArrayView2<'_, f32>, scores: &[f64], library: ArrayView2<'_, f32>) {
        self.peak = None;
        let scored = scores.iter().filter(|score| score.is_finite()).count();
        if scored < self.min_scored || library.is_empty() {
            return;
        }
        let order = argsort_descending(scores);
        let distances_to_best = squared_distances(points, &points.row(order[0]).to_owned());
        let mut nearest: Vec<usize> = order.into_iter().take((scored / 4).max(5)).collect();
        nearest.sort_by(|a, b| distances_to_best[*a].total_cmp(&distances_to_best[*b]));
        nearest.truncate(PEAK_ITEMS);
        let Some(centre) = points.select(Axis(0), &nearest).mean_axis(Axis(0)) else { return };
        let mut distances = squared_distances(library, &centre);
        let last = ((distances.len() as f64 * PEAK_FRACTION) as usize).clamp(1, distances.len()) - 1;
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
        let (centre, mut sum, mut component) = (&centre[..], 0f32, 0);
        while component < point.len() {
            let difference = point[component] - centre[component];
            sum += difference * difference;
            component += 1;
        }
        sum
    };
    points.as_slice().unwrap_or_default().par_chunks(centre.len().max(1)).map(squared).collect()
}

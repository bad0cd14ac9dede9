//! Whether there is more beside the hill that the best items stand on, and how much of a batch goes there.

use ndarray::{Array1, ArrayView2, Axis};
use rayon::prelude::*;

use super::observations::descending;

/// Items that have a score before a batch is shared: one in so many of the library, within these bounds.
const FROM: (u64, u64, u64) = (100, 100, 300);
/// The share of the library that is taken for the hill.
const HILL: f64 = 0.1;
/// Items that the hill is around.
const CORE: usize = 10;
/// What of the counts is left after a batch.
const KEPT: f64 = 0.8;
/// An item counts as found if it is among so many of all that have a score.
const FOUND: usize = 20;
/// The most of a batch that goes elsewhere.
const MOST: f64 = 0.5;

/// Where the hill is, and what was found on it and elsewhere.
///
/// The hill is the tenth of the library that is nearest to the mean of 10 items: of the best quarter of what was scored, the
/// nearest to the best. Items on it and items elsewhere are counted: found are those among the best twentieth of all
/// scored so far; counts shrink by a fifth with each batch. With rates `r = (found + 0.2) / (found + not + 2)` an item of a
/// batch is chosen elsewhere with probability `r_else^2 / (r_hill^2 + r_else^2)`, at most a half.
#[derive(Clone, Debug, Default)]
pub(super) struct Niche {
    from: usize,
    hill: Option<Hill>,
    on_hill: Count,
    elsewhere: Count,
}

#[derive(Clone, Debug)]
struct Hill {
    centre: Array1<f32>,
    squared_radius: f32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    found: f64,
    not: f64,
}

impl Count {
    fn rate(self) -> f64 {
        (self.found + 0.2) / (self.found + self.not + 2.0)
    }

    fn add(&mut self, found: bool) {
        *(if found { &mut self.found } else { &mut self.not }) += 1.0;
    }

    fn fade(&mut self) {
        self.found *= KEPT;
        self.not *= KEPT;
    }
}

impl Niche {
    /// Of a library of so many items.
    pub fn of(library: u64) -> Self {
        let (share, least, most) = FROM;
        Niche { from: (library / share).clamp(least, most) as usize, ..Niche::default() }
    }

    /// Whether items are elsewhere, `(items, components)`; `None` while there is no hill.
    pub fn elsewhere(&self, points: ArrayView2<'_, f32>) -> Option<Vec<bool>> {
        let hill = self.hill.as_ref()?;
        Some(squared_distances(points, &hill.centre).into_iter().map(|squared| squared > hill.squared_radius).collect())
    }

    /// Counts a batch: of each item its score, and whether it was elsewhere. `best` are all scores so far, the best first.
    pub fn count(&mut self, batch: impl Iterator<Item = (f64, bool)>, best: &[f64]) {
        let Some(threshold) = best.get((best.len() / FOUND).max(1) - 1) else { return };
        self.on_hill.fade();
        self.elsewhere.fade();
        for (score, elsewhere) in batch {
            let count = if elsewhere { &mut self.elsewhere } else { &mut self.on_hill };
            count.add(score >= *threshold);
        }
    }

    /// Finds the hill: of points `(n, components)` and their scores, in a library of which some items are at `library`.
    pub fn find(&mut self, points: ArrayView2<'_, f32>, scores: &[f64], library: ArrayView2<'_, f32>) {
        self.hill = None;
        let scored = scores.iter().filter(|score| score.is_finite()).count();
        if scored < self.from || library.is_empty() {
            return;
        }
        let order = descending(scores);
        let from_best = squared_distances(points, &points.row(order[0]).to_owned());
        let mut good: Vec<usize> = order.into_iter().take((scored / 4).max(5)).collect();
        good.sort_by(|a, b| from_best[*a].total_cmp(&from_best[*b]));
        good.truncate(CORE);
        let Some(centre) = points.select(Axis(0), &good).mean_axis(Axis(0)) else { return };
        let mut all = squared_distances(library, &centre);
        let last = ((all.len() as f64 * HILL) as usize).clamp(1, all.len()) - 1;
        let (_, squared_radius, _) = all.select_nth_unstable_by(last, f32::total_cmp);
        self.hill = Some(Hill { centre, squared_radius: *squared_radius });
    }

    /// The share of a batch that is chosen elsewhere.
    pub fn share(&self) -> f64 {
        if self.hill.is_none() {
            return 0.0;
        }
        let (hill, elsewhere) = (self.on_hill.rate().powi(2), self.elsewhere.rate().powi(2));
        (elsewhere / (hill + elsewhere)).min(MOST)
    }
}

/// From each point to a centre.
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

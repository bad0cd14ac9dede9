//! The models of one batch: of all that was asked, and of what was asked beside the hill; which items they would pay for.

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis};
use rand::RngExt;
use rand::seq::{SliceRandom, index};

use super::gp::Gp;
use super::kernel::Measure;
use super::niching::Niche;
use super::observations::{NOISE_ABOVE, Seen, descending, noise, targets, threshold};
use crate::error::Result;
use crate::random::RandomStream;

/// Rows of candidates that a model looks at in one go.
const BLOCK: usize = 8192;
/// Candidates of the highest posterior mean among which the samples choose.
pub(super) const FRONT: usize = 300;
/// Other candidates that take part in it.
pub(super) const OTHERS: usize = 64;
/// The front of the model of what is beside the hill.
pub(super) const FRONT_ELSEWHERE: usize = 100;
/// Points below which nothing is left out: fewer make no model.
const LEAST: usize = 12;

/// A Gaussian process, and how far its samples stray.
#[derive(Clone)]
struct Part {
    gp: Gp,
    ids: Vec<u64>,
    daring: f64,
}

/// What chooses a batch.
#[derive(Clone)]
pub(super) struct Model {
    measure: Measure,
    all: Part,
    niche: Niche,
    elsewhere: Option<Part>,
}

impl Model {
    /// Fitted to items that were asked, by their position, `before` is the model of the batch before.
    ///
    /// # Errors
    /// Vectors that are not finite.
    pub fn fit(
        before: Option<&Model>,
        seen: &Seen,
        items: &[usize],
        width: usize,
        measure: &Measure,
        niche: &Niche,
    ) -> Result<Self> {
        let measured = measure.of(seen.vectors(items, width).view());
        let points = measured.mapv(f64::from);
        let elsewhere = match niche.elsewhere(measured.view()).filter(|_| niche.share() > 0.0) {
            None => None,
            Some(elsewhere) => {
                let mut left: Vec<usize> = (0..items.len()).filter(|at| elsewhere[*at]).collect();
                if left.len() < LEAST {
                    left = (0..items.len()).collect();
                }
                let those: Vec<usize> = left.iter().map(|at| items[*at]).collect();
                let scores = seen.scores_of(&those);
                let (targets, noise) =
                    (targets(&scores, seen.early()), noise(&scores, threshold(&scores, seen.early())));
                let before = before.and_then(|before| before.elsewhere.as_ref());
                Some(Part::fit(before, points.select(Axis(0), &left), (targets, noise), seen.ids(&those), left.len())?)
            }
        };
        let targets = seen.targets().select(Axis(0), items);
        let noise = noise(&seen.scores_of(items), measure.threshold());
        let all =
            Part::fit(before.map(|before| &before.all), points, (targets, noise), seen.ids(items), seen.scored())?;
        Ok(Model { measure: measure.clone(), all, niche: niche.clone(), elsewhere })
    }

    /// The same, where some items `(items, width)` are out: they are taken to be worth what it says of them.
    ///
    /// # Errors
    /// Vectors that are not finite.
    pub fn believing(mut self, out: ArrayView2<'_, f32>) -> Result<Self> {
        if !out.is_empty() {
            let points = self.measure.of(out).mapv(f64::from);
            self.all.gp = self.all.gp.believing(points.view(), NOISE_ABOVE)?;
            if let Some(part) = self.elsewhere.take() {
                self.elsewhere = Some(Part { gp: part.gp.believing(points.view(), NOISE_ABOVE)?, ..part });
            }
        }
        Ok(self)
    }

    /// The ids of the points of the model of all, and the weights of their kernels in its mean.
    pub fn of_all(&self) -> (&[u64], ArrayView1<'_, f64>) {
        self.all.mean()
    }

    /// The same of the model of what is beside the hill, if there is one.
    pub fn of_elsewhere(&self) -> Option<(&[u64], ArrayView1<'_, f64>)> {
        self.elsewhere.as_ref().map(Part::mean)
    }

    /// The candidates to be scored, the most promising first, of vectors `(candidates, width)`.
    ///
    /// # Errors
    /// Vectors that are not finite.
    pub fn choose(&self, vectors: ArrayView2<'_, f32>, batch: usize, rng: &mut RandomStream) -> Result<Vec<usize>> {
        let measured = self.measure.of(vectors);
        let points = measured.mapv(f64::from);
        let batch = batch.min(points.nrows());
        let share = if self.elsewhere.is_some() { self.niche.share() } else { 0.0 };
        let wanted = (0..batch).filter(|_| rng.random_bool(share)).count().min(batch.div_ceil(2));
        let mut all: Vec<usize> = (0..points.nrows()).collect();
        // So that among equals, as where all scores are the same, chance decides.
        all.shuffle(rng);
        let mut chosen = Vec::with_capacity(batch);
        self.all.choose(points.view(), &all, (FRONT, OTHERS), batch - wanted, &mut chosen, rng)?;
        if let (Some(part), Some(elsewhere)) = (&self.elsewhere, self.niche.elsewhere(measured.view())) {
            let others: Vec<usize> = all.iter().copied().filter(|row| elsewhere[*row]).collect();
            part.choose(points.view(), &others, (FRONT_ELSEWHERE, 0), wanted, &mut chosen, rng)?;
        }
        // Where too few are elsewhere.
        let missing = batch - chosen.len();
        self.all.choose(points.view(), &all, (FRONT, OTHERS), missing, &mut chosen, rng)?;
        Ok(chosen)
    }
}

impl Part {
    /// `known` items shrink how far samples stray.
    fn fit(
        before: Option<&Part>,
        points: Array2<f64>,
        (targets, noise): (Array1<f64>, Array1<f64>),
        ids: Vec<u64>,
        known: usize,
    ) -> Result<Self> {
        // Half of the deviation from the posterior mean at first, less as more is known.
        let daring = 0.5 * (64.0 / known.max(1) as f64).sqrt().min(1.0);
        let gp = Gp::after(before.map(|before| &before.gp), points, targets, 1.0, &noise)?;
        Ok(Part { gp, ids, daring })
    }

    fn mean(&self) -> (&[u64], ArrayView1<'_, f64>) {
        (&self.ids, self.gp.weights())
    }

    /// Adds so many of some rows that are not chosen yet: each is the best of a posterior sample of its own (Thompson sampling).
    fn choose(
        &self,
        points: ArrayView2<'_, f64>,
        rows: &[usize],
        (front, others): (usize, usize),
        items: usize,
        chosen: &mut Vec<usize>,
        rng: &mut RandomStream,
    ) -> Result<()> {
        let rows: Vec<usize> = rows.iter().copied().filter(|row| !chosen.contains(row)).collect();
        let items = items.min(rows.len());
        if items == 0 {
            return Ok(());
        }
        let at = |rows: &[usize]| points.select(Axis(0), rows);
        let means: Vec<f64> = rows.chunks(BLOCK).flat_map(|rows| self.gp.mean(at(rows).view())).collect();
        let mut best: Vec<usize> = descending(&means).into_iter().map(|position| rows[position]).collect();
        let rest = best.split_off(best.len().min(front.max(items)));
        best.extend(index::sample(rng, rest.len(), others.min(rest.len())).into_iter().map(|other| rest[other]));
        let samples = self.gp.samples(at(&best).view(), items, self.daring, rng)?;
        let mut open = vec![true; best.len()];
        for sample in samples.rows() {
            let open_rows = (0..best.len()).filter(|row| open[*row]);
            let Some(row) = open_rows.max_by(|a, b| sample[*a].total_cmp(&sample[*b])) else { break };
            open[row] = false;
            chosen.push(best[row]);
        }
        Ok(())
    }
}

//! The `SurrogateUpdate` rule: its settings, and how its parts work together.

use polars::prelude::DataFrame;

use super::acquisition::{ChosenBy, choose_batch, choose_start};
use super::batch::{ObservedBatch, PendingItems};
use super::candidates::Candidates;
use super::niching::Niching;
use super::observations::Observations;
use super::plan::{LARGEST_BATCH, Plan};
use super::pool::Pool;
use super::posterior::Posterior;
use super::space::Space;
use crate::error::Result;
use crate::features::Features;
use crate::frame::convert;
use crate::prediction;
use crate::select::Select;
use crate::step::Step;
use crate::update::{QueryUpdate, SearchContext};

/// Chooses the items to evaluate by a Gaussian process of the scores so far. The process sees an item's embedding and the
/// columns beside it ([`Features`]).
///
/// In each iteration it evaluates one batch of the candidates. Each item of a batch is the best one, among those not chosen
/// yet, in a posterior sample of its own (Thompson sampling). The deviation of the samples from the posterior mean shrinks as
/// the number of scores grows. The process is fitted again for every batch.
///
/// - *Start*: the nearest item of each starting query, then random items. The start ends once one in 2000 items of the library
///   was evaluated (at least 16, at most 64; with a budget, a sixth of it is enough, but at least 4) and one has a score. The
///   budget is that with which the run was started. Raising it later does not change the plan.
/// - *Batch*: 5 % of the items evaluated so far, at least 5 and at most 32, unless configured. With a budget, a fortieth of it
///   is enough. Small batches find more.
/// - *Candidates*: the whole library, if its vectors and their kernels with all points fit into 400 MB (some tens of thousands
///   of items). The 300 items of the highest posterior mean and 64 random others take part in the sampling.
///   In a larger library, the candidates are the neighbours of queries at the 30 best items, at 8 random items and far along 4
///   directions in which a linear model sees the score grow (its posterior mean and three samples). If fewer than 30 items are
///   better than the median of the first 32, random items take their place. If columns are relevant, a shortlist joins the
///   candidates, from one pass over the columns: the 100 nearest items of each of the 20 best, and the 100 farthest along each
///   of 4 such directions. Decided items are never candidates.
/// - *Distance* of two items: a sum over feature groups, the embedding and each column, of squared distances of mean 1, each
///   times a relevance weight. The weights are fitted to the observations, again whenever there are half as many more. The fit
///   maximises the leave-one-out predictive density, with a penalty on all weights but the embedding's, so that only columns
///   that help to predict the score get weight. A warning names columns that nearly determine the score, because they may be
///   computed from it.
/// - *Kernel*: the mean of two squared exponentials, of lengths l and l / 2. `l^2` is the median squared distance of the
///   points. The noise variance is 0.1, and 0.03 for the better half of the points, whose differences matter.
/// - *Niching*: if the scores have more than one peak, the best items crowd on the highest peak found. Once one in a hundred
///   items has a score (at least 100, at most 300), a part of each batch, at most half, is chosen outside of the peak: by a
///   second process without the observations in the tenth of the library around the best items. The size of that part depends on
///   how often items on the peak and outside of it were among the best twentieth of the scores.
/// - *Asynchronous batches*: with [`behind`](SurrogateUpdate::behind) a batch is chosen while earlier ones are in flight. Pending
///   evaluations are points of the process whose targets are its own mean (the kriging believer). Samples deviate less near them.
/// - *Reused scores* (`score.reuse`): these items, at most 50,000, are observed first, at no cost, and replace the random start.
///   Most of them were chosen by an earlier search, so that targets are clipped at the lowest eighth of their scores, not at
///   the median.
/// - *Points*: at most 1000 observations, unless configured: the best half, the latest quarter, and a random quarter of the rest.
/// - *Targets*: scores are clipped from below at the median of the first 32, standardised, and logarithmic from 3 deviations
///   upwards. Differences between bad items and single huge scores do not shape the model.
/// - *No score*: an item that was rejected or failed counts as the worst. It is a point at the floor of the targets, so that
///   the search avoids its neighbours, and never one of the best. If more than half of the first 32 items have no score, the
///   floor is the lowest score.
/// - *Filters*: if too few candidates pass the filter to fill a batch, later searches find twice as many, up to 50,000 rows in
///   one search. If none of so many passes, the next search looks around random items only. For a filter that fewer than one in
///   some thousands pass, use [`LanceDatabase::prefilter`](crate::LanceDatabase::prefilter) instead.
///
/// Its queries do not form paths. If the whole library is ranked, there is one query, at the best item so far. Otherwise each
/// iteration has new query points under the same `query_idx`.
///
/// Sources: Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), for the process and its leave-one-out
/// density; Hernandez-Lobato et al., Parallel and distributed Thompson sampling (2017). The rest was found by measuring
/// (`benches/strategies.rs`).
#[derive(Clone, Default)]
pub struct SurrogateUpdate {
    plan: Plan,
    space: Space,
    observations: Observations,
    niching: Niching,
    /// The posterior that chooses the next batch. `None` in the random start.
    posterior: Option<Posterior>,
    candidates: Candidates,
}

impl std::fmt::Debug for SurrogateUpdate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = f.debug_struct("SurrogateUpdate");
        debug.field("batch", &self.plan.batch).field("points", &self.observations.max_points);
        debug.field("features", &self.space.features).field("observed", &self.observations.len());
        debug.finish_non_exhaustive()
    }
}

impl SurrogateUpdate {
    /// The size of the largest batch, unless it is configured.
    pub const LARGEST_BATCH: usize = LARGEST_BATCH;

    /// The rule with default settings.
    pub fn new() -> Self {
        Self::default()
    }

    /// The number of items evaluated per iteration (default: grows from 5 to 32).
    pub fn batch(mut self, items: usize) -> Self {
        self.plan.batch = Some(items);
        self
    }

    /// The number of observations that the models are fitted to, at most (default 1000). The time of a fit grows with its cube.
    pub fn points(mut self, points: usize) -> Self {
        self.observations.max_points = points;
        self
    }

    /// The number of batches in flight when the next batch is chosen (default 0). It applies once there is a model.
    ///
    /// With asynchronous batches nobody waits for the slowest item of a batch. On the other hand scores are known later, so
    /// that the same number of evaluations finds less.
    pub fn behind(mut self, batches: usize) -> Self {
        self.plan.behind = batches;
        self
    }

    /// The columns of the items that the model reads, in addition to their embeddings (default: [`Features::Auto`]).
    pub fn features(mut self, features: Features) -> Self {
        self.space.features = features;
        self
    }

    /// Fits the distance, if it is due, and finds the peak.
    fn learn(&mut self, step: &Step<'_>) -> Result<()> {
        let Some(width) = self.space.vectorizer().map(|vectorizer| vectorizer.width()) else { return Ok(()) };
        let training = self.observations.training_set(step.seed);
        let vectors = training.vectors(width);
        if let Some(distance) = self.space.refit(&training, vectors.view(), step.is_replay)? {
            self.candidates.set_distance(distance);
        }
        if let Some(distance) = self.space.distance() {
            let points = distance.points(vectors.view());
            let library = self.candidates.library_points(distance);
            self.niching.find_peak(points.view(), &training.scores(), library.view());
        }
        Ok(())
    }

    /// Counts the successes of a batch on the peak and outside of it.
    fn count_successes(&mut self, batch: &ObservedBatch) {
        if let Some(distance) = self.space.distance() {
            let points = distance.points(batch.vectors.view());
            self.niching.count(points.view(), &batch.scores, &self.observations);
        }
    }
}

impl QueryUpdate for SurrogateUpdate {
    fn k(&self, queries: usize) -> Option<usize> {
        Some(self.candidates.neighbours(queries))
    }

    fn revisits(&self) -> bool {
        false
    }

    fn selector(&self) -> Option<&dyn Select> {
        Some(self)
    }

    fn check(&self) -> Result<()> {
        self.plan.check()?;
        self.observations.check()
    }

    fn begin(&mut self, context: &SearchContext<'_>) -> Result<()> {
        self.plan.begin(context.planned_budget);
        self.space.clear();
        self.niching = Niching::new(context.database.len());
        self.posterior = None;
        self.candidates = Candidates::from_reused(context.reused);
        self.observations.begin(self.candidates.ids());
        let features = context.database.features(&self.space.features, context.columns_read)?;
        let vectorizer = self.candidates.read_library(context.database, features, self.observations.max_points)?;
        self.space.begin(vectorizer);
        Ok(())
    }

    fn candidates(&self) -> &[u64] {
        self.candidates.ids()
    }

    fn relevance(&self) -> Vec<(String, f32)> {
        self.space.relevance()
    }

    fn batches_in_flight(&self) -> usize {
        self.plan.batches_in_flight()
    }

    fn observe(&mut self, step: &Step<'_>) -> Result<()> {
        let batch = self.space.observed_batch(step.results)?;
        let planned = self.plan.observed_batch_size(step.queries.height(), step.database.len());
        self.candidates.widen(step, planned);
        self.observations.add(&batch);
        self.count_successes(&batch);
        self.plan.record(&self.observations, step.database.len());
        if self.plan.is_start(&self.observations, step.database.len()) { Ok(()) } else { self.learn(step) }
    }

    fn update(&mut self, step: &Step<'_>) -> Result<DataFrame> {
        let training = self.observations.training_set(step.seed);
        let previous = self.posterior.take();
        self.candidates.clear();
        let is_start = self.plan.is_start(&self.observations, step.database.len());
        if let Some((vectorizer, distance)) = self.space.fitted().filter(|_| !is_start) {
            let vectors = training.vectors(vectorizer.width());
            let pending = PendingItems::from_frames(step.pending, vectorizer)?;
            let posterior = Posterior::fit(previous.as_ref(), &training, vectors.view(), distance, &self.niching)?
                .with_pending(pending.vectors.view())?;
            self.candidates.generate(step, &posterior, &training, &pending, (vectorizer, distance))?;
            self.posterior = Some(posterior);
        }
        self.candidates.queries(step, &training, self.space.vectorizer(), self.posterior.is_some())
    }
}

impl Select for SurrogateUpdate {
    fn select(&self, step: &Step<'_>) -> Result<DataFrame> {
        // A mistake has to show before anything is evaluated.
        self.check()?;
        let pool = Pool::from_results(step.results)?;
        let size = self.plan.batch_size(self.observations.len(), pool.query_count, step.database.len());
        let choices = match (&self.posterior, self.space.vectorizer()) {
            (Some(posterior), Some(vectorizer)) => {
                let vectors = pool.vectors(vectorizer);
                choose_batch(posterior, vectors.view(), size, &mut step.rng("surrogate sample", 0))?
            }
            _ => {
                let chosen_by = if step.iteration == 0 { ChosenBy::Start } else { ChosenBy::Random };
                choose_start(&pool.ids, &self.observations, size, chosen_by)
            }
        };
        let rows: Vec<u32> = choices.iter().map(|choice| pool.result_row(choice.row)).collect();
        let predictions = choices.iter().map(|choice| choice.prediction);
        let (means, deviations): (Vec<Option<f64>>, Vec<Option<f64>>) =
            predictions.map(|prediction| prediction.map(|score| (score.mean, score.deviation)).unzip()).unzip();
        let chosen_by: Vec<_> = choices.iter().map(|choice| choice.chosen_by.map(ChosenBy::name)).collect();
        prediction::append(convert::gather(step.results, &rows)?, means, deviations, chosen_by)
    }

    fn columns_read(&self) -> Option<Vec<String>> {
        Some(Vec::new())
    }
}

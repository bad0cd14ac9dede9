//! The `SurrogateUpdate` rule: its settings and its implementation of the update traits.

use ndarray::ArrayView2;
use polars::prelude::DataFrame;

use super::acquisition::{ChosenBy, choose_batch, choose_start};
use super::batch::{ObservedBatch, PendingItems};
use super::batch_schedule::{BatchSchedule, LARGEST_BATCH, LARGEST_START};
use super::candidates::Candidates;
use super::distinct_candidates::DistinctCandidates;
use super::explanation;
use super::feature_space::FeatureSpace;
use super::niching::Niching;
use super::observations::Observations;
use super::posterior::Posterior;
use super::vectorizer::Vectorizer;
use crate::error::Result;
use crate::features::Features;
use crate::frame::convert;
use crate::prediction;
use crate::select::Selector;
use crate::step::Step;
use crate::update::{SearchContext, UpdateRule};

/// Chooses the items to evaluate with a Gaussian process (GP) model of the scores so far. The model reads the embedding of an item
/// and other columns ([`Features`]).
///
/// Each iteration evaluates one batch of candidates. Each item of the batch is the best candidate of its own posterior sample,
/// among those not chosen yet (Thompson sampling). The deviation of the samples from the posterior mean shrinks as the number of
/// scores grows. The GP is fitted again for every batch.
///
/// - *Start*: the nearest item of each starting query, then random items. The start ends when one in 2000 items of the library was
///   evaluated (at least 16, at most 64) and at least one has a score. With a budget of evaluations, the start is at most a sixth
///   of it, but at least 4 items. The budget at the start of the run counts. Raising it later does not change the batch sizes.
/// - *Batch*: 5 % of the items evaluated so far, at least 5 and at most 32, unless configured. With a budget, the minimum is a
///   fortieth of it, at most 5. Small batches find more.
/// - *Candidates*: the whole library, if its vectors and their kernels with all points fit into 400 MB (some tens of thousands
///   of items). The 300 items of the highest posterior mean and 64 random others take part in the sampling.
///   In a larger library, the candidates are the neighbours of queries at the 30 best items, at 8 random items and far in 4
///   directions in which the score grows according to a linear model (its posterior mean and three samples). If fewer than 30
///   items are better than the median of the first 32, random items replace the missing ones. If columns are relevant, a
///   shortlist is added to the candidates: the 100 nearest items of each of the 20 best by their features, and the 100 farthest
///   in each of 4 such directions. Evaluated items are never candidates.
/// - *Distance* of two items: the sum of the squared distances in each feature group (the embedding, and each column), scaled to
///   mean 1 and multiplied by a relevance weight. The weights are fitted to the observations, and fitted again when there are half
///   again as many. The fit maximises the leave-one-out predictive density, with a penalty on the weights of columns, so that only
///   columns that help to predict the score get weight. A warning names columns that nearly determine the score, because they may
///   be computed from it.
/// - *Kernel*: the mean of two squared exponentials, of lengths l and l / 2. `l^2` is the median squared distance of the
///   points. The noise variance is 0.1, and 0.03 for the better half of the points, whose differences matter.
/// - *Niching*: if the scores have several peaks, the best items concentrate on the highest peak found. Once one in a hundred items
///   of the library has a score (at least 100, at most 300), up to half of each batch is chosen outside of the peak: the tenth of
///   the library around the best items. A second GP without the observations on the peak chooses these items. Their number depends
///   on how often items on the peak and outside of it were among the best twentieth of the scores.
/// - *Asynchronous batches*: with [`behind`](SurrogateUpdate::behind) a batch is chosen while earlier ones are in flight. Pending
///   evaluations become points of the GP with their posterior mean as targets (the kriging believer), so that samples deviate less
///   near them.
/// - *Reused scores* (`score.reuse`): these items, at most 50,000, are observed first, at no cost, and replace the random start.
///   An earlier search chose most of them, so targets are clipped at the lower eighth of their scores, not at the median.
/// - *Points*: at most 1000 observations, unless configured: the best half, the latest quarter, and random others.
/// - *Targets*: scores are clipped from below at the median of the first 32 and standardised. Above 3 standard deviations, targets
///   grow with the logarithm. Neither the differences between bad items nor single huge scores influence the model much.
/// - *No score*: an item that was rejected or failed counts as the worst. Its target is the floor of all targets, so the search
///   avoids its neighbours, and it is never one of the best. If more than half of the first 32 items have no score, the floor is
///   the lowest score.
/// - *Few values*: yes or no, or grades of which the lowest is frequent, detected from the scores so far. The lowest value has the
///   target 0 and the highest 1, the prior mean is 0, noise is in proportion to the frequency of a value, and for two values the length
///   is halved. The items of the highest posterior mean are chosen, without samples and niching. While all scores are equal, batches are
///   random. Long texts are read as documents, with a prior relevance weight of 0.3.
/// - *Filters*: if too few candidates pass the filter to fill a batch, the next search finds twice as many, up to 50,000 rows per
///   search. If no candidate passes at that limit, the next queries are at random items only. For a filter that passes fewer than
///   one in some thousand items, use [`LanceDatabase::prefilter`](crate::LanceDatabase::prefilter) instead.
///
/// The queries do not move step by step. If the whole library is ranked, the only query is at the best item so far. Otherwise each
/// iteration has new query points with the same `query_idx`.
///
/// Sources: Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), for the GP and its leave-one-out
/// density; Hernandez-Lobato et al., Parallel and distributed Thompson sampling (2017). The other choices are based on measurements
/// (`benches/strategies.rs`).
#[derive(Clone, Default)]
pub struct SurrogateUpdate {
    schedule: BatchSchedule,
    space: FeatureSpace,
    observations: Observations,
    niching: Niching,
    /// The posterior that chooses the next batch. `None` in the random start.
    posterior: Option<Posterior>,
    candidates: Candidates,
    /// The setting: the user announced that the scores have few values.
    announces_few_values: bool,
}

impl std::fmt::Debug for SurrogateUpdate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = f.debug_struct("SurrogateUpdate");
        debug.field("batch", &self.schedule.batch).field("points", &self.observations.max_points);
        debug.field("features", &self.space.features).field("observed", &self.observations.len());
        debug.finish_non_exhaustive()
    }
}

impl SurrogateUpdate {
    /// The size of the largest batch, unless it is configured.
    pub const LARGEST_BATCH: usize = LARGEST_BATCH;
    /// The size of the largest random start.
    pub(crate) const LARGEST_START: u64 = LARGEST_START;

    /// The rule with default settings.
    pub fn new() -> Self {
        Self::default()
    }

    /// The number of items evaluated per iteration (default: grows from 5 to 32).
    pub fn batch(mut self, items: usize) -> Self {
        self.schedule.batch = Some(items);
        self
    }

    /// The maximum number of observations that the models are fitted to (default 1000). The time of a fit grows with its cube.
    pub fn points(mut self, points: usize) -> Self {
        self.observations.max_points = points;
        self
    }

    /// The number of batches in flight when the next batch is chosen (default 0). It applies once there is a model.
    ///
    /// With asynchronous batches, workers do not wait for the slowest item of a batch. But each batch is chosen with fewer scores,
    /// so the same number of evaluations finds less.
    pub fn behind(mut self, batches: usize) -> Self {
        self.schedule.behind = batches;
        self
    }

    /// The columns of the items that the model reads, in addition to their embeddings (default: [`Features::Auto`]).
    pub fn features(mut self, features: Features) -> Self {
        self.space.features = features;
        self
    }

    /// Announces that scores have few values: yes or no, or grades (default: false). The rule detects few values by itself, but with
    /// this it needs only 4 scores for that, so the random start ends after 4 scores with at most two different values. A run with a
    /// threshold of a hit ([`StopConditions::hit`](crate::StopConditions::hit)) announces it, too.
    pub fn announce_few_values(mut self, announce: bool) -> Self {
        self.announces_few_values = announce;
        self
    }

    /// Fits the distance if there are enough new observations, and finds the peak.
    fn refit(&mut self, step: &Step<'_>) -> Result<()> {
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

    /// Counts the successes and failures of a batch on the peak and outside of it.
    fn count_successes(&mut self, batch: &ObservedBatch) {
        if let Some(distance) = self.space.distance() {
            let points = distance.points(batch.vectors.view());
            self.niching.count(points.view(), &batch.scores, &self.observations);
        }
    }
}

impl UpdateRule for SurrogateUpdate {
    fn k(&self, queries: usize) -> Option<usize> {
        Some(self.candidates.neighbours(queries))
    }

    fn revisits(&self) -> bool {
        false
    }

    fn selector(&self) -> Option<&dyn Selector> {
        Some(self)
    }

    fn check(&self) -> Result<()> {
        self.schedule.check()?;
        self.observations.check()
    }

    fn begin(&mut self, context: &SearchContext<'_>) -> Result<()> {
        let announces_few_values = self.announces_few_values || context.planned_hit.is_some();
        self.schedule.begin(context.planned_budget, announces_few_values);
        self.space.clear();
        self.niching = Niching::new(context.database.len());
        self.posterior = None;
        self.candidates = Candidates::from_reused(context.reused);
        self.observations.begin(self.candidates.ids(), announces_few_values);
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

    fn explain(&self, items: &DataFrame) -> Result<Option<DataFrame>> {
        let model = self.posterior.as_ref().zip(self.space.vectorizer());
        let groups = self.space.vectorizer().map(Vectorizer::names).unwrap_or_default();
        explanation::explain(model, &groups, &self.observations, items).map(Some)
    }

    fn posterior_means(&self, items: &[u64], embeddings: ArrayView2<'_, f32>) -> Result<Option<Vec<f64>>> {
        let Some((posterior, vectorizer)) = self.posterior.as_ref().zip(self.space.vectorizer()) else {
            return Ok(None);
        };
        let points = posterior.points(vectorizer.vectors(items, embeddings).view()).mapv(f64::from);
        Ok(Some(posterior.all.gp.mean(points.view()).to_vec()))
    }

    fn batches_in_flight(&self) -> usize {
        self.schedule.batches_in_flight()
    }

    fn observe(&mut self, step: &Step<'_>) -> Result<()> {
        let batch = self.space.observed_batch(step.results)?;
        let scheduled = self.schedule.observed_batch_size(step.queries.height(), step.database.len());
        self.candidates.widen(step, scheduled);
        self.observations.add(&batch);
        self.count_successes(&batch);
        self.schedule.record(&self.observations, step.database.len());
        if self.schedule.is_start(&self.observations, step.database.len()) { Ok(()) } else { self.refit(step) }
    }

    fn update(&mut self, step: &Step<'_>) -> Result<DataFrame> {
        let training = self.observations.training_set(step.seed);
        let previous = self.posterior.take();
        self.candidates.clear();
        let is_start = self.schedule.is_start(&self.observations, step.database.len());
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

impl Selector for SurrogateUpdate {
    fn select(&self, step: &Step<'_>) -> Result<DataFrame> {
        // Reject invalid settings before anything is evaluated.
        self.check()?;
        let pool = DistinctCandidates::from_results(step.results)?;
        let size = self.schedule.batch_size(self.observations.len(), pool.query_count, step.database.len());
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
        prediction::add_predictions(convert::gather(step.results, &rows)?, means, deviations, chosen_by)
    }

    fn columns_read(&self) -> Option<Vec<String>> {
        Some(Vec::new())
    }
}

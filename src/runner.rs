//! The search loop: query, filter, select, score, log, update.
//!
//! Every iteration is a [`Batch`] with three phases. [`Runner::submit_batch`] finds candidates and requests their scores,
//! [`Runner::complete_batch`] logs the scores and passes them to the update rule, and [`Runner::next_queries`] computes the
//! next queries. A synchronous search runs the phases one after the other. With asynchronous batches, later batches are
//! submitted while earlier ones are in flight (`iterations.rs`). `stages.rs` contains the stages, `options.rs` the constructors.

mod ask_tell;
mod audit;
mod batch;
mod checks;
mod explain;
mod finish;
mod iterations;
mod options;
mod progress;
mod replay;
mod resume;
mod scorer_files;
mod search;
mod stages;
mod stop;
mod summary;
mod unscored;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use polars::prelude::DataFrame;

pub use self::ask_tell::SearchState;
pub use self::audit::AuditState;
use self::batch::{Batch, BatchState};
pub(crate) use self::scorer_files::ScorerFiles;
use self::stages::timed;
pub use self::stop::StopConditions;
pub use self::summary::IterationSummary;
use crate::database::VectorDatabase;
use crate::error::Result;
use crate::filter::Filter;
use crate::frame::schema;
use crate::ledger::Ledger;
use crate::log::SearchLog;
use crate::prediction;
use crate::score::Score;
use crate::select::Selector;
use crate::update::UpdateRule;

/// Runs a search: calls the stages in order, and stops when a stop condition holds.
///
/// ```text
/// queries ─▶ VectorDatabase.query ─▶ Filter ─▶ Selector ─▶ Score ─▶ SearchLog ─▶ UpdateRule ─▶ queries …
/// ```
///
/// # Example
///
/// ```
/// use uphill::{Features, IndexOptions, LanceDatabase, Runner, SurrogateUpdate, polars::prelude::*};
/// # fn main() -> uphill::Result<()> {
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("molecules.lance");
/// # uphill::index("data/molecules.parquet", &path, &IndexOptions::default())?;
/// let library = LanceDatabase::open(path.to_string_lossy())?;
/// let queries = uphill::queries_at(&library, &[17])?;
/// let calls = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
/// let counter = calls.clone();
/// let score = move |items: &DataFrame| {
///     counter.fetch_add(items.height(), std::sync::atomic::Ordering::Relaxed);
///     Ok(items.column("qed")?.clone())
/// };
///
/// // The model reads a column that does not determine the score. The run does two iterations. It is then resumed for two
/// // more, possibly in another process. No item is scored twice.
/// let rule = SurrogateUpdate::new().features(Features::columns(["smiles"]));
/// let mut runner = Runner::new(library, score, rule).seed(7);
/// let run = folder.path().join("run");
/// runner.search_into(&run, &queries, 2)?;
/// let log = runner.resume(&run, &queries, 4)?;
/// assert_eq!(log.iterations().len(), 4);
/// assert_eq!(uphill::collect(log.compile_results()?)?.height(), calls.load(std::sync::atomic::Ordering::Relaxed));
/// # Ok(())
/// # }
/// ```
pub struct Runner {
    database: Box<dyn VectorDatabase>,
    filter: Box<dyn Filter>,
    /// `None`: the selector of the rule, if it has one.
    selector: Option<Box<dyn Selector>>,
    score: Arc<dyn Score>,
    rule: Box<dyn UpdateRule>,
    ledger: Ledger,
    seed: u64,
    stop: StopConditions,
    config: serde_json::Value,
    scorer_files: ScorerFiles,
    retry_failed: bool,
    submit_callback: Option<IterationCallback>,
    callback: Option<IterationCallback>,
    interrupt: Option<Arc<AtomicBool>>,
}

type IterationCallback = Box<dyn FnMut(&IterationSummary) + Send>;

impl Runner {
    /// Runs one iteration, with or without a log, and returns the next queries.
    ///
    /// # Errors
    /// A stage that fails or breaks its contract. The message names the iteration.
    pub fn step(&mut self, iteration: u32, queries: &DataFrame, mut log: Option<&mut SearchLog>) -> Result<DataFrame> {
        let mut phases = || {
            let mut batch = self.select_batch(iteration, queries, log.as_deref_mut())?;
            self.submit_batch(&mut batch, false)?;
            self.complete_batch(&mut batch, log.as_deref_mut())?;
            self.next_queries(&mut batch, &[], log.as_deref_mut())
        };
        phases().map_err(|error| error.in_iteration(iteration))
    }

    /// Query, filter and select: finds candidates and chooses those to score.
    fn select_batch(&self, iteration: u32, queries: &DataFrame, log: Option<&mut SearchLog>) -> Result<Batch> {
        let mut summary = IterationSummary { iteration, ..IterationSummary::default() };
        let times = &mut summary.times;
        schema::check_queries(queries, self.database.dim())?;
        timed(&mut times.log, || log.map_or(Ok(()), |log| log.append_queries(iteration, queries)))?;

        // 1. Query: the neighbours of the queries are the candidates.
        let candidates = timed(&mut times.query, || self.query(queries))?;
        // 2. Filter: drop the candidates that must not be scored.
        let passed = timed(&mut times.filter, || self.apply_filter(&candidates))?;
        (summary.candidates, summary.passed) = (candidates.height(), passed.height());
        // 3. Select: choose the candidates to score.
        let (selected, predictions) = timed(&mut times.select, || self.apply_select(iteration, queries, passed))?;
        let state = BatchState::Selected(selected);
        Ok(Batch { iteration, queries: queries.clone(), state, predictions, summary, is_replay: false })
    }

    /// Submit: requests the scores of the selected items, and waits for them unless `is_async`.
    fn submit_batch(&mut self, batch: &mut Batch, is_async: bool) -> Result<()> {
        let BatchState::Selected(selected) = &batch.state else { return Ok(()) };
        let (iteration, selected) = (batch.iteration, selected.clone());
        // 4. Score: request the scores of new items.
        let job = timed(&mut batch.summary.times.score, || self.request_scores(iteration, selected, is_async))?;
        batch.summary.evaluations = self.ledger.evaluations();
        batch.state = BatchState::InFlight(job);
        Ok(())
    }

    /// Score, log and observe: collects the scores of a batch, logs them, and passes them to the update rule.
    fn complete_batch(&mut self, batch: &mut Batch, log: Option<&mut SearchLog>) -> Result<()> {
        let (iteration, summary) = (batch.iteration, &mut batch.summary);
        let scored = match &batch.state {
            BatchState::InFlight(job) => {
                let (scored, new_items) = timed(&mut summary.times.score, || self.ledger.finish(iteration, job))?;
                // A run that started without logged predictions continues without them.
                let predictions =
                    batch.predictions.as_ref().filter(|_| log.as_ref().is_none_or(|log| log.has_predictions()));
                let scored = match predictions {
                    Some(predictions) => prediction::join_predictions(scored, predictions)?,
                    None => scored,
                };
                *summary = summary.with_scores(&scored, new_items)?;
                // 5. Log: commit the iteration.
                timed(&mut summary.times.log, || log.map_or(Ok(()), |log| log.append(iteration, &scored)))?;
                scored
            }
            BatchState::Logged(scored) | BatchState::Observed(scored) | BatchState::Selected(scored) => scored.clone(),
        };
        batch.state = BatchState::Observed(scored);
        self.observe(batch)
    }

    /// Update: computes the queries of the iteration after a batch. `pending` holds the frames of all batches in flight,
    /// which may include this one.
    fn next_queries(
        &mut self,
        batch: &mut Batch,
        pending: &[DataFrame],
        log: Option<&mut SearchLog>,
    ) -> Result<DataFrame> {
        // 6. Update: compute the next queries.
        let queries = self.update(batch, pending)?;
        let next = batch.iteration + 1;
        timed(&mut batch.summary.times.log, || log.map_or(Ok(()), |log| log.append_queries(next, &queries)))?;
        Ok(queries)
    }
}

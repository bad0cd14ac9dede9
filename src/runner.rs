//! The loop: query → filter → score → log → update, and again.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use polars::prelude::DataFrame;

use crate::database::{Request, VectorDatabase};
use crate::error::{Error, Result};
use crate::filter::{Filter, PassThroughFilter, check_subset};
use crate::ledger::Ledger;
use crate::log::{Ended, FORMAT_VERSION, Manifest, SearchLog, StopReason};
use crate::schema::{self, SCORE};
use crate::score::{OnError, Reusable, Reuse, Score};
use crate::update::{QueryUpdate, Step};

/// Runs a search: owns the stages, knows when to stop.
///
/// ```text
/// queries ─▶ VectorDatabase.query ─▶ Filter ─▶ Score ─▶ SearchLog ─▶ QueryUpdate ─▶ queries …
/// ```
pub struct Runner {
    database: Box<dyn VectorDatabase>,
    filter: Box<dyn Filter>,
    score: Box<dyn Score>,
    update: Box<dyn QueryUpdate>,
    ledger: Ledger,
    seed: u64,
    stop: Stop,
    config: serde_json::Value,
    retry_failed: bool,
    observer: Option<Observer>,
    interrupt: Option<Arc<AtomicBool>>,
}

type Observer = Box<dyn FnMut(&Summary)>;

/// When a search ends by itself. What is `None` does not count.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stop {
    /// Items asked, each counted once. Never exceeded: the last iteration is cut.
    pub evaluations: Option<u64>,
    /// So many iterations in a row in which no new item was met.
    pub nothing_new: Option<u32>,
    /// Wall time of this process, looked at between iterations.
    pub seconds: Option<f64>,
    /// A score that is good enough, in the scorer's own terms, looked at between iterations.
    pub score: Option<f64>,
    /// The share of items that may fail, once a hundred were asked; beyond it the run stops with an error.
    pub failed_share: Option<f64>,
}

/// Where a run by hand stands.
pub enum Asked {
    /// Items that wait for their scores: `db_idx`, `embedding`, attributes.
    Items(DataFrame),
    /// Nothing waits: the run has ended.
    Ended(Box<SearchLog>),
}

fn better(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    [a, b].into_iter().flatten().max_by(f64::total_cmp)
}

/// One iteration in numbers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    /// Counts from 0.
    pub iteration: u32,
    /// Rows of the scored frame.
    pub rows: usize,
    /// Items met for the first time.
    pub new: u64,
    /// Rows whose item has no score.
    pub failed: usize,
    /// Items asked so far.
    pub evaluations: u64,
    /// The best score of the iteration.
    pub best: Option<f64>,
    /// The mean score of the iteration's rows.
    pub mean: Option<f64>,
}

impl Runner {
    /// A search of a library by a score and a rule, without a filter.
    pub fn new(
        database: impl VectorDatabase + 'static,
        score: impl Score + 'static,
        update: impl QueryUpdate + 'static,
    ) -> Self {
        Self::from_parts(Box::new(database), Box::new(score), Box::new(update))
    }

    /// As [`Runner::new`], of parts chosen at run time.
    pub fn from_parts(database: Box<dyn VectorDatabase>, score: Box<dyn Score>, update: Box<dyn QueryUpdate>) -> Self {
        Runner {
            database,
            filter: Box::new(PassThroughFilter),
            score,
            update,
            ledger: Ledger::default(),
            seed: 0,
            stop: Stop::default(),
            config: serde_json::Value::Null,
            retry_failed: false,
            observer: None,
            interrupt: None,
        }
    }

    /// One iteration, with or without a log: gives the next queries.
    ///
    /// # Errors
    /// A stage that fails or breaks the contract; the message names the iteration.
    pub fn step(&mut self, iteration: u32, queries: &DataFrame, log: Option<&mut SearchLog>) -> Result<DataFrame> {
        self.iterate(iteration, queries, log).map(|(_, next)| next).map_err(|error| error.at(iteration))
    }

    fn iterate(
        &mut self,
        iteration: u32,
        queries: &DataFrame,
        mut log: Option<&mut SearchLog>,
    ) -> Result<(Summary, DataFrame)> {
        schema::check_queries(queries, self.database.dim())?;
        if let Some(log) = log.as_deref_mut() {
            log.append_queries(iteration, queries)?;
        }
        let results = self.database.query(queries, Request::default())?;
        schema::check_results("database", &results, self.database.dim())?;

        let kept = self.filter.filter(results.clone())?;
        check_subset(&results, &kept)?;

        let (scored, new) = self.ledger.score(&*self.score, kept, self.stop.evaluations)?;

        if let Some(log) = log.as_deref_mut() {
            log.append(iteration, &scored)?;
        }
        let step = Step { iteration, queries, results: &scored, database: &*self.database, seed: self.seed };
        self.update.observe(&step)?;
        let next = self.update.update(&step)?;
        schema::check_queries(&next, self.database.dim())?;
        if let Some(log) = log {
            log.append_queries(iteration + 1, &next)?;
        }
        Ok((summary(iteration, &scored, new, self.ledger.evaluations())?, next))
    }

    /// Searches for so many iterations, logging to a temporary folder that the log owns.
    ///
    /// # Errors
    /// As [`Runner::step`].
    pub fn search(&mut self, queries: &DataFrame, iterations: u32) -> Result<SearchLog> {
        self.check(queries)?;
        self.ledger.clear();
        let log = SearchLog::temporary(self.manifest())?;
        self.run(log, queries.clone(), 0, iterations)
    }

    /// Searches for so many iterations, logging to a folder that does not exist yet.
    ///
    /// # Errors
    /// As [`Runner::step`]; a folder that is not empty.
    pub fn search_into(&mut self, path: impl AsRef<Path>, queries: &DataFrame, iterations: u32) -> Result<SearchLog> {
        self.check(queries)?;
        self.ledger.clear();
        let log = SearchLog::create(path, self.manifest())?;
        self.run(log, queries.clone(), 0, iterations)
    }

    /// Goes on with a run, to so many iterations in all: replays what is committed, then
    /// searches as if it had never stopped. `queries` are the starting ones, for a
    /// run that stopped before it wrote them.
    ///
    /// # Errors
    /// As [`Runner::step`]; no run folder there, one in use, or a dataset that changed.
    pub fn resume(&mut self, path: impl AsRef<Path>, queries: &DataFrame, iterations: u32) -> Result<SearchLog> {
        let mut log = SearchLog::resume(path)?;
        self.ledger.clear();
        self.check_same(&log)?;
        self.check(queries)?;
        let mut queries = queries.clone();
        let committed = log.iterations().to_vec();
        for iteration in &committed {
            let asked = log.queries(*iteration)?;
            let mut scored = log.results(*iteration)?;
            let damaged = |error: Error| Error::input(log.path(), format!("results of iteration {iteration}: {error}"));
            self.ledger.replay(&scored).map_err(damaged)?;
            let items = self.database.take(&schema::u64s(&scored, schema::DB_IDX)?)?;
            let embeddings =
                items.column(schema::EMBEDDING).map_err(|error| Error::input(log.path(), error.to_string()))?;
            scored.insert_column(3, embeddings.clone()).map_err(|error| Error::input(log.path(), error.to_string()))?;
            let step = Step {
                iteration: *iteration,
                queries: &asked,
                results: &scored,
                database: &*self.database,
                seed: self.seed,
            };
            self.update.observe(&step)?;
            if Some(iteration) == committed.last() {
                queries = self.update.update(&step)?;
            }
        }
        let next = committed.last().map_or(0, |last| last + 1);
        if log.has_queries(next) {
            queries = log.queries(next)?;
        }
        log.update_manifest(|manifest| manifest.ended = None)?;
        self.run(log, queries, next, iterations)
    }

    fn run(&mut self, mut log: SearchLog, mut queries: DataFrame, from: u32, iterations: u32) -> Result<SearchLog> {
        self.ledger.keep_in(&log.ledger_folder(), &log.tmp())?;
        if self.retry_failed {
            self.ledger.retry_failed();
        }
        self.score.stderr_in(&log.path().join("stderr"));
        self.ledger.interrupt = self.interrupt.clone();
        log.append_queries(from, &queries)?;
        let started = std::time::Instant::now();
        let mut best: Option<f64> = None;
        // Only a target needs the best of the iterations before.
        for iteration in log.iterations().iter().filter(|_| self.stop.score.is_some()) {
            best = better(best, summary(*iteration, &log.results(*iteration)?, 0, 0)?.best);
        }
        let (mut iteration, mut quiet) = (from, 0);
        let reason = loop {
            if let Some(reason) = self.reason_to_stop(iteration, iterations, quiet) {
                break reason;
            }
            if self.stop.seconds.is_some_and(|limit| started.elapsed().as_secs_f64() >= limit) {
                break StopReason::Seconds;
            }
            let target = self.stop.score.map(|target| if self.ledger.minimize { -target } else { target });
            if target.is_some_and(|target| best.is_some_and(|best| best >= target)) {
                break StopReason::Score;
            }
            match self.iterate(iteration, &queries, Some(&mut log)) {
                Ok((summary, next)) => {
                    quiet = if summary.new == 0 { quiet + 1 } else { 0 };
                    queries = next;
                    best = better(best, summary.best);
                    self.refuse_many_failures().map_err(|error| error.at(iteration))?;
                    if let Some(observer) = &mut self.observer {
                        observer(&summary);
                    }
                }
                Err(Error::Interrupted) => break StopReason::Interrupted,
                Err(error) => return Err(error.at(iteration)),
            }
            iteration += 1;
        };
        let ended = Ended {
            reason,
            iterations: iteration,
            evaluations: self.ledger.evaluations(),
            reused: self.ledger.reused(),
            failed: self.ledger.failures().0,
            asked_again: self.score.asked_again(),
            at: now(),
        };
        log.update_manifest(|manifest| manifest.ended = Some(ended))?;
        Ok(log)
    }

    fn refuse_many_failures(&self) -> Result<()> {
        const ENOUGH: u64 = 100;
        let (asked, Some(limit)) = (self.ledger.evaluations(), self.stop.failed_share) else { return Ok(()) };
        let (failed, reason) = self.ledger.failures();
        if asked < ENOUGH || failed as f64 <= limit * asked as f64 {
            return Ok(());
        }
        let reason = format!(
            "{failed} of {asked} items failed, more than the {} % allowed (for example: {}); mend the scorer, then --resume --retry-failed",
            limit * 100.0,
            reason.unwrap_or("no reason given")
        );
        Err(Error::Score { iteration: None, reason })
    }

    /// Starts a run whose scores come by hand, or goes on with it, as far as it goes without them.
    /// Asked again before it is told, it gives the same items.
    ///
    /// # Errors
    /// As [`Runner::search_into`] and [`Runner::resume`].
    pub fn ask(&mut self, path: impl AsRef<Path>, queries: &DataFrame, iterations: u32) -> Result<Asked> {
        let path = path.as_ref();
        let ended = match path.join("run.json").exists() {
            true => self.resume(path, queries, iterations),
            false => self.search_into(path, queries, iterations),
        };
        match ended {
            Ok(log) => Ok(Asked::Ended(Box::new(log))),
            Err(Error::Waiting { .. }) => Ok(Asked::Items(self.ledger.waiting.take().unwrap_or_default())),
            Err(error) => Err(error),
        }
    }

    /// Takes scores of items that were asked, all or a part, makes them durable and goes on: `db_idx`,
    /// `score` (null if it failed), optionally `reason` and parts. What was told before is passed over.
    ///
    /// # Errors
    /// As [`Runner::resume`]; an item that does not wait; a score that does not come by hand ([`ByHand`](crate::ByHand)).
    pub fn tell(
        &mut self,
        path: impl AsRef<Path>,
        queries: &DataFrame,
        iterations: u32,
        scores: &DataFrame,
    ) -> Result<Asked> {
        if !self.score.tell(scores) {
            return Err(Error::Config("tell: this run's scores do not come by hand (score.by_hand = true)".into()));
        }
        self.ask(path, queries, iterations)
    }

    fn reason_to_stop(&self, iteration: u32, iterations: u32, quiet: u32) -> Option<StopReason> {
        if self.interrupt.as_ref().is_some_and(|interrupt| interrupt.load(Ordering::Relaxed)) {
            return Some(StopReason::Interrupted);
        }
        if iteration >= iterations {
            return Some(StopReason::Iterations);
        }
        if self.stop.evaluations.is_some_and(|budget| self.ledger.evaluations() >= budget) {
            return Some(StopReason::Evaluations);
        }
        self.stop.nothing_new.is_some_and(|limit| quiet >= limit).then_some(StopReason::NothingNew)
    }

    /// Shows the stages an empty frame, so that mistakes cost nothing.
    fn check(&self, queries: &DataFrame) -> Result<()> {
        schema::check_queries(queries, self.database.dim())?;
        let nothing = self.database.query(&queries.head(Some(0)), Request::default())?;
        self.filter.check(&nothing)?;
        self.score.check(&nothing.drop_many([schema::QUERY_IDX, schema::DISTANCE]))
    }

    /// Refuses to go on with a run of another library.
    fn check_same(&self, log: &SearchLog) -> Result<()> {
        let was = log.manifest();
        if was.seed != self.seed {
            return Err(Error::input(log.path(), format!("was started with seed {}, not {}", was.seed, self.seed)));
        }
        log.check_dataset(self.database.identity())
    }

    fn manifest(&self) -> Manifest {
        Manifest {
            format_version: FORMAT_VERSION,
            uphill_version: env!("CARGO_PKG_VERSION").into(),
            seed: self.seed,
            dataset: self.database.identity().cloned(),
            config: self.config.clone(),
            started: now(),
            ended: None,
        }
    }
}

/// Options.
impl Runner {
    /// Takes rows away before they are scored.
    pub fn filter(mut self, filter: impl Filter + 'static) -> Self {
        self.filter = Box::new(filter);
        self
    }

    /// Of everything random (default 0).
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// When to stop before the iterations are over.
    pub fn stop(mut self, stop: Stop) -> Self {
        self.stop = stop;
        self
    }

    /// Takes smaller scores as better: `score` is the negative of the scorer's, which is kept as `raw_score`.
    pub fn minimize(mut self, minimize: bool) -> Self {
        self.ledger.minimize = minimize;
        self
    }

    /// What a failed item does to the run (default: its score is null).
    pub fn on_error(mut self, on_error: OnError) -> Self {
        self.ledger.on_error = on_error;
        self
    }

    /// Asks again for items that failed, when a resumed run meets them; each was counted once.
    pub fn retry_failed(mut self, retry: bool) -> Self {
        self.retry_failed = retry;
        self
    }

    /// Takes scores that were paid for before, at no cost: such items have no `evaluation` and do not
    /// count against the budget. `version_of` tells the score's version from the configuration in a run.json.
    ///
    /// # Errors
    /// A source that cannot be read, or is of another library or score.
    pub fn reuse(mut self, reuse: &Reuse, version_of: impl Fn(&serde_json::Value) -> Option<String>) -> Result<Self> {
        let library = self.database.identity().and_then(|identity| identity.library_id.clone());
        self.ledger.reusable = Reusable::read(reuse, library.as_deref(), &version_of)?;
        Ok(self)
    }

    /// Stores the configuration in run.json.
    pub fn describe(mut self, config: serde_json::Value) -> Self {
        self.config = config;
        self
    }

    /// Is told of each committed iteration.
    pub fn observe(mut self, observer: impl FnMut(&Summary) + 'static) -> Self {
        self.observer = Some(Box::new(observer));
        self
    }

    /// Stops the search, resumably, when set.
    pub fn interrupt(mut self, flag: Arc<AtomicBool>) -> Self {
        self.interrupt = Some(flag);
        self
    }
}

fn summary(iteration: u32, scored: &DataFrame, new: u64, evaluations: u64) -> Result<Summary> {
    let scores = schema::scores(scored, SCORE)?;
    let known: Vec<f64> = scores.iter().copied().flatten().collect();
    Ok(Summary {
        iteration,
        rows: scores.len(),
        new,
        failed: scores.len() - known.len(),
        evaluations,
        best: known.iter().copied().max_by(f64::total_cmp),
        mean: (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64),
    })
}

fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

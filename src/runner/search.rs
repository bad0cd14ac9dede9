//! Iterations until there is a reason to stop.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use polars::prelude::DataFrame;

use super::stop::{Progress, Summary};
use super::{Batch, Runner, Scores};
use crate::database::{DatasetIdentity, QueryOptions};
use crate::error::{Error, Result};
use crate::frame::schema;
use crate::log::{Ended, FORMAT_VERSION, Manifest, SearchLog, StopReason, TAG, now};
use crate::score::Session;
use crate::update::SearchContext;

impl Runner {
    /// Searches for so many iterations, logging to a temporary folder that the log owns.
    ///
    /// # Errors
    /// As [`Runner::step`].
    pub fn search(&mut self, queries: &DataFrame, iterations: u32) -> Result<SearchLog> {
        self.check(queries, self.stop.evaluations)?;
        let log = SearchLog::temporary(self.manifest())?;
        self.begin(&log)?;
        self.run(log, queries.clone(), Progress::new(iterations), VecDeque::new())
    }

    /// Searches for so many iterations, logging to a folder that does not exist yet.
    ///
    /// # Errors
    /// As [`Runner::step`]; a folder that is not empty.
    pub fn search_into(&mut self, path: impl AsRef<Path>, queries: &DataFrame, iterations: u32) -> Result<SearchLog> {
        self.check(queries, self.stop.evaluations)?;
        let manifest = Manifest { version_tag: self.database.identity().map(|_| new_tag()), ..self.manifest() };
        let log = SearchLog::create(path, manifest)?;
        self.keep_version(&log);
        self.begin(&log)?;
        self.run(log, queries.clone(), Progress::new(iterations), VecDeque::new())
    }

    /// Forgets every other run, and tells the ledger and the score of this one; the rule was told by `check`.
    pub(super) fn begin(&mut self, log: &SearchLog) -> Result<()> {
        self.ledger.clear();
        self.ledger.interrupt = self.interrupt.clone();
        let has_answers = self.ledger.open_folder(&log.ledger_folder(), &log.tmp())?;
        let stderr = log.path().join("stderr");
        // What is asked once more on purpose is not what was asked before.
        let again = if self.retry_failed { format!(" again {}", now()) } else { String::new() };
        let id = log.manifest().run_id.clone() + &again;
        let session = Session { id, stderr, interrupt: self.interrupt.clone(), has_answers };
        // No worker has it any more.
        let in_use = || Error::Config("score: asked by another run".into());
        Arc::get_mut(&mut self.score).ok_or_else(in_use)?.begin(&session);
        Ok(())
    }

    /// Iterates until there is a reason to stop. `out` are batches that the log has, but the rule does not know of yet.
    pub(super) fn run(
        &mut self,
        mut log: SearchLog,
        queries: DataFrame,
        mut progress: Progress,
        mut out: VecDeque<Batch>,
    ) -> Result<SearchLog> {
        let begun = log.append_queries(progress.iteration, &queries);
        let ended = begun.and_then(|()| self.iterate(&mut log, queries, &mut progress, &mut out));
        // Nobody writes to the folder when its lock goes.
        self.ledger.close();
        for batch in &out {
            if let Scores::Out(order) = &batch.scores {
                self.ledger.cancel(order);
            }
        }
        let reason = match ended {
            Ok(reason) => progress.why_nothing(reason, log.manifest().ended.as_ref().map(|ended| ended.reason)),
            Err(Error::Interrupted) => StopReason::Interrupted,
            Err(error) => {
                let costs = self.ended(&log, StopReason::Error);
                self.note_error(&mut log, &error, costs);
                return Err(error);
            }
        };
        if reason == StopReason::NothingPasses && progress.is_new && progress.passed == 0 {
            log::warn!("filter: none of the {} rows that the queries met passes it", progress.met);
        }
        let ended = self.ended(&log, reason);
        self.end(&mut log, ended)?;
        Ok(log)
    }

    /// What a run that ends now cost.
    fn ended(&self, log: &SearchLog, reason: StopReason) -> Ended {
        Ended {
            reason,
            error: None,
            iterations: log.iterations().last().map_or(0, |last| last + 1),
            evaluations: self.ledger.evaluations(),
            scored: Some(self.ledger.scored()),
            reused: self.ledger.reused(),
            rejected: self.ledger.rejected(),
            failed: self.ledger.failed(),
            asked_again: self.ledger.requested_again,
            retries: self.ledger.retries_before + self.score.retry_count(),
            learned: self.update.relevance(),
            at: now(),
        }
    }

    /// Notes the error that ended a run, and what it cost, where run.json can still be written. One that waits has not ended.
    pub(super) fn note_error(&self, log: &mut SearchLog, error: &Error, costs: Ended) {
        const LONGEST: usize = 1000;
        let reason = match error {
            Error::Pending { .. } | Error::Interrupted => return,
            Error::Unavailable { .. } => StopReason::Away,
            _ => StopReason::Error,
        };
        let said = error.to_string();
        let line: String = said.lines().next().unwrap_or_default().chars().take(LONGEST).collect();
        // Whoever called is told of the error itself.
        let _ = self.end(log, Ended { reason, error: Some(line), at: now(), ..costs });
    }

    fn end(&self, log: &mut SearchLog, ended: Ended) -> Result<()> {
        let is_spent = self.stop.evaluations.is_some_and(|budget| ended.evaluations >= budget);
        log.end(ended, &self.config, is_spent)
    }

    fn iterate(
        &mut self,
        log: &mut SearchLog,
        mut queries: DataFrame,
        progress: &mut Progress,
        out: &mut VecDeque<Batch>,
    ) -> Result<StopReason> {
        loop {
            let interrupted = self.interrupt.as_ref().is_some_and(|interrupt| interrupt.load(Ordering::Relaxed));
            let interrupted = interrupted.then_some(StopReason::Interrupted);
            if let Some(reason) = self.stop.reason(progress, &self.ledger).or(interrupted) {
                // What is out is paid for.
                while let Some(batch) = self.conclude_first(out, Some(&mut *log))? {
                    self.note(&batch, log, progress)?;
                }
                if reason != StopReason::Interrupted {
                    let last = progress.iteration.saturating_sub(1);
                    self.stop.refuse_many_failures(&self.ledger, true).map_err(|error| error.in_iteration(last))?;
                }
                return Ok(reason);
            }
            log.goes_on(&self.config)?;
            let iteration = progress.iteration;
            let goes_on = self.behind() > 0;
            let chosen = self
                .choose(iteration, &queries, Some(&mut *log), goes_on)
                .map_err(|error| error.in_iteration(iteration))?;
            out.push_back(chosen);
            progress.iteration += 1;

            let mut concluded = Vec::new();
            while out.len() > self.behind() {
                concluded.extend(self.conclude_first(out, Some(&mut *log))?);
            }
            let frames = out.iter().map(Batch::frame).collect::<Result<Vec<_>>>()?;
            if let Some(chosen) = out.back_mut().or(concluded.last_mut()) {
                queries =
                    self.follow(chosen, &frames, Some(&mut *log)).map_err(|error| error.in_iteration(iteration))?;
            }
            for batch in &concluded {
                self.note(batch, log, progress)?;
            }
        }
    }

    /// Concludes the batch that was chosen first; it stays where it is if that fails.
    pub(super) fn conclude_first(
        &mut self,
        out: &mut VecDeque<Batch>,
        log: Option<&mut SearchLog>,
    ) -> Result<Option<Batch>> {
        let Some(batch) = out.front_mut() else { return Ok(None) };
        let iteration = batch.iteration;
        self.conclude(batch, log).map_err(|error| error.in_iteration(iteration))?;
        Ok(out.pop_front())
    }

    /// Counts a batch that is concluded, and tells of it.
    fn note(&mut self, batch: &Batch, log: &SearchLog, progress: &mut Progress) -> Result<()> {
        progress.add(&batch.summary);
        if batch.is_of_earlier {
            return Ok(());
        }
        progress.is_new = true;
        log.note_times(batch.iteration, &batch.summary.times);
        self.stop.refuse_many_failures(&self.ledger, false).map_err(|error| error.in_iteration(batch.iteration))?;
        if let Some(observer) = &mut self.observer {
            observer(&Summary { best_so_far: progress.best, ..batch.summary });
        }
        Ok(())
    }

    /// How many batches may be out when the next is chosen.
    pub(super) fn behind(&self) -> usize {
        // By hand, the search waits for what is told.
        if self.score.is_manual() { 0 } else { self.update.batches_in_flight() }
    }

    /// Shows the stages an empty frame, so that mistakes cost nothing, and gives it as the filter sees it and as the score
    /// does. Writes nothing, and asks no scorer.
    ///
    /// # Errors
    /// What would end the search before it began.
    pub fn preview(&self, queries: &DataFrame) -> Result<[DataFrame; 2]> {
        schema::check_queries(queries, self.database.dim())?;
        self.update.check()?;
        let nothing = self.database.query(&queries.head(Some(0)), QueryOptions::default())?;
        self.filter.check(&nothing)?;
        let items = nothing.drop_many([schema::QUERY_IDX, schema::DISTANCE]);
        self.score.check(&items)?;
        Ok([nothing, items])
    }

    /// The attributes that the filter and the score are known to read.
    pub(crate) fn reads(&self) -> Vec<String> {
        self.filter.reads().unwrap_or_default().into_iter().chain(self.score.reads()).collect()
    }

    /// Shows the stages an empty frame and the rule the library.
    pub(super) fn check(&mut self, queries: &DataFrame, planned: Option<u64>) -> Result<()> {
        self.preview(queries)?;
        let read = self.reads();
        let known = self.ledger.reused_items(&*self.database)?;
        self.update.begin(&SearchContext {
            database: &*self.database,
            columns_read: &read,
            reused: &known,
            planned_budget: planned,
        })
    }

    /// Keeps the version that a run reads from being cleaned away. run.json names the tag before it is there: if the
    /// process is killed between, going on sets it, and no tag is ever without its run.
    pub(super) fn keep_version(&self, log: &SearchLog) {
        let Some(tag) = &log.manifest().version_tag else { return };
        if let Err(error) = self.database.keep_version(tag) {
            log::warn!("{error}; the run goes on, but once this version is cleaned away it cannot be resumed");
        }
    }

    fn manifest(&self) -> Manifest {
        Manifest {
            format_version: FORMAT_VERSION,
            uphill_version: env!("CARGO_PKG_VERSION").into(),
            seed: self.seed,
            dataset: self
                .database
                .identity()
                .map(|identity| DatasetIdentity { uri: place(&identity.uri), ..identity.clone() }),
            version_tag: None,
            run_id: String::new(),
            config: self.config.clone(),
            amended: false,
            planned: self.stop.evaluations,
            cut: None,
            started: now(),
            ended: None,
        }
    }
}

/// Where a library is, from any working directory.
pub(super) fn place(uri: &str) -> String {
    let path = Path::new(uri);
    let absolute = if path.exists() { std::path::absolute(path).ok() } else { None };
    absolute.map_or_else(|| uri.into(), |path| path.to_string_lossy().into_owned())
}

/// A name of a run's own.
fn new_tag() -> String {
    format!("{TAG}{:016x}", rand::random::<u64>())
}

//! The loop: query → filter → select → score → log → update, and again.

mod by_hand;
mod options;
mod resume;
mod search;
mod stop;
mod watch;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use polars::prelude::DataFrame;

pub use self::by_hand::Asked;
pub use self::stop::{Stop, Summary};
use self::watch::Watch;
use crate::candidates;
use crate::database::{Request, VectorDatabase};
use crate::error::Result;
use crate::filter::{Filter, PassThroughFilter, check_subset};
use crate::ledger::Ledger;
use crate::log::{SearchLog, Times};
use crate::schema;
use crate::score::Score;
use crate::select::Select;
use crate::step::Step;
use crate::update::QueryUpdate;

/// Runs a search: owns the stages, knows when to stop.
///
/// ```text
/// queries ─▶ VectorDatabase.query ─▶ Filter ─▶ Select ─▶ Score ─▶ SearchLog ─▶ QueryUpdate ─▶ queries …
/// ```
pub struct Runner {
    database: Box<dyn VectorDatabase>,
    filter: Box<dyn Filter>,
    select: Option<Box<dyn Select>>,
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

type Observer = Box<dyn FnMut(&Summary) + Send>;

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
            select: None,
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
        let (database, seed) = (&*self.database, self.seed);
        let (mut times, mut watch) = (Times::default(), Watch::start());
        schema::check_queries(queries, database.dim())?;
        if let Some(log) = log.as_deref_mut() {
            log.append_queries(iteration, queries)?;
        }
        watch.lap(&mut times.log);
        let exclude = (!self.update.revisits()).then(|| self.ledger.booked());
        let selector = self.select.as_deref().or_else(|| self.update.selector());
        // Where only some of the candidates will be scored, the others need no more attributes than decide that.
        let columns = selector.and_then(|selector| Some([self.filter.reads()?, selector.reads()?].concat()));
        let request = Request { k: self.update.k(queries.height()), exclude, columns: columns.as_deref() };
        let met = database.query(queries, request)?;
        let results = candidates::joined(met, self.update.candidates(), queries, request, database)?;
        schema::check_results("database", &results, database.dim())?;
        watch.lap(&mut times.query);

        let kept = self.filter.filter(results.clone())?;
        check_subset("filter", &results, &kept)?;
        let (met, passed) = (results.height(), kept.height());
        watch.lap(&mut times.filter);

        let worth = match selector {
            Some(selector) => {
                let chosen = selector.select(&Step { iteration, queries, results: &kept, database, seed })?;
                check_subset("select", &kept, &chosen)?;
                if columns.is_some() { candidates::completed(&chosen, queries, database)? } else { chosen }
            }
            None => kept,
        };
        watch.lap(&mut times.select);

        let (scored, new) = self.ledger.score(&*self.score, worth, self.stop.evaluations)?;
        watch.lap(&mut times.score);

        if let Some(log) = log.as_deref_mut() {
            log.append(iteration, &scored)?;
        }
        watch.lap(&mut times.log);
        let step = Step { iteration, queries, results: &scored, database, seed };
        self.update.observe(&step)?;
        let next = self.update.update(&step)?;
        schema::check_queries(&next, database.dim())?;
        watch.lap(&mut times.update);
        if let Some(log) = log {
            log.append_queries(iteration + 1, &next)?;
        }
        watch.lap(&mut times.log);
        let summary = Summary::of(iteration, &scored, new, self.ledger.evaluations())?;
        Ok((Summary { met, passed, times, ..summary }, next))
    }
}

//! The loop: query → filter → select → score → log → update, and again.

mod batch;
mod by_hand;
mod options;
mod resume;
mod search;
mod stop;
mod watch;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use polars::prelude::DataFrame;

use self::batch::{Batch, Scores};
pub use self::by_hand::Asked;
pub use self::stop::{Stop, Summary};
use self::watch::Watch;
use crate::candidates;
use crate::database::{QueryOptions, VectorDatabase};
use crate::error::Result;
use crate::filter::{Filter, PassThroughFilter, check_subset};
use crate::frame::schema;
use crate::ledger::Ledger;
use crate::log::SearchLog;
use crate::score::Score;
use crate::select::Select;
use crate::step::Step;
use crate::update::QueryUpdate;

/// Runs a search: owns the stages, knows when to stop.
///
/// ```text
/// queries ─▶ VectorDatabase.query ─▶ Filter ─▶ Select ─▶ Score ─▶ SearchLog ─▶ QueryUpdate ─▶ queries …
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
/// let asked = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
/// let counter = asked.clone();
/// let score = move |items: &DataFrame| {
///     counter.fetch_add(items.height(), std::sync::atomic::Ordering::Relaxed);
///     Ok(items.column("qed")?.clone())
/// };
///
/// // The rule reads what the score is not made of. Two iterations, then, perhaps in another process, two more: no item is
/// // asked for twice.
/// let rule = SurrogateUpdate::new().features(Features::columns(["smiles"]));
/// let mut runner = Runner::new(library, score, rule).seed(7);
/// let run = folder.path().join("run");
/// runner.search_into(&run, &queries, 2)?;
/// let log = runner.resume(&run, &queries, 4)?;
/// assert_eq!(log.iterations().len(), 4);
/// assert_eq!(uphill::collect(log.compile_results()?)?.height(), asked.load(std::sync::atomic::Ordering::Relaxed));
/// # Ok(())
/// # }
/// ```
pub struct Runner {
    database: Box<dyn VectorDatabase>,
    filter: Box<dyn Filter>,
    select: Option<Box<dyn Select>>,
    score: Arc<dyn Score>,
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
            score: score.into(),
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
    pub fn step(&mut self, iteration: u32, queries: &DataFrame, mut log: Option<&mut SearchLog>) -> Result<DataFrame> {
        let mut step = || {
            let mut batch = self.choose(iteration, queries, log.as_deref_mut(), false)?;
            self.conclude(&mut batch, log.as_deref_mut())?;
            self.follow(&mut batch, &[], log.as_deref_mut())
        };
        step().map_err(|error| error.in_iteration(iteration))
    }

    /// Finds candidates, chooses what is scored and has it asked for: waits for the scores, unless the search `goes_on`.
    fn choose(
        &mut self,
        iteration: u32,
        queries: &DataFrame,
        log: Option<&mut SearchLog>,
        goes_on: bool,
    ) -> Result<Batch> {
        let (database, seed) = (&*self.database, self.seed);
        let mut summary = Summary { iteration, ..Summary::default() };
        let (times, mut watch) = (&mut summary.times, Watch::start());
        schema::check_queries(queries, database.dim())?;
        if let Some(log) = log {
            log.append_queries(iteration, queries)?;
        }
        watch.lap(&mut times.log);
        let exclude = (!self.update.revisits()).then(|| self.ledger.decided());
        let selector = self.select.as_deref().or_else(|| self.update.selector());
        // Where only some of the candidates will be scored, the others need no more attributes than decide that.
        let columns = selector.and_then(|selector| Some([self.filter.reads()?, selector.reads()?].concat()));
        let request = QueryOptions { k: self.update.k(queries.height()), exclude, columns: columns.as_deref() };
        let met = database.query(queries, request)?;
        let results = candidates::merge_candidates(met, self.update.candidates(), queries, request, database)?;
        schema::check_results("database", &results, database.dim())?;
        watch.lap(&mut times.query);

        let kept = self.filter.filter(results.clone())?;
        check_subset("filter", &results, &kept)?;
        (summary.met, summary.passed) = (results.height(), kept.height());
        watch.lap(&mut times.filter);

        let worth = match selector {
            Some(selector) => {
                let (results, is_replay) = (&kept, false);
                let step = Step { iteration, queries, results, pending: &[], database, seed, is_replay };
                let chosen = selector.select(&step)?;
                check_subset("select", &kept, &chosen)?;
                if columns.is_some() { candidates::fetch_attributes(&chosen, queries, database)? } else { chosen }
            }
            None => kept,
        };
        watch.lap(&mut times.select);

        let order = self.ledger.plan(&*self.score, worth, self.stop.evaluations)?;
        if let Err(error) = self.ledger.submit(&self.score, iteration, &order, goes_on) {
            self.ledger.cancel(&order);
            return Err(error);
        }
        summary.evaluations = self.ledger.evaluations();
        watch.lap(&mut times.score);
        Ok(Batch { iteration, queries: queries.clone(), scores: Scores::Out(order), summary, is_of_earlier: false })
    }

    /// Takes the scores of a batch, logs them, and shows them to the rule.
    fn conclude(&mut self, batch: &mut Batch, log: Option<&mut SearchLog>) -> Result<()> {
        let (iteration, mut watch) = (batch.iteration, Watch::start());
        let scored = match &batch.scores {
            Scores::Out(order) => {
                let (scored, new) = self.ledger.finish(iteration, order)?;
                batch.summary = batch.summary.of(&scored, new)?;
                watch.lap(&mut batch.summary.times.score);
                if let Some(log) = log {
                    log.append(iteration, &scored)?;
                }
                watch.lap(&mut batch.summary.times.log);
                scored
            }
            Scores::Logged(scored) | Scores::Seen(scored) => scored.clone(),
        };
        batch.scores = Scores::Seen(scored);
        self.update.observe(&batch.step(&batch.frame()?, &[], &*self.database, self.seed))?;
        watch.lap(&mut batch.summary.times.update);
        Ok(())
    }

    /// The queries after a batch, while those of some batches, of which it may be one, are out.
    fn follow(&mut self, batch: &mut Batch, out: &[DataFrame], log: Option<&mut SearchLog>) -> Result<DataFrame> {
        let mut watch = Watch::start();
        let next = self.update.update(&batch.step(&batch.frame()?, out, &*self.database, self.seed))?;
        schema::check_queries(&next, self.database.dim())?;
        watch.lap(&mut batch.summary.times.update);
        if let Some(log) = log {
            log.append_queries(batch.iteration + 1, &next)?;
        }
        watch.lap(&mut batch.summary.times.log);
        Ok(next)
    }
}

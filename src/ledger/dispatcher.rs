//! Dispatches items to scorers: in batches, to as many workers as each scorer has, in the foreground or the background.
//!
//! A scorer is the score itself, or each part of a sum. Answers are durable before anything depends on
//! them. An error in one batch stops further batches, but the answers of other batches in flight are kept.

use std::collections::{BTreeMap, HashMap};
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

use polars::prelude::*;

use super::store::{AnswerStore, Ordinals};
use crate::error::{Error, Result, WrapErr};
use crate::frame::schema::{self, DB_IDX};
use crate::panics::{Panic, catch, lock, wait};
use crate::score::{OnError, PartialSums, Score, ask, batch_count, batches, without_failures};

/// Worker threads that score batches, earlier jobs first. Dropping it waits for batches in flight and keeps their answers.
pub(super) struct Dispatcher {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// The score, and where to store its answers.
pub(super) struct Asking {
    pub(super) score: Arc<dyn Score>,
    pub(super) store: Arc<Mutex<AnswerStore>>,
    pub(super) on_error: OnError,
    pub(super) interrupt: Option<Arc<AtomicBool>>,
    /// The number of pending items.
    pub(super) open: Arc<AtomicUsize>,
}

struct Shared {
    asking: Asking,
    state: Mutex<State>,
    changed: Condvar,
}

/// Items that are scored together: those of one iteration, if it has a number.
struct Job {
    number: Option<u32>,
    ordinals: Ordinals,
    /// The partial results of a sum.
    sums: Option<Mutex<PartialSums>>,
    /// The number of unanswered batches of the current stage.
    left: AtomicUsize,
}

/// A batch of a job for one scorer.
struct Task {
    job: Arc<Job>,
    scorer: usize,
    items: DataFrame,
}

#[derive(Default)]
struct State {
    scorers: Vec<Lane>,
    /// The number of unanswered batches of each job.
    open: HashMap<Option<u32>, usize>,
    /// The number of batches so far.
    count: usize,
    trouble: Option<(Option<u32>, Trouble)>,
    closed: bool,
}

/// The queue of batches for a scorer.
struct Lane {
    workers: usize,
    running: usize,
    /// By job, then in order of arrival.
    waiting: BTreeMap<(Option<u32>, usize), Task>,
}

/// Why scoring stopped.
enum Trouble {
    Error(Error),
    Panic(Panic),
}

impl Asking {
    /// The score itself, or the parts of a sum.
    fn scorers(&self) -> Vec<&dyn Score> {
        match self.score.sum() {
            Some(sum) => sum.parts().iter().map(|part| &*part.score).collect(),
            None => vec![&*self.score],
        }
    }
}

impl Dispatcher {
    /// Starts without workers.
    fn new(asking: Asking) -> Self {
        let lane = |score: &&dyn Score| Lane { workers: score.workers().max(1), running: 0, waiting: BTreeMap::new() };
        let scorers = asking.scorers().iter().map(lane).collect();
        let state = Mutex::new(State { scorers, ..State::default() });
        Dispatcher { shared: Arc::new(Shared { asking, state, changed: Condvar::new() }), threads: Vec::new() }
    }

    /// Starts as many background workers as the scorers have.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub(super) fn start(asking: Asking) -> Result<Self> {
        let workers = asking.scorers().iter().map(|score| score.workers().max(1)).sum();
        let mut dispatcher = Self::new(asking);
        dispatcher.add(workers)?;
        Ok(dispatcher)
    }

    /// Scores items, and waits for the answers. The caller is one of the workers.
    ///
    /// # Errors
    /// The error that stopped scoring; a thread cannot be started.
    pub(super) fn ask(asking: Asking, items: &DataFrame, ordinals: Ordinals) -> Result<()> {
        let useful = |score: &&dyn Score| score.workers().clamp(1, batch_count(items.height(), *score).max(1));
        let workers: usize = asking.scorers().iter().map(useful).sum();
        let mut dispatcher = Self::new(asking);
        dispatcher.add(workers - 1)?;
        dispatcher.send(None, items, ordinals)?;
        dispatcher.shared.work(|state| state.is_answered(None));
        dispatcher.wait(None)
    }

    fn add(&mut self, workers: usize) -> Result<()> {
        for _ in 0..workers {
            let shared = self.shared.clone();
            let thread = std::thread::Builder::new().spawn(move || shared.work(|_| false));
            self.threads.push(thread.wrap_err("starting a worker")?);
        }
        Ok(())
    }

    /// Queues items.
    pub(super) fn send(&self, number: Option<u32>, items: &DataFrame, ordinals: Ordinals) -> Result<()> {
        let tasks = self.shared.begin(number, items, ordinals)?;
        let mut state = lock(&self.shared.state);
        state.open.insert(number, 0);
        state.push(tasks);
        self.shared.changed.notify_all();
        Ok(())
    }

    /// Waits until all items of a job are answered.
    ///
    /// # Errors
    /// The error that stopped scoring before.
    pub(super) fn wait(&self, number: Option<u32>) -> Result<()> {
        let mut state = lock(&self.shared.state);
        while !state.is_answered(number) {
            match state.trouble.take() {
                Some((of, Trouble::Error(error))) => return Err(of.into_iter().fold(error, Error::in_iteration)),
                Some((_, Trouble::Panic(panic))) => {
                    drop(state);
                    resume_unwind(panic)
                }
                None if state.closed => return Err(Error::Interrupted),
                None => state = wait(&self.shared.changed, state),
            }
        }
        state.open.remove(&number);
        Ok(())
    }
}

impl Drop for Dispatcher {
    fn drop(&mut self) {
        lock(&self.shared.state).closed = true;
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl State {
    fn is_answered(&self, number: Option<u32>) -> bool {
        self.open.get(&number).is_none_or(|batches| *batches == 0)
    }

    fn push(&mut self, tasks: Vec<Task>) {
        for task in tasks {
            let number = task.job.number;
            *self.open.entry(number).or_default() += 1;
            self.count += 1;
            self.scorers[task.scorer].waiting.insert((number, self.count), task);
        }
    }

    /// The next batch of a scorer with a free worker.
    fn pop(&mut self) -> Option<Task> {
        let free = self.scorers.iter_mut().filter(|lane| lane.running < lane.workers);
        let first = free.filter_map(|lane| Some((*lane.waiting.first_key_value()?.0, lane)));
        let (_, lane) = first.min_by_key(|(key, _)| *key)?;
        let (_, task) = lane.waiting.pop_first()?;
        lane.running += 1;
        Some(task)
    }
}

impl Shared {
    /// Creates a job, and its first batches.
    fn begin(&self, number: Option<u32>, items: &DataFrame, ordinals: Ordinals) -> Result<Vec<Task>> {
        let Asking { score, store, .. } = &self.asking;
        let Some(sum) = score.sum() else {
            let left = AtomicUsize::new(batch_count(items.height(), &**score));
            return Ok(tasks(&Arc::new(Job { number, ordinals, sums: None, left }), 0, items, &**score));
        };
        let known = lock(store).answers.known(&schema::u64s(items, DB_IDX)?);
        let mut sums = sum.partial(items, &known)?;
        if let Some(complete) = sums.complete(&sums.rows())? {
            lock(store).keep(&complete, &ordinals, score.is_paid())?;
            self.answered(complete.height());
        }
        let (sums, left) = (Some(Mutex::new(sums)), AtomicUsize::new(0));
        self.next_stage(&Arc::new(Job { number, ordinals, sums, left }))
    }

    /// The batches of the next stage of a sum.
    fn next_stage(&self, job: &Arc<Job>) -> Result<Vec<Task>> {
        let (Some(sum), Some(sums)) = (self.asking.score.sum(), &job.sums) else { return Ok(Vec::new()) };
        let questions = lock(sums).questions()?;
        let tasks = questions.iter().flat_map(|(part, items)| tasks(job, *part, items, &*sum.parts()[*part].score));
        let tasks: Vec<Task> = tasks.collect();
        job.left.store(tasks.len(), Ordering::Release);
        Ok(tasks)
    }

    /// The loop of a worker, until `is_enough` holds.
    fn work(&self, is_enough: impl Fn(&State) -> bool) {
        while let Some(task) = self.next(&is_enough) {
            let asked = catch(|| {
                self.ask(&task)?;
                // The worker that finishes the last batch of a stage starts the next stage.
                let is_last = task.job.left.fetch_sub(1, Ordering::AcqRel) == 1;
                if is_last { self.next_stage(&task.job) } else { Ok(Vec::new()) }
            });
            let mut state = lock(&self.state);
            state.scorers[task.scorer].running -= 1;
            let trouble = match asked {
                Ok(Ok(more)) => {
                    state.push(more);
                    state.open.get_mut(&task.job.number).into_iter().for_each(|batches| *batches -= 1);
                    None
                }
                Ok(Err(error)) => Some(Trouble::Error(error)),
                Err(panic) => Some(Trouble::Panic(panic)),
            };
            if let Some(trouble) = trouble.filter(|_| !state.closed) {
                (state.trouble, state.closed) = (Some((task.job.number, trouble)), true);
            }
            self.changed.notify_all();
        }
    }

    /// Waits for the next batch; `None` when there is nothing more to score.
    fn next(&self, is_enough: impl Fn(&State) -> bool) -> Option<Task> {
        let mut state = lock(&self.state);
        loop {
            if state.closed || is_enough(&state) {
                return None;
            }
            if let Some(task) = state.pop() {
                return Some(task);
            }
            state = wait(&self.changed, state);
        }
    }

    /// Scores one batch, and stores its answers as they arrive.
    fn ask(&self, task: &Task) -> Result<()> {
        let Asking { score, store, on_error, interrupt, .. } = &self.asking;
        if interrupt.as_ref().is_some_and(|interrupt| interrupt.load(Ordering::Relaxed)) {
            return Err(Error::Interrupted);
        }
        let part = score.sum().map(|sum| &sum.parts()[task.scorer]);
        let scorer = part.map_or(&**score, |part| &*part.score);
        let mut ticket = match &mut lock(store).batches {
            Some(batches) if scorer.is_paid() => Some(batches.ticket(task.items.height())?),
            _ => None,
        };
        let mut failure = None;
        let asked = ask(scorer, &task.items, &mut |answers| {
            let answered = answers.height();
            let answers = match on_error {
                OnError::Null => answers,
                OnError::Stop => {
                    let (others, failed) = without_failures(answers, part.map(|part| part.name()))?;
                    failure = failure.take().or(failed);
                    others
                }
            };
            if answers.height() > 0 {
                self.keep(task, &answers)?;
            }
            ticket.as_mut().map_or(Ok(()), |ticket| ticket.answered(answered))
        });
        // Nothing of this batch is in flight any more.
        if let (Ok(()) | Err(Error::Unavailable { .. } | Error::Score { .. }), Some(ticket)) = (&asked, ticket) {
            ticket.close()?;
        }
        asked.and(failure.map_or(Ok(()), Err))
    }

    /// Stores the answers of a scorer.
    fn keep(&self, task: &Task, answers: &DataFrame) -> Result<()> {
        let Asking { score, store, .. } = &self.asking;
        let keep = |answers: &DataFrame| lock(store).keep(answers, &task.job.ordinals, score.is_paid());
        let complete = match &task.job.sums {
            None => {
                keep(answers)?;
                answers.height()
            }
            Some(sums) => {
                // Hold the lock while storing, so that results of an item are stored in the order in which they arrive.
                let mut sums = lock(sums);
                let rows = sums.take(task.scorer, answers)?;
                let (complete, fresh) = sums.fresh(task.scorer, &rows)?;
                fresh.map_or(Ok(()), |fresh| keep(&fresh))?;
                complete
            }
        };
        self.answered(complete);
        Ok(())
    }

    /// Subtracts answered items from the pending ones.
    fn answered(&self, items: usize) {
        let left = |open: usize| Some(open.saturating_sub(items));
        let _ = self.asking.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left);
    }
}

/// Splits the items of a job into batches for a scorer.
fn tasks(job: &Arc<Job>, scorer: usize, items: &DataFrame, score: &dyn Score) -> Vec<Task> {
    let task = |items| Task { job: job.clone(), scorer, items };
    batches(items, score).into_iter().map(task).collect()
}

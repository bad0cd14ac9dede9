//! Dispatches items to scorers: in requests, to as many workers as each scorer has, in the foreground or the background.
//!
//! A scorer is the score itself, or each part of a sum. A *job* is the scoring of the items of one iteration, and a *request* is
//! one call of a scorer with some of these items. Answers are durable before anything depends on them. After an error in one
//! request no further requests start, but the answers to requests that workers are scoring are kept.

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
use crate::score::{OnError, PartialSums, Score, request_count, score_request, split_failures, split_requests};

/// Worker threads that score items, those of earlier jobs first. Dropping it waits for the requests in flight, and keeps their
/// answers.
pub(super) struct Dispatcher {
    shared: Arc<SharedState>,
    threads: Vec<JoinHandle<()>>,
}

/// The score, and where to store its answers.
pub(super) struct DispatchContext {
    pub(super) score: Arc<dyn Score>,
    pub(super) store: Arc<Mutex<AnswerStore>>,
    pub(super) on_error: OnError,
    pub(super) interrupt: Option<Arc<AtomicBool>>,
    /// The number of pending items.
    pub(super) pending: Arc<AtomicUsize>,
}

/// The state that all workers share.
struct SharedState {
    context: DispatchContext,
    state: Mutex<QueueState>,
    state_changed: Condvar,
}

/// The items of one iteration, or of one call of [`Dispatcher::score`].
struct Job {
    iteration: Option<u32>,
    ordinals: Ordinals,
    /// The partial results of a sum.
    sums: Option<Mutex<PartialSums>>,
    /// The number of unanswered requests of the current stage. A sum scores its parts in stages.
    unanswered_requests: AtomicUsize,
}

/// A request of a job to one scorer.
struct Request {
    job: Arc<Job>,
    scorer: usize,
    items: DataFrame,
}

/// The queues of requests, and why scoring stopped.
#[derive(Default)]
struct QueueState {
    queues: Vec<ScorerQueue>,
    /// The number of unanswered requests of each job, by iteration.
    unanswered_requests: HashMap<Option<u32>, usize>,
    /// The number of requests so far.
    request_count: usize,
    stop_cause: Option<(Option<u32>, StopCause)>,
    is_closed: bool,
}

/// The queue of requests to a scorer.
struct ScorerQueue {
    workers: usize,
    busy_workers: usize,
    /// In the order of jobs, then of arrival.
    requests: BTreeMap<(Option<u32>, usize), Request>,
}

/// Why scoring stopped.
enum StopCause {
    Error(Error),
    Panic(Panic),
}

impl DispatchContext {
    /// The score itself, or the parts of a sum.
    fn scorers(&self) -> Vec<&dyn Score> {
        match self.score.as_sum() {
            Some(sum) => sum.parts().iter().map(|part| &*part.score).collect(),
            None => vec![&*self.score],
        }
    }
}

impl Dispatcher {
    /// A dispatcher without workers.
    fn new(context: DispatchContext) -> Self {
        let queue = |score: &&dyn Score| ScorerQueue {
            workers: score.workers().max(1),
            busy_workers: 0,
            requests: BTreeMap::new(),
        };
        let queues = context.scorers().iter().map(queue).collect();
        let state = Mutex::new(QueueState { queues, ..QueueState::default() });
        Dispatcher {
            shared: Arc::new(SharedState { context, state, state_changed: Condvar::new() }),
            threads: Vec::new(),
        }
    }

    /// Starts as many background workers as the scorers have.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub(super) fn start(context: DispatchContext) -> Result<Self> {
        let workers = context.scorers().iter().map(|score| score.workers().max(1)).sum();
        let mut dispatcher = Self::new(context);
        dispatcher.add_workers(workers)?;
        Ok(dispatcher)
    }

    /// Scores items, and waits for the answers. The caller is one of the workers.
    ///
    /// # Errors
    /// The error that stopped scoring; a thread cannot be started.
    pub(super) fn score(context: DispatchContext, items: &DataFrame, ordinals: Ordinals) -> Result<()> {
        let worker_count = |score: &&dyn Score| score.workers().clamp(1, request_count(items.height(), *score).max(1));
        let workers: usize = context.scorers().iter().map(worker_count).sum();
        let mut dispatcher = Self::new(context);
        dispatcher.add_workers(workers - 1)?;
        dispatcher.send(None, items, ordinals)?;
        dispatcher.shared.work(|state| state.is_answered(None));
        dispatcher.wait(None)
    }

    fn add_workers(&mut self, workers: usize) -> Result<()> {
        for _ in 0..workers {
            let shared = self.shared.clone();
            let thread = std::thread::Builder::new().spawn(move || shared.work(|_| false));
            self.threads.push(thread.wrap_err("starting a worker")?);
        }
        Ok(())
    }

    /// QueueState items.
    pub(super) fn send(&self, iteration: Option<u32>, items: &DataFrame, ordinals: Ordinals) -> Result<()> {
        let requests = self.shared.start_job(iteration, items, ordinals)?;
        let mut state = lock(&self.shared.state);
        state.unanswered_requests.insert(iteration, 0);
        state.push(requests);
        self.shared.state_changed.notify_all();
        Ok(())
    }

    /// Waits until all items of a job are answered.
    ///
    /// # Errors
    /// The error that stopped scoring.
    pub(super) fn wait(&self, iteration: Option<u32>) -> Result<()> {
        let mut state = lock(&self.shared.state);
        while !state.is_answered(iteration) {
            match state.stop_cause.take() {
                Some((iteration, StopCause::Error(error))) => {
                    return Err(iteration.into_iter().fold(error, Error::in_iteration));
                }
                Some((_, StopCause::Panic(panic))) => {
                    drop(state);
                    resume_unwind(panic)
                }
                None if state.is_closed => return Err(Error::Interrupted),
                None => state = wait(&self.shared.state_changed, state),
            }
        }
        state.unanswered_requests.remove(&iteration);
        Ok(())
    }
}

impl Drop for Dispatcher {
    fn drop(&mut self) {
        lock(&self.shared.state).is_closed = true;
        self.shared.state_changed.notify_all();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl QueueState {
    fn is_answered(&self, iteration: Option<u32>) -> bool {
        self.unanswered_requests.get(&iteration).is_none_or(|requests| *requests == 0)
    }

    fn push(&mut self, requests: Vec<Request>) {
        for request in requests {
            let iteration = request.job.iteration;
            *self.unanswered_requests.entry(iteration).or_default() += 1;
            self.request_count += 1;
            self.queues[request.scorer].requests.insert((iteration, self.request_count), request);
        }
    }

    /// The next request to a scorer with a free worker.
    fn pop(&mut self) -> Option<Request> {
        let free = self.queues.iter_mut().filter(|queue| queue.busy_workers < queue.workers);
        let next = free.filter_map(|queue| Some((*queue.requests.first_key_value()?.0, queue)));
        let (_, queue) = next.min_by_key(|(key, _)| *key)?;
        let (_, request) = queue.requests.pop_first()?;
        queue.busy_workers += 1;
        Some(request)
    }
}

impl SharedState {
    /// Creates a job, and its first requests.
    fn start_job(&self, iteration: Option<u32>, items: &DataFrame, ordinals: Ordinals) -> Result<Vec<Request>> {
        let DispatchContext { score, store, .. } = &self.context;
        let Some(sum) = score.as_sum() else {
            let unanswered_requests = AtomicUsize::new(request_count(items.height(), &**score));
            return Ok(split_job(
                &Arc::new(Job { iteration, ordinals, sums: None, unanswered_requests }),
                0,
                items,
                &**score,
            ));
        };
        let stored_parts = lock(store).answers.stored_parts(&schema::u64s(items, DB_IDX)?);
        let mut sums = sum.partial_sums(items, &stored_parts)?;
        if let Some(complete) = sums.newly_complete(&sums.rows())? {
            lock(store).write(&complete, &ordinals, score.is_paid())?;
            self.count_answered(complete.height());
        }
        let (sums, unanswered_requests) = (Some(Mutex::new(sums)), AtomicUsize::new(0));
        self.next_stage(&Arc::new(Job { iteration, ordinals, sums, unanswered_requests }))
    }

    /// The requests of the next stage of a sum.
    fn next_stage(&self, job: &Arc<Job>) -> Result<Vec<Request>> {
        let (Some(sum), Some(sums)) = (self.context.score.as_sum(), &job.sums) else { return Ok(Vec::new()) };
        let parts = lock(sums).next_requests()?;
        let requests = parts.iter().flat_map(|(part, items)| split_job(job, *part, items, &*sum.parts()[*part].score));
        let requests: Vec<Request> = requests.collect();
        job.unanswered_requests.store(requests.len(), Ordering::Release);
        Ok(requests)
    }

    /// The loop of a worker, until `is_done` holds.
    fn work(&self, is_done: impl Fn(&QueueState) -> bool) {
        while let Some(request) = self.next(&is_done) {
            let result = catch(|| {
                self.score(&request)?;
                // The worker that finishes the last request of a stage starts the next stage.
                let is_last = request.job.unanswered_requests.fetch_sub(1, Ordering::AcqRel) == 1;
                if is_last { self.next_stage(&request.job) } else { Ok(Vec::new()) }
            });
            let mut state = lock(&self.state);
            state.queues[request.scorer].busy_workers -= 1;
            let stop_cause = match result {
                Ok(Ok(more)) => {
                    state.push(more);
                    state
                        .unanswered_requests
                        .get_mut(&request.job.iteration)
                        .into_iter()
                        .for_each(|requests| *requests -= 1);
                    None
                }
                Ok(Err(error)) => Some(StopCause::Error(error)),
                Err(panic) => Some(StopCause::Panic(panic)),
            };
            if let Some(stop_cause) = stop_cause.filter(|_| !state.is_closed) {
                (state.stop_cause, state.is_closed) = (Some((request.job.iteration, stop_cause)), true);
            }
            self.state_changed.notify_all();
        }
    }

    /// Waits for the next request. `None` when there is nothing more to score.
    fn next(&self, is_done: impl Fn(&QueueState) -> bool) -> Option<Request> {
        let mut state = lock(&self.state);
        loop {
            if state.is_closed || is_done(&state) {
                return None;
            }
            if let Some(request) = state.pop() {
                return Some(request);
            }
            state = wait(&self.state_changed, state);
        }
    }

    /// Scores the items of one request, and stores its answers as they arrive.
    fn score(&self, request: &Request) -> Result<()> {
        let DispatchContext { score, store, on_error, interrupt, .. } = &self.context;
        if interrupt.as_ref().is_some_and(|interrupt| interrupt.load(Ordering::Relaxed)) {
            return Err(Error::Interrupted);
        }
        let part = score.as_sum().map(|sum| &sum.parts()[request.scorer]);
        let scorer = part.map_or(&**score, |part| &*part.score);
        let mut in_flight = match &mut lock(store).folder {
            Some(folder) if scorer.is_paid() => Some(folder.start_in_flight(request.items.height())?),
            _ => None,
        };
        let mut failure = None;
        let result = score_request(scorer, &request.items, &mut |answers| {
            let answered = answers.height();
            let answers = match on_error {
                OnError::Null => answers,
                OnError::Stop => {
                    let (others, failed) = split_failures(answers, part.map(|part| part.name()))?;
                    failure = failure.take().or(failed);
                    others
                }
            };
            if answers.height() > 0 {
                self.store(request, &answers)?;
            }
            in_flight.as_mut().map_or(Ok(()), |in_flight| in_flight.subtract(answered))
        });
        // No item of this request is in flight any more.
        if let (Ok(()) | Err(Error::Unavailable { .. } | Error::Score { .. }), Some(in_flight)) = (&result, in_flight) {
            in_flight.close()?;
        }
        result.and(failure.map_or(Ok(()), Err))
    }

    /// Stores the answers of a scorer.
    fn store(&self, request: &Request, answers: &DataFrame) -> Result<()> {
        let DispatchContext { score, store, .. } = &self.context;
        let write = |answers: &DataFrame| lock(store).write(answers, &request.job.ordinals, score.is_paid());
        let complete = match &request.job.sums {
            None => {
                write(answers)?;
                answers.height()
            }
            Some(sums) => {
                // Hold the lock while storing, so that the answers of an item are stored in their order of arrival.
                let mut sums = lock(sums);
                let rows = sums.record(request.scorer, answers)?;
                let (complete, rows) = sums.rows_to_store(request.scorer, &rows)?;
                rows.map_or(Ok(()), |rows| write(&rows))?;
                complete
            }
        };
        self.count_answered(complete);
        Ok(())
    }

    /// Subtracts answered items from the pending ones.
    fn count_answered(&self, items: usize) {
        let remaining = |pending: usize| Some(pending.saturating_sub(items));
        let _ = self.context.pending.fetch_update(Ordering::Relaxed, Ordering::Relaxed, remaining);
    }
}

/// Splits the items of a job into requests to a scorer.
fn split_job(job: &Arc<Job>, scorer: usize, items: &DataFrame, score: &dyn Score) -> Vec<Request> {
    let request = |items| Request { job: job.clone(), scorer, items };
    split_requests(items, score).into_iter().map(request).collect()
}

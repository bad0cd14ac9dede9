//! Where items are asked for: in batches, by as many workers as the score allows, while the caller waits or while it goes on.

use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use polars::prelude::*;

use super::answers::{Answers, outcomes};
use super::batches::Batches;
use crate::error::{Doing, Error, Result};
use crate::schema::{self, DB_IDX, EVALUATION};
use crate::score::{OnError, Score, ask, without_failures};

/// What came back, in memory and, where scores are paid for, on the disk.
#[derive(Default)]
pub(super) struct Kept {
    pub(super) answers: Answers,
    /// Where what comes back is kept.
    pub(super) batches: Option<Batches>,
}

impl Kept {
    /// Makes answers durable, then takes them.
    pub(super) fn keep(
        &mut self,
        answers: &DataFrame,
        ordinals: &HashMap<u64, Option<u64>>,
        durable: bool,
    ) -> Result<()> {
        if let (true, Some(batches)) = (durable, &mut self.batches) {
            let ordinal = |item: &u64| ordinals.get(item).copied().flatten();
            let ordinals: Vec<Option<u64>> = schema::u64s(answers, DB_IDX)?.iter().map(ordinal).collect();
            let mut columns = vec![Column::new(EVALUATION.into(), ordinals)];
            columns.extend(answers.columns().iter().cloned());
            batches.write(&DataFrame::new(answers.height(), columns).doing("writing the ledger")?)?;
        }
        self.answers.record(answers)
    }
}

/// Locks what threads share; one that panicked has left it whole.
pub(super) fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Who is asked, and where it is kept. Items have, beside what the score sees of them, the column `evaluation`.
pub(super) struct Desk<'a> {
    pub(super) score: &'a dyn Score,
    pub(super) kept: &'a Mutex<Kept>,
    pub(super) on_error: OnError,
    pub(super) interrupt: Option<Arc<AtomicBool>>,
    /// The items that have no answer yet.
    pub(super) open: &'a AtomicUsize,
}

impl Desk<'_> {
    /// Asks for items, and waits for them.
    pub(super) fn ask(&self, items: &DataFrame) -> Result<()> {
        let batches = batches(items, self.score);
        let next = AtomicUsize::new(0);
        let failed: Mutex<Option<Error>> = Mutex::new(None);
        let work = || {
            while lock(&failed).is_none() {
                let Some(batch) = batches.get(next.fetch_add(1, Ordering::Relaxed)) else { break };
                if let Err(error) = self.ask_batch(batch) {
                    lock(&failed).get_or_insert(error);
                }
            }
        };
        match self.score.workers().clamp(1, batches.len().max(1)) {
            1 => work(),
            workers => std::thread::scope(|scope| {
                for _ in 0..workers {
                    scope.spawn(work);
                }
            }),
        }
        failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }

    /// Asks for one batch, and makes what comes back durable as it comes.
    fn ask_batch(&self, items: &DataFrame) -> Result<()> {
        if self.interrupt.as_ref().is_some_and(|interrupt| interrupt.load(Ordering::Relaxed)) {
            return Err(Error::Interrupted);
        }
        let ordinals =
            schema::u64s(items, DB_IDX)?.into_iter().zip(schema::nullable_u64s(items, EVALUATION)?).collect();
        let items = items.drop(EVALUATION).doing("asking")?;
        let (score, is_paid) = (self.score, self.score.is_paid());
        let mut ticket = match &mut lock(self.kept).batches {
            Some(batches) if is_paid => Some(batches.ticket(items.height())?),
            _ => None,
        };
        let mut failure = None;
        let asked = ask(score, &items, &mut |answers| {
            let done = outcomes(&answers)?.iter().filter(|outcome| outcome.is_some()).count();
            let answers = match self.on_error {
                OnError::Null => answers,
                OnError::Stop => {
                    let (others, failed) = without_failures(answers)?;
                    failure = failure.take().or(failed);
                    others
                }
            };
            let left = |open: usize| Some(open.saturating_sub(done));
            let _ = self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left);
            if answers.height() > 0 {
                lock(self.kept).keep(&answers, &ordinals, is_paid)?;
            }
            ticket.as_mut().map_or(Ok(()), |ticket| ticket.answered(done))
        });
        // Nobody works on what is left.
        if let (Ok(()) | Err(Error::Away { .. } | Error::Score { .. }), Some(ticket)) = (&asked, ticket) {
            ticket.close()?;
        }
        asked.and(failure.map_or(Ok(()), Err))
    }
}

/// Items in batches of the score's size; where there are fewer such batches than workers, all workers get as much.
fn batches(items: &DataFrame, score: &dyn Score) -> Vec<DataFrame> {
    let (rows, size) = (items.height(), score.batch_size().max(1));
    let full = rows.div_ceil(size);
    let count = full.max(score.workers().min(rows));
    let first = |batch: usize| if batch < full && count == full { batch * size } else { batch * rows / count };
    (0..count).map(|batch| items.slice(first(batch) as i64, first(batch + 1) - first(batch))).collect()
}

/// Workers that ask while the caller goes on. Those of an earlier order go first. What is in flight is waited for when it is
/// dropped, and kept.
pub(super) struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    score: Arc<dyn Score>,
    kept: Arc<Mutex<Kept>>,
    on_error: OnError,
    interrupt: Option<Arc<AtomicBool>>,
    open: Arc<AtomicUsize>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Batches that no worker has yet, with the number of their order.
    waiting: VecDeque<(u32, DataFrame)>,
    /// Batches of each order that are not answered.
    open: HashMap<u32, usize>,
    trouble: Option<Trouble>,
    closed: bool,
}

/// What ended the asking.
enum Trouble {
    Error(Error),
    Panic(Box<dyn Any + Send>),
}

impl Pool {
    /// As many as the score allows.
    ///
    /// # Errors
    /// No thread can be started.
    pub(super) fn new(
        score: &Arc<dyn Score>,
        kept: &Arc<Mutex<Kept>>,
        on_error: OnError,
        interrupt: Option<Arc<AtomicBool>>,
        open: &Arc<AtomicUsize>,
    ) -> Result<Self> {
        let (score, kept, open) = (score.clone(), kept.clone(), open.clone());
        let workers = score.workers().max(1);
        let (state, changed) = (Mutex::default(), Condvar::new());
        let shared = Arc::new(Shared { score, kept, on_error, interrupt, open, state, changed });
        let mut pool = Pool { shared, threads: Vec::new() };
        for _ in 0..workers {
            let shared = pool.shared.clone();
            let thread = std::thread::Builder::new().spawn(move || shared.work());
            pool.threads.push(thread.doing("starting a worker")?);
        }
        Ok(pool)
    }

    /// Has items asked for.
    pub(super) fn send(&self, order: u32, items: &DataFrame) {
        let batches = batches(items, &*self.shared.score);
        let mut state = lock(&self.shared.state);
        state.open.insert(order, batches.len());
        state.waiting.extend(batches.into_iter().map(|batch| (order, batch)));
        self.shared.changed.notify_all();
    }

    /// Waits until all items of an order are answered.
    ///
    /// # Errors
    /// What ended the asking before.
    pub(super) fn wait(&self, order: u32) -> Result<()> {
        let mut state = lock(&self.shared.state);
        while state.open.get(&order).is_some_and(|batches| *batches > 0) {
            match state.trouble.take() {
                Some(Trouble::Error(error)) => return Err(error),
                Some(Trouble::Panic(panic)) => {
                    drop(state);
                    resume_unwind(panic)
                }
                None if state.closed => return Err(Error::Interrupted),
                None => state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
        state.open.remove(&order);
        Ok(())
    }
}

impl Shared {
    /// What a worker does.
    fn work(&self) {
        let interrupt = self.interrupt.clone();
        let (score, on_error) = (&*self.score, self.on_error);
        let desk = Desk { score, kept: &self.kept, on_error, interrupt, open: &self.open };
        while let Some((order, items)) = self.next() {
            let asked = catch_unwind(AssertUnwindSafe(|| desk.ask_batch(&items)));
            let mut state = lock(&self.state);
            let trouble = match asked {
                Ok(Ok(())) => {
                    state.open.get_mut(&order).into_iter().for_each(|batches| *batches -= 1);
                    None
                }
                Ok(Err(error)) => Some(Trouble::Error(error)),
                Err(panic) => Some(Trouble::Panic(panic)),
            };
            if let Some(trouble) = trouble.filter(|_| !state.closed) {
                (state.trouble, state.closed) = (Some(trouble), true);
            }
            self.changed.notify_all();
        }
    }

    /// The next batch; `None` when nothing more is to be asked.
    fn next(&self) -> Option<(u32, DataFrame)> {
        let mut state = lock(&self.state);
        loop {
            if state.closed {
                return None;
            }
            if let Some(batch) = state.waiting.pop_front() {
                return Some(batch);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        lock(&self.shared.state).closed = true;
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

//! Lance is async; this crate is not.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::OnceLock;

use futures::{Future, FutureExt};
use rayon::ThreadPoolBuilder;
use tokio::runtime::{Builder, Runtime};

use crate::error::{Doing, Error, Result};
use crate::panics;

/// Threads that read files: as many as Lance asks of a disk at once. Tokio would start hundreds for the reads of one
/// search, most of them small, and a quarter of its CPU time would go into switching among them.
const READS: usize = 8;

/// DataFusion recurses into a prefilter.
const STACK: usize = 64 << 20;

/// Runs Lance's futures on a runtime of the crate's own, so that callers may be
/// synchronous or inside a runtime of theirs.
pub(crate) fn on_runtime<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> Result<T> {
    let runtime = runtime()?;
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    // Lance panics over some damaged files.
    runtime.spawn(async move { sender.send(AssertUnwindSafe(future).catch_unwind().await) });
    receiver.recv().doing("Lance was stopped")?.map_err(|panic| panicked(&*panic))
}

/// As [`on_runtime`], on one thread of rayon's: what the future itself spreads over threads is done in order. (Of what
/// it spawns, other threads do their share.)
pub(crate) fn on_one_thread<T: Send>(future: impl Future<Output = T> + Send) -> Result<T> {
    let runtime = runtime()?;
    let pool = ThreadPoolBuilder::new().num_threads(1).stack_size(STACK).build().doing("starting a thread")?;
    pool.install(|| runtime.block_on(AssertUnwindSafe(future).catch_unwind())).map_err(|panic| panicked(&*panic))
}

fn panicked(panic: &(dyn Any + Send)) -> Error {
    let message = format!("damaged, or not supported: {}", panics::message(panic));
    Error::Library { context: "Lance".into(), message, cause: None }
}

fn runtime() -> Result<&'static Runtime> {
    static RUNTIME: OnceLock<std::io::Result<Runtime>> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| {
        Builder::new_multi_thread()
            .thread_name("uphill-lance")
            .thread_stack_size(STACK)
            .max_blocking_threads(READS)
            .enable_all()
            .build()
    });
    runtime.as_ref().doing("starting the runtime")
}

//! A Tokio runtime that runs Lance's futures from synchronous code.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::OnceLock;

use futures::{Future, FutureExt};
use rayon::ThreadPoolBuilder;
use tokio::runtime::{Builder, Runtime};

use crate::error::{Error, Result, WrapErr};
use crate::panics;

/// The number of threads that read files. Lance requests this number of reads from a disk at once. By default, Tokio starts
/// hundreds of threads for the many small reads of a search, and a quarter of the CPU time is spent on switching between them.
const READ_THREADS: usize = 8;

/// The stack size of each thread. DataFusion recurses into the expression of a prefilter.
const STACK_BYTES: usize = 64 << 20;

/// Runs a future on the crate's own runtime and waits for it. The caller may be synchronous
/// code, or run inside another runtime.
pub(crate) fn block_on<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> Result<T> {
    let runtime = runtime()?;
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    // Lance panics on some damaged files.
    runtime.spawn(async move { sender.send(AssertUnwindSafe(future).catch_unwind().await) });
    receiver.recv().wrap_err("running a task of Lance")?.map_err(|panic| panic_error(&*panic))
}

/// As [`block_on`], in a rayon pool of one thread, so that parallel iterators in the future run in order. (Tasks that the
/// future spawns still run on other threads.)
pub(crate) fn block_on_one_thread<T: Send>(future: impl Future<Output = T> + Send) -> Result<T> {
    let runtime = runtime()?;
    let pool = ThreadPoolBuilder::new().num_threads(1).stack_size(STACK_BYTES).build().wrap_err("starting a thread")?;
    pool.install(|| runtime.block_on(AssertUnwindSafe(future).catch_unwind())).map_err(|panic| panic_error(&*panic))
}

fn panic_error(panic: &(dyn Any + Send)) -> Error {
    let message = format!("the dataset is damaged or not supported: {}", panics::message(panic));
    Error::Dependency { context: "Lance".into(), message, cause: None }
}

fn runtime() -> Result<&'static Runtime> {
    static RUNTIME: OnceLock<std::io::Result<Runtime>> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| {
        Builder::new_multi_thread()
            .thread_name("uphill-lance")
            .thread_stack_size(STACK_BYTES)
            .max_blocking_threads(READ_THREADS)
            .enable_all()
            .build()
    });
    runtime.as_ref().wrap_err("starting the runtime")
}

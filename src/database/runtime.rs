//! Lance is async; this crate is not.

use std::panic::AssertUnwindSafe;
use std::sync::OnceLock;

use futures::{Future, FutureExt};
use tokio::runtime::{Builder, Runtime};

use crate::error::{Doing, Error, Result};
use crate::untrusted;

/// Threads that read files: as many as Lance asks of a disk at once. Tokio would start hundreds for the reads of one
/// search, most of them small, and a quarter of its CPU time would go into switching among them.
const READS: usize = 8;

/// Runs Lance's futures on a runtime of the crate's own, so that callers may be
/// synchronous or inside a runtime of theirs.
pub(crate) fn on_runtime<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> Result<T> {
    static RUNTIME: OnceLock<std::io::Result<Runtime>> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| {
        Builder::new_multi_thread()
            .thread_name("uphill-lance")
            // DataFusion recurses into a prefilter.
            .thread_stack_size(64 << 20)
            .max_blocking_threads(READS)
            .enable_all()
            .build()
    });
    let runtime = runtime.as_ref().doing("starting the runtime")?;
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    // Lance panics over some damaged files.
    runtime.spawn(async move { sender.send(AssertUnwindSafe(future).catch_unwind().await) });
    match receiver.recv().doing("Lance was stopped")? {
        Ok(value) => Ok(value),
        Err(panic) => {
            let message = format!("damaged, or not supported: {}", untrusted::said(&*panic));
            Err(Error::Library { context: "Lance".into(), message })
        }
    }
}

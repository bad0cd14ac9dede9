//! Lance is async; this crate is not.

use std::sync::OnceLock;

use futures::Future;
use tokio::runtime::{Builder, Runtime};

use crate::error::{Doing, Result};

/// Runs Lance's futures on a runtime of the crate's own, so that callers may be
/// synchronous or inside a runtime of theirs.
pub(crate) fn on_runtime<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> Result<T> {
    static RUNTIME: OnceLock<std::io::Result<Runtime>> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| Builder::new_multi_thread().thread_name("uphill-lance").enable_all().build());
    let runtime = runtime.as_ref().doing("starting the runtime")?;
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    runtime.spawn(async move { sender.send(future.await) });
    receiver.recv().doing("Lance stopped with a panic; this is a bug, please report it")
}

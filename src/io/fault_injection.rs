//! Fault injection for tests of crashes and full disks. It is compiled in debug builds only.
//!
//! Every file operation of a writer calls [`inject_fault`] before it runs.
//! - `UPHILL_OPERATIONS=FILE` logs the operations to a file: a line each, with name and paths separated by tabs.
//! - `UPHILL_FAIL_AT=17:kill` injects a fault at the 17th operation of the process; `*` means every operation. `kill` sends
//!   SIGKILL, `stop` waits for SIGCONT, `hang` waits forever, and `enospc`, `eacces`, `enolck`, `enotsup` and `enosys` fail
//!   the operation with that error.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Signal, getpid, kill_process};

/// The number of operations of this process so far.
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// Injects the configured fault before a file operation. If it returns an error, the operation must fail with that error.
pub(super) fn inject_fault(operation: &str, paths: &[&Path]) -> io::Result<()> {
    let number = COUNT.fetch_add(1, Ordering::Relaxed) + 1;
    if let Some(list) = std::env::var_os("UPHILL_OPERATIONS") {
        let paths: String = paths.iter().map(|path| format!("\t{}", path.display())).collect();
        let mut list = File::options().create(true).append(true).open(list)?;
        list.write_all(format!("{operation}{paths}\n").as_bytes())?;
    }
    let setting = std::env::var("UPHILL_FAIL_AT").unwrap_or_default();
    let Some((at, fault)) = setting.split_once(':') else { return Ok(()) };
    if at != "*" && at.parse() != Ok(number) {
        return Ok(());
    }
    match fault {
        "kill" => kill_process(getpid(), Signal::KILL)?,
        "stop" => kill_process(getpid(), Signal::STOP)?,
        "hang" => loop {
            std::thread::sleep(Duration::from_secs(1));
        },
        "enospc" => return Err(Errno::NOSPC.into()),
        "eacces" => return Err(Errno::ACCESS.into()),
        "enolck" => return Err(Errno::NOLCK.into()),
        "enotsup" => return Err(Errno::NOTSUP.into()),
        "enosys" => return Err(Errno::NOSYS.into()),
        other => return Err(io::Error::other(format!("UPHILL_FAIL_AT: no fault `{other}`"))),
    }
    Ok(())
}

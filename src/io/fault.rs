//! Fail points, for tests of what a crash or a full disk leaves behind. Not in a release build.
//!
//! Each file operation of a writer announces itself here before it happens. With
//! `UPHILL_OPERATIONS=FILE` they are listed in that file, one a line: what, and the paths, with tabs
//! between. With `UPHILL_FAIL_AT=17:kill` something happens at the 17th of the process (`*`: at each):
//! `kill` is SIGKILL, `stop` waits for SIGCONT, `hang` waits for ever, `enospc`, `eacces`, `enolck`, `enotsup` and
//! `enosys` are what the operation fails with.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Signal, getpid, kill_process};

/// Operations of this process so far.
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// Called before a file operation: the error to fail with, if it is to fail.
pub(super) fn inject_fault(operation: &str, paths: &[&Path]) -> io::Result<()> {
    let number = COUNT.fetch_add(1, Ordering::Relaxed) + 1;
    if let Some(list) = std::env::var_os("UPHILL_OPERATIONS") {
        let paths: String = paths.iter().map(|path| format!("\t{}", path.display())).collect();
        let mut list = File::options().create(true).append(true).open(list)?;
        list.write_all(format!("{operation}{paths}\n").as_bytes())?;
    }
    let asked = std::env::var("UPHILL_FAIL_AT").unwrap_or_default();
    let Some((at, fault)) = asked.split_once(':') else { return Ok(()) };
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

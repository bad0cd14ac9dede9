//! A Python with the packages that read our files, made once per target folder.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Of one version each: a new DuckDB or Polars should not fail an unrelated change.
const PACKAGES: [&str; 3] = ["duckdb==2.0.*", "polars==2.1.*", "pyarrow==26.*"];

/// The interpreter of a virtual environment with DuckDB, Polars and pyarrow.
pub fn python() -> PathBuf {
    environment("venv", &PACKAGES)
}

/// The interpreter of a virtual environment with packages.
/// The first caller makes it, which takes the network; the others wait for it.
pub fn environment(name: &str, packages: &[&str]) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (venv, python) = (target.join(name), target.join(name).join("bin/python"));
    // Written last, so that a half-made environment is made again.
    let ready = venv.join("ready");
    fs::create_dir_all(target).expect("the target folder");
    let lock = File::create(target.join(format!("{name}.lock"))).expect("a lock file");
    lock.lock().expect("the lock");
    let wanted = packages.join(" ");
    if fs::read_to_string(&ready).is_ok_and(|found| found == wanted) {
        return python;
    }
    succeeds(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv));
    succeeds(
        Command::new(&python).args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(packages),
    );
    fs::write(ready, wanted).expect("a file");
    python
}

/// Runs a command, which must succeed; gives its standard output.
pub fn succeeds(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{command:?}: {status}\n{stdout}\n{stderr}");
    stdout.into_owned()
}

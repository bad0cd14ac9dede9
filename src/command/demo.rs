//! `uphill demo`: a first search, by the commands that anyone would type, each shown before it runs.

use std::path::{Path, PathBuf};

use clap::Parser;

use super::output::{say, shell};
use super::signals::Signals;
use super::{Cli, run};
use crate::error::{AtPath, Error};

/// The molecules of the repository.
const ITEMS: &str = "data/molecules.parquet";

/// What the demo searches for: drug-like molecules (`qed`) under 500 g/mol, 400 of 20,000 scored.
const RUN_FILE: &str = "\
seed = 7

[database]
path = \"molecules.lance\"

[filter]
sql = \"mw < 500\"     # what may be scored

[score]
sql = \"qed\"          # what it is worth; of yours: a command, a URL, or by hand

[stop]
evaluations = 400     # what it may cost
";

#[derive(clap::Args)]
pub struct Demo {
    /// The folder to write: a dataset, a run file, a run, its report.
    #[arg(default_value = "uphill-demo")]
    folder: PathBuf,
    /// The 20,000 molecules of the repository [default: data/molecules.parquet, here or where uphill was built].
    #[arg(long, value_name = "ITEMS.parquet")]
    items: Option<PathBuf>,
}

/// The exit code: of a signal, if that ended it.
pub fn demo(arguments: Demo, signals: &Signals) -> anyhow::Result<u8> {
    let folder = &arguments.folder;
    if folder.read_dir().map_or(folder.exists(), |mut entries| entries.next().is_some()) {
        return Err(Error::input(folder, "is there already; remove it, or name another folder").into());
    }
    let items = items(arguments.items)?;
    crate::io::atomic::create_dir_all(folder)?;
    let at = |name: &str| folder.join(name).to_string_lossy().into_owned();
    let (items, dataset, run_file, run, report) =
        (items.to_string_lossy().into_owned(), at("molecules.lance"), at("run.toml"), at("run"), at("report.html"));
    perform(&["index", &items, &dataset, "--index", "ivf-flat"], signals)?;
    say(format_args!("$ cat {}", shell(&run_file)));
    RUN_FILE.lines().for_each(say);
    std::fs::write(&run_file, RUN_FILE).at_path(Path::new(&run_file))?;
    perform(&["search", &run_file, "--out", &run], signals)?;
    perform(&["report", &run, "-o", &report], signals)?;
    say("Next:");
    for next in [
        vec!["results", &run, "-n", "20"],
        vec!["evaluate", &run, "--truth", &items, "--score-column", "qed"],
        vec!["init", &dataset, "-o", "run.toml"],
    ] {
        say(format_args!("  {}", typed(&next)));
    }
    Ok(0)
}

/// Where the molecules are.
fn items(named: Option<PathBuf>) -> Result<PathBuf, Error> {
    let places = [PathBuf::from(ITEMS), Path::new(env!("CARGO_MANIFEST_DIR")).join(ITEMS)];
    match named {
        Some(named) => Ok(named),
        None => places.into_iter().find(|place| place.exists()).ok_or_else(|| {
            Error::input(ITEMS, "is not there; run the demo in a clone of uphill, or name the file with --items")
        }),
    }
}

/// Shows a command, and runs it; an interrupt ends the demo.
fn perform(arguments: &[&str], signals: &Signals) -> anyhow::Result<()> {
    say(format_args!("$ {}", typed(arguments)));
    match run(Cli::try_parse_from([&["uphill"], arguments].concat())?.command, signals)? {
        0 => Ok(()),
        _ => Err(Error::Interrupted.into()),
    }
}

/// A command as one types it.
fn typed(arguments: &[&str]) -> String {
    ["uphill".to_string()]
        .into_iter()
        .chain(arguments.iter().map(|argument| shell(argument)))
        .collect::<Vec<_>>()
        .join(" ")
}

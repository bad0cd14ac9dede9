//! `uphill demo`: runs a first search with ordinary commands, and prints each command before it runs.

use std::path::{Path, PathBuf};

use clap::Parser;

use super::output::{info, quote};
use super::signals::Signals;
use super::{Cli, run};
use crate::error::{AtPath, Error};

/// The molecules of the repository, 20,000 with embeddings.
const ITEMS: &str = "data/molecules.parquet";

/// The run file of the demo: finds drug-like molecules (`qed`) under 500 g/mol and scores 400 of 20,000.
const RUN_FILE: &str = "\
seed = 7

[database]
path = \"molecules.lance\"

[filter]
sql = \"mw < 500\"     # which items may be scored

[score]
sql = \"qed\"          # replace it with a command, a URL, or scores by hand

[stop]
evaluations = 400     # the maximum number of items to score
";

#[derive(clap::Args)]
pub struct Demo {
    /// The folder to create, for the dataset, the run file, the run and its report.
    #[arg(default_value = "uphill-demo")]
    folder: PathBuf,
    /// The molecules of the repository [default: data/molecules.parquet, here or where uphill was built].
    #[arg(long, value_name = "ITEMS.parquet")]
    items: Option<PathBuf>,
}

/// Runs the demo and returns the exit code.
pub fn demo(arguments: Demo, signals: &Signals) -> anyhow::Result<u8> {
    let folder = &arguments.folder;
    if folder.read_dir().map_or(folder.exists(), |mut entries| entries.next().is_some()) {
        return Err(Error::input(folder, "already exists; remove it or choose another folder").into());
    }
    let items = items_path(arguments.items)?;
    crate::io::atomic::create_dir_all(folder)?;
    let path_of = |name: &str| folder.join(name).to_string_lossy().into_owned();
    let (items, dataset, run_file, run, report) = (
        items.to_string_lossy().into_owned(),
        path_of("molecules.lance"),
        path_of("run.toml"),
        path_of("run"),
        path_of("report.html"),
    );
    run_step(&["index", &items, &dataset, "--index", "ivf-flat"], signals)?;
    info(format_args!("$ cat {}", quote(&run_file)));
    RUN_FILE.lines().for_each(info);
    std::fs::write(&run_file, RUN_FILE).at_path(Path::new(&run_file))?;
    run_step(&["search", &run_file, "--out", &run], signals)?;
    run_step(&["report", &run, "-o", &report], signals)?;
    info("Next steps:");
    for next in [
        vec!["results", &run, "-n", "20"],
        vec!["evaluate", &run, "--truth", &items, "--score-column", "qed"],
        vec!["init", &dataset, "-o", "run.toml"],
    ] {
        info(format_args!("  {}", command_line(&next)));
    }
    Ok(0)
}

/// The path of the molecules.
fn items_path(given: Option<PathBuf>) -> Result<PathBuf, Error> {
    let paths = [PathBuf::from(ITEMS), Path::new(env!("CARGO_MANIFEST_DIR")).join(ITEMS)];
    match given {
        Some(given) => Ok(given),
        None => paths.into_iter().find(|path| path.exists()).ok_or_else(|| {
            Error::input(ITEMS, "does not exist; run the demo in a clone of uphill, or pass the file with --items")
        }),
    }
}

/// Shows a command and runs it. An interruption ends the demo.
fn run_step(arguments: &[&str], signals: &Signals) -> anyhow::Result<()> {
    info(format_args!("$ {}", command_line(arguments)));
    match run(Cli::try_parse_from([&["uphill"], arguments].concat())?.command, signals)? {
        0 => Ok(()),
        _ => Err(Error::Interrupted.into()),
    }
}

/// A command as typed in a shell.
fn command_line(arguments: &[&str]) -> String {
    ["uphill".to_string()]
        .into_iter()
        .chain(arguments.iter().map(|argument| quote(argument)))
        .collect::<Vec<_>>()
        .join(" ")
}

//! The command line: what the commands are, their exit codes; each in a room of its own.

mod index;
mod inspect;
mod output;
mod pictures;
mod plan;
mod search;
mod show;
mod signals;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

use self::output::{Unwritten, Voice, say};
use self::signals::Signals;
use crate::error::Error;

/// Finds the best-scoring items of an embedded library while scoring only a small share of it.
///
/// Exit codes: 0 done, 1 failure, 2 usage or configuration, 4 the run folder or dataset is in
/// use, 75 the scorer is away, 130 and 143 interrupted (both: continue with --resume).
#[derive(Parser)]
#[command(name = "uphill", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    voice: Voice,
}

#[derive(Subcommand)]
enum Command {
    /// Build a Lance dataset with an index from Parquet files of embedded items.
    Index(index::Index),
    /// Search a library as a run file says, into a run folder.
    Search(search::Search),
    /// The next items to score by hand, as Parquet; asking again before telling gives the same.
    Ask(search::Ask),
    /// Take scores of asked items, all or a part, and go on.
    Tell {
        /// The run folder.
        run: PathBuf,
        /// Parquet with `db_idx` and `score`, optionally `reason` and parts of the score.
        scores: PathBuf,
    },
    /// The items met, best first: one row each.
    Results(show::Show),
    /// The query vectors of each iteration.
    Queries(show::Show),
    /// The path of each query and the scores it met.
    Trajectories {
        /// A path from its start for each leaf of the tree that branching queries make, with `leaf_idx` and `pruned`.
        #[arg(long)]
        paths: bool,
        #[command(flatten)]
        show: show::Show,
    },
    /// How much of the best a run found, and at what cost, where the scores of all items are known.
    Evaluate(show::Evaluate),
    /// A page that shows a run, or compares several: curves, map, best items, recipe. One file, without a network.
    Report(pictures::Report),
    /// The curves of a run, or of several, as SVG for a paper.
    Plot(pictures::Plot),
    /// Remove a run folder, and the tag that keeps the dataset version it reads.
    Remove {
        /// The run folder.
        run: PathBuf,
    },
    /// What a dataset or a run folder is: rows, index, version; how far, how it ended, best.
    Inspect {
        /// A Lance dataset or a run folder.
        path: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// A failure that may pass: EX_TEMPFAIL of sysexits.h, which schedulers know.
const AWAY: u8 = 75;

/// Runs the `uphill` command with these arguments, the program's name first, as its `main` does: it prints, handles signals,
/// and gives the exit code.
pub fn command(arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> u8 {
    let command = match Cli::try_parse_from(arguments) {
        Ok(cli) => {
            cli.voice.take();
            cli.command
        }
        Err(told) => {
            // Whoever reads may be gone.
            let _ = told.print();
            return told.exit_code() as u8;
        }
    };
    output::log_warnings();
    output::quiet_panics();
    let signals = match Signals::install() {
        Ok(signals) => signals,
        Err(error) => return fail(&error.into(), 1),
    };
    match output::caught(|| run(command, &signals)) {
        Ok(()) => signals.exit_code(),
        Err(error) if matches!(error.downcast_ref(), Some(Unwritten::ReaderLeft)) => 0,
        Err(error) => fail(&error, signals.exit_code()),
    }
}

fn run(command: Command, signals: &Signals) -> anyhow::Result<()> {
    match command {
        Command::Index(arguments) => index::index(arguments, signals),
        Command::Search(arguments) => search::search(arguments, signals),
        Command::Ask(arguments) => search::ask(arguments, signals),
        Command::Tell { run, scores } => search::tell(run, scores, signals),
        Command::Results(arguments) => show::results(arguments),
        Command::Queries(arguments) => show::queries(arguments),
        Command::Trajectories { paths: false, show } => show::trajectories(show),
        Command::Trajectories { paths: true, show } => show::paths(show),
        Command::Evaluate(arguments) => show::evaluate(arguments),
        Command::Report(arguments) => pictures::report(arguments),
        Command::Plot(arguments) => pictures::plot(arguments),
        Command::Remove { run } => remove(run),
        Command::Inspect { path, json } => inspect::inspect(path, json),
    }
}

fn fail(error: &anyhow::Error, interrupted: u8) -> u8 {
    output::fail(format_args!("uphill: {error:#}"));
    match error.downcast_ref::<Error>() {
        Some(Error::Config(_)) => 2,
        Some(Error::Locked { .. }) => 4,
        Some(Error::Away { .. }) => AWAY,
        Some(Error::Interrupted) => interrupted,
        _ => 1,
    }
}

fn remove(run: PathBuf) -> anyhow::Result<()> {
    crate::log::remove(&run)?;
    say(format_args!("{}: removed", run.display()));
    Ok(())
}

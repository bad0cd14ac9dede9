//! The command line: what the commands are, their exit codes; each in a room of its own.

mod demo;
mod generate;
mod help;
mod index;
mod init;
mod inspect;
mod output;
mod pictures;
mod plan;
mod search;
mod show;
mod signals;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{CommandFactory, Parser, Subcommand};

use self::output::{Unwritten, Voice, say, told};
use self::signals::Signals;
use crate::database::local_path;
use crate::error::Error;

/// Finds the best-scoring items of an embedded library while scoring only a small share of it.
///
/// Exit codes: 0 done, 1 failure, 2 usage or configuration, 4 the run folder or dataset is in
/// use, 75 the scorer is away, 130 and 143 interrupted (both: continue with --resume).
#[derive(Parser)]
#[command(name = "uphill", version, after_long_help = help::UPHILL)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    voice: Voice,
}

#[derive(Subcommand)]
enum Command {
    /// A first search, from Parquet to a report: shows each command, and runs it.
    #[command(after_long_help = help::DEMO)]
    Demo(demo::Demo),
    /// Build a Lance dataset with an index from Parquet files of embedded items.
    #[command(after_long_help = help::INDEX)]
    Index(index::Index),
    /// Write a run file that fits a dataset, with comments; it runs as it is.
    #[command(after_long_help = help::INIT)]
    Init(init::Init),
    /// Search a library as a run file says, into a run folder.
    #[command(after_long_help = help::SEARCH)]
    Search(search::Search),
    /// The next items to score by hand, as Parquet, CSV or JSON; asking again before telling gives the same.
    #[command(after_long_help = help::ASK)]
    Ask(search::Ask),
    /// Take scores of asked items, all or a part, and go on.
    #[command(after_long_help = help::TELL)]
    Tell(search::Tell),
    /// The items met, best first: one row each.
    #[command(after_long_help = help::RESULTS)]
    Results(show::Show),
    /// The query vectors of each iteration.
    #[command(after_long_help = help::QUERIES)]
    Queries(show::Show),
    /// The path of each query and the scores it met.
    #[command(after_long_help = help::TRAJECTORIES)]
    Trajectories {
        /// A path from its start for each leaf of the tree that branching queries make, with `leaf_idx` and `pruned`.
        #[arg(long)]
        paths: bool,
        #[command(flatten)]
        show: show::Show,
    },
    /// How much of the best a run found, and at what cost, where the scores of all items are known.
    #[command(after_long_help = help::EVALUATE)]
    Evaluate(show::Evaluate),
    /// A page that shows a run, or compares several: curves, map, best items, recipe. One file, without a network.
    #[command(after_long_help = help::REPORT)]
    Report(pictures::Report),
    /// The curves of a run, or of several, as SVG for a paper.
    #[command(after_long_help = help::PLOT)]
    Plot(pictures::Plot),
    /// Remove a run folder, and the tag that keeps the dataset version it reads.
    #[command(after_long_help = help::REMOVE)]
    Remove {
        /// The run folder.
        run: PathBuf,
        /// Where the dataset is now, if it was moved.
        #[arg(long, value_name = "DATASET")]
        library: Option<String>,
    },
    /// What a dataset or a run folder is: rows, index, version; how far, how it ended, best.
    #[command(after_long_help = help::INSPECT)]
    Inspect {
        /// A Lance dataset or a run folder.
        path: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// The manual, or what a shell completes.
    #[command(after_long_help = help::GENERATE)]
    Generate(generate::Generate),
}

/// A failure that may pass: EX_TEMPFAIL of sysexits.h, which schedulers know.
const AWAY: u8 = 75;

/// Runs the `uphill` command with these arguments, the program's name first, as its `main` does: it prints, handles signals,
/// and gives the exit code.
pub fn command(arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> u8 {
    let command = match Cli::try_parse_from(arguments.into_iter().map(|argument| local(argument.into()))) {
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
        Ok(code) => code,
        Err(error) if matches!(error.downcast_ref(), Some(Unwritten::ReaderLeft)) => 0,
        Err(error) => fail(&error, signals.exit_code()),
    }
}

/// An argument, or the path that it means as a `file://` address, by itself or behind `--option=`.
fn local(argument: OsString) -> OsString {
    let (option, value) = match argument.to_str().and_then(|text| text.split_once("=file:/")) {
        Some((option, place)) if option.starts_with("--") => (format!("{option}="), format!("file:/{place}").into()),
        _ => (String::new(), argument.clone()),
    };
    match local_path(&value) {
        Ok(path) if path != *value => {
            let mut local = OsString::from(option);
            local.push(path);
            local
        }
        // Whoever opens it says what is wrong with it.
        _ => argument,
    }
}

/// Does what a command says; gives the exit code. What was done to its end has not been interrupted, whatever signal came.
fn run(command: Command, signals: &Signals) -> anyhow::Result<u8> {
    match command {
        Command::Demo(arguments) => return demo::demo(arguments, signals),
        Command::Index(arguments) => index::index(arguments, signals)?,
        Command::Search(arguments) => return search::search(arguments, signals),
        Command::Ask(arguments) => return search::ask(arguments, signals),
        Command::Tell(arguments) => return search::tell(arguments, signals),
        Command::Remove { run, library } => remove(run, library)?,
        command => signals.at_once(move || show(command))?,
    }
    Ok(0)
}

/// Does what only reads, and writes at most one file, when it is whole.
fn show(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Init(arguments) => init::init(arguments),
        Command::Results(arguments) => show::results(arguments),
        Command::Queries(arguments) => show::queries(arguments),
        Command::Trajectories { paths: false, show } => show::trajectories(show),
        Command::Trajectories { paths: true, show } => show::paths(show),
        Command::Evaluate(arguments) => show::evaluate(arguments),
        Command::Report(arguments) => pictures::report(arguments),
        Command::Plot(arguments) => pictures::plot(arguments),
        Command::Inspect { path, json } => inspect::inspect(path, json),
        Command::Generate(arguments) => generate::generate(arguments, Cli::command()),
        // The others were done above.
        _ => Ok(()),
    }
}

fn fail(error: &anyhow::Error, interrupted: u8) -> u8 {
    output::fail(format_args!("uphill: {}", told(error)));
    match error.downcast_ref::<Error>() {
        Some(Error::Config(_)) => 2,
        Some(Error::Locked { .. }) => 4,
        Some(Error::Unavailable { .. }) => AWAY,
        Some(Error::Interrupted) => interrupted,
        _ => 1,
    }
}

fn remove(run: PathBuf, library: Option<String>) -> anyhow::Result<()> {
    match library {
        Some(library) => crate::log::remove_from(&run, library)?,
        None => crate::log::remove(&run)?,
    }
    say(format_args!("{}: removed", run.display()));
    Ok(())
}

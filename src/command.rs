//! The command line: its commands and their exit codes.

mod audit;
mod demo;
mod dry_run;
mod evaluate;
mod explain;
mod generate;
mod help;
mod index;
mod init;
mod inspect;
mod output;
mod report;
mod results;
mod search;
mod signals;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{CommandFactory, Parser, Subcommand};

use self::output::{Verbosity, WriteError, catch_panic, error_chain, info};
use self::signals::Signals;
use crate::database::local_path;
use crate::error::Error;

/// Find the best-scoring items of an embedded library while scoring only a small share of it.
#[derive(Parser)]
#[command(name = "uphill", version, after_long_help = help::UPHILL)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    verbosity: Verbosity,
}

#[derive(Subcommand)]
enum Command {
    /// Run a first search, from a Parquet file to a report, and show each command.
    #[command(after_long_help = help::DEMO)]
    Demo(demo::Demo),
    /// Build a dataset with a vector index from Parquet files of embedded items.
    ///
    /// The dataset is in the Lance format. It appears only when it is complete.
    #[command(after_long_help = help::INDEX)]
    Index(index::Index),
    /// Write a commented run file for a dataset, ready to run.
    #[command(after_long_help = help::INIT)]
    Init(init::Init),
    /// Search a library as configured in a run file, and write a run folder.
    ///
    /// A search that was interrupted or killed continues with --resume and loses no score.
    #[command(after_long_help = help::SEARCH)]
    Search(search::Search),
    /// Get the next items to score by hand.
    ///
    /// Until you give their scores with `uphill tell`, repeated calls return the same items.
    #[command(after_long_help = help::ASK)]
    Ask(search::Ask),
    /// Give scores of items that `uphill ask` returned, and continue the search.
    ///
    /// You can give all scores at once or some at a time.
    #[command(after_long_help = help::TELL)]
    Tell(search::Tell),
    /// Print the items that a run found, best first.
    #[command(after_long_help = help::RESULTS)]
    Results(results::Results),
    /// Print the query vectors of each iteration.
    #[command(after_long_help = help::QUERIES)]
    Queries(results::RunRows),
    /// Print the path of each query, with the scores of the items that it found.
    #[command(after_long_help = help::TRAJECTORIES)]
    Trajectories {
        /// Print the tree of branching queries as one path for each leaf, with `leaf_idx` and `pruned`.
        #[arg(long)]
        paths: bool,
        #[command(flatten)]
        rows: results::RunRows,
    },
    /// Measure how many of the best items a run found, and at what cost.
    ///
    /// This needs the true scores of all items.
    #[command(after_long_help = help::EVALUATE)]
    Evaluate(evaluate::Evaluate),
    /// Show why the model chose items: the scored items and columns behind each prediction.
    ///
    /// An item of the run is explained by the model that chose it, any other item of the library by the last model. The run is
    /// replayed for this. Nothing is scored or written.
    #[command(after_long_help = help::EXPLAIN)]
    Explain(explain::Explain),
    /// Score random items that a run has not judged, and bound the hits that it has missed.
    ///
    /// The items are drawn out of those without a score that pass the filter. The run itself stays as it is. A call that was
    /// interrupted continues when it is repeated, and loses no score.
    #[command(after_long_help = help::AUDIT)]
    Audit(audit::Audit),
    /// Write an HTML report of a run, or a comparison of several.
    ///
    /// The report shows the curves, a map of the library, the best items and the configuration. It is one file and needs no
    /// network.
    #[command(after_long_help = help::REPORT)]
    Report(report::Report),
    /// Draw the curves of one or several runs as SVG.
    #[command(after_long_help = help::PLOT)]
    Plot(report::Plot),
    /// Remove a run folder, and the tag that keeps its dataset version.
    #[command(after_long_help = help::REMOVE)]
    Remove {
        /// The run folder.
        run: PathBuf,
        /// The new path of the dataset, if it was moved.
        #[arg(long, value_name = "DATASET")]
        library: Option<String>,
    },
    /// Show a dataset (rows, index, version) or a run (progress, cost, best score).
    #[command(after_long_help = help::INSPECT)]
    Inspect {
        /// A Lance dataset or a run folder.
        path: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Generate manual pages or shell completions.
    #[command(after_long_help = help::GENERATE)]
    Generate(generate::Generate),
}

/// The exit code if the scorer is unavailable: EX_TEMPFAIL of sysexits.h. Schedulers may retry after it.
const EX_TEMPFAIL: u8 = 75;

/// Runs the `uphill` command with these arguments, the program name first. It prints, handles signals, and returns the exit
/// code.
pub fn command(arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> u8 {
    let command = match Cli::try_parse_from(arguments.into_iter().map(|argument| resolve_file_url(argument.into()))) {
        Ok(cli) => {
            output::set_verbosity(cli.verbosity);
            cli.command
        }
        Err(help_or_error) => {
            // Standard output may be closed.
            let _ = help_or_error.print();
            return help_or_error.exit_code() as u8;
        }
    };
    output::install_logger();
    output::silence_panics();
    let signals = match Signals::install() {
        Ok(signals) => signals,
        Err(error) => return fail(&error.into(), 1),
    };
    match catch_panic(|| run(command, &signals)) {
        Ok(code) => code,
        Err(error) if matches!(error.downcast_ref(), Some(WriteError::ClosedPipe)) => 0,
        Err(error) => fail(&error, signals.exit_code()),
    }
}

/// An argument with a `file://` address replaced by its path, also in `--option=file://…`.
fn resolve_file_url(argument: OsString) -> OsString {
    let (option, value) = match argument.to_str().and_then(|text| text.split_once("=file:/")) {
        Some((option, path)) if option.starts_with("--") => (format!("{option}="), format!("file:/{path}").into()),
        _ => (String::new(), argument.clone()),
    };
    match local_path(&value) {
        Ok(path) if path != *value => {
            let mut local = OsString::from(option);
            local.push(path);
            local
        }
        // An invalid address is reported when it is opened.
        _ => argument,
    }
}

/// Runs a command and returns the exit code. A command that completes is a success, even after a signal.
fn run(command: Command, signals: &Signals) -> anyhow::Result<u8> {
    match command {
        Command::Demo(arguments) => return demo::demo(arguments, signals),
        Command::Index(arguments) => index::index(arguments, signals)?,
        Command::Search(arguments) => return search::search(arguments, signals),
        Command::Ask(arguments) => return search::ask(arguments, signals),
        Command::Tell(arguments) => return search::tell(arguments, signals),
        Command::Audit(arguments) => return audit::audit(arguments, signals),
        Command::Remove { run, library } => remove(run, library)?,
        command => signals.run_interruptible(move || run_reader(command))?,
    }
    Ok(0)
}

/// Runs a command that only reads, and writes at most one file.
fn run_reader(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Init(arguments) => init::init(arguments),
        Command::Results(arguments) => results::results(arguments),
        Command::Queries(arguments) => results::queries(arguments),
        Command::Trajectories { paths: false, rows } => results::trajectories(rows),
        Command::Trajectories { paths: true, rows } => results::paths(rows),
        Command::Evaluate(arguments) => evaluate::evaluate(arguments),
        Command::Explain(arguments) => explain::explain(arguments),
        Command::Report(arguments) => report::report(arguments),
        Command::Plot(arguments) => report::plot(arguments),
        Command::Inspect { path, json } => inspect::inspect(path, json),
        Command::Generate(arguments) => generate::generate(arguments, Cli::command()),
        // `run` handles the other commands.
        _ => Ok(()),
    }
}

/// Prints an error and returns its exit code. `interrupt_code` is the exit code after a signal.
fn fail(error: &anyhow::Error, interrupt_code: u8) -> u8 {
    output::error(format_args!("uphill: {}", error_chain(error)));
    match error.downcast_ref::<Error>() {
        Some(Error::Config(_)) => 2,
        Some(Error::Locked { .. }) => 4,
        Some(Error::Unavailable { .. }) => EX_TEMPFAIL,
        Some(Error::Interrupted) => interrupt_code,
        _ => 1,
    }
}

fn remove(run: PathBuf, library: Option<String>) -> anyhow::Result<()> {
    match library {
        Some(library) => crate::log::remove_from(&run, library)?,
        None => crate::log::remove(&run)?,
    }
    info(format_args!("{}: removed", run.display()));
    Ok(())
}

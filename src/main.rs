//! The `uphill` command: one short function per command, printing, progress, exit codes.

#![forbid(unsafe_code)]

mod output;
mod pictures;
mod signals;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};
use polars::prelude::*;
use serde_json::json;
use uphill::{
    Asked, Config, Error, IndexKind, IndexOptions, LanceDatabase, Metric, Progress, Runner, SearchLog, StopReason,
    Truth, VectorDatabase,
};

use crate::output::{Output, Rows, Unwritten, ended, progress_lines, say};
use crate::signals::Signals;

/// Finds the best-scoring items of an embedded library while scoring only a small share of it.
///
/// Exit codes: 0 done, 1 failure, 2 usage or configuration, 4 the run folder or dataset is in
/// use, 75 the scorer is away, 130 and 143 interrupted (both: continue with --resume).
#[derive(Parser)]
#[command(name = "uphill", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build a Lance dataset with an index from Parquet files of embedded items.
    Index(Index),
    /// Search a library as a run file says, into a run folder.
    Search(Search),
    /// The next items to score by hand, as Parquet; asking again before telling gives the same.
    Ask(Ask),
    /// Take scores of asked items, all or a part, and go on.
    Tell {
        /// The run folder.
        run: PathBuf,
        /// Parquet with `db_idx` and `score`, optionally `reason` and parts of the score.
        scores: PathBuf,
    },
    /// The items met, best first: one row each.
    Results(Show),
    /// The query vectors of each iteration.
    Queries(Show),
    /// The path of each query and the scores it met.
    Trajectories {
        /// A path from its start for each leaf of the tree that branching queries make, with `leaf_idx` and `pruned`.
        #[arg(long)]
        paths: bool,
        #[command(flatten)]
        show: Show,
    },
    /// How much of the best a run found, and at what cost, where the scores of all items are known.
    Evaluate(Evaluate),
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

#[derive(clap::Args)]
struct Index {
    /// A Parquet file, a glob, or a folder of .parquet files.
    items: PathBuf,
    /// The dataset to build.
    dataset: PathBuf,
    /// The column of embeddings [default: the only list of floats].
    #[arg(long)]
    embedding_column: Option<String>,
    /// l2 (squared), cosine or dot.
    #[arg(long, default_value = "l2")]
    metric: Metric,
    /// auto, none, ivf-flat, ivf-sq, ivf-pq, ivf-rq or ivf-hnsw-sq; auto is none below 20,000 rows, ivf-flat
    /// below 100,000, then ivf-rq where the dimension is a multiple of 8.
    #[arg(long, default_value = "auto")]
    index: IndexKind,
    /// Index partitions: a number, or auto: about the square root of the rows, fewer for ivf-pq and ivf-hnsw-sq.
    #[arg(long, default_value = "auto", value_parser = partitions)]
    partitions: Partitions,
    /// Rename a column: --rename score=docking.
    #[arg(long, value_name = "FROM=TO", value_parser = rename)]
    rename: Vec<(String, String)>,
    /// Drop rows without a usable embedding instead of refusing the input; keeps `source_row`.
    #[arg(long)]
    skip_invalid: bool,
    /// Replace a dataset that is there.
    #[arg(long)]
    overwrite: bool,
}

#[derive(clap::Args)]
struct Search {
    /// The run file.
    run: PathBuf,
    /// The run folder to write.
    #[arg(long)]
    out: PathBuf,
    /// Go on with the run in that folder.
    #[arg(long)]
    resume: bool,
    /// When going on, ask again for items that failed.
    #[arg(long, requires = "resume")]
    retry_failed: bool,
    /// Reuse earlier scores (score.reuse) whatever their version.
    #[arg(long)]
    trust_scores: bool,
    /// Override a key of the run file: --set update.lr=0.1.
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
    #[command(flatten)]
    output: Output,
}

#[derive(clap::Args)]
struct Ask {
    /// The run file, with `by_hand = true` under [score].
    run: PathBuf,
    /// The run folder to write.
    #[arg(long)]
    out: PathBuf,
    /// Override a key of the run file: --set update.lr=0.1.
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
    #[command(flatten)]
    output: Output,
}

#[derive(clap::Args)]
struct Show {
    /// The run folder.
    run: PathBuf,
    /// Only the first so many rows.
    #[arg(long, short = 'n')]
    limit: Option<u32>,
    #[command(flatten)]
    output: Output,
}

#[derive(clap::Args)]
struct Evaluate {
    /// The run folder.
    run: PathBuf,
    /// The items that were indexed, with their true scores: a Parquet file, a glob, or a folder of .parquet files.
    #[arg(long, value_name = "ITEMS.parquet")]
    truth: PathBuf,
    /// The column of the true score.
    #[arg(long)]
    score_column: String,
    /// How many items are the best.
    #[arg(long, default_value_t = 100)]
    top: usize,
    /// Match items by this column, which both have, instead of by row number.
    #[arg(long, value_name = "COLUMN")]
    key: Option<String>,
    /// A row for each number of items scored, instead of 1, 2, 5 % of the library and all.
    #[arg(long)]
    curve: bool,
    #[command(flatten)]
    output: Output,
}

#[derive(Clone, Copy)]
struct Partitions(Option<usize>);

fn partitions(text: &str) -> Result<Partitions, String> {
    match text {
        "auto" => Ok(Partitions(None)),
        _ => match text.parse() {
            Ok(number) if number > 0 => Ok(Partitions(Some(number))),
            _ => Err("expected auto or a number above 0".into()),
        },
    }
}

fn rename(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((from, to)) if !from.is_empty() && !to.is_empty() => Ok((from.into(), to.into())),
        _ => Err("expected FROM=TO".into()),
    }
}

/// A failure that may pass: EX_TEMPFAIL of sysexits.h, which schedulers know.
const AWAY: u8 = 75;

fn main() -> ExitCode {
    let command = Cli::parse().command;
    output::log_warnings();
    output::quiet_panics();
    let signals = match Signals::install() {
        Ok(signals) => signals,
        Err(error) => return fail(&error.into(), ExitCode::FAILURE),
    };
    match output::caught(|| run(command, &signals)) {
        Ok(()) => signals.exit_code(),
        Err(error) if matches!(error.downcast_ref(), Some(Unwritten::ReaderLeft)) => ExitCode::SUCCESS,
        Err(error) => fail(&error, signals.exit_code()),
    }
}

fn run(command: Command, signals: &Signals) -> anyhow::Result<()> {
    match command {
        Command::Index(arguments) => index(arguments, signals),
        Command::Search(arguments) => search(arguments, signals),
        Command::Ask(arguments) => ask(arguments, signals),
        Command::Tell { run, scores } => tell(run, scores, signals),
        Command::Results(arguments) => show(arguments, |log| log.compile_results()).map(|log| ended(&log)),
        Command::Queries(arguments) => show(arguments, |log| Ok(log.scan_queries()?.unwrap_or_default())).map(drop),
        Command::Trajectories { paths: false, show: arguments } => trajectories(arguments),
        Command::Trajectories { paths: true, show: arguments } => show(arguments, |log| log.compile_paths()).map(drop),
        Command::Evaluate(arguments) => evaluate(arguments),
        Command::Report(arguments) => pictures::report(arguments),
        Command::Plot(arguments) => pictures::plot(arguments),
        Command::Remove { run } => remove(run),
        Command::Inspect { path, json } => inspect(path, json),
    }
}

fn fail(error: &anyhow::Error, interrupted: ExitCode) -> ExitCode {
    say(format_args!("uphill: {error:#}"));
    match error.downcast_ref::<Error>() {
        Some(Error::Config(_)) => ExitCode::from(2),
        Some(Error::Locked { .. }) => ExitCode::from(4),
        Some(Error::Away { .. }) => ExitCode::from(AWAY),
        Some(Error::Interrupted) => interrupted,
        _ => ExitCode::FAILURE,
    }
}

fn index(arguments: Index, signals: &Signals) -> anyhow::Result<()> {
    if arguments.index == IndexKind::IvfHnswSq {
        // What its graphs are depends on which thread comes first.
        rayon::ThreadPoolBuilder::new().num_threads(1).build_global()?;
    }
    let bar = output::progress_bar();
    let shown = bar.clone();
    let options = IndexOptions {
        embedding_column: arguments.embedding_column,
        metric: Some(arguments.metric),
        index: arguments.index,
        partitions: arguments.partitions.0,
        rename: arguments.rename,
        skip_invalid: arguments.skip_invalid,
        overwrite: arguments.overwrite,
        progress: Some(Arc::new(move |progress| match progress {
            Progress::Rows(done, total) => {
                shown.set_length(total);
                shown.set_position(done);
            }
            Progress::Building(partitions) => {
                shown.set_message(format!("building the index of {partitions} partitions"))
            }
        })),
        stop: Some(signals.flag()),
    };
    let built = uphill::index(&arguments.items, &arguments.dataset, &options);
    bar.finish_and_clear();
    let built = built?;
    if built.invalid.total() > 0 {
        say(format_args!("left out {}", built.invalid));
    }
    let kind = match built.partitions {
        None => "no index: searches are exact".to_string(),
        Some(partitions) => format!("{} with {partitions} partitions", built.index),
    };
    say(format_args!("{}: {} items of {} dimensions, {kind}", arguments.dataset.display(), built.rows, built.dim));
    if let Some(table) = built.recall {
        table.to_string().lines().for_each(say);
    }
    Ok(())
}

fn search(arguments: Search, signals: &Signals) -> anyhow::Result<()> {
    let mut config = Config::read(&arguments.run, &arguments.set)?;
    config.score.trust_scores |= arguments.trust_scores;
    let (runner, queries) = prepare(&config, arguments.resume.then_some(&arguments.out))?;
    let mut runner = runner.interrupt(signals.flag()).retry_failed(arguments.retry_failed);
    if std::io::stderr().is_terminal() {
        runner = runner.observe(progress_lines(config.stop.evaluations));
    }
    let log = match arguments.resume {
        true => runner.resume(&arguments.out, &queries, config.stop.most_iterations())?,
        false => runner.search_into(&arguments.out, &queries, config.stop.most_iterations())?,
    };
    if log.manifest().ended.as_ref().is_some_and(|ended| ended.reason == StopReason::Interrupted) {
        say(format_args!("interrupted after {} iterations; continue with --resume", log.iterations().len()));
        return Ok(());
    }
    let best = log.compile_results().map_err(|error| Unwritten::Rows(error.into()));
    match best.and_then(|best| arguments.output.write(best.limit(10))) {
        // The search is done, and paid for, all the same.
        Err(Unwritten::Rows(error)) => say(format_args!("uphill: the best items cannot be shown: {error:#}")),
        done => done?,
    }
    ended(&log);
    Ok(())
}

/// The runner and the starting queries of a run file, for a new run or to go on with one.
fn prepare(config: &Config, resume: Option<&PathBuf>) -> anyhow::Result<(Runner, DataFrame)> {
    let log = resume.map(SearchLog::open).transpose()?;
    if let Some(log) = &log {
        let differences = config.differences(&log.manifest().config);
        if !differences.is_empty() {
            let reason = format!(
                "--resume: only stop conditions and how scorers are asked may change, but {}",
                differences.join("; ")
            );
            return Err(Error::Config(reason).into());
        }
    }
    let pinned = log.as_ref().and_then(|log| log.manifest().dataset.as_ref());
    let database = config.database(pinned.map(|dataset| dataset.version))?;
    if let Some(log) = &log {
        log.check_dataset(database.identity())?;
    }
    let queries = config.queries(&database)?;
    Ok((config.runner(database)?, queries))
}

fn ask(arguments: Ask, signals: &Signals) -> anyhow::Result<()> {
    let config = Config::read(&arguments.run, &arguments.set)?;
    if !config.score.by_hand {
        return Err(Error::Config("ask: this run's scores do not come by hand (score.by_hand = true)".into()).into());
    }
    let started = arguments.out.join("run.json").exists().then_some(&arguments.out);
    let (runner, queries) = prepare(&config, started)?;
    let asked = runner.interrupt(signals.flag()).ask(&arguments.out, &queries, config.stop.most_iterations())?;
    match asked {
        Asked::Items(items) => {
            let run = arguments.out.display();
            say(format_args!("{} items wait for their scores: uphill tell {run} SCORES.parquet", items.height()));
            arguments.output.write(items.lazy())?;
        }
        Asked::Ended(log) => ended(&log),
    }
    Ok(())
}

fn tell(run: PathBuf, scores: PathBuf, signals: &Signals) -> anyhow::Result<()> {
    let config = Config::of_run(&SearchLog::open(&run)?)?;
    let (runner, queries) = prepare(&config, Some(&run))?;
    let told = uphill::read_parquet(&scores)?;
    match runner.interrupt(signals.flag()).tell(&run, &queries, config.stop.most_iterations(), &told)? {
        Asked::Items(items) => say(format_args!("{} items wait for their scores: uphill ask", items.height())),
        Asked::Ended(log) => ended(&log),
    }
    Ok(())
}

fn show(arguments: Show, query: impl Fn(&SearchLog) -> uphill::Result<LazyFrame>) -> anyhow::Result<SearchLog> {
    let log = SearchLog::open(&arguments.run)?;
    let mut frame = query(&log)?;
    if let Some(limit) = arguments.limit {
        frame = frame.limit(limit);
    }
    arguments.output.write(frame)?;
    Ok(log)
}

fn trajectories(arguments: Show) -> anyhow::Result<()> {
    /// Of the log, turned at once.
    const BYTES: u64 = 64 << 20;
    let log = SearchLog::open(&arguments.run)?;
    let mut parts = log.trajectories(BYTES)?;
    let mut left = Some(arguments.limit.map_or(usize::MAX, |limit| limit as usize));
    let parts = std::iter::from_fn(|| {
        let most = left?;
        let part = parts.next()?.map(|part| part.head(Some(most)));
        left = Some(most - part.as_ref().map_or(0, DataFrame::height)).filter(|left| *left > 0);
        Some(part)
    });
    Ok(arguments.output.write(Rows::Frames(Box::new(parts)))?)
}

fn evaluate(arguments: Evaluate) -> anyhow::Result<()> {
    let log = SearchLog::open(&arguments.run)?;
    let truth = Truth { items: arguments.truth, score_column: arguments.score_column, key: arguments.key };
    let evaluation = uphill::evaluate(&log, &truth, arguments.top)?;
    let frame = if arguments.curve { evaluation.curve()? } else { evaluation.at(&[0.01, 0.02, 0.05])? };
    Ok(arguments.output.write(frame.lazy())?)
}

fn remove(run: PathBuf) -> anyhow::Result<()> {
    uphill::remove(&run)?;
    say(format_args!("{}: removed", run.display()));
    Ok(())
}

/// Names and shares as JSON, in their order.
fn shares(learned: &[(String, f32)]) -> serde_json::Value {
    learned.iter().map(|(column, share)| (column.clone(), json!(share))).collect::<serde_json::Map<_, _>>().into()
}

fn inspect(path: PathBuf, json: bool) -> anyhow::Result<()> {
    let facts = if path.join("run.json").exists() {
        let log = SearchLog::open(&path)?;
        let best = log.compile_results()?.limit(1).collect()?;
        let manifest = log.manifest();
        json!({
            "run": path,
            "format": manifest.format_version,
            "uphill": manifest.uphill_version,
            "dataset": manifest.dataset.as_ref().map(|dataset| &dataset.uri),
            "dataset version": manifest.dataset.as_ref().map(|dataset| dataset.version),
            "dataset tag": manifest.version_tag,
            "seed": manifest.seed,
            "iterations": log.iterations().len(),
            "ended": manifest.ended.as_ref().map_or("no: it goes on, or was killed".into(), |ended| ended.reason.to_string()),
            "items reused": manifest.ended.as_ref().map(|ended| ended.reused),
            "items rejected": manifest.ended.as_ref().map(|ended| ended.rejected),
            "items failed": manifest.ended.as_ref().map(|ended| ended.failed),
            "items retried": manifest.ended.as_ref().map(|ended| ended.retries),
            "items asked again after a stop": manifest.ended.as_ref().map(|ended| ended.asked_again),
            "items scored": manifest.ended.as_ref().map(|ended| ended.evaluations),
            "columns that say about the score": manifest.ended.as_ref().map(|ended| shares(&ended.learned)),
            "best score": best.column("score").ok().and_then(|score| score.f64().ok()?.get(0)),
            "best item": best.column("db_idx").ok().and_then(|item| item.u64().ok()?.get(0)),
        })
    } else {
        let database = LanceDatabase::open(path.to_string_lossy())?;
        let identity = database.identity().cloned();
        let Some(identity) = identity else { return Ok(()) };
        let index = identity.index.as_ref();
        let recall = match (database.recall_table(), json) {
            (Some(table), true) => serde_json::to_value(table)?,
            (Some(table), false) => table.to_string().lines().collect::<Vec<_>>().join("; ").into(),
            (None, _) => serde_json::Value::Null,
        };
        json!({
            "dataset": path,
            "rows": identity.rows,
            "rows without an embedding": identity.without_embedding,
            "dim": identity.dim,
            "metric": identity.metric,
            "index": index.map_or("none: searches are exact".into(), |index| index.kind.clone()),
            "partitions": index.map(|index| index.partitions),
            "unindexed rows": index.map(|index| index.unindexed_rows),
            "recall": recall,
            "version": identity.version,
            "ids": identity.ids,
            "library id": identity.library_id,
            "columns": database.column_names(),
        })
    };
    Ok(output::facts(&facts, json)?)
}

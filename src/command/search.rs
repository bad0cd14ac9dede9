//! `uphill search`, and the same with scores given by hand: `uphill ask` and `uphill tell`.

use std::path::PathBuf;

use polars::prelude::*;

use super::dry_run::dry_run;
use super::output::{
    OutputOptions, SearchProgress, WriteError, error_chain, info, print_next_steps, print_properties, print_summary,
    print_times, warn,
};
use super::results::best_items;
use super::signals::Signals;
use crate::config::{Config, Direction};
use crate::error::Error;
use crate::frame::schema::{DB_IDX, OUTCOME, REASON, SCORE};
use crate::log::{SearchLog, StopReason};
use crate::runner::SearchState;
use crate::table::TableReader;

#[derive(clap::Args)]
pub struct Search {
    /// The run file (TOML). `uphill init` writes one.
    #[arg(value_name = "RUN_FILE")]
    run: PathBuf,
    /// The run folder to write.
    #[arg(long, value_name = "RUN")]
    out: PathBuf,
    /// Resume the run in that folder, or start it if there is none yet.
    #[arg(long)]
    resume: bool,
    /// When resuming, retry items that failed.
    #[arg(long, requires = "resume")]
    retry_failed: bool,
    /// Reuse earlier scores (score.reuse) of any version.
    #[arg(long)]
    trust_scores: bool,
    /// Show what the search would do, without scoring or writing anything: its columns, the inputs of filter and scorer,
    /// the maximum number of evaluations, the files it would write.
    #[arg(long)]
    dry_run: bool,
    /// Override a key of the run file, for example --set update.lr=0.1. Can be repeated.
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
    #[command(flatten)]
    output: OutputOptions,
}

#[derive(clap::Args)]
pub struct Ask {
    /// The run file (TOML), with `by_hand = true` in the section [score].
    #[arg(value_name = "RUN_FILE")]
    run: PathBuf,
    /// The run folder to write.
    #[arg(long, value_name = "RUN")]
    out: PathBuf,
    /// Override a key of the run file, for example --set update.lr=0.1. Can be repeated.
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
    #[command(flatten)]
    output: OutputOptions,
}

#[derive(clap::Args)]
pub struct Tell {
    /// The run folder.
    run: PathBuf,
    /// A Parquet, CSV or JSON file with `db_idx` and `score`, optionally `reason` and parts of the score.
    scores: PathBuf,
    /// Override a key of the run, for example --set stop.evaluations=400 or --set database.path=moved.lance. Can be repeated.
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
}

/// Runs a search and returns the exit code.
pub fn search(arguments: Search, signals: &Signals) -> anyhow::Result<u8> {
    arguments.output.check()?;
    let mut config = Config::read(&arguments.run, &arguments.set)?;
    config.score.trust_scores |= arguments.trust_scores;
    if arguments.dry_run {
        return signals.run_interruptible(move || print_dry_run(&config, &arguments)).map(|()| 0);
    }
    let resumes = arguments.resume && !SearchLog::is_unused(&arguments.out)?;
    if arguments.resume && !resumes {
        info(format_args!("{}: no run to resume; starting a new one", arguments.out.display()));
    }
    let (runner, queries) = config.build(resumes.then_some(&*arguments.out))?;
    let progress = SearchProgress::new(&config.stop, config.score.direction == Direction::Minimize);
    let mut runner = runner
        .interrupt(signals.flag())
        .retry_failed(arguments.retry_failed)
        .pending_counter(progress.pending())
        .on_submit(progress.submit_observer())
        .on_iteration(progress.observer());
    let log = match resumes {
        true => runner.resume(&arguments.out, &queries, config.stop.max_iterations()),
        false => runner.search_into(&arguments.out, &queries, config.stop.max_iterations()),
    };
    drop(progress);
    let log = log?;
    if was_interrupted(&log) {
        info(format_args!("interrupted after {} iterations; resume with --resume", log.iterations().len()));
        print_next_steps(&log, &arguments.run, &arguments.set);
        return Ok(signals.exit_code());
    }
    let best = best_items(&log, &arguments.output).map_err(|error| WriteError::Rows(error.into()));
    match best.and_then(|best| arguments.output.write(best.limit(10))) {
        // The search itself succeeded, and its scores are paid for.
        Err(WriteError::Rows(error)) => {
            warn(format_args!("uphill: cannot print the best items: {}", error_chain(&error)));
        }
        done => done?,
    }
    print_summary(&log);
    print_times(&log);
    print_next_steps(&log, &arguments.run, &arguments.set);
    Ok(0)
}

fn was_interrupted(log: &SearchLog) -> bool {
    log.manifest().ended.as_ref().is_some_and(|ended| ended.reason == StopReason::Interrupted)
}

fn print_dry_run(config: &Config, arguments: &Search) -> anyhow::Result<()> {
    let out = &arguments.out;
    let resumes = arguments.resume && !SearchLog::is_unused(out)?;
    let log = resumes.then(|| SearchLog::open(out)).transpose()?;
    if log.is_none() && out.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
        warn(format_args!("uphill: {} is not empty; a search into it would fail", out.display()));
    }
    let database = config.open_dataset(log.as_ref())?;
    let queries = config.starting_queries(&database, log.as_ref())?;
    let runner = config.runner(database.clone())?;
    let plan = dry_run(config, &database, &runner, &queries, out, log.as_ref())?;
    Ok(print_properties(&plan, arguments.output.is_json())?)
}

/// Prints the next items to score by hand, and returns the exit code.
pub fn ask(arguments: Ask, signals: &Signals) -> anyhow::Result<u8> {
    arguments.output.check()?;
    let config = Config::read(&arguments.run, &arguments.set)?;
    if !config.score.by_hand {
        return Err(Error::Config("ask: the run file does not set score.by_hand = true".into()).into());
    }
    let existing = arguments.out.join("run.json").exists().then_some(&*arguments.out);
    let (runner, queries) = config.build(existing)?;
    let state = runner.interrupt(signals.flag()).ask(&arguments.out, &queries, config.stop.max_iterations())?;
    match state {
        SearchState::Pending(items) => {
            let run = arguments.out.display();
            info(format_args!(
                "{} items are waiting for scores; give them with: uphill tell {run} SCORES.parquet",
                items.height()
            ));
            arguments.output.write(items.lazy())?;
            Ok(0)
        }
        SearchState::Ended(log) => Ok(finish(&log, signals)),
    }
}

/// Prints the summary of a run that ended, and returns the exit code.
fn finish(log: &SearchLog, signals: &Signals) -> u8 {
    print_summary(log);
    if was_interrupted(log) { signals.exit_code() } else { 0 }
}

/// Gives scores of pending items, and returns the exit code.
pub fn tell(arguments: Tell, signals: &Signals) -> anyhow::Result<u8> {
    let Tell { run, scores, set } = arguments;
    let config = Config::from_run(&SearchLog::open(&run)?, &set)?;
    let (runner, queries) = config.build(Some(&run))?;
    let table = TableReader::new(&scores).ids(&[DB_IDX]).numbers(&[SCORE]).texts(&[OUTCOME, REASON]);
    let scores = table.read()?;
    match runner.interrupt(signals.flag()).tell(&run, &queries, config.stop.max_iterations(), &scores)? {
        SearchState::Pending(items) => {
            info(format_args!("{} items are waiting for scores; get them with: uphill ask", items.height()));
            Ok(0)
        }
        SearchState::Ended(log) => Ok(finish(&log, signals)),
    }
}

//! `uphill search`, and the same by hand: `ask` and `tell`.

use std::path::PathBuf;

use polars::prelude::*;

use super::output::{Output, Progress, Unwritten, ended, facts, go_on, say, told, took, warn};
use super::plan::plan;
use super::show::best;
use super::signals::Signals;
use crate::config::{Config, Direction};
use crate::error::Error;
use crate::frame::schema::{DB_IDX, OUTCOME, REASON, SCORE};
use crate::io::table::TableReader;
use crate::log::{SearchLog, StopReason};
use crate::runner::SearchState;

#[derive(clap::Args)]
pub struct Search {
    /// The run file.
    run: PathBuf,
    /// The run folder to write.
    #[arg(long)]
    out: PathBuf,
    /// Go on with the run in that folder; start it, if there is none yet.
    #[arg(long)]
    resume: bool,
    /// When going on, ask again for items that failed.
    #[arg(long, requires = "resume")]
    retry_failed: bool,
    /// Reuse earlier scores (score.reuse) whatever their version.
    #[arg(long)]
    trust_scores: bool,
    /// Say what the search would do: what it reads, what filter and score see, the most items that it can have scored,
    /// what it would write. Write nothing, and ask no scorer.
    #[arg(long)]
    dry_run: bool,
    /// Override a key of the run file: --set update.lr=0.1.
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
    #[command(flatten)]
    output: Output,
}

#[derive(clap::Args)]
pub struct Ask {
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
pub struct Tell {
    /// The run folder.
    run: PathBuf,
    /// Parquet, CSV or JSON with `db_idx` and `score`, optionally `reason` and parts of the score.
    scores: PathBuf,
    /// Override what the run goes on with: --set stop.evaluations=400, or --set database.path=moved.lance.
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
}

/// The exit code: of a signal, if that ended the search.
pub fn search(arguments: Search, signals: &Signals) -> anyhow::Result<u8> {
    arguments.output.check()?;
    let mut config = Config::read(&arguments.run, &arguments.set)?;
    config.score.trust_scores |= arguments.trust_scores;
    if arguments.dry_run {
        return signals.at_once(move || dry_run(&config, &arguments)).map(|()| 0);
    }
    let goes_on = arguments.resume && !SearchLog::is_unused(&arguments.out)?;
    if arguments.resume && !goes_on {
        say(format_args!("{}: holds no run yet; it is started", arguments.out.display()));
    }
    let (runner, queries) = config.build(goes_on.then_some(&*arguments.out))?;
    let progress = Progress::new(&config.stop, config.score.direction == Direction::Minimize);
    let mut runner = runner
        .interrupt(signals.flag())
        .retry_failed(arguments.retry_failed)
        .pending_counter(progress.waiting())
        .on_iteration(progress.observer());
    let log = match goes_on {
        true => runner.resume(&arguments.out, &queries, config.stop.max_iterations()),
        false => runner.search_into(&arguments.out, &queries, config.stop.max_iterations()),
    };
    drop(progress);
    let log = log?;
    if was_interrupted(&log) {
        say(format_args!("interrupted after {} iterations; continue with --resume", log.iterations().len()));
        go_on(&log, &arguments.run, &arguments.set);
        return Ok(signals.exit_code());
    }
    let best = best(&log, &arguments.output).map_err(|error| Unwritten::Rows(error.into()));
    match best.and_then(|best| arguments.output.write(best.limit(10))) {
        // The search is done, and paid for, all the same.
        Err(Unwritten::Rows(error)) => warn(format_args!("uphill: the best items cannot be shown: {}", told(&error))),
        done => done?,
    }
    ended(&log);
    took(&log);
    go_on(&log, &arguments.run, &arguments.set);
    Ok(0)
}

fn was_interrupted(log: &SearchLog) -> bool {
    log.manifest().ended.as_ref().is_some_and(|ended| ended.reason == StopReason::Interrupted)
}

fn dry_run(config: &Config, arguments: &Search) -> anyhow::Result<()> {
    let out = &arguments.out;
    let goes_on = arguments.resume && !SearchLog::is_unused(out)?;
    let log = goes_on.then(|| SearchLog::open(out)).transpose()?;
    if log.is_none() && out.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
        warn(format_args!("uphill: {} is not empty; a search would refuse it", out.display()));
    }
    let database = config.open_library(log.as_ref())?;
    let queries = config.starting_queries(&database, log.as_ref())?;
    let runner = config.runner(database.clone())?;
    let plan = plan(config, &database, &runner, &queries, out, log.as_ref())?;
    Ok(facts(&plan, arguments.output.is_json())?)
}

pub fn ask(arguments: Ask, signals: &Signals) -> anyhow::Result<u8> {
    arguments.output.check()?;
    let config = Config::read(&arguments.run, &arguments.set)?;
    if !config.score.by_hand {
        return Err(Error::Config("ask: this run's scores do not come by hand (score.by_hand = true)".into()).into());
    }
    let started = arguments.out.join("run.json").exists().then_some(&*arguments.out);
    let (runner, queries) = config.build(started)?;
    let asked = runner.interrupt(signals.flag()).ask(&arguments.out, &queries, config.stop.max_iterations())?;
    match asked {
        SearchState::Pending(items) => {
            let run = arguments.out.display();
            say(format_args!("{} items wait for their scores: uphill tell {run} SCORES.parquet", items.height()));
            arguments.output.write(items.lazy())?;
            Ok(0)
        }
        SearchState::Ended(log) => Ok(ended_by(&log, signals)),
    }
}

fn ended_by(log: &SearchLog, signals: &Signals) -> u8 {
    ended(log);
    if was_interrupted(log) { signals.exit_code() } else { 0 }
}

/// As [`ask`].
pub fn tell(arguments: Tell, signals: &Signals) -> anyhow::Result<u8> {
    let Tell { run, scores, set } = arguments;
    let config = Config::from_run(&SearchLog::open(&run)?, &set)?;
    let (runner, queries) = config.build(Some(&run))?;
    let table = TableReader::new(&scores).ids(&[DB_IDX]).numbers(&[SCORE]).texts(&[OUTCOME, REASON]);
    let told = table.read()?;
    match runner.interrupt(signals.flag()).tell(&run, &queries, config.stop.max_iterations(), &told)? {
        SearchState::Pending(items) => {
            say(format_args!("{} items wait for their scores: uphill ask", items.height()));
            Ok(0)
        }
        SearchState::Ended(log) => Ok(ended_by(&log, signals)),
    }
}

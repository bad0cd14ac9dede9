//! `uphill search`, and the same by hand: `ask` and `tell`.

use std::io::IsTerminal;
use std::path::PathBuf;

use polars::prelude::*;

use super::output::{Output, Unwritten, ended, progress_lines, say, told};
use super::signals::Signals;
use crate::{Asked, Config, Error, SearchLog, StopReason};

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

pub fn search(arguments: Search, signals: &Signals) -> anyhow::Result<()> {
    let mut config = Config::read(&arguments.run, &arguments.set)?;
    config.score.trust_scores |= arguments.trust_scores;
    let goes_on = arguments.resume && !SearchLog::is_to_start(&arguments.out)?;
    if arguments.resume && !goes_on {
        say(format_args!("{}: holds no run yet; it is started", arguments.out.display()));
    }
    let (runner, queries) = config.start(goes_on.then_some(&*arguments.out))?;
    let mut runner = runner.interrupt(signals.flag()).retry_failed(arguments.retry_failed);
    if std::io::stderr().is_terminal() {
        runner = runner.observe(progress_lines(config.stop.evaluations));
    }
    let log = match goes_on {
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
        Err(Unwritten::Rows(error)) => say(format_args!("uphill: the best items cannot be shown: {}", told(&error))),
        done => done?,
    }
    ended(&log);
    Ok(())
}

pub fn ask(arguments: Ask, signals: &Signals) -> anyhow::Result<()> {
    let config = Config::read(&arguments.run, &arguments.set)?;
    if !config.score.by_hand {
        return Err(Error::Config("ask: this run's scores do not come by hand (score.by_hand = true)".into()).into());
    }
    let started = arguments.out.join("run.json").exists().then_some(&*arguments.out);
    let (runner, queries) = config.start(started)?;
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

pub fn tell(run: PathBuf, scores: PathBuf, signals: &Signals) -> anyhow::Result<()> {
    let config = Config::of_run(&SearchLog::open(&run)?)?;
    let (runner, queries) = config.start(Some(&run))?;
    let told = crate::read_parquet(&scores)?;
    match runner.interrupt(signals.flag()).tell(&run, &queries, config.stop.most_iterations(), &told)? {
        Asked::Items(items) => say(format_args!("{} items wait for their scores: uphill ask", items.height())),
        Asked::Ended(log) => ended(&log),
    }
    Ok(())
}

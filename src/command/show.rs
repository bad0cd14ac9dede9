//! The commands that show what a run found.

use std::path::PathBuf;

use polars::prelude::*;

use super::output::{Output, Rows, ended, say};
use crate::evaluate::{DEFAULT_TOP, Evaluation, GroundTruth};
use crate::frame::schema::{RAW_SCORE, SCORE, is_reserved_column};
use crate::log::SearchLog;
use crate::sql::columns_of;

#[derive(clap::Args)]
pub struct Show {
    /// The run folder.
    run: PathBuf,
    /// Only the first so many rows.
    #[arg(long, short = 'n')]
    limit: Option<u32>,
    #[command(flatten)]
    output: Output,
}

#[derive(clap::Args)]
pub struct Evaluate {
    /// The run folder.
    run: PathBuf,
    /// The items that were indexed, with their true scores: a Parquet file, a glob, a folder of .parquet files, or CSV.
    #[arg(long, value_name = "ITEMS.parquet")]
    truth: PathBuf,
    /// The column of the true score.
    #[arg(long)]
    score_column: String,
    /// How many items are the best [default: 100, or as many as have a true score, if those are fewer].
    #[arg(long)]
    top: Option<usize>,
    /// Match items by this column, which both have, instead of by row number.
    #[arg(long, value_name = "COLUMN")]
    key: Option<String>,
    /// A row for each number of items paid for, instead of 1, 2, 5 % of the library, as far as they were reached, and all.
    #[arg(long)]
    curve: bool,
    #[command(flatten)]
    output: Output,
}

pub fn results(arguments: Show) -> anyhow::Result<()> {
    show(arguments, best).map(|log| ended(&log))
}

/// The items met, best first. In a table, a score that is a column of the items as it is stands there once, as
/// `score (qed)`.
pub fn best(log: &SearchLog, output: &Output) -> crate::error::Result<LazyFrame> {
    let mut items = log.compile_results()?;
    let score = &log.manifest().config["score"];
    let Some(sql) = score["sql"].as_str().filter(|_| output.is_table()) else { return Ok(items) };
    let schema = items.collect_schema()?;
    let columns = columns_of(sql).unwrap_or_default();
    let name = sql.trim().trim_matches(['"', '`']);
    let shown = if score["direction"] == "minimize" { RAW_SCORE } else { SCORE };
    let together = format!("{shown} ({name})");
    let is_it = columns == [name] && !is_reserved_column(name) && schema.contains(name) && schema.contains(shown);
    Ok(match is_it && !schema.contains(&together) {
        true => items.drop(by_name([name], true, false)).rename([shown], [together], true),
        false => items,
    })
}

pub fn queries(arguments: Show) -> anyhow::Result<()> {
    show(arguments, |log, _| Ok(log.scan_queries()?.unwrap_or_default())).map(drop)
}

pub fn paths(arguments: Show) -> anyhow::Result<()> {
    show(arguments, |log, _| log.compile_paths()).map(drop)
}

fn show(
    arguments: Show,
    query: impl Fn(&SearchLog, &Output) -> crate::error::Result<LazyFrame>,
) -> anyhow::Result<SearchLog> {
    arguments.output.check()?;
    let log = SearchLog::open(&arguments.run)?;
    let mut frame = query(&log, &arguments.output)?;
    if let Some(limit) = arguments.limit {
        frame = frame.limit(limit);
    }
    arguments.output.write(frame)?;
    Ok(log)
}

pub fn trajectories(arguments: Show) -> anyhow::Result<()> {
    /// Of the log, turned at once.
    const BYTES: u64 = 64 << 20;
    arguments.output.check()?;
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

/// The shares of a library within which it is told what was found.
const SHARES: [f64; 3] = [0.01, 0.02, 0.05];

pub fn evaluate(arguments: Evaluate) -> anyhow::Result<()> {
    arguments.output.check()?;
    let log = SearchLog::open(&arguments.run)?;
    let truth = GroundTruth { items: arguments.truth, score_column: arguments.score_column, key: arguments.key };
    let evaluation = crate::evaluate::evaluate(&log, &truth, arguments.top)?;
    if arguments.top.is_none() && evaluation.top() < DEFAULT_TOP {
        say(format_args!("judged by the true best {}: no more items have a true score", evaluation.top()));
    }
    let frame = if arguments.curve {
        evaluation.curve()?
    } else {
        say_what_was_not_reached(&evaluation);
        evaluation.at(&SHARES)?
    };
    Ok(arguments.output.write(frame.lazy())?)
}

/// Says which budgets have no row.
fn say_what_was_not_reached(evaluation: &Evaluation) {
    let beyond = SHARES.iter().filter(|share| evaluation.budget(**share) > evaluation.cost());
    let beyond: Vec<String> = beyond
        .map(|share| format!("{} % of the library ({} items)", 100.0 * share, evaluation.budget(*share)))
        .collect();
    if !beyond.is_empty() {
        say(format_args!("not reached: {}; the run paid for {}", beyond.join(", "), evaluation.cost()));
    }
}

//! `uphill results`, `uphill queries` and `uphill trajectories`: print the frames of a run.

use std::path::PathBuf;

use polars::prelude::*;

use super::output::{OutputOptions, Rows, print_summary};
use crate::config::Config;
use crate::error::Result;
use crate::frame::schema::{RAW_SCORE, SCORE, is_reserved_column};
use crate::log::SearchLog;
use crate::sql::columns_of;

#[derive(clap::Args)]
pub struct RunRows {
    /// The run folder.
    run: PathBuf,
    /// Print only the first N rows.
    #[arg(long, short = 'n', value_name = "N")]
    limit: Option<u32>,
    #[command(flatten)]
    output: OutputOptions,
}

#[derive(clap::Args)]
pub struct Results {
    #[command(flatten)]
    rows: RunRows,
    /// Print the items that the run has not judged and that its model predicts to be best, by default 100.
    ///
    /// These are items that were neither scored, nor rejected, nor failed, and that pass the filter. The run is replayed for this.
    /// Nothing is scored or written.
    #[arg(long)]
    unscored: bool,
    /// With --unscored, the new path of the dataset, if it was moved.
    #[arg(long, value_name = "DATASET", requires = "unscored")]
    library: Option<String>,
}

pub fn results(arguments: Results) -> anyhow::Result<()> {
    if arguments.unscored {
        return unscored(arguments);
    }
    write_rows(arguments.rows, best_items).map(|log| print_summary(&log))
}

/// Prints the best items without a score by the model's prediction.
fn unscored(arguments: Results) -> anyhow::Result<()> {
    const DEFAULT_LIMIT: u32 = 100;
    let Results { rows: RunRows { run, limit, output }, library, .. } = arguments;
    output.check()?;
    let mut config = Config::from_run(&SearchLog::open(&run)?, &[])?;
    if let Some(library) = library {
        config.database.path = library;
    }
    let ranked = config.ranker(&run)?.rank_unscored(&run, limit.unwrap_or(DEFAULT_LIMIT) as usize)?;
    Ok(output.write(ranked.lazy())?)
}

/// The items found, best first. If the score is an attribute of the items, a table shows it once, as `score (qed)`.
pub fn best_items(log: &SearchLog, output: &OutputOptions) -> Result<LazyFrame> {
    let mut items = log.compile_results()?;
    let score = &log.manifest().config["score"];
    let Some(sql) = score["sql"].as_str().filter(|_| output.is_table()) else { return Ok(items) };
    let schema = items.collect_schema()?;
    let columns = columns_of(sql).unwrap_or_default();
    let name = sql.trim().trim_matches(['"', '`']);
    let score_column = if score["direction"] == "minimize" { RAW_SCORE } else { SCORE };
    let merged = format!("{score_column} ({name})");
    let is_column =
        columns == [name] && !is_reserved_column(name) && schema.contains(name) && schema.contains(score_column);
    Ok(match is_column && !schema.contains(&merged) {
        true => items.drop(by_name([name], true, false)).rename([score_column], [merged], true),
        false => items,
    })
}

pub fn queries(arguments: RunRows) -> anyhow::Result<()> {
    write_rows(arguments, |log, _| Ok(log.scan_queries()?.unwrap_or_default())).map(drop)
}

pub fn paths(arguments: RunRows) -> anyhow::Result<()> {
    write_rows(arguments, |log, _| log.compile_paths()).map(drop)
}

fn write_rows(
    arguments: RunRows,
    query: impl Fn(&SearchLog, &OutputOptions) -> Result<LazyFrame>,
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

pub fn trajectories(arguments: RunRows) -> anyhow::Result<()> {
    /// The number of bytes of the log to process at a time.
    const BYTES: u64 = 64 << 20;
    arguments.output.check()?;
    let log = SearchLog::open(&arguments.run)?;
    let mut frames = log.trajectories(BYTES)?;
    let mut rows_left = Some(arguments.limit.map_or(usize::MAX, |limit| limit as usize));
    let frames = std::iter::from_fn(|| {
        let limit = rows_left?;
        let frame = frames.next()?.map(|frame| frame.head(Some(limit)));
        rows_left = Some(limit - frame.as_ref().map_or(0, DataFrame::height)).filter(|rows| *rows > 0);
        Some(frame)
    });
    Ok(arguments.output.write(Rows::Frames(Box::new(frames)))?)
}

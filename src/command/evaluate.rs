//! `uphill evaluate`: the recall of a run against its cost, given the true scores of all items.

use std::path::PathBuf;

use polars::prelude::*;

use super::output::{OutputOptions, info};
use crate::evaluate::{DEFAULT_TOP, GroundTruth, RecallCurve};
use crate::log::SearchLog;

#[derive(clap::Args)]
pub struct Evaluate {
    /// The run folder.
    run: PathBuf,
    /// The indexed items with their true scores: a Parquet file, a quoted glob, a folder of .parquet files, or CSV.
    #[arg(long, value_name = "ITEMS.parquet")]
    truth: PathBuf,
    /// The column of the true score.
    #[arg(long)]
    score_column: String,
    /// Measure the recall of the N items with the best true score [default: 100, or all items with a true score if fewer].
    #[arg(long, value_name = "N")]
    top: Option<usize>,
    /// Match items by this column, which the run and the truth have. Default: `db_idx` if the truth has it, or else the row number.
    #[arg(long, value_name = "COLUMN")]
    key: Option<String>,
    /// Print a row for each evaluation, instead of rows at 1, 2 and 5 % of the library and at the end.
    #[arg(long)]
    curve: bool,
    #[command(flatten)]
    output: OutputOptions,
}

/// The budgets to evaluate, as fractions of the library.
const BUDGETS: [f64; 3] = [0.01, 0.02, 0.05];

pub fn evaluate(arguments: Evaluate) -> anyhow::Result<()> {
    arguments.output.check()?;
    let log = SearchLog::open(&arguments.run)?;
    let truth = GroundTruth { items: arguments.truth, score_column: arguments.score_column, key: arguments.key };
    let curve = crate::evaluate::evaluate(&log, &truth, arguments.top)?;
    if arguments.top.is_none() && curve.top() < DEFAULT_TOP {
        info(format_args!("recall of the best {0} items: only {0} have a true score", curve.top()));
    }
    let frame = if arguments.curve {
        curve.to_frame()?
    } else {
        report_missing_budgets(&curve);
        curve.at_shares(&BUDGETS)?
    };
    Ok(arguments.output.write(frame.lazy())?)
}

/// Prints the budgets that the run did not reach. They have no row.
fn report_missing_budgets(curve: &RecallCurve) {
    let missing = BUDGETS.iter().filter(|budget| curve.budget(**budget) > curve.cost());
    let missing: Vec<String> = missing
        .map(|budget| format!("{} % of the library ({} items)", 100.0 * budget, curve.budget(*budget)))
        .collect();
    if !missing.is_empty() {
        info(format_args!("not reached: {}; the run has {} evaluations", missing.join(", "), curve.cost()));
    }
}

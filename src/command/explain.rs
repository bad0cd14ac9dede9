//! `uphill explain`: the scored items and the feature groups that the prediction of an item comes from.

use std::path::PathBuf;

use polars::prelude::*;

use super::output::{OutputOptions, info};
use crate::config::Config;
use crate::error::Result;
use crate::frame::schema::{
    self, CHOSEN_BY, DB_IDX, DEVIATION, DISTANCE_SHARE, ITERATION, NEIGHBOUR_IDX, PREDICTED, SCORE, SHARE,
};
use crate::frame::text::format_number;
use crate::log::SearchLog;

/// The most feature groups that a summary names.
const GROUPS_SHOWN: usize = 5;

#[derive(clap::Args)]
pub struct Explain {
    /// The run folder.
    run: PathBuf,
    /// Items of the run, or any others of the library, by their `db_idx`.
    #[arg(required = true, value_name = "DB_IDX")]
    items: Vec<u64>,
    /// The new path of the dataset, if it was moved.
    #[arg(long, value_name = "DATASET")]
    library: Option<String>,
    #[command(flatten)]
    output: OutputOptions,
}

pub fn explain(arguments: Explain) -> anyhow::Result<()> {
    let Explain { run, items, library, output } = arguments;
    output.check()?;
    let mut config = Config::from_run(&SearchLog::open(&run)?, &[])?;
    if let Some(library) = library {
        config.database.path = library;
    }
    let explained = config.explainer(&run)?.explain(&run, &items)?;
    summaries(&explained)?.into_iter().for_each(info);
    Ok(output.write(explained.lazy())?)
}

/// A sentence for each item of an explanation.
fn summaries(explained: &DataFrame) -> Result<Vec<String>> {
    let items = schema::u64s(explained, DB_IDX)?;
    let mut rows: Vec<usize> = (0..items.len()).collect();
    rows.dedup_by_key(|row| items[*row]);
    let ends = rows.iter().skip(1).copied().chain([items.len()]);
    rows.iter().zip(ends).map(|(start, end)| summary(&explained.slice(*start as i64, end - start))).collect()
}

/// The summary of the rows of one item: `item 17: predicted 0.81 (deviation 0.05); score 0.79; …`.
fn summary(rows: &DataFrame) -> Result<String> {
    let first = |name: &str| -> Result<Option<f64>> { Ok(schema::nullable_f64s(rows, name)?[0]) };
    let (predicted, deviation, score) = (first(PREDICTED)?, first(DEVIATION)?, first(SCORE)?);
    let iteration = schema::nullable_u32s(rows, ITERATION)?[0];
    let chosen_by = rows.column(CHOSEN_BY).ok().and_then(|column| column.str().ok()?.get(0).map(str::to_string));
    let shares = schema::nullable_f64s(rows, SHARE)?;
    let has_model = shares.len() > 1 || shares[0].is_some();

    let prediction = match (predicted.zip(deviation), has_model) {
        (Some((mean, deviation)), _) => {
            format!("predicted {} (deviation {})", format_number(mean), format_number(deviation))
        }
        (None, true) => "predicted to be among the low scores, which the model does not tell apart".into(),
        (None, false) if iteration.is_none() => "no prediction, because there is no model yet".into(),
        (None, false) => "no prediction, because no model chose it".into(),
    };
    let score = score.map_or("no score".into(), |score| format!("score {}", format_number(score)));
    let mut parts = vec![prediction, score, choice(iteration, chosen_by.as_deref())];
    if has_model {
        let named = schema::nullable_u64s(rows, NEIGHBOUR_IDX)?.iter().flatten().count();
        let share: f64 = shares[..named].iter().flatten().sum();
        parts.push(format!("{named} scored items carry {:.0} % of the prediction", 100.0 * share));
        parts.extend(distance_shares(rows, &shares)?);
    }
    let item = schema::u64s(rows, DB_IDX)?[0];
    Ok(format!("item {item}: {}", parts.join("; ")))
}

/// How the feature groups share the distances to the named items, in words. The items count by their shares of the prediction.
fn distance_shares(rows: &DataFrame, shares: &[Option<f64>]) -> Result<Option<String>> {
    let mut groups: Vec<(&str, f64)> = Vec::new();
    for name in schema::column_names(rows) {
        let Some(group) = name.strip_prefix(DISTANCE_SHARE) else { continue };
        let pairs = schema::nullable_f64s(rows, name)?.into_iter().zip(shares);
        groups.push((group, pairs.filter_map(|(of_group, share)| Some(of_group? * (*share)?)).sum()));
    }
    let total: f64 = groups.iter().map(|(_, share)| share).sum();
    groups.sort_by(|a, b| b.1.total_cmp(&a.1));
    let percent = |share: f64| 100.0 * share / total;
    let shown = groups.into_iter().filter(|(_, share)| percent(*share) >= 0.5).take(GROUPS_SHOWN);
    let shown: Vec<String> = shown.map(|(group, share)| format!("{group} {:.0} %", percent(share))).collect();
    Ok((!shown.is_empty()).then(|| format!("distances to them: {}", shown.join(", "))))
}

/// How an item was chosen, in words, from the value of the column `chosen_by`.
fn choice(iteration: Option<u32>, chosen_by: Option<&str>) -> String {
    let Some(iteration) = iteration else { return "not chosen yet".into() };
    let by = match chosen_by {
        Some("start") => " near a starting query",
        Some("model") => " by the model",
        Some("elsewhere") => " by the model of items outside of the best peak",
        Some("random") => " at random",
        _ => "",
    };
    format!("chosen{by} in iteration {iteration}")
}

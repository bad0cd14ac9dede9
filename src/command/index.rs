//! `uphill index`: builds a dataset with an index from Parquet files.

use std::path::PathBuf;
use std::sync::Arc;

use super::output::{info, row_progress_bar};
use super::signals::Signals;
use crate::database::Metric;
use crate::index::{IndexKind, IndexOptions, IndexProgress};

#[derive(clap::Args)]
pub struct Index {
    /// A Parquet file, a quoted glob, or a folder of .parquet files.
    items: PathBuf,
    /// The dataset to build.
    dataset: PathBuf,
    /// The column of embeddings [default: the only column of float lists, else of integer lists].
    #[arg(long)]
    embedding_column: Option<String>,
    /// Distance metric: l2 (squared), cosine or dot.
    #[arg(long, default_value = "l2")]
    metric: Metric,
    /// Index type: auto, none (exact search), ivf-flat, ivf-sq, ivf-pq, ivf-rq or ivf-hnsw-sq. auto selects none below 20,000
    /// rows, ivf-flat below 100,000 rows or if the dimension is not a multiple of 8, else ivf-rq.
    #[arg(long, default_value = "auto")]
    index: IndexKind,
    /// Number of index partitions, or auto: about the square root of the rows, fewer for ivf-pq and ivf-hnsw-sq.
    #[arg(long, default_value = "auto", value_parser = partitions)]
    partitions: Partitions,
    /// Rename a column, for example --rename score=docking. Can be repeated.
    #[arg(long, value_name = "FROM=TO", value_parser = rename)]
    rename: Vec<(String, String)>,
    /// Skip rows with an invalid embedding instead of failing. The column `source_row` has the original row numbers.
    #[arg(long)]
    skip_invalid: bool,
    /// Replace an existing dataset.
    #[arg(long)]
    overwrite: bool,
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

pub fn index(arguments: Index, signals: &Signals) -> anyhow::Result<()> {
    if arguments.index == IndexKind::IvfHnswSq {
        // The graphs depend on the order in which threads insert items. One thread makes the index reproducible.
        rayon::ThreadPoolBuilder::new().num_threads(1).build_global()?;
    }
    let bar = row_progress_bar();
    let handle = bar.clone();
    let options = IndexOptions {
        embedding_column: arguments.embedding_column,
        metric: Some(arguments.metric),
        index: arguments.index,
        partitions: arguments.partitions.0,
        rename: arguments.rename,
        skip_invalid: arguments.skip_invalid,
        overwrite: arguments.overwrite,
        progress: Some(Arc::new(move |progress| match progress {
            IndexProgress::Rows(done, total) => {
                handle.set_length(total);
                handle.set_position(done);
            }
            IndexProgress::Building(partitions) => {
                handle.set_message(format!("building the index ({partitions} partitions)"))
            }
        })),
        stop: Some(signals.flag()),
    };
    let built = crate::index::index(&arguments.items, &arguments.dataset, &options);
    bar.finish_and_clear();
    let built = built?;
    if built.invalid.total() > 0 {
        info(format_args!("skipped {}", built.invalid));
    }
    let kind = match built.partitions {
        None => "no index (exact search)".to_string(),
        Some(partitions) => format!("{} with {partitions} partitions", built.index),
    };
    info(format_args!("{}: {} items of {} dimensions, {kind}", arguments.dataset.display(), built.rows, built.dim));
    if let Some(table) = built.recall {
        table.to_string().lines().for_each(info);
    }
    Ok(())
}

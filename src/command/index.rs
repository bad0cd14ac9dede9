//! `uphill index`.

use std::path::PathBuf;
use std::sync::Arc;

use super::output::{progress_bar, say};
use super::signals::Signals;
use crate::database::Metric;
use crate::index::{IndexKind, IndexOptions, Progress};

#[derive(clap::Args)]
pub struct Index {
    /// A Parquet file, a glob, or a folder of .parquet files.
    items: PathBuf,
    /// The dataset to build.
    dataset: PathBuf,
    /// The column of embeddings [default: the only one with lists of floats; else of integers].
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
        // What its graphs are depends on which thread comes first.
        rayon::ThreadPoolBuilder::new().num_threads(1).build_global()?;
    }
    let bar = progress_bar();
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
    let built = crate::index::index(&arguments.items, &arguments.dataset, &options);
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

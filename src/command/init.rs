//! `uphill init`: a run file that fits a dataset, with comments, and runs as it is.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use polars::prelude::*;

use super::output::{count, say, shell, to_file};
use crate::database::{LanceDatabase, OpenOptions, VectorDatabase, is_remote};
use crate::error::Error;
use crate::frame::schema::is_reserved_column;
use crate::frame::schema::{DB_IDX, EMBEDDING};
use crate::frame::text::format_number;
use crate::sql::columns_of;

#[derive(clap::Args)]
pub struct Init {
    /// The dataset to search: one that `uphill index` built, or another Lance dataset.
    dataset: String,
    /// The run file to write.
    #[arg(long, short, default_value = "run.toml")]
    output: PathBuf,
    /// The column of embeddings, where there are several.
    #[arg(long)]
    embedding_column: Option<String>,
    /// Replace a file that is there.
    #[arg(long)]
    overwrite: bool,
}

/// Items that are looked at to see what the columns hold.
const LOOK: usize = 1000;

pub fn init(arguments: Init) -> anyhow::Result<()> {
    let Init { dataset, output, embedding_column, overwrite } = arguments;
    if output.exists() && !overwrite {
        return Err(
            Error::input(&output, "is there already; replace it with --overwrite, or choose another (-o)").into()
        );
    }
    let options = OpenOptions { embedding_column: embedding_column.clone(), ..Default::default() };
    let database = LanceDatabase::open_with(&dataset, &options)?;
    if database.is_empty() {
        return Err(Error::input(&dataset, "has no row with an embedding; there is nothing to search").into());
    }
    let some = database.sample(LOOK, &mut crate::random::random_stream(0, "init", 0, 0))?;
    let items = database.take(&some)?.drop_many([DB_IDX, EMBEDDING]);
    let path = from_folder_of(&output, &dataset);
    let text = run_file(&database, &items, &path, embedding_column.as_deref(), &output);
    to_file(&output, |mut out| Ok(out.write_all(text.as_bytes())?))?;
    let file = shell(&output.to_string_lossy());
    match guessed_score(&items) {
        Some(_) => say(format_args!("{}: uphill search {file} --out run --dry-run", output.display())),
        None => say(format_args!("{}: uphill ask {file} --out run -o next.parquet", output.display())),
    }
    Ok(())
}

/// The dataset as a run file names it: relative to where the file is.
fn from_folder_of(run_file: &Path, dataset: &str) -> String {
    let folder = crate::io::atomic::parent_dir(run_file);
    if is_remote(dataset) || folder == Path::new(".") {
        return dataset.into();
    }
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.into());
    let (folder, dataset) = (absolute(folder), absolute(Path::new(dataset)));
    dataset.strip_prefix(&folder).unwrap_or(&dataset).to_string_lossy().into_owned()
}

fn run_file(
    database: &LanceDatabase,
    items: &DataFrame,
    path: &str,
    embedding_column: Option<&str>,
    output: &Path,
) -> String {
    let (rows, dim, metric) = (database.len(), database.dim(), database.metric());
    let index = database.identity().and_then(|identity| identity.index.as_ref());
    let index = index.map_or("no index".into(), |index| format!("{} in {} partitions", index.kind, index.partitions));
    let file = shell(&output.to_string_lossy());
    let score = guessed_score(items);
    let command = if score.is_some() { "search" } else { "ask" };
    let evaluations = (rows / 50).clamp(100, 2000).min(rows);

    let mut text = format!("# A search of {} items of {dim} components, {metric}, {index}.\n", count(rows));
    if score.is_some() {
        let _ = writeln!(text, "#   uphill search {file} --out run --dry-run     what it would do");
    }
    let _ = writeln!(text, "#   uphill {command} {file} --out run");
    text += "# What is commented out is what holds without it, or an example.\n\n";
    text += "seed = 7                    # of everything random: one seed, one run\n\n";

    let _ = writeln!(text, "[database]\npath = {}", toml(path));
    if let Some(column) = embedding_column {
        let _ = writeln!(text, "embedding_column = {}", toml(column));
    }
    text += "# Of each item, what the filter, the score and the rule see, and the results show.\ncolumns = [\n";
    for column in items.columns() {
        let _ = writeln!(text, "    {:<27} # {}", format!("{},", toml(column.name())), describe(column));
    }
    text += "]\n";
    text += "k = 10                      # neighbours for each query\n";
    let recall = match database.recall_table() {
        Some(_) => "the share of its nearest items that a query finds; 1 looks at every item",
        None if database.uses_index() => {
            "nobody measured it for this index; nprobes = 16 looks into so many partitions"
        }
        None => "without an index, every item is looked at",
    };
    let _ = writeln!(text, "# recall = 0.99             # {recall}");
    let condition = example_condition(items);
    let _ = writeln!(text, "# prefilter = {}   # other items are never met, and not listed", toml(&condition));

    text += "\n[queries]\nsample = 16                 # start at random items\n";
    text += "# path = \"queries.parquet\"  # or at vectors of your own, in a column `embedding`\n";
    let _ = writeln!(text, "\n[filter]                    # which items may be scored");
    let _ = writeln!(text, "# sql = {}", toml(&condition));

    text += "\n[score]                     # what an item is worth\n";
    match &score {
        Some(column) => {
            text += "# A stand-in, so that this file runs: a column of the items, at no cost.\n";
            let _ = writeln!(text, "sql = {}", toml(&identifier(column)));
        }
        None => {
            text += "# No column is a number that could stand in for it: `uphill ask` says which items to score,\n";
            text += "# `uphill tell run scores.parquet` takes `db_idx` and `score`.\nby_hand = true\n";
        }
    }
    text += "# command = [\"python3\", \"score.py\"]      # a program: JSON lines in, JSON lines out\n";
    text += "# url = \"http://localhost:8000/score\"    # a service\n";
    text += "# direction = \"minimize\"                 # a smaller score is better, as in docking\n";

    text += "\n[update]\nrule = \"surrogate\"          # learns from each batch of scores where to look next\n";
    text +=
        "# features = []             # which columns it reads beside the embedding; without this, all that neither\n";
    text += "#                           # the score nor the filter reads. What a command or a service computes its\n";
    text += "#                           # answer from should not be among them\n";
    text += "# batch = 8                 # items scored at a time\n";

    text += "\n[stop]                      # whichever comes first\n";
    let _ = writeln!(text, "{:<27} # items scored; never exceeded", format!("evaluations = {evaluations}"));
    text += "# seconds = 3600.0\n# score = 0.95              # good enough\n";
    text
}

/// A column that may stand in for a score: one that is called so, or the last number with a fraction, or the last number.
fn guessed_score(items: &DataFrame) -> Option<String> {
    const CALLED_SO: [&str; 7] = ["score", "affinity", "docking", "activity", "rating", "qed", "target"];
    let numbers = items.columns().iter().rev().filter(|column| {
        let varies = column.n_unique().is_ok_and(|values| values > 1);
        column.dtype().is_primitive_numeric() && varies && !is_reserved_column(column.name())
    });
    let numbers: Vec<&Column> = numbers.collect();
    let is_called_so = |column: &&&Column| {
        let name = column.name().to_lowercase();
        CALLED_SO.iter().any(|called| name.contains(called))
    };
    let found = numbers.iter().find(is_called_so);
    let found = found.or_else(|| numbers.iter().find(|column| column.dtype().is_float())).or(numbers.first());
    found.map(|column| column.name().to_string())
}

/// A condition on a column that is there: that half of the items meet, where it is a number.
fn example_condition(items: &DataFrame) -> String {
    let score = guessed_score(items);
    let score = score.as_deref();
    let others = move || items.columns().iter().filter(move |column| Some(column.name().as_str()) != score);
    let median = |column: &Column| {
        let median = column.cast(&DataType::Float64).ok()?.f64().ok()?.median()?;
        // A number with a fraction would be none of a column without.
        let median = if column.dtype().is_integer() { median.ceil() } else { median };
        Some(format!("{} < {}", identifier(column.name()), format_number(median)))
    };
    let with_a_fraction = others().filter(|column| column.dtype().is_float()).find_map(median);
    let of_a_number =
        with_a_fraction.or_else(|| others().filter(|column| column.dtype().is_primitive_numeric()).find_map(median));
    let of_another = || {
        let text = others().find(|column| column.dtype().is_string());
        Some(format!("{} IS NOT NULL", identifier(text.or(items.columns().first())?.name())))
    };
    of_a_number.or_else(of_another).unwrap_or_else(|| "true".into())
}

/// What a column holds: its type, and the range of numbers or an example of text.
fn describe(column: &Column) -> String {
    let dtype = column.dtype();
    let range = || {
        let values = column.cast(&DataType::Float64).ok()?;
        let values = values.f64().ok()?;
        Some(format!("{dtype}, {} to {}", format_number(values.min()?), format_number(values.max()?)))
    };
    let example = || {
        let text: String = column.str().ok()?.iter().flatten().next()?.chars().take(40).collect();
        Some(format!("{dtype}, such as {}", toml(&text)))
    };
    let described = if dtype.is_primitive_numeric() { range() } else { example() };
    described.unwrap_or_else(|| dtype.to_string())
}

/// Text as a string of TOML on one line, as JSON has it, but for a character that TOML wants escaped.
fn toml(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

/// A column as SQL names it.
fn identifier(column: &str) -> String {
    let is_plain = column.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    match is_plain && columns_of(column).is_some_and(|columns| columns == [column]) {
        true => column.into(),
        false => format!("\"{}\"", column.replace('"', "\"\"")),
    }
}

//! `uphill init`: writes a commented run file for a dataset, ready to run.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use polars::prelude::*;

use super::output::{count, info, quote, to_file};
use crate::database::{LanceDatabase, OpenOptions, VectorDatabase, is_remote};
use crate::error::Error;
use crate::frame::schema::{DB_IDX, EMBEDDING, is_reserved_column};
use crate::frame::text::format_number;
use crate::sql::columns_of;

#[derive(clap::Args)]
pub struct Init {
    /// The dataset to search, built by `uphill index` or any other Lance dataset.
    dataset: String,
    /// The run file to write.
    #[arg(long, short, value_name = "FILE", default_value = "run.toml")]
    output: PathBuf,
    /// The column of embeddings. Needed if the dataset has several.
    #[arg(long)]
    embedding_column: Option<String>,
    /// Replace an existing file.
    #[arg(long)]
    overwrite: bool,
}

/// Number of items that are sampled to describe the columns.
const SAMPLE: usize = 1000;

pub fn init(arguments: Init) -> anyhow::Result<()> {
    let Init { dataset, output, embedding_column, overwrite } = arguments;
    if output.exists() && !overwrite {
        return Err(Error::input(
            &output,
            "already exists; replace it with --overwrite or choose another file with -o",
        )
        .into());
    }
    let options = OpenOptions { embedding_column: embedding_column.clone(), ..Default::default() };
    let database = LanceDatabase::open_with(&dataset, &options)?;
    if database.is_empty() {
        return Err(Error::input(&dataset, "nothing to search: no row has an embedding").into());
    }
    let sample = database.sample(SAMPLE, &mut crate::random::random_stream(0, "init", 0, 0))?;
    let items = database.take(&sample)?.drop_many([DB_IDX, EMBEDDING]);
    let path = path_from_run_file(&output, &dataset);
    let text = run_file(&database, &items, &path, embedding_column.as_deref(), &output);
    to_file(&output, |mut out| Ok(out.write_all(text.as_bytes())?))?;
    let file = quote(&output.to_string_lossy());
    match guess_score_column(&items) {
        Some(_) => info(format_args!("wrote {}; next: uphill search {file} --out run --dry-run", output.display())),
        None => info(format_args!("wrote {}; next: uphill ask {file} --out run -o next.parquet", output.display())),
    }
    Ok(())
}

/// The path of the dataset in a run file, relative to the folder of the file.
fn path_from_run_file(run_file: &Path, dataset: &str) -> String {
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
    let index = index.map_or("no index".into(), |index| format!("{} with {} partitions", index.kind, index.partitions));
    let file = quote(&output.to_string_lossy());
    let score = guess_score_column(items);
    let command = if score.is_some() { "search" } else { "ask" };
    let evaluations = (rows / 50).clamp(100, 2000).min(rows);

    let mut text = format!("# A search of {} items with {dim} dimensions, {metric}, {index}.\n", count(rows));
    if score.is_some() {
        let _ = writeln!(text, "#   uphill search {file} --out run --dry-run     shows what the search would do");
    }
    let _ = writeln!(text, "#   uphill {command} {file} --out run");
    text += "# Commented lines are defaults or examples.\n\n";
    text += "seed = 7                    # the same seed gives the same run\n\n";

    let _ = writeln!(text, "[database]\npath = {}", toml_string(path));
    if let Some(column) = embedding_column {
        let _ = writeln!(text, "embedding_column = {}", toml_string(column));
    }
    text +=
        "# The columns that the filter, the score and the rule can read, and that the results contain.\ncolumns = [\n";
    for column in items.columns() {
        let _ = writeln!(text, "    {:<27} # {}", format!("{},", toml_string(column.name())), describe(column));
    }
    text += "]\n";
    text += "k = 10                      # neighbours per query\n";
    let recall = match database.recall_table() {
        Some(_) => "share of the nearest items that a query finds; 1 compares with all items",
        None if database.uses_index() => "not measured for this index; nprobes = 16 searches 16 partitions",
        None => "no effect without an index: all items are searched",
    };
    let _ = writeln!(text, "# recall = 0.99             # {recall}");
    let condition = example_condition(items);
    let _ = writeln!(text, "# prefilter = {}   # other items are never found", toml_string(&condition));

    text += "\n[queries]\nsample = 16                 # start at 16 random items\n";
    text += "# path = \"queries.parquet\"  # or at your own vectors, in a column `embedding`\n";
    let _ = writeln!(text, "\n[filter]                    # which items may be scored");
    let _ = writeln!(text, "# sql = {}", toml_string(&condition));

    text += "\n[score]                     # how items are scored\n";
    match &score {
        Some(column) => {
            text += "# A placeholder, so that this file runs: a column of the items, at no cost.\n";
            let _ = writeln!(text, "sql = {}", toml_string(&quote_identifier(column)));
        }
        None => {
            text += "# No numeric column can be a placeholder. `uphill ask` prints the items to score,\n";
            text += "# `uphill tell run scores.parquet` takes their `db_idx` and `score`.\nby_hand = true\n";
        }
    }
    text += "# command = [\"python3\", \"score.py\"]      # a program: JSON lines in, JSON lines out\n";
    text += "# url = \"http://localhost:8000/score\"    # an HTTP service\n";
    text += "# direction = \"minimize\"                 # smaller scores are better, as in docking\n";

    text += "\n[update]\nrule = \"surrogate\"          # learns from each batch of scores where to search next\n";
    text +=
        "# features = []             # columns that the rule reads besides the embedding. The default is all columns\n";
    text += "#                           # that neither the score nor the filter reads. Exclude columns from which a\n";
    text += "#                           # command or a service computes the score\n";
    text += "# examples = \"known.parquet\" # items that are known to be good or bad, with their scores\n";
    text += "# batch = 8                 # items scored at a time\n";

    text += "\n[stop]                      # the first limit that is reached ends the search\n";
    let _ = writeln!(text, "{:<27} # items scored; never exceeded", format!("evaluations = {evaluations}"));
    text += "# seconds = 3600.0\n# score = 0.95              # stop at this score\n";
    text += "# hit = 1.0                 # a score of at least this is a hit, of at most this if smaller scores are better\n";
    text += "# no_hit = 100              # stop after this many scores in a row without a hit\n";
    text += "# scores_per_entry = 50.0   # stop when an entry into the best 100 is expected to cost more scores than this\n";
    text
}

/// A column that can be a placeholder for a score: the last one with a typical name, else the last column of floats, else the
/// last column of integers. Columns with a single value do not count.
fn guess_score_column(items: &DataFrame) -> Option<String> {
    const SCORE_NAMES: [&str; 7] = ["score", "affinity", "docking", "activity", "rating", "qed", "target"];
    let numbers = items.columns().iter().rev().filter(|column| {
        let varies = column.n_unique().is_ok_and(|values| values > 1);
        column.dtype().is_primitive_numeric() && varies && !is_reserved_column(column.name())
    });
    let numbers: Vec<&Column> = numbers.collect();
    let has_score_name = |column: &&&Column| {
        let name = column.name().to_lowercase();
        SCORE_NAMES.iter().any(|score| name.contains(score))
    };
    let found = numbers.iter().find(has_score_name);
    let found = found.or_else(|| numbers.iter().find(|column| column.dtype().is_float())).or(numbers.first());
    found.map(|column| column.name().to_string())
}

/// An example condition: half of the items satisfy it if there is a numeric column.
fn example_condition(items: &DataFrame) -> String {
    let score = guess_score_column(items);
    let score = score.as_deref();
    let others = move || items.columns().iter().filter(move |column| Some(column.name().as_str()) != score);
    let median = |column: &Column| {
        let median = column.cast(&DataType::Float64).ok()?.f64().ok()?.median()?;
        // A column of integers is compared with an integer.
        let median = if column.dtype().is_integer() { median.ceil() } else { median };
        Some(format!("{} < {}", quote_identifier(column.name()), format_number(median)))
    };
    let on_float = others().filter(|column| column.dtype().is_float()).find_map(median);
    let on_number =
        on_float.or_else(|| others().filter(|column| column.dtype().is_primitive_numeric()).find_map(median));
    let on_other = || {
        let text = others().find(|column| column.dtype().is_string());
        Some(format!("{} IS NOT NULL", quote_identifier(text.or(items.columns().first())?.name())))
    };
    on_number.or_else(on_other).unwrap_or_else(|| "true".into())
}

/// The type of a column, with the range of its numbers or an example of its texts.
fn describe(column: &Column) -> String {
    let dtype = column.dtype();
    let range = || {
        let values = column.cast(&DataType::Float64).ok()?;
        let values = values.f64().ok()?;
        Some(format!("{dtype}, {} to {}", format_number(values.min()?), format_number(values.max()?)))
    };
    let example = || {
        let text: String = column.str().ok()?.iter().flatten().next()?.chars().take(40).collect();
        Some(format!("{dtype}, such as {}", toml_string(&text)))
    };
    let described = if dtype.is_primitive_numeric() { range() } else { example() };
    described.unwrap_or_else(|| dtype.to_string())
}

/// A text as a TOML string on one line: as in JSON, but with DEL escaped.
fn toml_string(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

/// The name of a column in SQL, quoted if necessary.
fn quote_identifier(column: &str) -> String {
    let is_plain = column.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    match is_plain && columns_of(column).is_some_and(|columns| columns == [column]) {
        true => column.into(),
        false => format!("\"{}\"", column.replace('"', "\"\"")),
    }
}

//! Compares update rules: the share of the true best 100 items found after scoring 1, 2 and 5 % of a library.
//!
//! ```text
//! cargo bench --bench strategies -- --data molecules.parquet --data enamine10k.parquet --made --seeds 20 --out benches/STRATEGIES.md
//! ```
//!
//! Every rule runs through the real [`Runner`], from 16 random items, on the same ivf-flat index, with known scores. An item
//! counts if its score reaches the 100th best of the file. The budget counts the distinct items scored, including the
//! starting ones. Two seeds run at a time.
//!
//! The default rule runs twice: with the embeddings only, and with the other columns of the file too. Columns of scores (of
//! `--score`) are always excluded, because they would leak the target.

mod resource_usage;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use self::resource_usage::cpu_seconds;
use anyhow::{Context, Result, anyhow, ensure};
use clap::Parser;
use ndarray::{Array1, Array2, ArrayView1, Axis};
use polars::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_distr::{Distribution, StandardNormal};
use uphill::{
    Features, GradientColumn, GradientDatabase, GradientUpdate, IndexOptions, LanceDatabase, PruneUpdate, QueryGroup,
    RestartUpdate, RlUpdate, Runner, SqlScore, Step, StopConditions, SurrogateUpdate, TopKDiscreteUpdate, TopKPrune,
    TopKUpdate, UpdateRule, VectorDatabase,
};

const TOP: usize = 100;
const SHARES: [f64; 3] = [0.01, 0.02, 0.05];
/// The number of iterations without a new item after which a query restarts.
const RESTART: u32 = 3;
/// The step lengths along the gradient.
const SWEEP: [f64; 4] = [0.0, 0.5, 1.0, 2.0];

#[derive(Parser)]
struct Arguments {
    /// Items with a column `embedding` and the scores; may be given several times.
    #[arg(long, default_value = "data/molecules.parquet")]
    data: Vec<PathBuf>,
    /// Columns of scores (higher is better). Columns that a file lacks are skipped for that file.
    #[arg(long, default_values = [
        "qed", "logp", "mw", "score", "near_three", "fsp3_rings", "peaks2", "peaks6", "word_length", "peaks", "rare", "linear", "heavy"
    ])]
    score: Vec<String>,
    /// Add a synthetic library: 20,000 vectors of 384 components from a random network, and scores with several peaks, mostly
    /// zeros, linear with noise, and heavy-tailed.
    #[arg(long)]
    made: bool,
    /// Runs per rule and score.
    #[arg(long, default_value_t = 5)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    first_seed: u64,
    /// Columns to hide from all rules, besides the scores.
    #[arg(long)]
    hide: Vec<String>,
    /// A folder for the indexes, so that another table uses the same ones.
    #[arg(long)]
    indexes: Option<PathBuf>,
    /// Run the default rule with large batches and with asynchronous batches, instead of the rules of the table.
    #[arg(long)]
    behind: bool,
    /// Rules to run (default: all).
    #[arg(long)]
    rule: Vec<String>,
    /// A file for the table, in addition to standard output. Each row is written when it is complete, and replaces a row of the
    /// same library, rule and columns. Other rows are kept.
    #[arg(long)]
    out: Option<PathBuf>,
    /// `cargo bench` passes it.
    #[arg(long, hide = true)]
    bench: bool,
}

type Rule = fn() -> Box<dyn UpdateRule>;

/// The rules by name. Rules from the literature come last.
fn rules() -> Vec<(&'static str, Rule)> {
    vec![
        (EMBEDDING_ONLY, || Box::new(SurrogateUpdate::new().features(Features::columns(NONE)))),
        ("surrogate (default), all columns", || Box::new(SurrogateUpdate::new())),
        ("rl, lr 0.5", || Box::new(RlUpdate::new(0.5))),
        ("rl, lr 2, restart", || Box::new(RestartUpdate::new(RESTART, RlUpdate::new(2.0)))),
        ("rl, lr 0.25, 1, 5, pruned to 16, restart", || {
            let branching = RlUpdate::branching(vec![0.25, 1.0, 5.0]);
            Box::new(RestartUpdate::new(
                RESTART,
                PruneUpdate::new(TopKPrune::new(16).group(QueryGroup::Global), branching),
            ))
        }),
        ("top-k, k 3, restart", || Box::new(RestartUpdate::new(RESTART, TopKUpdate::new(3)))),
        (VVS, || Box::new(GradientUpdate::new(RestartUpdate::new(RESTART, TopKDiscreteUpdate::new(1))))),
        ("best-first over neighbours (RAD)", || Box::new(BestFirst::default())),
        ("Rocchio, restart", || Box::new(RestartUpdate::new(RESTART, rocchio))),
        ("random", || Box::new(random)),
    ]
}

/// The default rule with different batch sizes and numbers of asynchronous batches.
fn asynchronous_rules() -> Vec<(&'static str, Rule)> {
    fn rule(batch: usize, behind: usize) -> Box<dyn UpdateRule> {
        Box::new(SurrogateUpdate::new().features(Features::columns(NONE)).batch(batch).behind(behind))
    }
    vec![
        (EMBEDDING_ONLY, || Box::new(SurrogateUpdate::new().features(Features::columns(NONE)))),
        ("surrogate, 8 at a time: batch 8", || rule(8, 0)),
        ("surrogate, 16 at a time: batch 16", || rule(16, 0)),
        ("surrogate, 16 at a time: batch 8, behind 1", || rule(8, 1)),
        ("surrogate, 32 at a time: batch 32", || rule(32, 0)),
        ("surrogate, 32 at a time: batch 8, behind 3", || rule(8, 3)),
        ("surrogate, 32 at a time: batch 16, behind 1", || rule(16, 1)),
        ("surrogate, 64 at a time: batch 64", || rule(64, 0)),
        ("surrogate, 64 at a time: batch 32, behind 1", || rule(32, 1)),
        ("surrogate, 128 at a time: batch 64, behind 1", || rule(64, 1)),
    ]
}

/// The baseline of the comparison.
const EMBEDDING_ONLY: &str = "surrogate, embedding only";

const NONE: [&str; 0] = [];

/// A rule whose queries have gradients, along which the database searches.
const VVS: &str = "best item, then its gradient, restart (VVS)";

/// The random baseline: queries at random items.
fn random(step: &Step<'_>) -> uphill::Result<DataFrame> {
    let items = step.database.sample(step.queries.height(), &mut step.rng("random", 0))?;
    uphill::queries_at(step.database, &items)
}

/// Best-first search: scores the 10 nearest neighbours of the best item that was not expanded yet.
#[derive(Default)]
struct BestFirst {
    scores: HashMap<u64, f64>,
    expanded: HashSet<u64>,
}

impl UpdateRule for BestFirst {
    fn k(&self, _queries: usize) -> Option<usize> {
        // The item itself is its nearest neighbour.
        Some(11)
    }

    fn observe(&mut self, step: &Step<'_>) -> uphill::Result<()> {
        let (items, scores) = (step.results.column("db_idx")?.u64()?, step.results.column("score")?.f64()?);
        self.scores.extend(items.into_no_null_iter().zip(scores.iter().map(|score| score.unwrap_or(f64::MIN))));
        Ok(())
    }

    fn update(&mut self, step: &Step<'_>) -> uphill::Result<DataFrame> {
        let open = self.scores.iter().filter(|(item, _)| !self.expanded.contains(*item));
        let best = open.max_by(|a, b| a.1.total_cmp(b.1).then(b.0.cmp(a.0))).map(|(item, _)| *item);
        self.expanded.extend(best);
        uphill::queries_at(step.database, best.as_slice())
    }
}

/// Rocchio (1971), for distances: `(q + 0.75 m+ - 0.15 m-) / 1.6`, where m+ and m- are the means of the better and the
/// worse half of the neighbours of a query. The better half is weighted by score above its lowest.
fn rocchio(step: &Step<'_>) -> uphill::Result<DataFrame> {
    let mut vectors = uphill::matrix::<f64>(step.queries, "embedding")?.view().to_owned();
    let neighbours = uphill::matrix::<f32>(step.results, "embedding")?;
    let neighbours = neighbours.view();
    let queries: Vec<u32> = step.results.column("query_idx")?.u32()?.into_no_null_iter().collect();
    let scores: Vec<f64> = step.results.column("score")?.f64()?.iter().map(|score| score.unwrap_or(0.0)).collect();
    for (query, mut vector) in step.queries.column("query_idx")?.u32()?.into_no_null_iter().zip(vectors.rows_mut()) {
        let mut rows: Vec<usize> = (0..queries.len()).filter(|row| queries[*row] == query).collect();
        rows.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
        let (better, worse) = rows.split_at(rows.len().div_ceil(2));
        let (Some(last), false) = (better.last(), worse.is_empty()) else { continue };
        let weights: Vec<f64> = better.iter().map(|row| scores[*row] - scores[*last] + 1e-9).collect();
        let mean = |rows: &[usize], weights: &[f64]| -> Array1<f64> {
            let sum =
                rows.iter().zip(weights).fold(Array1::zeros(neighbours.ncols()), |sum: Array1<f64>, (row, weight)| {
                    sum + neighbours.row(*row).mapv(f64::from) * *weight
                });
            sum / weights.iter().sum::<f64>()
        };
        let moved = mean(better, &weights) * 0.75 - mean(worse, &vec![1.0; worse.len()]) * 0.15;
        vector += &moved;
        vector /= 1.6;
    }
    uphill::next_queries(step.queries, vectors.view())
}

fn main() -> Result<()> {
    let mut arguments = Arguments::parse();
    let folder = tempfile::tempdir()?;
    if arguments.made {
        let made = folder.path().join("made-20k-384.parquet");
        write_synthetic(&made)?;
        arguments.data.push(made);
    }
    let indexes = arguments.indexes.clone().unwrap_or_else(|| folder.path().to_path_buf());
    for data in &arguments.data {
        let items = uphill::read_parquet(data)?;
        let stem = data.file_stem().unwrap_or_default().to_string_lossy();
        let dataset = indexes.join(format!("{stem}.lance"));
        let scores: Vec<&String> = arguments.score.iter().filter(|score| items.column(score).is_ok()).collect();
        if !dataset.exists() {
            let rename = scores.iter().map(|score| (score.to_string(), attribute(score)));
            let options = IndexOptions::new().index(uphill::IndexKind::IvfFlat);
            let options = rename.fold(options, |options, (from, to)| options.rename(from, to));
            uphill::index(data, &dataset, &options)?;
        }
        let hidden = |column: &str| arguments.score.iter().chain(&arguments.hide).any(|hidden| *hidden == column);
        let columns_read = items.get_column_names_owned().into_iter().map(|column| column.to_string());
        let columns_read: Vec<String> =
            columns_read.filter(|column| !hidden(column) && !uphill::is_reserved_column(column)).collect();
        for score in scores {
            let mut best: Vec<f64> = items.column(score)?.f64()?.into_no_null_iter().collect();
            ensure!(best.len() > TOP, "{}: fewer than {TOP} items", data.display());
            best.sort_by(|a, b| b.total_cmp(a));
            let columns: Vec<String> = columns_read.iter().cloned().chain([attribute(score)]).collect();
            let whole = LanceDatabase::open(dataset.to_string_lossy())?.columns(&columns)?;
            let embedded = whole.clone().columns(&[attribute(score)])?;
            let mut embedding_only: Option<Vec<RunResult>> = None;
            for (name, rule) in if arguments.behind { asynchronous_rules() } else { rules() } {
                let columns = if name.ends_with("all columns") { columns_read.join(", ") } else { String::new() };
                let head = format!("| {stem}, {score} | {name} | {columns} |");
                if !arguments.rule.is_empty() && !arguments.rule.iter().any(|wanted| name.starts_with(wanted)) {
                    continue;
                }
                let database = if columns.is_empty() { &embedded } else { &whole };
                if name.ends_with("all columns") && columns.is_empty() {
                    continue;
                }
                let start = cpu_seconds();
                let one =
                    |seed| run(database, &attribute(score), best[TOP - 1], name, rule, seed + arguments.first_seed);
                let found = two_at_a_time(arguments.seeds, one)?;
                let row = format!("{head} {} |", row(&found, embedding_only.as_deref(), cpu_seconds() - start));
                if name == EMBEDDING_ONLY {
                    embedding_only = Some(found);
                }
                println!("{row}");
                if let Some(out) = &arguments.out {
                    write_row(out, &head, &row)?;
                }
            }
        }
    }
    Ok(())
}

/// The name of a score in the index, where reserved names such as `score` are not allowed.
fn attribute(score: &str) -> String {
    if uphill::is_reserved_column(score) { format!("true_{score}") } else { score.into() }
}

/// The share of the best items found at each budget, and the number of items scored.
type RunResult = ([f64; SHARES.len()], usize);

/// Runs one rule with one seed.
fn run(database: &LanceDatabase, score: &str, cut: f64, name: &str, rule: Rule, seed: u64) -> Result<RunResult> {
    let budgets = SHARES.map(|share| (database.len() as f64 * share).round() as u64);
    let start = database.sample(16, &mut uphill::random_stream(seed, "queries", 0, 0))?;
    let mut queries = uphill::queries_at(database, &start)?;
    let mut searched: Box<dyn VectorDatabase> = Box::new(database.clone());
    if name == VVS {
        queries = uphill::with_gradients(&queries, Array2::zeros((queries.height(), database.dim())).view())?;
        searched = Box::new(GradientDatabase::new(database.clone(), GradientColumn, SWEEP));
    }
    let stop = StopConditions::new().evaluations(budgets[SHARES.len() - 1]).nothing_new(100);
    let mut runner = Runner::from_parts(searched, Box::new(SqlScore::new(score)), rule()).seed(seed).stop(stop);
    let log = runner.search(&queries, u32::MAX)?;
    let found = uphill::collect(log.compile_results()?)?;
    let evaluations: Vec<Option<u64>> = found.column("evaluation")?.u64()?.iter().collect();
    let scores: Vec<Option<f64>> = found.column("score")?.f64()?.iter().collect();
    let shares = budgets.map(|budget| {
        let within = evaluations.iter().zip(&scores).filter(|(evaluation, score)| {
            evaluation.is_some_and(|evaluation| evaluation <= budget) && score.is_some_and(|score| score >= cut)
        });
        within.count().min(TOP) as f64 / TOP as f64
    });
    Ok((shares, found.height()))
}

/// The result of each seed, in the order of the seeds.
fn two_at_a_time(seeds: u64, one: impl Fn(u64) -> Result<RunResult> + Sync) -> Result<Vec<RunResult>> {
    let (next, found) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        break;
                    }
                    let one = one(seed);
                    found.lock().expect("no thread panicked").push((seed, one));
                }
            });
        }
    });
    let mut found = found.into_inner().map_err(|_| anyhow!("a run panicked"))?;
    found.sort_by_key(|(seed, _)| *seed);
    found.into_iter().map(|(_, found)| found).collect()
}

/// The cells of a row: mean and standard error of each share; the ratios to the baseline with their standard errors over pairs
/// of seeds; the number of seeds; CPU milliseconds per scored item.
fn row(found: &[RunResult], embedding_only: Option<&[RunResult]>, seconds: f64) -> String {
    let shares =
        |found: &[RunResult], budget: usize| found.iter().map(|(shares, _)| shares[budget]).collect::<Vec<f64>>();
    let cells: Vec<String> = (0..SHARES.len()).map(|budget| mean_and_error(&shares(found, budget))).collect();
    let ratio = |budget: usize| {
        let base = shares(embedding_only?, budget);
        let (found, base_mean) = (shares(found, budget), mean(&base));
        let ratio = mean(&found) / base_mean;
        let off: Vec<f64> = found.iter().zip(&base).map(|(found, base)| (found - ratio * base) / base_mean).collect();
        Some(format!("{ratio:.2} ± {:.2}", error(&off)))
    };
    let ratios: Option<Vec<String>> = (0..SHARES.len()).map(ratio).collect();
    let time = 1000.0 * seconds / found.iter().map(|(_, scored)| *scored as f64).sum::<f64>();
    format!("{} | {} | {} | {time:.1}", cells.join(" | "), ratios.unwrap_or_default().join(" / "), found.len())
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The standard error of the mean.
fn error(values: &[f64]) -> f64 {
    let (n, mean) = (values.len() as f64, mean(values));
    (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0) / n).sqrt()
}

fn mean_and_error(values: &[f64]) -> String {
    format!("{:.3} ± {:.3}", mean(values), error(values))
}

/// Writes the synthetic library.
fn write_synthetic(path: &Path) -> Result<()> {
    const ITEMS: usize = 20_000;
    const PROPERTIES: usize = 10;
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut normal = |rows, columns| -> Array2<f64> {
        Array2::from_shape_simple_fn((rows, columns), || StandardNormal.sample(&mut rng))
    };
    // Items of 60 kinds have ten properties. Two layers of random weights give the vectors.
    let (kinds, mut items) = (normal(60, PROPERTIES) * 1.2, normal(ITEMS, PROPERTIES) * 0.65);
    for (row, mut item) in items.rows_mut().into_iter().enumerate() {
        item += &kinds.row(row % 60);
    }
    let hidden = (items.dot(&normal(PROPERTIES, 256)) * (1.5 / (PROPERTIES as f64).sqrt())).mapv_into(f64::tanh);
    let mut vectors = hidden.dot(&normal(256, 384)) + normal(ITEMS, 384) * 0.8;
    for mut vector in vectors.rows_mut() {
        vector /= vector.dot(&vector).sqrt();
    }
    let standardised = |values: Array1<f64>| {
        let deviation = values.std(0.0);
        (&values - values.mean().unwrap_or_default()) / deviation
    };
    let noise = normal(ITEMS, 4);
    let smooth = standardised(
        (items.dot(&normal(PROPERTIES, 6)) / 2.0).mapv_into(f64::tanh).dot(&normal(6, 1)).remove_axis(Axis(1)),
    );
    let smooth = smooth + noise.column(0).mapv(|value| 0.15 * value);
    let mut sorted = smooth.to_vec();
    sorted.sort_by(f64::total_cmp);
    let floor = sorted[ITEMS - ITEMS / 12];
    let peak = |item: ArrayView1<'_, f64>, place: usize| {
        let squared = (&item - &items.row(place * 2477)).mapv(|value| value * value).sum();
        (1.0 - 0.04 * place as f64) * (-squared / (2.0 * (1.2 + 0.12 * place as f64).powi(2))).exp()
    };
    let peaks = items.rows().into_iter().map(|item| (0..8).map(|place| peak(item, place)).fold(0.0, f64::max));
    let peaks: Array1<f64> = peaks.collect::<Array1<f64>>() + noise.column(1).mapv(|value| 0.02 * value);
    let linear =
        standardised(vectors.dot(&normal(384, 1)).remove_axis(Axis(1))) + noise.column(2).mapv(|value| 0.5 * value);
    let scores = [
        ("peaks", peaks),
        ("rare", smooth.mapv(|value| (value - floor).max(0.0))),
        ("linear", linear),
        ("heavy", smooth.mapv(|value| (2.5 * value).exp())),
    ];
    let mut columns = vec![uphill::embedding_column(vectors.mapv(|value| value as f32).view())?];
    columns.extend(scores.map(|(name, values)| Column::new(name.into(), values.to_vec())));
    let mut frame = DataFrame::new(ITEMS, columns)?;
    ParquetWriter::new(std::fs::File::create(path)?).finish(&mut frame)?;
    Ok(())
}

/// Writes a row to the table of a file: replaces the row with the same head, or appends it. Adds the table if the file has none.
fn write_row(out: &Path, head: &str, row: &str) -> Result<()> {
    const HEAD: &str = "| data, score | rule | columns read | 1 % | 2 % | 5 % | ratio to embedding only | seeds | CPU ms per scored item |";
    let mut text = match std::fs::read_to_string(out) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        read => read.with_context(|| out.display().to_string())?,
    };
    if !text.contains(HEAD) {
        text = format!(
            "# Comparison of update rules\n\nThe share of the true best {TOP} items found after scoring 1, 2 and 5 % of a library: mean ± standard error over \
             the seeds.\n`benches/strategies.rs` defines the rules and the counts. The time is the CPU time of the whole search.\n\n\
             {HEAD}\n|---|---|---|---|---|---|---|---|---|\n"
        );
    }
    let mut lines: Vec<&str> = text.lines().collect();
    match lines.iter().position(|line| line.starts_with(head)) {
        Some(at) => lines[at] = row,
        None => lines.push(row),
    }
    std::fs::write(out, lines.join("\n") + "\n").with_context(|| out.display().to_string())
}

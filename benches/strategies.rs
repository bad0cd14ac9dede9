//! Which rule finds most for least: the share of the true best 100 items, after scoring 1, 2 and 5 % of a library.
//!
//! ```text
//! cargo bench --profile dev --bench strategies -- --data molecules.parquet --score qed --score logp --seeds 5
//! ```
//!
//! Every rule runs through the real [`Runner`], from 16 random items, on an index with default settings, with
//! scores that are known. An item counts if its score reaches the 100th best of the file. The budget counts the
//! distinct items scored, the starting ones too.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use polars::prelude::DataFrame;
use uphill::{
    Group, IndexOptions, LanceDatabase, Pruned, QueryUpdate, RlUpdate, Runner, SqlScore, Step, Stop, SurrogateUpdate,
    TopKPrune, TopKUpdate, VectorDatabase,
};

const TOP: usize = 100;
const SHARES: [f64; 3] = [0.01, 0.02, 0.05];

#[derive(Parser)]
struct Arguments {
    /// Items with a column `embedding` and the scores; may be given several times.
    #[arg(long, default_value = "data/molecules.parquet")]
    data: Vec<PathBuf>,
    /// Columns of scores, higher is better; of each file those it has.
    #[arg(long, default_values = ["qed", "logp", "mw", "score"])]
    score: Vec<String>,
    /// Runs per rule and score, with the seeds 0, 1, ….
    #[arg(long, default_value_t = 5)]
    seeds: u64,
    /// Rules to run; all where none is named.
    #[arg(long)]
    rule: Vec<String>,
    /// Where the table goes, beside standard output.
    #[arg(long)]
    out: Option<PathBuf>,
    /// `cargo bench` passes it.
    #[arg(long, hide = true)]
    bench: bool,
}

type Rule = fn() -> Box<dyn QueryUpdate>;

/// Each rule by the name it has in a run file, with its settings.
fn rules() -> Vec<(&'static str, Rule)> {
    vec![
        ("surrogate", || Box::new(SurrogateUpdate::new())),
        ("rl, lr 0.5", || Box::new(RlUpdate::new(0.5))),
        ("rl, lr 2", || Box::new(RlUpdate::new(2.0))),
        ("rl, lr 0.25, 1, 5, pruned to 16", || {
            Box::new(Pruned::new(TopKPrune::new(16).group(Group::Global), RlUpdate::branching(vec![0.25, 1.0, 5.0])))
        }),
        ("top-k, k 3", || Box::new(TopKUpdate::new(3))),
        ("random", || Box::new(random)),
    ]
}

/// Queries at random items: what a search has to beat.
fn random(step: &Step<'_>) -> uphill::Result<DataFrame> {
    let items = step.database.sample(step.queries.height(), &mut step.rng("random", 0))?;
    uphill::queries_at(step.database, &items)
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let folder = tempfile::tempdir()?;
    let mut table = String::from(
        "| data, score | rule | 1 % | 2 % | 5 % | seeds | ms per scored item |\n|---|---|---|---|---|---|---|\n",
    );
    print!("{table}");
    for (number, data) in arguments.data.iter().enumerate() {
        let dataset = folder.path().join(format!("{number}.lance"));
        let items = uphill::read_parquet(data)?;
        let scores: Vec<&String> = arguments.score.iter().filter(|score| items.column(score).is_ok()).collect();
        let rename = scores.iter().map(|score| (score.to_string(), attribute(score)));
        uphill::index(data, &dataset, &IndexOptions { rename: rename.collect(), ..Default::default() })?;
        for score in scores {
            let mut best: Vec<f64> = items.column(score)?.f64()?.into_no_null_iter().collect();
            ensure!(best.len() > TOP, "{}: fewer than {TOP} items", data.display());
            best.sort_by(|a, b| b.total_cmp(a));
            let database = LanceDatabase::open(dataset.to_string_lossy())?.columns(&[attribute(score)])?;
            for (name, rule) in rules() {
                if !arguments.rule.is_empty() && !arguments.rule.iter().any(|wanted| wanted == name) {
                    continue;
                }
                let row = measure(&database, &attribute(score), best[TOP - 1], rule, arguments.seeds)?;
                let stem = data.file_stem().unwrap_or_default().to_string_lossy();
                let row = format!("| {stem}, {score} | {name} | {row} |\n");
                print!("{row}");
                table.write_str(&row)?;
            }
        }
    }
    if let Some(out) = &arguments.out {
        write(out, &table)?;
    }
    Ok(())
}

/// The name of a score in the index, where `score` and its like are not allowed.
fn attribute(score: &str) -> String {
    if uphill::is_reserved(score) { format!("true_{score}") } else { score.into() }
}

/// Mean and standard error of the shares found, and the time, over the seeds.
fn measure(database: &LanceDatabase, score: &str, cut: f64, rule: Rule, seeds: u64) -> Result<String> {
    let budgets = SHARES.map(|share| (database.len() as f64 * share).round() as u64);
    let (mut shares, mut seconds, mut scored) = ([const { Vec::new() }; SHARES.len()], 0.0, 0);
    for seed in 0..seeds {
        let start = database.sample(16, &mut uphill::stream(seed, "queries", 0, 0))?;
        let queries = uphill::queries_at(database, &start)?;
        let stop = Stop { evaluations: Some(budgets[SHARES.len() - 1]), nothing_new: Some(100), ..Stop::default() };
        let parts = (Box::new(database.clone()), Box::new(SqlScore::new(score)));
        let mut runner = Runner::from_parts(parts.0, parts.1, rule()).seed(seed).stop(stop);
        let started = Instant::now();
        let log = runner.search(&queries, u32::MAX)?;
        seconds += started.elapsed().as_secs_f64();
        let found = uphill::collect(log.compile_results()?)?;
        scored += found.height();
        let evaluations: Vec<Option<u64>> = found.column("evaluation")?.u64()?.iter().collect();
        let scores: Vec<Option<f64>> = found.column("score")?.f64()?.iter().collect();
        for (share, budget) in shares.iter_mut().zip(budgets) {
            let within = evaluations.iter().zip(&scores).filter(|(evaluation, score)| {
                evaluation.is_some_and(|evaluation| evaluation <= budget) && score.is_some_and(|score| score >= cut)
            });
            share.push(within.count().min(TOP) as f64 / TOP as f64);
        }
    }
    let cells: Vec<String> = shares.iter().map(|share| mean_and_error(share)).collect();
    Ok(format!("{} | {seeds} | {:.1}", cells.join(" | "), 1000.0 * seconds / scored as f64))
}

fn mean_and_error(values: &[f64]) -> String {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
    format!("{mean:.3} ± {:.3}", (variance / n).sqrt())
}

fn write(out: &Path, table: &str) -> Result<()> {
    let text = format!(
        "# Which rule finds most\n\nThe share of the true best {TOP} items found after scoring 1, 2 and 5 % of a library: mean ± standard error \
         over the seeds.\nWritten by `cargo bench --profile dev --bench strategies`; `benches/strategies.rs` says how it is counted. Walks that met nothing new for 100 iterations ended there.\n\n{table}"
    );
    std::fs::write(out, text).with_context(|| out.display().to_string())
}

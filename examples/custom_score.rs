//! Custom scores: closures over the items' columns. The first returns plain numbers. The second
//! cannot score every item, gives a reason for each failure, and returns a part of its score.
//!
//! ```text
//! cargo run --example custom_score
//! ```

use std::path::Path;

use ndarray::Array1;
use polars::prelude::*;
use uphill::{Error, IndexOptions, LanceDatabase, Result, RlUpdate, Runner, Score, SearchLog, VectorDatabase};

/// Lead-likeness, 0 to 1: the geometric mean of drug-likeness and of the desirability of
/// lipophilicity and weight.
fn lead_like(molecules: &DataFrame) -> Result<Vec<f64>> {
    let logp_desirability = desirability(numbers(molecules, "logp")?, 2.5, 2.0);
    let mw_desirability = desirability(numbers(molecules, "mw")?, 350.0, 100.0);
    Ok((numbers(molecules, "qed")? * logp_desirability * mw_desirability).mapv(f64::cbrt).to_vec())
}

/// Like `lead_like`, but fails for mixtures. A null score is a failure, which is data: the log
/// stores it with its reason, it counts as an evaluation, and update rules ignore it.
fn lead_like_pure(molecules: &DataFrame) -> Result<DataFrame> {
    let smiles = molecules.column("smiles").and_then(Column::str).map_err(fatal)?;
    let (mut scores, mut reasons) = (Vec::new(), Vec::new());
    for (score, smiles) in lead_like(molecules)?.into_iter().zip(smiles.iter()) {
        // In SMILES, dots separate the molecules of a salt or a mixture.
        let molecule_count = smiles.unwrap_or_default().split('.').count();
        scores.push((molecule_count == 1).then_some(score));
        reasons.push((molecule_count > 1).then(|| format!("a mixture of {molecule_count}")));
    }
    let logp_desirability = desirability(numbers(molecules, "logp")?, 2.5, 2.0).to_vec();
    df!("score" => scores, "reason" => reasons, "logp_desirability" => logp_desirability).map_err(fatal)
}

/// Gaussian desirability: 1 at the ideal value, decreasing on both sides.
fn desirability(values: Array1<f64>, ideal: f64, width: f64) -> Array1<f64> {
    ((values - ideal) / width).mapv(|deviation| (-deviation * deviation).exp())
}

fn numbers(molecules: &DataFrame, name: &str) -> Result<Array1<f64>> {
    let column = molecules.column(name).and_then(Column::f64).map_err(fatal)?;
    Ok(column.iter().map(|value| value.unwrap_or(f64::NAN)).collect())
}

/// Stops the run, for unexpected errors such as a missing column.
fn fatal(error: PolarsError) -> Error {
    Error::Score { iteration: None, reason: error.to_string() }
}

fn main() -> anyhow::Result<()> {
    let molecules = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/molecules.parquet");
    let folder = tempfile::tempdir()?;
    let dataset = folder.path().join("molecules.lance");
    uphill::index(&molecules, &dataset, &IndexOptions::default())?;
    let database = LanceDatabase::open(dataset.to_string_lossy())?.k(10);

    let log = search(&database, lead_like)?;
    let first = mean(&log.results(0)?)?;
    let last = mean(&log.results(19)?)?;
    println!("mean lead-likeness: {first:.3} in the first iteration, {last:.3} after 20 iterations");
    assert!(last > first + 0.05, "the search finds better items");

    let log = search(&database, lead_like_pure)?;
    let items = uphill::collect(log.compile_results()?)?;
    let evaluations = log.manifest().ended.as_ref().map_or(0, |ended| ended.evaluations);
    assert_eq!(items.height() as u64, evaluations, "each item is scored once, and failures count too");
    let (smiles, scores, reasons) =
        (items.column("smiles")?.str()?, items.column("score")?.f64()?, items.column("reason")?.str()?);
    for ((smiles, score), reason) in smiles.iter().zip(scores.iter()).zip(reasons.iter()) {
        let is_mixture = smiles.is_some_and(|smiles| smiles.contains('.'));
        assert_eq!((score.is_none(), reason.is_some()), (is_mixture, is_mixture), "{smiles:?}");
    }
    println!("{} of {evaluations} molecules have no score; the best molecules:", scores.null_count());
    println!("{}", items.head(Some(5)).select(["name", "score", "logp_desirability", "qed", "evaluation"])?);
    Ok(())
}

/// Searches for twenty iterations, starting at the same 16 random molecules.
fn search(database: &LanceDatabase, score: impl Score + 'static) -> Result<SearchLog> {
    let start = database.sample(16, &mut uphill::random_stream(7, "queries", 0, 0))?;
    let queries = uphill::queries_at(database, &start)?;
    Runner::new(database.clone(), score, RlUpdate::new(1.0)).search(&queries, 20)
}

fn mean(scored: &DataFrame) -> anyhow::Result<f64> {
    Ok(scored.column("score")?.f64()?.mean().unwrap_or(f64::NAN))
}

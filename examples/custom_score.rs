//! Scores of one's own: closures over the items' columns. One is plain numbers; the other
//! cannot score every item, says why, and keeps the parts that its score is made of.
//!
//! ```text
//! cargo run --example custom_score
//! ```

use std::path::Path;

use ndarray::Array1;
use polars::prelude::*;
use uphill::{Error, IndexOptions, LanceDatabase, Result, RlUpdate, Runner, Score, SearchLog, VectorDatabase};

/// How well each molecule suits as a lead, 0 to 1: the geometric mean of its drug-likeness and
/// of how near it is to an ideal lipophilicity and an ideal weight.
fn lead_like(molecules: &DataFrame) -> Result<Vec<f64>> {
    let near_logp = desirability(numbers(molecules, "logp")?, 2.5, 2.0);
    let near_mw = desirability(numbers(molecules, "mw")?, 350.0, 100.0);
    Ok((numbers(molecules, "qed")? * near_logp * near_mw).mapv(f64::cbrt).to_vec())
}

/// As `lead_like`, but of single molecules only. A null score is a failure, which is data: it
/// goes to the log with its reason, counts as asked, and no query moves by it.
fn lead_like_alone(molecules: &DataFrame) -> Result<DataFrame> {
    let smiles = molecules.column("smiles").and_then(Column::str).map_err(failed)?;
    let (mut scores, mut reasons) = (Vec::new(), Vec::new());
    for (score, smiles) in lead_like(molecules)?.into_iter().zip(smiles.iter()) {
        // A dot in SMILES parts the molecules of a salt or a mixture.
        let parts = smiles.unwrap_or_default().split('.').count();
        scores.push((parts == 1).then_some(score));
        reasons.push((parts > 1).then(|| format!("a mixture of {parts}")));
    }
    let near_logp = desirability(numbers(molecules, "logp")?, 2.5, 2.0).to_vec();
    df!("score" => scores, "reason" => reasons, "near_logp" => near_logp).map_err(failed)
}

/// 1 at the ideal, falling off on both sides.
fn desirability(values: Array1<f64>, ideal: f64, width: f64) -> Array1<f64> {
    ((values - ideal) / width).mapv(|off| (-off * off).exp())
}

fn numbers(molecules: &DataFrame, name: &str) -> Result<Array1<f64>> {
    let column = molecules.column(name).and_then(Column::f64).map_err(failed)?;
    Ok(column.iter().map(|value| value.unwrap_or(f64::NAN)).collect())
}

/// Stops the run: for what should not happen, such as a column that is not there.
fn failed(error: PolarsError) -> Error {
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
    println!("lead-likeness of what the queries meet: {first:.3} at first, {last:.3} after 20 iterations");
    assert!(last > first + 0.05, "the search climbs");

    let log = search(&database, lead_like_alone)?;
    let items = uphill::collect(log.compile_results()?)?;
    let asked = log.manifest().ended.as_ref().map_or(0, |ended| ended.evaluations);
    assert_eq!(items.height() as u64, asked, "each item is asked once, and counts whether it has a score or not");
    let (smiles, scores, reasons) =
        (items.column("smiles")?.str()?, items.column("score")?.f64()?, items.column("reason")?.str()?);
    for ((smiles, score), reason) in smiles.iter().zip(scores.iter()).zip(reasons.iter()) {
        let is_mixture = smiles.is_some_and(|smiles| smiles.contains('.'));
        assert_eq!((score.is_none(), reason.is_some()), (is_mixture, is_mixture), "{smiles:?}");
    }
    println!("{} of {asked} molecules have no score; the best have:", scores.null_count());
    println!("{}", items.head(Some(5)).select(["name", "score", "near_logp", "qed", "evaluation"])?);
    Ok(())
}

/// Twenty iterations from the same 16 random molecules.
fn search(database: &LanceDatabase, score: impl Score + 'static) -> Result<SearchLog> {
    let start = database.sample(16, &mut uphill::random_stream(7, "queries", 0, 0))?;
    let queries = uphill::queries_at(database, &start)?;
    Runner::new(database.clone(), score, RlUpdate::new(1.0)).search(&queries, 20)
}

fn mean(scored: &DataFrame) -> anyhow::Result<f64> {
    Ok(scored.column("score")?.f64()?.mean().unwrap_or(f64::NAN))
}

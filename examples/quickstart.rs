//! Finds drug-like molecules among 20,000 while scoring only 400 of them.
//!
//! ```text
//! cargo run --example quickstart
//! ```

use std::path::Path;

use polars::prelude::col;
use uphill::{
    IndexKind, IndexOptions, LanceDatabase, ReportOptions, Runner, SqlFilter, SqlScore, StopConditions,
    SurrogateUpdate, VectorDatabase,
};

fn main() -> anyhow::Result<()> {
    let molecules = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/molecules.parquet");
    let folder = tempfile::Builder::new().prefix("uphill-quickstart-").tempdir()?.keep();

    // Build a library from Parquet: a column of embeddings, and attributes of each molecule.
    let dataset = folder.join("molecules.lance");
    uphill::index(&molecules, &dataset, &IndexOptions::new().index(IndexKind::IvfFlat))?;
    let database = LanceDatabase::open(dataset.to_string_lossy())?;
    let library_size = database.len();

    // Start at 16 random molecules.
    let start = database.sample(16, &mut uphill::random_stream(7, "queries", 0, 0))?;
    let queries = uphill::queries_at(&database, &start)?;

    // Maximise drug-likeness (`qed`), and never score a molecule that is too heavy. The default rule fits a surrogate model
    // to each batch of scores, on the embedding and the SMILES.
    let mut runner = Runner::new(database, SqlScore::new("qed"), SurrogateUpdate::new())
        .filter(SqlFilter::new("mw < 500"))
        .stop(StopConditions::new().evaluations(400))
        .seed(7)
        .on_iteration(|summary| {
            let (mean, best) = (summary.mean.unwrap_or(f64::NAN), summary.best_so_far.unwrap_or(f64::NAN));
            eprintln!(
                "iteration {:>2}  mean {mean:.3}  best so far {best:.3}  scored {:>3}",
                summary.iteration, summary.evaluations
            );
        });
    let log = runner.search_into(folder.join("run"), &queries, 100)?;

    // Each molecule once, best first; `evaluation` is the number of molecules that had been scored when it was found.
    let best = log.compile_results()?.select([col("name"), col("qed"), col("mw"), col("evaluation"), col("iteration")]);
    println!("{}", uphill::collect(best.limit(10))?);

    let scored = log.manifest().ended.as_ref().map_or(0, |ended| ended.evaluations);
    println!("scored {scored} of {library_size} molecules; all results are in");
    println!("{}", log.path().display());

    // Write a report: what was found, where, and at what cost.
    let report = folder.join("report.html");
    std::fs::write(&report, uphill::report(&[log.path()], &ReportOptions::default())?)?;
    println!("and the report is");
    println!("{}", report.display());
    Ok(())
}

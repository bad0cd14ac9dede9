//! A custom update rule with state: momentum on top of `RlUpdate`. A resumed run gives the same
//! result as an uninterrupted one.
//!
//! ```text
//! cargo run --example custom_update
//! ```

use std::path::Path;

use ndarray::Array2;
use polars::prelude::{ChunkAgg, DataFrame};
use uphill::{
    IndexOptions, LanceDatabase, Result, RlUpdate, Runner, SearchContext, SqlScore, Step, UpdateRule, VectorDatabase,
};

/// Heavy-ball momentum: `v' = momentum * v + (rl(q) - q)` and `q' = q + v'`, starting with `v = 0`.
struct Momentum {
    rule: RlUpdate,
    momentum: f64,
    /// The velocity of each query, `(n_queries, dim)`; `None` before the first iteration.
    velocity: Option<Array2<f64>>,
}

impl Momentum {
    fn new(lr: f64, momentum: f64) -> Self {
        Momentum { rule: RlUpdate::new(lr), momentum, velocity: None }
    }
}

impl UpdateRule for Momentum {
    /// Forgets all observations when a run starts or resumes.
    fn begin(&mut self, context: &SearchContext<'_>) -> Result<()> {
        self.velocity = None;
        self.rule.begin(context)
    }

    /// Updates the state of the rule. A resumed run calls this again for all committed iterations, so
    /// state must be updated here and not in `update`.
    fn observe(&mut self, step: &Step<'_>) -> Result<()> {
        let moved = vectors(&self.rule.update(step)?)? - vectors(step.queries)?;
        self.velocity = Some(match self.velocity.take() {
            Some(velocity) => velocity * self.momentum + moved,
            None => moved,
        });
        Ok(())
    }

    /// Moves the queries. Called after `observe`, with the same step.
    fn update(&mut self, step: &Step<'_>) -> Result<DataFrame> {
        let queries = vectors(step.queries)?;
        match &self.velocity {
            Some(velocity) => uphill::next_queries(step.queries, (queries + velocity).view()),
            None => Ok(step.queries.clone()),
        }
    }
}

fn vectors(queries: &DataFrame) -> Result<Array2<f64>> {
    Ok(uphill::matrix::<f64>(queries, "embedding")?.view().to_owned())
}

fn main() -> anyhow::Result<()> {
    let molecules = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/molecules.parquet");
    let folder = tempfile::tempdir()?;
    let dataset = folder.path().join("molecules.lance");
    uphill::index(&molecules, &dataset, &IndexOptions::default())?;
    let database = LanceDatabase::open(dataset.to_string_lossy())?.k(10);
    let start = database.sample(16, &mut uphill::random_stream(7, "queries", 0, 0))?;
    let queries = uphill::queries_at(&database, &start)?;
    let runner = |momentum| Runner::new(database.clone(), SqlScore::new("qed"), Momentum::new(0.5, momentum));

    // With momentum 0, the rule equals `RlUpdate`.
    let plain = Runner::new(database.clone(), SqlScore::new("qed"), RlUpdate::new(0.5)).search(&queries, 20)?;
    let without = runner(0.0).search(&queries, 20)?;
    let difference = vectors(&plain.queries(20)?)? - vectors(&without.queries(20)?)?;
    assert!(difference.iter().all(|component| component.abs() < 1e-6), "the same path");

    let whole = runner(0.5).search(&queries, 20)?;
    for (name, log) in [("rl", &plain), ("rl with momentum", &whole)] {
        let mean = |iteration| -> anyhow::Result<f64> {
            Ok(log.results(iteration)?.column("score")?.f64()?.mean().unwrap_or(f64::NAN))
        };
        println!("{name:<18} mean qed {:.3} in the first iteration, {:.3} after 20 iterations", mean(0)?, mean(19)?);
        assert!(mean(19)? > mean(0)?, "{name} improves");
    }

    // Stop after 8 iterations and resume with a new rule, whose state comes from the replay alone.
    let run = folder.path().join("run");
    drop(runner(0.5).search_into(&run, &queries, 8)?);
    let resumed = runner(0.5).resume(&run, &queries, 20)?;
    assert_eq!(vectors(&resumed.queries(20)?)?, vectors(&whole.queries(20)?)?, "bit for bit");
    println!("stopped after 8 iterations and resumed, it ends at the same query vectors");
    Ok(())
}

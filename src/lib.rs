//! Find the best-scoring items of an embedded library while scoring only a small fraction of it.
//!
//! A *library* has items (molecules, documents, products), each with an embedding. A *score* says how good an item is, and
//! is expensive: a docking run, a model, an API call, a person. `uphill` searches in
//! iterations. Each iteration finds candidates, filters them, selects some of them, scores these and learns from the scores:
//!
//! ```text
//! queries ─▶ VectorDatabase.query ─▶ Filter ─▶ Selector ─▶ Score ─▶ SearchLog ─▶ UpdateRule ─▶ queries …
//!           (Lance, ANN index)                                    (Parquet per iteration)
//! ```
//!
//! Candidates are the neighbours of query vectors, and items that the update rule proposes. The default rule
//! ([`SurrogateUpdate`]) fits a model of the scores. It ranks a small library as a whole, and candidates of a large one. The
//! other rules move each query vector from the scores of its neighbours.
//!
//! # Example
//!
//! ```
//! use uphill::{IndexOptions, LanceDatabase, RlUpdate, Runner, SqlFilter, SqlScore, VectorDatabase};
//!
//! # fn main() -> uphill::Result<()> {
//! # let folder = tempfile::tempdir().unwrap();
//! # let dataset = folder.path().join("molecules.lance");
//! // Index a Parquet file with an embedding column and attributes.
//! uphill::index("data/molecules.parquet", &dataset, &IndexOptions::default())?;
//! let database = LanceDatabase::open(dataset.to_string_lossy())?.k(10);
//!
//! // Start at eight random molecules and search for drug-like ones (a high `qed`).
//! let start = database.sample(8, &mut uphill::random_stream(7, "start", 0, 0))?;
//! let start = uphill::queries_at(&database, &start)?;
//! let mut runner = Runner::new(database, SqlScore::new("qed"), RlUpdate::new(0.5)).filter(SqlFilter::new("mw < 500"));
//! let log = runner.search(&start, 5)?;
//!
//! // The log is Parquet. The compiled results have each item once, the best first.
//! let best = uphill::collect(log.compile_results()?.limit(10))?;
//! assert_eq!(best.height(), 10);
//! let scores: Vec<f64> = best.column("score").unwrap().f64().unwrap().into_no_null_iter().collect();
//! assert!(scores.is_sorted_by(|a, b| a >= b));
//! # Ok(())
//! # }
//! ```
//!
//! # Frames
//!
//! Stages exchange Polars frames. `uphill` checks the frames that your code returns. An error names the stage, the iteration,
//! the column, the expected value and the value found.
//!
//! | frame | columns |
//! |---|---|
//! | queries | `query_idx` u32, `parent_idx` u32 nullable, `collection_idx` u32, `embedding` array of f64 |
//! | results | `query_idx`, `db_idx` u64, `distance` f32, `embedding` array of f32, then the item's attributes |
//! | scored | results + `score` f64 nullable, `outcome` string, `reason` string nullable, parts of the score, `evaluation` u64 nullable |
//!
//! - `score`: higher is always better. It is null if the item was rejected or failed. `outcome` is the [`Outcome`], and
//!   `reason` explains it.
//! - `distance`: smaller is nearer under every metric. L2 is squared, cosine is `1 - cos`, dot is `1 - a . b`.
//! - `db_idx`: the stable id of the item. In a dataset that [`index`] built, it is the row number after invalid rows were
//!   skipped.
//! - `evaluation`: the position of the item among the evaluations of the run, from 1. Null for reused scores.
//!
//! # Components
//!
//! | stage | trait | implementations |
//! |---|---|---|
//! | find the neighbours of queries | [`VectorDatabase`] | [`LanceDatabase`], [`GradientDatabase`] |
//! | remove candidates that must not be scored | [`Filter`] | [`SqlFilter`], a closure |
//! | choose the candidates to score | [`Selector`] | the model of a [`SurrogateUpdate`], a closure |
//! | score items, each at most once per run | [`Score`] | [`SqlScore`], [`CommandScore`], [`HttpScore`], [`SumScore`], [`ManualScore`], a closure |
//! | learn from the scores, compute the next queries | [`UpdateRule`] | [`SurrogateUpdate`], [`RlUpdate`], [`TopKUpdate`], [`TopKDiscreteUpdate`], [`GradientUpdate`], a closure |
//! | drop queries | [`Pruner`], in a [`PruneUpdate`] | [`TopKPrune`], a closure |
//! | restart queries that find no new items | | [`RestartUpdate`] |
//!
//! - [`Runner`] is the search loop. [`Config`] builds a runner from a TOML run file, as the command line does.
//! - [`SearchLog`] stores every iteration as Parquet in the run folder. [`remove`] deletes a run folder.
//! - [`evaluate`](evaluate()) computes the recall of a run: how many of the best items it found, given the scores of all items.
//!   [`report`](report()) writes a run as an HTML page.
//!
//! All functions are synchronous. Calling them from an async runtime is safe.
//!
//! # Platforms and features
//!
//! Linux and macOS are supported. Run folders require atomic renames and fsync of folders, and scorers require process
//! groups.
//!
//! | feature | default | enables |
//! |---|---|---|
//! | `cli` | yes | the command line, also as the function [`command`](command()) |
//! | `http` | yes | [`HttpScore`] |
//! | `aws`, `gcp`, `azure` | no | datasets on object stores; released wheels and binaries have them |

#![deny(unsafe_code)]

#[cfg(not(unix))]
compile_error!(
    "uphill supports Linux and macOS: run folders require atomic renames and fsync of folders, scorers require process groups"
);

mod audit;
mod calibration;
mod candidates;
#[cfg(feature = "cli")]
mod command;
mod config;
mod database;
mod error;
mod evaluate;
mod features;
mod filter;
mod forecast;
mod frame;
mod hits;
mod index;
mod interrupt;
mod io;
mod ledger;
mod linalg;
mod log;
mod panics;
mod prediction;
mod random;
mod report;
mod runner;
mod score;
mod select;
mod sql;
mod step;
mod suggest;
mod surrogate;
mod table;
mod update;

pub use audit::Audit;
#[cfg(feature = "cli")]
pub use command::command;
pub use config::{
    Config, DatabaseConfig, Direction, FilterConfig, FunctionRegistry, GradientConfig, LearningRates, PruneConfig,
    QueriesConfig, RestartConfig, ScoreConfig, StopConfig, UpdateConfig, queries_at,
};
pub use database::{
    BlockVisitor, DatasetIdentity, Gradient, GradientColumn, GradientDatabase, IndexInfo, LanceDatabase, Metric,
    OpenOptions, QueryOptions, RecallLevel, RecallTable, VectorDatabase, with_gradients,
};
pub use error::{Error, Result};
pub use evaluate::{GroundTruth, RecallCurve, evaluate};
pub use features::{Feature, FeatureGroup, Features, ItemFeatures, Role};
pub use filter::{Filter, PassThroughFilter, SqlFilter, filter_by_mask};
pub use forecast::Forecast;
pub use frame::convert::{Component, Matrix, embedding_column, matrix, to_arrow, to_polars};
pub use frame::outcome::Outcome;
pub use frame::schema::{check_queries, check_results, is_reserved_column, queries};
pub use frame::text::{format_number, to_json_types};
pub use hits::Hits;
pub use index::{
    AUTO_INDEX_MIN_ROWS, AUTO_RQ_MIN_ROWS, IndexKind, IndexOptions, IndexProgress, IndexReport, InvalidRows, index,
    index_table,
};
pub use io::parquet::read_parquet;
pub use log::{FORMAT_VERSION, Manifest, RunSummary, SearchLog, StageTimes, StopReason, collect, remove, remove_from};
pub use random::{RandomStream, random_stream};
pub use report::{ReportOptions, plot, report};
pub use runner::{AuditState, IterationSummary, Runner, SearchState, StopConditions};
#[cfg(feature = "http")]
pub use score::HttpScore;
pub use score::{
    AnswerSink, CommandFormat, CommandMode, CommandScore, ExternalScore, IntoScores, ManualScore, OnError,
    ReuseOptions, Score, Session, SqlScore, SumScore,
};
pub use select::Selector;
pub use step::Step;
pub use surrogate::SurrogateUpdate;
pub use update::{
    Aggregation, GradientUpdate, Norm, PruneUpdate, Pruner, QueryGroup, RestartUpdate, RlUpdate, SearchContext,
    TopKDiscreteUpdate, TopKPrune, TopKUpdate, UpdateRule, next_queries,
};

// Crates whose types occur in public signatures, so that dependents need not match versions.
pub use {arrow, ndarray, polars};

/// Column names of the frames.
pub mod columns {
    pub use crate::frame::schema::{
        CHOSEN_BY, COLLECTION_IDX, CONTRIBUTION, DB_IDX, DEVIATION, DISTANCE, DISTANCE_SHARE, EMBEDDING, EVALUATION,
        GRADIENT, ITERATION, NEIGHBOUR_IDX, NEIGHBOUR_SCORE, OUTCOME, PARENT_IDX, POSTERIOR_MEAN, PREDICTED, QUERY_IDX,
        RAW_SCORE, REASON, RESERVED, SCORE, SHARE, SOURCE_ROW,
    };
}

/// The examples in the README and in `docs/rust.md`, compiled by `cargo test`.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../README.md")]
    struct Readme;
    #[doc = include_str!("../docs/rust.md")]
    struct Rust;
}

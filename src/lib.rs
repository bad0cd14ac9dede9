//! Find the best-scoring items of an embedded library while scoring only a small share of it.
//!
//! A *library* holds N items (molecules, documents, products), each with an embedding. A *score*
//! says how good an item is and costs real money: a docking run, a model, an API call, a person.
//! `uphill` moves query vectors through embedding space towards better scores:
//!
//! ```text
//! queries ─▶ VectorDatabase.query ─▶ Filter ─▶ Select ─▶ Score ─▶ SearchLog ─▶ QueryUpdate ─▶ queries …
//!           (Lance, ANN index)                                  (Parquet per iteration)
//! ```
//!
//! # A first run
//!
//! ```
//! use uphill::{IndexOptions, LanceDatabase, RlUpdate, Runner, SqlFilter, SqlScore, VectorDatabase};
//!
//! # fn main() -> uphill::Result<()> {
//! # let folder = tempfile::tempdir().unwrap();
//! # let dataset = folder.path().join("molecules.lance");
//! // Parquet in: a column of embeddings, and any attributes.
//! uphill::index("data/molecules.parquet", &dataset, &IndexOptions::default())?;
//! let database = LanceDatabase::open(dataset.to_string_lossy())?.k(10);
//!
//! // Start at eight random molecules and climb towards drug-likeness.
//! let start = database.sample(8, &mut uphill::random_stream(7, "start", 0, 0))?;
//! let start = uphill::queries_at(&database, &start)?;
//! let mut runner = Runner::new(database, SqlScore::new("qed"), RlUpdate::new(0.5)).filter(SqlFilter::new("mw < 500"));
//! let log = runner.search(&start, 5)?;
//!
//! // The log is Parquet; compiled, it has each item once, the best first.
//! let best = uphill::collect(log.compile_results()?.limit(10))?;
//! assert_eq!(best.height(), 10);
//! let scores: Vec<f64> = best.column("score").unwrap().f64().unwrap().into_no_null_iter().collect();
//! assert!(scores.is_sorted_by(|a, b| a >= b));
//! # Ok(())
//! # }
//! ```
//!
//! # The frames between stages
//!
//! Every stage takes and gives Polars frames. What user code gives back is checked, and an error
//! names the stage, the iteration, the column and both values.
//!
//! | frame | columns |
//! |---|---|
//! | queries | `query_idx` u32, `parent_idx` u32 nullable, `collection_idx` u32, `embedding` array of f64 |
//! | results | `query_idx`, `db_idx` u64, `distance` f32, `embedding` array of f32, then the item's attributes |
//! | scored | results + `score` f64 nullable, `outcome` string, `reason` string nullable, parts of the score, `evaluation` u64 nullable |
//!
//! - A higher `score` is better, always. It is null if the item was rejected or failed, as [`Outcome`] says; `reason` says why.
//! - A smaller `distance` is nearer under every metric. L2 is squared, cosine is `1 - cos`, dot is `1 - a . b`.
//! - `db_idx` is the item's stable identity: for a dataset that [`index`] built, its position among the kept rows.
//! - `evaluation` counts the items paid for, from 1: the cost at which an item was found.
//!
//! # The parts
//!
//! [`VectorDatabase`] ([`LanceDatabase`], [`GradientDatabase`]) finds neighbours; [`Filter`] ([`SqlFilter`]) says which may be
//! scored, [`Select`] which are worth it; [`Score`] ([`SqlScore`], [`CommandScore`], [`HttpScore`], closures) says what
//! they are worth, and each item is asked for once per run; [`SearchLog`] keeps every iteration as Parquet, until [`remove`];
//! [`QueryUpdate`] says where to look next: [`SurrogateUpdate`], the default of run files, by a model of the scores, others
//! ([`RlUpdate`], [`TopKUpdate`], [`TopKDiscreteUpdate`]) by moving each query; [`Prune`] ([`TopKPrune`], in a [`PruneUpdate`]
//! rule) says which queries go on; [`Runner`] is the loop. [`Config`] builds all of them
//! from a TOML file, as the command line does. [`evaluate`](evaluate()) says how much of the best a run found,
//! where the scores of all items are known; [`report`](report()) makes a page of it that one can see.
//! Everything is synchronous, and safe to call from inside an async runtime.
//!
//! # What it needs
//!
//! Linux or macOS: run folders rest on atomic renames and durable folders, scorers on groups of processes. Feature `cli`
//! (default) is the command line, as [`command`](command()) too; `http` (default) is [`HttpScore`]; `aws`, `gcp` and
//! `azure` are object stores, which released wheels and binaries have.

#![deny(unsafe_code)]

#[cfg(not(unix))]
compile_error!(
    "uphill is for Linux and macOS: its run folders rest on atomic renames and durable folders, its scorers on groups of processes"
);

mod candidates;
#[cfg(feature = "cli")]
mod command;
mod config;
mod database;
mod error;
mod evaluate;
mod features;
mod filter;
mod frame;
mod index;
mod interrupt;
mod io;
mod ledger;
mod linalg;
mod log;
mod panics;
mod random;
mod report;
mod runner;
mod score;
mod select;
mod sql;
mod step;
mod suggest;
mod surrogate;
mod update;

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
pub use evaluate::{Evaluation, GroundTruth, evaluate};
pub use features::{Feature, FeatureGroup, Features, ItemFeatures, Role};
pub use filter::{Filter, PassThroughFilter, SqlFilter, filter_by_mask};
pub use frame::convert::{Component, Matrix, embedding_column, matrix, to_arrow, to_polars};
pub use frame::outcome::Outcome;
pub use frame::schema::{check_queries, check_results, is_reserved_column, queries};
pub use frame::text::{format_number, to_json_types};
pub use index::{
    AUTO_INDEX_MIN_ROWS, AUTO_RQ_MIN_ROWS, IndexKind, IndexOptions, IndexProgress, IndexReport, InvalidRows, index,
    index_table,
};
pub use io::parquet::read_parquet;
pub use log::{FORMAT_VERSION, Manifest, RunSummary, SearchLog, StageTimes, StopReason, collect, remove, remove_from};
pub use random::{RandomStream, random_stream};
pub use report::{ReportOptions, plot, report};
pub use runner::{IterationSummary, Runner, SearchState, StopConditions};
#[cfg(feature = "http")]
pub use score::HttpScore;
pub use score::{
    AnswerSink, CommandFormat, CommandMode, CommandScore, ExternalScore, IntoScores, ManualScore, OnError,
    ReuseOptions, Score, Session, SqlScore, SumScore,
};
pub use select::Select;
pub use step::Step;
pub use surrogate::SurrogateUpdate;
pub use update::{
    Aggregation, GradientUpdate, Norm, Prune, PruneUpdate, QueryGroup, QueryUpdate, RestartUpdate, RlUpdate,
    SearchContext, TopKDiscreteUpdate, TopKPrune, TopKUpdate, next_queries,
};

// What shows in this crate's signatures, so that nobody has to match versions.
pub use {arrow, ndarray, polars};

/// Column names of the frames.
pub mod columns {
    pub use crate::frame::schema::{
        COLLECTION_IDX, DB_IDX, DISTANCE, EMBEDDING, EVALUATION, GRADIENT, ITERATION, OUTCOME, PARENT_IDX, QUERY_IDX,
        RAW_SCORE, REASON, RESERVED, SCORE, SOURCE_ROW,
    };
}

/// The programs in the README and in `docs/rust.md`, which `cargo test` compiles.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../README.md")]
    struct Readme;
    #[doc = include_str!("../docs/rust.md")]
    struct Rust;
}

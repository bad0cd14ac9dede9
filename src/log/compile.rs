//! What a run found: lazy queries over its Parquet files.

use std::path::Path;

use arrow::array::RecordBatch;
use polars::prelude::*;

use super::SearchLog;
use crate::bridge;
use crate::error::{Doing, Result};
use crate::schema::{DB_IDX, DISTANCE, ITERATION, QUERY_IDX, SCORE};
use crate::untrusted::{caught, check_counts, open_parquet};

impl SearchLog {
    /// Everything that was met, as logged: the scored frames of all iterations, with `iteration`.
    /// `None` while no iteration is committed.
    ///
    /// # Errors
    /// Files that cannot be read.
    pub fn scan_results(&self) -> Result<Option<LazyFrame>> {
        self.scan("results")
    }

    /// All query vectors of the committed iterations, with `iteration`.
    ///
    /// # Errors
    /// Files that cannot be read.
    pub fn scan_queries(&self) -> Result<Option<LazyFrame>> {
        self.scan("queries")
    }

    fn scan(&self, kind: &str) -> Result<Option<LazyFrame>> {
        if self.iterations.is_empty() {
            return Ok(None);
        }
        let ahead =
            self.iterations.last().map(|last| last + 1).filter(|next| kind == "queries" && self.has_queries(*next));
        for iteration in self.iterations.iter().copied().chain(ahead) {
            check_counts(&self.partition(kind, iteration).join("part-0000.parquet"))?;
        }
        let partition = Schema::from_iter([Field::new(ITERATION.into(), DataType::UInt32)]);
        let hive_options = HiveOptions { enabled: Some(true), schema: Some(partition.into()), ..Default::default() };
        // The last iteration knows every part of the score; those that first showed late are null before.
        let last = self.iterations.last().copied().unwrap_or_default();
        let schema = parquet_schema(&self.partition(kind, last).join("part-0000.parquet"))?;
        let args = ScanArgsParquet {
            hive_options,
            glob: false,
            schema: Some(schema),
            allow_missing_columns: true,
            ..Default::default()
        };
        // The folder, not its files: a `key=value` in the path to the run is then not taken for a column.
        let folder = PlRefPath::new(format!("{}/", self.path.join(kind).display()));
        let frame = LazyFrame::scan_parquet(folder, args).doing(self.path.display())?;
        // Queries are published before their results are.
        let frame = frame.filter(col(ITERATION).lt_eq(lit(last)));
        Ok(Some(frame))
    }

    /// One row per item, as it was first met, best score first (nulls last, ties by `db_idx`):
    /// `db_idx`, attributes, `score`, `reason`, `evaluation`, `iteration`. Without `query_idx` and `distance`.
    ///
    /// # Errors
    /// Files that cannot be read.
    pub fn compile_results(&self) -> Result<LazyFrame> {
        let Some(results) = self.scan_results()? else { return Ok(empty(&[DB_IDX, SCORE, ITERATION])) };
        let results = match self.may_have_failures()? {
            false => results,
            // The scored before the failed: an item that failed first may have been tried again.
            true => {
                let failed = results.clone().filter(col(SCORE).is_null());
                concat([results.filter(col(SCORE).is_not_null()), failed], UnionArgs::default()).doing("results")?
            }
        };
        Ok(results
            // Polars' `unique` holds all rows in memory; this streams.
            .filter(col(DB_IDX).is_first_distinct())
            .drop(by_name([QUERY_IDX, DISTANCE], true, false))
            .sort(
                [SCORE, DB_IDX],
                SortMultipleOptions::default().with_order_descending_multi([true, false]).with_nulls_last(true),
            ))
    }

    /// Whether some row may have no score, by what the files say of themselves. Where none has, they need to be read
    /// only once.
    fn may_have_failures(&self) -> Result<bool> {
        for iteration in &self.iterations {
            let file = open_parquet(&self.partition("results", *iteration).join("part-0000.parquet"))?;
            let columns = file.metadata().row_groups().iter().flat_map(|group| group.columns());
            let mut scores = columns.filter(|column| column.column_path().string() == SCORE);
            if !scores.all(|scores| scores.statistics().and_then(|known| known.null_count_opt()) == Some(0)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The path of each query: `iteration`, `query_idx`, `parent_idx`, `collection_idx`, `embedding` and the
    /// lists `db_idx` and `score` of what it met there, in the order of the results (empty if nothing).
    ///
    /// # Errors
    /// Files that cannot be read.
    pub fn compile_trajectories(&self) -> Result<LazyFrame> {
        let (Some(queries), Some(results)) = (self.scan_queries()?, self.scan_results()?) else {
            return Ok(empty(&[QUERY_IDX, ITERATION]));
        };
        let keys = [col(ITERATION), col(QUERY_IDX)];
        let met = results.group_by(keys.clone()).agg([col(DB_IDX), col(SCORE)]);
        let nothing = |name: &str, dtype: DataType| {
            let none = Series::new_empty(name.into(), &dtype).implode().map(|list| lit(list.into_series()).first());
            none.map(|none| col(name).fill_null(none)).doing("trajectories")
        };
        Ok(queries
            .join(met, keys.clone(), keys, JoinArgs::new(JoinType::Left))
            .with_columns([nothing(DB_IDX, DataType::UInt64)?, nothing(SCORE, DataType::Float64)?])
            .sort([QUERY_IDX, ITERATION], SortMultipleOptions::default()))
    }
}

/// Runs a query on Polars' streaming engine, which keeps memory low.
///
/// # Errors
/// Whatever the query runs into.
pub fn collect(query: LazyFrame) -> Result<DataFrame> {
    caught("running the query", || {
        query.collect_with_engine(Engine::Streaming).map(|result| result.unwrap_single()).doing("running the query")
    })
}

fn empty(names: &[&str]) -> LazyFrame {
    let columns = names.iter().map(|name| {
        let dtype = match *name {
            DB_IDX => DataType::UInt64,
            SCORE => DataType::Float64,
            _ => DataType::UInt32,
        };
        Column::new_empty((*name).into(), &dtype)
    });
    DataFrame::new(0, columns.collect()).unwrap_or_default().lazy()
}

/// The columns of a Parquet file.
fn parquet_schema(path: &Path) -> Result<SchemaRef> {
    let batch = RecordBatch::new_empty(open_parquet(path)?.schema().clone());
    caught(path, || Ok(bridge::to_polars(&batch)?.schema().clone()))
}

//! What a run found: lazy queries over its Parquet files.

use std::path::Path;

use arrow::array::RecordBatch;
use parquet::file::statistics::Statistics;
use polars::prelude::*;
use rayon::prelude::*;

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
        Ok(self.scan("results")?.map(|scan| scan.frame))
    }

    /// All query vectors of the committed iterations, with `iteration`.
    ///
    /// # Errors
    /// Files that cannot be read.
    pub fn scan_queries(&self) -> Result<Option<LazyFrame>> {
        Ok(self.scan("queries")?.map(|scan| scan.frame))
    }

    fn scan(&self, kind: &str) -> Result<Option<Scan>> {
        if self.iterations.is_empty() {
            return Ok(None);
        }
        let ahead =
            self.iterations.last().map(|last| last + 1).filter(|next| kind == "queries" && self.has_queries(*next));
        let files: Vec<u32> = self.iterations.iter().copied().chain(ahead).collect();
        let looks = files.par_iter().map(|iteration| may_have_nulls(&self.file(kind, *iteration), SCORE));
        let unscored = looks.try_reduce(|| false, |one, other| Ok(one || other))?;
        let partition = Schema::from_iter([Field::new(ITERATION.into(), DataType::UInt32)]);
        let hive_options = HiveOptions { enabled: Some(true), schema: Some(partition.into()), ..Default::default() };
        // The last iteration knows every part of the score; those that first showed late are null before.
        let last = self.iterations.last().copied().unwrap_or_default();
        let schema = parquet_schema(&self.file(kind, last))?;
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
        Ok(Some(Scan { frame, unscored }))
    }

    /// One row per item, as it was first met, best score first (nulls last, ties by `db_idx`):
    /// `db_idx`, attributes, `score`, `reason`, `evaluation`, `iteration`. Without `query_idx` and `distance`.
    ///
    /// # Errors
    /// Files that cannot be read.
    pub fn compile_results(&self) -> Result<LazyFrame> {
        let Some(scan) = self.scan("results")? else { return Ok(empty(&[DB_IDX, SCORE, ITERATION]).lazy()) };
        let results = match scan.unscored {
            // Then they need to be read only once.
            false => scan.frame,
            // The scored before the failed: an item that failed first may have been tried again.
            true => {
                let failed = scan.frame.clone().filter(col(SCORE).is_null());
                concat([scan.frame.filter(col(SCORE).is_not_null()), failed], UnionArgs::default()).doing("results")?
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
}

/// A lazy frame over the files of one kind.
struct Scan {
    frame: LazyFrame,
    /// Whether some row may have no score, by what the files say of themselves.
    unscored: bool,
}

/// Whether some row of a file may be null in a column, by what the file says. Looks whether that can be believed.
fn may_have_nulls(file: &Path, name: &str) -> Result<bool> {
    let footer = check_counts(file)?;
    let columns = footer.row_groups().iter().flat_map(|group| group.columns());
    let mut columns = columns.filter(|column| column.column_path().string() == name);
    Ok(!columns.all(|column| column.statistics().and_then(Statistics::null_count_opt) == Some(0)))
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

pub(super) fn empty(names: &[&str]) -> DataFrame {
    let columns = names.iter().map(|name| {
        let dtype = match *name {
            DB_IDX => DataType::UInt64,
            SCORE => DataType::Float64,
            _ => DataType::UInt32,
        };
        Column::new_empty((*name).into(), &dtype)
    });
    DataFrame::new(0, columns.collect()).unwrap_or_default()
}

/// The columns of a Parquet file.
fn parquet_schema(path: &Path) -> Result<SchemaRef> {
    let batch = RecordBatch::new_empty(open_parquet(path)?.schema().clone());
    caught(path, || Ok(bridge::to_polars(&batch)?.schema().clone()))
}

//! Reads the whole log as lazy frames: all results, all queries, or one row per item.

use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema as ArrowSchema;
use parquet::file::statistics::Statistics;
use polars::prelude::*;
use rayon::prelude::*;

use super::SearchLog;
use super::trajectories::{concat_with_schema, empty};
use crate::error::{AtPath, Result, WrapErr};
use crate::frame::convert;
use crate::frame::schema::{self, DB_IDX, DISTANCE, ITERATION, PREDICTED, QUERY_IDX, SCORE};
use crate::io::parquet::{check_counts, open_parquet, read_rows};
use crate::panics::catch_at_path;

impl SearchLog {
    /// The scored frames of all iterations as logged, with a column `iteration`. `None` while no iteration is committed.
    ///
    /// # Errors
    /// Files that cannot be read.
    pub fn scan_results(&self) -> Result<Option<LazyFrame>> {
        Ok(self.scan("results")?.map(|scan| scan.frame))
    }

    /// The query vectors of all committed iterations, with a column `iteration`.
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
        let next =
            self.iterations.last().map(|last| last + 1).filter(|next| kind == "queries" && self.has_queries(*next));
        let files: Vec<u32> = self.iterations.iter().copied().chain(next).collect();
        let stats = files.par_iter().map(|iteration| file_stats(&self.file(kind, *iteration)));
        let add = |a: FileStats, b: FileStats| {
            Ok(FileStats { bytes: a.bytes + b.bytes, has_null_scores: a.has_null_scores || b.has_null_scores })
        };
        let FileStats { bytes, has_null_scores } = stats.try_reduce(FileStats::default, add)?;
        if bytes < SMALL_FILE_BYTES * files.len() as u64 {
            let frame = self.read_all(kind).map_err(|error| error.with_path(&self.path))?.lazy();
            return Ok(Some(Scan { frame, has_null_scores }));
        }
        let partition = Schema::from_iter([Field::new(ITERATION.into(), DataType::UInt32)]);
        let hive_options = HiveOptions { enabled: Some(true), schema: Some(partition.into()), ..Default::default() };
        // The last iteration has every part of the score. Parts that appeared later are null in earlier iterations.
        let last = self.iterations.last().copied().unwrap_or_default();
        let schema = parquet_schema(&self.file(kind, last))?;
        let args = ScanArgsParquet {
            hive_options,
            glob: false,
            schema: Some(schema),
            allow_missing_columns: true,
            ..Default::default()
        };
        // Scan the folder instead of its files. Otherwise Polars would read a `key=value` in the run's path as a column.
        let folder = PlRefPath::new(format!("{}/", self.path.join(kind).display()));
        let frame = LazyFrame::scan_parquet(folder, args).wrap_err(self.path.display())?;
        // Drop the queries of the next iteration, whose results are not published yet.
        let frame = frame.filter(col(ITERATION).lt_eq(lit(last)));
        Ok(Some(Scan { frame, has_null_scores }))
    }

    /// Reads all rows of one kind (`queries` or `results`), with `iteration`.
    fn read_all(&self, kind: &str) -> Result<DataFrame> {
        let read = |iteration: &u32| read_rows(&self.file(kind, *iteration), &[], None);
        let last = self.iterations.last().map(read).transpose()?;
        let columns = last.map_or_else(|| Arc::new(ArrowSchema::empty()), |last| last.schema());
        let (mut parts, mut numbers) = (Vec::new(), Vec::new());
        // In chunks, to limit the number of files whose metadata is in memory.
        for chunk in self.iterations.chunks(1024) {
            let batches = chunk.par_iter().map(read).collect::<Result<Vec<_>>>()?;
            let rows = chunk.iter().zip(&batches);
            numbers.extend(rows.flat_map(|(iteration, batch)| std::iter::repeat_n(*iteration, batch.num_rows())));
            parts.push(concat_with_schema(columns.clone(), batches).wrap_err(kind)?);
        }
        let mut all = convert::to_polars(&concat_with_schema(columns, parts).wrap_err(kind)?)?;
        all.with_column(Column::new(ITERATION.into(), numbers)).wrap_err(kind)?;
        Ok(all)
    }

    /// One row per item, from its first iteration, best score first (nulls last). Items with the same score are ordered by
    /// `predicted`, the highest first, if the run has predictions, and then by `db_idx`. The columns are `db_idx`, attributes,
    /// `score`, `reason`, `evaluation`, `iteration`, without `query_idx` and `distance`.
    ///
    /// # Errors
    /// Files that cannot be read.
    pub fn compile_results(&self) -> Result<LazyFrame> {
        let Some(scan) = self.scan("results")? else { return Ok(empty(&[DB_IDX, SCORE, ITERATION]).lazy()) };
        let results = match scan.has_null_scores {
            // All rows have scores: one pass over the files is enough.
            false => scan.frame,
            // Scored rows first, because a later row of a failed item may contain the score of a retry.
            true => {
                let failed = scan.frame.clone().filter(col(SCORE).is_null());
                concat([scan.frame.filter(col(SCORE).is_not_null()), failed], UnionArgs::default())
                    .wrap_err("results")?
            }
        };
        let mut items = results
            // Polars streams this filter, whereas its `unique` keeps all rows in memory.
            .filter(col(DB_IDX).is_first_distinct())
            .drop(by_name([QUERY_IDX, DISTANCE], true, false));
        // Runs of earlier formats and of rules without a model have no predictions.
        let has_predictions = items.collect_schema().wrap_err("results")?.contains(PREDICTED);
        let order = if has_predictions { vec![SCORE, PREDICTED, DB_IDX] } else { vec![SCORE, DB_IDX] };
        let is_descending: Vec<bool> = order.iter().map(|name| *name != DB_IDX).collect();
        let options = SortMultipleOptions::default().with_order_descending_multi(is_descending).with_nulls_last(true);
        Ok(items.sort(order, options))
    }

    /// The number of items that share the best score, if the ten best items do.
    ///
    /// # Errors
    /// Files that cannot be read.
    pub(crate) fn tied_for_best(&self) -> Result<Option<u64>> {
        const TOP: usize = 10;
        let scores = self.compile_results()?.select([col(SCORE)]);
        let top = schema::nullable_f64s(&collect(scores.clone().limit(TOP as u32))?, SCORE)?;
        match top.first() {
            Some(Some(best)) if top.len() == TOP && top.iter().all(|score| *score == Some(*best)) => {
                Ok(Some(collect(scores.filter(col(SCORE).eq(lit(*best))))?.height() as u64))
            }
            _ => Ok(None),
        }
    }
}

/// A lazy frame over the files of one kind.
struct Scan {
    frame: LazyFrame,
    /// Whether some row may have a null score, according to the statistics in the files.
    has_null_scores: bool,
}

/// The mean file size below which `read_all` reads the files instead of Polars. Polars takes three times as long for small
/// files, and more memory than their rows.
const SMALL_FILE_BYTES: u64 = 4 << 10;

/// Statistics of one file or of several.
#[derive(Default)]
struct FileStats {
    bytes: u64,
    /// Whether some row may have a null score.
    has_null_scores: bool,
}

/// Reads the statistics of a file, and checks its row counts.
fn file_stats(file: &Path) -> Result<FileStats> {
    let footer = check_counts(file)?;
    let columns = footer.row_groups().iter().flat_map(|group| group.columns());
    let mut scores = columns.filter(|column| column.column_path().string() == SCORE);
    let all_scored = scores.all(|column| column.statistics().and_then(Statistics::null_count_opt) == Some(0));
    Ok(FileStats { bytes: file.metadata().at_path(file)?.len(), has_null_scores: !all_scored })
}

/// Collects a lazy frame with Polars' streaming engine, which keeps memory low.
///
/// # Errors
/// An error of the query.
pub fn collect(query: LazyFrame) -> Result<DataFrame> {
    catch_at_path("running the query", || {
        query.collect_with_engine(Engine::Streaming).map(|result| result.unwrap_single()).wrap_err("running the query")
    })
}

/// The columns of a Parquet file.
fn parquet_schema(path: &Path) -> Result<SchemaRef> {
    let batch = RecordBatch::new_empty(open_parquet(path)?.schema().clone());
    catch_at_path(path, || Ok(convert::to_polars(&batch)?.schema().clone()))
}

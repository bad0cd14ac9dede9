//! What a run found: lazy queries over its Parquet files.

use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema as ArrowSchema;
use parquet::file::statistics::Statistics;
use polars::prelude::*;
use rayon::prelude::*;

use super::SearchLog;
use super::trajectories::{below_each_other, empty};
use crate::error::{AtPath, Result, WrapErr};
use crate::frame::convert;
use crate::frame::schema::{DB_IDX, DISTANCE, ITERATION, QUERY_IDX, SCORE};
use crate::io::parquet::{check_counts, open_parquet, read_rows};
use crate::panics::catch_at_path;

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
        let looks = files.par_iter().map(|iteration| look(&self.file(kind, *iteration)));
        let add = |one: Look, other: Look| Ok((one.0 + other.0, one.1 || other.1));
        let (bytes, unscored) = looks.try_reduce(Look::default, add)?;
        if bytes < SMALL * files.len() as u64 {
            let frame = self.read_all(kind).map_err(|error| error.with_path(&self.path))?.lazy();
            return Ok(Some(Scan { frame, unscored }));
        }
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
        let frame = LazyFrame::scan_parquet(folder, args).wrap_err(self.path.display())?;
        // Queries are published before their results are.
        let frame = frame.filter(col(ITERATION).lt_eq(lit(last)));
        Ok(Some(Scan { frame, unscored }))
    }

    /// All rows of one kind, with `iteration`.
    fn read_all(&self, kind: &str) -> Result<DataFrame> {
        let read = |iteration: &u32| read_rows(&self.file(kind, *iteration), &[], None);
        let last = self.iterations.last().map(read).transpose()?;
        let columns = last.map_or_else(|| Arc::new(ArrowSchema::empty()), |last| last.schema());
        let (mut parts, mut numbers) = (Vec::new(), Vec::new());
        // What there is of a file beside its rows is let go before many more are read.
        for some in self.iterations.chunks(1024) {
            let batches = some.par_iter().map(read).collect::<Result<Vec<_>>>()?;
            let rows = some.iter().zip(&batches);
            numbers.extend(rows.flat_map(|(iteration, batch)| std::iter::repeat_n(*iteration, batch.num_rows())));
            parts.push(below_each_other(columns.clone(), batches).wrap_err(kind)?);
        }
        let mut all = convert::to_polars(&below_each_other(columns, parts).wrap_err(kind)?)?;
        all.with_column(Column::new(ITERATION.into(), numbers)).wrap_err(kind)?;
        Ok(all)
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
                concat([scan.frame.filter(col(SCORE).is_not_null()), failed], UnionArgs::default())
                    .wrap_err("results")?
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

/// Bytes a file, on average, below which all are read here: Polars takes more memory for a file than its rows do then, and
/// three times as long.
const SMALL: u64 = 4 << 10;

/// Of a file, or of several: its bytes, and whether some row may have no score, by what it says of itself.
type Look = (u64, bool);

/// Looks at a file, and whether what it says can be believed.
fn look(file: &Path) -> Result<Look> {
    let footer = check_counts(file)?;
    let columns = footer.row_groups().iter().flat_map(|group| group.columns());
    let mut scores = columns.filter(|column| column.column_path().string() == SCORE);
    let all = scores.all(|column| column.statistics().and_then(Statistics::null_count_opt) == Some(0));
    Ok((file.metadata().at_path(file)?.len(), !all))
}

/// Runs a query on Polars' streaming engine, which keeps memory low.
///
/// # Errors
/// Whatever the query runs into.
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

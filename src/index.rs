//! Parquet ⇒ Lance dataset + ANN index: streamed, validated, all or nothing.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, FixedSizeListArray, Float32Array, RecordBatch, RecordBatchReader,
    UInt64Array,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute;
use arrow::datatypes::{DataType, Field, Float32Type, Schema, SchemaRef};
use arrow::error::ArrowError;
use lance::Dataset;
use lance::dataset::{WriteMode, WriteParams};
use lance::index::DatasetIndexExt;
use lance::index::vector::VectorIndexParams;
use lance_index::IndexType;
use lance_index::vector::ivf::IvfBuildParams;
use lance_index::vector::sq::builder::SQBuildParams;
use lance_linalg::distance::MetricType;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

use crate::database::{META_LIBRARY, META_METRIC, Metric, on_runtime};
use crate::error::{AtPath, Doing, Error, Result, one_line};
use crate::folder;
use crate::schema::{self, EMBEDDING, SOURCE_ROW};

/// Below this many rows `auto` builds no index: an exact scan of them takes about a
/// millisecond a query and misses nothing.
pub const EXACT_BELOW: u64 = 5_000;

/// The ANN index to build.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IndexKind {
    /// `IvfFlat` with about sqrt(rows) partitions; `None` below [`EXACT_BELOW`] rows.
    #[default]
    Auto,
    /// No index: every search is exact.
    None,
    /// Full vectors in partitions.
    IvfFlat,
    /// Vectors of one byte a component in partitions: a quarter of the memory.
    IvfSq,
}

impl std::str::FromStr for IndexKind {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "auto" => Ok(IndexKind::Auto),
            "none" => Ok(IndexKind::None),
            "ivf-flat" => Ok(IndexKind::IvfFlat),
            "ivf-sq" => Ok(IndexKind::IvfSq),
            other => Err(Error::Config(format!("index: expected auto, none, ivf-flat or ivf-sq, found `{other}`"))),
        }
    }
}

/// How to read the items and what to build.
#[derive(Clone, Default)]
pub struct IndexOptions {
    /// The column of embeddings; found by itself where only one is a list of floats.
    pub embedding_column: Option<String>,
    /// What `distance` means (default L2).
    pub metric: Option<Metric>,
    /// The index.
    pub index: IndexKind,
    /// IVF partitions; about sqrt(rows) where `None`.
    pub partitions: Option<usize>,
    /// Attribute columns to rename, from and to.
    pub rename: Vec<(String, String)>,
    /// Drop invalid rows and report them, instead of refusing the input.
    pub skip_invalid: bool,
    /// Replace a dataset that is there.
    pub overwrite: bool,
    /// Told after each batch and phase.
    pub progress: Option<Arc<dyn Fn(Progress) + Send + Sync>>,
    /// Set from outside to stop; nothing is left behind.
    pub stop: Option<Arc<AtomicBool>>,
}

/// How far an index build is.
#[derive(Clone, Copy, Debug)]
pub enum Progress {
    /// Rows read, of how many.
    Rows(u64, u64),
    /// All rows are written; the index of so many partitions is being built.
    Building(usize),
}

/// What was built.
#[derive(Clone, Debug, Default)]
pub struct IndexReport {
    /// Items in the dataset.
    pub rows: u64,
    /// Components of an embedding.
    pub dim: usize,
    /// IVF partitions, if an index was built.
    pub partitions: Option<usize>,
    /// Rows that were left out.
    pub invalid: Invalid,
}

/// Counts of rows that cannot be items, and where the first is.
#[derive(Clone, Debug, Default)]
pub struct Invalid {
    /// By kind, in the order of [`Invalid::KINDS`].
    pub counts: [u64; 5],
    /// File, row in the file (from 0), and what is wrong.
    pub first: Option<(PathBuf, u64, String)>,
}

impl Invalid {
    /// What can be wrong with an embedding.
    pub const KINDS: [&'static str; 5] = ["null", "of another length", "NaN", "infinite", "zero"];

    /// Invalid rows in all.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }
}

impl std::fmt::Display for Invalid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let counts: Vec<String> = Self::KINDS
            .iter()
            .zip(self.counts)
            .filter(|(_, count)| *count > 0)
            .map(|(kind, count)| format!("{count} {kind}"))
            .collect();
        write!(f, "{} invalid embeddings ({})", self.total(), counts.join(", "))?;
        if let Some((file, row, what)) = &self.first {
            write!(f, "; the first is row {row} of {}: {what}", file.display())?;
        }
        Ok(())
    }
}

/// Builds a Lance dataset from Parquet files: one file, a glob, or a folder (all
/// `.parquet` files below it), in the order of their sorted paths.
///
/// Memory does not grow with the number of rows. `db_idx` is the position among the
/// kept rows. Embeddings (fixed-size lists, lists or large lists of f16, f32 or f64)
/// become fixed-size lists of f32 in a column named `embedding`. The dataset appears
/// under its name when it is complete, or not at all.
///
/// # Errors
/// No such file, files of different columns, a reserved column name, invalid rows
/// (unless `skip_invalid`), a dataset that is there already (unless `overwrite`).
pub fn index(items: impl AsRef<Path>, dataset: impl AsRef<Path>, options: &IndexOptions) -> Result<IndexReport> {
    let (items, dataset) = (items.as_ref(), dataset.as_ref());
    let files = find_files(items)?;
    let metric = options.metric.unwrap_or(Metric::L2);
    let rows = Rows::open(&files, metric, options)?;

    let partial = folder::Partial::beside(dataset)?;
    // Under the lock: another process may just have built it.
    if dataset.exists() && !options.overwrite {
        return Err(Error::input(dataset, "already exists; choose another name, or replace it with --overwrite"));
    }
    let target = partial.path().join("dataset.lance");
    let report = build(rows, &target, metric, options)?;
    partial.publish(&target)?;
    Ok(report)
}

fn build(rows: Rows, target: &Path, metric: Metric, options: &IndexOptions) -> Result<IndexReport> {
    let outcome = rows.outcome.clone();
    let dim = rows.dim;
    let params = WriteParams { mode: WriteMode::Create, enable_stable_row_ids: true, ..Default::default() };
    let uri = target.to_string_lossy().into_owned();
    let written = on_runtime(async move { Dataset::write(rows, uri.as_str(), Some(params)).await })?;
    let outcome = std::mem::take(&mut *outcome.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
    if let Some(error) = outcome.error {
        return Err(error);
    }
    let mut dataset = written.doing(target.display())?;

    let partitions = match options.index {
        IndexKind::None => None,
        IndexKind::Auto if outcome.kept < EXACT_BELOW => None,
        _ => Some(
            options
                .partitions
                .unwrap_or_else(|| (outcome.kept as f64).sqrt().round() as usize)
                .clamp(1, outcome.kept as usize),
        ),
    };
    if let (Some(partitions), Some(progress)) = (partitions, &options.progress) {
        progress(Progress::Building(partitions));
    }
    let library_id = outcome.hash.finalize().to_hex()[..32].to_string();
    let kind = options.index;
    on_runtime(async move {
        dataset
            .update_metadata([(META_METRIC, metric.to_string().as_str()), (META_LIBRARY, library_id.as_str())])
            .await?;
        if let Some(partitions) = partitions {
            let lance_metric = match metric {
                Metric::L2 => MetricType::L2,
                Metric::Cosine => MetricType::Cosine,
                Metric::Dot => MetricType::Dot,
            };
            let params = match kind {
                IndexKind::IvfSq => VectorIndexParams::with_ivf_sq_params(
                    lance_metric,
                    IvfBuildParams::new(partitions),
                    SQBuildParams::default(),
                ),
                _ => VectorIndexParams::ivf_flat(partitions, lance_metric),
            };
            dataset.create_index(&[EMBEDDING], IndexType::Vector, Some("embedding_idx".into()), &params, true).await?;
        }
        lance::Result::Ok(())
    })?
    .doing(target.display())?;
    Ok(IndexReport { rows: outcome.kept, dim, partitions, invalid: outcome.invalid })
}

/// The files that a path, a glob or a folder means, sorted.
pub(crate) fn find_files(items: &Path) -> Result<Vec<PathBuf>> {
    let pattern = items.to_string_lossy();
    let mut files: Vec<PathBuf> = if items.is_file() {
        vec![items.to_path_buf()]
    } else if items.is_dir() {
        let below = format!("{}/**/*.parquet", glob::Pattern::escape(&pattern));
        glob::glob(&below)
            .doing("reading the folder")?
            .filter_map(|path| path.ok())
            .filter(|path| path.is_file())
            .collect()
    } else if pattern.contains(['*', '?', '[']) {
        let matches = glob::glob(&pattern).map_err(|error| Error::Config(format!("{pattern}: not a glob: {error}")))?;
        matches.filter_map(|path| path.ok()).filter(|path| path.is_file()).collect()
    } else {
        return Err(Error::input(items, "no such file or folder"));
    };
    if files.is_empty() {
        return Err(Error::input(items, "no .parquet files there"));
    }
    files.sort();
    Ok(files)
}

fn open_parquet(path: &Path) -> Result<ParquetRecordBatchReaderBuilder<File>> {
    let file = File::open(path).at_path(path)?;
    ParquetRecordBatchReaderBuilder::try_new(file)
        .map_err(|error| Error::input(path, format!("cannot read it as Parquet: {}", one_line(&error.to_string()))))
}

/// The valid rows of all files as batches in the dataset's schema.
struct Rows {
    files: std::collections::VecDeque<PathBuf>,
    current: Option<(PathBuf, u64, ParquetRecordBatchReader)>,
    input: SchemaRef,
    output: SchemaRef,
    embedding: usize,
    dim: usize,
    metric: Metric,
    source_row: Option<u64>,
    total: u64,
    seen: u64,
    progress: Option<Arc<dyn Fn(Progress) + Send + Sync>>,
    stop: Option<Arc<AtomicBool>>,
    outcome: Arc<std::sync::Mutex<Outcome>>,
}

/// What the reader found, for the writer's other end.
#[derive(Default)]
struct Outcome {
    kept: u64,
    invalid: Invalid,
    hash: blake3::Hasher,
    error: Option<Error>,
}

impl Rows {
    fn open(files: &[PathBuf], metric: Metric, options: &IndexOptions) -> Result<Self> {
        let mut total = 0;
        let mut input: Option<(SchemaRef, &PathBuf)> = None;
        for path in files {
            let builder = open_parquet(path)?;
            total += builder.metadata().file_metadata().num_rows().max(0) as u64;
            match &input {
                None => input = Some((builder.schema().clone(), path)),
                Some((first, first_path)) => same_columns(first, first_path, builder.schema(), path)?,
            }
        }
        let Some((input, first_path)) = input else { return Err(Error::Config("no files".into())) };
        if total == 0 {
            return Err(Error::input(first_path, "no rows; an empty library cannot be searched"));
        }
        let embedding = embedding_position(&input, first_path, options.embedding_column.as_deref())?;
        let dim = match input.field(embedding).data_type() {
            DataType::FixedSizeList(_, dim) => *dim as usize,
            _ => first_length(files, embedding)?,
        };
        if dim == 0 {
            return Err(Error::input(
                first_path,
                format!("column `{}`: embeddings of no components", input.field(embedding).name()),
            ));
        }
        let output = output_schema(&input, embedding, dim, options)?;
        Ok(Rows {
            files: files.iter().cloned().collect(),
            current: None,
            input,
            output,
            embedding,
            dim,
            metric,
            source_row: options.skip_invalid.then_some(0),
            total,
            seen: 0,
            progress: options.progress.clone(),
            stop: options.stop.clone(),
            outcome: Arc::default(),
        })
    }

    /// The next batch of kept rows; `None` at the end.
    fn advance(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if self.stop.as_ref().is_some_and(|stop| stop.load(Ordering::Relaxed)) {
                return Err(Error::Interrupted);
            }
            let Some((path, row, reader)) = &mut self.current else {
                let Some(path) = self.files.pop_front() else { return self.end() };
                let reader = open_parquet(&path)?.with_batch_size(8192).build().doing(path.display())?;
                self.current = Some((path, 0, reader));
                continue;
            };
            match reader.next() {
                None => self.current = None,
                Some(Err(error)) => return Err(Error::input(&*path, one_line(&error.to_string()))),
                Some(Ok(batch)) => {
                    let (path, first_row) = (path.clone(), *row);
                    *row += batch.num_rows() as u64;
                    let kept = self.convert(&batch, &path, first_row)?;
                    self.seen += batch.num_rows() as u64;
                    if let Some(progress) = &self.progress {
                        progress(Progress::Rows(self.seen, self.total));
                    }
                    if kept.num_rows() > 0 {
                        return Ok(Some(kept));
                    }
                }
            }
        }
    }

    /// Invalid rows are counted to the end, so that one message tells of them all.
    fn end(&mut self) -> Result<Option<RecordBatch>> {
        let outcome = self.outcome.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if outcome.invalid.total() > 0 && self.source_row.is_none() {
            return Err(Error::Library {
                context: "items".into(),
                message: format!("{}; mend them, or leave them out with --skip-invalid", outcome.invalid),
            });
        }
        if outcome.kept == 0 {
            return Err(Error::Library { context: "items".into(), message: "no valid rows".into() });
        }
        Ok(None)
    }

    fn convert(&mut self, batch: &RecordBatch, path: &Path, first_row: u64) -> Result<RecordBatch> {
        let rows = batch.num_rows();
        let vectors = Vectors::of(batch.column(self.embedding))?;
        let outcome = &mut *self.outcome.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut keep = vec![true; rows];
        let mut values: Vec<f32> = Vec::with_capacity(rows * self.dim);
        for (row, keep) in keep.iter_mut().enumerate() {
            match vectors.check(row, self.dim, self.metric) {
                Ok(vector) => values.extend_from_slice(vector),
                Err((kind, what)) => {
                    *keep = false;
                    outcome.invalid.counts[kind] += 1;
                    outcome.invalid.first.get_or_insert_with(|| (path.to_path_buf(), first_row + row as u64, what));
                }
            }
        }
        let kept = values.len() / self.dim;
        outcome.kept += kept as u64;
        let values = Float32Array::from(values);
        outcome.hash.update(values.values().inner().as_slice());
        let item = Arc::new(Field::new("item", DataType::Float32, true));
        let embedding: ArrayRef =
            Arc::new(FixedSizeListArray::try_new(item, self.dim as i32, Arc::new(values), None).doing("embeddings")?);
        let keep = (kept < rows).then(|| BooleanArray::from(keep));
        let filtered = |array: ArrayRef| match &keep {
            Some(keep) => compute::filter(&array, keep).doing("dropping invalid rows"),
            None => Ok(array),
        };
        let mut columns = Vec::with_capacity(batch.num_columns() + 1);
        for (position, array) in batch.columns().iter().enumerate() {
            if position == self.embedding {
                columns.push(embedding.clone());
            } else {
                let array = compute::cast(array, self.output.field(position).data_type())
                    .doing(self.input.field(position).name())?;
                columns.push(filtered(array)?);
            }
        }
        if let Some(next) = &mut self.source_row {
            let numbers = UInt64Array::from_iter_values(*next..*next + rows as u64);
            *next += rows as u64;
            columns.push(filtered(Arc::new(numbers))?);
        }
        RecordBatch::try_new(self.output.clone(), columns).doing("items")
    }
}

impl Iterator for Rows {
    type Item = Result<RecordBatch, ArrowError>;
    fn next(&mut self) -> Option<Self::Item> {
        self.advance()
            .map_err(|error| {
                let message = error.to_string();
                let mut outcome = self.outcome.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                outcome.error = Some(error);
                ArrowError::ExternalError(message.into())
            })
            .transpose()
    }
}

impl RecordBatchReader for Rows {
    fn schema(&self) -> SchemaRef {
        self.output.clone()
    }
}

/// The embeddings of one batch, as f32 values and the range of each row.
struct Vectors {
    column: ArrayRef,
    values: Float32Array,
    offsets: Option<OffsetBuffer<i64>>,
    dim: usize,
}

impl Vectors {
    fn of(column: &ArrayRef) -> Result<Self> {
        let (values, offsets, dim) = match column.data_type() {
            DataType::FixedSizeList(_, dim) => (column.as_fixed_size_list().values().clone(), None, *dim as usize),
            DataType::List(_) => {
                let list = column.as_list::<i32>();
                let offsets = list.offsets().iter().map(|offset| i64::from(*offset)).collect::<Vec<_>>();
                (list.values().clone(), Some(OffsetBuffer::new(offsets.into())), 0)
            }
            _ => {
                let list = column.as_list::<i64>();
                (list.values().clone(), Some(list.offsets().clone()), 0)
            }
        };
        let values = compute::cast(&values, &DataType::Float32).doing("embeddings to f32")?;
        Ok(Vectors { values: values.as_primitive::<Float32Type>().clone(), column: column.clone(), offsets, dim })
    }

    /// The components of a row, or which kind of invalid it is and how.
    fn check(&self, row: usize, dim: usize, metric: Metric) -> Result<&[f32], (usize, String)> {
        if self.column.is_null(row) {
            return Err((0, "null".into()));
        }
        let range = match &self.offsets {
            Some(offsets) => offsets[row] as usize..offsets[row + 1] as usize,
            None => row * self.dim..(row + 1) * self.dim,
        };
        if range.len() != dim {
            return Err((1, format!("{} components, where others have {dim}", range.len())));
        }
        if self.values.null_count() > 0
            && let Some(at) = range.clone().find(|at| self.values.is_null(*at))
        {
            return Err((0, format!("component {} is null", at - range.start)));
        }
        let vector = &self.values.values()[range];
        if let Some(at) = vector.iter().position(|value| !value.is_finite()) {
            return match vector[at].is_nan() {
                true => Err((2, format!("component {at} is NaN"))),
                false => Err((3, format!("component {at} is {}", vector[at]))),
            };
        }
        if metric == Metric::Cosine && vector.iter().all(|value| *value == 0.0) {
            return Err((4, "all components are 0, which has no direction".into()));
        }
        Ok(vector)
    }
}

fn is_embedding(dtype: &DataType) -> bool {
    match dtype {
        DataType::FixedSizeList(item, _) | DataType::List(item) | DataType::LargeList(item) => {
            item.data_type().is_floating()
        }
        _ => false,
    }
}

fn embedding_position(schema: &Schema, path: &Path, wanted: Option<&str>) -> Result<usize> {
    let names = || schema.fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>().join(", ");
    if let Some(name) = wanted {
        let Ok(position) = schema.index_of(name) else {
            return Err(Error::input(path, format!("no column `{name}` (there are: {})", names())));
        };
        let dtype = schema.field(position).data_type();
        if !is_embedding(dtype) {
            return Err(Error::input(path, format!("column `{name}`: expected a list of floats, found {dtype}")));
        }
        return Ok(position);
    }
    let found: Vec<usize> =
        (0..schema.fields().len()).filter(|at| is_embedding(schema.field(*at).data_type())).collect();
    match found.as_slice() {
        [one] => Ok(*one),
        [] => Err(Error::input(path, format!("no column is a list of floats (there are: {})", names()))),
        many => match many.iter().find(|at| schema.field(**at).name() == EMBEDDING) {
            Some(named) => Ok(*named),
            None => {
                let names: Vec<_> = many.iter().map(|at| schema.field(*at).name().as_str()).collect();
                Err(Error::Config(format!(
                    "{}: several columns are lists of floats ({}); choose one with --embedding-column",
                    path.display(),
                    names.join(", ")
                )))
            }
        },
    }
}

/// The length of the first embedding that is there.
fn first_length(files: &[PathBuf], embedding: usize) -> Result<usize> {
    for path in files {
        for batch in open_parquet(path)?.with_batch_size(1024).build().doing(path.display())? {
            let batch = batch.map_err(|error| Error::input(path, one_line(&error.to_string())))?;
            let vectors = Vectors::of(batch.column(embedding))?;
            if let (Some(row), Some(offsets)) =
                ((0..batch.num_rows()).find(|row| vectors.column.is_valid(*row)), &vectors.offsets)
            {
                return Ok((offsets[row + 1] - offsets[row]) as usize);
            }
        }
    }
    Err(Error::input(&files[0], "every embedding is null"))
}

fn same_columns(first: &Schema, first_path: &Path, other: &Schema, path: &Path) -> Result<()> {
    let differs = |what: String| Err(Error::input(path, format!("differs from {}: {what}", first_path.display())));
    if first.fields().len() != other.fields().len() {
        return differs(format!("{} columns, not {}", other.fields().len(), first.fields().len()));
    }
    for (a, b) in first.fields().iter().zip(other.fields()) {
        if a.name() != b.name() || a.data_type() != b.data_type() {
            return differs(format!("column `{}` {}, not `{}` {}", b.name(), b.data_type(), a.name(), a.data_type()));
        }
    }
    Ok(())
}

fn output_schema(input: &Schema, embedding: usize, dim: usize, options: &IndexOptions) -> Result<SchemaRef> {
    if let Some((from, _)) = options.rename.iter().find(|(from, _)| input.index_of(from).is_err()) {
        return Err(Error::Config(format!("--rename {from}: no such column")));
    }
    let mut fields: Vec<Field> = Vec::with_capacity(input.fields().len() + 1);
    for (position, field) in input.fields().iter().enumerate() {
        if position == embedding {
            let item = Arc::new(Field::new("item", DataType::Float32, true));
            fields.push(Field::new(EMBEDDING, DataType::FixedSizeList(item, dim as i32), true));
            continue;
        }
        let name = options.rename.iter().find(|(from, _)| from == field.name()).map_or(field.name(), |(_, to)| to);
        if schema::is_reserved(name) {
            return Err(Error::Config(format!(
                "column `{name}` has a name this program uses itself; rename it: --rename {name}=my_{}",
                name.trim_start_matches('_')
            )));
        }
        if fields.iter().any(|other| other.name() == name) {
            return Err(Error::Config(format!("two columns would be named `{name}`")));
        }
        let dtype = match field.data_type() {
            DataType::Dictionary(_, value) => (**value).clone(),
            dtype => dtype.clone(),
        };
        fields.push(Field::new(name, dtype, true));
    }
    if options.skip_invalid {
        fields.push(Field::new(SOURCE_ROW, DataType::UInt64, true));
    }
    Ok(Arc::new(Schema::new(fields)))
}

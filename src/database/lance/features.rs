//! What a model reads of a dataset's items beside their embeddings: fitted to a sample, made of all of them, and kept in
//! files beside the dataset's own, so that it is made once.

use std::path::{Path, PathBuf};

use arrow::datatypes::Schema;
use ndarray::{Array2, Axis, s};
use polars::prelude::DataFrame;

use super::library;
use super::table::Table;
use crate::bridge;
use crate::database::store::{fetch_if_there, is_remote};
use crate::error::{Doing, Error, Result};
use crate::features::{Encoder, Feature, Features, ItemFeatures, Reader, Role, View, Writer, file_name};
use crate::near::no_column;
use crate::schema::{self, DB_IDX, SOURCE_ROW};

/// Items that encoders are fitted to, at most: evenly spread ones.
const SAMPLE: usize = 50_000;

/// Columns that are read where none are named, at most: the first.
const COLUMNS: usize = 64;

/// The folder in a dataset that holds the files.
const FOLDER: &str = "_uphill";

/// The features of all items.
///
/// Columns that are `hidden` are not read unless they are named. Of a library of which only a part can be found, as a
/// prefilter says, those of that part, `found`.
pub(super) fn of(
    table: &Table,
    riding: &[String],
    wanted: &Features,
    hidden: &[String],
    found: Option<&[u64]>,
) -> Result<ItemFeatures> {
    let features = columns(table, riding, wanted, hidden)?;
    if features.is_empty() {
        return Ok(ItemFeatures::default());
    }
    let mut ids = Vec::new();
    table.scan_columns(&[], &mut |items| {
        ids.extend(schema::u64s(&items, DB_IDX)?);
        Ok(())
    })?;
    let (views, values) = read_or_made(table, &features, ids.len())?;
    let Some(found) = found else { return ItemFeatures::new(&ids, views, values) };
    let rows: Vec<usize> = (0..ids.len()).filter(|row| found.binary_search(&ids[*row]).is_ok()).collect();
    let ids: Vec<u64> = rows.iter().map(|row| ids[*row]).collect();
    ItemFeatures::new(&ids, views, values.select(Axis(0), &rows))
}

/// Makes and keeps the features of all columns that can be read, of so many items, for whoever searches.
pub(super) fn make(table: &Table, riding: &[String], items: usize) -> Result<()> {
    let features = columns(table, riding, &Features::Auto, &[])?;
    match inside(table).filter(|folder| may_be_written_to(folder)) {
        Some(folder) => Files::of(table, &folder).make(table, &features, items),
        None => Ok(()),
    }
}

/// From the dataset's own files where they are there and whole; else made, and kept if the dataset may be written to.
fn read_or_made(table: &Table, features: &[Feature], items: usize) -> Result<(Vec<View>, Array2<f32>)> {
    let (inside, temporary) = (inside(table), tempfile::tempdir().doing("a folder for features")?);
    let files = Files::of(table, inside.as_deref().unwrap_or(temporary.path()));
    if inside.is_none() {
        files.fetch(&table.uri, features);
    }
    if let Some(read) = files.read(features, items)? {
        return Ok(read);
    }
    let folder = inside.as_deref().filter(|folder| may_be_written_to(folder)).unwrap_or(temporary.path());
    let files = Files::of(table, folder);
    files.make(table, features, items)?;
    files.read(features, items)?.ok_or_else(|| Error::input(folder, "features that were just written cannot be read"))
}

/// Where a dataset keeps its features; `None` if it is not on this machine's disks.
fn inside(table: &Table) -> Option<PathBuf> {
    let path = table.uri.strip_prefix("file://").unwrap_or(&table.uri);
    (!is_remote(path)).then(|| Path::new(path).join(FOLDER))
}

fn may_be_written_to(folder: &Path) -> bool {
    std::fs::create_dir_all(folder).and_then(|()| tempfile::tempfile_in(folder)).is_ok()
}

/// Which columns are read.
pub(super) fn columns(table: &Table, riding: &[String], wanted: &Features, hidden: &[String]) -> Result<Vec<Feature>> {
    let schema = Schema::from(table.dataset.schema());
    match wanted {
        Features::Columns(features) => {
            for Feature { column, .. } in features {
                if schema.field_with_name(column).is_err() {
                    let there = schema.fields().iter().map(|field| field.name().as_str());
                    let missing = no_column(column, &format!(" in {}", table.uri), there);
                    return Err(Error::Config(format!("update.features: {missing}")));
                }
            }
            Ok(features.clone())
        }
        Features::Auto => {
            let open = riding.iter().filter(|column| *column != SOURCE_ROW && !hidden.contains(column));
            let open = open.map(|column| Feature { column: column.clone(), role: None });
            Ok(open.take(COLUMNS).collect())
        }
    }
}

/// The files of a library's features, in a folder.
struct Files<'a> {
    folder: &'a Path,
    state: String,
}

impl<'a> Files<'a> {
    fn of(table: &Table, folder: &'a Path) -> Self {
        Files { folder, state: library::state(&table.dataset) }
    }

    fn file(&self, feature: &Feature) -> PathBuf {
        self.folder.join(file_name(&self.state, feature))
    }

    /// Gets those files that a dataset on an object store has. One that does not come is made instead.
    fn fetch(&self, uri: &str, features: &[Feature]) {
        for file in features.iter().map(|feature| self.file(feature)) {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            if let Err(error) = fetch_if_there(&format!("{}/{FOLDER}/{name}", uri.trim_end_matches('/')), &file) {
                log::debug!("{error}; it is made anew");
            }
        }
    }

    /// Reads the features of so many items; `None` if a file is missing or damaged.
    fn read(&self, features: &[Feature], items: usize) -> Result<Option<(Vec<View>, Array2<f32>)>> {
        let readers: Option<Vec<Reader>> = features.iter().map(|feature| Reader::open(&self.file(feature))).collect();
        let Some(readers) = readers else { return Ok(None) };
        let (mut views, mut width): (Vec<View>, usize) = Default::default();
        for header in readers.iter().map(|reader| &reader.header).filter(|header| header.width > 0) {
            let components = width..width + header.width;
            width = components.end;
            views.push(View { name: header.column.clone(), role: header.role, components });
        }
        let mut values = Array2::zeros((items, width));
        for (reader, view) in readers.into_iter().filter(|reader| reader.header.width > 0).zip(&views) {
            if let Err(error) = reader.read(values.slice_mut(s![.., view.components.clone()])) {
                log::warn!("{error}; it is made anew");
                return Ok(None);
            }
        }
        Ok(Some((views, values)))
    }

    /// Makes the files of features of so many items.
    fn make(&self, table: &Table, features: &[Feature], rows: usize) -> Result<()> {
        let names: Vec<String> = features.iter().map(|feature| feature.column.clone()).collect();
        let sample = sample(table, &names, rows)?;
        let mut made = Vec::new();
        for feature in features {
            let encoder = match sample.column(&feature.column) {
                Ok(column) => Encoder::fit(feature, column)?,
                Err(_) => None,
            };
            let (role, width) =
                encoder.as_ref().map_or((Role::Numeric, 0), |encoder| (encoder.role(), encoder.width()));
            made.push((encoder, Writer::create(&self.file(feature), &feature.column, role, width)?));
        }
        drop(sample);
        table.scan_columns(&names, &mut |items| {
            for (encoder, writer) in &mut made {
                if let Some(encoder) = encoder {
                    writer.rows(encoder.encode(items.column(encoder.column()).doing("features")?)?.view())?;
                }
            }
            Ok(())
        })?;
        made.into_iter().try_for_each(|(_, writer)| writer.finish())
    }
}

/// Evenly spread items.
fn sample(table: &Table, names: &[String], rows: usize) -> Result<DataFrame> {
    let stride = rows.div_ceil(SAMPLE).max(1);
    let (mut sample, mut first): (Option<DataFrame>, usize) = (None, 0);
    table.scan_columns(names, &mut |items| {
        let wanted = (0..items.height()).filter(|row| (first + row).is_multiple_of(stride));
        let wanted: Vec<u32> = wanted.map(|row| row as u32).collect();
        first += items.height();
        let items = bridge::gather(&items, &wanted)?;
        match &mut sample {
            None => sample = Some(items),
            Some(sample) => {
                sample.vstack_mut_owned(items).doing("features")?;
            }
        }
        Ok(())
    })?;
    Ok(sample.unwrap_or_default())
}

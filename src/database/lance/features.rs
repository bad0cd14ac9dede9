//! What a model reads of a dataset's items beside their embeddings: fitted to a sample, made of all of them, and kept in
//! files beside the dataset's own, so that it is made once.

use std::path::Path;

use arrow::datatypes::Schema;
use ndarray::{Array2, Axis};

use super::feature_files::{Files, inside, sweep};
use super::table::Table;
use crate::error::{Doing, Error, Result};
use crate::features::{Feature, Features, ItemFeatures, View};
use crate::frame::schema::{self, DB_IDX, SOURCE_ROW};
use crate::io::atomic;
use crate::suggest::no_column;

/// Columns that are read where none are named, at most: the first.
const COLUMNS: usize = 64;

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
    match inside(&table.uri).filter(|folder| may_be_written_to(folder)) {
        Some(folder) => Files::of(table, &folder).make(table, &features, items),
        None => Ok(()),
    }
}

/// From the dataset's own files where they are there and whole; else made, and kept if the dataset may be written to.
fn read_or_made(table: &Table, features: &[Feature], items: usize) -> Result<(Vec<View>, Array2<f32>)> {
    let (inside, temporary) = (inside(&table.uri), tempfile::tempdir().doing("a folder for features")?);
    let files = Files::of(table, inside.as_deref().unwrap_or(temporary.path()));
    if inside.is_none() {
        files.fetch(&table.uri, features);
    }
    if let Some(read) = files.read(features, items)? {
        return Ok(read);
    }
    if let Some(folder) = inside.filter(|folder| may_be_written_to(folder)) {
        // Where another search makes some, the same or others, these are its own.
        let lock = atomic::lock(&folder);
        if !matches!(lock, Err(Error::Locked { .. })) {
            let made = make_in(&folder, table, features, items);
            if let Ok(lock) = lock {
                sweep(&table.dataset, &folder, lock);
            }
            if let Some(made) = made? {
                return Ok(made);
            }
        }
    }
    let files = Files::of(table, temporary.path());
    files.make(table, features, items)?;
    let unread = || Error::input(temporary.path(), "features that were just written cannot be read");
    files.read(features, items)?.ok_or_else(unread)
}

/// Makes and reads features; `None` where the folder does not take them, or another process took them away at once.
fn make_in(
    folder: &Path,
    table: &Table,
    features: &[Feature],
    items: usize,
) -> Result<Option<(Vec<View>, Array2<f32>)>> {
    let files = Files::of(table, folder);
    match files.make(table, features, items) {
        Ok(()) => files.read(features, items),
        Err(error @ Error::Io { .. }) => {
            log::warn!("{error}; what the model reads is not kept");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn may_be_written_to(folder: &Path) -> bool {
    std::fs::create_dir_all(folder).and_then(|()| tempfile::tempfile_in(folder)).is_ok()
}

/// Which columns are read.
pub(super) fn columns(table: &Table, riding: &[String], wanted: &Features, hidden: &[String]) -> Result<Vec<Feature>> {
    let schema = Schema::from(table.dataset.schema());
    match wanted {
        Features::Columns(features) => {
            for (position, feature) in features.iter().enumerate() {
                let Feature { column, .. } = feature;
                if schema.field_with_name(column).is_err() {
                    let there = schema.fields().iter().map(|field| field.name().as_str());
                    let missing = no_column(column, &format!(" in {}", table.uri), there);
                    return Err(Error::Config(format!("update.features: {missing}")));
                }
                if *column == table.embedding_column {
                    let reason = format!("`{column}` holds the embeddings, which the model reads anyway; leave it out");
                    return Err(Error::Config(format!("update.features: {reason}")));
                }
                if let Some(first) = features[..position].iter().find(|other| other.column == *column) {
                    let role =
                        |feature: &Feature| feature.role.map_or("its type suggests".into(), |role| role.to_string());
                    let twice = format!("as {} and as {}", role(first), role(feature));
                    let reason = format!("column `{column}` is named twice, {twice}; name it once");
                    return Err(Error::Config(format!("update.features: {reason}")));
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

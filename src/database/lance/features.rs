//! The features of the items of a library: encoded attribute columns. Encoders are fitted to a sample and applied to all items.
//! The features are stored in the folder of the dataset, so that they are computed only once.

use std::path::Path;

use arrow::datatypes::{DataType, Schema};
use ndarray::{Array2, Axis, concatenate};

use super::feature_files::{FeatureFiles, delete_unused, feature_folder};
use super::table::Table;
use crate::error::{Error, Result, WrapErr};
use crate::features::{Feature, FeatureGroup, Features, ItemFeatures, Role};
use crate::frame::schema::{self, DB_IDX, SOURCE_ROW};
use crate::io::atomic;
use crate::suggest::unknown_column;

/// The maximum number of columns that are read if none are named. The first columns are taken.
const AUTO_COLUMNS: usize = 64;
/// Texts with at least this mean length in bytes are documents.
const MIN_DOCUMENT_BYTES: usize = 300;
/// The number of items whose texts are measured.
const DOCUMENT_SAMPLE: usize = 1000;

/// Reads or computes the features of all items.
///
/// Columns that are `hidden` are read only if `wanted` names them. If a prefilter restricts the library, only the features of
/// the `matching` items are returned.
pub(super) fn load(
    table: &Table,
    attributes: &[String],
    wanted: &Features,
    hidden: &[String],
    matching: Option<&[u64]>,
) -> Result<ItemFeatures> {
    let features = columns(table, attributes, wanted, hidden)?;
    if features.is_empty() {
        return Ok(ItemFeatures::default());
    }
    let mut ids = Vec::new();
    table.scan_columns(&[], &mut |items| {
        ids.extend(schema::u64s(&items, DB_IDX)?);
        Ok(())
    })?;
    let (mut groups, mut values) = read_or_compute(table, &features, ids.len())?;
    let documents = documents(table, &features)?;
    if !documents.is_empty() {
        let (more_groups, more_values) = read_or_compute(table, &documents, ids.len())?;
        let width = values.ncols();
        let shifted = |group: FeatureGroup| FeatureGroup {
            components: group.components.start + width..group.components.end + width,
            ..group
        };
        groups.extend(more_groups.into_iter().map(shifted));
        values = concatenate(Axis(1), &[values.view(), more_values.view()]).wrap_err("features")?;
    }
    let Some(matching) = matching else { return ItemFeatures::new(&ids, groups, values) };
    let rows: Vec<usize> = (0..ids.len()).filter(|row| matching.binary_search(&ids[*row]).is_ok()).collect();
    let ids: Vec<u64> = rows.iter().map(|row| ids[*row]).collect();
    ItemFeatures::new(&ids, groups, values.select(Axis(0), &rows))
}

/// Computes and stores the features of all readable columns, for later searches.
pub(super) fn compute_and_store(table: &Table, attributes: &[String], items: usize) -> Result<()> {
    let features = columns(table, attributes, &Features::Auto, &[])?;
    let Some(folder) = feature_folder(&table.uri).filter(|folder| is_writable(folder)) else { return Ok(()) };
    let files = FeatureFiles::new(table, &folder);
    files.write(table, &features, items)?;
    let documents = documents(table, &features)?;
    if documents.is_empty() { Ok(()) } else { files.write(table, &documents, items) }
}

/// A second reading of columns with long texts, as documents: those with a mean length of at least [`MIN_DOCUMENT_BYTES`] among the first
/// items.
fn documents(table: &Table, features: &[Feature]) -> Result<Vec<Feature>> {
    let schema = Schema::from(table.dataset.schema());
    let is_text = |feature: &&Feature| {
        let field = schema.field_with_name(&feature.column);
        let is_string = field.is_ok_and(|field| matches!(field.data_type(), DataType::Utf8 | DataType::LargeUtf8));
        is_string && feature.role.is_none_or(|role| role == Role::Text)
    };
    let columns: Vec<String> = features.iter().filter(is_text).map(|feature| feature.column.clone()).collect();
    if columns.is_empty() {
        return Ok(Vec::new());
    }
    let (mut rows, mut bytes, mut texts) = (0, vec![0; columns.len()], vec![0; columns.len()]);
    let scanned = table.scan_columns(&columns, &mut |items| {
        let items = items.head(Some(DOCUMENT_SAMPLE - rows));
        rows += items.height();
        for (position, column) in columns.iter().enumerate() {
            let column = items.column(column).wrap_err("features")?.str().wrap_err("features")?;
            bytes[position] += column.iter().flatten().map(str::len).sum::<usize>();
            texts[position] += column.len() - column.null_count();
        }
        if rows < DOCUMENT_SAMPLE { Ok(()) } else { Err(Error::Interrupted) }
    });
    match scanned {
        Err(Error::Interrupted) if rows == DOCUMENT_SAMPLE => {}
        result => result?,
    }
    let is_long = |position: &usize| bytes[*position] >= MIN_DOCUMENT_BYTES * texts[*position].max(1);
    let as_document = |position: usize| Feature { column: columns[position].clone(), role: Some(Role::Document) };
    Ok((0..columns.len()).filter(is_long).map(as_document).collect())
}

/// Reads features from the dataset's files if they are complete. Otherwise computes them, and stores them if the dataset is
/// writable.
fn read_or_compute(table: &Table, features: &[Feature], items: usize) -> Result<(Vec<FeatureGroup>, Array2<f32>)> {
    let (stored, temporary) =
        (feature_folder(&table.uri), tempfile::tempdir().wrap_err("creating a temporary folder")?);
    let files = FeatureFiles::new(table, stored.as_deref().unwrap_or(temporary.path()));
    if stored.is_none() {
        files.fetch(&table.uri, features);
    }
    if let Some(read) = files.read(features, items)? {
        return Ok(read);
    }
    if let Some(folder) = stored.filter(|folder| is_writable(folder)) {
        // If another process is writing features there, this search computes its own copy.
        let lock = atomic::lock(&folder);
        if !matches!(lock, Err(Error::Locked { .. })) {
            let computed = compute_in(&folder, table, features, items);
            if let Ok(lock) = lock {
                delete_unused(&table.dataset, &folder, lock);
            }
            if let Some(computed) = computed? {
                return Ok(computed);
            }
        }
    }
    let files = FeatureFiles::new(table, temporary.path());
    files.write(table, features, items)?;
    let unreadable = || Error::input(temporary.path(), "cannot read the features that were just written");
    files.read(features, items)?.ok_or_else(unreadable)
}

/// Computes, stores and reads features. `None` if the folder cannot be written, or another process deleted the files.
fn compute_in(
    folder: &Path,
    table: &Table,
    features: &[Feature],
    items: usize,
) -> Result<Option<(Vec<FeatureGroup>, Array2<f32>)>> {
    let files = FeatureFiles::new(table, folder);
    match files.write(table, features, items) {
        Ok(()) => files.read(features, items),
        Err(error @ Error::Io { .. }) => {
            log::warn!("{error}; features are not stored");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn is_writable(folder: &Path) -> bool {
    std::fs::create_dir_all(folder).and_then(|()| tempfile::tempfile_in(folder)).is_ok()
}

/// The columns that are read as features.
pub(super) fn columns(
    table: &Table,
    attributes: &[String],
    wanted: &Features,
    hidden: &[String],
) -> Result<Vec<Feature>> {
    let schema = Schema::from(table.dataset.schema());
    match wanted {
        Features::Columns(features) => {
            for (position, feature) in features.iter().enumerate() {
                let Feature { column, .. } = feature;
                if schema.field_with_name(column).is_err() {
                    let names = schema.fields().iter().map(|field| field.name().as_str());
                    let missing = unknown_column(column, &format!(" in {}", table.uri), names);
                    return Err(Error::Config(format!("update.features: {missing}")));
                }
                if *column == table.embedding_column {
                    let reason = format!("`{column}` contains the embeddings, which the model always reads; remove it");
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
            let visible = attributes.iter().filter(|column| *column != SOURCE_ROW && !hidden.contains(column));
            let visible = visible.map(|column| Feature { column: column.clone(), role: None });
            Ok(visible.take(AUTO_COLUMNS).collect())
        }
    }
}

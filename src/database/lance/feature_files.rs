//! The feature files of a dataset: writes, reads and downloads them, and deletes files that no run or search needs.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lance::Dataset;
use lance::dataset::builder::DatasetBuilder;
use ndarray::{Array2, s};
use polars::prelude::DataFrame;

use super::library_id;
use super::table::Table;
use crate::database::remote::{fetch_if_exists, is_remote};
use crate::database::runtime::block_on;
use crate::error::{AtPath, Error, Result, WrapErr};
use crate::features::{
    Encoder, Feature, FeatureGroup, FeatureReader, FeatureWriter, Role, file_name, file_names, is_file_name,
};
use crate::frame::convert;
use crate::io::atomic::{self, Lock};

/// The largest number of items that encoders are fitted to. They are evenly spaced.
const SAMPLE_ITEMS: usize = 50_000;

/// The prefix of the names of incomplete files.
const PARTIAL_PREFIX: &str = ".tmp";

/// The folder inside a dataset that contains the files.
const FOLDER: &str = "_uphill";

/// The folder of a dataset's feature files. `None` if the dataset is on an object store.
pub(super) fn feature_folder(uri: &str) -> Option<PathBuf> {
    let path = uri.strip_prefix("file://").unwrap_or(uri);
    (!is_remote(path)).then(|| Path::new(path).join(FOLDER))
}

/// The feature files of one state of a library, in a folder.
pub(super) struct FeatureFiles<'a> {
    folder: &'a Path,
    state: String,
}

impl<'a> FeatureFiles<'a> {
    pub(super) fn new(table: &Table, folder: &'a Path) -> Self {
        FeatureFiles { folder, state: library_id::state(&table.dataset) }
    }

    fn path(&self, feature: &Feature) -> PathBuf {
        self.folder.join(file_name(&self.state, feature))
    }

    /// Downloads the feature files of a dataset on an object store. Files that cannot be downloaded are computed later.
    pub(super) fn fetch(&self, uri: &str, features: &[Feature]) {
        for file in features.iter().map(|feature| self.path(feature)) {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            if let Err(error) = fetch_if_exists(&format!("{}/{FOLDER}/{name}", uri.trim_end_matches('/')), &file) {
                log::debug!("{error}; it is computed again");
            }
        }
    }

    /// Reads the features of this number of items. `None` if a file is missing or damaged; a damaged file is logged.
    pub(super) fn read(&self, features: &[Feature], items: usize) -> Result<Option<(Vec<FeatureGroup>, Array2<f32>)>> {
        match self.try_read(features, items) {
            Ok(read) => Ok(read),
            Err(error @ (Error::Input { .. } | Error::Io { .. })) => {
                log::warn!("{error}; it is computed again");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// As [`FeatureFiles::read`], but a damaged file is an error.
    fn try_read(&self, features: &[Feature], items: usize) -> Result<Option<(Vec<FeatureGroup>, Array2<f32>)>> {
        let mut readers = Vec::with_capacity(features.len());
        for feature in features {
            let path = self.path(feature);
            let Some(reader) = FeatureReader::open(&path, items)? else { return Ok(None) };
            let header = &reader.header;
            if header.column != feature.column
                || feature.role.is_some_and(|role| role != header.role && header.width > 0)
            {
                let reason = format!("damaged: it contains column `{}`, not `{}`", header.column, feature.column);
                return Err(Error::input(path, reason));
            }
            readers.push(reader);
        }
        let (mut groups, mut width): (Vec<FeatureGroup>, usize) = Default::default();
        let mut ranges = Vec::with_capacity(readers.len());
        for header in readers.iter().map(|reader| &reader.header) {
            let components = width..width + header.width;
            width = components.end;
            ranges.push(components.clone());
            if header.width > 0 {
                groups.push(FeatureGroup { name: header.column.clone(), role: header.role, components });
            }
        }
        let mut values = Array2::zeros((items, width));
        for (reader, components) in readers.into_iter().zip(ranges) {
            reader.read(values.slice_mut(s![.., components]))?;
        }
        Ok(Some((groups, values)))
    }

    /// Computes the features of this number of items, and writes their files.
    pub(super) fn write(&self, table: &Table, features: &[Feature], rows: usize) -> Result<()> {
        let names: Vec<String> = features.iter().map(|feature| feature.column.clone()).collect();
        let sample = sample(table, &names, rows)?;
        let mut outputs = Vec::new();
        for feature in features {
            let encoder = match sample.column(&feature.column) {
                Ok(column) => Encoder::fit(feature, column)?,
                Err(_) => None,
            };
            let (role, width) =
                encoder.as_ref().map_or((Role::Numeric, 0), |encoder| (encoder.role(), encoder.width()));
            outputs.push((encoder, FeatureWriter::create(&self.path(feature), &feature.column, role, width)?));
        }
        drop(sample);
        table.scan_columns(&names, &mut |items| {
            for (encoder, writer) in &mut outputs {
                if let Some(encoder) = encoder {
                    writer.rows(encoder.encode(items.column(encoder.column()).wrap_err("features")?)?.view())?;
                }
            }
            Ok(())
        })?;
        outputs.into_iter().try_for_each(|(_, writer)| writer.finish())
    }
}

/// Reads evenly spaced items.
fn sample(table: &Table, names: &[String], rows: usize) -> Result<DataFrame> {
    let stride = rows.div_ceil(SAMPLE_ITEMS).max(1);
    let (mut sample, mut rows_read): (Option<DataFrame>, usize) = (None, 0);
    table.scan_columns(names, &mut |items| {
        let sampled = (0..items.height()).filter(|row| (rows_read + row).is_multiple_of(stride));
        let sampled: Vec<u32> = sampled.map(|row| row as u32).collect();
        rows_read += items.height();
        let items = convert::gather(&items, &sampled)?;
        match &mut sample {
            None => sample = Some(items),
            Some(sample) => {
                sample.vstack_mut_owned(items).wrap_err("features")?;
            }
        }
        Ok(())
    })?;
    Ok(sample.unwrap_or_default())
}

/// Deletes the files of library states that are no longer used: all but those of the open version, of the latest version, and
/// of tagged versions, such as the versions that runs pin. Features of any other version are computed again when it is opened.
///
/// The caller holds the lock of the folder, so no other process is writing: an incomplete file was left by a killed process.
pub(super) fn delete_unused(dataset: &Arc<Dataset>, folder: &Path, lock: Lock) {
    let deleted = used_names(dataset).and_then(|used| {
        for entry in fs::read_dir(folder).at_path(folder)? {
            let entry = entry.at_path(folder)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(PARTIAL_PREFIX) || (is_file_name(&name) && !used.contains(&name)) {
                atomic::remove_file(&entry.path())?;
            }
        }
        Ok(())
    });
    if let Err(error) = deleted {
        log::debug!("{error}; unused feature files are not deleted");
    }
    let _ = atomic::remove_file(&folder.join("lock"));
    drop(lock);
}

/// As [`delete_unused`], for a dataset that is not open. Does nothing if the dataset is read-only.
pub(super) fn delete_unused_at(uri: &str) {
    let Some(folder) = feature_folder(uri).filter(|folder| folder.is_dir()) else { return };
    let Ok(lock) = atomic::lock(&folder) else { return };
    let builder = DatasetBuilder::from_uri(uri);
    if let Ok(Ok(dataset)) = block_on(async move { builder.load().await }) {
        delete_unused(&Arc::new(dataset), &folder, lock);
    }
}

/// The names of the feature files of the open version, the latest version and all tagged versions.
fn used_names(dataset: &Arc<Dataset>) -> Result<HashSet<String>> {
    let open = dataset.clone();
    let versions = block_on(async move {
        let mut latest = (*open).clone();
        latest.checkout_latest().await?;
        let (mut versions, mut tagged) = (vec![(*open).clone(), latest], HashSet::new());
        for (tag, contents) in open.tags().list().await? {
            if tagged.insert((contents.branch, contents.version)) {
                // A tagged version that does not exist any more has no files.
                versions.extend(open.checkout_version(tag.as_str()).await.ok());
            }
        }
        Ok::<_, lance::Error>(versions)
    })?
    .wrap_err("listing tags")?;
    let names = |version: &Dataset| -> Vec<String> {
        let state = library_id::state(version);
        version.schema().fields.iter().flat_map(|field| file_names(&state, &field.name)).collect()
    };
    Ok(versions.iter().flat_map(names).collect())
}

//! The files in which a dataset keeps features: made, read, and taken away when no run and no search needs them.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lance::Dataset;
use lance::dataset::builder::DatasetBuilder;
use ndarray::{Array2, s};
use polars::prelude::DataFrame;

use super::library;
use super::table::Table;
use crate::database::runtime::on_runtime;
use crate::database::store::{fetch_if_there, is_remote};
use crate::error::{AtPath, Doing, Error, Result};
use crate::features::{Encoder, Feature, Reader, Role, View, Writer, file_name, file_names, is_file_name};
use crate::frame::convert;
use crate::io::atomic::{self, Lock};

/// Items that encoders are fitted to, at most: evenly spread ones.
const SAMPLE: usize = 50_000;

/// How the names of files begin that are not whole yet.
const HALF_WRITTEN: &str = ".tmp";

/// The folder in a dataset that holds the files.
const FOLDER: &str = "_uphill";

/// Where a dataset keeps its features; `None` if it is not on this machine's disks.
pub(super) fn inside(uri: &str) -> Option<PathBuf> {
    let path = uri.strip_prefix("file://").unwrap_or(uri);
    (!is_remote(path)).then(|| Path::new(path).join(FOLDER))
}

/// The files of a library's features, in a folder.
pub(super) struct Files<'a> {
    folder: &'a Path,
    state: String,
}

impl<'a> Files<'a> {
    pub(super) fn of(table: &Table, folder: &'a Path) -> Self {
        Files { folder, state: library::state(&table.dataset) }
    }

    fn file(&self, feature: &Feature) -> PathBuf {
        self.folder.join(file_name(&self.state, feature))
    }

    /// Gets those files that a dataset on an object store has. One that does not come is made instead.
    pub(super) fn fetch(&self, uri: &str, features: &[Feature]) {
        for file in features.iter().map(|feature| self.file(feature)) {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            if let Err(error) = fetch_if_there(&format!("{}/{FOLDER}/{name}", uri.trim_end_matches('/')), &file) {
                log::debug!("{error}; it is made anew");
            }
        }
    }

    /// Reads the features of so many items; `None` if a file is missing or damaged, which is told.
    pub(super) fn read(&self, features: &[Feature], items: usize) -> Result<Option<(Vec<View>, Array2<f32>)>> {
        match self.whole(features, items) {
            Ok(read) => Ok(read),
            Err(error @ (Error::Input { .. } | Error::Io { .. })) => {
                log::warn!("{error}; it is made anew");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// As [`Files::read`], where a damaged file is an error.
    fn whole(&self, features: &[Feature], items: usize) -> Result<Option<(Vec<View>, Array2<f32>)>> {
        let mut readers = Vec::with_capacity(features.len());
        for feature in features {
            let path = self.file(feature);
            let Some(reader) = Reader::open(&path, items)? else { return Ok(None) };
            let header = &reader.header;
            if header.column != feature.column
                || feature.role.is_some_and(|role| role != header.role && header.width > 0)
            {
                let reason = format!("damaged: it holds column `{}`, not `{}`", header.column, feature.column);
                return Err(Error::input(path, reason));
            }
            readers.push(reader);
        }
        let (mut views, mut width): (Vec<View>, usize) = Default::default();
        let mut places = Vec::with_capacity(readers.len());
        for header in readers.iter().map(|reader| &reader.header) {
            let components = width..width + header.width;
            width = components.end;
            places.push(components.clone());
            if header.width > 0 {
                views.push(View { name: header.column.clone(), role: header.role, components });
            }
        }
        let mut values = Array2::zeros((items, width));
        for (reader, components) in readers.into_iter().zip(places) {
            reader.read(values.slice_mut(s![.., components]))?;
        }
        Ok(Some((views, values)))
    }

    /// Makes the files of features of so many items.
    pub(super) fn make(&self, table: &Table, features: &[Feature], rows: usize) -> Result<()> {
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
        let items = convert::gather(&items, &wanted)?;
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

/// Takes away the files of states that nobody reads any more: all but those of the version that is open, of the latest, and
/// of tagged ones, as those of runs are. Who opens another version makes its features again.
///
/// The lock of the folder keeps other writers away: what is half written was left by a process that died.
pub(super) fn sweep(dataset: &Arc<Dataset>, folder: &Path, lock: Lock) {
    let swept = needed(dataset).and_then(|needed| {
        for entry in fs::read_dir(folder).at_path(folder)? {
            let entry = entry.at_path(folder)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(HALF_WRITTEN) || (is_file_name(&name) && !needed.contains(&name)) {
                atomic::remove_file(&entry.path())?;
            }
        }
        Ok(())
    });
    if let Err(error) = swept {
        log::debug!("{error}; files of earlier states stay");
    }
    let _ = atomic::remove_file(&folder.join("lock"));
    drop(lock);
}

/// As [`sweep`], of a dataset that is not open, if it may be written to.
pub(super) fn sweep_at(uri: &str) {
    let Some(folder) = inside(uri).filter(|folder| folder.is_dir()) else { return };
    let Ok(lock) = atomic::lock(&folder) else { return };
    let builder = DatasetBuilder::from_uri(uri);
    if let Ok(Ok(dataset)) = on_runtime(async move { builder.load().await }) {
        sweep(&Arc::new(dataset), &folder, lock);
    }
}

/// The names of the files that a version may be read with which is open, the latest, or tagged.
fn needed(dataset: &Arc<Dataset>) -> Result<HashSet<String>> {
    let open = dataset.clone();
    let versions = on_runtime(async move {
        let mut latest = (*open).clone();
        latest.checkout_latest().await?;
        let (mut versions, mut seen) = (vec![(*open).clone(), latest], HashSet::new());
        for (tag, contents) in open.tags().list().await? {
            if seen.insert((contents.branch, contents.version)) {
                // One that was cleaned away all the same needs nothing.
                versions.extend(open.checkout_version(tag.as_str()).await.ok());
            }
        }
        Ok::<_, lance::Error>(versions)
    })?
    .doing("listing tags")?;
    let names = |version: &Dataset| -> Vec<String> {
        let state = library::state(version);
        version.schema().fields.iter().flat_map(|field| file_names(&state, &field.name)).collect()
    };
    Ok(versions.iter().flat_map(names).collect())
}

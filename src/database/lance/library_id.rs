//! The library id of a dataset version: the content hash that `uphill index` stored, or a new hash if the dataset changed.

use blake3::Hasher;
use lance::Dataset;

use crate::database::{META_LIBRARY, META_STATE};

/// A hash of the columns, data files and deletions of this version. It changes with rows, values and names, but not with an
/// index, a tag or metadata.
pub(crate) fn state(dataset: &Dataset) -> String {
    let mut hasher = Hasher::new();
    for field in dataset.schema().fields_pre_order() {
        hasher.update(format!("{} {} {:?}\n", field.id, field.parent_id, field.name).as_bytes());
    }
    for fragment in dataset.fragments().iter() {
        let files: Vec<_> = fragment.files.iter().map(|file| (&file.path, &file.fields, file.base_id)).collect();
        let (overlays, deletions) = (&fragment.overlays, &fragment.deletion_file);
        hasher.update(format!("{} {files:?} {overlays:?} {deletions:?}\n", fragment.id).as_bytes());
    }
    short_hex(&hasher)
}

/// Whether the rows are the ones that `uphill index` wrote.
pub(super) fn is_unchanged(dataset: &Dataset) -> bool {
    dataset.metadata().get(META_STATE).is_some_and(|built| *built == state(dataset))
}

/// The library id, if `uphill index` built the dataset. A version that was changed since has another id. Changes of datasets
/// that were built by versions without a stored state are not detected.
pub(super) fn library_id(dataset: &Dataset) -> Option<String> {
    let built = dataset.metadata().get(META_LIBRARY)?;
    if is_unchanged(dataset) || !dataset.metadata().contains_key(META_STATE) {
        return Some(built.clone());
    }
    let mut hasher = Hasher::new();
    hasher.update(built.as_bytes()).update(state(dataset).as_bytes());
    Some(short_hex(&hasher))
}

/// The first 32 hexadecimal digits of a hash.
fn short_hex(hasher: &Hasher) -> String {
    hasher.finalize().to_hex()[..32].to_string()
}

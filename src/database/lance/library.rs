//! Which library a version of a dataset is: what `uphill index` built, or what others made of it since.

use blake3::Hasher;
use lance::Dataset;

use crate::database::{META_LIBRARY, META_STATE};

/// What this version's rows are made of, in short: its columns, data files and deletions. An index, a tag or metadata
/// do not change it; other rows, values or names do.
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
    short(&hasher)
}

/// Whether the rows are those that `uphill index` wrote.
pub(super) fn is_as_built(dataset: &Dataset) -> bool {
    dataset.metadata().get(META_STATE).is_some_and(|built| *built == state(dataset))
}

/// The library's identity, where `uphill index` built it. A version that others changed since is another library; of
/// datasets that were built before their state was kept, no change can be told.
pub(super) fn library_id(dataset: &Dataset) -> Option<String> {
    let built = dataset.metadata().get(META_LIBRARY)?;
    if is_as_built(dataset) || !dataset.metadata().contains_key(META_STATE) {
        return Some(built.clone());
    }
    let mut hasher = Hasher::new();
    hasher.update(built.as_bytes()).update(state(dataset).as_bytes());
    Some(short(&hasher))
}

/// 32 hexadecimal digits.
fn short(hasher: &Hasher) -> String {
    hasher.finalize().to_hex()[..32].to_string()
}

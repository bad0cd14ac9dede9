//! Tags of dataset versions. A tag protects its version from cleanup.

use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use lance::Dataset;
use lance::dataset::builder::DatasetBuilder;

use crate::database::is_remote;
use crate::database::runtime::block_on;
use crate::error::{Error, Result};

/// Tags the open version. Does nothing if the tag exists.
pub(super) fn create(dataset: &Arc<Dataset>, tag: &str) -> Result<()> {
    let (dataset, name, version) = (dataset.clone(), tag.to_string(), dataset.version_id());
    let tagged = block_on(async move {
        match encoded_url(dataset.uri()) {
            Some(uri) => DatasetBuilder::from_uri(uri).load().await?.tags().create(&name, version).await,
            None => dataset.tags().create(&name, version).await,
        }
    });
    match tagged? {
        Ok(()) | Err(lance::Error::RefConflict { .. }) => Ok(()),
        Err(error) => Err(Error::dependency(format!("tagging version {version}"), error)),
    }
}

/// Deletes a tag. Returns whether it existed.
pub(super) fn delete(uri: &str, tag: &str) -> Result<bool> {
    let (builder, name) = (DatasetBuilder::from_uri(uri), tag.to_string());
    match block_on(async move { builder.load().await?.tags().delete(&name).await })? {
        Ok(()) => Ok(true),
        Err(lance::Error::RefNotFound { .. }) => Ok(false),
        Err(error) => Err(Error::dependency(format!("deleting the tag {tag}"), error)),
    }
}

/// The URL of a local dataset whose path has characters that URLs encode. Lance writes a tag to a temporary file first, and
/// would encode these characters of a path twice, so the file would go to a folder of another name.
fn encoded_url(uri: &str) -> Option<String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
    if is_remote(uri) || uri.bytes().all(is_plain) {
        return None;
    }
    if let Some(url) = uri.strip_prefix("file://") {
        return Some(format!("file-object-store://{url}"));
    }
    let path = std::path::absolute(uri).ok()?;
    let encoded = path.as_os_str().as_bytes().iter().map(|byte| match is_plain(*byte) {
        true => char::from(*byte).to_string(),
        false => format!("%{byte:02X}"),
    });
    Some(format!("file-object-store://{}", encoded.collect::<String>()))
}

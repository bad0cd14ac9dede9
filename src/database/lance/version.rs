//! Tags, which keep a version when old ones are cleaned away.

use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use lance::Dataset;
use lance::dataset::builder::DatasetBuilder;

use crate::database::is_remote;
use crate::database::runtime::on_runtime;
use crate::error::{Error, Result};

/// Tags the version that is open, unless the tag is there.
pub(super) fn keep(dataset: &Arc<Dataset>, tag: &str) -> Result<()> {
    let (dataset, name, version) = (dataset.clone(), tag.to_string(), dataset.version_id());
    let tagged = on_runtime(async move {
        match through_urls(dataset.uri()) {
            Some(uri) => DatasetBuilder::from_uri(uri).load().await?.tags().create(&name, version).await,
            None => dataset.tags().create(&name, version).await,
        }
    });
    match tagged? {
        Ok(()) | Err(lance::Error::RefConflict { .. }) => Ok(()),
        Err(error) => Err(Error::library(format!("tagging version {version}"), error)),
    }
}

/// Takes a tag away; whether it was there.
pub(super) fn release(uri: &str, tag: &str) -> Result<bool> {
    let (builder, name) = (DatasetBuilder::from_uri(uri), tag.to_string());
    match on_runtime(async move { builder.load().await?.tags().delete(&name).await })? {
        Ok(()) => Ok(true),
        Err(lance::Error::RefNotFound { .. }) => Ok(false),
        Err(error) => Err(Error::library(format!("taking the tag {tag} away"), error)),
    }
}

/// The same dataset by a URL, where it is local and its path has characters that URLs encode: Lance writes a tag first beside
/// where it is to be, and by a path that would encode them once more, so in folders of another name.
fn through_urls(uri: &str) -> Option<String> {
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

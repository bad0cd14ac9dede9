//! Tags, which keep a version when old ones are cleaned away.

use std::sync::Arc;

use lance::Dataset;
use lance::dataset::builder::DatasetBuilder;

use crate::database::runtime::on_runtime;
use crate::error::{Error, Result};

/// Tags the version that is open, unless the tag is there.
pub(super) fn keep(dataset: &Arc<Dataset>, tag: &str) -> Result<()> {
    let (dataset, name, version) = (dataset.clone(), tag.to_string(), dataset.version_id());
    match on_runtime(async move { dataset.tags().create(&name, version).await })? {
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

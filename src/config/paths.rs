//! Resolves the paths in a run file: relative paths, absolute paths and `file://` addresses.

use std::path::Path;

use serde_json::Value;

use super::Config;
use crate::database::{is_remote, local_path};
use crate::error::{Error, Result};

impl Config {
    /// Replaces `file://` addresses by paths.
    pub(super) fn with_local_paths(mut self) -> Result<Self> {
        self.database.path = local_path(&self.database.path)?.to_string_lossy().into_owned();
        self.queries.path = self.queries.path.map(local_path).transpose()?;
        self.score.reuse = self.score.reuse.into_iter().map(local_path).collect::<Result<_>>()?;
        if let Some(path) = self.update.examples_mut() {
            *path = local_path(&*path)?;
        }
        Ok(self)
    }

    /// Resolves relative paths against a folder.
    pub(super) fn resolve_paths(&mut self, folder: &Path) {
        if !is_remote(&self.database.path) {
            self.database.path = folder.join(&self.database.path).to_string_lossy().into_owned();
        }
        if let Some(path) = self.queries.path.as_mut().filter(|path| !is_remote(path)) {
            *path = folder.join(&*path);
        }
        if let Some(path) = self.update.examples_mut().filter(|path| !is_remote(path)) {
            *path = folder.join(&*path);
        }
        self.score.resolve_paths(folder);
    }

    /// Makes paths absolute, so that they are valid from any working directory.
    fn with_absolute_paths(&self) -> Self {
        let mut config = self.clone();
        let absolute = |path: &Path| match is_remote(path) {
            true => path.into(),
            false => std::path::absolute(path).unwrap_or_else(|_| path.into()),
        };
        if !is_remote(&config.database.path) {
            config.database.path = absolute(Path::new(&config.database.path)).to_string_lossy().into_owned();
        }
        config.queries.path = config.queries.path.as_deref().map(absolute);
        if let Some(path) = config.update.examples_mut() {
            *path = absolute(path);
        }
        config.score.reuse = config.score.reuse.iter().map(|path| absolute(path)).collect();
        config
    }

    /// The configuration as JSON, as run.json records it. Converted through text, so that numbers equal those that are read from
    /// run.json.
    pub(super) fn to_json(&self) -> Result<Value> {
        let text = serde_json::to_string(&self.with_absolute_paths());
        text.and_then(|text| serde_json::from_str(&text)).map_err(|error| Error::Config(error.to_string()))
    }
}

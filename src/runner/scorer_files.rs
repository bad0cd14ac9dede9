//! The contents of the files of a scorer: recorded in run.json, and compared when the run is resumed.

use std::collections::{BTreeMap, BTreeSet};

use super::Runner;
use crate::error::{Error, Result};
use crate::log::{Manifest, SearchLog};

/// The files of a scorer, by their names in the run file.
#[derive(Clone, Default)]
pub(crate) struct ScorerFiles {
    /// The hash of each content.
    pub(crate) hashes: BTreeMap<String, String>,
    /// The files that certainly determine the scores. The scorer may write the others itself, such as a cache.
    pub(crate) definition: BTreeSet<String>,
    /// Whether scores of other contents are accepted.
    pub(crate) is_trusted: bool,
}

impl Runner {
    /// Compares the files of the scorer with those of the process that scored items before.
    ///
    /// # Errors
    /// A file that determines the scores has changed, unless other contents are accepted, or failed items are retried with it.
    pub(crate) fn check_scorer_files(&self, log: &SearchLog) -> Result<()> {
        // Without answers, there are no scores of another content.
        if !log.has_answers() {
            return Ok(());
        }
        let ScorerFiles { hashes, definition, is_trusted } = &self.scorer_files;
        for (name, now) in hashes {
            let Some(recorded) = log.manifest().scorer_files.get(name) else { continue };
            let before = Manifest::last_content(recorded);
            if before == now {
                continue;
            }
            let change = format!("`{name}` has changed since the run scored items: its content was {before}, is {now}");
            if definition.contains(name) && !is_trusted && !self.retry_failed {
                return Err(Error::Config(format!(
                    "score: {change} (hashes), so that the scores would be of two versions; restore it, start a new run, or set \
                     score.trust_scores = true to resume anyway"
                )));
            }
            log::warn!("score: {change} (hashes); the run keeps its scores");
        }
        Ok(())
    }
}

//! Finds keys of a run file that have no effect because of other keys.

use super::database::DEFAULT_K;
use super::{Config, UpdateConfig};

impl Config {
    /// Lists the keys that are set but not used: a message for each, with the reason.
    pub(crate) fn unused_keys(&self) -> Vec<String> {
        let database = &self.database;
        let mut unused = Vec::new();
        let is_set = ![0, DEFAULT_K].contains(&database.k);
        if let (true, UpdateConfig::Surrogate { .. }) = (is_set, &self.update) {
            unused.push(format!(
                "database.k = {} is not used: the rule `surrogate` chooses the number of neighbours itself; update.batch sets \
                 how many items it scores at a time",
                database.k
            ));
        }
        if let (Some(nprobes), Some(recall)) = (database.nprobes, database.recall) {
            unused.push(format!("database.recall = {recall} is not used, because database.nprobes = {nprobes} is set"));
        }
        let index = [("nprobes", database.nprobes.is_some()), ("recall", database.recall.is_some())];
        for (key, _) in index.into_iter().filter(|(_, is_set)| database.exact && *is_set) {
            unused.push(format!("database.{key} is not used, because database.exact = true searches all items"));
        }
        let score = &self.score;
        // A resumed run whose scorer has files needs `trust_scores` if they have changed.
        let is_trust_unused = score.trust_scores && (score.sql.is_some() || score.by_hand);
        let reuse = [("reuse_key", score.reuse_key.is_some()), ("trust_scores", is_trust_unused)];
        for (key, _) in reuse.into_iter().filter(|(_, is_set)| score.reuse.is_empty() && *is_set) {
            unused.push(format!("score.{key} is not used, because score.reuse is not set"));
        }
        if score.files.is_some() && score.version.is_some() {
            unused.push("score.files is not used, because score.version names the score".into());
        }
        if let Some(top) = self.stop.top.filter(|_| !self.update.has_model()) {
            let rule = self.update.rule_name();
            unused.push(format!("stop.top = {top} is not used: the rule `{rule}` has no model that forecasts scores"));
        }
        unused
    }
}

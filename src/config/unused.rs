//! Keys of a run file that change nothing beside others.

use super::{Config, UpdateConfig};

impl Config {
    /// What is set and not used, one sentence each, with what is used instead.
    pub(crate) fn unused(&self) -> Vec<String> {
        let database = &self.database;
        let mut unused = Vec::new();
        let is_set = ![0, super::ten()].contains(&database.k);
        if let (true, UpdateConfig::Surrogate { .. }) = (is_set, &self.update) {
            unused.push(format!(
                "database.k = {} is not used: the rule `surrogate` decides how many neighbours it asks for; update.batch is \
                 how many items it scores at a time",
                database.k
            ));
        }
        if let (Some(nprobes), Some(recall)) = (database.nprobes, database.recall) {
            unused.push(format!("database.recall = {recall} is not used beside database.nprobes = {nprobes}"));
        }
        let index = [("nprobes", database.nprobes.is_some()), ("recall", database.recall.is_some())];
        for (key, _) in index.into_iter().filter(|(_, is_set)| database.exact && *is_set) {
            unused.push(format!("database.{key} is not used beside database.exact = true, which looks at every item"));
        }
        let score = &self.score;
        let reuse = [("reuse_key", score.reuse_key.is_some()), ("trust_scores", score.trust_scores)];
        for (key, _) in reuse.into_iter().filter(|(_, is_set)| score.reuse.is_empty() && *is_set) {
            unused.push(format!("score.{key} is not used: there is no score.reuse"));
        }
        unused
    }
}

//! `[score]`: which scorer, and how it is asked.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Direction;
use crate::error::{Error, Result};
use crate::score::{
    ByHand, CommandFormat, CommandMode, CommandScore, HttpScore, OnError, Reuse, Score, SqlScore, SumScore,
};

/// `[score]`: what items are worth. One of `sql`, `command` and `url`; the rest says how
/// a command or a service is asked.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScoreConfig {
    /// A column, or a Polars SQL expression over the items.
    pub sql: Option<String>,
    /// A program and its arguments: [`CommandScore`]. It is run in the run file's folder.
    pub command: Option<Vec<String>>,
    /// A service: [`HttpScore`].
    pub url: Option<String>,
    /// Scores come from outside: [`ByHand`], by `uphill ask` and `uphill tell`.
    #[serde(default)]
    pub by_hand: bool,
    /// Several scores as one: [`SumScore`], a `[[score.sum]]` table for each part, with `name`, `weight` (1) and,
    /// for a gate, `at_least`.
    pub sum: Option<Vec<ScoreConfig>>,
    /// Of a part.
    pub name: Option<String>,
    /// Of a part.
    pub weight: Option<f64>,
    /// Of a part: items below it are not asked of the parts that follow.
    pub at_least: Option<f64>,
    /// Run folders and Parquet files with scores that were paid for before.
    #[serde(default)]
    pub reuse: Vec<PathBuf>,
    /// The column that names items there and here; by `db_idx` otherwise, for runs of the same library only.
    pub reuse_key: Option<String>,
    /// What the score is, for later runs that reuse it; a hash of this section otherwise.
    pub version: Option<String>,
    /// Takes earlier scores whatever their version.
    #[serde(default)]
    pub trust_scores: bool,
    /// Whether more is better.
    #[serde(default)]
    pub direction: Direction,
    /// Of a command: `stream` or `batch`.
    pub mode: Option<CommandMode>,
    /// Of a command: `jsonl` or `arrow`.
    pub format: Option<CommandFormat>,
    /// The most items asked for at once.
    pub batch_size: Option<usize>,
    /// Of a command: processes at a time.
    pub workers: Option<usize>,
    /// Of a service: requests at a time.
    pub concurrency: Option<usize>,
    /// Of a service: headers, and the environment variables that hold their values.
    pub headers: Option<BTreeMap<String, String>>,
    /// Seconds that a batch may take.
    pub timeout: Option<f64>,
    /// How often items without an answer are asked again.
    pub retries: Option<u32>,
    /// Whether embeddings are sent too.
    pub embeddings: Option<bool>,
    /// What a failed item does to the run.
    #[serde(default)]
    pub on_error: OnError,
    /// The folder that a command is run in.
    #[serde(skip)]
    pub directory: Option<PathBuf>,
}

impl ScoreConfig {
    pub(super) fn relative_to(&mut self, folder: &Path) {
        self.directory = Some(folder.to_path_buf());
        self.reuse.iter_mut().for_each(|source| *source = folder.join(&*source));
        self.sum.iter_mut().flatten().for_each(|part| part.relative_to(folder));
    }

    /// What the score is: as stated, or a hash of what is asked, not of how it is asked.
    pub(super) fn version(&self) -> String {
        let what = ScoreConfig {
            batch_size: None,
            workers: None,
            concurrency: None,
            timeout: None,
            retries: None,
            on_error: OnError::default(),
            direction: Direction::default(),
            reuse: Vec::new(),
            reuse_key: None,
            trust_scores: false,
            ..self.clone()
        };
        let text = serde_json::to_string(&what).unwrap_or_default();
        self.version.clone().unwrap_or_else(|| blake3::hash(text.as_bytes()).to_hex()[..16].to_string())
    }

    pub(super) fn reuse(&self) -> Reuse {
        Reuse {
            sources: self.reuse.clone(),
            key: self.reuse_key.clone(),
            version: self.version(),
            trust: self.trust_scores,
        }
    }

    /// The scorer that the section describes.
    pub(super) fn scorer(&self) -> Result<Box<dyn Score>> {
        let of_parts =
            [("name", self.name.is_some()), ("weight", self.weight.is_some()), ("at_least", self.at_least.is_some())];
        if let Some((key, _)) = of_parts.iter().find(|(_, given)| *given) {
            return Err(Error::Config(format!("score.{key}: belongs to a part, under [[score.sum]]")));
        }
        let Some(parts) = &self.sum else { return self.single() };
        let others = [
            ("sql", self.sql.is_some()),
            ("command", self.command.is_some()),
            ("url", self.url.is_some()),
            ("by_hand", self.by_hand),
        ];
        self.refuse("[[score.sum]]", &others)?;
        self.refuse("[[score.sum]]", &self.of_commands())?;
        self.refuse("[[score.sum]]", &self.of_services())?;
        self.refuse("[[score.sum]]", &self.of_both())?;
        let mut sum = SumScore::new();
        for part in parts {
            let Some(name) = &part.name else {
                return Err(Error::Config("score.sum: each part needs a `name`".into()));
            };
            let nested = [("sum", part.sum.is_some()), ("by_hand", part.by_hand)];
            part.refuse("a part of [[score.sum]]", &nested)?;
            sum = sum.boxed(name.clone(), part.weight.unwrap_or(1.0), part.at_least, part.single()?);
        }
        Ok(Box::new(sum))
    }

    /// The scorer of a section without parts.
    fn single(&self) -> Result<Box<dyn Score>> {
        if self.by_hand {
            let others =
                [("sql", self.sql.is_some()), ("command", self.command.is_some()), ("url", self.url.is_some())];
            self.refuse("`by_hand`", &others)?;
            self.refuse("`by_hand`", &self.of_commands())?;
            self.refuse("`by_hand`", &self.of_services())?;
            self.refuse("`by_hand`", &self.of_both())?;
            return Ok(Box::new(ByHand::new()));
        }
        match (&self.sql, &self.command, &self.url) {
            (Some(sql), None, None) => {
                self.refuse("`sql`", &self.of_commands())?;
                self.refuse("`sql`", &self.of_services())?;
                self.refuse("`sql`", &self.of_both())?;
                Ok(Box::new(SqlScore::new(sql)))
            }
            (None, Some(arguments), None) => {
                self.refuse("`command`", &self.of_services())?;
                self.command_score(arguments)
            }
            (None, None, Some(url)) => {
                self.refuse("`url`", &self.of_commands())?;
                self.http_score(url)
            }
            (None, None, None) => Err(Error::Config("score: give `sql`, `command`, `url`, `by_hand` or `sum`".into())),
            _ => Err(Error::Config("score: give one of `sql`, `command` and `url`, not several".into())),
        }
    }

    fn of_commands(&self) -> [(&'static str, bool); 3] {
        [("mode", self.mode.is_some()), ("format", self.format.is_some()), ("workers", self.workers.is_some())]
    }

    fn of_services(&self) -> [(&'static str, bool); 2] {
        [("concurrency", self.concurrency.is_some()), ("headers", self.headers.is_some())]
    }

    fn of_both(&self) -> [(&'static str, bool); 4] {
        [
            ("batch_size", self.batch_size.is_some()),
            ("timeout", self.timeout.is_some()),
            ("retries", self.retries.is_some()),
            ("embeddings", self.embeddings.is_some()),
        ]
    }

    /// A key that would mean nothing is a mistake.
    fn refuse(&self, kind: &str, keys: &[(&str, bool)]) -> Result<()> {
        match keys.iter().find(|(_, given)| *given) {
            Some((key, _)) => Err(Error::Config(format!("score.{key}: means nothing beside {kind}"))),
            None => Ok(()),
        }
    }

    fn command_score(&self, arguments: &[String]) -> Result<Box<dyn Score>> {
        if self.mode == Some(CommandMode::Batch) && self.format.is_some() {
            return Err(Error::Config("score.format: means nothing beside mode = \"batch\", which is Parquet".into()));
        }
        let mut score = CommandScore::new(arguments).mode(self.mode.unwrap_or_default());
        score = score.format(self.format.unwrap_or_default()).embeddings(self.embeddings.unwrap_or_default());
        if let Some(items) = at_least_one("batch_size", self.batch_size)? {
            score = score.batch_size(items);
        }
        if let Some(workers) = at_least_one("workers", self.workers)? {
            score = score.workers(workers);
        }
        if let Some(timeout) = self.timeout()? {
            score = score.timeout(timeout);
        }
        if let Some(retries) = self.retries {
            score = score.retries(retries);
        }
        if let Some(directory) = &self.directory {
            score = score.working_directory(directory);
        }
        Ok(Box::new(score))
    }

    fn http_score(&self, url: &str) -> Result<Box<dyn Score>> {
        let mut score = HttpScore::new(url).embeddings(self.embeddings.unwrap_or_default());
        if let Some(items) = at_least_one("batch_size", self.batch_size)? {
            score = score.batch_size(items);
        }
        if let Some(requests) = at_least_one("concurrency", self.concurrency)? {
            score = score.concurrency(requests);
        }
        if let Some(timeout) = self.timeout()? {
            score = score.timeout(timeout);
        }
        if let Some(retries) = self.retries {
            score = score.retries(retries);
        }
        for (name, variable) in self.headers.iter().flatten() {
            score = score.header(name, variable);
        }
        Ok(Box::new(score))
    }

    fn timeout(&self) -> Result<Option<Duration>> {
        let duration = |seconds: f64| {
            let duration = Duration::try_from_secs_f64(seconds).ok().filter(|duration| !duration.is_zero());
            duration
                .ok_or_else(|| Error::Config(format!("score.timeout: expected more than 0 seconds, found {seconds}")))
        };
        self.timeout.map(duration).transpose()
    }
}

fn at_least_one(key: &str, value: Option<usize>) -> Result<Option<usize>> {
    match value {
        Some(0) => Err(Error::Config(format!("score.{key}: expected at least 1, found 0"))),
        value => Ok(value),
    }
}

//! `[score]`: which scorer, and how it is asked.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Calls, Direction};
use crate::database::is_remote;
use crate::error::{Error, Result};
#[cfg(feature = "http")]
use crate::score::HttpScore;
use crate::score::{
    CommandFormat, CommandMode, CommandScore, ExternalScore, ManualScore, OnError, ReuseOptions, Score, ScorerClient,
    SqlScore, SumScore,
};

/// `[score]`: what items are worth. One of `sql`, `command`, `url`, `call`, `by_hand` and `sum`; the rest says how
/// it is asked, and which scores are the same.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ScoreConfig {
    /// A column, or a Polars SQL expression over the items.
    pub sql: Option<String>,
    /// A program and its arguments: [`CommandScore`]. It is run in the run file's folder.
    pub command: Option<Vec<String>>,
    /// A service: [`HttpScore`].
    pub url: Option<String>,
    /// A function of the program that runs this, by its name ([`Calls`](super::Calls)).
    pub call: Option<String>,
    /// Scores come from outside: [`ManualScore`], by `uphill ask` and `uphill tell`.
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
    /// Of a command: processes at a time; of a function: calls.
    pub workers: Option<usize>,
    /// Of a service: requests at a time.
    pub concurrency: Option<usize>,
    /// Of a service: headers, and the environment variables that hold their values.
    pub headers: Option<BTreeMap<String, String>>,
    /// Seconds that a batch may take.
    pub timeout: Option<f64>,
    /// How often items without an answer are asked again.
    pub retries: Option<u32>,
    /// Seconds that a scorer which is away is waited for.
    pub patience: Option<f64>,
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
        self.reuse.iter_mut().filter(|source| !is_remote(source)).for_each(|source| *source = folder.join(&*source));
        self.sum.iter_mut().flatten().for_each(|part| part.relative_to(folder));
    }

    /// What the score is: as stated, or a hash of what is asked, not of how it is asked.
    pub(super) fn version(&self) -> String {
        // Through text, as the section in a run.json went: numbers are then read alike.
        let section = serde_json::to_string(self).and_then(|text| serde_json::from_str(&text));
        Self::version_of(&section.unwrap_or_default())
    }

    /// As [`ScoreConfig::version`], of a section in a run.json.
    pub(super) fn version_of(section: &Value) -> String {
        if let Some(stated) = section["version"].as_str() {
            return stated.into();
        }
        let mut what = section.clone();
        forget_how_asked(&mut what);
        if let Some(keys) = what.as_object_mut() {
            keys.retain(|key, _| !["direction", "reuse", "reuse_key"].contains(&key.as_str()));
        }
        blake3::hash(what.to_string().as_bytes()).to_hex()[..16].to_string()
    }

    pub(super) fn reuse(&self) -> ReuseOptions {
        ReuseOptions {
            sources: self.reuse.clone(),
            key: self.reuse_key.clone(),
            version: self.version(),
            trust: self.trust_scores,
        }
    }

    /// The scorer that the section describes.
    pub(super) fn scorer(&self, calls: &dyn Calls) -> Result<Box<dyn Score>> {
        if self.call.is_some() && !self.reuse.is_empty() && self.version.is_none() {
            let reason = "score.reuse: say by `version` which scores are the same; a function's name does not tell";
            return Err(Error::Config(reason.into()));
        }
        self.build("score", false, calls)
    }

    /// The scorer of the section, or of a part of it, at a place that messages name.
    fn build(&self, place: &str, is_part: bool, calls: &dyn Calls) -> Result<Box<dyn Score>> {
        let (kind, source) = self.source(place)?;
        self.refuse_what_means_nothing(place, kind, is_part)?;
        Ok(match source {
            Source::Sql(sql) => Box::new(SqlScore::new(sql)),
            Source::Manual => Box::new(ManualScore::new()),
            Source::Call => {
                at_least_one(place, "batch_size", self.batch_size)?;
                at_least_one(place, "workers", self.workers)?;
                calls.score(self)?
            }
            Source::Command(arguments) => {
                let mut score = CommandScore::new(arguments).mode(self.mode.unwrap_or_default());
                score = score.format(self.format.unwrap_or_default());
                if let Some(directory) = &self.directory {
                    score = score.working_directory(directory);
                }
                Box::new(self.asked(place, score)?)
            }
            #[cfg(not(feature = "http"))]
            Source::Service(_) => {
                return Err(Error::Config(format!(
                    "{place}.url: this build asks no services: its feature `http` is off"
                )));
            }
            #[cfg(feature = "http")]
            Source::Service(url) => {
                let headers = self.headers.iter().flatten();
                let score = headers.fold(HttpScore::new(url), |score, (name, variable)| score.header(name, variable));
                Box::new(self.asked(place, score)?)
            }
            Source::Sum(parts) => {
                let mut sum = SumScore::new();
                for part in parts {
                    let Some(name) = &part.name else {
                        return Err(Error::Config("score.sum: each part needs a `name`".into()));
                    };
                    let score = part.build(&format!("score.sum[{name}]"), true, calls)?;
                    sum = sum.add_boxed(name.clone(), part.weight.unwrap_or(1.0), part.at_least, score);
                }
                Box::new(sum)
            }
        })
    }

    /// What scores, and the key that says so.
    fn source(&self, place: &str) -> Result<(&'static str, Source<'_>)> {
        let sources = [
            self.sql.as_deref().map(|sql| ("sql", Source::Sql(sql))),
            self.command.as_deref().map(|arguments| ("command", Source::Command(arguments))),
            self.url.as_deref().map(|url| ("url", Source::Service(url))),
            self.call.as_ref().map(|_| ("call", Source::Call)),
            self.by_hand.then_some(("by_hand", Source::Manual)),
            self.sum.as_deref().map(|parts| ("sum", Source::Sum(parts))),
        ];
        let mut given = sources.into_iter().flatten();
        match (given.next(), given.next()) {
            (Some(source), None) => Ok(source),
            (None, _) => {
                Err(Error::Config(format!("{place}: give `sql`, `command`, `url`, `call`, `by_hand` or `sum`")))
            }
            (Some((one, _)), Some((other, _))) => {
                Err(Error::Config(format!("{place}: give one of `{one}` and `{other}`, not both")))
            }
        }
    }

    /// A key that would mean nothing is a mistake.
    fn refuse_what_means_nothing(&self, place: &str, kind: &str, is_part: bool) -> Result<()> {
        for (key, _, of) in self.keys().into_iter().filter(|(_, given, _)| *given) {
            let (means, wrong) = match of {
                Of::Part => (is_part, "belongs to a part, under [[score.sum]]".into()),
                Of::Whole => (!is_part, "belongs to the whole score, under [score]".into()),
                Of::Kinds(kinds) => (kinds.contains(&kind), format!("means nothing beside `{kind}`")),
            };
            if !means {
                return Err(Error::Config(format!("{place}.{key}: {wrong}")));
            }
        }
        match (self.mode, self.format) {
            (Some(CommandMode::Batch), Some(_)) => {
                Err(Error::Config(format!("{place}.format: means nothing beside mode = \"batch\", which is Parquet")))
            }
            _ => Ok(()),
        }
    }

    /// The keys that do not mean something everywhere, whether they are given, and where they do.
    fn keys(&self) -> [(&'static str, bool, Of); 21] {
        let outside = Of::Kinds(&["command", "url"]);
        [
            ("name", self.name.is_some(), Of::Part),
            ("weight", self.weight.is_some(), Of::Part),
            ("at_least", self.at_least.is_some(), Of::Part),
            ("by_hand", self.by_hand, Of::Whole),
            ("sum", self.sum.is_some(), Of::Whole),
            ("reuse", !self.reuse.is_empty(), Of::Whole),
            ("reuse_key", self.reuse_key.is_some(), Of::Whole),
            ("version", self.version.is_some(), Of::Whole),
            ("trust_scores", self.trust_scores, Of::Whole),
            ("direction", self.direction != Direction::default(), Of::Whole),
            ("on_error", self.on_error != OnError::default(), Of::Whole),
            ("mode", self.mode.is_some(), Of::Kinds(&["command"])),
            ("format", self.format.is_some(), Of::Kinds(&["command"])),
            ("workers", self.workers.is_some(), Of::Kinds(&["command", "call"])),
            ("concurrency", self.concurrency.is_some(), Of::Kinds(&["url"])),
            ("headers", self.headers.is_some(), Of::Kinds(&["url"])),
            ("batch_size", self.batch_size.is_some(), Of::Kinds(&["command", "url", "call"])),
            ("timeout", self.timeout.is_some(), outside),
            ("retries", self.retries.is_some(), outside),
            ("patience", self.patience.is_some(), outside),
            ("embeddings", self.embeddings.is_some(), outside),
        ]
    }

    /// Sets how a scorer outside of this process is asked.
    fn asked<C: ScorerClient>(&self, place: &str, mut score: ExternalScore<C>) -> Result<ExternalScore<C>> {
        if let Some(embeddings) = self.embeddings {
            score = score.embeddings(embeddings);
        }
        if let Some(items) = at_least_one(place, "batch_size", self.batch_size)? {
            score = score.batch_size(items);
        }
        if let Some(workers) = at_least_one(place, "workers", self.workers)? {
            score = score.workers(workers);
        }
        if let Some(requests) = at_least_one(place, "concurrency", self.concurrency)? {
            score = score.workers(requests);
        }
        if let Some(seconds) = self.timeout {
            let timeout = Duration::try_from_secs_f64(seconds).ok().filter(|timeout| !timeout.is_zero());
            let wrong = || Error::Config(format!("{place}.timeout: expected more than 0 seconds, found {seconds}"));
            score = score.timeout(timeout.ok_or_else(wrong)?);
        }
        if let Some(retries) = self.retries {
            score = score.retries(retries);
        }
        if let Some(seconds) = self.patience {
            let wrong = |_| Error::Config(format!("{place}.patience: expected 0 seconds or more, found {seconds}"));
            score = score.patience(Duration::try_from_secs_f64(seconds).map_err(wrong)?);
        }
        Ok(score)
    }
}

/// What scores.
enum Source<'a> {
    Sql(&'a str),
    Command(&'a [String]),
    Service(#[cfg_attr(not(feature = "http"), expect(dead_code, reason = "no service is asked"))] &'a str),
    Call,
    Manual,
    Sum(&'a [ScoreConfig]),
}

/// Where a key means something.
#[derive(Clone, Copy)]
enum Of {
    /// In a part of a sum.
    Part,
    /// In `[score]` itself.
    Whole,
    /// Beside these keys.
    Kinds(&'static [&'static str]),
}

/// Takes out of a section, as JSON, and out of its parts how a scorer is asked. It leaves what is asked:
/// scores stay the same whatever these keys say, and a resumed run may change them.
pub(super) fn forget_how_asked(section: &mut Value) {
    const HOW: [&str; 8] =
        ["batch_size", "workers", "concurrency", "timeout", "retries", "patience", "on_error", "trust_scores"];
    let Some(keys) = section.as_object_mut() else { return };
    keys.retain(|key, value| !HOW.contains(&key.as_str()) && !value.is_null());
    keys.get_mut("sum").and_then(Value::as_array_mut).into_iter().flatten().for_each(forget_how_asked);
}

fn at_least_one(place: &str, key: &str, value: Option<usize>) -> Result<Option<usize>> {
    match value {
        Some(0) => Err(Error::Config(format!("{place}.{key}: expected at least 1, found 0"))),
        value => Ok(value),
    }
}

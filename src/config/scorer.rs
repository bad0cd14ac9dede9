//! Builds the scorer of a `[score]` section: finds its kind, checks the keys, and sets the options.

use std::time::Duration;

use super::{Direction, FunctionRegistry, ScoreConfig};
use crate::error::{Error, Result};
#[cfg(feature = "http")]
use crate::score::HttpScore;
use crate::score::{
    CommandMode, CommandScore, ExternalScore, ManualScore, OnError, Score, ScorerClient, SqlScore, SumScore,
};

/// The kinds of scorers, with their settings.
enum ScorerKind<'a> {
    Sql(&'a str),
    Command(&'a [String]),
    Http(#[cfg_attr(not(feature = "http"), expect(dead_code, reason = "the build has no HTTP scorer"))] &'a str),
    Call,
    Manual,
    Sum(&'a [ScoreConfig]),
}

/// The sections that a key may be used in.
#[derive(Clone, Copy)]
enum KeyScope {
    /// In the parts of a sum.
    Part,
    /// In `[score]` itself.
    Whole,
    /// With these kinds of scorers.
    Kinds(&'static [&'static str]),
}

impl ScoreConfig {
    /// Builds the scorer of this section.
    pub(super) fn scorer(&self, functions: &dyn FunctionRegistry) -> Result<Box<dyn Score>> {
        if self.call.is_some() && !self.reuse.is_empty() && self.version.is_none() {
            let reason = "score.reuse: set score.version, because the name of a function does not tell whether its scores have \
                          changed";
            return Err(Error::Config(reason.into()));
        }
        self.build("score", false, functions)
    }

    /// Builds the scorer of this section, or of a part of a sum. Messages name `place`.
    fn build(&self, place: &str, is_part: bool, functions: &dyn FunctionRegistry) -> Result<Box<dyn Score>> {
        let (key, kind) = self.scorer_kind(place)?;
        self.check_keys(place, key, is_part)?;
        Ok(match kind {
            ScorerKind::Sql(sql) => Box::new(SqlScore::new(sql)),
            ScorerKind::Manual => Box::new(ManualScore::new()),
            ScorerKind::Call => {
                at_least_one(place, "batch_size", self.batch_size)?;
                at_least_one(place, "workers", self.workers)?;
                functions.score(self)?
            }
            ScorerKind::Command(arguments) => {
                let mut score = CommandScore::new(arguments).mode(self.mode.unwrap_or_default());
                score = score.format(self.format.unwrap_or_default());
                if let Some(directory) = &self.directory {
                    score = score.working_directory(directory);
                }
                Box::new(self.configure(place, score)?)
            }
            #[cfg(not(feature = "http"))]
            ScorerKind::Http(_) => {
                return Err(Error::Config(format!(
                    "{place}.url: this build has no HTTP scorer; build it with the feature `http`"
                )));
            }
            #[cfg(feature = "http")]
            ScorerKind::Http(url) => {
                let headers = self.headers.iter().flatten();
                let score = headers.fold(HttpScore::new(url), |score, (name, variable)| score.header(name, variable));
                Box::new(self.configure(place, score)?)
            }
            ScorerKind::Sum(parts) => {
                let mut sum = SumScore::new();
                for part in parts {
                    let Some(name) = &part.name else {
                        return Err(Error::Config("score.sum: each part needs a `name`".into()));
                    };
                    let score = part.build(&format!("score.sum[{name}]"), true, functions)?;
                    sum = sum.add_boxed(name.clone(), part.weight.unwrap_or(1.0), part.at_least, score);
                }
                Box::new(sum)
            }
        })
    }

    /// The scorer that is set, and its key.
    fn scorer_kind(&self, place: &str) -> Result<(&'static str, ScorerKind<'_>)> {
        let kinds = [
            self.sql.as_deref().map(|sql| ("sql", ScorerKind::Sql(sql))),
            self.command.as_deref().map(|arguments| ("command", ScorerKind::Command(arguments))),
            self.url.as_deref().map(|url| ("url", ScorerKind::Http(url))),
            self.call.as_ref().map(|_| ("call", ScorerKind::Call)),
            self.by_hand.then_some(("by_hand", ScorerKind::Manual)),
            self.sum.as_deref().map(|parts| ("sum", ScorerKind::Sum(parts))),
        ];
        let mut configured = kinds.into_iter().flatten();
        match (configured.next(), configured.next()) {
            (Some(kind), None) => Ok(kind),
            (None, _) => {
                Err(Error::Config(format!("{place}: set one of `sql`, `command`, `url`, `call`, `by_hand` or `sum`")))
            }
            (Some((first, _)), Some((second, _))) => {
                Err(Error::Config(format!("{place}: set `{first}` or `{second}`, not both")))
            }
        }
    }

    /// Fails if a key has no effect on this kind of scorer, or belongs to another section.
    fn check_keys(&self, place: &str, kind: &str, is_part: bool) -> Result<()> {
        for (key, _, scope) in self.scoped_keys().into_iter().filter(|(_, is_set, _)| *is_set) {
            let (is_allowed, reason) = match scope {
                KeyScope::Part => (is_part, "belongs to a part of a sum, under [[score.sum]]".into()),
                KeyScope::Whole => (!is_part, "belongs to the whole score, under [score]".into()),
                KeyScope::Kinds(kinds) => {
                    let reason = format!("works with {}, not with `{kind}`; remove it", alternatives(kinds));
                    (kinds.contains(&kind), reason)
                }
            };
            if !is_allowed {
                return Err(Error::Config(format!("{place}.{key}: {reason}")));
            }
        }
        match (self.mode, self.format) {
            (Some(CommandMode::Batch), Some(_)) => Err(Error::Config(format!(
                "{place}.format: works with mode = \"stream\"; mode = \"batch\" uses Parquet; remove it"
            ))),
            _ => Ok(()),
        }
    }

    /// The keys with a limited scope: (key, whether it is set, its scope).
    fn scoped_keys(&self) -> [(&'static str, bool, KeyScope); 22] {
        let external = KeyScope::Kinds(&["command", "url"]);
        [
            ("name", self.name.is_some(), KeyScope::Part),
            ("weight", self.weight.is_some(), KeyScope::Part),
            ("at_least", self.at_least.is_some(), KeyScope::Part),
            ("by_hand", self.by_hand, KeyScope::Whole),
            ("sum", self.sum.is_some(), KeyScope::Whole),
            ("reuse", !self.reuse.is_empty(), KeyScope::Whole),
            ("reuse_key", self.reuse_key.is_some(), KeyScope::Whole),
            ("version", self.version.is_some(), KeyScope::Whole),
            ("trust_scores", self.trust_scores, KeyScope::Whole),
            ("direction", self.direction != Direction::default(), KeyScope::Whole),
            ("on_error", self.on_error != OnError::default(), KeyScope::Whole),
            ("files", self.files.is_some(), KeyScope::Kinds(&["command", "url", "call"])),
            ("mode", self.mode.is_some(), KeyScope::Kinds(&["command"])),
            ("format", self.format.is_some(), KeyScope::Kinds(&["command"])),
            ("workers", self.workers.is_some(), KeyScope::Kinds(&["command", "call"])),
            ("concurrency", self.concurrency.is_some(), KeyScope::Kinds(&["url"])),
            ("headers", self.headers.is_some(), KeyScope::Kinds(&["url"])),
            ("batch_size", self.batch_size.is_some(), KeyScope::Kinds(&["command", "url", "call"])),
            ("timeout", self.timeout.is_some(), external),
            ("retries", self.retries.is_some(), external),
            ("patience", self.patience.is_some(), external),
            ("embeddings", self.embeddings.is_some(), external),
        ]
    }

    /// Sets the options of an external scorer.
    fn configure<C: ScorerClient>(&self, place: &str, mut score: ExternalScore<C>) -> Result<ExternalScore<C>> {
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
            let invalid = || Error::Config(format!("{place}.timeout: expected more than 0 seconds, found {seconds}"));
            score = score.timeout(timeout.ok_or_else(invalid)?);
        }
        if let Some(retries) = self.retries {
            score = score.retries(retries);
        }
        if let Some(seconds) = self.patience {
            let invalid = |_| Error::Config(format!("{place}.patience: expected 0 seconds or more, found {seconds}"));
            score = score.patience(Duration::try_from_secs_f64(seconds).map_err(invalid)?);
        }
        Ok(score)
    }
}

/// Formats names as alternatives: `` `a`, `b` or `c` ``.
fn alternatives(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        Some((last, others)) if !others.is_empty() => format!("{} or {last}", others.join(", ")),
        _ => quoted.concat(),
    }
}

fn at_least_one(place: &str, key: &str, value: Option<usize>) -> Result<Option<usize>> {
    match value {
        Some(0) => Err(Error::Config(format!("{place}.{key}: expected at least 1, found 0"))),
        value => Ok(value),
    }
}

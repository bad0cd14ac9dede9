//! `uphill search --dry-run`: what a search would do. It reads the library, runs the first vector search and the filter,
//! and neither calls the scorer nor writes anything.

use std::collections::HashSet;
use std::path::Path;
use std::time::Instant;

use polars::prelude::DataFrame;
use serde_json::{Map, Value, json};

use super::output::{count, duration};
use crate::config::{Config, Direction, ScoreConfig, UpdateConfig};
use crate::database::{LanceDatabase, QueryOptions, VectorDatabase};
use crate::error::Result;
use crate::features::Features;
use crate::filter::{Filter, SqlFilter};
use crate::frame::schema::{DB_IDX, EMBEDDING, GRADIENT, u64s};
use crate::frame::text::format_number;
use crate::log::SearchLog;
use crate::runner::{Runner, StopConditions};
use crate::sql::columns_of;

/// What a search with this configuration into the folder `out` would do, as names and values. `log` is the run to resume.
pub fn dry_run(
    config: &Config,
    database: &LanceDatabase,
    runner: &Runner,
    queries: &DataFrame,
    out: &Path,
    log: Option<&SearchLog>,
) -> Result<Value> {
    let [filter_input, scorer_input] = runner.check_stages(queries)?;
    log.map_or(Ok(()), |log| runner.check_scorer_files(log))?;
    let rule = rule(config, database, &runner.columns_read())?;
    let mut plan = Map::new();
    let mut add = |name: &str, value: Value| plan.insert(name.into(), value);
    let index = database.identity().and_then(|identity| identity.index.as_ref());
    let version = database.identity().map_or(0, |identity| identity.version);
    let searchable = searchable_rows(config, database)?;

    add("library", format!("{}, version {version}", config.database.path).into());
    add("rows", database.len().into());
    if config.database.prefilter.is_some() {
        add("matching rows", searchable.into());
    }
    add("dim", database.dim().into());
    add("metric", database.metric().to_string().into());
    add(
        "index",
        match index {
            Some(index) if database.uses_index() => format!("{}, {} partitions", index.kind, index.partitions).into(),
            Some(index) => format!("{}, not used (exact search)", index.kind).into(),
            None => "none (exact search)".into(),
        },
    );
    add("expected recall", expected_recall(config, database).into());
    add("columns", database.column_names().into());
    add("filter", config.filter.sql.clone().into());
    add("filter input", columns(&filter_input).into());
    add("filter columns", config.filter.sql.as_deref().map(distinct_columns_of).into());
    add("score", score_source(&config.score).into());
    if !runner.recorded_scorer_files().is_empty() {
        let file = |(name, content): (&String, &String)| Value::from(format!("{name} {content}"));
        add("scorer files", runner.recorded_scorer_files().iter().map(file).collect());
    }
    add("scorer input", columns(&sent_columns(config, &scorer_input)).into());
    add("score columns", score_columns(&config.score).into());
    add("rule", rule.into());
    add("starting queries", queries.height().into());
    add("first search", first_search(config, database, queries)?.into());
    let max_evaluations = config.max_evaluations(searchable, queries.height() as u64);
    add("max evaluations", max_evaluations.into());
    if config.stop.hit.is_some() {
        add("hits", hits(config).into());
    }
    if config.update.has_model() {
        add("forecast", forecast(config, max_evaluations).into());
    }
    if let Some(log) = log {
        add("resumes after", format!("{} iterations", log.iterations().len()).into());
    }
    add("memory", memory(config, database).into());
    let unused = config.unused_keys();
    if !unused.is_empty() {
        add("unused keys", unused.into());
    }
    add("would write", json!(files_to_write(config, out, log.is_some())));
    Ok(plan.into())
}

/// Number of items that a search can find.
fn searchable_rows(config: &Config, database: &LanceDatabase) -> Result<u64> {
    match config.database.prefilter {
        None => Ok(database.len()),
        Some(_) => {
            Ok(database.sample(usize::MAX, &mut crate::random::random_stream(config.seed, "plan", 0, 0))?.len() as u64)
        }
    }
}

fn expected_recall(config: &Config, database: &LanceDatabase) -> String {
    let wanted = config.database.recall.unwrap_or(crate::database::DEFAULT_RECALL);
    match (database.uses_index(), config.database.nprobes, database.recall_table()) {
        (false, ..) => "1 (exact search)".into(),
        (true, Some(nprobes), _) => format!("unknown for nprobes = {nprobes}; set database.recall instead"),
        (true, None, None) => "unknown: only `uphill index` measures it".into(),
        (true, None, Some(table)) => {
            let k = config.database.k;
            let mut levels = table.levels.iter().filter(|level| level.k >= k && level.recall >= wanted);
            let measured = levels.next().map(|level| {
                format!(
                    " (measured recall@{}: {}, with {} partitions per query on average)",
                    level.k,
                    format_number(level.measured_recall),
                    level.nprobes
                )
            });
            format!("{wanted}{}", measured.unwrap_or_default())
        }
    }
}

/// The columns of a frame with their types.
fn columns(frame: &DataFrame) -> Vec<String> {
    frame.columns().iter().map(|column| format!("{} {}", column.name(), column.dtype())).collect()
}

/// The items as they are sent to the scorer.
fn sent_columns(config: &Config, items: &DataFrame) -> DataFrame {
    let is_external = config.score.command.is_some() || config.score.url.is_some();
    let embeddings = config.score.embeddings.unwrap_or(!is_external);
    if embeddings { items.clone() } else { items.drop_many([EMBEDDING]) }
}

/// A description of the score.
fn score_source(score: &ScoreConfig) -> String {
    let named = score.name.as_ref().map_or(String::new(), |name| format!("{name}: "));
    let source = match score {
        ScoreConfig { sql: Some(sql), .. } => format!("sql {sql}"),
        ScoreConfig { command: Some(arguments), .. } => format!("command {}", arguments.join(" ")),
        ScoreConfig { url: Some(url), .. } => format!("url {url}"),
        ScoreConfig { sum: Some(parts), .. } => {
            format!("the sum of {}", parts.iter().map(score_source).collect::<Vec<_>>().join(" and "))
        }
        _ => "by hand (uphill ask, uphill tell)".into(),
    };
    named + &source
}

/// The columns of an SQL expression, without repetitions.
fn distinct_columns_of(sql: &str) -> Vec<String> {
    let mut seen = HashSet::new();
    columns_of(sql).into_iter().flatten().filter(|column| seen.insert(column.clone())).collect()
}

/// The columns that the score reads, if they are known. A command or a service may read any column that it is sent.
fn score_columns(score: &ScoreConfig) -> Option<Vec<String>> {
    match score {
        ScoreConfig { sql: Some(sql), .. } => Some(distinct_columns_of(sql)),
        ScoreConfig { sum: Some(parts), .. } => {
            let mut seen = HashSet::new();
            let all = parts.iter().filter_map(score_columns).flatten();
            Some(all.filter(|column| seen.insert(column.clone())).collect())
        }
        _ => None,
    }
}

/// The rule, and the columns that its model reads.
fn rule(config: &Config, database: &LanceDatabase, hidden: &[String]) -> Result<String> {
    let name = config.update.rule_name();
    let UpdateConfig::Surrogate { features, .. } = &config.update else { return Ok(name.into()) };
    let verb = if *features == Features::Auto { "may read" } else { "reads" };
    let columns = database.feature_columns(features, hidden)?;
    Ok(format!("{name}; {verb} {}", [&[EMBEDDING.to_string()][..], &columns].concat().join(", ")))
}

/// Which scores are hits (`stop.hit`), and when they end the search (`stop.no_hit`).
fn hits(config: &Config) -> Option<String> {
    let threshold = format_number(config.stop.hit?);
    let bound = if config.score.direction == Direction::Minimize { "at most" } else { "at least" };
    let end = match config.stop.no_hit {
        Some(scores) => format!(
            "after the first batch that completes {} scores in a row without one, the search ends (stop.no_hit)",
            count(scores)
        ),
        None => "stop.no_hit is not set, so hits do not end the search".into(),
    };
    Some(format!("scores of {bound} {threshold} (stop.hit); {end}"))
}

/// What forecasts count (`stop.top`), and when they end the search (`stop.scores_per_entry`).
fn forecast(config: &Config, max_evaluations: u64) -> String {
    let top = config.stop.top.unwrap_or(StopConditions::DEFAULT_TOP);
    if max_evaluations <= top as u64 && config.score.reuse.is_empty() && config.update.examples().is_none() {
        return format!(
            "none: it needs more than {top} scores (stop.top), and the search has at most {max_evaluations}"
        );
    }
    let end = match config.stop.scores_per_entry {
        Some(limit) => format!(
            "the search ends when an entry is expected to cost more than {} scores (stop.scores_per_entry)",
            format_number(limit)
        ),
        None => "stop.scores_per_entry is not set, so forecasts do not end the search".into(),
    };
    format!("expected entries into the best {top} scores, once {top} items have a score; {end}")
}

/// The number of items that the starting queries find and that pass the filter, and the time of the search.
fn first_search(config: &Config, database: &LanceDatabase, queries: &DataFrame) -> Result<String> {
    let begin = Instant::now();
    let found = database.query(&queries.drop_many([GRADIENT]), QueryOptions::default())?;
    let seconds = begin.elapsed().as_secs_f64();
    let distinct = |frame: &DataFrame| u64s(frame, DB_IDX).map(|ids| ids.into_iter().collect::<HashSet<_>>());
    let query_count = queries.height();
    let items = distinct(&found)?.len();
    let passing = match &config.filter.sql {
        None => String::new(),
        Some(sql) => {
            let passed = distinct(&SqlFilter::new(sql).filter(found)?)?.len() as u64;
            if passed == 0 && items > 0 {
                log::warn!(
                    "filter.sql: none of the {} items that the starting queries find passes the filter",
                    count(items as u64)
                );
            }
            format!(", {} pass the filter", count(passed))
        }
    };
    Ok(format!("{query_count} queries find {} items in {}{passing}", count(items as u64), duration(seconds)))
}

/// The expected memory use.
fn memory(config: &Config, database: &LanceDatabase) -> String {
    let megabytes = |bytes: u64| format!("{} MB", count(bytes.div_ceil(1 << 20)));
    let cache = (config.database.index_cache_mb as u64) << 20;
    let embeddings = database.len() * database.dim() as u64 * 4;
    let library = match (database.uses_index(), embeddings <= cache) {
        (true, _) => format!("index: at most {}", megabytes(cache)),
        (false, true) => format!("embeddings: {}", megabytes(embeddings)),
        (false, false) => format!("embeddings: read in each search, as {} exceed the cache", megabytes(embeddings)),
    };
    let metadata = megabytes((config.database.metadata_cache_mb as u64) << 20);
    format!("{library}; metadata: at most {metadata}; plus the current batch and the rule")
}

/// The files that the search would write, in the run folder and with the dataset.
fn files_to_write(config: &Config, out: &Path, resumed: bool) -> Vec<String> {
    let mut names = vec!["run.json", "queries/", "results/", "times.jsonl", "ledger/"];
    let is_sql = |score: &ScoreConfig| score.sql.is_some();
    let has_only_sql = is_sql(&config.score) || config.score.sum.as_ref().is_some_and(|parts| parts.iter().all(is_sql));
    if !has_only_sql {
        names.push("stderr/");
    }
    let out = out.display();
    let mut files: Vec<String> = names.into_iter().map(|name| format!("{out}/{name}")).collect();
    if !resumed {
        files.push(format!("a tag uphill-run-… in {}", config.database.path));
    }
    if matches!(&config.update, UpdateConfig::Surrogate { features, .. } if *features != Features::Columns(vec![])) {
        files.push(format!("{}/_uphill, unless the features of the rule are already there", config.database.path));
    }
    files
}

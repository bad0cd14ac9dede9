//! `uphill search --dry-run`: what a search would do. It writes nothing and asks no scorer; it reads the library, as the
//! first vector search would, and looks at what passes the filter.

use std::collections::HashSet;
use std::path::Path;
use std::time::Instant;

use polars::prelude::DataFrame;
use serde_json::{Map, Value, json};

use super::output::{count, seconds};
use crate::config::{Config, ScoreConfig, UpdateConfig};
use crate::database::{LanceDatabase, QueryOptions, VectorDatabase};
use crate::error::Result;
use crate::features::Features;
use crate::filter::{Filter, SqlFilter};
use crate::frame::schema::{DB_IDX, EMBEDDING, GRADIENT, u64s};
use crate::log::SearchLog;
use crate::runner::Runner;
use crate::sql::columns_of;

/// What a search of a run file into a run folder would do, as names and values.
pub fn plan(
    config: &Config,
    database: &LanceDatabase,
    runner: &Runner,
    queries: &DataFrame,
    out: &Path,
    log: Option<&SearchLog>,
) -> Result<Value> {
    let [met, items] = runner.check_stages(queries)?;
    let rule = rule(config, database, &runner.columns_read())?;
    let mut plan = Map::new();
    let mut say = |name: &str, value: Value| plan.insert(name.into(), value);
    let index = database.identity().and_then(|identity| identity.index.as_ref());
    let version = database.identity().map_or(0, |identity| identity.version);
    let library = findable(config, database)?;

    say("library", format!("{}, version {version}", config.database.path).into());
    say("rows", database.len().into());
    if config.database.prefilter.is_some() {
        say("rows that match", library.into());
    }
    say("dim", database.dim().into());
    say("metric", database.metric().to_string().into());
    say(
        "index",
        match index {
            Some(index) if database.uses_index() => format!("{}, {} partitions", index.kind, index.partitions).into(),
            Some(index) => format!("{}, not used: each search looks at every item", index.kind).into(),
            None => "none: each search looks at every item".into(),
        },
    );
    say("recall expected", recall(config, database).into());
    say("columns read", database.column_names().into());
    say("filter", config.filter.sql.clone().into());
    say("filter sees", columns(&met).into());
    say("filter reads", config.filter.sql.as_deref().map(distinct_columns_of).into());
    say("score", scorer(&config.score).into());
    say("score sees", columns(&sent(config, &items)).into());
    say("score reads", reads(&config.score).into());
    say("rule", rule.into());
    say("starting queries", queries.height().into());
    say("first search", first_search(config, database, queries)?.into());
    say("scored at most", config.max_evaluations(library, queries.height() as u64).into());
    if let Some(log) = log {
        say("goes on after", format!("{} iterations", log.iterations().len()).into());
    }
    say("memory", memory(config, database).into());
    let unused = config.unused_keys();
    if !unused.is_empty() {
        say("not used", unused.into());
    }
    say("would write", json!(writes(config, out, log.is_some())));
    Ok(plan.into())
}

/// Items that can be met.
fn findable(config: &Config, database: &LanceDatabase) -> Result<u64> {
    match config.database.prefilter {
        None => Ok(database.len()),
        Some(_) => {
            Ok(database.sample(usize::MAX, &mut crate::random::random_stream(config.seed, "plan", 0, 0))?.len() as u64)
        }
    }
}

fn recall(config: &Config, database: &LanceDatabase) -> String {
    let wanted = config.database.recall.unwrap_or(crate::database::DEFAULT_RECALL);
    match (database.uses_index(), config.database.nprobes, database.recall_table()) {
        (false, ..) => "1: each search looks at every item".into(),
        (true, Some(nprobes), _) => format!("not known with nprobes = {nprobes}; database.recall asks for one"),
        (true, None, None) => "not measured: `uphill index` does that".into(),
        (true, None, Some(table)) => {
            let k = config.database.k;
            let mut levels = table.levels.iter().filter(|level| level.k >= k && level.recall >= wanted);
            let measured = levels.next().map(|level| {
                format!(
                    " (recall@{} was measured as {} with {} partitions a query in the mean)",
                    level.k,
                    crate::frame::text::format_number(level.measured),
                    level.nprobes
                )
            });
            format!("{wanted}{}", measured.unwrap_or_default())
        }
    }
}

/// Columns with their types.
fn columns(frame: &DataFrame) -> Vec<String> {
    frame.columns().iter().map(|column| format!("{} {}", column.name(), column.dtype())).collect()
}

/// What the scorer is sent of the items.
fn sent(config: &Config, items: &DataFrame) -> DataFrame {
    let outside = config.score.command.is_some() || config.score.url.is_some();
    let embeddings = config.score.embeddings.unwrap_or(!outside);
    if embeddings { items.clone() } else { items.drop_many([EMBEDDING]) }
}

fn scorer(score: &ScoreConfig) -> String {
    let named = score.name.as_ref().map_or(String::new(), |name| format!("{name}: "));
    let what = match score {
        ScoreConfig { sql: Some(sql), .. } => format!("sql {sql}"),
        ScoreConfig { command: Some(arguments), .. } => format!("command {}", arguments.join(" ")),
        ScoreConfig { url: Some(url), .. } => format!("url {url}"),
        ScoreConfig { sum: Some(parts), .. } => {
            format!("the sum of {}", parts.iter().map(scorer).collect::<Vec<_>>().join(" and "))
        }
        _ => "by hand: uphill ask, uphill tell".into(),
    };
    named + &what
}

fn distinct_columns_of(sql: &str) -> Vec<String> {
    let mut seen = HashSet::new();
    columns_of(sql).into_iter().flatten().filter(|column| seen.insert(column.clone())).collect()
}

/// The columns that the score is known to read: what a command or a service reads of those it is sent, nobody can know.
fn reads(score: &ScoreConfig) -> Option<Vec<String>> {
    match score {
        ScoreConfig { sql: Some(sql), .. } => Some(distinct_columns_of(sql)),
        ScoreConfig { sum: Some(parts), .. } => {
            let mut seen = HashSet::new();
            let all = parts.iter().filter_map(reads).flatten();
            Some(all.filter(|column| seen.insert(column.clone())).collect())
        }
        _ => None,
    }
}

/// The rule, and the columns that its model is shown.
fn rule(config: &Config, database: &LanceDatabase, hidden: &[String]) -> Result<String> {
    let (features, reads) = match &config.update {
        UpdateConfig::Surrogate { features: features @ Features::Columns(_), .. } => (features, "reads"),
        UpdateConfig::Surrogate { features: features @ Features::Auto, .. } => (features, "may read"),
        UpdateConfig::Rl { .. } => return Ok("rl".into()),
        UpdateConfig::TopK { .. } => return Ok("top-k".into()),
        UpdateConfig::TopKDiscrete { .. } => return Ok("top-k-discrete".into()),
    };
    let columns = database.feature_columns(features, hidden)?;
    Ok(format!("surrogate; {reads} {}", [&[EMBEDDING.to_string()][..], &columns].concat().join(", ")))
}

/// What the starting queries meet, how much of it passes the filter, and how long that took here.
fn first_search(config: &Config, database: &LanceDatabase, queries: &DataFrame) -> Result<String> {
    let begin = Instant::now();
    let met = database.query(&queries.drop_many([GRADIENT]), QueryOptions::default())?;
    let took = begin.elapsed().as_secs_f64();
    let different = |frame: &DataFrame| u64s(frame, DB_IDX).map(|ids| ids.into_iter().collect::<HashSet<_>>());
    let asked = queries.height();
    let items = different(&met)?.len();
    let passes = match &config.filter.sql {
        None => String::new(),
        Some(sql) => {
            let passing = different(&SqlFilter::new(sql).filter(met)?)?.len() as u64;
            if passing == 0 && items > 0 {
                log::warn!(
                    "filter.sql: none of the {} items that the starting queries meet passes it",
                    count(items as u64)
                );
            }
            format!(", {} pass the filter", count(passing))
        }
    };
    Ok(format!("{asked} queries meet {} items in {}{passes}", count(items as u64), seconds(took)))
}

fn memory(config: &Config, database: &LanceDatabase) -> String {
    let megabytes = |bytes: u64| format!("{} MB", count(bytes.div_ceil(1 << 20)));
    let cache = (config.database.index_cache_mb as u64) << 20;
    let embeddings = database.len() * database.dim() as u64 * 4;
    let library = match (database.uses_index(), embeddings <= cache) {
        (true, _) => format!("the index, at most {}", megabytes(cache)),
        (false, true) => format!("the embeddings, {}", megabytes(embeddings)),
        (false, false) => format!("the embeddings are read in each search: {} do not fit", megabytes(embeddings)),
    };
    let metadata = megabytes((config.database.metadata_cache_mb as u64) << 20);
    format!("{library}; metadata, at most {metadata}; the batch in hand and the rule beside them")
}

/// Files, and what is noted with the dataset.
fn writes(config: &Config, out: &Path, resumed: bool) -> Vec<String> {
    let mut names = vec!["run.json", "queries/", "results/", "times.jsonl", "ledger/"];
    let is_sql = |score: &ScoreConfig| score.sql.is_some();
    let free = is_sql(&config.score) || config.score.sum.as_ref().is_some_and(|parts| parts.iter().all(is_sql));
    if !free {
        names.push("stderr/");
    }
    let out = out.display();
    let mut writes: Vec<String> = names.into_iter().map(|name| format!("{out}/{name}")).collect();
    if !resumed {
        writes.push(format!("a tag uphill-run-… in {}", config.database.path));
    }
    if matches!(&config.update, UpdateConfig::Surrogate { features, .. } if *features != Features::Columns(vec![])) {
        writes.push(format!("{}/_uphill, if what the rule reads is not there yet", config.database.path));
    }
    writes
}

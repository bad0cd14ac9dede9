//! `uphill inspect`: the properties of a dataset or of a run.

use std::path::PathBuf;

use serde_json::json;

use super::output::{final_forecast, final_hits, forecast_json, print_properties};
use crate::calibration::Calibration;
use crate::database::{LanceDatabase, VectorDatabase};
use crate::frame::schema::{RAW_SCORE, SCORE};
use crate::log::{Manifest, SearchLog};

pub fn inspect(path: PathBuf, json: bool) -> anyhow::Result<()> {
    // The names in JSON are stable.
    let label = |key: &'static str, label: &'static str| if json { key } else { label };
    let (mut calibration, mut scorer_files, mut hits, mut audit) = (None, None, None, None);
    let mut properties = if path.join("run.json").exists() {
        let log = SearchLog::open(&path)?;
        let best = log.compile_results()?.limit(1).collect()?;
        let best = Some(best).filter(|best| best.height() > 0);
        let manifest = log.manifest();
        calibration = Calibration::read(&log)?;
        scorer_files = Some(manifest.scorer_files.clone()).filter(|files| !files.is_empty());
        hits = manifest.ended.as_ref().and_then(|ended| ended.hits).map(|hits| match json {
            true => json!(hits),
            false => final_hits(&log).into(),
        });
        audit = manifest.audit;
        json!({
            "run": path,
            "format": manifest.format_version,
            "uphill": manifest.uphill_version,
            "dataset": manifest.dataset.as_ref().map(|dataset| &dataset.uri),
            "dataset version": manifest.dataset.as_ref().map(|dataset| dataset.version),
            "dataset tag": manifest.version_tag,
            "seed": manifest.seed,
            "iterations": log.iterations().len(),
            label("ended", "status"): manifest.status(),
            "evaluations": manifest.ended.as_ref().map(|ended| ended.evaluations),
            "items scored": manifest.ended.as_ref().map(|ended| ended.scored.unwrap_or(ended.evaluations)),
            "items reused": manifest.ended.as_ref().map(|ended| ended.reused),
            "items rejected": manifest.ended.as_ref().map(|ended| ended.rejected),
            "items failed": manifest.ended.as_ref().map(|ended| ended.failed),
            "items retried": manifest.ended.as_ref().map(|ended| ended.retries),
            label("items asked again after a stop", "scored again"): manifest.ended.as_ref().map(|ended| ended.scored_again),
            label("columns that say about the score", "relevance"): manifest.ended.as_ref().map(|ended| relevance(&ended.relevance)),
            "forecast": match json {
                true => manifest.ended.as_ref().and_then(|ended| ended.forecast.as_ref()).map(forecast_json),
                false => final_forecast(&log).map(Into::into),
            },
            // As given by the scorer.
            "best score": best.as_ref().and_then(|best| {
                best.column(RAW_SCORE).or_else(|_| best.column(SCORE)).ok()?.f64().ok()?.get(0)
            }),
            "best item": best.as_ref().and_then(|best| best.column("db_idx").ok()?.u64().ok()?.get(0)),
        })
    } else {
        let database = LanceDatabase::open(path.to_string_lossy())?;
        let identity = database.identity().cloned();
        let Some(identity) = identity else { return Ok(()) };
        let index = identity.index.as_ref();
        let recall = match (database.recall_table(), json) {
            (Some(table), true) => serde_json::to_value(table)?,
            (Some(table), false) => table.to_string().lines().collect::<Vec<_>>().join("; ").into(),
            (None, _) => serde_json::Value::Null,
        };
        json!({
            "dataset": path,
            "rows": identity.rows,
            "rows without an embedding": identity.without_embedding,
            "dim": identity.dim,
            "metric": identity.metric,
            "index": index.map_or("none (exact search)".into(), |index| index.kind.clone()),
            "partitions": index.map(|index| index.partitions),
            "unindexed rows": index.map(|index| index.unindexed_rows),
            "recall": recall,
            "version": identity.version,
            "ids": identity.ids,
            "library id": identity.library_id,
            "columns": database.column_names(),
        })
    };
    // Only runs whose scorer has files, and whose version is not set.
    if let Some(files) = scorer_files {
        let texts = files.iter().map(|(name, contents)| format!("{name} {}", Manifest::describe_contents(contents)));
        let text = || texts.collect::<Vec<_>>().join("; ").into();
        properties["scorer files"] = if json { serde_json::to_value(&files)? } else { text() };
    }
    // Only runs with hits, an audit or predictions have these names.
    if let Some(hits) = hits {
        properties["hits"] = hits;
    }
    if let Some(audit) = audit {
        properties["audit"] = if json { json!(audit) } else { audit.to_string().into() };
    }
    if let Some(calibration) = calibration {
        if json {
            properties["predictions"] = serde_json::to_value(calibration)?;
        } else {
            properties["predictions"] = calibration.summary().into();
            properties["model"] = calibration.comparison().into();
        }
    }
    Ok(print_properties(&properties, json)?)
}

/// The relevance weight of each feature column, as JSON.
fn relevance(weights: &[(String, f32)]) -> serde_json::Value {
    weights.iter().map(|(column, weight)| (column.clone(), json!(weight))).collect::<serde_json::Map<_, _>>().into()
}

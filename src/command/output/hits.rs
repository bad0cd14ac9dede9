//! Hits (`stop.hit`) and audits as text, and how to continue a run that `stop.no_hit` ended.

use std::path::Path;

use serde_json::{Value, json};

use super::logger::{info, json_event, verbosity};
use crate::audit::Audit;
use crate::log::{RunSummary, SearchLog, StopReason};

/// The hits of a run that has ended. If too many scores without one ended it: the limit, and how to continue.
pub fn final_hits(log: &SearchLog) -> Option<String> {
    let (ended, config) = (log.manifest().ended.as_ref()?, &log.manifest().config);
    let hits = ended.hits.as_ref()?;
    let limit = config["stop"]["no_hit"].as_u64().filter(|_| ended.reason == StopReason::NoHit);
    let Some(limit) = limit else { return Some(hits.to_string()) };
    let resume = if config["score"]["by_hand"] == true { "ask again with" } else { "use --resume" };
    Some(format!("{hits}, at least stop.no_hit = {limit}; to continue, {resume}{}", raised_no_hit(ended)))
}

/// The option that raises `stop.no_hit` to twice the number of scores without a hit.
pub fn raised_no_hit(ended: &RunSummary) -> String {
    let scores = ended.hits.map_or(0, |hits| hits.scores_since_hit);
    format!(" --set stop.no_hit={}", scores.saturating_mul(2).max(1))
}

/// Prints the result of an audit.
pub fn print_audit(run: &Path, audit: &Audit) {
    if !verbosity().is_json() {
        return info(audit);
    }
    let mut event = json!({ "event": "audit", "run": run });
    if let (Value::Object(event), Ok(Value::Object(audit))) = (&mut event, serde_json::to_value(audit)) {
        event.extend(audit);
    }
    json_event(&event);
}

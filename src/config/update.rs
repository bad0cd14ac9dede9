//! The sections `[update]`, `[prune]`, `[restart]` and `[gradient]`: the update rule and its wrappers.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::features::Features;
use crate::surrogate::SurrogateUpdate;
use crate::update::{
    Aggregation, GradientUpdate, Norm, PruneUpdate, QueryGroup, RestartUpdate, RlUpdate, TopKDiscreteUpdate, TopKPrune,
    TopKUpdate, UpdateRule,
};

/// The `[update]` section: the update rule. Without the key `rule`, the section configures the default rule, `surrogate`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "rule", rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum UpdateConfig {
    /// [`RlUpdate`].
    Rl {
        /// The learning rates (step lengths). With several, each query branches: one child for each.
        #[serde(default)]
        lr: LearningRates,
        /// The weight of the pull towards the mean of a query's neighbours.
        #[serde(default)]
        distance_penalty: f64,
        /// Whether the pull is independent of `lr`.
        #[serde(default = "default_true")]
        scale_distance_penalty: bool,
        /// The largest norm of the gradient. Longer gradients are clipped.
        #[serde(default)]
        max_norm: Option<f64>,
        /// The norm: `l2`, `l1` or `max`.
        #[serde(default)]
        norm: Option<Norm>,
    },
    /// [`TopKUpdate`].
    TopK {
        /// The number of best neighbours whose mean a query moves to.
        #[serde(default = "default_update_k")]
        k: usize,
        /// Whether the mean is weighted by score.
        #[serde(default = "default_true")]
        score_weighting: bool,
    },
    /// [`TopKDiscreteUpdate`].
    TopKDiscrete {
        /// The number of best neighbours that a query branches to.
        #[serde(default = "default_update_k")]
        k: usize,
    },
    /// [`SurrogateUpdate`], the default.
    Surrogate {
        /// The number of items scored per iteration (default: grows from 5 to 32).
        batch: Option<usize>,
        /// The largest number of observations that the models are fitted to.
        #[serde(default = "default_points")]
        points: usize,
        /// The number of batches that may be in flight when the next one is selected (default 0: batches are synchronous).
        #[serde(default, skip_serializing_if = "is_zero")]
        behind: usize,
        /// The features that the model reads besides the embeddings: `"auto"`, or a list of columns.
        #[serde(default, skip_serializing_if = "Features::is_auto")]
        features: Features,
        /// A file with items that are known to be good or bad, to start from ([`Runner::examples`](crate::Runner::examples)).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        examples: Option<PathBuf>,
    },
}

impl Default for UpdateConfig {
    fn default() -> Self {
        UpdateConfig::Surrogate {
            batch: None,
            points: default_points(),
            behind: 0,
            features: Features::Auto,
            examples: None,
        }
    }
}

/// One or several learning rates (step lengths).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a number or a list of numbers")]
pub enum LearningRates {
    /// Each query moves with this learning rate.
    One(f64),
    /// Each query branches: one child for each learning rate.
    Several(Vec<f64>),
}

impl Default for LearningRates {
    fn default() -> Self {
        LearningRates::One(0.5)
    }
}

/// The `[prune]` section: keeps the best queries of each group ([`TopKPrune`]). Without this section, all queries continue.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct PruneConfig {
    /// The number of queries to keep per group.
    pub k: usize,
    /// The score of a query: the `mean` or the `max` of the scores of its neighbours.
    #[serde(default)]
    pub worth: Aggregation,
    /// The queries that compete with each other: those of a `collection`, those of a `parent`, or all (`global`).
    #[serde(default)]
    pub group: QueryGroup,
}

/// The `[restart]` section: restarts a query at a random item when it finds no new items ([`RestartUpdate`]). Without this
/// section, queries never restart.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct RestartConfig {
    /// The number of iterations in a row without a new item.
    #[serde(default = "default_restart_after")]
    pub after: u32,
}

/// Whether to leave `behind` out of run.json, which then equals that of runs from before this key existed.
fn is_zero(behind: &usize) -> bool {
    *behind == 0
}

fn default_true() -> bool {
    true
}

fn default_update_k() -> usize {
    3
}

fn default_points() -> usize {
    1000
}

fn default_restart_after() -> u32 {
    3
}

/// The `[gradient]` section: queries also search along the gradient of the score ([`GradientUpdate`]). Without this section, they
/// search only at their own position.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct GradientConfig {
    /// The step lengths along the gradient at which to search. 0 is the position of the query.
    pub scales: Vec<f64>,
    /// The weight of the pull towards the mean of the parent's neighbours.
    #[serde(default)]
    pub distance_penalty: f64,
    /// The largest norm of the gradient. Longer gradients are clipped.
    pub max_norm: Option<f64>,
    /// The norm: `l2`, `l1` or `max`.
    pub norm: Option<Norm>,
}

impl UpdateConfig {
    /// The rule of an `[update]` section without the key `rule`.
    pub(super) const DEFAULT_RULE: &str = "surrogate";

    /// The name of the rule in run files.
    pub(crate) fn rule_name(&self) -> &'static str {
        match self {
            UpdateConfig::Rl { .. } => "rl",
            UpdateConfig::TopK { .. } => "top-k",
            UpdateConfig::TopKDiscrete { .. } => "top-k-discrete",
            UpdateConfig::Surrogate { .. } => "surrogate",
        }
    }

    /// Whether the rule has a model that predicts scores.
    pub(crate) fn has_model(&self) -> bool {
        matches!(self, UpdateConfig::Surrogate { .. })
    }

    /// The file with items that are known to be good or bad.
    pub(crate) fn examples(&self) -> Option<&PathBuf> {
        if let UpdateConfig::Surrogate { examples, .. } = self { examples.as_ref() } else { None }
    }

    /// As [`UpdateConfig::examples`], to change it.
    pub(super) fn examples_mut(&mut self) -> Option<&mut PathBuf> {
        if let UpdateConfig::Surrogate { examples, .. } = self { examples.as_mut() } else { None }
    }

    /// The number of batches that may be in flight when the next one is selected.
    pub(super) fn batches_in_flight(&self) -> usize {
        if let UpdateConfig::Surrogate { behind, .. } = self { *behind } else { 0 }
    }

    /// Warns if batches are too small to keep all workers busy.
    pub(super) fn warn_about_idle_workers(&self, workers: usize) {
        let UpdateConfig::Surrogate { batch, behind, .. } = self else { return };
        let max_items = batch.unwrap_or(SurrogateUpdate::LARGEST_BATCH).saturating_mul(behind + 1);
        if (1..workers).contains(&max_items) {
            log::warn!(
                "update.batch: at most {max_items} items are scored at a time, so {} of {workers} workers are idle; set it to {workers}",
                workers - max_items
            );
        }
    }

    /// Builds the rule of these sections. `announces_few_values`: the settings say that scores are yes or no, or grades.
    pub(super) fn rule(
        &self,
        (prune, restart, gradient): (Option<&PruneConfig>, Option<&RestartConfig>, Option<&GradientConfig>),
        announces_few_values: bool,
    ) -> Box<dyn UpdateRule> {
        let mut rule: Box<dyn UpdateRule> = match self {
            UpdateConfig::Rl { lr, distance_penalty, scale_distance_penalty, max_norm, norm } => {
                let mut rule = match lr {
                    LearningRates::One(lr) => RlUpdate::new(*lr),
                    LearningRates::Several(rates) => RlUpdate::branching(rates.clone()),
                };
                rule = rule.distance_penalty(*distance_penalty).scale_distance_penalty(*scale_distance_penalty);
                if let Some(max_norm) = max_norm {
                    rule = rule.max_norm(*max_norm);
                }
                Box::new(rule.norm(norm.unwrap_or_default()))
            }
            UpdateConfig::TopK { k, score_weighting } => {
                Box::new(TopKUpdate::new(*k).score_weighting(*score_weighting))
            }
            UpdateConfig::TopKDiscrete { k } => Box::new(TopKDiscreteUpdate::new(*k)),
            UpdateConfig::Surrogate { batch, points, behind, features, examples: _ } => {
                let rule = SurrogateUpdate::new().points(*points).behind(*behind).features(features.clone());
                let rule = rule.announce_few_values(announces_few_values);
                Box::new(batch.iter().fold(rule, |rule, batch| rule.batch(*batch)))
            }
        };
        if let Some(prune) = prune {
            rule =
                Box::new(PruneUpdate::new(TopKPrune::new(prune.k).aggregation(prune.worth).group(prune.group), rule));
        }
        if let Some(restart) = restart {
            rule = Box::new(RestartUpdate::new(restart.after, rule));
        }
        if let Some(gradient) = gradient {
            let mut with_gradient = GradientUpdate::new(rule).distance_penalty(gradient.distance_penalty);
            if let Some(max_norm) = gradient.max_norm {
                with_gradient = with_gradient.max_norm(max_norm);
            }
            rule = Box::new(with_gradient.norm(gradient.norm.unwrap_or_default()));
        }
        rule
    }
}

//! `[update]`, `[prune]`, `[restart]` and `[gradient]`: the update rule and what is added to it.

use serde::{Deserialize, Serialize};

use crate::features::Features;
use crate::surrogate::SurrogateUpdate;
use crate::update::{
    Aggregation, GradientUpdate, Norm, PruneUpdate, QueryGroup, QueryUpdate, RestartUpdate, RlUpdate,
    TopKDiscreteUpdate, TopKPrune, TopKUpdate,
};

/// `[update]`: the rule that moves the queries. Without `rule`, the section is of the default rule.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "rule", rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum UpdateConfig {
    /// [`RlUpdate`].
    Rl {
        /// Step length. Each query branches into one per step length.
        #[serde(default)]
        lr: LearningRates,
        /// Weight of the pull towards the mean of a query's neighbours.
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
        /// A query moves to the mean of this number of its best items.
        #[serde(default = "default_update_k")]
        k: usize,
        /// Whether the mean is weighted by score.
        #[serde(default = "default_true")]
        score_weighting: bool,
    },
    /// [`TopKDiscreteUpdate`].
    TopKDiscrete {
        /// A query branches to this number of its best items.
        #[serde(default = "default_update_k")]
        k: usize,
    },
    /// [`SurrogateUpdate`], the default.
    Surrogate {
        /// Items scored per iteration (default: grows from 5 to 32).
        batch: Option<usize>,
        /// The largest number of observations that the models are fitted to.
        #[serde(default = "default_points")]
        points: usize,
        /// Asynchronous batches: how many may be in flight when the next one is chosen (default 0).
        #[serde(default, skip_serializing_if = "is_zero")]
        behind: usize,
        /// The features that the model reads besides the embeddings: `"auto"`, or a list of columns.
        #[serde(default, skip_serializing_if = "Features::is_auto")]
        features: Features,
    },
}

impl Default for UpdateConfig {
    fn default() -> Self {
        UpdateConfig::Surrogate { batch: None, points: default_points(), behind: 0, features: Features::Auto }
    }
}

/// One or several step lengths.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a number or a list of numbers")]
pub enum LearningRates {
    /// Each query moves.
    One(f64),
    /// Each query branches.
    Several(Vec<f64>),
}

impl Default for LearningRates {
    fn default() -> Self {
        LearningRates::One(0.5)
    }
}

/// `[prune]`: keeps the best queries of each group ([`TopKPrune`]). Without this section, all queries stay.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct PruneConfig {
    /// The number of queries to keep per group.
    pub k: usize,
    /// The value of a query: the `mean` or the `max` of its scores.
    #[serde(default)]
    pub worth: Aggregation,
    /// The group in which queries compete: those of a `collection` or `parent`, or all (`global`).
    #[serde(default)]
    pub group: QueryGroup,
}

/// `[restart]`: restarts a query at a random item when it finds nothing new ([`RestartUpdate`]). Without this section, queries
/// never restart.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct RestartConfig {
    /// The number of iterations in a row without a new item.
    #[serde(default = "default_restart_after")]
    pub after: u32,
}

/// Leaves `behind = 0` out of run.json, so that it equals that of runs from before the key existed.
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

/// `[gradient]`: queries also search along the gradient of the score ([`GradientUpdate`]). Without this section, they search
/// only at their own position.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct GradientConfig {
    /// The step lengths along the gradient. 0 is the query itself.
    pub scales: Vec<f64>,
    /// Weight of the pull towards the mean of the parent's neighbours.
    #[serde(default)]
    pub distance_penalty: f64,
    /// The largest norm of the gradient. Longer gradients are clipped.
    pub max_norm: Option<f64>,
    /// The norm: `l2`, `l1` or `max`.
    pub norm: Option<Norm>,
}

impl UpdateConfig {
    /// The rule of a section without `rule`.
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

    /// Whether the rule has a model of the scores, which predicts them.
    pub(crate) fn has_model(&self) -> bool {
        matches!(self, UpdateConfig::Surrogate { .. })
    }

    /// How many batches may be in flight when the next one is chosen.
    pub(super) fn batches_in_flight(&self) -> usize {
        if let UpdateConfig::Surrogate { behind, .. } = self { *behind } else { 0 }
    }

    /// Warns if batches are too small to keep all workers busy.
    pub(super) fn warn_about_idle_workers(&self, workers: usize) {
        let UpdateConfig::Surrogate { batch, behind, .. } = self else { return };
        let most = batch.unwrap_or(SurrogateUpdate::LARGEST_BATCH).saturating_mul(behind + 1);
        if (1..workers).contains(&most) {
            log::warn!(
                "update.batch: at most {most} items are scored at a time, so {} of {workers} workers are idle; set it to {workers}",
                workers - most
            );
        }
    }

    /// Builds the rule of these sections.
    pub(super) fn rule(
        &self,
        prune: Option<&PruneConfig>,
        restart: Option<&RestartConfig>,
        gradient: Option<&GradientConfig>,
    ) -> Box<dyn QueryUpdate> {
        let mut rule: Box<dyn QueryUpdate> = match self {
            UpdateConfig::Rl { lr, distance_penalty, scale_distance_penalty, max_norm, norm } => {
                let mut rule = match lr {
                    LearningRates::One(lr) => RlUpdate::new(*lr),
                    LearningRates::Several(lrs) => RlUpdate::branching(lrs.clone()),
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
            UpdateConfig::Surrogate { batch, points, behind, features } => {
                let rule = SurrogateUpdate::new().points(*points).behind(*behind).features(features.clone());
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

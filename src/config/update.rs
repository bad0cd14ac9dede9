//! `[update]`, `[prune]`, `[restart]` and `[gradient]`: how the queries move, which go on, where they begin again,
//! and what they ask beside.

use serde::{Deserialize, Serialize};

use super::{half, thousand, three, yes};
use crate::features::Features;
use crate::surrogate::SurrogateUpdate;
use crate::update::{
    Aggregation, GradientUpdate, Norm, PruneUpdate, QueryGroup, QueryUpdate, RestartUpdate, RlUpdate,
    TopKDiscreteUpdate, TopKPrune, TopKUpdate,
};

/// `[update]`: how the queries move. Without a `rule`, the section is of the default one.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "rule", rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum UpdateConfig {
    /// [`RlUpdate`].
    Rl {
        /// Step length; several make a query branch.
        #[serde(default)]
        lr: LearningRates,
        /// Pull to the mean of what a query met.
        #[serde(default)]
        distance_penalty: f64,
        /// Whether the pull is the same for every `lr`.
        #[serde(default = "yes")]
        scale_distance_penalty: bool,
        /// The longest gradient that is followed.
        #[serde(default)]
        max_norm: Option<f64>,
        /// How its length is measured: `l2`, `l1` or `max`.
        #[serde(default)]
        norm: Option<Norm>,
    },
    /// [`TopKUpdate`].
    TopK {
        /// Items whose mean a query moves to.
        #[serde(default = "three")]
        k: usize,
        /// Whether better items weigh more.
        #[serde(default = "yes")]
        score_weighting: bool,
    },
    /// [`TopKDiscreteUpdate`].
    TopKDiscrete {
        /// Items that a query goes on to.
        #[serde(default = "three")]
        k: usize,
    },
    /// [`SurrogateUpdate`], the default.
    Surrogate {
        /// Items scored per iteration; grows from 5 to 32 where nothing is said.
        batch: Option<usize>,
        /// Items asked that the models are fitted to, at most.
        #[serde(default = "thousand")]
        points: usize,
        /// Batches that may be out when the next is chosen; 0 where nothing is said.
        #[serde(default, skip_serializing_if = "is_none_behind")]
        behind: usize,
        /// What the model reads of the items beside their embeddings: `"auto"`, or a list of columns.
        #[serde(default, skip_serializing_if = "Features::is_auto")]
        features: Features,
    },
}

impl Default for UpdateConfig {
    fn default() -> Self {
        UpdateConfig::Surrogate { batch: None, points: thousand(), behind: 0, features: Features::Auto }
    }
}

/// One step length, or several.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a number or a list of numbers")]
pub enum LearningRates {
    /// Queries move.
    One(f64),
    /// Queries branch.
    Several(Vec<f64>),
}

impl Default for LearningRates {
    fn default() -> Self {
        LearningRates::One(half())
    }
}

/// `[prune]`: which queries go on ([`TopKPrune`]); all, without this section.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct PruneConfig {
    /// Queries of each group.
    pub k: usize,
    /// What a query is worth: `mean` or `max` of the scores it met.
    #[serde(default)]
    pub worth: Aggregation,
    /// Which queries compete: those of one `collection` or `parent`, or all (`global`).
    #[serde(default)]
    pub group: QueryGroup,
}

/// `[restart]`: when a query begins again at a random item ([`RestartUpdate`]); never, without this section.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct RestartConfig {
    /// Iterations in a row without a new item.
    #[serde(default = "three_times")]
    pub after: u32,
}

/// So that configurations of runs that were started before it could be said stay the same.
fn is_none_behind(behind: &usize) -> bool {
    *behind == 0
}

fn three_times() -> u32 {
    3
}

/// `[gradient]`: where queries ask along the gradient of the score ([`GradientUpdate`]); only at
/// themselves, without this section.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct GradientConfig {
    /// How far along it; 0 is the query itself.
    pub scales: Vec<f64>,
    /// Pull to the mean of what the parent met.
    #[serde(default)]
    pub distance_penalty: f64,
    /// The longest gradient.
    pub max_norm: Option<f64>,
    /// How its length is measured: `l2`, `l1` or `max`.
    pub norm: Option<Norm>,
}

impl UpdateConfig {
    /// The rule of a section that names none.
    pub(super) const DEFAULT_RULE: &str = "surrogate";

    /// How many batches may be out when the next is chosen.
    pub(super) fn behind(&self) -> usize {
        if let UpdateConfig::Surrogate { behind, .. } = self { *behind } else { 0 }
    }

    /// Names workers that will have nothing to do.
    pub(super) fn note_idle(&self, workers: usize) {
        let UpdateConfig::Surrogate { batch, behind, .. } = self else { return };
        let most = batch.unwrap_or(SurrogateUpdate::LARGEST_BATCH).saturating_mul(behind + 1);
        if (1..workers).contains(&most) {
            log::warn!(
                "update.batch: at most {most} items are scored at a time, but there are {workers} workers: {} have nothing to \
                 do; set it to {workers}",
                workers - most
            );
        }
    }

    /// The rule of these sections.
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
            let mut carried = GradientUpdate::new(rule).distance_penalty(gradient.distance_penalty);
            if let Some(max_norm) = gradient.max_norm {
                carried = carried.max_norm(max_norm);
            }
            rule = Box::new(carried.norm(gradient.norm.unwrap_or_default()));
        }
        rule
    }
}

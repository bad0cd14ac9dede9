//! Surrogate optimisation: a Gaussian process (GP) model of the scores chooses the items to evaluate.

mod acquisition;
mod batch;
mod batch_schedule;
mod bounded_fraction;

mod candidates;
mod distance;
mod distinct_candidates;
mod embeddings;
mod explanation;
mod feature_space;
mod few_values;
#[cfg(test)]
mod fixture;
mod gp;
mod kernel;
mod leakage;
mod niching;
mod observations;
mod posterior;
mod ranks;
mod relevance;
mod ridge;
mod rule;
mod target_scale;
mod target_transform;
mod targets;
mod vectorizer;

pub use self::rule::SurrogateUpdate;

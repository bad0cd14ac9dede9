//! Surrogate optimisation: a Gaussian process of the scores chooses which items to evaluate.

mod acquisition;
mod batch;
mod candidates;
mod distance;
mod embeddings;
#[cfg(test)]
mod fixture;
mod gp;
mod kernel;
mod leakage;
mod niching;
mod observations;
mod plan;
mod pool;
mod posterior;
mod ranks;
mod relevance;
mod ridge;
mod rule;
mod space;
mod target_scale;
mod targets;
mod vectorizer;

pub use self::rule::SurrogateUpdate;

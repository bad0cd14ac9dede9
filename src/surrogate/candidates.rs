//! Candidate generation: the whole library, a shortlist by features, or the neighbours of query points.

pub(super) mod library;
pub(super) mod query_points;
pub(super) mod shortlist;

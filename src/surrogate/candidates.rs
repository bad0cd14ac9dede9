//! Candidate generation. A library in memory is ranked as a whole. In a larger one, the candidates are a shortlist and the
//! neighbours of queries.

mod query_points;
mod ranked_library;
mod shortlist;
mod width;

use ndarray::{Array2, Axis, CowArray, Ix2};
use polars::prelude::DataFrame;

use self::query_points::BEST;
use self::ranked_library::RankedLibrary;
use self::shortlist::Shortlist;
use self::width::{MAX_CANDIDATES, SearchWidth};
use super::batch::PendingItems;
use super::distance::ScaledDistance;
use super::embeddings::{finite_embeddings, finite_rows};
use super::observations::TrainingSet;
use super::posterior::Posterior;
use super::vectorizer::Vectorizer;
use crate::database::VectorDatabase;
use crate::error::Result;
use crate::features::{FeatureGroup, ItemFeatures, Role};
use crate::frame::convert;
use crate::frame::schema::EMBEDDING;
use crate::random::random_stream;
use crate::step::Step;

/// The number of random items that represent a library that is too large to be ranked.
const SAMPLE_SIZE: usize = 2000;

/// The candidates of the next batch, and the data that they are generated from.
#[derive(Clone, Debug, Default)]
pub(super) struct Candidates {
    /// Candidates by id, in addition to the neighbours of the queries.
    ids: Vec<u64>,
    /// Whether these are the only candidates, because the whole library was ranked.
    are_ranked: bool,
    /// All items, if the library fits into memory.
    library: Option<RankedLibrary>,
    /// Otherwise the vectors of a random sample of the items.
    sample: Array2<f32>,
    shortlist: Shortlist,
    width: SearchWidth,
}

impl Candidates {
    /// The candidates of the first batch: the items with reused scores, the best first.
    pub fn from_reused(reused: &[u64]) -> Self {
        Candidates { ids: reused.iter().copied().take(MAX_CANDIDATES).collect(), ..Candidates::default() }
    }

    /// Reads all items of the library if they fit into memory, otherwise a sample. `max_points` is the maximum size of a training
    /// set.
    ///
    /// # Errors
    /// A library that cannot be read.
    pub fn read_library(
        &mut self,
        database: &dyn VectorDatabase,
        features: ItemFeatures,
        max_points: usize,
    ) -> Result<Vectorizer> {
        // The limit does not depend on whether texts are long.
        let is_counted = |group: &&FeatureGroup| group.role != Role::Document;
        let width: usize = features.groups().iter().filter(is_counted).map(|group| group.components.len()).sum();
        if RankedLibrary::fits(database.len(), database.dim() + width, max_points) {
            let (library, vectorizer) = RankedLibrary::read(database, features)?;
            self.library = Some(library);
            return Ok(vectorizer);
        }
        let ids = database.sample(SAMPLE_SIZE, &mut random_stream(0, "spread", 0, 0))?;
        let items = database.take_columns(&ids, &[])?;
        let embeddings = convert::matrix::<f32>(&items, EMBEDDING)?;
        let rows = finite_rows(embeddings.view());
        let ids: Vec<u64> = rows.iter().map(|row| ids[*row]).collect();
        let embeddings = embeddings.view().select(Axis(0), &rows);
        let vectorizer = Vectorizer::new(features, embeddings.view());
        self.sample = vectorizer.vectors(&ids, embeddings.view());
        Ok(vectorizer)
    }

    /// The candidates by id, in addition to the neighbours of the queries.
    pub fn ids(&self) -> &[u64] {
        &self.ids
    }

    /// The number of neighbours to find per query, for this number of queries.
    pub fn neighbours(&self, queries: usize) -> usize {
        if self.are_ranked { 0 } else { self.width.neighbours(queries) }
    }

    /// Widens the next search if an observed batch has fewer than the `scheduled` items, and the search did not limit them.
    pub fn widen(&mut self, step: &Step<'_>, scheduled: usize) {
        let (queries, found) = (step.queries.height(), step.results.height());
        let max_found = queries.saturating_mul(self.neighbours(queries)) + self.ids.len();
        let library_size = step.database.len().max(1) as usize;
        if found < scheduled.min(max_found) {
            self.width.widen(library_size);
        }
        self.width.is_exhausted = found == 0 && self.library.is_none() && self.width.is_at_limit(queries, library_size);
    }

    /// Replaces the distance.
    pub fn set_distance(&mut self, distance: &ScaledDistance) {
        if let Some(library) = &mut self.library {
            library.set_distance(distance);
        }
        self.shortlist = Shortlist::default();
    }

    /// The points of all items, or of the sample, `(items, components)`.
    pub fn library_points(&self, distance: &ScaledDistance) -> CowArray<'_, f32, Ix2> {
        match &self.library {
            Some(library) => library.points().into(),
            None => distance.points(self.sample.view()).into(),
        }
    }

    /// Removes all candidates.
    pub fn clear(&mut self) {
        (self.ids, self.are_ranked) = (Vec::new(), false);
    }

    /// Generates the candidates of the next batch: the top candidates of the ranked library, or a shortlist.
    ///
    /// # Errors
    /// Features that are not finite.
    pub fn generate(
        &mut self,
        step: &Step<'_>,
        posterior: &Posterior,
        training: &TrainingSet<'_>,
        pending: &PendingItems,
        (vectorizer, distance): (&Vectorizer, &ScaledDistance),
    ) -> Result<()> {
        self.ids = match &mut self.library {
            Some(library) => {
                let is_open = |id: u64| !training.observations.contains(id) && !pending.ids.contains(&id);
                library.top_candidates(posterior, self.width.factor, is_open, &mut step.rng("surrogate front", 0))
            }
            None => {
                let rng = &mut step.rng("surrogate shortlist", 0);
                self.shortlist.ids(vectorizer, distance, training, rng)?
            }
        };
        self.are_ranked = self.library.is_some() && !self.ids.is_empty();
        Ok(())
    }

    /// The next queries: the best item so far if the library was ranked, else query points around which to search.
    ///
    /// # Errors
    /// Items that cannot be read.
    pub fn queries(
        &self,
        step: &Step<'_>,
        training: &TrainingSet<'_>,
        vectorizer: Option<&Vectorizer>,
        has_posterior: bool,
    ) -> Result<DataFrame> {
        if self.are_ranked {
            // This query finds no neighbours. It logs the embedding of the best item.
            let best = step.database.take_columns(training.observations.top_id().as_slice(), &[])?;
            return query_points::queries_at(step.queries, finite_embeddings(&best)?.view().mapv(f64::from).view());
        }
        let is_random = !has_posterior || self.width.is_exhausted;
        let best = if is_random { Vec::new() } else { training.observations.best_ids(BEST) };
        query_points::queries(step, best, training, vectorizer)
    }
}

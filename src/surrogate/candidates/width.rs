//! The search width: the number of neighbours to find for each query.

/// The maximum number of rows that one search returns. All of their embeddings (4 bytes per component) and attributes are in memory
/// at once. The embeddings take 150 MB with 768 components.
pub(super) const MAX_CANDIDATES: usize = 50_000;
/// The initial number of neighbours per query.
const NEIGHBOURS: usize = 100;

/// The width of the next search. It grows if few candidates pass the filter.
#[derive(Clone, Debug)]
pub(super) struct SearchWidth {
    /// The factor on the initial number of candidates.
    pub factor: usize,
    /// Whether the last search found no candidates and cannot be widened.
    pub is_exhausted: bool,
}

impl Default for SearchWidth {
    fn default() -> Self {
        SearchWidth { factor: 1, is_exhausted: false }
    }
}

impl SearchWidth {
    /// The number of neighbours per query, for this number of queries.
    pub fn neighbours(&self, queries: usize) -> usize {
        NEIGHBOURS.saturating_mul(self.factor).min(max_neighbours(queries))
    }

    /// Doubles the number of candidates, up to the size of the library.
    pub fn widen(&mut self, library_size: usize) {
        self.factor = self.factor.saturating_mul(2).min(library_size.min(MAX_CANDIDATES));
    }

    /// Whether the number of neighbours is at its limit, but below the size of the library.
    pub fn is_at_limit(&self, queries: usize, library_size: usize) -> bool {
        let neighbours = self.neighbours(queries);
        neighbours == max_neighbours(queries) && neighbours < library_size
    }
}

/// The maximum number of neighbours per query, for this number of queries.
fn max_neighbours(queries: usize) -> usize {
    (MAX_CANDIDATES / queries.max(1)).max(1)
}

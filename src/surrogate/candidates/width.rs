//! The width of the search: how many neighbours of each query are candidates.

/// The number of rows of candidates in one search, at most. The embedding of each (4 bytes a component) and its attributes are
/// in memory at once. With 768 components that is 150 MB.
pub(super) const MAX_CANDIDATES: usize = 50_000;
/// The number of neighbours of each query at first.
const NEIGHBOURS: usize = 100;

/// How wide to search, if few candidates pass the filter.
#[derive(Clone, Debug)]
pub(super) struct SearchWidth {
    /// How many times as many candidates as at first.
    pub factor: usize,
    /// Whether the last search found nothing, and cannot be widened.
    pub is_exhausted: bool,
}

impl Default for SearchWidth {
    fn default() -> Self {
        SearchWidth { factor: 1, is_exhausted: false }
    }
}

impl SearchWidth {
    /// The number of neighbours of each of so many queries.
    pub fn neighbours(&self, queries: usize) -> usize {
        NEIGHBOURS.saturating_mul(self.factor).min(max_neighbours(queries))
    }

    /// Doubles the number of candidates, in a library of so many items.
    pub fn widen(&mut self, library_size: usize) {
        self.factor = self.factor.saturating_mul(2).min(library_size.min(MAX_CANDIDATES));
    }

    /// Whether the number of neighbours is at its limit, but below the size of the library.
    pub fn is_at_limit(&self, queries: usize, library_size: usize) -> bool {
        let neighbours = self.neighbours(queries);
        neighbours == max_neighbours(queries) && neighbours < library_size
    }
}

/// The number of neighbours of each of so many queries, at most.
fn max_neighbours(queries: usize) -> usize {
    (MAX_CANDIDATES / queries.max(1)).max(1)
}

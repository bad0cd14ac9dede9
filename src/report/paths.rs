//! The paths of a run's queries on the map: where they branch, restart and end.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::Serialize;

use super::chart::svg_path;
use super::projection::Projection;
use super::run_data::RunData;
use super::viewport::Viewport;
use crate::error::{Error, Result};
use crate::frame::convert;
use crate::frame::schema::{self, COLLECTION_IDX, EMBEDDING, PARENT_IDX, QUERY_IDX};

/// Maximum number of drawn steps.
const MAX_STEPS: usize = 2000;

/// The paths, as the template `map.svg` reads them.
#[derive(Default, Serialize)]
pub(super) struct PathsDrawing {
    pub paths: Vec<QueryPath>,
    /// Where queries started, and where paths ended before the search did.
    starts: Vec<(f64, f64)>,
    ends: Vec<(f64, f64)>,
    /// Number of starting queries that are not drawn, to limit the number of steps.
    pub omitted: usize,
}

/// The steps of all queries that descend from one starting query.
#[derive(Serialize)]
pub(super) struct QueryPath {
    label: String,
    d: String,
}

/// The steps of queries by starting query (`collection_idx`), in coordinates of the drawing.
#[derive(Default)]
pub(super) struct QueryPaths {
    steps: BTreeMap<u32, Vec<[(f64, f64); 2]>>,
    /// The start, and the points where its queries restarted.
    starts: BTreeMap<u32, Vec<(f64, f64)>>,
    /// The last points of queries without a successor, although the search continued.
    ends: BTreeMap<u32, Vec<(f64, f64)>>,
}

impl QueryPaths {
    /// Reads the queries of all iterations.
    ///
    /// # Errors
    /// Queries that cannot be read or have another dimension than the library.
    pub fn read(run: &RunData, projection: &Projection, viewport: &Viewport) -> Result<Self> {
        let mut paths = QueryPaths::default();
        // The point and the starting query of each query of the previous iteration.
        let mut previous: HashMap<u32, ((f64, f64), u32)> = HashMap::new();
        let last = run.log.iterations().last().map_or(0, |last| last + 1);
        for iteration in run.log.iterations().iter().copied().chain(run.log.has_queries(last).then_some(last)) {
            let queries = run.log.queries(iteration)?;
            let vectors = convert::matrix::<f64>(&queries, EMBEDDING)?;
            let (vectors, dim) = (vectors.view(), projection.dim());
            if vectors.ncols() != dim {
                let reason = format!("queries have {} dimensions, the library has {dim}", vectors.ncols());
                return Err(Error::input(run.log.path(), reason));
            }
            let mut current = HashMap::new();
            let mut parents = HashSet::new();
            let names = schema::u32s(&queries, QUERY_IDX)?.into_iter().zip(schema::u32s(&queries, COLLECTION_IDX)?);
            let queries = names.zip(schema::nullable_u32s(&queries, PARENT_IDX)?).zip(projection.project(vectors));
            for (((query, collection), parent), point) in queries {
                let point = viewport.to_drawing(point);
                current.insert(query, (point, collection));
                match parent.and_then(|parent| Some((parent, previous.get(&parent)?.0))) {
                    Some((parent, from)) => {
                        parents.insert(parent);
                        paths.steps.entry(collection).or_default().push([from, point]);
                    }
                    None => paths.starts.entry(collection).or_default().push(point),
                }
            }
            for (query, (point, collection)) in previous {
                if !parents.contains(&query) {
                    paths.ends.entry(collection).or_default().push(point);
                }
            }
            previous = current;
        }
        for ends in paths.ends.values_mut() {
            ends.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
        }
        Ok(paths)
    }

    /// The drawing of as many paths as the maximum number of steps allows.
    pub fn draw(self) -> PathsDrawing {
        let (total, mut steps_left, mut drawing) = (self.starts.len(), MAX_STEPS, PathsDrawing::default());
        for (collection, starts) in self.starts {
            let steps = self.steps.get(&collection).map_or(&[][..], Vec::as_slice);
            if steps.len() > steps_left {
                continue;
            }
            steps_left -= steps.len();
            let mut d = String::new();
            let mut end = None;
            for [from, to] in steps {
                // Continue the line if the last step ended here.
                d.push_str(&if end == Some(*from) { format!("L{} {}", to.0, to.1) } else { svg_path(&[*from, *to]) });
                end = Some(*to);
            }
            drawing.paths.push(QueryPath { label: format!("query {collection}"), d });
            drawing.starts.extend(starts);
            drawing.ends.extend(self.ends.get(&collection).into_iter().flatten());
        }
        drawing.omitted = total - drawing.paths.len();
        drawing
    }
}

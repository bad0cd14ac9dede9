//! The paths of a run's queries over the map: where they branch, begin again and are given up.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::Serialize;

use super::chart::path;
use super::plane::Plane;
use super::told::Told;
use super::view::View;
use crate::error::{Error, Result};
use crate::frame::convert;
use crate::frame::schema::{self, COLLECTION_IDX, EMBEDDING, PARENT_IDX, QUERY_IDX};

/// Steps that are drawn, at most.
const STEPS: usize = 2000;

/// The paths as the template draws them.
#[derive(Default, Serialize)]
pub(super) struct Drawn {
    pub paths: Vec<Walk>,
    /// Where queries began, and where they were given up.
    starts: Vec<(f64, f64)>,
    ends: Vec<(f64, f64)>,
    /// Starting queries that are not drawn, so that there are not too many steps.
    pub left_out: usize,
}

/// The steps of the queries that descend from one.
#[derive(Serialize)]
pub(super) struct Walk {
    label: String,
    d: String,
}

/// Steps of queries by the starting query that they descend from.
#[derive(Default)]
pub(super) struct Walks {
    steps: BTreeMap<u32, Vec<[(f64, f64); 2]>>,
    /// Where it began, and where its queries began again.
    starts: BTreeMap<u32, Vec<(f64, f64)>>,
    /// The last places of queries that no other came of, though the search went on.
    ends: BTreeMap<u32, Vec<(f64, f64)>>,
}

impl Walks {
    /// # Errors
    /// Queries that cannot be read, or are of another library.
    pub fn read(run: &Told, plane: &Plane, view: &View) -> Result<Self> {
        let mut walks = Walks::default();
        // By query, of the iteration before: its place, and where it came from.
        let mut before: HashMap<u32, ((f64, f64), u32)> = HashMap::new();
        let last = run.log.iterations().last().map_or(0, |last| last + 1);
        for iteration in run.log.iterations().iter().copied().chain(run.log.has_queries(last).then_some(last)) {
            let queries = run.log.queries(iteration)?;
            let vectors = convert::matrix::<f64>(&queries, EMBEDDING)?;
            let (vectors, dim) = (vectors.view(), plane.dim());
            if vectors.ncols() != dim {
                let reason = format!("queries of {} components, a library of {dim}", vectors.ncols());
                return Err(Error::input(run.log.path(), reason));
            }
            let mut now = HashMap::new();
            let mut parents = HashSet::new();
            let names = schema::u32s(&queries, QUERY_IDX)?.into_iter().zip(schema::u32s(&queries, COLLECTION_IDX)?);
            let of = names.zip(schema::nullable_u32s(&queries, PARENT_IDX)?).zip(plane.places(vectors));
            for (((query, collection), parent), place) in of {
                let place = view.place(place);
                now.insert(query, (place, collection));
                match parent.and_then(|parent| Some((parent, before.get(&parent)?.0))) {
                    Some((parent, from)) => {
                        parents.insert(parent);
                        walks.steps.entry(collection).or_default().push([from, place]);
                    }
                    None => walks.starts.entry(collection).or_default().push(place),
                }
            }
            for (query, (place, collection)) in before {
                if !parents.contains(&query) {
                    walks.ends.entry(collection).or_default().push(place);
                }
            }
            before = now;
        }
        for ends in walks.ends.values_mut() {
            ends.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
        }
        Ok(walks)
    }

    /// As much of it as is not too much.
    pub fn drawn(self) -> Drawn {
        let (all, mut room, mut drawn) = (self.starts.len(), STEPS, Drawn::default());
        for (collection, began) in self.starts {
            let steps = self.steps.get(&collection).map_or(&[][..], Vec::as_slice);
            if steps.len() > room {
                continue;
            }
            room -= steps.len();
            let mut d = String::new();
            let mut at = None;
            for [from, to] in steps {
                // On from where the last step ended, if it did there.
                d.push_str(&if at == Some(*from) { format!("L{} {}", to.0, to.1) } else { path(&[*from, *to]) });
                at = Some(*to);
            }
            drawn.paths.push(Walk { label: format!("query {collection}"), d });
            drawn.starts.extend(began);
            drawn.ends.extend(self.ends.get(&collection).into_iter().flatten());
        }
        drawn.left_out = all - drawn.paths.len();
        drawn
    }
}

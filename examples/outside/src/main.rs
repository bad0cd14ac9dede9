//! Searches an in-memory database with a custom score, filter and update rule, on its own thread.

use std::collections::HashSet;
use std::error::Error as _;
use std::fmt;

use uphill::ndarray::{Array2, ArrayView1};
use uphill::polars::prelude::{Column, DataFrame};
use uphill::{
    BlockVisitor, Error, Filter, Metric, QueryOptions, UpdateRule, RandomStream, Result, Runner, Score, Step,
    StopConditions, VectorDatabase, columns, embedding_column, matrix, next_queries, queries_at,
};

/// Points in the unit cube.
struct Cube {
    points: Array2<f32>,
}

impl Cube {
    fn new(items: usize) -> Self {
        let mut stream = uphill::random_stream(7, "cube", 0, 0);
        Cube { points: Array2::from_shape_simple_fn((items, 3), || stream.uniform() as f32) }
    }

    fn nearest(&self, query: ArrayView1<'_, f64>, k: usize, without: &HashSet<u64>) -> Vec<(f32, u64)> {
        let query = query.mapv(|component| component as f32);
        let distance = |item: u64| Metric::L2.distance(&query.to_vec(), &self.points.row(item as usize).to_vec());
        let items = (0..self.len()).filter(|item| !without.contains(item));
        let mut neighbours: Vec<(f32, u64)> = items.map(|item| (distance(item), item)).collect();
        neighbours.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        neighbours.truncate(k);
        neighbours
    }
}

impl VectorDatabase for Cube {
    fn len(&self) -> u64 {
        self.points.nrows() as u64
    }

    fn dim(&self) -> usize {
        self.points.ncols()
    }

    fn metric(&self) -> Metric {
        Metric::L2
    }

    fn query(&self, queries: &DataFrame, options: QueryOptions<'_>) -> Result<DataFrame> {
        let (vectors, nothing) = (matrix::<f64>(queries, columns::EMBEDDING)?, HashSet::new());
        let (mut query_idx, mut db_idx, mut distances) = (Vec::new(), Vec::new(), Vec::new());
        for (query, number) in vectors.view().rows().into_iter().zip(queries.column(columns::QUERY_IDX)?.u32()?.iter())
        {
            for (distance, item) in self.nearest(query, options.k.unwrap_or(5), options.exclude.unwrap_or(&nothing)) {
                query_idx.extend(number);
                db_idx.push(item);
                distances.push(distance);
            }
        }
        let mut results = self.take(&db_idx)?;
        results.insert_column(0, Column::new(columns::QUERY_IDX.into(), query_idx))?;
        results.insert_column(2, Column::new(columns::DISTANCE.into(), distances))?;
        Ok(results)
    }

    fn take(&self, db_idx: &[u64]) -> Result<DataFrame> {
        if let Some(item) = db_idx.iter().find(|item| **item >= self.len()) {
            return Err(Error::custom(format!("the cube has no point {item}")));
        }
        let rows: Vec<usize> = db_idx.iter().map(|item| *item as usize).collect();
        let points = self.points.select(uphill::ndarray::Axis(0), &rows);
        let height = points.column(2).to_vec();
        let columns = vec![
            Column::new(columns::DB_IDX.into(), db_idx.to_vec()),
            embedding_column(points.view())?,
            Column::new("height".into(), height),
        ];
        Ok(DataFrame::new(db_idx.len(), columns)?)
    }

    fn sample(&self, n: usize, stream: &mut RandomStream) -> Result<Vec<u64>> {
        let mut picked = HashSet::new();
        while picked.len() < n.min(self.len() as usize) {
            picked.insert(stream.uniform_below(self.len()));
        }
        let mut picked: Vec<u64> = picked.into_iter().collect();
        picked.sort_unstable();
        Ok(picked)
    }

    fn scan(&self, visit: &mut BlockVisitor<'_>) -> Result<()> {
        let all: Vec<u64> = (0..self.len()).collect();
        visit(&all, self.points.view())
    }
}

/// Scores a point by the sum of its coordinates, so that one corner is the best.
struct CornerScore;

impl Score for CornerScore {
    fn score(&self, batch: &DataFrame) -> Result<DataFrame> {
        let points = matrix::<f32>(batch, columns::EMBEDDING)?;
        let scores: Vec<f64> = points.view().rows().into_iter().map(|point| f64::from(point.sum())).collect();
        Ok(Column::new(columns::SCORE.into(), scores).into_frame())
    }
}

/// Keeps only points above a height.
struct MinHeight(f32);

impl Filter for MinHeight {
    fn filter(&self, results: DataFrame) -> Result<DataFrame> {
        let above = results
            .column("height")?
            .f32()?
            .iter()
            .map(|height| height.map(|height| height > self.0))
            .collect::<Vec<_>>();
        uphill::filter_by_mask(&results, &Column::new("above".into(), above).into_frame())
    }
}

/// Moves each query towards the best corner, and fails after some steps.
struct CornerUpdate {
    max_steps: u32,
}

#[derive(Debug)]
struct StepLimit(u32);

impl fmt::Display for StepLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the limit of {} steps is reached", self.0)
    }
}

impl std::error::Error for StepLimit {}

impl UpdateRule for CornerUpdate {
    fn update(&mut self, step: &Step<'_>) -> Result<DataFrame> {
        if step.iteration >= self.max_steps {
            return Err(Error::custom(StepLimit(self.max_steps)));
        }
        let moved = matrix::<f64>(step.queries, columns::EMBEDDING)?
            .view()
            .mapv(|coordinate| coordinate + 0.3 * (1.0 - coordinate));
        next_queries(step.queries, moved.view())
    }
}

/// Builds a runner from boxed parts, as chosen at run time.
fn runner(max_steps: u32) -> Result<(Runner, DataFrame)> {
    let cube = Cube::new(2000);
    let start = queries_at(&cube, &cube.sample(3, &mut uphill::random_stream(1, "start", 0, 0))?)?;
    let (score, rule): (Box<dyn Score>, Box<dyn UpdateRule>) =
        (Box::new(CornerScore), Box::new(CornerUpdate { max_steps }));
    let filter: Box<dyn Filter> = Box::new(MinHeight(0.2));
    Ok((Runner::new(cube, score, rule).filter(filter).stop(StopConditions::new().evaluations(120)), start))
}

fn main() -> Result<()> {
    let (mut search, start) = runner(u32::MAX)?;
    let thread = std::thread::spawn(move || search.search(&start, 12));
    let log = thread.join().map_err(|_| Error::custom("the search panicked"))??;
    let best = uphill::collect(log.compile_results()?.limit(1))?;
    let (score, height) = (best.column("score")?.f64()?.get(0), best.column("height")?.f32()?.get(0));
    println!(
        "the best of {} items: {score:?} at height {height:?}",
        log.manifest().ended.as_ref().map_or(0, |ended| ended.evaluations)
    );
    assert!(score > Some(2.5) && height > Some(0.2));

    let (mut failing, start) = runner(2)?;
    let error = failing.search(&start, 12).err().ok_or_else(|| Error::custom("the search did not fail"))?;
    println!("{error}");
    assert_eq!(error.to_string(), "iteration 2: the limit of 2 steps is reached");
    assert!(error.source().is_some_and(|cause| cause.is::<StepLimit>()));
    Ok(())
}

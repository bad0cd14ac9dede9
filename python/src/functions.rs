//! The functions that the Python package calls. Options are passed as the JSON of a run file, so that they are listed once.

use std::collections::HashMap;
use std::path::PathBuf;

use pyo3::prelude::*;
use uphill::polars::prelude::{DataFrame, LazyFrame};
use uphill::{
    AuditState, Config, GroundTruth, IndexOptions, LanceDatabase, ReportOptions, Result, Runner, SearchLog,
    SearchState, StopReason, VectorDatabase,
};

use crate::errors::exception;
use crate::logging;
use crate::signals::{Interrupt, run_interruptible};
use crate::stages::Functions;
use crate::table::{self, Table};

/// Runs the command with these arguments, the program name first, and returns its exit code.
#[pyfunction]
pub fn command(py: Python<'_>, arguments: Vec<String>) -> u8 {
    py.detach(|| uphill::command(arguments))
}

/// Builds a dataset from a table or from Parquet files.
#[pyfunction]
#[pyo3(signature = (items, dataset, *, embedding_column, metric, index, partitions, rename, skip_invalid, overwrite))]
#[expect(clippy::too_many_arguments)]
pub fn index(
    py: Python<'_>,
    items: &Bound<'_, PyAny>,
    dataset: PathBuf,
    embedding_column: Option<String>,
    metric: &str,
    index: &str,
    partitions: Option<usize>,
    rename: Vec<(String, String)>,
    skip_invalid: bool,
    overwrite: bool,
) -> PyResult<()> {
    logging::install();
    let interrupt = Interrupt::default();
    let to_exception = |error| exception(py, error);
    let (metric, index) = (metric.parse().map_err(to_exception)?, index.parse().map_err(to_exception)?);
    let mut options = IndexOptions::new().metric(metric).index(index).skip_invalid(skip_invalid).overwrite(overwrite);
    (options.embedding_column, options.partitions, options.rename) = (embedding_column, partitions, rename);
    options = options.stop(interrupt.flag());
    let built = match items.extract::<PathBuf>() {
        Ok(path) => run_interruptible(py, &interrupt, || uphill::index(path, &dataset, &options))?,
        Err(_) => {
            let stream = table::stream(items)?;
            run_interruptible(py, &interrupt, || uphill::index_table(stream, &dataset, &options))?
        }
    };
    let built = built.map_err(to_exception)?;
    if built.invalid.total() > 0 {
        log::warn!(target: "uphill", "{}: skipped {}", dataset.display(), built.invalid);
    }
    Ok(())
}

/// An open dataset.
#[pyclass(frozen, module = "uphill._uphill")]
pub struct Library(LanceDatabase);

#[pymethods]
impl Library {
    /// Opens a dataset by the `database` section of a run file, as JSON.
    #[new]
    fn new(py: Python<'_>, section: &str) -> PyResult<Self> {
        logging::install();
        // A run file needs a score, which is not read here.
        let config = format!(r#"{{"database": {section}, "score": {{}}}}"#);
        let opened = py.detach(|| Config::from_json(&config)?.database(None));
        opened.map(Library).map_err(|error| exception(py, error))
    }

    fn __len__(&self) -> usize {
        self.0.len() as usize
    }

    #[getter]
    fn dim(&self) -> usize {
        self.0.dim()
    }

    #[getter]
    fn metric(&self) -> String {
        self.0.metric().to_string()
    }

    #[getter]
    fn columns(&self) -> Vec<String> {
        self.0.column_names().iter().map(|name| name.to_string()).collect()
    }

    /// The items with these ids, in the given order.
    fn take(&self, py: Python<'_>, db_idx: Vec<u64>) -> PyResult<Table> {
        without_gil(py, || self.0.take(&db_idx))
    }
}

/// A configured search: the run file, which includes starting queries, and the Python functions that it calls.
struct SearchRequest {
    config: Config,
    functions: Functions,
    interrupt: Interrupt,
}

impl SearchRequest {
    fn new(
        py: Python<'_>,
        config: &str,
        functions: HashMap<String, Py<PyAny>>,
        queries: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        logging::install();
        let mut config = Config::from_json(config).map_err(|error| exception(py, error))?;
        if let Some(queries) = queries {
            let stream = table::stream(queries)?;
            config.queries.table = Some(py.detach(|| table::frame(stream)).map_err(|error| exception(py, error))?);
        }
        let (interrupt, on_error) = (Interrupt::default(), config.score.on_error);
        let functions = Functions { by_name: functions, interrupt: interrupt.clone(), on_error };
        Ok(SearchRequest { config, functions, interrupt })
    }

    /// Calls `work` with a runner, the starting queries and the bound of iterations. `resume` is the folder of an existing
    /// run.
    fn run<T: Send>(
        &self,
        py: Python<'_>,
        resume: Option<&PathBuf>,
        work: impl FnOnce(Runner, &DataFrame, u32) -> Result<T> + Send,
    ) -> PyResult<T> {
        let result = run_interruptible(py, &self.interrupt, || {
            let (runner, queries) = self.config.build_with(resume.map(PathBuf::as_path), &self.functions)?;
            work(runner.interrupt(self.interrupt.flag()), &queries, self.config.stop.max_iterations())
        })?;
        result.map_err(|error| exception(py, error))
    }
}

/// Searches and writes the run folder.
#[pyfunction]
#[pyo3(signature = (config, out, *, functions, queries, resume, retry_failed))]
pub fn search(
    py: Python<'_>,
    config: &str,
    out: PathBuf,
    functions: HashMap<String, Py<PyAny>>,
    queries: Option<&Bound<'_, PyAny>>,
    resume: bool,
    retry_failed: bool,
) -> PyResult<()> {
    let request = SearchRequest::new(py, config, functions, queries)?;
    request.run(py, resume.then_some(&out), |runner, queries, iterations| {
        let mut runner = runner.retry_failed(retry_failed);
        let log = match resume {
            true => runner.resume(&out, queries, iterations)?,
            false => runner.search_into(&out, queries, iterations)?,
        };
        match log.manifest().ended.as_ref().map(|ended| ended.reason) {
            Some(StopReason::Interrupted) => Err(uphill::Error::Interrupted),
            _ => Ok(()),
        }
    })
}

/// The items that are waiting for scores, or `None` when the run has ended.
#[pyfunction]
#[pyo3(signature = (config, out, *, functions, queries))]
pub fn ask(
    py: Python<'_>,
    config: &str,
    out: PathBuf,
    functions: HashMap<String, Py<PyAny>>,
    queries: Option<&Bound<'_, PyAny>>,
) -> PyResult<Option<Table>> {
    let request = SearchRequest::new(py, config, functions, queries)?;
    let started = out.join("run.json").exists().then_some(&out);
    request.run(py, started, |mut runner, queries, iterations| match runner.ask(&out, queries, iterations)? {
        SearchState::Pending(items) => Table::of(&items).map(Some),
        SearchState::Ended(_) => Ok(None),
    })
}

/// Gives scores of items that are waiting for them.
#[pyfunction]
#[pyo3(signature = (config, run, scores, *, functions))]
pub fn tell(
    py: Python<'_>,
    config: &str,
    run: PathBuf,
    scores: &Bound<'_, PyAny>,
    functions: HashMap<String, Py<PyAny>>,
) -> PyResult<()> {
    let request = SearchRequest::new(py, config, functions, None)?;
    let scores = table::stream(scores)?;
    request.run(py, Some(&run), |mut runner, queries, iterations| {
        runner.tell(&run, queries, iterations, &table::frame(scores)?).map(drop)
    })
}

/// The items found, best first.
#[pyfunction]
pub fn results(py: Python<'_>, run: PathBuf, limit: Option<u32>) -> PyResult<Table> {
    collect_query(py, run, |log| {
        let results = log.compile_results()?;
        Ok(limit.into_iter().fold(results, LazyFrame::limit))
    })
}

/// The query vectors of each iteration.
#[pyfunction]
pub fn queries(py: Python<'_>, run: PathBuf) -> PyResult<Table> {
    collect_query(py, run, |log| Ok(log.scan_queries()?.unwrap_or_default()))
}

/// The path of each query. With `paths`, one path from the start for each leaf of the tree of branching queries.
#[pyfunction]
pub fn trajectories(py: Python<'_>, run: PathBuf, paths: bool) -> PyResult<Table> {
    collect_query(py, run, |log| if paths { log.compile_paths() } else { log.compile_trajectories() })
}

/// Collects a query of a run.
fn collect_query(
    py: Python<'_>,
    run: PathBuf,
    query: impl FnOnce(&SearchLog) -> Result<LazyFrame> + Send,
) -> PyResult<Table> {
    without_gil(py, || uphill::collect(query(&SearchLog::open(&run)?)?))
}

/// Computes a frame without holding the GIL.
fn without_gil(py: Python<'_>, frame: impl FnOnce() -> Result<DataFrame> + Send) -> PyResult<Table> {
    py.detach(|| Table::of(&frame()?)).map_err(|error| exception(py, error))
}

/// The scored items and the columns that the model predicts scores of items from. `library` is the new path of a moved dataset.
#[pyfunction]
pub fn explain(py: Python<'_>, run: PathBuf, db_idx: Vec<u64>, library: Option<String>) -> PyResult<Table> {
    logging::install();
    without_gil(py, || {
        let mut config = Config::from_run(&SearchLog::open(&run)?, &[])?;
        if let Some(library) = library {
            config.database.path = library;
        }
        config.explainer(&run)?.explain(&run, &db_idx)
    })
}

/// The items without a score that the model of a run predicts to be best.
#[pyfunction]
#[pyo3(signature = (config, run, n, *, functions))]
pub fn unscored(
    py: Python<'_>,
    config: &str,
    run: PathBuf,
    n: usize,
    functions: HashMap<String, Py<PyAny>>,
) -> PyResult<Table> {
    let SearchRequest { config, functions, interrupt } = SearchRequest::new(py, config, functions, None)?;
    let ranked = run_interruptible(py, &interrupt, || {
        config.ranker_with(&run, &functions)?.rank_unscored(&run, n).and_then(|items| Table::of(&items))
    })?;
    ranked.map_err(|error| exception(py, error))
}

/// Scores random items that a run has not judged. Returns them, or those of them that wait for scores by hand.
#[pyfunction]
#[pyo3(signature = (config, run, n, scores, *, functions))]
pub fn audit(
    py: Python<'_>,
    config: &str,
    run: PathBuf,
    n: u64,
    scores: Option<&Bound<'_, PyAny>>,
    functions: HashMap<String, Py<PyAny>>,
) -> PyResult<Table> {
    let request = SearchRequest::new(py, config, functions, None)?;
    let scores = scores.map(table::stream).transpose()?;
    request.run(py, Some(&run), |mut runner, _, _| {
        let state = match scores {
            Some(scores) => runner.tell_audit(&run, n, &table::frame(scores)?)?,
            None => runner.audit(&run, n)?,
        };
        match state {
            AuditState::Pending(items) | AuditState::Complete { items, .. } => Table::of(&items),
        }
    })
}

/// How many of the best items a run found.
#[pyfunction]
#[pyo3(signature = (run, *, truth, score_column, top, key, curve))]
pub fn evaluate(
    py: Python<'_>,
    run: PathBuf,
    truth: PathBuf,
    score_column: String,
    top: Option<usize>,
    key: Option<String>,
    curve: bool,
) -> PyResult<Table> {
    without_gil(py, || {
        let mut truth = GroundTruth::new(truth, score_column);
        truth.key = key;
        let recall_curve = uphill::evaluate(&SearchLog::open(&run)?, &truth, top)?;
        if curve { recall_curve.to_frame() } else { recall_curve.at_shares(&[0.01, 0.02, 0.05]) }
    })
}

/// An HTML page that shows runs.
#[pyfunction]
#[pyo3(signature = (runs, *, truth, score_column, top, key, smiles, picture, library))]
#[expect(clippy::too_many_arguments)]
pub fn report(
    py: Python<'_>,
    runs: Vec<PathBuf>,
    truth: Option<PathBuf>,
    score_column: Option<String>,
    top: Option<usize>,
    key: Option<String>,
    smiles: Option<String>,
    picture: Option<String>,
    library: Option<String>,
) -> PyResult<String> {
    let mut options = report_options(truth, score_column, top, key);
    (options.smiles, options.picture, options.library) = (smiles, picture, library);
    py.detach(|| uphill::report(&runs, &options)).map_err(|error| exception(py, error))
}

/// The curves of runs as SVG.
#[pyfunction]
#[pyo3(signature = (runs, *, truth, score_column, top, key))]
pub fn plot(
    py: Python<'_>,
    runs: Vec<PathBuf>,
    truth: Option<PathBuf>,
    score_column: Option<String>,
    top: Option<usize>,
    key: Option<String>,
) -> PyResult<String> {
    let options = report_options(truth, score_column, top, key);
    py.detach(|| uphill::plot(&runs, &options)).map_err(|error| exception(py, error))
}

fn report_options(
    truth: Option<PathBuf>,
    score_column: Option<String>,
    top: Option<usize>,
    key: Option<String>,
) -> ReportOptions {
    let mut options = ReportOptions::new();
    options.top = top;
    options.truth = truth.zip(score_column).map(|(items, score_column)| GroundTruth::new(items, score_column));
    if let Some(truth) = &mut options.truth {
        truth.key = key;
    }
    options
}

/// Removes a run folder, and the tag that keeps its dataset version. `library` is the new path of a moved dataset.
#[pyfunction]
pub fn remove(py: Python<'_>, run: PathBuf, library: Option<String>) -> PyResult<()> {
    let removed = py.detach(|| match library {
        Some(library) => uphill::remove_from(&run, library),
        None => uphill::remove(&run),
    });
    removed.map_err(|error| exception(py, error))
}

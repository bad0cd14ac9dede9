//! The functions that the package calls. Options come as JSON, as a run file has them, so that they are listed once.

use std::collections::HashMap;
use std::path::PathBuf;

use pyo3::prelude::*;
use uphill::polars::prelude::{DataFrame, LazyFrame};
use uphill::{
    Asked, Config, IndexOptions, LanceDatabase, ReportOptions, Result, Runner, SearchLog, StopReason, Truth,
    VectorDatabase,
};

use crate::errors::exception;
use crate::said;
use crate::stages::Functions;
use crate::table::{self, Table};
use crate::watch::{Stopping, watched};

/// Runs the command with these arguments, the program's name first; gives its exit code.
#[pyfunction]
pub fn command(py: Python<'_>, arguments: Vec<String>) -> u8 {
    py.detach(|| uphill::command(arguments))
}

/// Builds a dataset of a table, or of Parquet files.
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
    said::listen();
    let stopping = Stopping::default();
    let raised = |error| exception(py, error);
    let (metric, index) = (metric.parse().map_err(raised)?, index.parse().map_err(raised)?);
    let mut options = IndexOptions::new().metric(metric).index(index).skip_invalid(skip_invalid).overwrite(overwrite);
    (options.embedding_column, options.partitions, options.rename) = (embedding_column, partitions, rename);
    options = options.stop(stopping.flag());
    let built = match items.extract::<PathBuf>() {
        Ok(path) => watched(py, &stopping, || uphill::index(path, &dataset, &options))?,
        Err(_) => {
            let stream = table::stream(items)?;
            watched(py, &stopping, || uphill::index_table(stream, &dataset, &options))?
        }
    };
    let built = built.map_err(raised)?;
    if built.invalid.total() > 0 {
        log::warn!(target: "uphill", "{}: left out {}", dataset.display(), built.invalid);
    }
    Ok(())
}

/// A dataset.
#[pyclass(frozen, module = "uphill._uphill")]
pub struct Library(LanceDatabase);

#[pymethods]
impl Library {
    /// Opens it as the section `database` of a run file says.
    #[new]
    fn new(py: Python<'_>, section: &str) -> PyResult<Self> {
        said::listen();
        // A run file has a score, which is not looked at here.
        let config = format!(r#"{{"database": {section}, "score": {{}}}}"#);
        let opened = py.detach(|| Config::of_json(&config)?.database(None));
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

    /// The items of those ids, in their order.
    fn take(&self, py: Python<'_>, db_idx: Vec<u64>) -> PyResult<Table> {
        detached(py, || self.0.take(&db_idx))
    }
}

/// What a search is told: a run file as JSON, functions by the names that it calls, and starting queries.
struct Told {
    config: Config,
    functions: Functions,
    stopping: Stopping,
}

impl Told {
    fn new(
        py: Python<'_>,
        config: &str,
        functions: HashMap<String, Py<PyAny>>,
        queries: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        said::listen();
        let mut config = Config::of_json(config).map_err(|error| exception(py, error))?;
        if let Some(queries) = queries {
            let stream = table::stream(queries)?;
            config.queries.table = Some(py.detach(|| table::frame(stream)).map_err(|error| exception(py, error))?);
        }
        let (stopping, on_error) = (Stopping::default(), config.score.on_error);
        let functions = Functions { by_name: functions, stopping: stopping.clone(), on_error };
        Ok(Told { config, functions, stopping })
    }

    /// Works with the runner and the starting queries, of a new run or to go on with one.
    fn work<T: Send>(
        &self,
        py: Python<'_>,
        resume: Option<&PathBuf>,
        work: impl FnOnce(Runner, &DataFrame, u32) -> Result<T> + Send,
    ) -> PyResult<T> {
        let worked = watched(py, &self.stopping, || {
            let (runner, queries) = self.config.start_calling(resume.map(PathBuf::as_path), &self.functions)?;
            work(runner.interrupt(self.stopping.flag()), &queries, self.config.stop.most_iterations())
        })?;
        worked.map_err(|error| exception(py, error))
    }
}

/// Searches, into a folder.
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
    let told = Told::new(py, config, functions, queries)?;
    told.work(py, resume.then_some(&out), |runner, queries, iterations| {
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

/// The items that wait for their scores; `None` when the run has ended.
#[pyfunction]
#[pyo3(signature = (config, out, *, functions, queries))]
pub fn ask(
    py: Python<'_>,
    config: &str,
    out: PathBuf,
    functions: HashMap<String, Py<PyAny>>,
    queries: Option<&Bound<'_, PyAny>>,
) -> PyResult<Option<Table>> {
    let told = Told::new(py, config, functions, queries)?;
    let started = out.join("run.json").exists().then_some(&out);
    told.work(py, started, |mut runner, queries, iterations| match runner.ask(&out, queries, iterations)? {
        Asked::Items(items) => Table::of(&items).map(Some),
        Asked::Ended(_) => Ok(None),
    })
}

/// Takes scores of items that wait.
#[pyfunction]
#[pyo3(signature = (config, run, scores, *, functions))]
pub fn tell(
    py: Python<'_>,
    config: &str,
    run: PathBuf,
    scores: &Bound<'_, PyAny>,
    functions: HashMap<String, Py<PyAny>>,
) -> PyResult<()> {
    let told = Told::new(py, config, functions, None)?;
    let scores = table::stream(scores)?;
    told.work(py, Some(&run), |mut runner, queries, iterations| {
        runner.tell(&run, queries, iterations, &table::frame(scores)?).map(drop)
    })
}

/// The items met, the best first.
#[pyfunction]
pub fn results(py: Python<'_>, run: PathBuf, limit: Option<u32>) -> PyResult<Table> {
    compiled(py, run, |log| {
        let results = log.compile_results()?;
        Ok(limit.into_iter().fold(results, LazyFrame::limit))
    })
}

/// The query vectors of each iteration.
#[pyfunction]
pub fn queries(py: Python<'_>, run: PathBuf) -> PyResult<Table> {
    compiled(py, run, |log| Ok(log.scan_queries()?.unwrap_or_default()))
}

/// The path of each query, or a path from its start for each leaf.
#[pyfunction]
pub fn trajectories(py: Python<'_>, run: PathBuf, paths: bool) -> PyResult<Table> {
    compiled(py, run, |log| if paths { log.compile_paths() } else { log.compile_trajectories() })
}

fn compiled(
    py: Python<'_>,
    run: PathBuf,
    query: impl FnOnce(&SearchLog) -> Result<LazyFrame> + Send,
) -> PyResult<Table> {
    detached(py, || uphill::collect(query(&SearchLog::open(&run)?)?))
}

fn detached(py: Python<'_>, frame: impl FnOnce() -> Result<DataFrame> + Send) -> PyResult<Table> {
    py.detach(|| Table::of(&frame()?)).map_err(|error| exception(py, error))
}

/// How much of the best a run found.
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
    detached(py, || {
        let mut truth = Truth::new(truth, score_column);
        truth.key = key;
        let evaluation = uphill::evaluate(&SearchLog::open(&run)?, &truth, top)?;
        if curve { evaluation.curve() } else { evaluation.at(&[0.01, 0.02, 0.05]) }
    })
}

/// A page of HTML that shows runs.
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
    let mut options = known(truth, score_column, top, key);
    (options.smiles, options.picture, options.library) = (smiles, picture, library);
    py.detach(|| uphill::report(&runs, &options)).map_err(|error| exception(py, error))
}

/// The curves of runs, as SVG.
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
    let options = known(truth, score_column, top, key);
    py.detach(|| uphill::plot(&runs, &options)).map_err(|error| exception(py, error))
}

fn known(
    truth: Option<PathBuf>,
    score_column: Option<String>,
    top: Option<usize>,
    key: Option<String>,
) -> ReportOptions {
    let mut options = ReportOptions::new();
    options.top = top;
    options.truth = truth.zip(score_column).map(|(items, score_column)| Truth::new(items, score_column));
    if let Some(truth) = &mut options.truth {
        truth.key = key;
    }
    options
}

/// Removes a run folder, and the tag that keeps the dataset version it reads, where that is now.
#[pyfunction]
pub fn remove(py: Python<'_>, run: PathBuf, library: Option<String>) -> PyResult<()> {
    let removed = py.detach(|| match library {
        Some(library) => uphill::remove_from(&run, library),
        None => uphill::remove(&run),
    });
    removed.map_err(|error| exception(py, error))
}

//! Functions of the caller as stages of a search.

use std::collections::HashMap;

use pyo3::exceptions::{PyException, PyKeyboardInterrupt};
use pyo3::prelude::*;
use uphill::polars::prelude::{Column, DataFrame, DataType};
use uphill::{Calls, Error, Filter, FilterConfig, OnError, Result, Score, ScoreConfig, columns, keep};

use crate::table::{self, Table};
use crate::watch::Stopping;

/// The functions of the caller, by name. Each takes a [`Table`] and gives a table.
pub struct Functions {
    pub by_name: HashMap<String, Py<PyAny>>,
    pub stopping: Stopping,
    pub on_error: OnError,
}

impl Functions {
    fn find(&self, name: Option<&str>) -> Result<Function> {
        let name = name.unwrap_or_default();
        match self.by_name.get(name) {
            Some(function) => {
                Python::attach(|py| Ok(Function { function: function.clone_ref(py), stopping: self.stopping.clone() }))
            }
            None => Err(Error::Config(format!("call: there is no function `{name}`"))),
        }
    }
}

impl Calls for Functions {
    fn score(&self, section: &ScoreConfig) -> Result<Box<dyn Score>> {
        Ok(Box::new(Scoring {
            function: self.find(section.call.as_deref())?,
            batch_size: section.batch_size.unwrap_or(usize::MAX),
            workers: section.workers.unwrap_or(1),
            stops: self.on_error == OnError::Stop,
        }))
    }

    fn filter(&self, section: &FilterConfig) -> Result<Box<dyn Filter>> {
        Ok(Box::new(Filtering(self.find(section.call.as_deref())?)))
    }
}

struct Function {
    function: Py<PyAny>,
    stopping: Stopping,
}

impl Function {
    /// What the function gives for a frame; what it raised is the cause of the error.
    fn of(&self, frame: &DataFrame) -> Result<DataFrame, Trouble> {
        let table = Table::of(frame)?;
        let stream = Python::attach(|py| {
            let given = self.stopping.around(py, || self.function.bind(py).call1((table,)));
            given.and_then(|given| table::stream(&given))
        });
        Ok(table::frame(stream.map_err(Trouble::Raised)?)?)
    }
}

enum Trouble {
    Raised(PyErr),
    Ours(Error),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Trouble::Ours(error)
    }
}

impl Trouble {
    /// The error that ends the run.
    fn ends(self) -> Error {
        match self {
            Trouble::Ours(error) => error,
            Trouble::Raised(raised) if Python::attach(|py| raised.is_instance_of::<PyKeyboardInterrupt>(py)) => {
                Error::Interrupted
            }
            Trouble::Raised(raised) => Error::own(raised),
        }
    }

    /// Why items have no score, if that is what this is.
    fn reason(&self) -> Option<String> {
        let Trouble::Raised(raised) = self else { return None };
        Python::attach(|py| raised.is_instance_of::<PyException>(py).then(|| raised.to_string()))
    }
}

struct Scoring {
    function: Function,
    batch_size: usize,
    workers: usize,
    stops: bool,
}

impl Score for Scoring {
    fn score(&self, batch: &DataFrame) -> Result<DataFrame> {
        self.function.of(batch).or_else(|trouble| match trouble.reason().filter(|_| !self.stops) {
            None => Err(trouble.ends()),
            Some(reason) => {
                let rows = batch.height();
                let score = Column::full_null(columns::SCORE.into(), rows, &DataType::Float64);
                let reason = Column::new(columns::REASON.into(), vec![reason; rows]);
                Ok(DataFrame::new(rows, vec![score, reason])?)
            }
        })
    }

    fn batch_size(&self) -> usize {
        self.batch_size
    }

    fn workers(&self) -> usize {
        self.workers
    }
}

struct Filtering(Function);

impl Filter for Filtering {
    fn filter(&self, results: DataFrame) -> Result<DataFrame> {
        if results.height() == 0 {
            return Ok(results);
        }
        let given = self.0.of(&results).map_err(Trouble::ends)?;
        keep(&results, &given)
    }
}

//! Python functions as stages of a search: scores and filters.

use std::collections::HashMap;

use pyo3::exceptions::{PyException, PyKeyboardInterrupt};
use pyo3::prelude::*;
use uphill::polars::prelude::{Column, DataFrame, DataType};
use uphill::{
    Error, Filter, FilterConfig, FunctionRegistry, OnError, Result, Score, ScoreConfig, columns, filter_by_mask,
};

use crate::errors::UnavailableError;
use crate::signals::Interrupt;
use crate::table::{self, Table};

/// Python functions by name. Each takes a [`Table`] and returns a table.
pub struct Functions {
    pub by_name: HashMap<String, Py<PyAny>>,
    pub interrupt: Interrupt,
    pub on_error: OnError,
}

impl Functions {
    fn find(&self, name: Option<&str>) -> Result<Function> {
        let name = name.unwrap_or_default();
        match self.by_name.get(name) {
            Some(function) => Python::attach(|py| {
                Ok(Function { function: function.clone_ref(py), interrupt: self.interrupt.clone() })
            }),
            None => Err(Error::Config(format!("call: there is no function `{name}`"))),
        }
    }
}

impl FunctionRegistry for Functions {
    fn score(&self, section: &ScoreConfig) -> Result<Box<dyn Score>> {
        Ok(Box::new(FunctionScore {
            function: self.find(section.call.as_deref())?,
            batch_size: section.batch_size.unwrap_or(usize::MAX),
            workers: section.workers.unwrap_or(1),
            stops_on_error: self.on_error == OnError::Stop,
        }))
    }

    fn filter(&self, section: &FilterConfig) -> Result<Box<dyn Filter>> {
        Ok(Box::new(FunctionFilter(self.find(section.call.as_deref())?)))
    }
}

struct Function {
    function: Py<PyAny>,
    interrupt: Interrupt,
}

impl Function {
    /// Calls the function with a frame.
    fn call(&self, frame: &DataFrame) -> Result<DataFrame, CallError> {
        let table = Table::of(frame)?;
        let stream = Python::attach(|py| {
            let returned = self.interrupt.call(py, || self.function.bind(py).call1((table,)));
            returned.and_then(|returned| table::stream(&returned))
        });
        Ok(table::frame(stream.map_err(CallError::Raised)?)?)
    }
}

/// Why a call of a Python function failed.
enum CallError {
    Raised(PyErr),
    Internal(Error),
}

impl From<Error> for CallError {
    fn from(error: Error) -> Self {
        CallError::Internal(error)
    }
}

impl CallError {
    /// The error that ends the run.
    fn into_error(self) -> Error {
        match self {
            CallError::Internal(error) => error,
            CallError::Raised(raised) if Python::attach(|py| raised.is_instance_of::<PyKeyboardInterrupt>(py)) => {
                Error::Interrupted
            }
            CallError::Raised(raised) => Error::custom(raised),
        }
    }

    /// Whether the function says that its scorer is unavailable.
    fn is_outage(&self) -> bool {
        let CallError::Raised(raised) = self else { return false };
        Python::attach(|py| raised.is_instance_of::<UnavailableError>(py))
    }

    /// The message of the error.
    fn message(&self) -> String {
        match self {
            CallError::Internal(error) => error.to_string(),
            CallError::Raised(raised) => Python::attach(|py| raised.value(py).to_string()),
        }
    }

    /// The reason of the failed items, if a Python exception is the cause.
    fn reason(&self) -> Option<String> {
        let CallError::Raised(raised) = self else { return None };
        Python::attach(|py| raised.is_instance_of::<PyException>(py).then(|| raised.to_string()))
    }
}

struct FunctionScore {
    function: Function,
    batch_size: usize,
    workers: usize,
    stops_on_error: bool,
}

impl Score for FunctionScore {
    fn score(&self, batch: &DataFrame) -> Result<DataFrame> {
        self.function.call(batch).or_else(|error| match error.reason().filter(|_| !self.stops_on_error) {
            _ if error.is_outage() => Err(Error::Unavailable { reason: error.message() }),
            None => Err(error.into_error()),
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

struct FunctionFilter(Function);

impl Filter for FunctionFilter {
    fn filter(&self, results: DataFrame) -> Result<DataFrame> {
        if results.height() == 0 {
            return Ok(results);
        }
        let returned = self.0.call(&results).map_err(CallError::into_error)?;
        filter_by_mask(&results, &returned)
    }
}

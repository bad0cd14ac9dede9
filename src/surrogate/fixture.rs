//! Reference values of the models from scikit-learn, written by `tests/surrogate/generate.py`.

use ndarray::Array2;
use serde_json::Value;

fn field(name: &str) -> Value {
    let all: Value = serde_json::from_str(include_str!("../../tests/surrogate/models.json")).expect("JSON");
    all[name].clone()
}

/// The vector in a field. A single number is a vector of one component.
pub fn vector(name: &str) -> Vec<f64> {
    let field = field(name);
    let numbers = field.as_array().cloned().unwrap_or_else(|| vec![field]);
    numbers.iter().map(|number| number.as_f64().expect("a number")).collect()
}

pub fn matrix(name: &str) -> Array2<f64> {
    let rows: Vec<Vec<f64>> = serde_json::from_value(field(name)).expect("a matrix");
    let shape = (rows.len(), rows[0].len());
    Array2::from_shape_vec(shape, rows.concat()).expect("a matrix")
}

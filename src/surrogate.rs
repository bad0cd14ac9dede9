//! Surrogate optimisation: a Gaussian process of the scores chooses which items to evaluate.

mod acquisition;
mod candidates;
mod gp;
mod kernel;
mod leakage;
mod niching;
mod observations;
mod plan;
mod relevance;
mod ridge;
mod rule;
mod space;

pub use self::rule::SurrogateUpdate;

/// What scikit-learn makes of the models, as `tests/surrogate/generate.py` wrote it.
#[cfg(test)]
mod fixture {
    use ndarray::Array2;
    use serde_json::Value;

    fn field(name: &str) -> Value {
        let all: Value = serde_json::from_str(include_str!("../tests/surrogate/models.json")).expect("JSON");
        all[name].clone()
    }

    /// A vector; of one number if it is one.
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
}

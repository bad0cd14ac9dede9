//! `Encoder`: encodes a column as centred and scaled components.

use ndarray::{Array2, Axis};
use polars::prelude::*;

use super::category::CategoryEncoder;
use super::documents::DocumentEncoder;
use super::ngrams::NgramEncoder;
use super::numeric::NumericEncoder;
use super::subspace::{DIRECTIONS, DenseRows, Subspace};
use super::{Feature, Role};
use crate::error::{Error, Result, WrapErr};
use crate::random::random_stream;

/// A text column with at most this number of distinct values is encoded as a category.
const MAX_CATEGORIES: usize = 32;

/// Encodes a column as numbers, scaled so that the mean squared distance of two items is 1.
pub(crate) struct Encoder {
    column: String,
    kind: Kind,
    centre: Vec<f32>,
    scale: f32,
}

enum Kind {
    Numeric(NumericEncoder),
    Category(CategoryEncoder),
    Text(NgramEncoder),
    Document(DocumentEncoder),
    Embedding(Option<Subspace>, usize),
}

impl Encoder {
    /// Fits the encoder to a sample of a column. `None` if the column has no information: all values are equal, or its dtype is
    /// unsupported.
    ///
    /// # Errors
    /// The dtype of the column does not support the configured role.
    pub(crate) fn fit(feature: &Feature, sample: &Column) -> Result<Option<Self>> {
        let Some(role) = feature.role.map_or_else(|| infer_role(sample), |role| Ok(Some(role)))? else {
            return Ok(None);
        };
        if !supports_role(role, sample.dtype()) {
            let name = &feature.column;
            let reason =
                format!("update.features: column `{name}` is {}; role `{role}` does not support it", sample.dtype());
            return Err(Error::Config(reason));
        }
        let kind = match role {
            Role::Numeric => NumericEncoder::fit(sample)?.map(Kind::Numeric),
            Role::Category => CategoryEncoder::fit(sample)?.map(Kind::Category),
            Role::Text | Role::Document if distinct_count(sample)? < 2 => None,
            Role::Document => Some(Kind::Document(DocumentEncoder::fit(sample)?)),
            Role::Text => Some(Kind::Text(NgramEncoder::fit(sample)?)),
            Role::Embedding => {
                let vectors = vectors(sample)?;
                let subspace = match vectors.ncols() > DIRECTIONS {
                    true => Some(Subspace::fit(
                        &DenseRows(vectors.view()),
                        &mut random_stream(0, "embedding features", 0, 0),
                    )?),
                    false => None,
                };
                Some(Kind::Embedding(subspace, vectors.ncols()))
            }
        };
        let Some(kind) = kind else { return Ok(None) };
        let mut encoder = Encoder { column: feature.column.clone(), kind, centre: Vec::new(), scale: 1.0 };
        let raw = encoder.raw(sample)?.mapv(f64::from);
        let centre = raw.mean_axis(Axis(0)).unwrap_or_default();
        let variance = (&raw - &centre).mapv(|value| value * value).sum() / raw.nrows().max(1) as f64;
        encoder.centre = centre.iter().map(|value| *value as f32).collect();
        encoder.scale = (1.0 / (2.0 * variance).sqrt()) as f32;
        Ok((variance > 0.0 && encoder.scale.is_finite()).then_some(encoder))
    }

    pub(crate) fn column(&self) -> &str {
        &self.column
    }

    pub(crate) fn role(&self) -> Role {
        match self.kind {
            Kind::Numeric(_) => Role::Numeric,
            Kind::Category(_) => Role::Category,
            Kind::Text(_) => Role::Text,
            Kind::Document(_) => Role::Document,
            Kind::Embedding(..) => Role::Embedding,
        }
    }

    pub(crate) fn width(&self) -> usize {
        match &self.kind {
            Kind::Numeric(kind) => kind.width(),
            Kind::Category(kind) => kind.width(),
            Kind::Text(kind) => kind.width(),
            Kind::Document(kind) => kind.width(),
            Kind::Embedding(subspace, dim) => subspace.as_ref().map_or(*dim, Subspace::width),
        }
    }

    /// Encodes a column: an array of shape `(rows, width)`.
    pub(crate) fn encode(&self, column: &Column) -> Result<Array2<f32>> {
        let mut values = self.raw(column)?;
        for mut row in values.rows_mut() {
            row.iter_mut().zip(&self.centre).for_each(|(value, centre)| *value = (*value - centre) * self.scale);
        }
        Ok(values)
    }

    fn raw(&self, column: &Column) -> Result<Array2<f32>> {
        let values = match &self.kind {
            Kind::Numeric(kind) => kind.encode(column)?,
            Kind::Category(kind) => kind.encode(column)?,
            Kind::Text(kind) => kind.encode(column)?,
            Kind::Document(kind) => kind.encode(column)?,
            Kind::Embedding(None, _) => return vectors(column),
            Kind::Embedding(Some(subspace), _) => return Ok(subspace.project(&DenseRows(vectors(column)?.view()))),
        };
        Array2::from_shape_vec((column.len(), self.width()), values).wrap_err(format!("features of `{}`", self.column))
    }
}

/// Infers the role of a column from its dtype and values. `None` if its dtype is unsupported.
fn infer_role(sample: &Column) -> Result<Option<Role>> {
    let dtype = sample.dtype();
    if supports_role(Role::Numeric, dtype) {
        return Ok(Some(Role::Numeric));
    }
    if supports_role(Role::Embedding, dtype) {
        return Ok(Some(Role::Embedding));
    }
    if *dtype != DataType::String {
        return Ok(None);
    }
    Ok(Some(if distinct_count(sample)? <= MAX_CATEGORIES { Role::Category } else { Role::Text }))
}

/// The number of distinct values.
fn distinct_count(column: &Column) -> Result<usize> {
    column.n_unique().wrap_err(format!("column `{}`", column.name()))
}

/// Whether a dtype supports a role.
fn supports_role(role: Role, dtype: &DataType) -> bool {
    let is_numeric = dtype.is_primitive_numeric() || dtype.is_decimal() || dtype.is_temporal() || dtype.is_bool();
    match role {
        Role::Numeric => is_numeric,
        Role::Category => is_numeric || *dtype == DataType::String,
        Role::Text | Role::Document => *dtype == DataType::String,
        Role::Embedding => matches!(dtype, DataType::Array(inner, _) if inner.is_float()),
    }
}

/// The vectors of an array column as f32. Nulls and values that are not finite become 0.
fn vectors(column: &Column) -> Result<Array2<f32>> {
    let DataType::Array(_, dim) = column.dtype() else {
        return Err(Error::contract("features", column.name().as_str(), "an array of numbers", column.dtype()));
    };
    let f32_dtype = DataType::Array(Box::new(DataType::Float32), *dim);
    let vectors = column.cast(&f32_dtype).wrap_err(format!("column `{}` as vectors", column.name()))?;
    let inner = vectors.rechunk().array().wrap_err("vectors")?.get_inner();
    let values = inner.f32().wrap_err("vectors")?.iter();
    let values = values.map(|value| value.filter(|value| value.is_finite()).unwrap_or(0.0)).collect();
    Array2::from_shape_vec((vectors.len(), *dim), values).wrap_err(format!("column `{}`", column.name()))
}

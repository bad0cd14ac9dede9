//! A column as numbers: how it is read, what a sample of it says, and its length.

use ndarray::{Array2, Axis};
use polars::prelude::*;

use super::category::Category;
use super::numeric::Numeric;
use super::subspace::{DIRECTIONS, Dense, Subspace};
use super::text::Text;
use super::{Feature, Role};
use crate::error::{Error, Result, WrapErr};
use crate::random::random_stream;

/// Different values up to which text is a category.
const CATEGORIES: usize = 32;

/// Turns a column into numbers of which the mean squared distance of two items is 1.
pub(crate) struct Encoder {
    column: String,
    kind: Kind,
    centre: Vec<f32>,
    scale: f32,
}

enum Kind {
    Numeric(Numeric),
    Category(Category),
    Text(Text),
    Embedding(Option<Subspace>, usize),
}

impl Encoder {
    /// What a sample says of a column; `None` if it says nothing: all its values are the same, or it can be read in no way.
    ///
    /// # Errors
    /// A role that the column cannot have.
    pub(crate) fn fit(feature: &Feature, sample: &Column) -> Result<Option<Self>> {
        let Some(role) = feature.role.map_or_else(|| suggested(sample), |role| Ok(Some(role)))? else {
            return Ok(None);
        };
        if !can_be(role, sample.dtype()) {
            let name = &feature.column;
            let reason = format!("update.features: column `{name}` is {}; it cannot be read as {role}", sample.dtype());
            return Err(Error::Config(reason));
        }
        let kind = match role {
            Role::Numeric => Numeric::fit(sample)?.map(Kind::Numeric),
            Role::Category => Category::fit(sample)?.map(Kind::Category),
            Role::Text if distinct(sample)? < 2 => None,
            Role::Text => Some(Kind::Text(Text::fit(sample)?)),
            Role::Embedding => {
                let vectors = vectors(sample)?;
                let subspace = match vectors.ncols() > DIRECTIONS {
                    true => {
                        Some(Subspace::fit(&Dense(vectors.view()), &mut random_stream(0, "embedding features", 0, 0))?)
                    }
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
            Kind::Embedding(..) => Role::Embedding,
        }
    }

    pub(crate) fn width(&self) -> usize {
        match &self.kind {
            Kind::Numeric(kind) => kind.width(),
            Kind::Category(kind) => kind.width(),
            Kind::Text(kind) => kind.width(),
            Kind::Embedding(subspace, dim) => subspace.as_ref().map_or(*dim, Subspace::width),
        }
    }

    /// The numbers of some items `(rows, width)`.
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
            Kind::Embedding(None, _) => return vectors(column),
            Kind::Embedding(Some(subspace), _) => return Ok(subspace.project(&Dense(vectors(column)?.view()))),
        };
        Array2::from_shape_vec((column.len(), self.width()), values).wrap_err(format!("features of `{}`", self.column))
    }
}

/// How a column is best read, if in any way.
fn suggested(sample: &Column) -> Result<Option<Role>> {
    let dtype = sample.dtype();
    if can_be(Role::Numeric, dtype) {
        return Ok(Some(Role::Numeric));
    }
    if can_be(Role::Embedding, dtype) {
        return Ok(Some(Role::Embedding));
    }
    if *dtype != DataType::String {
        return Ok(None);
    }
    Ok(Some(if distinct(sample)? <= CATEGORIES { Role::Category } else { Role::Text }))
}

/// How many different values there are.
fn distinct(column: &Column) -> Result<usize> {
    column.n_unique().wrap_err(format!("column `{}`", column.name()))
}

/// Whether columns of a type can be read so.
fn can_be(role: Role, dtype: &DataType) -> bool {
    let is_number = dtype.is_primitive_numeric() || dtype.is_decimal() || dtype.is_temporal() || dtype.is_bool();
    match role {
        Role::Numeric => is_number,
        Role::Category => is_number || *dtype == DataType::String,
        Role::Text => *dtype == DataType::String,
        Role::Embedding => matches!(dtype, DataType::Array(inner, _) if inner.is_float()),
    }
}

/// Lists of one length as f32; nulls and what is not finite are 0.
fn vectors(column: &Column) -> Result<Array2<f32>> {
    let DataType::Array(_, dim) = column.dtype() else {
        return Err(Error::contract("features", column.name().as_str(), "an array of numbers", column.dtype()));
    };
    let wanted = DataType::Array(Box::new(DataType::Float32), *dim);
    let vectors = column.cast(&wanted).wrap_err(format!("column `{}` as vectors", column.name()))?;
    let inner = vectors.rechunk().array().wrap_err("vectors")?.get_inner();
    let values = inner.f32().wrap_err("vectors")?.iter();
    let values = values.map(|value| value.filter(|value| value.is_finite()).unwrap_or(0.0)).collect();
    Array2::from_shape_vec((vectors.len(), *dim), values).wrap_err(format!("column `{}`", column.name()))
}

//! Which column holds the embeddings, and what the dataset's columns are.

use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::options::IndexOptions;
use crate::error::{Error, Result};
use crate::near::no_column;
use crate::schema::{self, EMBEDDING, SOURCE_ROW};
use crate::types;

/// The type of the values of lists.
fn listed(dtype: &DataType) -> Option<&DataType> {
    match dtype {
        DataType::FixedSizeList(item, _) | DataType::List(item) | DataType::LargeList(item) => Some(item.data_type()),
        _ => None,
    }
}

pub(super) fn embedding_position(schema: &Schema, path: &Path, wanted: Option<&str>) -> Result<usize> {
    let names = || schema.fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>().join(", ");
    if let Some(name) = wanted {
        let Ok(position) = schema.index_of(name) else {
            let there = schema.fields().iter().map(|field| field.name().as_str());
            return Err(Error::input(path, no_column(name, "", there)));
        };
        let dtype = schema.field(position).data_type();
        if !listed(dtype).is_some_and(DataType::is_numeric) {
            return Err(Error::input(path, format!("column `{name}`: expected lists of numbers, found {dtype}")));
        }
        return Ok(position);
    }
    let lists_of = |of: fn(&DataType) -> bool| {
        (0..schema.fields().len())
            .filter(|at| listed(schema.field(*at).data_type()).is_some_and(of))
            .collect::<Vec<_>>()
    };
    let floats = lists_of(DataType::is_floating);
    // Fingerprints and counts are integers.
    let found = if floats.is_empty() { lists_of(DataType::is_integer) } else { floats };
    match found.as_slice() {
        [one] => Ok(*one),
        [] => Err(Error::input(path, format!("no column has lists of numbers (there are: {})", names()))),
        many => match many.iter().find(|at| schema.field(**at).name() == EMBEDDING) {
            Some(named) => Ok(*named),
            None => {
                let names: Vec<_> = many.iter().map(|at| schema.field(*at).name().as_str()).collect();
                Err(Error::Config(format!(
                    "{}: several columns have lists of numbers ({}); choose one with --embedding-column",
                    path.display(),
                    names.join(", ")
                )))
            }
        },
    }
}

/// Where another file has the columns of the first one, in whatever order.
pub(super) fn same_columns(first: &Schema, first_path: &Path, other: &Schema, path: &Path) -> Result<Vec<usize>> {
    let differs = |what: String| Error::input(path, format!("differs from {}: {what}", first_path.display()));
    if first.fields().len() != other.fields().len() {
        return Err(differs(format!("{} columns, not {}", other.fields().len(), first.fields().len())));
    }
    let place = |ours: &Arc<Field>| {
        let Ok(theirs) = other.index_of(ours.name()) else {
            return Err(differs(no_column(ours.name(), "", other.fields().iter().map(|field| field.name().as_str()))));
        };
        match other.field(theirs).data_type() {
            dtype if dtype == ours.data_type() => Ok(theirs),
            dtype => Err(differs(format!("column `{}` is {dtype}, not {}", ours.name(), ours.data_type()))),
        }
    };
    first.fields().iter().map(place).collect()
}

pub(super) fn output_schema(input: &Schema, embedding: usize, dim: usize, options: &IndexOptions) -> Result<SchemaRef> {
    if let Some((from, _)) = options.rename.iter().find(|(from, _)| input.index_of(from).is_err()) {
        let there = input.fields().iter().map(|field| field.name().as_str());
        return Err(Error::Config(format!("--rename: {}", no_column(from, "", there))));
    }
    for (position, (from, to)) in options.rename.iter().enumerate() {
        if let Some((_, first)) = options.rename[..position].iter().find(|(other, _)| other == from) {
            return Err(Error::Config(format!("--rename: `{from}` is renamed twice, to `{first}` and to `{to}`")));
        }
        if input.index_of(from).is_ok_and(|at| at == embedding) && to != EMBEDDING {
            let reason = format!("`{from}` holds the embeddings, which are named `{EMBEDDING}` in every dataset");
            return Err(Error::Config(format!("--rename: {reason}; leave it out")));
        }
    }
    let mut fields: Vec<Field> = Vec::with_capacity(input.fields().len() + 1);
    for (position, field) in input.fields().iter().enumerate() {
        if position == embedding {
            let item = Arc::new(Field::new("item", DataType::Float32, true));
            fields.push(Field::new(EMBEDDING, DataType::FixedSizeList(item, dim as i32), true));
            continue;
        }
        let name = options.rename.iter().find(|(from, _)| from == field.name()).map_or(field.name(), |(_, to)| to);
        if schema::is_reserved(name) {
            return Err(Error::Config(format!(
                "column `{name}` has a name this program uses itself; rename it: --rename {name}=my_{}",
                name.trim_start_matches('_')
            )));
        }
        if name.contains(['.', '`']) {
            return Err(Error::Config(format!(
                "column `{name}`: Lance takes `.` and backticks in a name for paths; rename it: --rename {name}={}",
                name.replace(['.', '`'], "_")
            )));
        }
        if fields.iter().any(|other| other.name() == name) {
            return Err(Error::Config(format!("two columns would be named `{name}`")));
        }
        fields.push(Field::new(name, types::kept(name, field.data_type())?, true));
    }
    if options.skip_invalid {
        fields.push(Field::new(SOURCE_ROW, DataType::UInt64, true));
    }
    Ok(Arc::new(Schema::new(fields)))
}

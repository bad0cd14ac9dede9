//! Which column holds the embeddings, and what the dataset's columns are.

use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::options::IndexOptions;
use crate::error::{Error, Result};
use crate::near::no_column;
use crate::schema::{self, EMBEDDING, SOURCE_ROW};
use crate::types;

fn is_embedding(dtype: &DataType) -> bool {
    match dtype {
        DataType::FixedSizeList(item, _) | DataType::List(item) | DataType::LargeList(item) => {
            item.data_type().is_floating()
        }
        _ => false,
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
        if !is_embedding(dtype) {
            return Err(Error::input(path, format!("column `{name}`: expected a list of floats, found {dtype}")));
        }
        return Ok(position);
    }
    let found: Vec<usize> =
        (0..schema.fields().len()).filter(|at| is_embedding(schema.field(*at).data_type())).collect();
    match found.as_slice() {
        [one] => Ok(*one),
        [] => Err(Error::input(path, format!("no column is a list of floats (there are: {})", names()))),
        many => match many.iter().find(|at| schema.field(**at).name() == EMBEDDING) {
            Some(named) => Ok(*named),
            None => {
                let names: Vec<_> = many.iter().map(|at| schema.field(*at).name().as_str()).collect();
                Err(Error::Config(format!(
                    "{}: several columns are lists of floats ({}); choose one with --embedding-column",
                    path.display(),
                    names.join(", ")
                )))
            }
        },
    }
}

pub(super) fn same_columns(first: &Schema, first_path: &Path, other: &Schema, path: &Path) -> Result<()> {
    let differs = |what: String| Err(Error::input(path, format!("differs from {}: {what}", first_path.display())));
    if first.fields().len() != other.fields().len() {
        return differs(format!("{} columns, not {}", other.fields().len(), first.fields().len()));
    }
    for (a, b) in first.fields().iter().zip(other.fields()) {
        if a.name() != b.name() || a.data_type() != b.data_type() {
            return differs(format!("column `{}` {}, not `{}` {}", b.name(), b.data_type(), a.name(), a.data_type()));
        }
    }
    Ok(())
}

pub(super) fn output_schema(input: &Schema, embedding: usize, dim: usize, options: &IndexOptions) -> Result<SchemaRef> {
    if let Some((from, _)) = options.rename.iter().find(|(from, _)| input.index_of(from).is_err()) {
        let there = input.fields().iter().map(|field| field.name().as_str());
        return Err(Error::Config(format!("--rename: {}", no_column(from, "", there))));
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

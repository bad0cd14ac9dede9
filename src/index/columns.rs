//! Finds the embedding column of the input, and derives the columns of the dataset.

use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::hints::{column_hint, is_list_of_numbers, list_item_type, schema_hint, type_hint};
use super::options::IndexOptions;
use crate::error::{Error, Result};
use crate::frame::dtypes;
use crate::frame::schema::{self, EMBEDDING, SOURCE_ROW};
use crate::suggest::unknown_column;

/// The position of the embedding column: the `wanted` column, or the only column with lists of floats. If no column has lists of
/// floats, the only column with lists of integers (such as fingerprints and counts), or of other numbers.
pub(super) fn embedding_position(schema: &Schema, path: &Path, wanted: Option<&str>) -> Result<usize> {
    let names = || schema.fields().iter().map(|field| field.name().as_str());
    if let Some(name) = wanted {
        let Ok(position) = schema.index_of(name) else {
            let parent = name.split_once('.').and_then(|(column, _)| schema.field_with_name(column).ok());
            let hint = parent.and_then(column_hint).map_or(String::new(), |hint| format!("; {hint}"));
            return Err(Error::input(path, unknown_column(name, "", names()) + &hint));
        };
        let field = schema.field(position);
        if !is_list_of_numbers(field.data_type()) {
            let dtype = field.data_type();
            let hint = type_hint(field).map_or(String::new(), |hint| format!("; it {hint}"));
            return Err(Error::input(path, format!("column `{name}`: expected lists of numbers, found {dtype}{hint}")));
        }
        return Ok(position);
    }
    // A column with this name contains the embeddings, in whatever form.
    let embedding_field = schema.field_with_name(EMBEDDING).ok().filter(|field| !is_list_of_numbers(field.data_type()));
    if let Some(hint) = embedding_field.and_then(column_hint) {
        return Err(Error::input(path, hint));
    }
    let lists_of = |is_kind: fn(&DataType) -> bool| {
        let is_match = |at: &usize| list_item_type(schema.field(*at).data_type()).is_some_and(is_kind);
        (0..schema.fields().len()).filter(is_match).collect::<Vec<_>>()
    };
    let other_numbers = |dtype: &DataType| dtype.is_decimal() || *dtype == DataType::Boolean;
    let kinds = [DataType::is_floating, DataType::is_integer, other_numbers];
    let found = kinds.into_iter().map(lists_of).find(|found| !found.is_empty()).unwrap_or_default();
    match found.as_slice() {
        [one] => Ok(*one),
        [] => {
            let available = || format!(" (there are: {})", names().collect::<Vec<_>>().join(", "));
            let hint = schema_hint(schema).map_or_else(available, |hint| format!("; {hint}"));
            Err(Error::input(path, format!("no column has lists of numbers{hint}")))
        }
        several => match several.iter().find(|at| schema.field(**at).name() == EMBEDDING) {
            Some(position) => Ok(*position),
            None => {
                let names: Vec<_> = several.iter().map(|at| schema.field(*at).name().as_str()).collect();
                Err(Error::Config(format!(
                    "{}: several columns have lists of numbers ({}); choose one with --embedding-column",
                    path.display(),
                    names.join(", ")
                )))
            }
        },
    }
}

/// The columns of the dataset: renamed, checked, and with the embeddings as fixed-size lists of f32.
pub(super) fn output_schema(input: &Schema, embedding: usize, dim: usize, options: &IndexOptions) -> Result<SchemaRef> {
    if let Some((from, _)) = options.rename.iter().find(|(from, _)| input.index_of(from).is_err()) {
        let names = input.fields().iter().map(|field| field.name().as_str());
        return Err(Error::Config(format!("--rename: {}", unknown_column(from, "", names))));
    }
    for (position, (from, to)) in options.rename.iter().enumerate() {
        if let Some((_, first)) = options.rename[..position].iter().find(|(other, _)| other == from) {
            return Err(Error::Config(format!("--rename: `{from}` is renamed twice, to `{first}` and to `{to}`")));
        }
        if input.index_of(from).is_ok_and(|at| at == embedding) && to != EMBEDDING {
            let reason = format!("`{from}` contains the embeddings, which are named `{EMBEDDING}` in every dataset");
            return Err(Error::Config(format!("--rename: {reason}; remove the option")));
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
        if schema::is_reserved_column(name) {
            return Err(Error::Config(format!(
                "column `{name}` has a reserved name; rename it: --rename {name}=my_{}",
                name.trim_start_matches('_')
            )));
        }
        if name.contains(['.', '`']) {
            return Err(Error::Config(format!(
                "column `{name}`: Lance reads `.` and backticks in a name as a path; rename it: --rename {name}={}",
                name.replace(['.', '`'], "_")
            )));
        }
        if fields.iter().any(|other| other.name() == name) {
            return Err(Error::Config(format!("two columns would be named `{name}`")));
        }
        fields.push(Field::new(name, dtypes::supported_dtype(name, field.data_type())?, true));
    }
    if options.skip_invalid {
        fields.push(Field::new(SOURCE_ROW, DataType::UInt64, true));
    }
    Ok(Arc::new(Schema::new(fields)))
}

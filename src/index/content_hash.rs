//! The content hash of a library: its columns and all values, independent of files and batches.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, FixedSizeListArray, GenericListArray, RecordBatch, StructArray};
use arrow::array::{OffsetSizeTrait, new_empty_array};
use arrow::datatypes::{DataType, Field, FieldRef, Float32Type, Schema};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};
use blake3::Hasher;

use crate::error::{Result, WrapErr};

/// Hashes the rows of a library as a stream.
///
/// Attributes are hashed row by row, each after its length, in arrow's row format. That format has one form for each value,
/// independent of the bytes under nulls and of the start of a batch. Embeddings are plain numbers without nulls, and are
/// hashed separately, as bytes.
pub(super) struct ContentHasher {
    schema: String,
    embedding: usize,
    row_format: RowConverter,
    embeddings: Hasher,
    attributes: Hasher,
    /// The concatenated rows of a batch.
    rows: Vec<u8>,
}

impl ContentHasher {
    /// A hasher for a library with these columns.
    ///
    /// # Errors
    /// A type that has no row format.
    pub(super) fn new(schema: &Schema, embedding: usize) -> Result<Self> {
        let mut columns = String::new();
        let mut sorted = Vec::new();
        for (position, field) in schema.fields().iter().enumerate() {
            columns.push_str(&format!("{:?}: {}\n", field.name(), type_name(field.data_type())));
            if position != embedding {
                let plain = without_maps(&new_empty_array(field.data_type())).wrap_err(field.name())?;
                sorted.push(SortField::new(plain.data_type().clone()));
            }
        }
        Ok(ContentHasher {
            schema: columns,
            embedding,
            row_format: RowConverter::new(sorted).wrap_err("columns")?,
            embeddings: Hasher::new(),
            attributes: Hasher::new(),
            rows: Vec::new(),
        })
    }

    /// Hashes the next rows. Their embeddings are f32 without nulls.
    pub(super) fn update(&mut self, batch: &RecordBatch) -> Result<()> {
        let mut attributes = Vec::with_capacity(batch.num_columns());
        for (position, (array, field)) in batch.columns().iter().zip(batch.schema_ref().fields()).enumerate() {
            if position == self.embedding {
                let values = array.as_fixed_size_list().values().as_primitive::<Float32Type>().values();
                self.embeddings.update(values.inner().as_slice());
            } else {
                attributes.push(without_maps(array).wrap_err(field.name())?);
            }
        }
        let rows = self.row_format.convert_columns(&attributes).wrap_err("items")?;
        self.rows.clear();
        for row in &rows {
            let row = row.as_ref();
            self.rows.extend_from_slice(&(row.len() as u64).to_le_bytes());
            self.rows.extend_from_slice(row);
        }
        self.attributes.update(&self.rows);
        Ok(())
    }

    /// The library id: the hash of all rows so far, in 32 hexadecimal digits.
    pub(super) fn library_id(&self) -> String {
        let mut all = Hasher::new();
        all.update(self.schema.as_bytes());
        all.update(self.embeddings.finalize().as_bytes());
        all.update(self.attributes.finalize().as_bytes());
        all.finalize().to_hex()[..32].to_string()
    }
}

/// A canonical type name. It ignores the width of offsets and the names of list items, which depend on the writer of the file.
fn type_name(dtype: &DataType) -> String {
    let fields = |fields: &[FieldRef]| {
        let fields: Vec<String> =
            fields.iter().map(|field| format!("{:?}: {}", field.name(), type_name(field.data_type()))).collect();
        fields.join(", ")
    };
    match dtype {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "string".into(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "binary".into(),
        DataType::List(item) | DataType::LargeList(item) => format!("list<{}>", type_name(item.data_type())),
        DataType::FixedSizeList(item, length) => format!("list<{}, {length}>", type_name(item.data_type())),
        DataType::Struct(members) => format!("struct<{}>", fields(members)),
        DataType::Map(entries, _) => format!("map<{}>", type_name(entries.data_type())),
        DataType::Dictionary(_, value) => type_name(value),
        other => other.to_string(),
    }
}

/// Converts each map to the list of its entries, because maps have no row format.
fn without_maps(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    Ok(match array.data_type() {
        DataType::Map(..) => {
            let map = array.as_map();
            let entries = without_maps(&(Arc::new(map.entries().clone()) as ArrayRef))?;
            let item = Arc::new(Field::new("entries", entries.data_type().clone(), true));
            Arc::new(GenericListArray::try_new(item, map.offsets().clone(), entries, map.nulls().cloned())?)
        }
        DataType::List(_) => items_without_maps::<i32>(array)?,
        DataType::LargeList(_) => items_without_maps::<i64>(array)?,
        DataType::FixedSizeList(_, length) => {
            let list = array.as_fixed_size_list();
            let (item, values) = item_without_maps(list.values())?;
            Arc::new(FixedSizeListArray::try_new(item, *length, values, list.nulls().cloned())?)
        }
        DataType::Struct(fields) => {
            let members: Vec<ArrayRef> =
                array.as_struct().columns().iter().map(without_maps).collect::<Result<_, _>>()?;
            let fields = fields.iter().zip(&members);
            let fields = fields.map(|(field, member)| Field::new(field.name(), member.data_type().clone(), true));
            Arc::new(StructArray::try_new(fields.collect(), members, array.nulls().cloned())?)
        }
        _ => array.clone(),
    })
}

fn items_without_maps<O: OffsetSizeTrait>(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let list = array.as_list::<O>();
    let (item, values) = item_without_maps(list.values())?;
    Ok(Arc::new(GenericListArray::try_new(item, list.offsets().clone(), values, list.nulls().cloned())?))
}

fn item_without_maps(values: &ArrayRef) -> Result<(FieldRef, ArrayRef), ArrowError> {
    let values = without_maps(values)?;
    Ok((Arc::new(Field::new("item", values.data_type().clone(), true)), values))
}

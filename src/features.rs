//! What a model reads of an item beside its embedding: numbers, categories, text, further embeddings.

mod category;
mod encoder;
mod numeric;
mod store;
mod subspace;
mod text;

use std::collections::HashMap;
use std::fmt::Formatter;
use std::ops::Range;

use ndarray::{Array2, ArrayView2};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub(crate) use self::encoder::Encoder;
pub(crate) use self::store::{FeatureReader, FeatureWriter};
use crate::error::Error;

/// Which columns of the items a model reads beside their embeddings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Features {
    /// The first 64 columns that ride along, but those that the score or the filter reads. Of them, those that can be read:
    /// numbers, dates and text, more than one value.
    #[default]
    Auto,
    /// These, whatever reads them; none of an empty list.
    Columns(Vec<Feature>),
}

/// A column that a model reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Feature {
    /// Its name.
    pub column: String,
    /// How it is read; as its type and its values suggest where `None`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
}

/// How a column is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Numbers, dates, times, true and false: `(x - median) / (interquartile range / 1.349)`, cut at 4 on both sides. Nulls are the
    /// median, and stand in a column of their own.
    Numeric,
    /// A column for each of the 64 most frequent values.
    Category,
    /// Text of any kind (SMILES, titles, sequences): how often each run of one to four characters stands in the first
    /// 500 of it, as `ln(1 + count)`, in the 64 directions in which the library varies most.
    Text,
    /// Another list of numbers of one length, in the 64 directions in which the library varies most, if it has more.
    Embedding,
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Role::Numeric => "numeric",
            Role::Category => "category",
            Role::Text => "text",
            Role::Embedding => "embedding",
        })
    }
}

/// As a run file has it: `"auto"`, or a list.
impl Serialize for Features {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Features::Auto => serializer.serialize_str("auto"),
            Features::Columns(columns) => columns.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Features {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Written;

        impl<'de> Visitor<'de> for Written {
            type Value = Features;

            fn expecting(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
                f.write_str("\"auto\" or a list of columns")
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<Features, E> {
                match word {
                    "auto" => Ok(Features::Auto),
                    _ => Err(E::invalid_value(de::Unexpected::Str(word), &self)),
                }
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, columns: A) -> Result<Features, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(columns)).map(Features::Columns)
            }
        }
        deserializer.deserialize_any(Written)
    }
}

/// As a run file has it: a name, or `{ column = "…", role = "…" }`.
impl<'de> Deserialize<'de> for Feature {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Full {
            column: String,
            role: Option<Role>,
        }

        struct Written;

        impl<'de> Visitor<'de> for Written {
            type Value = Feature;

            fn expecting(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
                f.write_str("the name of a column, or { column = \"…\", role = \"…\" }")
            }

            fn visit_str<E: de::Error>(self, column: &str) -> Result<Feature, E> {
                Ok(Feature { column: column.into(), role: None })
            }

            fn visit_map<A: de::MapAccess<'de>>(self, fields: A) -> Result<Feature, A::Error> {
                let Full { column, role } = Full::deserialize(MapAccessDeserializer::new(fields))?;
                Ok(Feature { column, role })
            }
        }
        deserializer.deserialize_any(Written)
    }
}

impl Features {
    /// Whether nothing was said.
    pub(crate) fn is_auto(&self) -> bool {
        *self == Features::Auto
    }

    /// Columns, each read as its type and its values suggest.
    pub fn columns<S: Into<String>>(columns: impl IntoIterator<Item = S>) -> Self {
        Features::Columns(columns.into_iter().map(|column| Feature { column: column.into(), role: None }).collect())
    }
}

/// A column as numbers: which of the components of an [`ItemFeatures`] are its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeatureGroup {
    /// The column.
    pub name: String,
    /// How it was read.
    pub role: Role,
    /// Its components.
    pub components: Range<usize>,
}

/// The features of a library's items, a row of f32 for each. Each group is centred and of a length such that the mean squared
/// distance of two items in it is 1.
#[derive(Clone, Default)]
pub struct ItemFeatures {
    groups: Vec<FeatureGroup>,
    values: Array2<f32>,
    /// The id of each row, and back, if that is not its number.
    ids: Vec<u64>,
    row_of: Option<HashMap<u64, usize>>,
}

impl ItemFeatures {
    /// Features of items, `values` `(items, components)`.
    ///
    /// # Errors
    /// An id that is there twice, values that are not finite, groups that do not fit the shape.
    pub fn new(ids: &[u64], groups: Vec<FeatureGroup>, values: Array2<f32>) -> crate::error::Result<Self> {
        let wrong =
            |column: &str, expected: &str, found: String| Err(Error::contract("features", column, expected, found));
        if ids.len() != values.nrows() {
            return wrong("rows", &format!("one for each of {} items", ids.len()), values.nrows().to_string());
        }
        if let Some(group) = groups.iter().find(|group| group.components.end > values.ncols()) {
            let found = format!("components {} to {}", group.components.start, group.components.end);
            return wrong(&group.name, &format!("components below {}", values.ncols()), found);
        }
        if let Some(((row, _), value)) = values.indexed_iter().find(|(_, value)| !value.is_finite()) {
            return wrong("values", "finite numbers", format!("{value} for item {}", ids[row]));
        }
        if (0..).zip(ids).all(|(row, id): (u64, _)| row == *id) {
            return Ok(ItemFeatures { groups, values, ids: Vec::new(), row_of: None });
        }
        let row_of: HashMap<u64, usize> = ids.iter().copied().zip(0..).collect();
        if row_of.len() < ids.len() {
            return wrong("ids", "each once", "one twice".into());
        }
        Ok(ItemFeatures { groups, values, ids: ids.to_vec(), row_of: Some(row_of) })
    }

    /// What there is of each item.
    pub fn groups(&self) -> &[FeatureGroup] {
        &self.groups
    }

    /// Numbers of each item.
    pub fn width(&self) -> usize {
        self.values.ncols()
    }

    /// The features of items, `(items, components)`; zeros, which is the mean, of one that has none.
    pub fn rows(&self, ids: &[u64]) -> Array2<f32> {
        let mut rows = Array2::zeros((ids.len(), self.width()));
        for (id, mut row) in ids.iter().zip(rows.rows_mut()) {
            let at = match &self.row_of {
                None => Some(*id as usize),
                Some(row_of) => row_of.get(id).copied(),
            };
            if let Some(at) = at.filter(|at| *at < self.values.nrows()) {
                row.assign(&self.values.row(at));
            }
        }
        rows
    }

    /// All of them, `(items, components)`.
    pub(crate) fn values(&self) -> ArrayView2<'_, f32> {
        self.values.view()
    }

    /// The item of a row.
    pub(crate) fn id(&self, row: usize) -> u64 {
        self.ids.get(row).copied().unwrap_or(row as u64)
    }
}

/// The name of the file that holds a feature of a library in a state. All of them begin and end as [`is_file_name`] says.
pub(crate) fn file_name(state: &str, feature: &Feature) -> String {
    let role = feature.role.map_or_else(String::new, |role| role.to_string());
    let key = blake3::hash(format!("{} {state} {role} {}", store::FORMAT, feature.column).as_bytes()).to_hex();
    format!("features-{}.f32", &key[..32])
}

/// Whether a file of this name holds features.
pub(crate) fn is_file_name(name: &str) -> bool {
    name.starts_with("features-") && name.ends_with(".f32")
}

/// All names that the features of a column in a state can have.
pub(crate) fn file_names(state: &str, column: &str) -> Vec<String> {
    let roles = [None, Some(Role::Numeric), Some(Role::Category), Some(Role::Text), Some(Role::Embedding)];
    roles.map(|role| file_name(state, &Feature { column: column.into(), role })).into()
}

impl std::fmt::Debug for ItemFeatures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ItemFeatures").field("groups", &self.groups).field("items", &self.values.nrows()).finish()
    }
}

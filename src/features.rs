//! Features: item columns that a model reads in addition to the embedding. Numbers, categories, text, further embeddings.

mod category;
mod documents;
mod encoder;
mod ngrams;
mod numeric;
mod store;
mod subspace;

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

/// Which columns of the items a model reads in addition to the embedding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Features {
    /// The first 64 attributes, without those that the score or the filter reads. Of these, the columns with a supported type
    /// (numbers, dates, text, embeddings) and more than one value.
    #[default]
    Auto,
    /// These columns, even if the score or the filter reads them. An empty list means no features.
    Columns(Vec<Feature>),
}

/// A column that a model reads, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Feature {
    /// The name of the column.
    pub column: String,
    /// How the column is encoded. `None` infers the role from its dtype and values.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
}

/// How a column is encoded as numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Numbers, dates, times and booleans: `(x - median) / (interquartile range / 1.349)`, clipped to -4 to 4. Nulls become the
    /// median, and an extra component marks them.
    Numeric,
    /// One-hot encoding of the 64 most frequent values.
    Category,
    /// Text of any kind (SMILES, titles, sequences): counts of character n-grams of length 1 to 4 in the first 500 characters,
    /// as `ln(1 + count)`, projected on the first 64 principal components of the library.
    Text,
    /// Long text (abstracts, reports): counts of character n-grams of length 3 to 5 within the words of the first 2000 characters,
    /// as `ln(1 + count)`, weighted by rarity (TF-IDF), in vectors of length 1, projected on the first 64 principal components of
    /// the library. A column of long texts has these features in addition to those of `Text`. The model reads them instead if
    /// scores have few values.
    Document,
    /// Another embedding, projected on the first 64 principal components of the library if it has more dimensions.
    Embedding,
}

/// The roles in run files. Columns of long texts are documents anyway.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RunFileRole {
    Numeric,
    Category,
    Text,
    Embedding,
}

impl From<RunFileRole> for Role {
    fn from(role: RunFileRole) -> Self {
        match role {
            RunFileRole::Numeric => Role::Numeric,
            RunFileRole::Category => Role::Category,
            RunFileRole::Text => Role::Text,
            RunFileRole::Embedding => Role::Embedding,
        }
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Role::Numeric => "numeric",
            Role::Category => "category",
            Role::Text => "text",
            Role::Document => "document",
            Role::Embedding => "embedding",
        })
    }
}

/// The form in a run file: `"auto"`, or a list.
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
        struct RunFileVisitor;

        impl<'de> Visitor<'de> for RunFileVisitor {
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
        deserializer.deserialize_any(RunFileVisitor)
    }
}

/// The form in a run file: a name, or `{ column = "…", role = "…" }`.
impl<'de> Deserialize<'de> for Feature {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct FeatureTable {
            column: String,
            role: Option<RunFileRole>,
        }

        struct RunFileVisitor;

        impl<'de> Visitor<'de> for RunFileVisitor {
            type Value = Feature;

            fn expecting(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
                f.write_str("the name of a column, or { column = \"…\", role = \"…\" }")
            }

            fn visit_str<E: de::Error>(self, column: &str) -> Result<Feature, E> {
                Ok(Feature { column: column.into(), role: None })
            }

            fn visit_map<A: de::MapAccess<'de>>(self, fields: A) -> Result<Feature, A::Error> {
                let FeatureTable { column, role } = FeatureTable::deserialize(MapAccessDeserializer::new(fields))?;
                Ok(Feature { column, role: role.map(Role::from) })
            }
        }
        deserializer.deserialize_any(RunFileVisitor)
    }
}

impl Features {
    /// Whether this is `Auto`, the default.
    pub(crate) fn is_auto(&self) -> bool {
        *self == Features::Auto
    }

    /// Columns whose roles are inferred from their dtypes and values.
    pub fn columns<S: Into<String>>(columns: impl IntoIterator<Item = S>) -> Self {
        Features::Columns(columns.into_iter().map(|column| Feature { column: column.into(), role: None }).collect())
    }
}

/// A feature group: the components of [`ItemFeatures`] that encode one column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeatureGroup {
    /// The name of the column.
    pub name: String,
    /// How the column is encoded.
    pub role: Role,
    /// The range of its components.
    pub components: Range<usize>,
}

/// The features of the items of a library: a matrix of f32 with a row per item. Each feature group is centred, and scaled so that
/// the mean squared distance of two items is 1.
#[derive(Clone, Default)]
pub struct ItemFeatures {
    groups: Vec<FeatureGroup>,
    values: Array2<f32>,
    /// The ids of the rows, and the rows of the ids. Empty if the ids are the row numbers.
    ids: Vec<u64>,
    row_of: Option<HashMap<u64, usize>>,
}

impl ItemFeatures {
    /// Features of the items with these ids, with `values` of shape `(items, components)`.
    ///
    /// # Errors
    /// A duplicate id, a value that is not finite, or a group outside of the shape.
    pub fn new(ids: &[u64], groups: Vec<FeatureGroup>, values: Array2<f32>) -> crate::error::Result<Self> {
        let invalid =
            |column: &str, expected: &str, found: String| Err(Error::contract("features", column, expected, found));
        if ids.len() != values.nrows() {
            return invalid("rows", &format!("a row for each of {} items", ids.len()), values.nrows().to_string());
        }
        if let Some(group) = groups.iter().find(|group| group.components.end > values.ncols()) {
            let found = format!("components {} to {}", group.components.start, group.components.end);
            return invalid(&group.name, &format!("components below {}", values.ncols()), found);
        }
        if let Some(((row, _), value)) = values.indexed_iter().find(|(_, value)| !value.is_finite()) {
            return invalid("values", "finite numbers", format!("{value} for item {}", ids[row]));
        }
        if (0..).zip(ids).all(|(row, id): (u64, _)| row == *id) {
            return Ok(ItemFeatures { groups, values, ids: Vec::new(), row_of: None });
        }
        let row_of: HashMap<u64, usize> = ids.iter().copied().zip(0..).collect();
        if row_of.len() < ids.len() {
            return invalid("ids", "unique ids", "a duplicate".into());
        }
        Ok(ItemFeatures { groups, values, ids: ids.to_vec(), row_of: Some(row_of) })
    }

    /// The feature groups, in the order of their components.
    pub fn groups(&self) -> &[FeatureGroup] {
        &self.groups
    }

    /// The number of components per item.
    pub fn width(&self) -> usize {
        self.values.ncols()
    }

    /// The features of items, of shape `(items, components)`. An item without features gets zeros, which are the mean.
    pub fn rows(&self, ids: &[u64]) -> Array2<f32> {
        let mut rows = Array2::zeros((ids.len(), self.width()));
        for (id, mut row) in ids.iter().zip(rows.rows_mut()) {
            let position = match &self.row_of {
                None => Some(*id as usize),
                Some(row_of) => row_of.get(id).copied(),
            };
            if let Some(position) = position.filter(|position| *position < self.values.nrows()) {
                row.assign(&self.values.row(position));
            }
        }
        rows
    }

    /// The features of all items, of shape `(items, components)`.
    pub(crate) fn values(&self) -> ArrayView2<'_, f32> {
        self.values.view()
    }

    /// The id of the item in a row.
    pub(crate) fn id(&self, row: usize) -> u64 {
        self.ids.get(row).copied().unwrap_or(row as u64)
    }
}

/// The name of the file with a feature of a library in a given state. It matches [`is_file_name`].
pub(crate) fn file_name(state: &str, feature: &Feature) -> String {
    let role = feature.role.map_or_else(String::new, |role| role.to_string());
    let key = blake3::hash(format!("{} {state} {role} {}", store::FORMAT, feature.column).as_bytes()).to_hex();
    format!("features-{}.f32", &key[..32])
}

/// Whether a file name is that of a feature file.
pub(crate) fn is_file_name(name: &str) -> bool {
    name.starts_with("features-") && name.ends_with(".f32")
}

/// All possible file names for the features of a column in a given state, one per role.
pub(crate) fn file_names(state: &str, column: &str) -> Vec<String> {
    let roles = [Role::Numeric, Role::Category, Role::Text, Role::Document, Role::Embedding];
    let roles = std::iter::once(None).chain(roles.map(Some));
    roles.map(|role| file_name(state, &Feature { column: column.into(), role })).collect()
}

impl std::fmt::Debug for ItemFeatures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ItemFeatures").field("groups", &self.groups).field("items", &self.values.nrows()).finish()
    }
}

//! Hints for embeddings that are not lists of numbers: the Polars expression that converts them.

use arrow::datatypes::{DataType, Field, Schema};

/// Words in the names of embedding columns.
const EMBEDDING_WORDS: [&str; 5] = ["embedding", "vector", "fingerprint", "emb", "vec"];

/// The minimum number of numbered columns that look like the components of an embedding.
const MIN_COMPONENTS: usize = 3;

/// The item type of a list type.
pub(super) fn list_item_type(dtype: &DataType) -> Option<&DataType> {
    match dtype {
        DataType::FixedSizeList(item, _) | DataType::List(item) | DataType::LargeList(item) => Some(item.data_type()),
        _ => None,
    }
}

/// Whether a type is a list of numbers or booleans.
pub(super) fn is_list_of_numbers(dtype: &DataType) -> bool {
    list_item_type(dtype).is_some_and(|dtype| dtype.is_numeric() || *dtype == DataType::Boolean)
}

/// A hint for a file without lists of numbers, if some columns look like an embedding.
pub(super) fn schema_hint(schema: &Schema) -> Option<String> {
    let rank = |field: &Field| {
        let name = field.name().to_lowercase();
        let is_word =
            |wanted: &str| name.split(|c: char| !c.is_alphanumeric()).any(|word| word.trim_end_matches('s') == wanted);
        EMBEDDING_WORDS.iter().position(|word| is_word(word) || word.len() > 3 && name.contains(word))
    };
    let ranked = schema.fields().iter().filter_map(|field| Some((rank(field)?, column_hint(field)?)));
    let best_named = ranked.min_by_key(|(rank, _)| *rank).map(|(_, hint)| hint);
    let first_nested = || {
        let mut nested = schema.fields().iter().filter(|field| field.data_type().is_nested());
        nested.find_map(|field| column_hint(field))
    };
    component_columns_hint(schema).or(best_named).or_else(first_nested)
}

/// A hint for a column, if it may contain an embedding. The hint begins with the column's name.
pub(super) fn column_hint(field: &Field) -> Option<String> {
    type_hint(field).map(|hint| format!("column `{}` {hint}", field.name()))
}

/// As [`column_hint`], but begins with `is` instead of the name.
pub(super) fn type_hint(field: &Field) -> Option<String> {
    use DataType as T;
    let name = field.name();
    let (description, polars): (&str, String) = match field.data_type() {
        T::Utf8 | T::LargeUtf8 | T::Utf8View => {
            let decode = format!("pl.col(\"{name}\").str.json_decode(pl.List(pl.Float32))");
            let decode_base64 =
                format!("pl.col(\"{name}\").str.decode(\"base64\").bin.reinterpret(dtype=pl.Array(pl.Float32, N))");
            (
                "text",
                format!("{decode} for text such as \"[0.5, 0.25]\", or {decode_base64} for base64 of N components"),
            )
        }
        T::FixedSizeBinary(bytes) if bytes % 4 == 0 => {
            let reinterpret = format!("pl.col(\"{name}\").bin.reinterpret(dtype=pl.Array(pl.Float32, {}))", bytes / 4);
            ("bytes", format!("{reinterpret}, if they are floats of 32 bits"))
        }
        T::Binary | T::LargeBinary | T::BinaryView | T::FixedSizeBinary(_) => {
            let reinterpret = format!("pl.col(\"{name}\").bin.reinterpret(dtype=pl.Array(pl.Float32, N))");
            ("bytes", format!("{reinterpret}, if they are N floats of 32 bits"))
        }
        T::Struct(members) => {
            let member = members.iter().find(|member| is_list_of_numbers(member.data_type()))?.name();
            ("a struct", format!("pl.col(\"{name}\").struct.field(\"{member}\").alias(\"embedding\")"))
        }
        T::FixedSizeList(item, 1) if is_list_of_numbers(item.data_type()) => {
            ("lists in lists", format!("pl.col(\"{name}\").arr.first()"))
        }
        T::List(item) | T::LargeList(item) | T::FixedSizeList(item, _) if is_list_of_numbers(item.data_type()) => {
            ("lists in lists", format!("pl.col(\"{name}\").list.first(), if each holds one"))
        }
        T::List(item) | T::LargeList(item) if item.data_type().is_string() => {
            ("lists of text", format!("pl.col(\"{name}\").cast(pl.List(pl.Float32))"))
        }
        T::Map(..) => ("a map", format!("pl.col(\"{name}\").list.eval(pl.element().struct.field(\"value\"))")),
        _ => return None,
    };
    Some(format!("is {description}; convert it to lists with Polars: {polars}"))
}

/// A hint for columns that contain one component each: `dim_0`, `dim_1`, …
fn component_columns_hint(schema: &Schema) -> Option<String> {
    let numbered = |field: &Field| {
        let name = field.name();
        let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
        let number = name[stem.len()..].parse::<usize>().ok()?;
        field.data_type().is_numeric().then(|| (stem.to_string(), number))
    };
    let numbered: Vec<(String, usize)> = schema.fields().iter().filter_map(|field| numbered(field)).collect();
    let length_of = |stem: &str, first: usize| {
        (first..).take_while(|number| numbered.contains(&(stem.to_string(), *number))).count()
    };
    let starts = numbered.iter().filter(|(_, number)| *number < 2);
    let runs = starts.map(|(stem, first)| (length_of(stem, *first), stem, *first));
    let (length, stem, first) =
        runs.max_by_key(|(length, ..)| *length).filter(|(length, ..)| *length >= MIN_COMPONENTS)?;
    let escaped = |c: char| if c.is_alphanumeric() || c == '_' { c.to_string() } else { format!("[{c}]") };
    let pattern: String = stem.chars().map(escaped).collect();
    let last = first + length - 1;
    Some(format!(
        "the columns `{stem}{first}` to `{stem}{last}` are one component each; convert them to lists with Polars: \
         df.select(pl.all().exclude(\"^{pattern}[0-9]+$\"), embedding=pl.concat_arr(\"^{pattern}[0-9]+$\"))"
    ))
}

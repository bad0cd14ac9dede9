//! How to make a list of an embedding that is none: one line of Polars.

use arrow::datatypes::{DataType, Field, Schema};

/// Words in the names of columns that hold embeddings.
const NAMES: [&str; 5] = ["embedding", "vector", "fingerprint", "emb", "vec"];

/// Columns of one component each, at least, that are taken for an embedding.
const COMPONENTS: usize = 3;

/// The type of the values of lists.
pub(super) fn listed(dtype: &DataType) -> Option<&DataType> {
    match dtype {
        DataType::FixedSizeList(item, _) | DataType::List(item) | DataType::LargeList(item) => Some(item.data_type()),
        _ => None,
    }
}

pub(super) fn is_list_of_numbers(dtype: &DataType) -> bool {
    listed(dtype).is_some_and(|dtype| dtype.is_numeric() || *dtype == DataType::Boolean)
}

/// What to do about the columns of a file without lists of numbers, if they look like an embedding.
pub(super) fn remedy(schema: &Schema) -> Option<String> {
    let rank = |field: &Field| {
        let name = field.name().to_lowercase();
        let is_word =
            |wanted: &str| name.split(|c: char| !c.is_alphanumeric()).any(|word| word.trim_end_matches('s') == wanted);
        NAMES.iter().position(|word| is_word(word) || word.len() > 3 && name.contains(word))
    };
    let named = schema.fields().iter().filter_map(|field| Some((rank(field)?, remedy_of(field)?)));
    let named = named.min_by_key(|(rank, _)| *rank).map(|(_, remedy)| remedy);
    let nested = || {
        let mut nested = schema.fields().iter().filter(|field| field.data_type().is_nested());
        nested.find_map(|field| remedy_of(field))
    };
    components(schema).or(named).or_else(nested)
}

/// What to do about a column, if an embedding may be in it.
pub(super) fn remedy_of(field: &Field) -> Option<String> {
    remedy_of_it(field).map(|remedy| format!("column `{}` {remedy}", field.name()))
}

/// The same, after the name.
pub(super) fn remedy_of_it(field: &Field) -> Option<String> {
    use DataType as T;
    let name = field.name();
    let (is, polars): (&str, String) = match field.data_type() {
        T::Utf8 | T::LargeUtf8 | T::Utf8View => {
            let decode = format!("pl.col(\"{name}\").str.json_decode(pl.List(pl.Float32))");
            let other =
                format!("pl.col(\"{name}\").str.decode(\"base64\").bin.reinterpret(dtype=pl.Array(pl.Float32, N))");
            ("text", format!("{decode} of \"[0.5, 0.25]\", {other} of base64 of N components"))
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
    Some(format!("is {is}; make lists of it, with Polars: {polars}"))
}

/// What to do about columns that hold one component each: `dim_0`, `dim_1`, …
fn components(schema: &Schema) -> Option<String> {
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
    let (length, stem, first) = runs.max_by_key(|(length, ..)| *length).filter(|(length, ..)| *length >= COMPONENTS)?;
    let escaped = |c: char| if c.is_alphanumeric() || c == '_' { c.to_string() } else { format!("[{c}]") };
    let pattern: String = stem.chars().map(escaped).collect();
    let last = first + length - 1;
    Some(format!(
        "the columns `{stem}{first}` to `{stem}{last}` are one component each; make lists of them, with Polars: \
         df.select(pl.all().exclude(\"^{pattern}[0-9]+$\"), embedding=pl.concat_arr(\"^{pattern}[0-9]+$\"))"
    ))
}

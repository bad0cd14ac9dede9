//! JSON conversion: frames to records, records to answers.

use polars::prelude::*;
use serde_json::{Map, Value};

use super::answer::{Answer, InvalidScore, excerpt, text_for_number};
use super::answers::Attempt;
use super::fault::ScorerFault;
use crate::error::{Result, WrapErr};
use crate::frame::part_values::PartValue;
use crate::frame::schema::{DB_IDX, OUTCOME, REASON, SCORE};
use crate::frame::text::to_json_types;
use crate::io::exact_json::{NUMBER_MARK, quote_floats, without_marks};

/// The number of decimal digits that a 64-bit float preserves.
const EXACT_DIGITS: usize = 15;

/// Converts each row to an object, with keys in the order of the columns. Bytes are base64; dates, times and durations are
/// ISO 8601 (see [`to_json_types`]); decimals of at most 15 digits are numbers, longer ones text, so that no digit is lost. NaN and
/// infinities, which JSON does not have, are null.
///
/// # Errors
/// An error from Polars.
pub(super) fn records(frame: &DataFrame) -> Result<Vec<Value>> {
    rows(&to_json_types(frame)?)
}

fn rows(frame: &DataFrame) -> Result<Vec<Value>> {
    let mut rows: Vec<Map<String, Value>> = vec![Map::new(); frame.height()];
    for column in frame.columns() {
        let name = column.name().as_str();
        for (row, value) in rows.iter_mut().zip(values(name, column.as_materialized_series())?) {
            row.insert(name.into(), value);
        }
    }
    Ok(rows.into_iter().map(Value::Object).collect())
}

fn values(name: &str, series: &Series) -> Result<Vec<Value>> {
    let context = || format!("column `{name}` as JSON");
    let cast = |to: &DataType| series.cast(to).wrap_err(context());
    let list = |inner: Option<Series>| inner.map_or(Ok(Value::Null), |inner| Ok(Value::Array(values(name, &inner)?)));
    Ok(match series.dtype() {
        DataType::Null => vec![Value::Null; series.len()],
        DataType::Boolean => series.bool().wrap_err(context())?.iter().map(Value::from).collect(),
        dtype if dtype.is_unsigned_integer() => {
            cast(&DataType::UInt64)?.u64().wrap_err(context())?.iter().map(Value::from).collect()
        }
        dtype if dtype.is_integer() => {
            cast(&DataType::Int64)?.i64().wrap_err(context())?.iter().map(Value::from).collect()
        }
        dtype if dtype.is_float() || matches!(dtype, DataType::Decimal(digits, _) if *digits <= EXACT_DIGITS) => {
            // Value::from makes null of values that are not finite.
            cast(&DataType::Float64)?.f64().wrap_err(context())?.iter().map(Value::from).collect()
        }
        DataType::List(_) => series.list().wrap_err(context())?.series_iter().map(list).collect::<Result<_>>()?,
        DataType::Array(..) => series.array().wrap_err(context())?.series_iter().map(list).collect::<Result<_>>()?,
        DataType::Struct(_) => {
            let fields =
                series.struct_().wrap_err(context())?.fields_as_series().into_iter().map(Column::from).collect();
            let records = rows(&DataFrame::new(series.len(), fields).wrap_err(context())?)?;
            let is_null = series.is_null();
            let null = |(record, is_null)| if is_null == Some(true) { Value::Null } else { record };
            records.into_iter().zip(is_null.iter()).map(null).collect()
        }
        // Longer decimals, and all other types that have a text form.
        _ => cast(&DataType::String)?.str().wrap_err(context())?.iter().map(Value::from).collect(),
    })
}

/// Parses JSON as scorers write it: accepts Python's `NaN` and `Infinity`, and reads floats exactly
/// (serde_json may round the last digit, which would change the score).
#[cfg(any(test, feature = "http"))]
pub(super) fn parse(text: &[u8]) -> std::result::Result<Value, String> {
    let not_json = || format!("returned invalid JSON: {}", excerpt(text));
    let text = std::str::from_utf8(text).map_err(|_| not_json())?;
    serde_json::from_str(&quote_floats(text)).map_err(|_| not_json())
}

/// Finds the answers in a line of output: its JSON objects with a `db_idx`. Ignores other output before, between and after
/// them.
pub(super) fn find_answers(line: &[u8]) -> Vec<Value> {
    /// The maximum number of opening braces that do not begin a JSON object.
    const MAX_TRIES: usize = 64;
    let text = String::from_utf8_lossy(line);
    if !text.contains(DB_IDX) {
        return Vec::new();
    }
    if let Ok(value) = serde_json::from_str::<Value>(&quote_floats(&text)) {
        return if is_answer(&value) { vec![value] } else { Vec::new() };
    }
    let (mut found, mut rest, mut tries) = (Vec::new(), text.into_owned(), 0);
    while tries < MAX_TRIES {
        let Some(start) = rest.find('{') else { break };
        let quoted = quote_floats(&rest[start..]);
        let mut values = serde_json::Deserializer::from_str(&quoted).into_iter::<Value>();
        rest = match values.next() {
            Some(Ok(value)) => {
                found.extend(Some(value).filter(is_answer));
                quoted[values.byte_offset()..].into()
            }
            _ => {
                tries += 1;
                rest[start + 1..].into()
            }
        };
    }
    found
}

fn is_answer(value: &Value) -> bool {
    value.get(DB_IDX).is_some()
}

/// A numeric value; `None` for any other value.
fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::Bool(yes) => Some(f64::from(u8::from(*yes))),
        Value::String(text) => text.strip_prefix(NUMBER_MARK)?.parse().ok(),
        _ => None,
    }
}

/// The score in an answer, or why there is none.
pub(super) fn parse_score(score: Option<&Value>, reason: Option<&str>) -> std::result::Result<f64, InvalidScore> {
    let other = |value: &Value| match value {
        Value::String(text) => text_for_number(text),
        Value::Array(_) => "returned a list instead of a number".into(),
        _ => "returned an object instead of a number".into(),
    };
    match score {
        None | Some(Value::Null) => Err(InvalidScore::Missing(reason.unwrap_or("no score").into())),
        Some(value) => number(value).ok_or_else(|| InvalidScore::NotANumber(other(value))),
    }
}

/// A part of the score: a number or a text. `None` for any other value.
fn part_value(value: &Value) -> Option<PartValue> {
    number(value).map(PartValue::Number).or_else(|| value.as_str().map(PartValue::text))
}

/// Records one answer, `{"db_idx": 17, "score": 0.5}`, optionally with `outcome` and `reason`. Other keys with
/// numbers and texts are parts of the score; keys with other values are ignored.
///
/// # Errors
/// The answer has no `db_idx`, or one that was not requested.
pub(super) fn record_answer(record: &Value, attempt: &mut Attempt) -> std::result::Result<(), ScorerFault> {
    let without_id = || {
        ScorerFault::wrong_ids(format!(
            "returned an answer without a `db_idx`: {}",
            excerpt(without_marks(record).as_bytes())
        ))
    };
    let record = record.as_object().ok_or_else(without_id)?;
    let id = record.get(DB_IDX).filter(|id| !id.is_null()).ok_or_else(without_id)?;
    let id = id.as_u64().ok_or_else(|| {
        let found = number(id).map_or_else(|| excerpt(without_marks(id).as_bytes()), |number| format!("{number:?}"));
        ScorerFault::wrong_ids(format!("returned `db_idx` as {found}, expected a whole number as it was sent"))
    })?;
    let text = |key| record.get(key).and_then(Value::as_str);
    let answer = Answer::new(parse_score(record.get(SCORE), text(REASON)), text(REASON), text(OUTCOME));
    let row = attempt.record(id, answer)?;
    for (name, value) in record {
        if let (Some(value), false) = (part_value(value), [DB_IDX, SCORE, OUTCOME, REASON].contains(&name.as_str())) {
            attempt.record_part(row, name, value);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn floats_are_exact_and_the_nan_of_python_is_a_number() {
        for text in [
            "0.7433739727632273",
            "-1.0E-7",
            "1e22",
            "8.988465674311579e307",
            "0.1",
            "-0.0",
            "12",
            "123456789012345678.5",
        ] {
            assert_eq!(
                number(&parse(text.as_bytes()).unwrap()).unwrap().to_bits(),
                text.parse::<f64>().unwrap().to_bits()
            );
        }
        assert!(number(&parse(b"NaN").unwrap()).unwrap().is_nan());
        assert_eq!(number(&parse(b"-Infinity").unwrap()), Some(f64::NEG_INFINITY));
        assert_eq!(number(&parse(b"1e999").unwrap()), Some(f64::INFINITY));
        let text = r#"{"a \" 1.5 NaN": "0.5 \\", "b": [1.5, true, null]}"#;
        assert_eq!(parse(text.as_bytes()).unwrap(), json!({"a \" 1.5 NaN": "0.5 \\", "b": ["\u{1}1.5", true, null]}));
        for wrong in ["hello", "1.", ".5", "+1.0", "1.e5", "{\"a\": nan}", "inf", "\"open", "{\"a\": 1.5.2}", "\"\\"] {
            assert!(parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
        assert_eq!(parse(b"Loading model\nmore").unwrap_err(), "returned invalid JSON: `Loading model…`");
    }

    #[test]
    fn answers_are_found_among_other_output() {
        let answer = json!({"db_idx": 1, "score": "\u{1}0.1"});
        for line in [
            r#"{"db_idx": 1, "score": 0.1}"#,
            "\rscoring  10%|#   |{\"db_idx\": 1, \"score\": 0.1}",
            "\x1b[32mok\x1b[0m {\"db_idx\": 1, \"score\": 0.1}\x1b[0m done",
            r#"5" {x: 1.5} {"level": "info"} {"db_idx": 1, "score": 0.1} "#,
        ] {
            assert_eq!(find_answers(line.as_bytes()), std::slice::from_ref(&answer), "{line}");
        }
        assert_eq!(
            find_answers(br#"{"db_idx": 1, "score": 0.1}{"db_idx": 1, "score": 0.1}"#),
            [answer.clone(), answer]
        );
        for line in ["42", "null", "[1]", "hello", r#"{"level": "info"}"#, "{'db_idx': 1, 'score': 0.5}", "db_idx {{{"]
        {
            assert_eq!(find_answers(line.as_bytes()), [] as [Value; 0], "{line}");
        }
    }

    #[test]
    fn every_column_has_a_json_form() {
        let frame = df!(
            "db_idx" => [u64::MAX, 2],
            "small" => [Some(-3i8), None],
            "single" => [0.1f32, f32::NAN],
            "text" => ["a \"quote\"", "ü"],
            "flag" => [true, false],
            "list" => [Series::new("".into(), [1i64, 2]), Series::new_empty("".into(), &DataType::Int64)],
        );
        let mut frame = frame.unwrap();
        let day = Column::new("day".into(), [19_723i32, 0]).cast(&DataType::Date).unwrap();
        let time = Column::new("time".into(), [1_704_110_400_000_000i64, 1])
            .cast(&DataType::Datetime(TimeUnit::Microseconds, None))
            .unwrap();
        frame.with_column(day).unwrap().with_column(time).unwrap();
        assert_eq!(
            Value::Array(records(&frame).unwrap()),
            json!([
                {"db_idx": u64::MAX, "small": -3, "single": f64::from(0.1f32), "text": "a \"quote\"", "flag": true, "list": [1, 2],
                 "day": "2024-01-01", "time": "2024-01-01T12:00:00"},
                {"db_idx": 2, "small": null, "single": null, "text": "ü", "flag": false, "list": [],
                 "day": "1970-01-01", "time": "1970-01-01T00:00:00.000001"},
            ])
        );
    }
}

//! CSV as people and spreadsheets write it: fields separated by commas, semicolons, tabs or bars, quoted or not.

use std::borrow::Cow;

use polars::prelude::{Column, DataFrame};

use super::ColumnRoles;
use super::values::{self, DecimalMark, Field, Fields};

/// The supported field separators.
const SEPARATORS: [char; 4] = [',', ';', '\t', '|'];

/// Rows that are read to detect the separator.
const SAMPLE_ROWS: usize = 20;

/// Parses a CSV text into a frame. The error says what is wrong, and in which line.
pub(super) fn read(
    text: &str,
    roles: &ColumnRoles<'_>,
    columns_where: Option<&dyn Fn(&str) -> bool>,
) -> Result<DataFrame, String> {
    // Excel writes the separator in a first line, `sep=;`.
    let (text, skipped, stated) = match text.strip_prefix("sep=").map(|rest| (rest, rest.chars().next())) {
        Some((rest, Some(separator))) if SEPARATORS.contains(&separator) => {
            let (_, text) = rest.split_once('\n').unwrap_or_default();
            (text, 1, Some(separator))
        }
        _ => (text, 0, None),
    };
    let separator = match stated {
        Some(separator) => separator,
        None => detect_separator(text, roles)?,
    };
    let mut rows = RowParser { text, separator, line: skipped };
    let Some((_, header)) = rows.next().transpose()? else { return Err("has no rows".into()) };
    let header: Vec<String> = header.into_iter().map(|field| field.text.trim().to_string()).collect();
    let is_duplicate = |column: &usize| !header[*column].is_empty() && header[..*column].contains(&header[*column]);
    if let Some(duplicate) = (0..header.len()).find(is_duplicate) {
        return Err(format!("two columns are named `{}`", header[duplicate]));
    }
    // Columns without a name, such as the row numbers that pandas writes, are skipped.
    let is_read = |name: &String| !name.is_empty() && columns_where.is_none_or(|is_read| is_read(name));
    let wanted: Vec<bool> = header.iter().map(is_read).collect();
    let mut columns: Vec<Vec<Field<'_>>> = vec![Vec::new(); header.len()];
    let mut lines = Vec::new();
    for row in rows {
        let (line, fields) = row?;
        if fields.iter().all(Field::is_absent) {
            continue;
        }
        let (found, named) =
            (fields.len(), header.iter().rposition(|name| !name.is_empty()).map_or(0, |last| last + 1));
        if found < named || fields.iter().skip(header.len()).any(|field| !field.is_absent()) {
            let comma =
                if separator == ',' { "; if commas are decimal marks, separate fields with semicolons" } else { "" };
            return Err(format!("line {line} has {found} fields, but the header has {}{comma}", header.len()));
        }
        lines.push(line);
        for (column, field) in
            columns.iter_mut().zip(fields).zip(&wanted).filter_map(|(pair, wanted)| wanted.then_some(pair))
        {
            column.push(field);
        }
    }
    let rows = lines.len();
    let columns = header.iter().zip(columns).zip(wanted).filter_map(|(pair, wanted)| wanted.then_some(pair));
    let columns: Vec<(&String, Vec<Field<'_>>)> = columns.collect();
    let decimal_mark = DecimalMark::detect(columns.iter().map(|(_, fields)| fields.as_slice()));
    let column = |(name, fields): &(&String, Vec<Field<'_>>)| -> Result<Column, String> {
        values::column(name, &Fields { lines: &lines, fields }, roles, decimal_mark)
            .map_err(|reason| format!("column `{name}`: {reason}"))
    };
    let columns = columns.iter().map(column).collect::<Result<Vec<_>, _>>()?;
    DataFrame::new(rows, columns).map_err(|error| error.to_string())
}

/// Detects the separator: the only one with which the header has all required columns, or with which all rows have the same
/// number of fields.
fn detect_separator(text: &str, roles: &ColumnRoles<'_>) -> Result<char, String> {
    let rows = |separator| RowParser { text, separator, line: 0 }.take(SAMPLE_ROWS).map_while(Result::ok);
    let count = |separator| rows(separator).next().map_or(0, |(_, header)| header.len());
    let splits: Vec<char> = SEPARATORS.into_iter().filter(|separator| count(*separator) > 1).collect();
    let has_all = |separator: &&char| {
        let header = rows(**separator).next().map(|(_, header)| header).unwrap_or_default();
        let is_there = |name: &str| header.iter().any(|field| field.text.trim().eq_ignore_ascii_case(name));
        roles.required().all(is_there)
    };
    let is_even = |separator: &&char| {
        let width = count(**separator);
        rows(**separator).all(|(_, row)| row.len() == width || row.iter().all(Field::is_absent))
    };
    let with_all: Vec<&char> = splits.iter().filter(has_all).collect();
    let even: Vec<&char> = splits.iter().filter(is_even).collect();
    match (splits.as_slice(), with_all.as_slice(), even.as_slice()) {
        ([], ..) => Ok(','),
        ([one], ..) => Ok(*one),
        (_, [one], _) | (_, _, [one]) => Ok(**one),
        _ => Err("cannot detect the field separator; separate fields with commas or semicolons".into()),
    }
}

/// An iterator over the rows of a CSV text.
struct RowParser<'a> {
    text: &'a str,
    separator: char,
    /// The number of lines before the remaining text.
    line: usize,
}

impl<'a> Iterator for RowParser<'a> {
    /// The first line of a row, and its fields.
    type Item = Result<(usize, Vec<Field<'a>>), String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.text.is_empty() {
            return None;
        }
        let first = self.line + 1;
        let mut fields = Vec::new();
        loop {
            let (field, rest) = match parse_field(self.text, self.separator) {
                Ok(found) => found,
                Err(reason) => {
                    self.text = "";
                    return Some(Err(format!("line {first}: {reason}")));
                }
            };
            self.line += self.text[..self.text.len() - rest.len()].matches('\n').count();
            fields.push(field);
            if let Some(rest) = rest.strip_prefix(self.separator) {
                self.text = rest;
                continue;
            }
            self.text = rest.strip_prefix("\r\n").or_else(|| rest.strip_prefix(['\n', '\r'])).unwrap_or(rest);
            self.line += 1;
            return Some(Ok((first, fields)));
        }
    }
}

/// Parses the first field of a text. The rest begins with a separator or a line break, or is empty.
fn parse_field(text: &str, separator: char) -> Result<(Field<'_>, &str), String> {
    let blank = |c: char| c.is_whitespace() && c != separator && c != '\n' && c != '\r';
    let Some(quoted) = text.trim_start_matches(blank).strip_prefix('"') else {
        let end = text.find([separator, '\n', '\r']).unwrap_or(text.len());
        return Ok((Field { text: text[..end].trim().into(), is_quoted: false }, &text[end..]));
    };
    let (mut inside, mut left) = (Cow::Borrowed(""), quoted);
    loop {
        let Some(end) = left.find('"') else { return Err("unclosed quote".into()) };
        let (part, rest) = (&left[..end], &left[end + 1..]);
        inside = if inside.is_empty() { part.into() } else { (inside + part).into_owned().into() };
        if let Some(more) = rest.strip_prefix('"') {
            (inside, left) = ((inside + "\"").into_owned().into(), more);
            continue;
        }
        let rest = rest.trim_start_matches(blank);
        if rest.is_empty() || rest.starts_with([separator, '\n', '\r']) {
            return Ok((Field { text: inside, is_quoted: true }, rest));
        }
        return Err("text after a closing quote; double the quotes inside of a quoted field".into());
    }
}

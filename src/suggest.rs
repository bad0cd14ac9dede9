//! Suggestions for misspelled names: "did you mean".

/// A message about a column that does not exist, with the closest name or all names: ``no column `wieght` in items; did you
/// mean `weight`?``. `place` is empty or begins with a space.
pub(crate) fn unknown_column<'a>(unknown: &str, place: &str, columns: impl IntoIterator<Item = &'a str>) -> String {
    let columns: Vec<&str> = columns.into_iter().collect();
    let hint = closest_name(unknown, columns.iter().copied()).map(|name| format!("; did you mean `{name}`?"));
    let hint = hint.unwrap_or_else(|| match columns.is_empty() {
        true => " (there are none)".into(),
        false => format!(" (there are: {})", columns.join(", ")),
    });
    format!("no column `{unknown}`{place}{hint}")
}

/// A message about a condition that names no column, with all columns.
pub(crate) fn names_no_column<'a>(condition: &str, columns: impl IntoIterator<Item = &'a str>) -> String {
    let columns: Vec<&str> = columns.into_iter().collect();
    format!(
        "`{condition}` names no column, so it is true for all items or for none (there are: {})",
        columns.join(", ")
    )
}

/// The closest of the candidate names, if it is similar enough.
pub(crate) fn closest_name<'a>(unknown: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    /// The lowest Jaro-Winkler similarity of a suggestion.
    const MIN_SIMILARITY: f64 = 0.7;
    let unknown = unknown.to_lowercase();
    let similarity = |name: &str| {
        let name = name.to_lowercase();
        // Jaro-Winkler is low for short names with two letters swapped.
        let is_one_edit = unknown.len() > 2 && strsim::osa_distance(&unknown, &name) == 1;
        if is_one_edit { 1.0 } else { strsim::jaro_winkler(&unknown, &name) }
    };
    let names = candidates.into_iter().map(|name| (similarity(name), name));
    names
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(similarity, _)| *similarity > MIN_SIMILARITY)
        .map(|(_, name)| name)
}

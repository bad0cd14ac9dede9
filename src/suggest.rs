//! Names that were most likely meant.

/// That a column is not there, and which was most likely meant, or which there are: ``no column `wieght` in items; did you
/// mean `weight`?``. `place` is empty, or begins with a space.
pub(crate) fn unknown_column<'a>(wrong: &str, place: &str, there: impl IntoIterator<Item = &'a str>) -> String {
    let there: Vec<&str> = there.into_iter().collect();
    let hint = closest_name(wrong, there.iter().copied()).map(|name| format!("; did you mean `{name}`?"));
    let hint = hint.unwrap_or_else(|| format!(" (there are: {})", there.join(", ")));
    format!("no column `{wrong}`{place}{hint}")
}

/// That a condition has no column, and which there are.
pub(crate) fn names_no_column<'a>(condition: &str, there: impl IntoIterator<Item = &'a str>) -> String {
    let there: Vec<&str> = there.into_iter().collect();
    format!("`{condition}` names no column, so it holds for all items or for none (there are: {})", there.join(", "))
}

/// The nearest of some names, if it is near at all.
pub(crate) fn closest_name<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    /// Of two names that share a beginning and most of their letters.
    const NEAR: f64 = 0.7;
    let wrong = wrong.to_lowercase();
    let likeness = |name: &str| {
        let name = name.to_lowercase();
        // Letters of short names that changed places are far apart by the other measure.
        let is_one_slip = wrong.len() > 2 && strsim::osa_distance(&wrong, &name) == 1;
        if is_one_slip { 1.0 } else { strsim::jaro_winkler(&wrong, &name) }
    };
    let names = known.into_iter().map(|name| (likeness(name), name));
    names.max_by(|a, b| a.0.total_cmp(&b.0)).filter(|(likeness, _)| *likeness > NEAR).map(|(_, name)| name)
}

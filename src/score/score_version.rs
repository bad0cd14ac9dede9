//! Compares the version of the score with that of a source of reused scores.

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::{Error, Result};
use crate::log::Manifest;

/// The version of the scores in a source.
pub(super) struct SourceVersion {
    /// `None` if it is unknown.
    pub(super) version: Option<String>,
    /// The content hashes of the files of the scorer, if the source is a run that recorded them.
    pub(super) files: BTreeMap<String, String>,
}

/// Fails if the scores of a source are not of this version. `files` are the content hashes of the files of the scorer, if the
/// version is a hash of the score's definition. Then a warning says what was compared.
///
/// # Errors
/// Another version, or other contents of the files that both recorded.
pub(super) fn check_version(
    source: &Path,
    version: &str,
    files: Option<&BTreeMap<String, String>>,
    found: SourceVersion,
) -> Result<()> {
    if found.version.as_deref() != Some(version) {
        let found = found.version.unwrap_or_else(|| "unknown".into());
        let reason = format!(
            "its scores have version {found}, not {version}; set score.trust_scores = true to reuse them anyway"
        );
        return Err(Error::input(source, reason));
    }
    let Some(files) = files else { return Ok(()) };
    let common = || files.iter().filter_map(|(name, hash)| Some((name, hash, found.files.get(name)?)));
    let changed: Vec<String> = common()
        .filter(|(_, hash, found)| hash != found)
        .map(|(name, hash, found)| {
            format!("the content of `{name}` was {}, is {hash}", Manifest::describe_contents(found))
        })
        .collect();
    if !changed.is_empty() {
        let reason = format!(
            "its scores are of another version of this score: {} (hashes, because score.version is not set); restore the file, set \
             the same score.version for both, or set score.trust_scores = true to reuse them anyway",
            changed.join("; ")
        );
        return Err(Error::input(source, reason));
    }
    let names = |is_common: bool| -> String {
        let names = files.keys().filter(|name| found.files.contains_key(*name) == is_common);
        names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
    };
    let (compared, unknown) = (names(true), names(false));
    let also = if compared.is_empty() { String::new() } else { format!(" and the contents of {compared}") };
    let not = match unknown.is_empty() {
        true => String::new(),
        false => format!(", but not the contents of {unknown}, which it did not record"),
    };
    log::warn!(
        "score.reuse: {}: score.version is not set, so the settings of the scorer{also} were compared{not}",
        source.display()
    );
    Ok(())
}

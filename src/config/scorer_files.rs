//! The files of a scorer: the script that a command runs, its prompts and models. Their contents are part of the version of the
//! score.

use std::fs;
use std::path::{Path, PathBuf};

use super::ScoreConfig;
use crate::error::{AtPath, Error, Result};
use crate::runner::ScorerFiles;

/// Programs that run the file which their arguments name. Their updates do not change the score.
const INTERPRETERS: [&str; 20] = [
    "python", "pypy", "uv", "uvx", "Rscript", "R", "julia", "node", "deno", "bun", "bash", "sh", "zsh", "dash", "perl",
    "ruby", "java", "env", "srun", "mpirun",
];

/// A file of a scorer.
struct ScorerFile {
    /// The name in the run file.
    name: String,
    path: PathBuf,
    /// Whether the file certainly determines the scores: the script of a command, and all files in `score.files`. The scorer may
    /// write the other files that a command names, such as a cache.
    is_definition: bool,
}

impl ScoreConfig {
    /// The files of the scorer, with the hashes of their contents. None if `version` names the score.
    ///
    /// # Errors
    /// A file in `files` does not exist or cannot be read.
    pub(super) fn hash_scorer_files(&self) -> Result<ScorerFiles> {
        let mut files = ScorerFiles { is_trusted: self.trust_scores, ..ScorerFiles::default() };
        if self.version.is_some() {
            return Ok(files);
        }
        for ScorerFile { name, path, is_definition } in self.scorer_files("score")? {
            match hash(&path) {
                Ok(hash) => drop(files.hashes.insert(name.clone(), hash)),
                // The scorer will report a file that it cannot read.
                Err(_) if !is_definition => {}
                Err(error) => return Err(error),
            }
            files.definition.extend(is_definition.then_some(name));
        }
        Ok(files)
    }

    /// The files of the scorer, and of the parts of a sum. Messages name `place`.
    fn scorer_files(&self, place: &str) -> Result<Vec<ScorerFile>> {
        let folder = self.directory.as_deref().unwrap_or(Path::new(""));
        let mut files = Vec::new();
        for (position, argument) in self.command.iter().flatten().enumerate() {
            // A program without a slash is found on the PATH, not in the folder.
            if position == 0 && (!argument.contains('/') || is_interpreter(argument)) {
                continue;
            }
            let value = argument.split_once('=').map(|(_, value)| value);
            let names = [Some(argument.as_str()), value].into_iter().flatten();
            for name in names.filter(|name| folder.join(name).is_file()) {
                let is_definition = files.is_empty();
                files.push(ScorerFile { name: name.into(), path: folder.join(name), is_definition });
            }
        }
        for name in self.files.iter().flatten() {
            let path = folder.join(name);
            let name = name.to_string_lossy().into_owned();
            if !path.is_file() && !path.is_dir() {
                let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.into());
                let folder = folder.display();
                return Err(Error::Config(format!("{place}.files: `{name}` does not exist in {folder}")));
            }
            // The command may name it too.
            files.retain(|file| file.name != name);
            files.push(ScorerFile { name, path, is_definition: true });
        }
        for part in self.sum.iter().flatten() {
            files.extend(part.scorer_files(&format!("score.sum[{}]", part.name.as_deref().unwrap_or_default()))?);
        }
        Ok(files)
    }
}

/// Whether a program is an interpreter, whatever its version: `/usr/bin/python3.12`.
fn is_interpreter(program: &str) -> bool {
    let name = Path::new(program).file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let name = name.trim_end_matches(|c: char| c.is_ascii_digit() || matches!(c, '.' | '-'));
    INTERPRETERS.contains(&name)
}

/// The hash of a file's content, or of all files in a folder with their names.
fn hash(path: &Path) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    if path.is_dir() {
        let mut names: Vec<PathBuf> = Vec::new();
        for entry in fs::read_dir(path).at_path(path)? {
            let entry = entry.at_path(path)?;
            let (path, is_link) = (entry.path(), entry.file_type().at_path(path)?.is_symlink());
            // A link to a folder may lead back here. Pipes and broken links have no content.
            if path.is_file() || path.is_dir() && !is_link {
                names.push(entry.file_name().into());
            }
        }
        names.sort();
        for name in names {
            let content = hash(&path.join(&name))?;
            hasher.update(name.to_string_lossy().as_bytes()).update(&[0]).update(content.as_bytes());
        }
    } else {
        hasher.update_reader(fs::File::open(path).at_path(path)?).at_path(path)?;
    }
    Ok(hasher.finalize().to_hex()[..16].to_string())
}

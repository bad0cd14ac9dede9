//! Updates of run.json: the path of the dataset, the configuration, the audit, and the end of the run.

use std::collections::BTreeMap;
use std::fs;

use polars::prelude::DataFrame;

use super::{FORMAT_VERSION, RunSummary, SearchLog};
use crate::audit::Audit;
use crate::error::{AtPath, Result, WrapErr};
use crate::io::atomic;
use crate::io::parquet_writer::write_parquet;

impl SearchLog {
    /// Records the new path of a dataset that was moved. Readers of the run need it, even if the run is not resumed.
    pub(crate) fn record_dataset_path(&mut self, path: &str) -> Result<()> {
        if self.manifest.set_dataset_path(path) { self.write_manifest() } else { Ok(()) }
    }

    /// Records the configuration of a resumed run, before any score is requested.
    pub(crate) fn record_config(&mut self, config: &serde_json::Value) -> Result<()> {
        if self.manifest.set_config(config) { self.write_manifest() } else { Ok(()) }
    }

    /// Records the contents of the scorer's files in a resumed run, before any score is requested.
    pub(crate) fn record_scorer_files(&mut self, files: &BTreeMap<String, String>) -> Result<()> {
        let have_scores = self.has_answers();
        if self.manifest.set_scorer_files(files, have_scores) { self.write_manifest() } else { Ok(()) }
    }

    /// Whether items of the run have answers.
    pub(crate) fn has_answers(&self) -> bool {
        let is_answers = |file: fs::DirEntry| file.file_name().to_string_lossy().starts_with("batch-");
        let has_file = || fs::read_dir(self.ledger_folder()).is_ok_and(|files| files.flatten().any(is_answers));
        !self.iterations.is_empty() || has_file()
    }

    /// Records that the run is running, and its configuration. Keeps `spent_budget` while the last iteration is being rewritten.
    pub(crate) fn record_running(&mut self, config: &serde_json::Value) -> Result<()> {
        let spent_budget = self.manifest.spent_budget.filter(|_| self.rewrite.is_some());
        let had_ended = self.manifest.ended.take().is_some() || self.manifest.spent_budget != spent_budget;
        self.manifest.spent_budget = spent_budget;
        if !self.manifest.set_config(config) && !had_ended {
            return Ok(());
        }
        self.manifest.format_version = FORMAT_VERSION;
        self.write_manifest()
    }

    /// Records how the run ended, its configuration, and whether the budget is spent. Changes nothing if the same end is
    /// recorded already.
    pub(crate) fn record_end(&mut self, ended: RunSummary, config: &serde_json::Value, is_spent: bool) -> Result<()> {
        if self.manifest.ended.as_ref().is_some_and(|before| *before == RunSummary { at: before.at, ..ended.clone() }) {
            return Ok(());
        }
        self.manifest.set_config(config);
        // Keep `spent_budget` if the last iteration was not rewritten, or if an error ended the run.
        if self.rewrite.is_none() && (is_spent || ended.error.is_none()) {
            self.manifest.spent_budget = is_spent.then_some(ended.evaluations);
        }
        self.manifest.ended = Some(ended);
        self.manifest.format_version = FORMAT_VERSION;
        self.write_manifest()
    }

    /// Records an audit: its drawn items in `audit/`, then its result in run.json.
    pub(crate) fn record_audit(&mut self, audit: Audit, items: &DataFrame) -> Result<()> {
        let file = self.audit_file();
        atomic::create_dir(atomic::parent_dir(&file))?;
        write_parquet(&self.tmp(), &file, items)?;
        if self.manifest.audit == Some(audit) {
            return Ok(());
        }
        self.manifest.audit = Some(audit);
        self.write_manifest()
    }

    pub(super) fn write_manifest(&self) -> Result<()> {
        let text = serde_json::to_string_pretty(&self.manifest).wrap_err("run.json")?;
        let path = self.path.join("run.json");
        atomic::publish_file(&self.tmp(), &path, |file| {
            use std::io::Write;
            writeln!(file, "{text}").at_path(&path)
        })
    }
}

//! Appends queries and results of iterations to the log, and replaces results that change.

use polars::prelude::*;

use super::SearchLog;
use crate::error::{Error, Result, WrapErr};
use crate::frame::schema::{self, EMBEDDING, OUTCOME};
use crate::io::atomic;
use crate::io::parquet_writer::write_parquet;

/// The rewrite of the last iteration, which the budget of an earlier process limited, and of the queries after it.
pub(super) struct Rewrite {
    iteration: u32,
    has_results: bool,
    has_queries: bool,
}

impl SearchLog {
    /// Publishes the queries of an iteration, unless they are logged already.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub fn append_queries(&mut self, iteration: u32, queries: &DataFrame) -> Result<()> {
        let is_outdated = |rewrite: &Rewrite| rewrite.iteration < iteration && !rewrite.has_queries;
        if self.rewrite.as_ref().is_some_and(is_outdated) || !self.has_queries(iteration) {
            self.publish("queries", iteration, queries)?;
            self.update_rewrite(|rewrite| rewrite.has_queries |= rewrite.iteration < iteration);
        }
        Ok(())
    }

    /// Commits an iteration: its scored frame, without embeddings.
    ///
    /// # Errors
    /// An iteration that is not after the last one; columns that differ from those of the last iteration, except for parts
    /// of the score that appear for the first time; a folder that cannot be written.
    pub fn append(&mut self, iteration: u32, scored: &DataFrame) -> Result<()> {
        if let Some(last) = self.iterations.last().filter(|last| **last >= iteration) {
            let reason = format!("cannot append iteration {iteration}: iteration {last} is committed already");
            return Err(Error::input(&self.path, reason));
        }
        let scored = scored.drop(EMBEDDING).wrap_err("log")?;
        let columns = scored.schema();
        if let Some(before) = self.columns.as_ref().filter(|before| !can_follow(before, columns)) {
            let describe = |schema: &SchemaRef| {
                schema.iter().map(|(name, dtype)| format!("{name} {dtype}")).collect::<Vec<_>>().join(", ")
            };
            return Err(Error::contract("log", "columns", describe(before), describe(columns)).in_iteration(iteration));
        }
        self.publish("results", iteration, &scored)?;
        self.update_rewrite(|rewrite| rewrite.has_results |= rewrite.iteration == iteration);
        self.columns = Some(columns.clone());
        self.iterations.push(iteration);
        Ok(())
    }

    /// Starts to rewrite the last iteration and the queries that follow from it.
    pub(crate) fn reopen_last(&mut self) {
        let last = self.iterations.pop();
        self.rewrite = last.map(|iteration| Rewrite { iteration, has_results: false, has_queries: false });
    }

    /// Updates the rewrite, and ends it when results and queries are written.
    fn update_rewrite(&mut self, update: impl FnOnce(&mut Rewrite)) {
        if let Some(rewrite) = &mut self.rewrite {
            update(rewrite);
        }
        self.rewrite = self.rewrite.take().filter(|rewrite| !(rewrite.has_results && rewrite.has_queries));
    }

    /// Replaces the results of a committed iteration atomically.
    pub(crate) fn amend(&mut self, iteration: u32, scored: &DataFrame) -> Result<()> {
        if !self.manifest.has_retried_items {
            self.manifest.has_retried_items = true;
            self.write_manifest()?;
        }
        let before = self.results(iteration)?;
        let is_last = self.iterations.last() == Some(&iteration);
        let last = self.columns.clone().unwrap_or_default();
        // All iterations are read with the columns of the last one, so only the last one may get new parts of the score.
        let is_allowed =
            |name: &&str| before.column(name).is_ok() || last.contains(name) || is_last && *name != OUTCOME;
        let columns = schema::column_names(scored).into_iter().filter(is_allowed).map(str::to_string);
        let scored = scored.select(columns).wrap_err("log")?;
        write_parquet(&self.tmp(), &self.file("results", iteration), &scored)?;
        if is_last {
            self.columns = Some(scored.schema().clone());
        }
        Ok(())
    }

    fn publish(&self, kind: &str, iteration: u32, frame: &DataFrame) -> Result<()> {
        if self.lock.is_none() {
            return Err(Error::input(&self.path, "is open for reading only; open it by SearchLog::resume to append"));
        }
        if self.rewrite.is_some() && self.partition(kind, iteration).exists() {
            return write_parquet(&self.tmp(), &self.file(kind, iteration), frame);
        }
        let unpublished = self.tmp().join(format!("{kind}-{iteration:06}"));
        atomic::create_dir(&unpublished)?;
        write_parquet(&self.tmp(), &unpublished.join("part-0000.parquet"), frame)?;
        atomic::publish(&unpublished, &self.partition(kind, iteration))
    }
}

/// Whether an iteration with the columns `before` may be followed by one with these columns: the same, or additional parts of
/// the score. A frame has the parts of the score from the first item that does not fail. `outcome` may also be new, because
/// runs of format 1 lack it.
fn can_follow(before: &Schema, columns: &Schema) -> bool {
    let mut old = before.iter().peekable();
    let is_new_part = |(name, dtype): (&PlSmallStr, &DataType)| {
        matches!(dtype, DataType::Float64 | DataType::String) || name == OUTCOME
    };
    columns.iter().all(|column| old.next_if_eq(&column).is_some() || is_new_part(column)) && old.next().is_none()
}

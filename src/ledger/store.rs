//! The answer store: keeps answers in memory and, for paid scores, in the ledger folder.

use std::collections::HashMap;

use polars::prelude::*;

use super::answers::Answers;
use super::folder::LedgerFolder;
use crate::error::{Result, WrapErr};
use crate::frame::schema::{self, DB_IDX, EVALUATION};

/// The ordinal of the evaluation of each item. `None` for an item that costs no evaluation.
pub(super) type Ordinals = HashMap<u64, Option<u64>>;

/// The answers of a run.
#[derive(Default)]
pub(super) struct AnswerStore {
    pub(super) answers: Answers,
    /// The ledger folder, if the run has one.
    pub(super) folder: Option<LedgerFolder>,
}

impl AnswerStore {
    /// Makes answers durable if required, then records them.
    pub(super) fn write(&mut self, answers: &DataFrame, ordinals: &Ordinals, is_durable: bool) -> Result<()> {
        let answers = &self.answers.with_known_kinds(answers.clone())?;
        if let (true, Some(folder)) = (is_durable, &mut self.folder) {
            let ordinal = |item: &u64| ordinals.get(item).copied().flatten();
            let ordinals: Vec<Option<u64>> = schema::u64s(answers, DB_IDX)?.iter().map(ordinal).collect();
            let mut columns = vec![Column::new(EVALUATION.into(), ordinals)];
            columns.extend(answers.columns().iter().cloned());
            folder.write(&DataFrame::new(answers.height(), columns).wrap_err("writing the ledger")?)?;
        }
        self.answers.record(answers)
    }
}

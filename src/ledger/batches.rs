//! The ledger's folder: answers that are durable, batch by batch, and notes of what is being asked.

use std::fs;
use std::path::{Path, PathBuf};

use polars::prelude::DataFrame;

use crate::error::{AtPath, Result};
use crate::folder;
use crate::log::write_parquet;

/// The folder of one run.
pub(super) struct Batches {
    tmp: PathBuf,
    path: PathBuf,
    next: usize,
    tickets: usize,
}

/// What an earlier process left.
pub(super) struct Found {
    /// Files of answers, in the order they were written.
    pub(super) files: Vec<PathBuf>,
    /// Items that it had asked without keeping an answer.
    pub(super) asked: u64,
}

impl Batches {
    /// From now on writes to `path`, through `tmp`; gives what is there already.
    pub(super) fn open(path: &Path, tmp: &Path) -> Result<(Self, Found)> {
        let mut found = Found { files: Vec::new(), asked: 0 };
        let (mut next, mut tickets) = (0, 0);
        for entry in fs::read_dir(path).at_path(path)? {
            let file = entry.at_path(path)?.path();
            let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if let Some(number) = name.strip_prefix("asked-") {
                tickets = number.parse::<usize>().map_or(tickets, |number| tickets.max(number + 1));
                let items = fs::read_to_string(&file).at_path(&file)?;
                found.asked += items.parse::<u64>().unwrap_or(0);
            } else if let Some(number) = name.strip_prefix("batch-").and_then(|name| name.strip_suffix(".parquet")) {
                // Not the number of files: one may be gone, and none is to be written over.
                next = number.parse::<usize>().map_or(next, |number| next.max(number + 1));
                found.files.push(file);
            }
        }
        found.files.sort();
        Ok((Batches { tmp: tmp.into(), path: path.into(), next, tickets }, found))
    }

    /// Makes a batch of answers durable.
    pub(super) fn write(&mut self, batch: &DataFrame) -> Result<()> {
        write_parquet(&self.tmp, &self.path.join(format!("batch-{:06}.parquet", self.next)), batch)?;
        self.next += 1;
        Ok(())
    }

    /// Notes that so many items are being asked, so that a later process can tell how many may be paid twice.
    pub(super) fn ticket(&mut self, items: usize) -> Result<Ticket> {
        let path = self.path.join(format!("asked-{:06}", self.tickets));
        self.tickets += 1;
        folder::note(&path, &items.to_string())?;
        Ok(Ticket { path, items })
    }
}

/// A note of items that are being asked. Not fsynced: it is a figure for people, and outlives the process.
pub(super) struct Ticket {
    path: PathBuf,
    items: usize,
}

impl Ticket {
    /// Some of them are answered, durably.
    pub(super) fn answered(&mut self, items: usize) -> Result<()> {
        self.items = self.items.saturating_sub(items);
        // The last answer takes the note away.
        if self.items == 0 { Ok(()) } else { folder::note(&self.path, &self.items.to_string()) }
    }

    /// Nobody works on any of them any more.
    pub(super) fn close(self) -> Result<()> {
        folder::remove_file(&self.path)
    }
}

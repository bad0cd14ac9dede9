//! The library's embeddings in memory, where they fit: looking at all of them again need not read them again.

use std::sync::OnceLock;

use ndarray::Array2;

use crate::database::Visit;
use crate::error::Result;

/// What the first look at every row saw: row ids and embeddings, block by block.
#[derive(Default)]
pub(super) struct Held {
    blocks: OnceLock<Vec<(Vec<u64>, Array2<f32>)>>,
}

impl Held {
    /// Shows the blocks that are held; else those that `read` shows, which are held from then on.
    pub(super) fn scan(&self, visit: &mut Visit<'_>, read: impl FnOnce(&mut Visit<'_>) -> Result<()>) -> Result<()> {
        if let Some(blocks) = self.blocks.get() {
            return blocks.iter().try_for_each(|(rows, items)| visit(rows, items.view()));
        }
        let mut blocks = Vec::new();
        read(&mut |rows, items| {
            blocks.push((rows.to_vec(), items.to_owned()));
            visit(rows, items)
        })?;
        // Another thread may have been a little faster: it holds the same.
        let _ = self.blocks.set(blocks);
        Ok(())
    }
}

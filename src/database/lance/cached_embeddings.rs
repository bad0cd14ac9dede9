//! A cache of all embeddings of a library, so that repeated exact searches read them once.

use std::sync::OnceLock;

use ndarray::Array2;

use crate::database::BlockVisitor;
use crate::error::Result;

/// Row ids and embeddings in blocks, filled by the first full scan.
#[derive(Default)]
pub(super) struct CachedEmbeddings {
    blocks: OnceLock<Vec<(Vec<u64>, Array2<f32>)>>,
}

impl CachedEmbeddings {
    /// Calls `visit` with the cached blocks. If there are none, `read` supplies the blocks, which are then cached.
    pub(super) fn scan(
        &self,
        visit: &mut BlockVisitor<'_>,
        read: impl FnOnce(&mut BlockVisitor<'_>) -> Result<()>,
    ) -> Result<()> {
        if let Some(blocks) = self.blocks.get() {
            return blocks.iter().try_for_each(|(rows, items)| visit(rows, items.view()));
        }
        let mut blocks = Vec::new();
        read(&mut |rows, items| {
            blocks.push((rows.to_vec(), items.to_owned()));
            visit(rows, items)
        })?;
        // Another thread may have filled the cache first, with the same blocks.
        let _ = self.blocks.set(blocks);
        Ok(())
    }
}

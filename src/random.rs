//! Seeded random generators: an independent stream for each use.

use std::convert::Infallible;

use rand::{Rng, RngExt, SeedableRng, TryRng};
use rand_chacha::ChaCha8Rng;

/// A seeded random generator (ChaCha8) that returns the same numbers on every machine. It implements the trait `Rng` of the crate
/// `rand` 0.10.
#[derive(Clone, Debug)]
pub struct RandomStream(ChaCha8Rng);

/// The random stream for `(seed, stage, iteration, query_idx)`. Equal arguments return the same stream, different arguments
/// independent streams.
pub fn random_stream(seed: u64, stage: &str, iteration: u32, query_idx: u32) -> RandomStream {
    let mut key = blake3::Hasher::new();
    key.update(&seed.to_le_bytes()).update(stage.as_bytes()).update(&[0]);
    key.update(&iteration.to_le_bytes()).update(&query_idx.to_le_bytes());
    RandomStream(ChaCha8Rng::from_seed(*key.finalize().as_bytes()))
}

impl RandomStream {
    /// A uniform integer in `0..bound`. 0 if `bound` is 0.
    pub fn uniform_below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.random_range(0..bound) }
    }

    /// A uniform number in `[0, 1)`.
    pub fn uniform(&mut self) -> f64 {
        self.random()
    }
}

impl TryRng for RandomStream {
    type Error = Infallible;
    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(self.0.next_u32())
    }
    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.0.next_u64())
    }
    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.0.fill_bytes(bytes);
        Ok(())
    }
}

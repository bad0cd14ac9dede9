//! Random numbers: a stream of its own for whatever draws some.

use std::convert::Infallible;

use rand::{Rng, RngExt, SeedableRng, TryRng};
use rand_chacha::ChaCha8Rng;

/// Random numbers, the same on every machine. It is a generator of the crate `rand` 0.10, for who wants more than is here.
#[derive(Clone, Debug)]
pub struct Stream(ChaCha8Rng);

/// The random stream of one (seed, stage, iteration, query_idx).
pub fn stream(seed: u64, stage: &str, iteration: u32, query_idx: u32) -> Stream {
    let mut key = blake3::Hasher::new();
    key.update(&seed.to_le_bytes()).update(stage.as_bytes()).update(&[0]);
    key.update(&iteration.to_le_bytes()).update(&query_idx.to_le_bytes());
    Stream(ChaCha8Rng::from_seed(*key.finalize().as_bytes()))
}

impl Stream {
    /// A whole number below a bound; 0 where that is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.random_range(0..bound) }
    }

    /// A number from 0 to 1, without 1.
    pub fn unit(&mut self) -> f64 {
        self.random()
    }
}

impl TryRng for Stream {
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

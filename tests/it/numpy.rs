//! NumPy's legacy random numbers, so that its inputs need not be stored: `np.random.seed` and what follows.

use ndarray::Array2;

const N: usize = 624;

/// The Mersenne twister MT19937, seeded and read as `numpy.random.RandomState` does.
pub struct RandomState {
    key: [u32; N],
    position: usize,
    gauss: Option<f64>,
}

impl RandomState {
    pub fn new(seed: u32) -> Self {
        let mut key = [seed; N];
        for nth in 1..N {
            let before = key[nth - 1];
            key[nth] = 1812433253u32.wrapping_mul(before ^ (before >> 30)).wrapping_add(nth as u32);
        }
        RandomState { key, position: N, gauss: None }
    }

    fn next(&mut self) -> u32 {
        if self.position == N {
            for nth in 0..N {
                let y = (self.key[nth] & 0x8000_0000) | (self.key[(nth + 1) % N] & 0x7fff_ffff);
                let twisted = self.key[(nth + 397) % N] ^ (y >> 1);
                self.key[nth] = if y & 1 == 0 { twisted } else { twisted ^ 0x9908_b0df };
            }
            self.position = 0;
        }
        let mut y = self.key[self.position];
        self.position += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    /// `rand()`: uniform in [0, 1).
    pub fn rand(&mut self) -> f64 {
        let (a, b) = (self.next() >> 5, self.next() >> 6);
        (f64::from(a) * 67108864.0 + f64::from(b)) / 9007199254740992.0
    }

    /// `randint(0, below)`, for `below` up to 2^32.
    pub fn randint(&mut self, below: u32) -> u32 {
        let mask = (below - 1).next_power_of_two().max(1) * 2 - 1;
        let mask = if (mask >> 1) >= below - 1 { mask >> 1 } else { mask };
        loop {
            let value = self.next() & mask;
            if value < below {
                return value;
            }
        }
    }

    fn standard_normal(&mut self) -> f64 {
        if let Some(gauss) = self.gauss.take() {
            return gauss;
        }
        loop {
            let (x1, x2) = (2.0 * self.rand() - 1.0, 2.0 * self.rand() - 1.0);
            let r2 = x1 * x1 + x2 * x2;
            if r2 < 1.0 && r2 != 0.0 {
                let f = (-2.0 * r2.ln() / r2).sqrt();
                self.gauss = Some(f * x1);
                return f * x2;
            }
        }
    }

    /// `randn(rows, dim)`.
    pub fn randn(&mut self, rows: usize, dim: usize) -> Array2<f64> {
        Array2::from_shape_simple_fn((rows, dim), || self.standard_normal())
    }
}

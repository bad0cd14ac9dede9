//! How long a scorer may be away, and what it has shown of itself: shared by all that ask it.

use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::trouble::Kind;
use crate::panics;

/// Waits for a scorer that is away, and says so once.
pub(super) struct Patience {
    limit: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Since when nobody answers; `None` while somebody does.
    away_since: Option<Instant>,
    /// Whether it has ever answered in this run.
    ever: bool,
    /// Whether it has answered since an item was last given up for its silence.
    lately: bool,
}

impl Patience {
    pub fn new(limit: Duration) -> Self {
        Patience { limit, state: Mutex::default() }
    }

    pub fn limit(&mut self, limit: Duration) {
        self.limit = limit;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        panics::lock(&self.state)
    }

    /// A run begins, in which it has answered before or not.
    pub fn begin(&self, answered: bool) {
        *self.state() = State { away_since: None, ever: answered, lately: answered };
    }

    /// It answered for an item.
    pub fn heard(&self) {
        let mut state = self.state();
        if let Some(since) = state.away_since.take() {
            log::warn!("score: the scorer answers again, after {:.0} s", since.elapsed().as_secs_f64());
        }
        (state.ever, state.lately) = (true, true);
    }

    /// Whether it has ever answered in this run.
    pub fn has_answered(&self) -> bool {
        self.state().ever
    }

    /// Whether the only item it was asked for is to blame that nothing comes back, and not the scorer. A scorer that
    /// hangs looks like an item that takes too long: so no second item is blamed before it has answered for another.
    pub fn blames_the_item(&self, kind: Kind) -> bool {
        let mut state = self.state();
        match kind {
            Kind::Slow => std::mem::take(&mut state.lately),
            Kind::Broken | Kind::Unusable | Kind::LeftOut => state.ever,
            Kind::Away => false,
        }
    }

    /// How long it may still be waited for, as it is away; `None` once that is over. The first to ask is told why.
    pub fn left(&self, reason: &str) -> Option<Duration> {
        let mut state = self.state();
        let since = *state.away_since.get_or_insert_with(|| {
            if !self.limit.is_zero() {
                let limit = self.limit.as_secs_f64();
                log::warn!("score: {reason}; waiting for the scorer, up to {limit} s (score.patience)");
            }
            Instant::now()
        });
        self.limit.checked_sub(since.elapsed()).filter(|left| !left.is_zero())
    }
}

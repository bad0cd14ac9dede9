//! How long a scorer may be away, and what it has shown of itself: shared by all workers that ask it.

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
    silent_since: Option<Instant>,
    /// When it last answered.
    answered_at: Option<Instant>,
    /// Whether the user was told that it is waited for.
    is_announced: bool,
    /// Whether a worker has given it up.
    is_given_up: bool,
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
        *self.state() = State { ever: answered, lately: answered, ..State::default() };
    }

    /// It answered for an item.
    pub fn heard(&self) {
        let mut state = self.state();
        let since = state.silent_since.take();
        if let (Some(since), true) = (since, std::mem::take(&mut state.is_announced)) {
            log::warn!("score: the scorer answers again, after {:.0} s", since.elapsed().as_secs_f64());
        }
        (state.ever, state.lately, state.is_given_up) = (true, true, false);
        state.answered_at = Some(Instant::now());
    }

    /// An attempt that began then brought no answer in time. Other workers may have heard of it since.
    pub fn silent(&self, begun: Instant) {
        let mut state = self.state();
        let since = state.answered_at.map_or(begun, |answered| answered.max(begun));
        state.silent_since = Some(state.silent_since.map_or(since, |earlier| earlier.min(since)));
    }

    /// How much longer its silence is borne.
    pub fn remaining(&self) -> Duration {
        let state = self.state();
        state.silent_since.map_or(self.limit, |since| self.limit.saturating_sub(since.elapsed()))
    }

    /// It is waited for no longer, by any worker.
    pub fn give_up(&self) {
        self.state().is_given_up = true;
    }

    /// Whether a worker has given it up.
    pub fn is_given_up(&self) -> bool {
        self.state().is_given_up
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
        let since = *state.silent_since.get_or_insert_with(Instant::now);
        let left = self.limit.saturating_sub(since.elapsed());
        if left.is_zero() {
            state.is_given_up = true;
            return None;
        }
        if !std::mem::replace(&mut state.is_announced, true) {
            let limit = self.limit.as_secs_f64();
            log::warn!("score: {reason}; waiting for the scorer, up to {limit} s (score.patience)");
        }
        Some(left)
    }
}

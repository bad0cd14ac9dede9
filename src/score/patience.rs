//! Outages of a scorer: how long it has been unavailable, and whether it has answered before. Shared by all workers.

use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::trouble::Kind;
use crate::panics;

/// Tracks the availability of a scorer, and warns once for each outage.
pub(super) struct Patience {
    limit: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// When the outage began; `None` while the scorer answers.
    silent_since: Option<Instant>,
    /// The time of the last answer.
    answered_at: Option<Instant>,
    /// Whether the warning about this outage was given.
    is_announced: bool,
    /// Whether a worker has stopped waiting for the scorer.
    is_given_up: bool,
    /// Whether the scorer has ever answered in this run.
    ever: bool,
    /// Whether the scorer has answered since an item last failed with a timeout.
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

    /// Resets for a run, in which the scorer has answered before or not.
    pub fn begin(&self, answered: bool) {
        *self.state() = State { ever: answered, lately: answered, ..State::default() };
    }

    /// Records an answer, which ends the outage.
    pub fn heard(&self) {
        let mut state = self.state();
        let since = state.silent_since.take();
        if let (Some(since), true) = (since, std::mem::take(&mut state.is_announced)) {
            log::warn!("score: the scorer is available again after {:.0} s", since.elapsed().as_secs_f64());
        }
        (state.ever, state.lately, state.is_given_up) = (true, true, false);
        state.answered_at = Some(Instant::now());
    }

    /// Records an attempt that started at `begun` and timed out. Answers to other workers since then delay the start of the outage.
    pub fn silent(&self, begun: Instant) {
        let mut state = self.state();
        let since = state.answered_at.map_or(begun, |answered| answered.max(begun));
        state.silent_since = Some(state.silent_since.map_or(since, |earlier| earlier.min(since)));
    }

    /// The remaining time to wait before the scorer counts as unavailable.
    pub fn remaining(&self) -> Duration {
        let state = self.state();
        state.silent_since.map_or(self.limit, |since| self.limit.saturating_sub(since.elapsed()))
    }

    /// Stops waiting for the scorer, for all workers.
    pub fn give_up(&self) {
        self.state().is_given_up = true;
    }

    /// Whether a worker has stopped waiting for the scorer.
    pub fn is_given_up(&self) -> bool {
        self.state().is_given_up
    }

    /// Whether the scorer has ever answered in this run.
    pub fn has_answered(&self) -> bool {
        self.state().ever
    }

    /// Whether an item that was scored alone is at fault, and not the scorer. A hanging scorer looks like an item that takes
    /// too long. So after a timeout, no second item is at fault before the scorer has answered for another.
    pub fn blames_the_item(&self, kind: Kind) -> bool {
        let mut state = self.state();
        match kind {
            Kind::Slow => std::mem::take(&mut state.lately),
            Kind::Broken | Kind::Unusable | Kind::LeftOut => state.ever,
            Kind::Away => false,
        }
    }

    /// The remaining time to wait in an outage; `None` when it is over. The first call of an outage warns with the reason.
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
            log::warn!("score: {reason}; waiting up to {limit} s for the scorer (score.patience)");
        }
        Some(left)
    }
}

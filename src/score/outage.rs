//! Outages of a scorer: how long it has been unavailable, and whether it has answered before. Shared by all workers.

use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::fault::FaultKind;
use crate::panics;

/// Tracks the availability of a scorer, and warns once for each outage.
pub(super) struct OutageTracker {
    limit: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// When the outage began; `None` while the scorer answers.
    began: Option<Instant>,
    /// The time of the last answer.
    last_answer: Option<Instant>,
    /// Whether the tracker has warned about this outage.
    is_reported: bool,
    /// Whether a worker has stopped waiting for the scorer.
    has_given_up: bool,
    /// Whether the scorer has ever answered in this run.
    has_answered: bool,
    /// Whether the scorer has answered since an item last failed with a timeout.
    answered_since_timeout: bool,
}

impl OutageTracker {
    pub(super) fn new(limit: Duration) -> Self {
        OutageTracker { limit, state: Mutex::default() }
    }

    pub(super) fn set_limit(&mut self, limit: Duration) {
        self.limit = limit;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        panics::lock(&self.state)
    }

    /// Resets for a run. `has_answered` says whether the scorer answered before the run was resumed.
    pub(super) fn reset(&self, has_answered: bool) {
        *self.state() = State { has_answered, answered_since_timeout: has_answered, ..State::default() };
    }

    /// Records an answer, which ends the outage.
    pub(super) fn record_answer(&self) {
        let mut state = self.state();
        let since = state.began.take();
        if let (Some(since), true) = (since, std::mem::take(&mut state.is_reported)) {
            log::warn!("score: the scorer is available again after {:.0} s", since.elapsed().as_secs_f64());
        }
        (state.has_answered, state.answered_since_timeout, state.has_given_up) = (true, true, false);
        state.last_answer = Some(Instant::now());
    }

    /// Records an attempt that started at `start` and timed out. If another worker received an answer since then, the outage
    /// began with that answer.
    pub(super) fn record_timeout(&self, start: Instant) {
        let mut state = self.state();
        let since = state.last_answer.map_or(start, |answer| answer.max(start));
        state.began = Some(state.began.map_or(since, |earlier| earlier.min(since)));
    }

    /// The remaining time to wait before the scorer counts as unavailable.
    pub(super) fn remaining(&self) -> Duration {
        let state = self.state();
        state.began.map_or(self.limit, |since| self.limit.saturating_sub(since.elapsed()))
    }

    /// Stops waiting for the scorer, for all workers.
    pub(super) fn give_up(&self) {
        self.state().has_given_up = true;
    }

    /// Whether a worker has stopped waiting for the scorer.
    pub(super) fn has_given_up(&self) -> bool {
        self.state().has_given_up
    }

    /// Whether the scorer has ever answered in this run.
    pub(super) fn has_answered(&self) -> bool {
        self.state().has_answered
    }

    /// Whether an item that was scored alone is at fault, and not the scorer. A hanging scorer looks like an item that takes
    /// too long. So after one item has timed out, the next timeout is the scorer's fault, unless it has answered in between.
    pub(super) fn is_item_at_fault(&self, kind: FaultKind) -> bool {
        let mut state = self.state();
        match kind {
            FaultKind::Timeout => std::mem::take(&mut state.answered_since_timeout),
            FaultKind::Malfunction | FaultKind::InvalidAnswer | FaultKind::MissingAnswer => state.has_answered,
            FaultKind::Outage => false,
        }
    }

    /// The remaining time to wait in an outage; `None` if no time is left. The first call of an outage warns with the reason,
    /// unless `is_quiet`.
    pub(super) fn wait_left(&self, reason: &str, is_quiet: bool) -> Option<Duration> {
        let mut state = self.state();
        let since = *state.began.get_or_insert_with(Instant::now);
        let left = self.limit.saturating_sub(since.elapsed());
        if left.is_zero() {
            state.has_given_up = true;
            return None;
        }
        if !is_quiet && !std::mem::replace(&mut state.is_reported, true) {
            let limit = self.limit.as_secs_f64();
            log::warn!("score: {reason}; waiting up to {limit} s for the scorer (score.patience)");
        }
        Some(left)
    }
}

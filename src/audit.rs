//! Random audits: from the hits among random items, a bound on the hits that a search has missed.
//!
//! `n` of the `N` items without a score are drawn at random and scored, and `k` of them are hits. If `K` of the `N` items are
//! hits, then `k` has a hypergeometric distribution. The bound is the largest `K` that does not make so few hits improbable:
//!
//! ```text
//! K_max = max { K : P(X <= k) > 0.05 }     X ~ Hypergeometric(N, K, n)     recall >= (found + k) / (found + K_max)
//! ```
//!
//! Source: Callaghan and Mueller-Hansen, Statistical stopping criteria for automated screening in systematic reviews (2020).
//! Their test rejects that the recall is below a target exactly if the target is at most the recall above.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::frame::text::format_number;

/// The probability that more hits are missing than the bound says.
const ERROR_PROBABILITY: f64 = 0.05;

/// The result of a random audit of a run ([`Runner::audit`](crate::Runner::audit)): how many hits the run may have missed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Audit {
    /// The threshold of a hit, in the scorer's own direction.
    pub threshold: f64,
    /// The number of evaluations of the run when it was audited.
    pub evaluations: u64,
    /// The number of hits that the search had found.
    pub found: u64,
    /// The number of items without an outcome that pass the filter. The items are drawn from these.
    pub unscored: u64,
    /// The number of items that were drawn.
    pub drawn: u64,
    /// The number of drawn items that failed. The bound is computed without them. A rejected item counts as no hit.
    pub failed: u64,
    /// The number of hits among the drawn items.
    pub hits: u64,
    /// The upper bound of the number of hits that were neither found nor drawn, at a confidence of 95 %.
    pub missing: u64,
    /// The lower bound of the share of all hits that were found or drawn, at a confidence of 95 %. `None` if there may be no hits.
    pub recall: Option<f64>,
}

impl Audit {
    /// Computes the bounds.
    pub(crate) fn new(threshold: f64, evaluations: u64, found: u64, unscored: u64, outcomes: DrawnOutcomes) -> Self {
        let DrawnOutcomes { drawn, failed, hits } = outcomes;
        let missing = max_hits(unscored, drawn - failed, hits) - hits;
        let known = found + hits;
        let recall = (known + missing > 0).then(|| known as f64 / (known + missing) as f64);
        Audit { threshold, evaluations, found, unscored, drawn, failed, hits, missing, recall }
    }

    /// Whether the audit is too small to tell anything: it drew no hit, and more hits may be missing than were found.
    pub fn is_inconclusive(&self) -> bool {
        self.hits == 0 && self.missing > self.found
    }

    /// The number of draws without a hit after which at most as many hits may be missing as were found: a recall of one half.
    /// `None` if no hit was found.
    pub fn draws_for_half(&self) -> Option<u64> {
        (self.found > 0).then(|| draws_needed(self.unscored, self.found))
    }
}

/// Writes the drawn hits, the bounds, and, if the audit is inconclusive, how many draws would tell more.
impl fmt::Display for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = |count: u64| if count == 1 { "" } else { "s" };
        let Audit { found, unscored, drawn, failed, hits, missing, .. } = *self;
        let left = unscored - drawn;
        write!(f, "{hits} hit{} among {drawn} random items of the {unscored} without a score", plural(hits))?;
        if failed > 0 {
            write!(f, " ({failed} of them failed and do not count)")?;
        }
        let share = if left == 0 { String::new() } else { format!(" ({} % of them)", percent(missing, left)) };
        write!(f, "; with a confidence of 95 %, at most {missing} of the other {left} are hits{share}")?;
        match self.recall {
            Some(recall) => write!(
                f,
                ", and the {} known hit{} {} at least {} % of all",
                found + hits,
                plural(found + hits),
                if found + hits == 1 { "is" } else { "are" },
                // Rounded down, because it is a lower bound.
                format_number((1000.0 * recall).floor() / 10.0)
            )?,
            None => write!(f, ", so there are no hits")?,
        }
        if !self.is_inconclusive() {
            return Ok(());
        }
        match self.draws_for_half() {
            Some(draws) => write!(
                f,
                "; this audit cannot tell how many are missing: the search found {found} among {} items, which is too rare for \
                 {drawn} draws; {draws} draws without a hit would show that at most as many are missing as were found",
                unscored.saturating_add(self.evaluations)
            ),
            None => write!(f, "; the search found no hit, so no audit can show a recall"),
        }
    }
}

/// A share in percent, rounded up to two digits, because it is an upper bound.
fn percent(part: u64, whole: u64) -> String {
    let percent = 100.0 * part as f64 / whole as f64;
    let unit = if percent > 0.0 { 10f64.powf(percent.log10().floor() - 1.0) } else { 1.0 };
    format_number(((percent / unit - 1e-9).ceil() * unit).min(100.0))
}

/// The outcomes of the drawn items.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct DrawnOutcomes {
    pub drawn: u64,
    pub failed: u64,
    pub hits: u64,
}

/// The largest number of hits among `items` items for which at most `hits` hits among `drawn` random ones are not improbable.
fn max_hits(items: u64, drawn: u64, hits: u64) -> u64 {
    let is_probable = |all_hits: u64| probability_of_at_most(hits, items, all_hits, drawn) > ERROR_PROBABILITY;
    // All items that were not drawn may be hits.
    largest(hits, hits + (items - drawn), is_probable)
}

/// The smallest number of draws without a hit that bounds the hits among `items` items by `bound`.
fn draws_needed(items: u64, bound: u64) -> u64 {
    let more = bound.saturating_add(1);
    if more > items {
        return 0;
    }
    let is_probable = |drawn: u64| probability_of_at_most(0, items, more, drawn) > ERROR_PROBABILITY;
    largest(0, items, is_probable) + 1
}

/// The largest number from `low` to `high` for which a condition holds that holds for `low`, and for all numbers up to some one.
fn largest(mut low: u64, mut high: u64, holds: impl Fn(u64) -> bool) -> u64 {
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if holds(middle) { low = middle } else { high = middle - 1 }
    }
    low
}

/// The hypergeometric distribution function: the probability of at most `hits` hits among `drawn` of `items` items, of which
/// `all_hits` are hits. Sums in logarithms, so that it does not underflow.
fn probability_of_at_most(hits: u64, items: u64, all_hits: u64, drawn: u64) -> f64 {
    let others = items - all_hits;
    let least = drawn.saturating_sub(others);
    if hits < least {
        return 0.0;
    }
    if hits >= drawn.min(all_hits) {
        return 1.0;
    }
    let ratio = |a: u64, b: u64| (a as f64 / b as f64).ln();
    // The probability of the least possible number of hits.
    let mut term: f64 = match least {
        0 => {
            let (few, many) = (drawn.min(all_hits), drawn.max(all_hits));
            (0..few).map(|position| (-(many as f64) / (items - position) as f64).ln_1p()).sum()
        }
        _ => (0..others).map(|position| ratio(drawn - position, items - position)).sum(),
    };
    let mut terms = vec![term];
    for x in least..hits {
        term += ratio(all_hits - x, x + 1) + ratio(drawn - x, others + x + 1 - drawn);
        terms.push(term);
    }
    let largest = terms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    largest.exp() * terms.iter().map(|term| (term - largest).exp()).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `C(n, k)`, exact for small numbers.
    fn choose(n: u64, k: u64) -> u128 {
        (0..k).fold(1, |product, i| product * u128::from(n - i) / u128::from(i + 1))
    }

    #[test]
    fn the_bound_is_that_of_scipy() {
        // scipy.stats.hypergeom.cdf(hits, items, all_hits, drawn), scipy 1.17.
        for (hits, items, all_hits, drawn, expected) in [
            (0, 9500, 94, 300, 0.048247763450609445),
            (3, 1_000_000, 26_000, 300, 0.046434613096042854),
            (0, 1_000_000, 9935, 300, 0.04999388508385786),
            (20, 5000, 400, 300, 0.22447704705440655),
            (250, 1000, 900, 300, 7.5869982052011675e-06),
            (2, 1_000_000_000, 20_000_000, 300, 0.060183663723735126),
            (40, 100_000, 100, 50_000, 0.02838216638123346),
        ] {
            let found = probability_of_at_most(hits, items, all_hits, drawn);
            assert!((found / expected - 1.0).abs() < 1e-6, "{hits} {items} {all_hits} {drawn}: {found} {expected}");
        }
        // The largest number of hits with a distribution function above 0.05, by the same.
        for (items, drawn, hits, missing) in [
            (9500, 300, 0, 92),
            (9500, 300, 1, 146),
            (1_000_000, 300, 0, 9934),
            (200, 50, 3, 24),
            (200, 200, 7, 0),
            (1000, 300, 250, 612),
            (50, 0, 0, 50),
            (1_000_000, 29_956, 0, 98),
        ] {
            assert_eq!(max_hits(items, drawn, hits) - hits, missing, "{items} {drawn} {hits}");
        }
    }

    #[test]
    fn the_distribution_function_is_the_share_of_all_draws_for_every_small_case() {
        for items in 0..=14 {
            for all_hits in 0..=items {
                for drawn in 0..=items {
                    let draws = |x: u64| match x <= all_hits && x <= drawn && drawn - x <= items - all_hits {
                        true => choose(all_hits, x) * choose(items - all_hits, drawn - x),
                        false => 0,
                    };
                    let mut sum = 0;
                    for hits in 0..=drawn {
                        sum += draws(hits);
                        let expected = sum as f64 / choose(items, drawn) as f64;
                        let found = probability_of_at_most(hits, items, all_hits, drawn);
                        assert!(
                            (found - expected).abs() < 1e-12,
                            "{hits} {items} {all_hits} {drawn}: {found} {expected}"
                        );
                    }
                }
            }
        }
    }
}

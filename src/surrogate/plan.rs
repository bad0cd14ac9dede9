//! How many items are asked at a time.

/// Random items scored before the model has a say: one in so many of the library, within these bounds.
const START: (u64, u64, u64) = (2000, 16, 64);
/// The same where there is a budget: one in so many of it, at least so many.
const START_OF_BUDGET: (u64, u64) = (6, 4);
/// One in so many of the items asked so far is a batch, within these bounds.
const BATCH: (usize, usize, usize) = (20, 5, LARGEST);
/// Items of a batch, at most, unless it is set.
pub(super) const LARGEST: usize = 32;
/// Where there is a budget, one in so many of it is enough for a batch.
const BATCH_OF_BUDGET: u64 = 40;

/// How many items are asked before the model has a say, and how many next, where so many were asked: of a library of so
/// many items, within a budget if there is one.
pub(super) fn batch(asked: usize, queries: usize, library: u64, budget: Option<u64>) -> (usize, usize) {
    let of_budget = |share: u64, least: u64, most: usize| {
        budget.map_or(most, |budget| (budget / share).clamp(least.min(most as u64), most as u64) as usize)
    };
    let (share_of_budget, least_of_budget) = START_OF_BUDGET;
    let (share, least, most) = START;
    let start = of_budget(share_of_budget, least_of_budget, (library / share).clamp(least, most) as usize);
    let (share, smallest, largest) = BATCH;
    let smallest = of_budget(BATCH_OF_BUDGET, 1, smallest);
    let next = match asked {
        0 => of_budget(share_of_budget, least_of_budget, queries.max(least as usize)),
        asked if asked < start => (start - asked).max(smallest),
        asked => (asked / share).clamp(smallest, largest),
    };
    (start, next)
}
